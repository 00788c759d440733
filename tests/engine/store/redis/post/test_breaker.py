"""What opens the breaker, what does not, and what closes it: servers that hang, are full or slow, and users who may not."""

import asyncio
import signal
import threading
import time

import pytest

from langchain_resilient.engine.store.redis.post.courier import DOWN, Courier, Denied
from tests.engine.store.redis.post.office import (
    SCRIPT,
    SLACK,
    Box,
    Changes,
    in_threads,
    incr,
    key,
    limited,
    slow,
    timed,
    timed_await,
    until,
)


@pytest.mark.e2e
def test_a_stopped_server(hurt: Box, made):
    """When the server hangs, whoever waits gets DOWN within the budget, the breaker opens at once, and closes when it goes on."""
    changes = Changes()
    courier, name = made(hurt.start(), changed=changes), key()
    assert courier.ask(incr(name)).result() == 1

    async def tasks() -> list:
        return await asyncio.gather(*(timed_await(courier.ask(incr(name))) for _ in range(20)))

    hurt.signal(signal.SIGSTOP)
    found: list = []
    beside = threading.Thread(target=lambda: found.extend(asyncio.run(tasks())))
    beside.start()
    found += in_threads(lambda _: timed(courier.ask(incr(name)).result), 12)
    beside.join()
    assert len(found) == 32 and {reply for reply, _ in found} == {DOWN}
    assert max(seconds for _, seconds in found) < 0.25 + SLACK
    until(lambda: changes, SLACK)
    assert not courier.up and [up for up, _ in changes] == [False] and "0.25 s" in changes[0][1]
    reply, seconds = timed(courier.ask(incr(name)).result)
    assert reply is DOWN and seconds < 0.02
    dropped = courier.dropped
    courier.tell(incr(name))
    assert courier.dropped == dropped + 1
    time.sleep(0.5)
    hurt.signal(signal.SIGCONT)
    until(lambda: courier.up)
    assert [up for up, _ in changes] == [False, True]
    assert courier.ask(incr(name)).result() > 1 and not courier.open


def test_whoever_waits_is_answered_when_the_breaker_opens(hurt: Box, made):
    """Where the server is known to be away, nobody waits for the rest of the budget."""
    courier = made(hurt, budget=5.0)
    reply, seconds = timed(courier.ask(incr(key())).result)
    assert reply is DOWN and seconds < 2.5


@pytest.mark.e2e
def test_a_full_server_is_an_outage(hurt: Box, made):
    """OOM, READONLY and the like open the breaker, and it closes when the probe can write again."""
    changes, name = Changes(), key()
    courier = made(hurt.start(), changed=changes, probe=incr("{t}:probe"))
    assert courier.ask(incr(name)).result() == 1
    with hurt.client() as client:
        client.config_set("maxmemory", 1)
        assert courier.ask(incr(name)).result() is DOWN and not courier.up and "OOM" in changes[0][1]
        time.sleep(0.4)
        assert not courier.up
        client.config_set("maxmemory", 0)
        until(lambda: courier.up)
        client.execute_command("REPLICAOF", "127.0.0.1", "1")
        assert courier.ask(incr(name)).result() is DOWN and not courier.up
        assert "read only" in changes[-1][1].lower() or "READONLY" in changes[-1][1]
        client.execute_command("REPLICAOF", "NO", "ONE")
        until(lambda: courier.up)
    assert courier.ask(incr(name)).result() == 2


@pytest.mark.e2e
def test_a_slow_server_stays_within_budgets(box: Box, made):
    """Where each batch takes 0.1 s, whoever is not reached in time gives up in time, and the breaker stays closed."""
    courier = made(box, budget=0.25)
    courier.check()
    found = in_threads(lambda number: timed(lambda: [courier.ask(slow(60)).result() for _ in range(2)]), 6)
    assert max(seconds for _, seconds in found) < 2 * (0.25 + SLACK)
    assert not courier.open


@pytest.mark.e2e
def test_a_refused_user_is_told_which_right_is_missing(hurt: Box, made, caplog: pytest.LogCaptureFixture):
    """A wrong password and a missing right raise from check(), without the password; a right that is taken away later is an outage."""
    hurt.start()
    with hurt.client() as client:
        limited(client)
        refused = {
            "lr:wrong-sesame": "invalid username-password pair",
            "nobody:wrong-sesame": "invalid username-password pair",
        }
        for login, text in refused.items():
            assert text in denied(hurt, login)
        assert denied(hurt, "lr:sesame") is None
        client.execute_command("ACL", "SETUSER", "lr", "-evalsha")
        assert "evalsha" in denied(hurt, "lr:sesame")
        client.execute_command("ACL", "SETUSER", "lr", "+evalsha", "-time")
        assert "backend" in denied(hurt, "lr:sesame")
        client.execute_command("ACL", "SETUSER", "lr", "+time", "-subscribe")
        assert "subscribe" in denied(hurt, "lr:sesame")

        changes = Changes()
        hurt_url = Courier(f"redis://lr:sesame@127.0.0.1:{hurt.port}", SCRIPT, changed=changes, probe=incr("{t}:probe"))
        hurt_url.check()
        assert hurt_url.ask(incr("{t}:x")).result() == 1
        caplog.clear()
        client.execute_command("ACL", "SETUSER", "lr", "-evalsha")
        assert hurt_url.ask(incr("{t}:x")).result() is DOWN and not hurt_url.up
        time.sleep(0.6)
        assert not caplog.text  # whoever is told of changes says so
        assert [up for up, _ in changes] == [False]
        assert (
            changes[0][1].startswith("backend: redis://127")
            and "evalsha" in changes[0][1]
            and "sesame" not in changes[0][1]
        )
        client.execute_command("ACL", "SETUSER", "lr", "+evalsha")
        until(lambda: hurt_url.up)
        hurt_url.close()


def denied(box: Box, login: str) -> str | None:
    """What check() raises for that user; the password is not in it."""
    url = f"redis://{login}@127.0.0.1:{box.port}"
    courier = Courier(url, SCRIPT, probe=incr("{t}:probe"), channel="{t}:news", budget=1.0)
    try:
        courier.check()
        return None
    except Denied as error:
        text = str(error)
    finally:
        courier.close()
    assert "sesame" not in f"{text} {courier!r}" and text.startswith("backend: redis://127.0.0.1")
    return text
