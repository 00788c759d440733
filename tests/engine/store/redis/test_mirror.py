"""What a process knows of the fleet, and what it does alone."""

import time

from langchain_resilient.engine.circuit import CircuitState
from langchain_resilient.engine.classify import ErrorKind as K
from langchain_resilient.engine.events import CircuitChanged, CredentialBlocked
from langchain_resilient.engine.quota import Scale
from langchain_resilient.engine.store.account import Account
from langchain_resilient.engine.store.redis.mirror import mirrored
from langchain_resilient.engine.store.redis.store import RedisStore
from langchain_resilient.engine.store.redis.wire import Seen
from langchain_resilient.engine.store.state import Route
from tests.engine.harness import admitted, ask_for, settle, target
from tests.engine.store.redis.straight import alone, limited


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


SEEN = Seen(
    CircuitState("open", 4, until=70_000_000, raced_at=60_000_000), "metrics_only", "timeout", 50_000_000, Scale(800, 40_000_000),
    90_000_000, "auth", 0, -1, 0, 0, 0, (),
)  # fmt: skip


def test_what_redis_keeps_is_taken_over_in_our_time():
    """Its clock is 10 s ahead: all its times are 10 s less here."""
    route, account = Route(), Account()
    mirrored(target("a"), route, account, SEEN, 10_000_000, 60_000_000)
    assert (route.circuit.until, route.circuit.raced_at, route.circuit.generation) == (60_000_000, 50_000_000, 4)
    assert (route.override, route.explored_at) == ("metrics_only", 40_000_000)
    assert account.scale == Scale(800, 30_000_000)
    assert (account.blocked_until, account.blocked_reason) == (80_000_000, "auth")


def test_only_what_is_new_is_news():
    """A circuit that changed and a credential that is out for good are told once; a block of seconds, or one that is over, is not."""
    route, account, item = Route(), Account(), target("a")
    news = [CredentialBlocked("a", "auth", 20.0), CircuitChanged("a", "closed", "open", "timeout")]
    assert mirrored(item, route, account, SEEN, 10_000_000, 60_000_000) == news
    assert mirrored(item, route, account, SEEN, 10_000_000, 60_000_000) == []
    assert mirrored(item, Route(), Account(), SEEN, 10_000_000, 80_000_000)[1:] == []
    short = SEEN._replace(blocked_reason="blocked", circuit=CircuitState())
    assert mirrored(item, Route(), Account(), short, 10_000_000, 60_000_000) == []


def test_a_reset_holds_in_the_whole_fleet(stores):
    """Who vouches for a provider in one process has it asked at once in all; the others' observers hear that the circuit closed."""
    here, there, item = stores(), stores(), target("a")
    heard = []

    def observe(event):
        heard.append(event)

    there.listen(observe, [item])
    late = admitted(here, item)
    for _ in range(5):
        settle(here, admitted(here, item), K.SERVER_ERROR)
    settle(here, late, K.AUTH)
    here.override(item, "forced_open")
    there._courier.flush()
    here.reset(item, blocks=False)
    status = there.status(item)
    assert (status["circuit"], status["override"], status["blocked"]) == ("closed", None, "auth")
    here.reset(item)
    assert there.status(item)["blocked"] is None
    settle(there, admitted(there, item))
    assert [event for event in heard if isinstance(event, CircuitChanged)] == [
        CircuitChanged("a", "closed", "open", "server_error"), CircuitChanged("a", "open", "closed", "reset"),
    ]  # fmt: skip


def test_what_is_read_at_any_time_asks_nobody(stores, monkeypatch):
    """A circuit's state, and whether Redis is there, are what this process knows: no scrape waits for a round trip."""
    here, item, other = stores(), target("a"), target("never asked")
    for _ in range(5):
        settle(here, admitted(here, item), K.SERVER_ERROR)
    here._courier.flush()
    for how in ("ask", "tell"):
        monkeypatch.setattr(here._courier, how, None)
    assert (here.phase(item), here.phase(other), here.is_alone()) == ("open", "closed", False)
    here._alone = True
    assert here.is_alone()


def test_a_store_is_named_without_its_password():
    """By its servers and the namespace: two stores of one process are two, and any observer may write the name anywhere."""
    places = set()
    for number, namespace in ((1, "x"), (1, "y"), (2, "x")):
        url = f"redis://somebody:right-one@127.0.0.1:{number}/0"
        store = RedisStore(url, namespace, now=time.monotonic, rand=lambda: 0.5)
        places.add(store.place)
        store.close()
    assert len(places) == 3
    assert not [place for place in places if "right-one" in place or "somebody" in place]


def test_a_reset_while_redis_is_away_holds_here():
    """Alone, a process lets its own requests flow; of all that the fleet is told later that nothing is set by hand any more."""
    store, item = RedisStore("redis://127.0.0.1:1", "away", now=time.monotonic, rand=lambda: 0.5), target("a")
    try:
        for _ in range(5):
            settle(store, admitted(store, item), K.SERVER_ERROR)
        store.override(item, "forced_open")
        assert store.reset(item) == (CircuitChanged("a", "open", "closed", "reset"),)
        assert not admitted(store, item).probe
        assert store._due == {("a", "a:key"): None}
    finally:
        store.close()
