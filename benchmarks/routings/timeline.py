"""An event loop whose time passes only while nobody has anything to do.

Rules of this file: no clock is read; where the loop would wait for the next timer, its time is set to that timer instead. So ten simulated
minutes take seconds, a run depends on its seed alone, and the real async driver runs unchanged.
"""

from __future__ import annotations

import asyncio
import selectors
import threading
from collections.abc import Coroutine
from typing import Any


class _Jump(selectors.SelectSelector):
    """Waits for nothing: tells the loop how long it would have waited."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Let the time pass at once; a loop that waits for nothing at all hangs for ever, which is an error here."""
        if timeout is None:
            raise RuntimeError("everybody waits, and no timer is set: the simulation hangs")
        self.now += max(0.0, timeout)
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop on simulated seconds."""

    def __init__(self) -> None:
        self._jump = _Jump()
        super().__init__(self._jump)

    def time(self) -> float:
        """Simulated seconds since the loop was made."""
        return self._jump.now


class LoopClock:
    """The engine's `Clock` on a loop's time: async only."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.now = loop.time

    def wall(self) -> float:
        """Seconds since the epoch: the same count, begun in 2025."""
        return 1_735_689_600.0 + self.now()

    def sleep(self, seconds: float, until: threading.Event | None = None) -> None:
        """Nobody may block a simulated loop."""
        raise AssertionError(f"a blocking sleep of {seconds} s in a simulation")

    async def asleep(self, seconds: float, until: asyncio.Event | None = None) -> None:
        """Wait, at most until the event is set."""
        try:
            async with asyncio.timeout(seconds):
                await (until or asyncio.Event()).wait()
        except TimeoutError:
            pass


def simulate(story: Coroutine[Any, Any, None], loop: VirtualLoop) -> None:
    """Run a story to its end in simulated time."""
    try:
        loop.run_until_complete(story)
    finally:
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()
