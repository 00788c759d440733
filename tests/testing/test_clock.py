"""FakeClock: time that passes only when somebody waits."""

import asyncio
import threading

from langchain_resilient.engine.policy import Clock, SystemClock
from langchain_resilient.testing import FakeClock


def test_sleeping_passes_time_at_once():
    """A sleep moves the clock on by its length, and is remembered."""
    clock = FakeClock(start=100.0)
    clock.sleep(2.5)
    clock.advance(1.0)
    assert clock.now() == 103.5 and clock.sleeps == [2.5]


async def test_async_sleeping_lets_others_run():
    """An async sleep moves the clock on as well, after others had their turn."""
    clock, order = FakeClock(), []

    async def other() -> None:
        order.append("other")

    task = asyncio.create_task(other())
    await clock.asleep(3.0)
    order.append("slept")
    await task
    assert order == ["other", "slept"] and clock.now() == 1003.0 and clock.sleeps == [3.0]


async def test_an_event_that_is_set_needs_no_time():
    """A sleep until an event that is set already takes no time; one that isn't takes all of it."""
    clock, done, adone = FakeClock(), threading.Event(), asyncio.Event()
    clock.sleep(1.0, done)
    await clock.asleep(1.0, adone)
    assert clock.now() == 1002.0
    done.set()
    adone.set()
    clock.sleep(1.0, done)
    await clock.asleep(1.0, adone)
    assert clock.now() == 1002.0 and clock.sleeps == [1.0] * 4


def test_wall_time_passes_with_it():
    """The wall clock shows the same seconds, begun in 2025."""
    clock = FakeClock(start=0.0)
    assert clock.wall() == 1_735_689_600.0  # 2025-01-01T00:00:00Z
    clock.sleep(60.0)
    assert clock.wall() == 1_735_689_660.0


async def test_the_systems_clock_ends_a_wait_early():
    """The machine's own clock stops waiting as soon as its event is set."""
    clock, done, adone = SystemClock(), threading.Event(), asyncio.Event()
    began = clock.now()
    threading.Timer(0.01, done.set).start()
    clock.sleep(30.0, done)
    asyncio.get_running_loop().call_later(0.01, adone.set)
    await clock.asleep(30.0, adone)
    await clock.asleep(0.01, asyncio.Event())
    clock.sleep(0.01)
    await clock.asleep(0.01)
    assert clock.now() - began < 15.0


def test_both_are_clocks():
    """Both have all that the protocol asks for."""
    names = [name for name in vars(Clock) if not name.startswith("_")]
    assert sorted(names) == ["asleep", "now", "sleep", "wall"]
    assert all(callable(getattr(clock, name)) for clock in (FakeClock(), SystemClock()) for name in names)
