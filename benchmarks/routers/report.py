"""What is printed.

Rules of this file: turns figures into text; every system that was measured has a row, best or worst.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from outages.contenders import System
from outages.faults import RETRY_AFTER, Timeline
from outages.figures import Figures, Run
from outages.promises import Verdict
from outages.report import plain, show

from routers.faults import LIMIT, MAX_LATENCY, recovery_of
from routers.gates import word
from routers.overhead import Costs

COLUMNS = (
    "system", "answered in full", "p50 s", "p99 s", "healthy p50 s", "into the sick one", "back s", "at end", "calls ×", "lag ms", "errors",
)  # fmt: skip
COST_COLUMNS = ("a healthy …", "bare ms", "ours ms", "bare CPU ms", "ours CPU ms", "ours / bare", "noise")
GATE_COLUMNS = ("gate", "reach", "measured", "")


def head(timeline: Timeline, seed: int, rate: float, median: float, systems: Iterable[System]) -> str:
    """What is the same for all."""
    return "\n".join(
        (
            (
                f"{rate:g} requests/s (Poisson, seed {seed}): {timeline.lead_in:g} s healthy, {timeline.outage:g} s outage of the first"
                f" provider, {timeline.afterwards:g} s healthy."
            ),
            f"Three deployments: OpenAI's wire, Anthropic's, OpenAI's; lognormal answer times around {median:g} s, by request and provider.",
            f"Limit of an attempt, and of a stream's silence: {LIMIT:g} s, for every system:",
            *(f"  {system.title:<28} {system.limits}" for system in systems),
            (
                f"In the ratio of the play: ours' recovery_timeout {recovery_of(timeline):g} s (default 60 s), LiteLLM's cooldown_time where"
                " tuned the same (default 5 s)."
            ),
            (
                f'Ours is told, in every row, deployments={{"main": {{"max_latency": {MAX_LATENCY:g}}}}}: without it a slow provider is not'
                " left unless it falls silent. All else of ours is as it comes."
            ),
            f"A 429 says Retry-After: {RETRY_AFTER:g}.",
            "",
            "answered in full: to the letter, once, of the requests that arrived in the outage; p50, p99: seconds that their users waited;",
            "into the sick one: calls that it failed or was slow over; back: seconds from healing to the first call that it answers;",
            "at end: its share of the last seconds; calls ×: upstream calls per request in the outage; lag: p99 of the loop's lateness.",
        )
    )


def row(title: str, figures: Figures, healthy: float | None, run: Run) -> tuple[str, ...]:
    """One system's cells."""
    errors = ", ".join(f"{count} {name}" for name, count in sorted(figures.errors.items(), key=lambda item: -item[1]))
    elsewhere = figures.answered_elsewhere
    return (
        title,
        f"{100 * figures.answered / max(1, figures.asked):.1f} %",
        _seconds(figures.p50),
        _seconds(figures.p99),
        _seconds(healthy),
        str(figures.wasted),
        _seconds(figures.used_again, "never"),
        f"{100 * figures.share_at_end:.0f} %",
        f"{figures.amplification:.2f}",
        f"{1000 * run.lags[0]:.0f}",
        errors + ("" if elsewhere == 1 else f"; {100 * elsewhere:.1f} % outside the outage"),
    )


def cost_rows(costs: Sequence[Costs]) -> list[tuple[str, ...]]:
    """What healthy calls cost."""
    return [
        (
            "stream of 12 words" if one.streamed else "call",
            *(f"{value:.2f}" for value in (one.bare, one.ours, one.bare_cpu, one.ours_cpu)),
            f"{one.ratio:.3f}",
            f"{one.noise:.3f}",
        )
        for one in costs
    ]


def gate_rows(verdicts: Iterable[Verdict]) -> list[tuple[str, ...]]:
    """The gates' cells."""
    return [
        (one.what, one.reach, "–" if one.measured is None else f"{one.measured:.2f}".rstrip("0").rstrip("."), word(one))
        for one in verdicts
    ]


def void(runs: Iterable[Run], titles: Mapping[str, System], allowed: float) -> list[str]:
    """The runs that don't count, or count with care: the machine, or the system itself, was late."""
    return [
        f"{titles[run.system].title} under {run.fault}: "
        + (
            f"VOID, a loop with nothing to do was late by {1000 * run.machine:.0f} ms (p99)"
            if run.machine > allowed
            else f"late by its own work, {1000 * run.lags[0]:.0f} ms (p99)"
        )
        for run in runs
        if max(run.machine, run.lags[0]) > allowed
    ]


def _seconds(value: float | None, otherwise: str = "–") -> str:
    return otherwise if value is None else f"{value:.2f}"


__all__ = ["COLUMNS", "COST_COLUMNS", "GATE_COLUMNS", "cost_rows", "gate_rows", "head", "plain", "row", "show", "void"]
