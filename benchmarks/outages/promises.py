"""The figures that were to be reached (docs: "outage quality"), beside what this run measured.

Rules of this file: a promise is a row, met or missed by the numbers of one run; where the run holds no such numbers it says so. Ratios are
to the oracle of the same run and the same outage.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from outages.faults import Timeline
from outages.figures import Figures, quantile, ratio
from outages.stage import HOUSES
from outages.traffic import arrivals, usual_time

Table = Mapping[tuple[str, str], Figures]
"""By fault and system."""

FAST = ("503", "429", "refused", "flaky")
SLOWDOWN = 8.0


class Verdict(NamedTuple):
    """One promise."""

    what: str
    reach: str
    limit: float
    measured: float | None
    """None: this run has no such number."""
    least: bool = False
    """Whether the limit is the least that will do; else it is the most."""

    @property
    def met(self) -> bool | None:
        """Whether it was kept; None: not measured."""
        if self.measured is None:
            return None
        return self.measured >= self.limit if self.least else self.measured <= self.limit

    @property
    def word(self) -> str:
        """For people."""
        return {True: "met", False: "MISSED", None: "not measured"}[self.met]


def verdicts(table: Table, slow_answer: float) -> list[Verdict]:
    """All promises that concern outages.

    Args:
        table: What was measured.
        slow_answer: Seconds: the p99 of what the first provider's answers take in the brownout.
    """
    return [*_fast(table), *_black_hole(table), *_brownout(table, slow_answer), *_streams(table)]


def slow_answers(seed: int, rate: float, timeline: Timeline) -> float:
    """Seconds: the p99 of what the first provider takes over the requests that arrive in the brownout."""
    due = arrivals(seed=seed, rate=rate, seconds=timeline.seconds)
    hit = [one.number for one in due if timeline.lead_in <= one.at < timeline.heals_at]
    return SLOWDOWN * (quantile(sorted(usual_time(seed, HOUSES[0].name, number) for number in hit), 0.99) or 0.0)


def _fast(table: Table) -> Iterator[Verdict]:
    for fault in FAST:
        ours, oracle = table.get((fault, "ours")), table.get((fault, "oracle"))
        yield Verdict(f"{fault}: p99 / oracle", "≤ 1.3 ×", 1.3, _of_oracle(ours, oracle))
        yield Verdict(f"{fault}: calls wasted", "≤ 25", 25, None if ours is None else ours.wasted)


def _black_hole(table: Table) -> Iterator[Verdict]:
    ours, oracle = table.get(("blackhole", "ours")), table.get(("blackhole", "oracle"))
    hedged = table.get(("blackhole", "hedged"))
    yield Verdict("black hole: calls into it", "≤ 40", 40, None if ours is None else ours.wasted)
    yield Verdict("black hole: p99, seconds", "≤ 2.6 s", 2.6, None if ours is None else ours.p99)
    yield Verdict("black hole: hedged p99 / oracle", "≤ 2 ×", 2.0, _of_oracle(hedged, oracle))


def _brownout(table: Table, slow_answer: float) -> Iterator[Verdict]:
    ours, oracle = table.get(("brownout", "ours")), table.get(("brownout", "oracle"))
    hedged = table.get(("brownout", "hedged"))
    medians = None if ours is None or oracle is None else ratio(ours.p50, oracle.p50)
    yield Verdict("brownout: p50 / oracle", "≤ 1.3 ×", 1.3, medians)
    yield Verdict(
        "brownout: p99 / the slow answer's p99", "≤ 1.1 ×", 1.1, None if ours is None else ratio(ours.p99, slow_answer)
    )
    yield Verdict("brownout: hedged p99 / oracle", "≤ 2 ×", 2.0, _of_oracle(hedged, oracle))


def _streams(table: Table) -> Iterator[Verdict]:
    for fault in ("cut", "stalled"):
        ours = table.get((fault, "ours"))
        share = None if ours is None else 100 * ours.answered / max(1, ours.asked)
        yield Verdict(f"stream {fault}: answered in full, %", "100 %", 100.0, share, least=True)


def _of_oracle(row: Figures | None, oracle: Figures | None) -> float | None:
    return None if row is None or oracle is None else ratio(row.p99, oracle.p99)
