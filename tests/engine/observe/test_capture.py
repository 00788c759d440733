"""`capture_decisions`: the records of the calls made inside a block, and of no others."""

import asyncio
import contextvars
import threading

import pytest

from langchain_resilient.engine.events import Decided, Decision, FellBack
from langchain_resilient.engine.observe.capture import CaptureObserver, capture_decisions

OBSERVER = CaptureObserver()


def decided(number):
    """The event of a request's end."""
    return Decided(
        Decision(
            number, "a", "a", "answered", 1.0, None, (), (), "closed", False, None, None, False, "interactive", None
        )
    )


def test_what_is_decided_inside_is_collected():
    """In order; before and after the block nothing is."""
    OBSERVER(decided(1))
    with capture_decisions() as decisions:
        OBSERVER(decided(2))
        OBSERVER(decided(3))
        OBSERVER(FellBack("a", "b", "timeout"))
    OBSERVER(decided(4))
    assert [decision.request_id for decision in decisions] == [2, 3]


def test_blocks_may_be_nested():
    """The outer one collects what the inner one does."""
    with capture_decisions() as outer:
        OBSERVER(decided(1))
        with capture_decisions() as inner:
            OBSERVER(decided(2))
    assert ([item.request_id for item in outer], [item.request_id for item in inner]) == ([1, 2], [2])


def test_a_block_left_by_an_exception_is_left():
    """What comes after it is not collected."""
    with pytest.raises(ValueError, match="x"), capture_decisions() as decisions:
        raise ValueError("x")
    OBSERVER(decided(1))
    assert decisions == []


def test_other_callers_are_not_collected():
    """Another thread's calls are its own; a thread that carries the context is part of the block."""
    with capture_decisions() as decisions:
        for number, run in ((1, lambda: OBSERVER(decided(1))), (2, contextvars.copy_context().run)):
            arguments = () if number == 1 else (OBSERVER, decided(2))
            thread = threading.Thread(target=run, args=arguments)
            thread.start()
            thread.join()
    assert [decision.request_id for decision in decisions] == [2]


def test_tasks_begun_inside_are_collected():
    """Concurrent blocks in two tasks keep apart."""

    async def one(number):
        with capture_decisions() as decisions:
            await asyncio.gather(*[told(number * 10 + index) for index in range(2)])
        return [decision.request_id for decision in decisions]

    async def told(number):
        await asyncio.sleep(0)
        OBSERVER(decided(number))

    async def both():
        return await asyncio.gather(one(1), one(2))

    assert asyncio.run(both()) == [[10, 11], [20, 21]]
