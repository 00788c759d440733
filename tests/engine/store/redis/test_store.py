"""The shared store beside its courier: what is handed back, owed, mirrored and told."""

import asyncio
import random
import time

import pytest

from langchain_resilient.engine.classify import ErrorKind as K
from langchain_resilient.engine.effects import Queued, Ticket
from langchain_resilient.engine.events import CircuitChanged
from langchain_resilient.engine.quota import RateLimits
from langchain_resilient.engine.store.redis.post.courier import DOWN
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

    make.clock = clock
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


def alone(store, *, is_so):
    """Let Redis go away for one store, or come back."""
    store._courier.up = not is_so
    store._changed(not is_so, "test")
    if not is_so:
        store._connected()


def test_what_runs_counts_while_alone(stores):
    """Of four places, alone three are this process's; those that run since before are among them."""
    store, item = stores(), limited(concurrency=4)
    running = [admitted(store, item) for _ in range(4)]
    alone(store, is_so=True)
    assert store.admit(ask_for(item)).refusals[0].reason == "concurrency"
    settle(store, running.pop())
    settle(store, running.pop())
    running.append(admitted(store, item))
    assert store.admit(ask_for(item)).refusals[0].reason == "concurrency"


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


def test_a_model_for_each_customer_is_no_burden(stores):
    """A new model reads its own providers alone, a change at most 64 at once, and those whose models are gone are forgotten."""
    store, asked = stores(), []
    tell = store._courier.tell
    store._courier.tell = lambda operation, **how: (asked.append(operation), tell(operation, **how))

    def observe(event):
        pass

    kept = [target(f"k{number}") for number in range(100)]
    store.listen(observe, kept)
    for number in range(500):
        store.listen(lambda event: None, [target("a", account=f"a:{number}")])
    assert max(len(operation.keys) for operation in asked) <= 1 + 4 * 64
    assert len(asked[-1].keys) == 5
    assert len(store._known) <= 256
    assert {("k0", "k0:key"), ("k99", "k99:key")} <= set(store._known)


def test_who_gives_up_leaves_nothing(stores):
    """Admissions that are given up before they are sent keep no memory."""
    store, item = stores(), limited(rpm=1000)
    admitted(store, item)
    size = {name: len(thing) for name, thing in vars(store).items() if isinstance(thing, dict | set)}
    for _ in range(100):
        store.admit(ask_for(item))  # its reply is never looked at
    assert {name: len(thing) for name, thing in vars(store).items() if isinstance(thing, dict | set)} == size


def test_what_was_granted_unheard_is_given_back(stores):
    """An admission that Redis granted after its asker had given up waiting holds neither a probe's place nor a lease when Redis is back."""
    store, item = stores(), target("a", limits=RateLimits(concurrency=1))
    for _ in range(5):
        settle(store, admitted(store, item), K.SERVER_ERROR)
    stores.clock.advance(61.0)
    later = store.admit(ask_for(item))
    later._later.reply = DOWN  # the server did it all the same
    alone(store, is_so=True)
    settle(store, later.result(), K.CANCELLED)  # alone it was admitted a second time
    assert stores().status(item)["running"] == 1
    alone(store, is_so=False)
    assert store._ghosts == {} and store.status(item)["running"] == 0
    assert admitted(stores(), item).probe


def test_what_was_told_to_a_broken_connection_is_told_again(stores):
    """A lease's end that may not have come is told again over the next connection, though Redis was never away."""
    store, item = stores(), limited(concurrency=1)
    held = admitted(store, item)
    tell, store._courier.tell = store._courier.tell, lambda operation, **how: None
    settle(store, held)
    store._courier.tell = tell
    assert store.status(item)["running"] == 1
    store._connected()
    assert (store.status(item)["running"], store._unsure) == (0, {})


def test_a_circuit_that_healed_meanwhile_is_not_opened_again(stores):
    """A process whose own link was broken carries no open circuit into a fleet that knows better; what it found out alone it does."""
    here, there, item = stores(), stores(), target("a")
    for _ in range(5):
        settle(here, admitted(here, item), K.SERVER_ERROR)
    there._courier.flush()
    alone(there, is_so=True)
    stores.clock.advance(61.0)
    for _ in range(3):
        settle(here, admitted(here, item))
    alone(there, is_so=False)
    assert here.status(item)["circuit"] == "closed"


def test_what_redis_forgot_is_carried_to_it(stores):
    """An open circuit that an emptied server knows nothing of is open again when a process that knew comes back."""
    store, item = stores(), target("a")
    for _ in range(5):
        settle(store, admitted(store, item), K.SERVER_ERROR)
    alone(store, is_so=True)
    store._courier.talk.say("DEL", *store._keys.of(item))
    alone(store, is_so=False)
    assert store.status(item)["circuit"] == "open"
