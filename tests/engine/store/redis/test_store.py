"""The shared store beside its courier: what is handed back, called and told."""

import asyncio
import random
import time
from collections import deque

import pytest

from langchain_resilient.engine.classify import ErrorKind as K
from langchain_resilient.engine.effects import Queued, Ticket
from langchain_resilient.engine.store.redis.store import RedisStore
from tests.engine.harness import admitted, ask_for, settle, target
from tests.engine.store.redis.straight import alone, limited


def test_what_comes_for_somebody_who_is_gone_is_handed_back(stores):
    """An admission whose asker gave up: its lease, requests and tokens are free again at once."""
    store, item = stores(), limited(concurrency=1, rpm=60, burst=1, tpm=600)
    reply = store.admit(ask_for(item, input_tokens=50, max_output=10))._later.result()
    store._orphaned(store._courier.asked, reply)
    status = store.status(item)
    assert (status["running"], status["limits_free"]) == (0, {"rpm": 1.0, "tpm": 1.0})


def test_a_probe_s_place_is_handed_back(stores):
    """The place of a probe that nobody waits for any more is the next one's."""
    store, item = stores(), target("a")
    for _ in range(5):
        settle(store, admitted(store, item), K.SERVER_ERROR)
    stores.clock.advance(61.0)
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
                if store.status(item)["running"] == 0:
                    break
                await asyncio.sleep(0.02)
        status = store.status(item)
        assert (status["shared"], status["running"]) == (True, 0)
    finally:
        store.close()


async def _wait(store, item):
    return await store.admit(ask_for(item))


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


def test_what_runs_counts_when_redis_is_back(stores):
    """Whatever Redis forgot: those that run on, admitted by it or without it, hold places again, and give them back."""
    store, item = stores(), limited(concurrency=4)
    running = [admitted(store, item) for _ in range(2)]
    alone(store, is_so=True)
    running.append(admitted(store, item))
    store._courier.talk.say("DEL", *list(store._courier.talk.say("KEYS", f"{store._keys.prefix}*")))
    alone(store, is_so=False)
    assert store.status(item)["running"] == 3
    running.append(admitted(store, item))
    assert store.admit(ask_for(item)).result().refusals[0].reason == "concurrency"
    for ticket in running:
        settle(store, ticket)
    assert (store.status(item)["running"], store._holding) == (0, {})


@pytest.mark.parametrize("news", [b"gone", b"lost"])
def test_where_the_news_is_cut_off_everybody_asks_again(stores, news):
    """A call to the front may have been among what was lost, so all who stand in a line are woken; a mere change wakes nobody."""
    store, item = stores(), limited(concurrency=1)
    admitted(store, item)
    places = [store.admit(ask_for(item, patience=60.0)).result().place for _ in range(2)]
    store._heard(b"changed")
    assert [place.woken for place in places] == [False, False]
    store._heard(news)
    assert [place.woken for place in places] == [True, True]


def test_who_gives_up_leaves_nothing(stores):
    """Admissions that are given up before they are sent keep no memory."""
    store, item = stores(), limited(rpm=1000)
    admitted(store, item)
    size = _sizes(store)
    for _ in range(100):
        store.admit(ask_for(item))  # its reply is never looked at
    assert _sizes(store) == size


def _sizes(store):
    parts = (store, store._lines, store._debts, store._exchange)
    return [
        {name: len(thing) for name, thing in vars(part).items() if isinstance(thing, dict | set | deque)}
        for part in parts
    ]
