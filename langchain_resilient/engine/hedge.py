"""Hedges: a second request beside one that is late to begin, so that the slowest few are not the user's.

Rules of this file: pure, but for the lock around one number. A hedge is sent when a stream has said nothing for longer than most do
(Dean and Barroso, "The tail at scale", 2013), never on the time to a whole answer: that would ask twice for every long one, and those are
slow for a good reason. Whoever says something first is told; the other is cancelled.

What bounds them: in health a share of the requests, earned by them one by one, so that a provider that is slow for all is not asked for
twice as much. Where many are late at once, none of them is one of the slowest few, and waiting helps nobody: then only the retry budget of
whoever is asked bounds what is sent there, and a provider that is outrun so again and again is asked last, until a look finds it fast.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

from langchain_resilient.engine.errors import checked, is_number, require
from langchain_resilient.engine.store.forks import tell_of_forks

BURST = 3.0
"""Hedges that can be saved up."""


@checked
@dataclass(frozen=True, slots=True)
class Hedge:
    """When to ask a second provider beside the first. Checked when made: raises `SettingsError`."""

    quantile: float = 0.95
    """Of the time to first token at that provider, after which it is late (0.5 … 0.999): learned, from at least 20 answers in a minute."""
    max_fraction: float = 0.05
    """Hedges per request, at most (> 0, ≤ 1), beside those for a provider where many are late at once."""

    def __post_init__(self) -> None:
        require(
            is_number(self.quantile, least=0.5, most=0.999),
            "Hedge.quantile",
            self.quantile,
            "use a share of the answers, 0.5 … 0.999",
        )
        require(
            is_number(self.max_fraction, above=0, most=1),
            "Hedge.max_fraction",
            self.max_fraction,
            "use a share of the requests > 0 and ≤ 1",
        )


class Allowance:
    """How many hedges may be sent: a share of the requests so far, of which a few can be saved up.

    Args:
        hedge: The settings.
    """

    def __init__(self, hedge: Hedge) -> None:
        self._share = hedge.max_fraction
        self._saved = 0.0
        self._lock = threading.Lock()
        tell_of_forks(self)

    def forked(self) -> None:
        """In a new child process: the lock may be held by a thread that it does not have."""
        self._lock = threading.Lock()

    def earn(self) -> None:
        """A request was made."""
        with self._lock:
            self._saved = min(BURST, self._saved + self._share)

    def spend(self) -> bool:
        """Take one; False if there is none."""
        with self._lock:
            if self._saved < 1.0:
                return False
            self._saved -= 1.0
            return True

    def give_back(self) -> None:
        """One that was taken was not sent."""
        with self._lock:
            self._saved = min(BURST, self._saved + 1.0)
