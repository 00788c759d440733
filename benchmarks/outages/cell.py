"""One system under one outage, in a process of its own: `python -m outages.cell SPEC`.

Rules of this file: the process speaks lines of JSON with who started it, and ends when its stdin does, so that nothing outlives a parent
that was killed. It says {"ready": …} when everything is built, is told when to begin ("go T", by `time.monotonic()`), and says what came
of it. Whatever a library prints goes to stderr.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple, TextIO

from outages.contenders import SYSTEMS, Contender, NotHereError, Oracle, Setting, System
from outages.faults import Outage, Timeline, outages
from outages.figures import Fate, quantile
from outages.lateness import look
from outages.stage import Stage
from outages.traffic import MEDIAN, Arrival, arrivals, prompt_of, reply_to

STRAGGLERS = 15.0
"""Seconds after the last arrival that answers are waited for."""
HEAD_START = 0.1
"""Seconds that the oracle knows of an outage before it begins: a request that is on its way then would still be struck."""
WARM_UP = 3
"""Requests before the beginning: what a first call alone costs (imports, pools) is no provider's fault."""
PACKAGES = ("langchain-core", "langchain-openai", "langchain-anthropic", "openai", "anthropic", "litellm")


@dataclass(frozen=True)
class Spec:
    """What is run."""

    system: str
    fault: str
    seed: int
    rate: float
    timeline: Timeline
    median: float = MEDIAN
    """Seconds that half of the healthy answers take at most."""

    def to_json(self) -> str:
        """As the process takes it."""
        return json.dumps(asdict(self) | {"timeline": list(self.timeline)})

    @classmethod
    def from_json(cls, text: str) -> Spec:
        """Back again."""
        read = json.loads(text)
        return cls(**read | {"timeline": Timeline(*read["timeline"])})


class Play(NamedTuple):
    """Which systems and outages there are."""

    systems: Mapping[str, System]
    outages: Callable[[int], Mapping[str, Outage]]
    """Made from a seed."""
    stage: Callable[[Spec], AbstractContextManager[Stage]]
    """Where a run's providers are; one that is not of `Stage` does what it does."""


class Cell:
    """One run."""

    def __init__(self, spec: Spec, stage: Stage, play: Play) -> None:
        self._spec = spec
        self._stage = stage
        self._outage: Outage = play.outages(spec.seed)[spec.fault]
        self._contender: Contender = play.systems[spec.system].build(Setting(stage, self._outage, spec.timeline))
        self._zero = 0.0
        self._fates: dict[int, Fate] = {}
        self._lags: list[float] = []

    @property
    def elapsed(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self._zero

    async def warm_up(self) -> None:
        """Ask a few questions that don't count."""
        for number in range(1, WARM_UP + 1):
            await self._answer(-number)
        self._stage.forget()

    async def run(self, zero: float) -> dict[str, Any]:
        """All requests, and what came of them.

        Args:
            zero: When to begin, by `time.monotonic()`.
        """
        self._zero = zero
        timeline = self._spec.timeline
        used = time.process_time()
        side = [asyncio.create_task(self._direct()), asyncio.create_task(look(self._lags))]
        asking: set[asyncio.Task[None]] = set()
        due = arrivals(seed=self._spec.seed, rate=self._spec.rate, seconds=timeline.seconds)
        for arrival in due:
            await self._until(arrival.at)
            task = asyncio.create_task(self._ask(arrival))
            asking.add(task)
            task.add_done_callback(asking.discard)
        await self._until(timeline.seconds)
        if asking:
            await asyncio.wait(set(asking), timeout=STRAGGLERS)
        for arrival in due:
            late = Fate(arrival.number, arrival.at, self.elapsed - arrival.at, "no answer in time")
            self._fates.setdefault(arrival.number, late)
        for task in (*side, *asking):
            task.cancel()
        calls = self._stage.calls(self._zero)
        await asyncio.gather(*side, *asking, return_exceptions=True)
        lags = sorted(self._lags)
        return {
            "fates": [self._fates[arrival.number] for arrival in due],
            "calls": calls,
            "lags": (quantile(lags, 0.99) or 0.0, lags[-1] if lags else 0.0),
            "cpu": time.process_time() - used,
        }

    async def aclose(self) -> None:
        """Let go of what the contender holds."""
        await self._contender.aclose()

    async def _until(self, at: float) -> None:
        await asyncio.sleep(max(0.0, at - self.elapsed))

    async def _direct(self) -> None:
        """Play the outage. In threads: a port that closes waits for its idle connections."""
        timeline = self._spec.timeline
        await self._until(timeline.lead_in - HEAD_START)
        self._foretell(in_outage=True)
        await self._until(timeline.lead_in)
        await asyncio.to_thread(self._stage.strike, self._outage)
        await self._until(timeline.heals_at)
        await asyncio.to_thread(self._stage.heal)
        self._foretell(in_outage=False)

    def _foretell(self, *, in_outage: bool) -> None:
        if isinstance(self._contender, Oracle):
            self._contender.in_outage = in_outage

    async def _ask(self, arrival: Arrival) -> None:
        try:
            text = await self._answer(arrival.number)
        except Exception as failure:  # noqa: BLE001  # every failure is a result here
            error: str | None = type(failure).__name__
        else:
            error = None if text == reply_to(arrival.number) else "wrong text"
        self._fates[arrival.number] = Fate(arrival.number, arrival.at, self.elapsed - arrival.at, error)

    async def _answer(self, number: int) -> str:
        prompt = prompt_of(number)
        if not self._outage.streamed:
            return await self._contender.ask(prompt)
        pieces = [piece async for piece in self._contender.stream(prompt)]
        return "".join(pieces)


def _in_this_process(spec: Spec) -> Stage:
    return Stage(spec.seed, paced=outages(spec.seed)[spec.fault].streamed, median=spec.median)


def _versions() -> dict[str, str]:
    installed = {
        str(package.metadata["Name"]).lower(): package.version for package in importlib.metadata.distributions()
    }
    return {name: installed[name] for name in PACKAGES if name in installed}


def own_stdout() -> TextIO:
    """The stdout that this process was given; from now on whatever is printed goes to stderr."""
    kept = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return kept


async def _main(spec: Spec, play: Play, out: TextIO) -> None:
    def say(what: dict[str, Any]) -> None:
        print(json.dumps(what), file=out, flush=True)

    with play.stage(spec) as stage:
        try:
            cell = Cell(spec, stage, play)
        except NotHereError as error:
            say({"missing": str(error)})
            return
        await cell.warm_up()
        say({"ready": True})
        order = await asyncio.to_thread(sys.stdin.readline)
        threading.Thread(target=_end_with_parent, daemon=True).start()
        word, _, zero = order.partition(" ")
        if word == "go":
            say(await cell.run(float(zero)) | {"versions": _versions()})
            await cell.aclose()


def _end_with_parent() -> None:
    sys.stdin.read()
    os._exit(1)


def perform(play: Play) -> None:
    """This process's whole life."""
    answers = own_stdout()
    asyncio.run(_main(Spec.from_json(sys.argv[1]), play, answers))
    answers.flush()
    os._exit(0)  # a library's threads and late callbacks are not waited for


if __name__ == "__main__":
    perform(Play(SYSTEMS, outages, _in_this_process))
