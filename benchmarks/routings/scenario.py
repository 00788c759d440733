"""One run: users arrive, a rule sends them somewhere, and what they waited is counted.

Rules of this file: every rule sees the same arrivals, lengths and luck of one seed; every request that arrives is waited for and counted, also
those that end after the last arrival. The first `WARM` seconds are not counted, or one would measure how a rule meets strangers. Who arrives
within `CAUGHT` seconds before the brownout is caught by it wherever he was sent: he counts in the whole, and in no phase.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from itertools import chain, pairwise
from typing import NamedTuple

from langchain_resilient.engine.drive.awaiting import drain
from routings.ours import Ours, variants
from routings.providers import FLEET, Ask, Server, traffic
from routings.rules import OTHERS, Rule
from routings.timeline import LoopClock, VirtualLoop, simulate

WARM = 60.0
CALM = 120.0
CAUGHT = 30.0
BROWNOUT = 60.0
AFTER = 120.0
SLOWER = 8.0
WINDOW = 5.0
PHASES = {
    "calm": (WARM, WARM + CALM - CAUGHT),
    "brownout": (WARM + CALM, WARM + CALM + BROWNOUT),
    "after": (WARM + CALM + BROWNOUT, WARM + CALM + BROWNOUT + AFTER),
    "whole": (WARM, WARM + CALM + BROWNOUT + AFTER),
}
END = PHASES["whole"][1]


class Fate(NamedTuple):
    """What became of one request."""

    at: float
    choice: int
    first: float
    """Seconds to the first content."""
    total: float
    crowded: bool
    """Whether it was sent to a provider beyond its knee while another could have run it, and one more, at full speed."""
    extra: int = 0
    """Calls beside the one that answered."""


class World:
    """The providers of one run, and its users."""

    def __init__(self, seed: int, rate: float, *, stream: bool) -> None:
        self.loop = VirtualLoop()
        self.clock = LoopClock(self.loop)
        self.servers = [Server(model, self.loop) for model in FLEET]
        self.stream = stream
        self.asks = traffic(random.Random(seed), rate, END)
        self.fates: list[Fate] = []
        self._crowded: dict[int, bool] = {}

    def is_crowded(self, choice: int) -> bool:
        """Whether this provider is beyond its knee while another has room."""
        loads = [server.present * server.slowdown / server.model.knee for server in self.servers]
        return loads[choice] > 1.0 and min(loads) < 0.8

    def tell(self, ask: Ask, choice: int, first: float | None, *, crowded: bool, extra: int = 0) -> None:
        """An answer is complete."""
        total = self.loop.time() - ask.at
        self.fates.append(Fate(ask.at, choice, total if first is None else first - ask.at, total, crowded, extra))

    async def play(self, one: Callable[[Ask], object]) -> None:
        """Let the users come, and the brownout, and wait for the last answer."""
        begins, ends = PHASES["brownout"]
        self.loop.call_at(begins, setattr, self.servers[0], "slowdown", SLOWER)
        self.loop.call_at(ends, setattr, self.servers[0], "slowdown", 1.0)
        tasks = []
        for ask in self.asks:
            await asyncio.sleep(max(0.0, ask.at - self.loop.time()))
            tasks.append(asyncio.ensure_future(one(ask)))  # type: ignore[call-overload]
        await asyncio.gather(*tasks)
        await drain()


def run(name: str, seed: int, rate: float, *, stream: bool) -> list[Fate]:
    """One rule through one seed's world."""
    world = World(seed, rate, stream=stream)
    rng = random.Random(seed + 1)
    if name in OTHERS:
        one = _by_rule(world, OTHERS[name](world.servers, rng, stream=stream))
    else:
        one = _by_engine(world, Ours(world.servers, world.clock, rng, **variants(stream=stream)[name]))
    simulate(world.play(one), world.loop)
    return world.fates


def _by_rule(world: World, rule: Rule) -> Callable[[Ask], object]:
    async def one(ask: Ask) -> None:
        began = world.loop.time()
        choice = rule.choose(ask, began)
        crowded = world.is_crowded(choice)
        server = world.servers[choice]
        rule.pending[choice] += 1
        await server.begin()
        await server.work(server.model.first * ask.luck[0])
        first = world.loop.time()
        await server.work(ask.tokens * server.model.pace * ask.luck[1])
        server.end()
        rule.pending[choice] -= 1
        now = world.loop.time()
        rule.ended(choice, first - began, now - began, ask.tokens, now)
        world.tell(ask, choice, first if world.stream else None, crowded=crowded)

    return one


def _by_engine(world: World, ours: Ours) -> Callable[[Ask], object]:
    async def one(ask: Ask) -> None:
        crowds = [world.is_crowded(index) for index in range(len(world.servers))]
        choice, first, extra = await ours.ask(ask, stream=world.stream)
        world.tell(ask, choice, first, crowded=crowds[choice], extra=extra)

    return one


class Numbers(NamedTuple):
    """A phase of one rule, over all seeds: seconds, and shares of the requests (0 … 1)."""

    requests: int
    p50: float
    p99: float
    first_p50: float
    first_p99: float
    shares: tuple[float, ...]
    """Per provider."""
    herd: float
    """The largest share of one provider in any five seconds."""
    swing: float
    """Mean change of the shares from one five seconds to the next: 0 steady, 1 everybody moves every time."""
    crowded: float
    """Sent into a crowd (beyond the knee) while another provider had room: what herding costs."""
    extra: float
    """Calls beside those that answered."""


def measured(runs: list[list[Fate]], phase: str) -> Numbers:
    """The numbers of one phase, by time of arrival."""
    start, stop = PHASES[phase]
    counted = [[fate for fate in run_ if start <= fate.at < stop] for run_ in runs]
    windows = [_shares_by_window(fates, start) for fates in counted]
    swings = [
        sum(abs(one - other) for one, other in zip(*pair, strict=True)) / 2
        for run_ in windows
        for pair in pairwise(run_)
    ]
    fates = list(chain.from_iterable(counted))
    chosen = Counter(fate.choice for fate in fates)
    totals, firsts = sorted(fate.total for fate in fates), sorted(fate.first for fate in fates)
    return Numbers(
        len(fates), quantile(totals, 0.5), quantile(totals, 0.99), quantile(firsts, 0.5), quantile(firsts, 0.99),
        tuple(chosen[index] / len(fates) for index in range(len(FLEET))),
        max(max(shares) for shares in chain.from_iterable(windows)), sum(swings) / max(1, len(swings)),
        sum(fate.crowded for fate in fates) / len(fates), sum(fate.extra for fate in fates) / len(fates),
    )  # fmt: skip


def _shares_by_window(fates: list[Fate], start: float) -> list[list[float]]:
    windows: dict[int, Counter[int]] = {}
    for fate in fates:
        windows.setdefault(int((fate.at - start) / WINDOW), Counter())[fate.choice] += 1
    return [[window[index] / window.total() for index in range(len(FLEET))] for _, window in sorted(windows.items())]


def quantile(values: list[float], share: float) -> float:
    """Of sorted values the one below which so many lie."""
    return values[min(len(values) - 1, int(share * len(values)))]
