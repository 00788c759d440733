"""The courier against a real server: what is asked and told is done in order; flush(), close() and the interpreter's end leave nothing behind."""

import asyncio
import random
import threading
import time

import pytest

from langchain_resilient.engine.store.redis.post.courier import DOWN, Courier, Operation
from tests.engine.store.redis.post.office import Box, await_it, in_threads, incr, key, run_python, slow, timed, until


def test_order_within_a_thread_is_kept(box: Box, made):
    """What one thread asks and tells, urgent or not, is done in that order, whoever carries it."""
    courier = made(box)

    def work(number: int) -> list[bytes]:
        name, rand = key(), random.Random(number)
        for turn in range(200):
            operation = Operation("push", (name,), (turn,))
            match rand.randrange(3):
                case 0:
                    assert courier.ask(operation).result() == turn + 1
                case 1:
                    courier.tell(operation)
                case _:
                    courier.tell(operation, urgent=False)
        assert courier.flush(5)
        with box.client() as client:
            return client.lrange(name, 0, -1)

    assert in_threads(work, 8) == [[b"%d" % turn for turn in range(200)]] * 8


def test_what_is_told_may_be_followed_up(box: Box, made):
    """`then` is told the reply to what was told, in order."""
    courier, name, replies = made(box), key(), []
    for _ in range(5):
        courier.tell(incr(name), then=replies.append)
    assert courier.flush(2) and replies == [1, 2, 3, 4, 5]


@pytest.mark.e2e
@pytest.mark.parametrize("who", ["a caller", "the thread"])
def test_flush_waits_for_what_is_under_way(box: Box, made, who: str):
    """While another carries what was told, flush() waits until that has come back; where it takes too long, it says that something is left."""
    courier, name, replies = made(box), key(), []
    courier.check()
    if who == "the thread":
        as_in_a_cluster(courier)
    for patience, answer in ((0.05, False), (5.0, True)):
        replies.clear()
        courier.tell(slow(300), urgent=False, then=replies.append)
        courier.tell(incr(name), urgent=False, then=replies.append)
        beside = threading.Thread(target=courier.ask(incr(name)).result)
        beside.start()
        until(lambda: courier._bag.empty, 5)
        assert courier.flush(patience) is answer and bool(replies) is answer
        beside.join()
        assert courier.flush(5)


def as_in_a_cluster(courier: Courier) -> None:
    """Only the courier's thread carries."""
    wire = courier._carriage.wire
    wire.for_callers = False
    wire._lines["it"] = wire._lines[None]
    wire._ranges = [(0, 16383, "it")]


def test_flush_leaves_nobody_waiting(box: Box, made):
    """What is asked while flush() holds the wire is carried as soon as that is over."""
    courier, name = made(box), key()
    courier.check()
    turn, letters = courier._carriage.turn, []

    def held(*arguments: object) -> None:
        turn(*arguments)
        if not letters:
            courier._carriage.turn = turn
            letters.append(asyncio.run_coroutine_threadsafe(await_it(courier.ask(incr(name))), loop))
            until(lambda: not courier._bag._rung)  # the thread found the wire taken
            time.sleep(0.02)

    loop = asyncio.new_event_loop()
    beside = threading.Thread(target=loop.run_forever)
    beside.start()
    try:
        courier._carriage.turn = held
        courier.flush(0.01)
        _, seconds = timed(lambda: letters[0].result(5))
        assert letters[0].result() == 1 and seconds < 1
    finally:
        loop.call_soon_threadsafe(loop.stop)
        beside.join()
        loop.close()


def test_close_flushes_and_then_nothing_is_asked(box: Box, made):
    """What was told before close() is done; afterwards every ask is DOWN and every tell dropped, and nothing hangs."""
    courier, name = made(box), key()
    courier.check()
    for _ in range(1000):
        courier.tell(incr(name), urgent=False)
    courier.close()
    courier.close()
    with box.client() as client:
        assert client.get(name) == b"1000"
    assert courier.ask(incr(name)).result() is DOWN
    courier.tell(incr(name))
    assert courier.dropped == 1 and courier._porter.ended.is_set()


@pytest.mark.e2e
@pytest.mark.parametrize("after", ["pass", "del courier"])
def test_what_was_told_is_done_when_the_interpreter_ends(box: Box, after: str):
    """A process that tells and ends has told: atexit flushes, also where nobody has kept the courier."""
    name = key()
    run_python(box, f"courier.tell(Operation('incr', ('{name}',), (5,)), urgent=False); {after}")
    with box.client() as client:
        assert client.get(name) == b"5"
