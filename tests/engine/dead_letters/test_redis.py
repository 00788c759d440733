"""The box in Redis: what lies there, for whom, and what it needs."""

import pytest

from langchain_resilient.engine.dead_letters.box import BoxAwayError, BoxError
from langchain_resilient.engine.dead_letters.letter import scoped
from langchain_resilient.engine.dead_letters.redis import RedisBox
from langchain_resilient.engine.errors import SettingsError
from langchain_resilient.engine.store.redis.post.dial import slot_of
from tests.engine.dead_letters.post import TENANT, Place, ids, letter
from tests.servers import Server, client_of, until

RIGHTS = (
    "-@all +evalsha +script|load +client|setname +ping +del +exists +hdel +hexists +hget +hmget +hset +hincrby +pexpire +pttl +time +xack +xadd"
    " +xdel +xgroup +xreadgroup +zadd +zcard +zcount +zrange +zrangebyscore +zrem +zscore"
)


@pytest.fixture
def place(redis_url, namespace, tmp_path):
    """Boxes in Redis only."""
    made = Place("redis", tmp_path, redis_url, namespace)
    yield made
    made.close()


@pytest.fixture
def there(redis_url):
    """What another program sees in Redis."""
    with client_of(redis_url) as client:
        yield client


def whole_life(box):
    """Every operation of a box, once at least."""
    box.put(letter(1))
    box.put(letter(2))
    box.put(letter(3, not_before=1e12))
    first, second = box.claim(10, 60.0)
    box.renew([first], 60.0)
    box.release(second, 0.0, counted=False)
    (second,) = box.claim(10, 60.0)
    box.park(second, "by hand")
    box.unpark(second.id)
    assert box.finish(first, "answer")
    assert box.result("key-1", TENANT).value == "answer"
    assert ids(box.letters()) == ["id-0002", "id-0003"]
    assert box.get("id-0002").tenant == "acme"
    assert box.counts()[:3] == (2, 0, 0)
    assert box.purge(before=1e12) == 2


def test_a_claimed_letter_is_pending_in_the_group(place, there):
    """Letters are entries of a stream that a consumer group reads; what is held is pending there, what ended is gone, and no process leaves a name."""
    box, other = place(), place()
    stream = f"{{lr1:{place.namespace}:letters}}:stream"
    for number in range(1, 4):
        box.put(letter(number))
    assert [entry[b"id"] for _, entry in there.xrange(stream)] == [b"id-0001", b"id-0002", b"id-0003"]
    taken = box.claim(2, 60.0)
    assert there.xpending(stream, "replay")["pending"] == 2
    place.clock.advance(60)
    again = other.claim(2, 60.0)
    assert ids(again) == ids(taken)
    for held in again:
        other.finish(held, 1)
    assert there.xlen(stream) == 1
    assert there.xpending(stream, "replay")["pending"] == 0
    # A name for each process would outlive it: a job of each minute would leave 1440 a day.
    assert len(there.xinfo_consumers(stream, "replay")) == 1


def test_one_slot_and_no_names_in_keys(place, there):
    """All keys of a namespace are in one hash slot, and hold neither idempotency keys nor tenants; results have a TTL and letters none."""
    box = place(keep=600.0)
    box.put(letter(1))
    box.put(letter(2))
    box.finish(box.claim(1, 60.0)[0], "answer")
    keys = [key.decode() for key in there.keys(f"*{place.namespace}*")]
    assert len(keys) >= 6
    assert {slot_of(key) for key in keys} == {slot_of(f"{{lr1:{place.namespace}:letters}}")}
    assert not [key for key in keys if "key-" in key or "acme" in key]
    kept = {key for key in keys if there.ttl(key) > 0}
    assert {key.rpartition(":")[2] for key in kept} == {"results", "lapses"}
    assert all(600 <= there.ttl(key) <= 660 for key in kept)


def test_nothing_is_left(place, there):
    """When all letters have ended and all results are forgotten, what is left of a letter is nothing."""
    box = place(keep=60.0)
    whole_life(box)
    place.clock.advance(61)
    box.claim(1, 1.0)
    left = {key.decode().rpartition(":")[2] for key in there.keys(f"*{place.namespace}*")}
    assert left == {"stream"}
    assert there.xlen(f"{{lr1:{place.namespace}:letters}}:stream") == 0


def test_the_servers_own_clock(redis_url, namespace, tmp_path):
    """Without a clock of its own the box goes by the server's."""
    box = RedisBox(redis_url, namespace, spool=tmp_path)
    box.put(letter(1, not_before=1e12))
    box.put(letter(2))
    assert ids(box.claim(10, 60.0)) == ["id-0002"]
    box.close()


def test_a_letter_that_was_answered_elsewhere_is_ended(place, there):
    """A letter whose key has a result, however it came to that, is ended instead of handed out."""
    box = place()
    box.put(letter(1))
    box.put(letter(2))
    prefix = f"{{lr1:{place.namespace}:letters}}"
    key = scoped("key-1", TENANT)
    there.hset(f"{prefix}:results", key, '["id-9", "1", "{}"]')
    there.zadd(f"{prefix}:lapses", {key: 1e18})
    assert ids(box.claim(10, 60.0)) == ["id-0002"]
    assert box.get("id-0001") is None


def test_what_others_left_in_the_stream(place, there):
    """Neither a foreign entry nor a letter that a server evicted stands in the way of the others."""
    box = place()
    prefix = f"{{lr1:{place.namespace}:letters}}"
    there.xadd(f"{prefix}:stream", {"x": "y"})
    for number in range(1, 5):
        box.put(letter(number))
    there.delete(f"{prefix}:l:id-0001")
    taken = box.claim(2, 60.0)
    assert ids(taken) == ["id-0002", "id-0003"]
    there.delete(f"{prefix}:l:id-0002")
    place.clock.advance(60)
    assert ids(box.claim(10, 60.0)) == ["id-0003", "id-0004"]


@pytest.mark.e2e
def test_every_server(every_redis, namespace, tmp_path):
    """Every operation works on each server that is supported, for a user with no more rights than are named."""
    with client_of(every_redis.url) as admin:
        user = f"u{namespace[-8:]}"
        admin.execute_command(
            "ACL", "SETUSER", user, "on", ">pass", "resetkeys", f"~{{lr1:{namespace}:letters}}*", *RIGHTS.split()
        )
        box = RedisBox(every_redis.url_of(user, "pass"), namespace, spool=tmp_path)
        try:
            whole_life(box)
            assert [entry for entry in admin.acl_log() if entry["username"] == user] == []
        finally:
            box.close()
            admin.execute_command("ACL", "DELUSER", user)
    assert not list(tmp_path.iterdir())


def test_a_user_who_may_not(redis_server, tmp_path, namespace):
    """A wrong password, or a right that is missing, is told at opening, without the password."""
    with pytest.raises(SettingsError, match="refuses this user") as caught:
        RedisBox(redis_server.url_of("nobody", "planted"), namespace, spool=tmp_path)
    assert "planted" not in str(caught.value)


def test_flushed_scripts(place, there):
    """A server that forgot the script is given it again, and nothing is done twice."""
    box = place()
    box.put(letter(1))
    there.script_flush()
    assert box.put(letter(2))
    there.script_flush()
    assert ids(box.claim(1, 60.0)) == ["id-0001"]
    assert box.counts()[:3] == (1, 1, 0)


def test_a_key_of_another_type(place, there):
    """What the script can't do is an error of the box, and the connection goes on."""
    box = place()
    there.set(f"{{lr1:{place.namespace}:letters}}:parked", "not ours")
    with pytest.raises(BoxError, match="WRONGTYPE") as caught:
        box.counts()
    assert not isinstance(caught.value, BoxAwayError)
    there.delete(f"{{lr1:{place.namespace}:letters}}:parked")
    assert box.counts().waiting == 0


@pytest.mark.e2e
def test_a_server_that_is_full(namespace, tmp_path):
    """A server out of memory takes no letter, so it is spooled; letters are claimed, ended and purged there all the same."""
    with Server() as server:
        box = RedisBox(server.url, namespace, spool=tmp_path)
        box.put(letter(1))
        box.put(letter(2))
        with server.client() as client:
            held = box.claim(1, 60.0)[0]
            client.config_set("maxmemory", "1")
            assert box.put(letter(3))
            assert box.counts().spooled == 1
            assert box.claim(1, 60.0)[0].id == "id-0002"
            assert box.finish(held, "answer")
            assert box.result("key-1", TENANT).value == "answer"
            assert box.purge(ids=["id-0002"]) == 1
            client.config_set("maxmemory", "0")
        until(lambda: box._spool.empty, "the spooled letter has followed", within=20)
        assert ids(box.letters()) == ["id-0003"]
        box.close()


@pytest.mark.e2e
def test_a_cluster(namespace, tmp_path):
    """In a cluster a namespace's box is on one node, found by itself."""
    from tests.server_groups import Cluster

    with Cluster() as cluster:
        box = RedisBox(cluster.url, namespace, spool=tmp_path)
        whole_life(box)
        box.close()
