"""What a fleet knows together of how fast a provider is: each process's new samples, counted in common windows.

Rules of this file: pure. A sample is a bucket of `histogram.LogHistogram`, so that histograms of many processes add up; a window holds
counts alone, and each process takes from it what it has neither put there nor taken yet.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from langchain_resilient.engine.histogram import LogHistogram

WINDOW_US = 30_000_000
"""How long samples are counted together, µs."""


class Sketch:
    """One process's part in the latencies of one provider."""

    def __init__(self) -> None:
        self._fresh: dict[str, int] = {}
        self._settled: dict[int, dict[str, int]] = {}
        """By window: what was put there by us, or taken from there."""

    def sample(self, seconds: float, *, stream: bool) -> None:
        """Count an answer's seconds, or a stream's to its first token."""
        name = f"{'s' if stream else 'c'}{LogHistogram.bucket_of(seconds)}"
        self._fresh[name] = self._fresh.get(name, 0) + 1

    def give(self, window: int) -> dict[str, int]:
        """What is new here, to be added to a window; it counts as given from now on."""
        fresh, self._fresh = self._fresh, {}
        self._settled = {known: counts for known, counts in self._settled.items() if known >= window - 1}
        given = self._settled.setdefault(window, {})
        for name, count in fresh.items():
            given[name] = given.get(name, 0) + count
        return fresh

    def take(self, window: int, counts: Mapping[str, int]) -> Iterator[tuple[bool, int, int]]:
        """What is new in a window: whether of streams, the bucket, how many."""
        settled = self._settled.setdefault(window, {})
        for name, count in counts.items():
            new = count - settled.get(name, 0)
            if new > 0:
                settled[name] = count
                yield name[0] == "s", int(name[1:]), new
