"""What others route by: random, the lowest p50 or p99, peak-EWMA with two choices, LiteLLM's latency rule; and an oracle beside them.

Rules of this file: a rule sees what a client sees: its own requests, when they began, their first tokens and ends. Each is told as its source
tells it, with its defaults. Only the oracle sees the providers themselves, the length of the answer and the brownout: nobody can do what it
does, it is the yardstick.

Sources: Finagle's `PeakEwma.scala` (tau 10 s, cost = EWMA × (pending + 1), a peak is taken at once, an unknown one that is busy is avoided);
LiteLLM 1.106.2, `router_strategy/lowest_latency.py` with `caching/in_memory_cache.py` (streams by the mean of the last 10 first-token times,
unstreamed answers by the mean of the last 10 seconds per token, both known only at the answer's end; one not used yet counts as 0, and that
zero stays among its ten; buffer 0 of the lowest, so the single lowest; ttl one hour, set anew at each answer; a timeout is a sample of 1000 s;
no limit of its own, so nothing times out here).
"""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Sequence

from routings.providers import Ask, Server


class Rule:
    """Chooses a provider for each request.

    Args:
        servers: The providers, best first.
        rng: All chance comes from here.
        stream: Whether answers are streamed.
    """

    def __init__(self, servers: Sequence[Server], rng: random.Random, *, stream: bool) -> None:
        self.servers = servers
        self.rng = rng
        self.stream = stream
        self.all = range(len(servers))
        self.pending = [0] * len(servers)

    def choose(self, ask: Ask, now: float) -> int:
        """The provider for this request."""
        raise NotImplementedError

    def ended(self, choice: int, first: float, total: float, tokens: int, now: float) -> None:
        """An answer ended: seconds to its first token and in all."""


class Random(Rule):
    """Any of them."""

    def choose(self, ask: Ask, now: float) -> int:
        """The provider for this request."""
        return self.rng.randrange(len(self.servers))


class LowestQuantile(Rule):
    """The lowest p50 or p99 of the totals of the last 120 s; one that is not known is tried."""

    share = 0.5

    def __init__(self, servers: Sequence[Server], rng: random.Random, *, stream: bool) -> None:
        super().__init__(servers, rng, stream=stream)
        self._seen: list[deque[tuple[float, float]]] = [deque() for _ in servers]

    def choose(self, ask: Ask, now: float) -> int:
        """The provider for this request."""
        order = list(self.all)
        self.rng.shuffle(order)
        return min(order, key=lambda index: self._quantile(self._seen[index], now))

    def _quantile(self, seen: deque[tuple[float, float]], now: float) -> float:
        while seen and seen[0][0] < now - 120.0:
            seen.popleft()
        values = sorted(total for _, total in seen)
        return values[min(len(values) - 1, int(self.share * len(values)))] if values else 0.0

    def ended(self, choice: int, first: float, total: float, tokens: int, now: float) -> None:
        """An answer ended: seconds to its first token and in all."""
        self._seen[choice].append((now, total))


class LowestP99(LowestQuantile):
    """The same by p99."""

    share = 0.99


class PeakEwma(Rule):
    """Finagle's: of two random ones, the lower average × (pending + 1)."""

    tau = 10.0

    def __init__(self, servers: Sequence[Server], rng: random.Random, *, stream: bool) -> None:
        super().__init__(servers, rng, stream=stream)
        self._averages = [(0.0, 0.0)] * len(servers)

    def choose(self, ask: Ask, now: float) -> int:
        """The provider for this request."""
        one, other = self.rng.sample(self.all, 2)
        return one if self._cost(one, now) <= self._cost(other, now) else other

    def _cost(self, index: int, now: float) -> float:
        average, seen = self._averages[index]
        average *= math.exp(-(now - seen) / self.tau)  # as if it had answered in no time at all meanwhile
        if average == 0.0 and self.pending[index]:
            return 1e12 + self.pending[index]
        return average * (self.pending[index] + 1)

    def ended(self, choice: int, first: float, total: float, tokens: int, now: float) -> None:
        """An answer ended: seconds to its first token and in all."""
        average, seen = self._averages[choice]
        kept = math.exp(-(now - seen) / self.tau)
        self._averages[choice] = (total if total > average else average * kept + total * (1.0 - kept), now)


class LiteLLM(Rule):
    """LiteLLM's "latency-based-routing", with its defaults."""

    ttl = 3600.0
    size = 10

    def __init__(self, servers: Sequence[Server], rng: random.Random, *, stream: bool) -> None:
        super().__init__(servers, rng, stream=stream)
        self._map: dict[int, dict[str, list[float]]] | None = None
        self._expires = math.inf

    def choose(self, ask: Ask, now: float) -> int:
        """The provider for this request."""
        if now > self._expires:
            self._map = None
        known = {} if self._map is None else self._map  # not kept: nothing is cached before the first answer
        for index in self.all:
            known.setdefault(index, {"latency": [0.0]})
        items = self.rng.sample(sorted(known.items()), len(known))
        return min(items, key=lambda item: self._latency(item[1]))[0]

    def _latency(self, item: dict[str, list[float]]) -> float:
        firsts = item.get("first", [])
        samples = firsts if self.stream and firsts else item.get("latency", [])
        return sum(samples) / len(samples) if samples else 0.0

    def ended(self, choice: int, first: float, total: float, tokens: int, now: float) -> None:
        """An answer ended: seconds to its first token and in all."""
        if self._map is None:
            self._map = {}
        item = self._map.setdefault(choice, {})
        item["latency"] = [*item.get("latency", []), total / tokens][-self.size :]
        if self.stream:
            item["first"] = [*item.get("first", []), first][-self.size :]
        self._expires = now + self.ttl


class Oracle(Rule):
    """Knows each provider's speed, crowd and brownout, and how long the answer will be."""

    def choose(self, ask: Ask, now: float) -> int:
        """The provider for this request."""
        return min(self.all, key=lambda index: self._expected(self.servers[index], ask))

    @staticmethod
    def _expected(server: Server, ask: Ask) -> float:
        model = server.model
        crowd = max(1.0, (server.present + 1) / model.knee)
        return (model.first + ask.tokens * model.pace) * crowd * server.slowdown


OTHERS: dict[str, type[Rule]] = {
    "random": Random,
    "lowest p50": LowestQuantile,
    "lowest p99": LowestP99,
    "peak-EWMA, 2 choices": PeakEwma,
    "LiteLLM latency": LiteLLM,
    "oracle": Oracle,
}
