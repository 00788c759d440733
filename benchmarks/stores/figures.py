"""What the runs come to.

Rules of this file: arithmetic over what workers saw; times are seconds from the beginning.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Any, NamedTuple

SAME_TIME = 0.02
"""Seconds: who asked within so little of another asked at the same time. Two processes of a busy machine can't be told apart better."""


class Admission(NamedTuple):
    """One request that got its place."""

    asked: float
    at: float
    """When it began its work."""
    tokens: int = 0
    """That it really used."""


class Waiting(NamedTuple):
    """A row of the comparison of those who wait."""

    admitted: int
    per_process: tuple[int, ...]
    commands: float
    """Of clients, for each admission."""
    out_of_order: float
    """Share of neighbours of whom the later one had asked first."""
    overtakers: float
    """Share of admissions that left behind somebody who had asked before."""
    median_wait: float
    """Seconds."""
    longest_wait: float
    cpu: float
    """Seconds of processor time for each admission, in the workers."""

    def as_json(self) -> dict[str, Any]:
        """For a file."""
        return self._asdict()


def waiting(processes: Sequence[Sequence[Admission]], seconds: float, commands: int, cpu: float) -> Waiting:
    """What a run of waiters comes to.

    Args:
        processes: What each process admitted.
        seconds: How long it ran; later admissions don't count.
        commands: How many commands clients sent.
        cpu: Seconds of processor time of all workers.
    """
    kept = [[each for each in admissions if each.at <= seconds] for admissions in processes]
    everything = in_order(kept)
    waits = [each.at - each.asked for each in everything]
    count = len(everything)
    return Waiting(
        admitted=count,
        per_process=tuple(len(admissions) for admissions in kept),
        commands=commands / max(1, count),
        out_of_order=out_of_order(everything),
        overtakers=overtakers(everything),
        median_wait=statistics.median(waits) if waits else 0.0,
        longest_wait=max(waits, default=0.0),
        cpu=cpu / max(1, count),
    )


def in_order(processes: Sequence[Sequence[Admission]]) -> list[Admission]:
    """All admissions, as they came."""
    return sorted((each for admissions in processes for each in admissions), key=lambda each: each.at)


def out_of_order(admissions: Sequence[Admission]) -> float:
    """Share of neighbours, in the order of admission, of whom the later one had asked first."""
    inverted = sum(later.asked < sooner.asked - SAME_TIME for sooner, later in pairwise(admissions))
    return inverted / max(1, len(admissions) - 1)


def overtakers(admissions: Sequence[Admission]) -> float:
    """Share of admissions, in that order, that left behind somebody who had asked before and came later."""
    # From the back: the earliest question among all that are still to come.
    earliest = list(accumulate((each.asked for each in reversed(admissions)), min))[::-1]
    passed = sum(left < each.asked - SAME_TIME for each, left in zip(admissions, earliest[1:], strict=False))
    return passed / max(1, len(admissions))


class Tokens(NamedTuple):
    """A row of the comparison of those who count tokens."""

    used: float
    """Share of what the limit allowed from the lead on that was really used: what came in, and what was left in the bucket then."""
    excess: float
    """The most by which the tokens used in any interval were above burst + rate · its length, as a share of the burst; ≤ 0: never above."""
    admitted: int
    commands: float
    cpu: float

    def as_json(self) -> dict[str, Any]:
        """For a file."""
        return self._asdict()


class Bucket(NamedTuple):
    """A limit on tokens."""

    rate: float
    """Tokens a second."""
    burst: float


def tokens(
    processes: Sequence[Sequence[Admission]],
    bucket: Bucket,
    *,
    lead: float,
    seconds: float,
    commands: int,
    cpu: float,
) -> Tokens:
    """What a saturated run comes to.

    Args:
        processes: What each process admitted.
        bucket: The limit.
        lead: Seconds at the beginning that don't count, in which the burst is used up.
        seconds: How long it ran.
        commands: How many commands clients sent.
        cpu: Seconds of processor time of all workers.
    """
    everything = [each for each in in_order(processes) if each.at <= seconds]
    counted = sum(each.tokens for each in everything if each.at >= lead)
    left = bucket.burst - owed([each for each in everything if each.at < lead], bucket, lead)
    return Tokens(
        used=counted / (left + bucket.rate * (seconds - lead)),
        excess=excess(everything, bucket) / bucket.burst,
        admitted=len(everything),
        commands=commands / max(1, len(everything)),
        cpu=cpu / max(1, len(everything)),
    )


def owed(admissions: Sequence[Admission], bucket: Bucket, at: float) -> float:
    """The tokens that are missing from a bucket at a time."""
    level, last = 0.0, 0.0
    for each in admissions:
        level = max(0.0, level - bucket.rate * (each.at - last)) + each.tokens
        last = each.at
    return max(0.0, level - bucket.rate * (at - last))


def excess(admissions: Sequence[Admission], bucket: Bucket) -> float:
    """The most tokens by which any interval from one admission to another is above what the bucket allows for it."""
    levels = (owed(admissions[: index + 1], bucket, each.at) for index, each in enumerate(admissions))
    return max(levels, default=0.0) - bucket.burst


def quantile(values: Sequence[float], share: float) -> float:
    """The value that `share` of the values do not exceed; 0 without any."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


class Gate(NamedTuple):
    """A figure to reach."""

    what: str
    reach: str
    measured: str
    met: bool | None
    """None: not measured, or not promised."""

    @property
    def word(self) -> str:
        """For a table."""
        return {True: "met", False: "MISSED", None: "–"}[self.met]


def gate(
    what: str, value: float | None, *, most: float | None = None, least: float | None = None, shown: str = "{:.2f}"
) -> Gate:
    """Hold a figure against its bounds."""
    bounds = [f"{sign} {shown.format(bound)}" for sign, bound in (("≥", least), ("≤", most)) if bound is not None]
    if value is None:
        return Gate(what, ", ".join(bounds), "–", None)
    met = (most is None or value <= most) and (least is None or value >= least)
    return Gate(what, ", ".join(bounds), shown.format(value), met)
