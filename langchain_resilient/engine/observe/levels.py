"""What is so at the moment, over all models that share one set of metrics: for gauges.

Rules of this file: it imports no system of metrics. What models and places for letters give to be read is read when somebody asks, never
kept up to date on a request's path; whoever is gone is forgotten when somebody new comes, as it may be that nobody ever asks.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from langchain_resilient.engine.events import (
    CircuitChanged,
    Event,
    LettersWatched,
    RateLimited,
    StoreDegraded,
    Watching,
)
from langchain_resilient.engine.observe.rows import ROWS, Few
from langchain_resilient.engine.policy import Clock, SystemClock

LOGGER = logging.getLogger("langchain_resilient")
STATES = {"closed": 0, "half_open": 1, "open": 2}
MODES = {None: 0, "metrics_only": 1, "disabled": 2, "forced_open": 3}
DEPTHS = ("waiting", "claimed", "parked", "spooled")
LETTERS_KEPT = 5.0
"""Seconds for which a count of letters is good enough: it may cost a read of a file, or a round trip."""

GAUGES = {
    "circuit_state": "0 closed, 1 half-open, 2 open or forced open",
    "circuit_mode": "0 the circuit rules; set aside by hand: 1 metrics only, 2 disabled, 3 forced open",
    "retry_budget": "Tokens left for extra calls, of 100; none are made at 50",
    "pending": "Requests that wait or run",
    "store_degraded": "1 while the shared store can't be reached",
    "dead_letter_depth": "Requests kept that nobody answered, by what is with them",
    "dead_letter_oldest_seconds": "Seconds since the oldest waiting or claimed dead letter was kept; 0 without any",
}


class Letters:
    """One place for dead letters, read at most once in five seconds.

    Args:
        counts: See `LettersWatched`.
        clock: Paces the reading.
    """

    def __init__(self, counts: Callable[[], tuple[int, int, int, int, float | None] | None], clock: Clock) -> None:
        self.counts = counts
        self._clock = clock
        self._read_at = clock.now() - LETTERS_KEPT
        self._last: tuple[int, int, int, int, float | None] | None = (0, 0, 0, 0, None)
        self._failed = False

    def read(self) -> tuple[int, int, int, int, float | None] | None:
        """What is in it, or was when it could last be read; None once its owner is gone."""
        now = self._clock.now()
        if self._last is not None and now - self._read_at >= LETTERS_KEPT:
            self._read_at = now
            try:
                self._last = self.counts()
            except Exception as error:  # noqa: BLE001  # one place that can't be read must not cost a scrape all other metrics
                if not self._failed:
                    self._failed = True
                    message = "dead letters can't be counted (%s); the last count stays, and this is logged once"
                    LOGGER.debug(message, type(error).__name__)
        return self._last


class Levels:
    """What is so at the moment.

    Args:
        clock: Seconds, for letters' ages and the pace at which they are counted.
    """

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._phases: dict[str, str] = {}
        self._modes: dict[str, Callable[[str], str | None]] = {}
        self._budgets: dict[str, Callable[[str], float]] = {}
        self._models: list[Callable[[], int | None]] = []
        self._letters: list[Letters] = []
        self.degraded = 0
        self._user_type = Few()

    # ------------------------------------------------------------------------------------------------------- being told
    def heard(self, event: Event) -> Event:
        """Take note of an event that says what is so now; the event, as it may be counted."""
        note = HEARD.get(type(event))
        if note is not None:
            note(self, event)
        return self.few(event) if isinstance(event, RateLimited) else event

    def watch(self, event: Watching) -> None:
        """Read a model too."""
        for provider in event.providers:
            self._modes[provider] = event.mode
            self._budgets[provider] = event.budget
        self._models = [*(model for model in self._models if model() is not None), event.pending]

    def watch_letters(self, event: LettersWatched) -> None:
        """Read a place for letters too, unless it is read already."""
        self._letters = [place for place in self._letters if place.read() is not None]
        if all(place.counts != event.counts for place in self._letters):
            self._letters.append(Letters(event.counts, self._clock))

    def changed(self, event: CircuitChanged) -> None:
        """Remember a circuit's state."""
        self._phases[event.provider] = event.after

    def store_changed(self, event: StoreDegraded) -> None:
        """Remember whether the shared store is away."""
        self.degraded = int(event.degraded)

    def few(self, event: RateLimited) -> RateLimited:
        """The event, with its kind of user among few: the one label whose words users make up."""
        return event._replace(user_type=self._user_type(event.user_type))

    # ---------------------------------------------------------------------------------------------------------- reading
    @property
    def models(self) -> int:
        """How many models are read."""
        return len(self._models)

    @property
    def watched(self) -> tuple[str, ...]:
        """The providers whose mode and budget can be read."""
        return tuple(self._modes)

    @property
    def circuits(self) -> tuple[str, ...]:
        """The providers whose circuits are known."""
        return tuple(dict.fromkeys((*self._modes, *self._phases)))

    @property
    def has_letters(self) -> bool:
        """Whether there is a place for letters."""
        return bool(self._letters)

    def mode(self, provider: str) -> int:
        """See `GAUGES`."""
        return MODES.get(self._modes[provider](provider), 0)

    def state(self, provider: str) -> int:
        """See `GAUGES`: what is forced open refuses as an open circuit does, whatever state it is in."""
        if provider in self._modes and self.mode(provider) == MODES["forced_open"]:
            return STATES["open"]
        return STATES.get(self._phases.get(provider, "closed"), STATES["closed"])

    def budget(self, provider: str) -> float:
        """See `GAUGES`."""
        return self._budgets[provider](provider)

    def pending(self) -> int:
        """See `GAUGES`."""
        return sum([count for model in tuple(self._models) if (count := model()) is not None])

    def store_degraded(self) -> int:
        """See `GAUGES`."""
        return self.degraded

    def depth(self, state: str) -> int:
        """Letters in one of `DEPTHS`, over all places."""
        which = DEPTHS.index(state)
        return sum([int(counts[which] or 0) for place in self._letters if (counts := place.read()) is not None])

    def oldest(self) -> float:
        """See `GAUGES`."""
        kept = [counts[4] for place in self._letters if (counts := place.read()) is not None and counts[4] is not None]
        return max(0.0, self._clock.wall() - min(kept)) if kept else 0.0


HEARD: dict[type, Callable[[Levels, Any], None]] = {
    Watching: Levels.watch,
    LettersWatched: Levels.watch_letters,
    CircuitChanged: Levels.changed,
    StoreDegraded: Levels.store_changed,
}
"""Events that say what is so now."""
TOLD = frozenset(ROWS) | frozenset(HEARD)
"""Events that count, or say what is so; the others measure, and are each system's own."""
