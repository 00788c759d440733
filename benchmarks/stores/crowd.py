"""Processes full of waiters who share one limit, and what became of them.

Rules of this file: a waiter asks again as soon as it has had its place (and has worked). Commands are counted from the beginning to the end
of the run, so what connecting costs doesn't count; heartbeats do.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import NamedTuple

from stores.contenders import A_MINUTE, COUNTERS, WAITERS, Contender, Kind, Setting
from stores.crew import Crew
from stores.figures import Admission, Bucket
from stores.server import Monitor, server

MOST = 2000
"""Tokens that an answer may have: what is reserved for it by those who know no better."""
MEAN = 640
"""Tokens that it has."""


class Spec(NamedTuple):
    """One process."""

    kind: str
    setting: Setting
    number: int
    waiters: int
    seconds: float
    works: float = 0.0
    """Seconds that a request takes once it has its place."""


class Told(NamedTuple):
    """What a process tells."""

    admissions: tuple[Admission, ...]
    cpu: float
    error: str = ""


class Waiters:
    """One process."""

    def __init__(self, spec: Spec) -> None:
        self._spec = spec
        kinds = WAITERS if spec.setting.estimate is None else COUNTERS
        self._contender: Contender = kinds[spec.kind].build(spec.setting)
        self._random = random.Random(spec.number)
        self._admissions: list[Admission] = []
        self._zero = 0.0

    async def prepare(self) -> None:
        """Connect."""
        await self._contender.prepare()

    async def run(self, zero: float) -> Told:
        """All waiters, for the time of the run."""
        self._zero = zero
        await asyncio.sleep(zero - time.monotonic())
        used = time.process_time()
        tasks = [asyncio.create_task(self._waiter()) for _ in range(self._spec.waiters)]
        done, pending = await asyncio.wait(tasks, timeout=self._spec.seconds, return_when=asyncio.FIRST_EXCEPTION)
        used = time.process_time() - used
        for task in pending:
            task.cancel()
        errors = [error for task in done if (error := task.exception()) is not None]
        return Told(tuple(self._admissions), used, f"{type(errors[0]).__name__}: {errors[0]}" if errors else "")

    async def _waiter(self) -> None:
        while True:
            asked = time.monotonic() - self._zero

            async def work(asked: float = asked) -> int:
                tokens = self._tokens()
                self._admissions.append(Admission(asked, time.monotonic() - self._zero, tokens))
                if self._spec.works:
                    await asyncio.sleep(self._spec.works)
                return tokens

            await self._contender.use(work)

    def _tokens(self) -> int:
        return min(MOST, 1 + int(self._random.expovariate(1 / MEAN))) if self._spec.setting.estimate else 0


class Seen(NamedTuple):
    """What a contender's run came to."""

    processes: tuple[tuple[Admission, ...], ...]
    commands: Counter[str]
    cpu: float
    error: str


class Plan(NamedTuple):
    """How large a run is."""

    bucket: Bucket
    processes: int
    waiters: int
    seconds: float
    estimate: int | None = None
    works: float = 0.0


def run_together(names: Sequence[str], plan: Plan, run: str) -> dict[str, Seen]:
    """Run some contenders at the same time, each with a server of its own (or all on the given one).

    Args:
        names: Of `WAITERS` or `COUNTERS`.
        plan: The size.
        run: Makes this run's keys differ from another's.
    """
    with ExitStack() as stack:
        servers = {name: stack.enter_context(server()) for name in names}
        crew = stack.enter_context(Crew())
        for name in names:
            setting = Setting(servers[name].url, f"{run}-{name}", plan.bucket, plan.estimate)
            numbers = range(plan.processes)
            crew.add(
                Waiters, [Spec(name, setting, number, plan.waiters, plan.seconds, plan.works) for number in numbers]
            )
        if "litellm" in names:
            _within_a_minute(plan.seconds)
        monitors = {name: Monitor(servers[name].url) for name in names}
        with ExitStack() as listening:
            for monitor in monitors.values():
                listening.enter_context(monitor)
            zero = crew.go()
            ahead = time.time() - time.monotonic()
            told: list[Told] = crew.results(plan.seconds)
    found = {}
    for index, name in enumerate(names):
        of = told[index * plan.processes : (index + 1) * plan.processes]
        commands = monitors[name].between(zero + ahead, zero + ahead + plan.seconds)
        error = next((each.error for each in of if each.error), "")
        found[name] = Seen(tuple(each.admissions for each in of), commands, sum(each.cpu for each in of), error)
    return found


def here(kinds: Mapping[str, Kind], wanted: Sequence[str]) -> list[str]:
    """Those of them that can take part."""
    return [name for name in wanted if kinds[name].installed]


def _within_a_minute(seconds: float) -> None:
    """Wait, if need be, so that a run doesn't go over a minute's end: limits of a minute begin anew there."""
    left = A_MINUTE - time.time() % A_MINUTE
    if left < seconds + 2:
        time.sleep(left)
