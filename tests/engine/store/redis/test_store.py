"""The shared store beside its courier: what is handed back, owed, mirrored and told."""

import asyncio
import random
import time

import pytest

from langchain_resilient.engine.classify import ErrorKind as K
from langchain_resilient.engine.effects import Queued, Ticket
from langchain_resilient.engine.events import CircuitChanged
from langchain_resilient.engine.quota import RateLimits
from langchain_resilient.engine.store.redis.store import RedisStore
from langchain_resilient.testing.clock import FakeClock
from tests.engine.harness import admitted, ask_for, settle, target
from tests.engine.store.redis.straight import Straight


class Kept(Straight):
    """Remembers the last operation that was asked."""

    def ask(self, operation, orphaned=None):
        """Send it, and keep it."""
        self.asked = operation
        return super().ask(operation)


@pytest.fixture
def stores(redis_url, namespace):
    """Makes stores of one fleet, on one clock."""
    made = []
    clock = FakeClock()

    def make():
        made.append(
            RedisStore(
                redis_url, namespace, now=clock.now, rand=lambda: 0.5, clock=lambda: int(clock.now() * 1e6), courier=Kept
            )
        )  # fmt: skip
        return made[-1]

    yield make
    for store in made:
        store.close()


def limited(**limits):
    """A provider with these limits."""
    return target("a", limits=RateLimits(**limits))


def test_what_comes_for_somebody_who_is_gone_is_handed_back(stores):
    """An admission whose asker gave up: its lease, requests and tokens are free again at once."""
    store, item = stores(), limited(concurrency=1, rpm=60, burst=1, tpm=600)
    reply = store.admit(ask_for(item, input_tokens=50, max_output=10))._later.result()
    store._orphaned(store._courier.asked, reply)
    status = store.status(item)
    assert (status["running"], status["limits_free"]) == (0, {"rpm": 1.0, "tpm": 1.0})
    assert store._asking == {}


def test_a_probe_s_place_is_handed_back(stores):
    """The place of a probe that nobody waits for any more is the next one's."""
    store, item = stores(), target("a")
    for _ in range(5):
        settle(store, admitted(store, item), K.SERVER_ERROR)
    store._courier.clock, ahead = (lambda: 61_000_000 + ahead()), store._courier.clock
    reply = store.admit(ask_for(item))._later.result()
    store._orphaned(store._courier.asked, reply)
    assert admitted(store, item).probe


def test_a_place_in_a_line_is_handed_back(stores):
    """A place in a line whose asker gave up does not bar the line."""
    store, item = stores(), limited(concurrency=1)
    held = admitted(store, item)
    reply = store.admit(ask_for(item, patience=60.0))._later.result()
    store._orphaned(store._courier.asked, reply)
    assert store.status(item)["waiting"] == 0
    settle(store, held)
    admitted(store, item)


async def test_a_cancelled_task_holds_nothing(redis_url, namespace):
    """Cancelled while the server thinks: what it grants is handed back when its answer comes."""
    store, item = RedisStore(redis_url, namespace, now=time.monotonic, rand=random.random), limited(concurrency=3)
    try:
        settle(store, await store.admit(ask_for(item)))
        store.flush()
        import redis

        with redis.Redis.from_url(redis_url) as client:
            client.execute_command("CLIENT", "PAUSE", 150, "ALL")
            tasks = [asyncio.create_task(_wait(store, item)) for _ in range(3)]
            await asyncio.sleep(0.05)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for _ in range(100):
                if store._asking == {} and store.status(item)["running"] == 0:
                    break
                await asyncio.sleep(0.02)
        status = store.status(item)
        assert (status["shared"], status["running"], store._asking) == (True, 0, {})
    finally:
        store.close()


async def _wait(store, item):
    return await store.admit(ask_for(item))


def test_a_mirror_follows_the_fleet(stores):
    """A circuit that opens elsewhere is open here: told once, and seen by who ranks."""
    here, there, item = stores(), stores(), target("a")
    heard = []

    def observe(event):
        heard.append(event)

    there.listen(observe, [item])
    for _ in range(5):
        settle(here, admitted(here, item), K.SERVER_ERROR)
    there._courier.flush()
    assert heard == [CircuitChanged("a", "closed", "open", "server_error")]
    assert there.status(item)["circuit"] == "open"


def test_who_is_first_in_line_is_woken_by_another_process(stores):
    """A place that becomes free in one process wakes whoever has waited longest, in any."""
    here, there, item = stores(), stores(), limited(concurrency=1)
    held = admitted(here, item)
    waiting = there.admit(ask_for(item, patience=60.0)).result()
    assert isinstance(waiting, Queued) and not waiting.place.woken
    settle(here, held)
    there._courier.flush()
    assert waiting.place.woken


def test_one_process_s_report_counts_in_all(stores):
    """Five failures in five processes open the circuit for the sixth."""
    item = target("a")
    for _ in range(5):
        each = stores()
        ticket = each.admit(ask_for(item)).result()
        assert isinstance(ticket, Ticket)
        settle(each, ticket, K.SERVER_ERROR)
    assert stores().admit(ask_for(item)).result().refusals[0].reason == "circuit_open"
