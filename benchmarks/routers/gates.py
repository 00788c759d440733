"""What was to be reached behind LiteLLM's Router, beside what this run measured.

Rules of this file: as `outages.promises`: a gate is a row, met or missed by the numbers of one run, or not measured. Nothing is asserted.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from outages.faults import Timeline
from outages.figures import Figures, Run, quantile, ratio
from outages.promises import Verdict

from routers.overhead import Costs

Table = Mapping[tuple[str, str], Figures]
"""By fault and system."""
Medians = Mapping[tuple[str, str], float | None]
"""By fault and system: seconds that half of the users waited at most who arrived before the outage."""
CALLS_INTO_THE_BLACK_HOLE = 25
IN_FULL = 99.0
SLOWER_THAN_HEALTHY = 1.5


def healthy_p50(run: Run, timeline: Timeline) -> float | None:
    """Seconds: the median wait of those who arrived before the outage."""
    return quantile(sorted(fate.seconds for fate in run.fates if fate.at < timeline.lead_in), 0.5)


def gates(table: Table, medians: Medians, costs: Sequence[Costs], systems: Sequence[str]) -> list[Verdict]:
    """All of them, for each of these systems, and what a healthy call costs."""
    found = [gate for system in systems for gate in _of_system(table, medians, system)]
    for streamed in (False, True):
        cost = next((one for one in costs if one.streamed == streamed), None)
        kind = "stream" if streamed else "call"
        limit = 1.0 if cost is None else cost.noise
        reach = "within noise" if cost is None else f"≤ {limit:.2f} × (noise)"
        found.append(Verdict(f"healthy {kind}: ours / bare Router", reach, limit, None if cost is None else cost.ratio))
    return found


def word(verdict: Verdict) -> str:
    """For people."""
    return {True: "PASS", False: "MISS", None: "not measured"}[verdict.met]


def _of_system(table: Table, medians: Medians, system: str) -> Iterator[Verdict]:
    hole, slow = table.get(("blackhole", system)), table.get(("slow", system))
    yield Verdict(
        f"{system}: calls into the black hole",
        f"≤ {CALLS_INTO_THE_BLACK_HOLE}",
        CALLS_INTO_THE_BLACK_HOLE,
        None if hole is None else hole.wasted,
    )
    for fault, title in (("cut", "broken"), ("stalled", "stalled")):
        row = table.get((fault, system))
        share = None if row is None or not row.asked else 100 * row.answered / row.asked
        yield Verdict(
            f"{system}: {title} mid-stream, answered in full, %", f"≥ {IN_FULL:g} %", IN_FULL, share, least=True
        )
    measured = None if slow is None else ratio(slow.p50, medians.get(("slow", system)))
    yield Verdict(
        f"{system}: slow primary, p50 / healthy p50", f"≤ {SLOWER_THAN_HEALTHY:g} ×", SLOWER_THAN_HEALTHY, measured
    )
