"""Simulated providers: how long they take, and how that suffers when many ask at once.

Rules of this file: time is the loop's; all chance comes from the seeded generator that is passed in.

Theory: a provider answers in `first` seconds and then takes `pace` seconds a token, both lognormal. It batches: up to `knee` requests run at
full speed, beyond it they share what there is (processor sharing, so all of them slow down), and beyond `slots` they stand in a line. Its
capacity is therefore `knee / pace` tokens a second whatever it is asked, and whoever sends it more than that makes everybody wait. A
brownout divides its speed. Work is counted in seconds at full speed: one clock of work done per running request, which advances at the
present speed, so an arrival costs O(log n) and the sharing is exact.
"""

from __future__ import annotations

import asyncio
import heapq
import random
from collections import deque
from contextlib import suppress
from typing import NamedTuple

WORST_FIRST = 0.35
"""Sigma of a first token's lognormal: its p99 is 2.3 × its median."""
WORST_PACE = 0.15


class Model(NamedTuple):
    """What one provider can do."""

    name: str
    first: float
    """Seconds to the first token, median, unhurried."""
    pace: float
    """Seconds a token, median, unhurried."""
    knee: int
    """Requests that run at full speed."""
    slots: int
    """Requests that run at all; the others stand in a line."""

    @property
    def capacity(self) -> float:
        """Tokens a second."""
        return self.knee / self.pace


FLEET = (
    Model("fluent", first=1.10, pace=0.008, knee=40, slots=120),
    Model("middling", first=0.60, pace=0.013, knee=40, slots=120),
    Model("prompt", first=0.25, pace=0.022, knee=50, slots=150),
)
"""The best for whole answers, one in between, the best for first tokens. 10,350 tokens a second together: 14 requests a second need half of
that, and in the brownout of the first nine tenths of what is left."""


class Server:
    """One provider at work."""

    def __init__(self, model: Model, loop: asyncio.AbstractEventLoop) -> None:
        self.model = model
        self._loop = loop
        self._slowdown = 1.0
        self._running = 0
        self._line: deque[asyncio.Future[None]] = deque()
        self._done = 0.0
        """Seconds of work at full speed that whoever has run since the beginning has got."""
        self._seen = loop.time()
        self._goals: list[tuple[float, int, asyncio.Future[None]]] = []
        self._count = 0
        self._timer: asyncio.TimerHandle | None = None

    @property
    def present(self) -> int:
        """Requests that run or stand in the line."""
        return self._running + len(self._line)

    @property
    def slowdown(self) -> float:
        """How many times slower than usual it is, apart from the crowd."""
        return self._slowdown

    @slowdown.setter
    def slowdown(self, times: float) -> None:
        self._catch_up()
        self._slowdown = times
        self._set_timer()

    def _speed(self) -> float:
        return 1.0 / (self._slowdown * max(1.0, self._running / self.model.knee))

    def _catch_up(self) -> None:
        now = self._loop.time()
        self._done += (now - self._seen) * self._speed()
        self._seen = now

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._goals:
            wait = max(0.0, self._goals[0][0] - self._done) / self._speed()
            self._timer = self._loop.call_later(wait, self._reach)

    def _reach(self) -> None:
        self._catch_up()
        while self._goals and self._goals[0][0] <= self._done + 1e-9:
            goal = heapq.heappop(self._goals)[2]
            if not goal.done():
                goal.set_result(None)
        self._set_timer()

    async def begin(self) -> None:
        """Get a place; `end` gives it back."""
        if self._running >= self.model.slots:
            turn: asyncio.Future[None] = self._loop.create_future()
            self._line.append(turn)
            try:
                await turn
            except asyncio.CancelledError:
                with suppress(ValueError):
                    self._line.remove(turn)
                if turn.done() and not turn.cancelled():
                    self._pass_on()
                raise
        self._catch_up()
        self._running += 1
        self._set_timer()

    def end(self) -> None:
        """Give the place to the next in line."""
        self._catch_up()
        self._running -= 1
        self._set_timer()
        self._pass_on()

    def _pass_on(self) -> None:
        while self._line:
            turn = self._line.popleft()
            if not turn.done():
                turn.set_result(None)
                return

    async def work(self, seconds: float) -> None:
        """Run for so many seconds at full speed."""
        self._catch_up()
        goal: asyncio.Future[None] = self._loop.create_future()
        self._count += 1
        heapq.heappush(self._goals, (self._done + seconds, self._count, goal))
        self._set_timer()
        await goal


class Ask(NamedTuple):
    """One request of the simulated users."""

    number: int
    at: float
    """Seconds since the beginning."""
    tokens: int
    """Length of its answer."""
    allowed: int
    """The `max_tokens` that it comes with: its kind is known beforehand, its length is not."""
    luck: tuple[float, float]
    """How many times longer than the median its first token and its tokens take, wherever it is sent."""


def traffic(rng: random.Random, rate: float, seconds: float) -> list[Ask]:
    """Poisson arrivals: seven of ten are chat (around 120 tokens), the others long (around 900, at most 2,000)."""
    asks: list[Ask] = []
    at = rng.expovariate(rate)
    while at < seconds:
        short = rng.random() < 0.7
        median, sigma, allowed = (120.0, 0.6, 500) if short else (900.0, 0.45, 2000)
        tokens = max(5, min(allowed, round(rng.lognormvariate(0.0, sigma) * median)))
        luck = (rng.lognormvariate(0.0, WORST_FIRST), rng.lognormvariate(0.0, WORST_PACE))
        asks.append(Ask(len(asks), at, tokens, allowed, luck))
        at += rng.expovariate(rate)
    return asks
