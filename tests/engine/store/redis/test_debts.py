"""What has to be given back, when Redis can be told of it."""

from langchain_resilient.engine.classify import ErrorKind as K
from langchain_resilient.engine.quota import RateLimits
from langchain_resilient.engine.store.redis import debts, wire
from langchain_resilient.engine.store.redis.asking import Asked
from langchain_resilient.engine.store.redis.post.courier import DOWN
from tests.engine.harness import admitted, ask_for, settle, target
from tests.engine.store.redis.straight import alone, limited


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
    assert store._debts._ghosts == {} and store.status(item)["running"] == 0
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
    assert (store.status(item)["running"], store._debts._unsure) == (0, {})


def test_what_redis_granted_before_it_went_away_is_given_back(stores):
    """An attempt that ends, and a place in a line that is given up, while Redis is away: both are told of when it is back."""
    store, item = stores(), limited(concurrency=1)
    held = admitted(store, item)
    place = store.admit(ask_for(item, patience=60.0)).result().place
    alone(store, is_so=True)
    settle(store, held)
    store.leave(place)
    status = stores().status(item)
    assert (status["running"], status["waiting"]) == (1, 1)
    alone(store, is_so=False)
    status = store.status(item)
    assert (status["running"], status["waiting"]) == (0, 0)


def test_what_is_told_twice_does_no_harm(stores):
    """Giving a place back a second time frees nobody else's, and moves no limit."""
    store, item = stores(), limited(concurrency=2, rpm=60, burst=10)
    held, other = admitted(store, item), admitted(store, item)
    settle(store, held)
    before = store.status(item)
    store._courier.tell(store._debts.free(held))
    assert (store.status(item), before["running"]) == (before, 1)
    settle(store, other)


def test_debts_are_bounded(stores, monkeypatch):
    """Admissions unheard of by the thousand are forgotten: what they were granted lapses."""
    monkeypatch.setattr(debts, "MOST_OWED", 3)
    store, item = stores(), target("a")
    for _ in range(7):
        store._debts.unheard(Asked(ask_for(item), (), 0))
    assert len(store._debts._ghosts) == 1


def test_a_child_owes_nothing(stores):
    """What has to be given back after a fork is the parent's to give."""
    store, item = stores(), limited(concurrency=1)
    held = admitted(store, item)
    tell, store._courier.tell = store._courier.tell, lambda operation, **how: None
    settle(store, held)
    store._courier.tell = tell
    alone(store, is_so=True)
    store._debts.owe(wire.leave(store._keys, item, "nobody:0|0"))
    store._debts.unheard(Asked(ask_for(item), (), 0))
    store.forked()
    assert (store._debts._unsure, list(store._debts._owed), store._debts._ghosts) == ({}, [], {})
