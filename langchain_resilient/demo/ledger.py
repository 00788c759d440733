"""What became of every question: one ledger for each contender.

Rules of this file: arithmetic; times are seconds from the beginning of the play, and every step is told the time.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple


class Fate(NamedTuple):
    """What became of one question."""

    number: int
    at: float
    """When it was asked."""
    seconds: float
    """How long the user waited, for an answer or an error."""
    provider: str | None
    """Who answered; None: nobody."""
    error: str | None
    """The kind of the failure; None: answered."""

    @property
    def answered(self) -> bool:
        """Whether the user has an answer, in full."""
        return self.error is None


class Figures(NamedTuple):
    """What a ledger comes to."""

    asked: int
    answered: int
    failed: int
    waiting: int
    p50: float | None
    """Seconds that users waited, for an answer or an error; None: nobody has either yet."""
    p99: float | None


class Ledger:
    """One contender's questions."""

    def __init__(self) -> None:
        self.fates: list[Fate] = []
        self._asked: dict[int, float] = {}

    def ask(self, number: int, now: float) -> None:
        """A question is put."""
        self._asked[number] = now

    def close(self, number: int, now: float, *, provider: str | None = None, error: str | None = None) -> None:
        """It is answered, or it failed; the first word counts."""
        at = self._asked.pop(number, None)
        if at is not None:
            self.fates.append(Fate(number, at, now - at, provider, error))

    @property
    def waiting(self) -> tuple[int, ...]:
        """The questions that have neither answer nor error yet."""
        return tuple(self._asked)

    def figures(self, since: float = -math.inf) -> Figures:
        """What it comes to; percentiles over those that were over after `since`."""
        return figures_of(self.fates, waiting=len(self._asked), since=since)


def figures_of(fates: Sequence[Fate], *, waiting: int = 0, since: float = -math.inf) -> Figures:
    """What some questions come to."""
    waits = sorted(fate.seconds for fate in fates if fate.at + fate.seconds >= since)
    answered = sum(fate.answered for fate in fates)
    return Figures(
        asked=len(fates) + waiting,
        answered=answered,
        failed=len(fates) - answered,
        waiting=waiting,
        p50=quantile(waits, 0.5),
        p99=quantile(waits, 0.99),
    )


def quantile(ordered: Sequence[float], share: float) -> float | None:
    """The smallest value that at least `share` of the values do not exceed; None without any."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else None
