"""What one run comes to.

Rules of this file: arithmetic over what users saw (`Fate`) and what servers saw (`Call`); times are seconds from the beginning.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

from outages.faults import Timeline
from outages.stage import Call

LAST = 5.0
"""Seconds at the end of a run that tell whether the first provider has its traffic back."""
LAG_ALLOWED = 0.1
"""Seconds: a loop that is later than this in one of a hundred looks counts as late. Answers take 0.3 s, and promises are ratios of 1.3."""


class Fate(NamedTuple):
    """What became of one request."""

    number: int
    at: float
    """When it was due."""
    seconds: float
    """How long its user waited, for the end of the answer or an error."""
    error: str | None
    """The kind of its failure; "wrong text": the answer was not, to the letter, the right one. None: answered."""


class Run(NamedTuple):
    """One system under one outage."""

    system: str
    fault: str
    fates: tuple[Fate, ...]
    calls: tuple[Call, ...]
    lags: tuple[float, float]
    """Seconds that its event loop was late: p99 and the worst."""
    machine: float
    """Seconds that a loop with nothing to do was late at the same time (p99): the machine's part in it."""
    cpu: float
    """Seconds of processor time, servers included."""
    versions: dict[str, str]


class Figures(NamedTuple):
    """The row of a table."""

    asked: int
    """Requests that arrived in the outage."""
    answered: int
    """Of them: answered in full, to the letter."""
    p50: float | None
    """Seconds that users waited who arrived in the outage, for the end of the answer or an error."""
    p99: float | None
    wasted: int
    """Calls that began in the outage at a sick provider, and failed there or were slow."""
    used_again: float | None
    """Seconds from healing to the first call that the first provider answers. None: it never did."""
    share_at_end: float
    """Of the run's last seconds: calls that the first provider answered, of the requests."""
    amplification: float
    """Calls that began in the outage, of the requests that arrived in it."""
    answered_elsewhere: float
    """Share of the requests before and after the outage that were answered."""
    errors: dict[str, int]
    """Of the requests that arrived in the outage, by kind."""

    def as_json(self) -> dict[str, Any]:
        """For a file."""
        return self._asdict()


def figures_of(run: Run, timeline: Timeline) -> Figures:
    """What a run comes to."""
    begins, ends = timeline.lead_in, timeline.heals_at
    hit = [fate for fate in run.fates if begins <= fate.at < ends]
    spared = [fate for fate in run.fates if not begins <= fate.at < ends]
    waits = sorted(fate.seconds for fate in hit)
    meanwhile = [call for call in run.calls if begins <= call.at < ends]
    again = [call.at for call in run.calls if call.provider == 0 and call.answered and call.at >= ends]
    since = timeline.seconds - min(LAST, timeline.afterwards)
    late = sum(fate.at >= since for fate in run.fates)
    home = sum(call.provider == 0 and call.answered and since <= call.at < timeline.seconds for call in run.calls)
    return Figures(
        asked=len(hit),
        answered=sum(fate.error is None for fate in hit),
        p50=quantile(waits, 0.5),
        p99=quantile(waits, 0.99),
        wasted=sum(call.wasted for call in meanwhile),
        used_again=min(again) - ends if again else None,
        share_at_end=min(1.0, home / late) if late else 0.0,  # retries of what came before may add to it
        amplification=len(meanwhile) / len(hit) if hit else 0.0,
        answered_elsewhere=sum(fate.error is None for fate in spared) / len(spared) if spared else 1.0,
        errors=dict(Counter(fate.error for fate in hit if fate.error is not None)),
    )


def quantile(ordered: Sequence[float], share: float) -> float | None:
    """The smallest value that at least `share` of the values do not exceed; None without any."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else None


def ratio(value: float | None, base: float | None) -> float | None:
    """How many times `base` a value is; None if either is missing."""
    return None if value is None or not base else value / base
