"""What one outage comes to for a fleet.

Rules of this file: arithmetic over what callers saw (`Fate`) and what the first provider saw (`Call`); seconds from the beginning.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

from fleets.scene import Call, Scene, Worker

THRESHOLD = 5
"""Failures in a row that open a circuit, by default."""
NEWS = 0.05
"""Seconds after the fifth failure within which a request may have left that could not know of it."""
JITTER = 0.9
"""An open circuit's time is jittered by a tenth: the shortest."""


class Figures(NamedTuple):
    """A row of the table."""

    dead: int
    """Calls into the dead provider, of the whole fleet."""
    in_flight: int
    """Of them: beyond the fifth, and under way when its failure came."""
    probes: int
    """Of them: asked whether it is well again."""
    allowed: int
    """Five, those in flight, and one probe at a time."""
    answered: float
    """Share of all requests."""
    p50: float
    """Seconds, of those that came in the outage."""
    p99: float
    slowest: float
    """Seconds, of all."""
    used_again: float | None
    """Seconds from healing until the first provider answers a request. None: it never did."""
    by_all: float | None
    """Until it has answered one of every process."""
    away: tuple[int, int]
    """How many processes were told that Redis is away, and that it is back."""
    errors: dict[str, int]
    cpu: float
    """Processors that the workers took, on average."""

    def as_json(self) -> dict[str, Any]:
        """For a file."""
        return self._asdict()


def figures_of(workers: Sequence[Worker], calls: Sequence[Call], scene: Scene, first: str) -> Figures:
    """What an outage came to.

    Args:
        workers: What each process tells.
        calls: What the first provider was asked.
        scene: What happened.
        first: The first provider's name.
    """
    dead = sorted(call.at for call in calls if call.failed)
    opened = dead[THRESHOLD - 1] + scene.takes + NEWS if len(dead) >= THRESHOLD else math.inf
    in_flight = max(0, sum(at <= opened for at in dead) - THRESHOLD)
    fates = [fate for worker in workers for fate in worker.fates]
    hit = sorted(fate.seconds for fate in fates if scene.lead_in <= fate.at < scene.heals_at)
    again = [_first_again(worker, scene, first) for worker in workers]
    back = [seconds for seconds in again if seconds is not None]
    return Figures(
        dead=len(dead),
        in_flight=in_flight,
        probes=sum(scene.lead_in <= at < scene.heals_at + scene.takes for worker in workers for at in worker.probes),
        allowed=THRESHOLD + in_flight + probes_allowed(scene),
        answered=sum(not fate.error for fate in fates) / max(1, len(fates)),
        p50=quantile(hit, 0.5),
        p99=quantile(hit, 0.99),
        slowest=max((fate.seconds for fate in fates), default=0.0),
        used_again=min(back, default=None),
        by_all=max(back) if len(back) == len(again) and back else None,
        away=(
            sum(any(gone for _, gone in worker.degraded) for worker in workers),
            sum(any(not gone for _, gone in worker.degraded) for worker in workers),
        ),
        errors=dict(Counter(fate.error for fate in fates if fate.error)),
        cpu=sum(worker.cpu for worker in workers) / scene.seconds,
    )


def probes_allowed(scene: Scene) -> int:
    """How many probes one circuit makes in the outage at most."""
    return math.ceil(scene.outage / (JITTER * scene.recovery))


def _first_again(worker: Worker, scene: Scene, first: str) -> float | None:
    """Seconds from healing to the end of the first answer of the first provider to this process."""
    ends = [
        fate.at + fate.seconds - scene.heals_at
        for fate in worker.fates
        if fate.provider == first and fate.at + fate.seconds > scene.heals_at
    ]
    return min(ends, default=None)


def quantile(ordered: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` of the values do not exceed; 0 without any."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else 0.0
