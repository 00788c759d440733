"""The harness of tests/servers.py and tests/server_groups.py does what the tests of the Redis store rely on."""

import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

redis = pytest.importorskip("redis", reason="no redis-py: `pip install redis`")

from redis.exceptions import AuthenticationError, NoPermissionError, OutOfMemoryError, RedisError  # noqa: E402  # see above

from tests.server_groups import Cluster, Sentinel  # noqa: E402
from tests.servers import (  # noqa: E402
    NoServerError,
    Server,
    apt_binary,
    binary_or_skip,
    client_of,
    floor_binary,
    rights,
    until,
    valkey_binary,
)

pytestmark = pytest.mark.e2e
ROOT = Path(__file__).parent.parent
EACH = pytest.mark.parametrize(
    "find", [valkey_binary, floor_binary, pytest.param(apt_binary, marks=pytest.mark.system("redis-server"))]
)


def gone(pid: int) -> bool:
    """Whether there is no such process, or only its entry in a table that its adoptive parent does not tidy."""
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout
    return not state.strip() or state.startswith("Z")


# ── one server ───────────────────────────────────────────────────────────────────────────────────────────────────────


@EACH
def test_a_killed_server_is_gone_and_comes_back_empty_at_the_same_place(find: Callable[[], Path]):
    """`kill` leaves nobody at the port, and `restart` a new and empty server there, for the same client."""
    with Server(binary_or_skip(find)) as server:
        url, client, first = server.url, server.client(), server.pid
        client.set("key", "value")
        server.kill()
        assert gone(first) and not server.alive
        with pytest.raises(redis.ConnectionError):
            server.client().ping()
        server.restart()
        assert (server.url, client.get("key")) == (url, None)
        assert server.pid != first


@EACH
def test_a_stopped_server_hangs_and_goes_on_with_what_it_was_sent(find: Callable[[], Path]):
    """`stop` takes connections and answers nothing; after `cont` what was sent meanwhile is done."""
    with Server(binary_or_skip(find)) as server:
        client = server.client(socket_timeout=0.1)
        client.ping()  # a new connection would wait for an answer to its greeting, and send no increment
        server.stop()
        assert server.alive
        for each in (client, server.client(socket_timeout=0.1)):
            with pytest.raises(redis.TimeoutError):
                each.incr("counter")
        server.cont()
        until(lambda: server.client().get("counter") == b"1", "the increment is done")


def test_a_stopped_server_can_be_closed():
    """`close` needs no answer of the server, and leaves neither process nor directory."""
    server = Server(binary_or_skip(valkey_binary))
    server.stop()
    server.close()
    assert gone(server.pid) and not server.folder.exists()
    server.close()


def test_a_server_that_cannot_start_says_why_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A bad setting or a port that is taken is in the error, from the server's own mouth."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(RuntimeError, match="no-such-setting"):
        Server(binary_or_skip(valkey_binary), config=["no-such-setting 1"])
    with Server(binary_or_skip(valkey_binary)) as server, pytest.raises(RuntimeError, match="in use"):
        Server(port=server.port)
    assert list(tmp_path.iterdir()) == []


@EACH
def test_a_user_with_the_minimum_rights_may_run_a_script_and_nothing_else(find: Callable[[], Path]):
    """`rights` lets a user run scripts on keys of the pattern, and neither empty the server nor read another's key."""
    users = {"limiter": ("secret", rights("{lr1:*"))}
    with Server(binary_or_skip(find), password="main", users=users) as server:
        script = "redis.call('HSET', KEYS[1], 'a', redis.call('TIME')[1]); return redis.call('PUBLISH', KEYS[1], 'x')"
        with client_of(server.url_of("limiter")) as limited:
            assert limited.evalsha(limited.script_load(script), 1, "{lr1:mine}:s") == 0
            for command in (["FLUSHALL"], ["HGETALL", "other"], ["CONFIG", "GET", "requirepass"]):
                with pytest.raises(NoPermissionError):
                    limited.execute_command(*command)
            with pytest.raises(redis.ResponseError):
                limited.evalsha(limited.script_load(script), 1, "other")
        for url in (server.url_of("limiter", "wrong"), server.url_of(None, "wrong")):
            with client_of(url) as wrong, pytest.raises(AuthenticationError):
                wrong.ping()


@EACH
def test_limits_of_memory_and_of_connections_are_the_servers_own(find: Callable[[], Path]):
    """With `maxmemory` a write is refused in the end, with `maxclients` a connection."""
    with Server(binary_or_skip(find), maxmemory="6mb", maxclients=3) as server:
        client = server.client()
        with pytest.raises(OutOfMemoryError):
            for number in range(2000):
                client.set(f"key-{number}", "x" * 10_000)
        with pytest.raises(redis.ConnectionError):
            for _ in range(4):
                server.client().ping()


@EACH
def test_a_replica_holds_a_copy_takes_no_write_and_can_be_promoted(find: Callable[[], Path]):
    """`replica_of` waits for the first copy; a write is refused until `promote`."""
    binary = binary_or_skip(find)
    with Server(binary, password="main") as primary:
        primary.client().set("key", "value")
        with Server(binary, password="main", replica_of=primary) as replica:
            assert replica.client().get("key") == b"value"
            with pytest.raises(redis.ReadOnlyError):
                replica.client().set("key", "other")
            replica.promote()
            assert replica.client().set("key", "other")


@EACH
def test_a_unix_socket_is_all_that_such_a_server_has(find: Callable[[], Path]):
    """`unix` gives a unix:// URL that works, with a password too."""
    with Server(binary_or_skip(find), unix=True, password="main") as server:
        assert server.url == f"unix://:main@{server.socket_path}"
        assert server.client().ping()
        server.restart()
        assert server.client().ping()


@EACH
def test_tls_takes_no_plain_connection_and_checks_the_authority(find: Callable[[], Path]):
    """`tls` gives a rediss:// URL that trusts the server's authority; without TLS, or with another authority, nothing is answered."""
    with Server(binary_or_skip(find), tls=True, password="main") as server:
        assert server.url.startswith("rediss://")
        client = server.client()
        assert client.ping()
        server.kill()
        with pytest.raises(redis.ConnectionError):
            client.ping()
        server.restart()
        assert client.ping()
        for url in (f"redis://127.0.0.1:{server.port}", f"rediss://127.0.0.1:{server.port}"):
            with client_of(url) as stranger, pytest.raises(redis.ConnectionError):
                stranger.ping()


# ── several ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@EACH
def test_a_cluster_takes_keys_of_every_slot_and_a_killed_node_finds_it_again(find: Callable[[], Path]):
    """Keys land on each of the three nodes; a killed one is a member again after `restart` and `wait`."""
    with Cluster(binary_or_skip(find)) as cluster:
        client = cluster.client()
        keys = [f"key-{number}" for number in range(30)]
        for key in keys:
            client.set(key, key)
        assert [client.get(key).decode() for key in keys] == keys
        assert {cluster.server_of(key) for key in keys} == set(cluster.primaries)
        node = cluster.server_of("key-1")
        node.kill()
        assert cluster.server_of("key-1") is node  # nobody replaces it
        node.restart()
        cluster.wait()
        assert client.get("key-1") is None and client.set("key-1", "again")
        client.close()


def test_a_sentinel_promotes_the_replica_of_a_killed_primary():
    """After `failover` the replica is the primary, has the data, and every sentinel names it."""
    with Sentinel(binary_or_skip(valkey_binary), password="main") as group:
        group.client().set("key", "value")
        group.client().wait(1, 1000)
        first = group.primary
        group.failover()
        assert group.primary is not first and not first.alive
        assert group.client().get("key") == b"value" and group.client().set("key", "other")


# ── nothing is left behind ───────────────────────────────────────────────────────────────────────────────────────────

PROGRAM = """
import os, signal, time
from tests.servers import Server
server = Server()
print(server.pid, server.folder, flush=True)
{end}
"""


@pytest.mark.parametrize(
    "end",
    ["os.kill(os.getpid(), signal.SIGKILL)", "os._exit(1)", "raise SystemExit", "time.sleep(60)"],
    ids=["killed", "exits-at-once", "ends", "interrupted"],
)
def test_a_server_whose_process_ended_ends_too(end: str):
    """A server that nobody closed ends with the process that started it, however that ends, and its directory goes too."""
    binary_or_skip(valkey_binary)
    command = [sys.executable, "-c", PROGRAM.format(end=end)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        pid, folder = process.stdout.readline().split()
        if "sleep" in end:
            process.send_signal(signal.SIGINT)
    until(lambda: gone(int(pid)) and not Path(folder).exists(), "the server and its directory are gone")


# ── the fixtures ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_servers_url_and_a_namespace_are_all_a_test_needs(redis_url: str, namespace: str):
    """`redis_url` answers, and what another test wrote is in another `namespace`."""
    with client_of(redis_url) as client:
        assert client.incr(f"{{lr1:{namespace}}}:counter") == 1
        client.delete(f"{{lr1:{namespace}}}:counter")


def test_every_server_that_is_supported_is_met(every_redis: Server):
    """`every_redis` is Valkey 9, then Redis 6.2, then the distribution's Redis."""
    told = every_redis.info("server")
    major = str(told.get("valkey_version") or told["redis_version"]).split(".")[0]
    assert major in {"9", "6", "7", "8"}


def test_a_missing_server_is_a_skip_by_name_and_a_failure_under_ci(monkeypatch: pytest.MonkeyPatch):
    """What pip could have provided fails under CI, and what it couldn't is skipped there too."""

    def find(*, expected: bool) -> Path:
        raise NoServerError("no Redis of that kind", expected=expected)

    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="no Redis of that kind"):
        binary_or_skip(lambda: find(expected=False))
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="no Redis of that kind"):
        binary_or_skip(lambda: find(expected=False))
    with pytest.raises(pytest.skip.Exception):
        binary_or_skip(lambda: find(expected=True))


def test_waiting_has_an_end():
    """`until` names what did not come, and the last error of the server."""

    def refuse() -> bool:
        raise RedisError("not yet")

    with pytest.raises(AssertionError, match=r"the moon is blue \(last: RedisError: not yet"):
        until(refuse, "the moon is blue", within=0.05)
