"""What was asked and told and is not on its way yet: how much of it goes at once, when, how much is kept, and that finalizers may tell anywhere."""

import gc

import pytest

from langchain_resilient.engine.store.redis.post.courier import Courier, Operation
from tests.engine.store.redis.post.office import SLACK, Box, incr, key, timed, until


def test_a_batch_has_a_limit_and_each_key_once(box: Box, made):
    """At most 256 operations go at once, and the keys of a batch are sent once each."""
    courier, name = made(box), key()
    courier.check()
    before = box.batches()
    for _ in range(599):
        courier.ask(incr(name))
    last = courier.ask(Operation("keys", (name, name), ()))
    assert last.result() == 1
    assert box.batches() - before == 3
    with box.client() as client:
        assert client.get(name) == b"599"


def test_what_is_told_urgently_goes_at_once_and_the_rest_soon(box: Box, made):
    """An urgent tell is carried without delay; others wait for company, 0.1 s at most, and then go together."""
    courier, name = made(box), key()
    courier.check()
    with box.client() as client:
        courier.tell(incr(name))
        until(lambda: client.get(name) == b"1", 0.09)
        before = box.batches()
        for _ in range(50):
            courier.tell(incr(name), urgent=False)
        until(lambda: client.get(name) == b"51", 0.1 + SLACK)
        assert box.batches() - before <= 2


def test_what_is_told_is_bounded(hurt: Box, made):
    """Of more than 10,000 that nobody could carry yet the oldest are dropped, and counted."""
    courier, name = made(hurt), key()
    courier._porter.unstarted.clear()
    for number in range(10_020):
        courier.tell(Operation("push", (name,), (number,)))
    assert courier.dropped == 20 and len(courier._bag._told) == 10_000 and courier._bag._told[0][1].words == (20,)


class Dropped:
    """Tells when it is collected."""

    def __init__(self, courier: Courier, operation: Operation) -> None:
        self.told = (courier, operation)
        self.myself = self  # a cycle, so that only the collector finds it

    def __del__(self) -> None:
        self.told[0].tell(self.told[1])


@pytest.mark.e2e
def test_a_finalizer_may_tell_anywhere(box: Box, made):
    """Finalizers that tell at any allocation, also inside the courier's own steps, block nothing and lose nothing."""
    courier, name, told = made(box), key(), key()
    courier.check()
    before = gc.get_threshold()
    gc.set_threshold(1)
    try:
        for turn in range(1, 401):
            Dropped(courier, incr(told))
            reply, seconds = timed(courier.ask(incr(name)).result)
            assert reply == turn and seconds < 0.25
    finally:
        gc.set_threshold(*before)
    gc.collect()
    assert courier.flush(2)
    with box.client() as client:
        assert client.get(told) == b"400"


def test_a_finalizer_may_tell_while_the_wire_is_held(box: Box, made):
    """A tell in the thread that carries, in the middle of a batch, returns at once and is carried afterwards."""
    name, courier = key(), None
    courier = made(box, adopt=lambda *_: courier.tell(incr(name)) if courier.dropped == 0 and not told else None)
    told: list[bool] = []
    courier.ask(incr(key())).result()
    told.append(True)
    assert courier.flush(2)
    with box.client() as client:
        assert int(client.get(name)) >= 1
