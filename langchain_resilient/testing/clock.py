"""Time that passes only when somebody waits."""

from __future__ import annotations

import asyncio
import threading


class FakeClock:
    """A `Clock` for tests: sleeping moves it on at once, and it remembers every sleep.

    Args:
        start: Seconds that it shows at first.
    """

    def __init__(self, start: float = 1000.0) -> None:
        self._now = start
        self.sleeps: list[float] = []
        """Seconds of every sleep so far, in order."""

    def now(self) -> float:
        """Seconds, monotonic."""
        return self._now

    def wall(self) -> float:
        """Seconds since the epoch: the same count, begun in 2025."""
        return 1_735_689_600.0 + self._now

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self._now += seconds

    def sleep(self, seconds: float, until: threading.Event | None = None) -> None:
        """Let time pass at once; not at all if `until` is set already."""
        self.sleeps.append(seconds)
        if until is None or not until.is_set():
            self._now += seconds

    async def asleep(self, seconds: float, until: asyncio.Event | None = None) -> None:
        """Let time pass at once, and others run; not at all if `until` is set already."""
        self.sleeps.append(seconds)
        await asyncio.sleep(0)
        if until is None or not until.is_set():
            self._now += seconds
