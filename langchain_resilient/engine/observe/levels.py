"""What is so at the moment, over all models that share one set of metrics: for gauges.

Rules of this file: it imports no system of metrics. What models and places for letters give to be read is read when somebody asks, never
kept up to date on a request's path; whoever is gone is forgotten when somebody new comes, as it may be that nobody ever asks.
"""

from __future__ import annotations

import logging
import threading
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
from langchain_resilient.engine.store.forks import tell_of_forks

LOGGER = logging.getLogger("langchain_resilient")
STATES = {"closed": 0, "half_open": 1, "open": 2}
MODES = {None: 0, "metrics_only": 1, "disabled": 2, "forced_open": 3}
DEPTHS = ("waiting", "claimed", "parked", "spooled")
LETTERS_KEPT = 5.0
"""Seconds for which a count of letters is good enough: it may cost a read of a file, or a round trip."""
PATIENCE = 0.25
"""Seconds that whoever asks waits for counts to end, all of them together; then the last ones are shown."""
COUNTER = "langchain-resilient-counter"
"""The threads that count letters."""
Counted = tuple[int, int, int, int, float | None]

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
    """One place for dead letters, counted at most once in five seconds, in a thread that nobody has to wait for.

    Args:
        counts: See `LettersWatched`.
        place: See there.
        clock: Paces the counting.
    """

    def __init__(self, counts: Callable[[], Counted], place: str, clock: Clock) -> None:
        self.counts = counts
        self.place = place
        self.last: Counted = (0, 0, 0, 0, None)
        """What was in it when it was last counted."""
        self._clock = clock
        self._counted_at = clock.now() - LETTERS_KEPT
        self._is_counted = False
        self._failed = False
        self._free = threading.Lock()
        tell_of_forks(self)

    def forked(self) -> None:
        """In a new child process: who was counting is the parent's."""
        self._free = threading.Lock()
        self._is_counted = False

    def begin(self) -> threading.Event | None:
        """Count, if that is due and nobody does. Returns what is set at the end, to who began it alone: the next one shows the last count."""
        with self._free:
            if self._is_counted or self._clock.now() - self._counted_at < LETTERS_KEPT:
                return None
            self._is_counted = True
        done = threading.Event()
        try:
            threading.Thread(target=self._count, args=(done,), name=COUNTER, daemon=True).start()
        except RuntimeError:  # Python starts no thread any more when it ends, and metrics may be written even then
            self._is_counted = False
            return None
        return done

    def _count(self, done: threading.Event) -> None:
        try:
            self.last = self.counts()
        except Exception as error:  # noqa: BLE001  # one place that can't be read must not cost a scrape all other metrics
            if not self._failed:
                self._failed = True
                message = "dead letters can't be counted (%s); the last count stays, and this is logged once"
                LOGGER.debug(message, type(error).__name__)
        finally:
            # From its end: one that takes seconds to fail would be due again at once.
            self._counted_at = self._clock.now()
            self._is_counted = False
            done.set()


class Levels:
    """What is so at the moment.

    Args:
        clock: Seconds, for letters' ages and the pace at which they are counted.
    """

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._phases: dict[str, str] = {}
        self._models: list[Watching] = []
        self._newest: dict[str, Watching] = {}
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
        """Read a model too, for as long as it lives.

        What can be read of it holds its clients. So a dead model is let go when the next one is made, but for the last one of each provider.
        """
        self._newest.update(dict.fromkeys(event.providers, event))
        self._models = [*(model for model in self._models if model.pending() is not None), event]

    def watch_letters(self, event: LettersWatched) -> None:
        """Read a place for letters too, unless it is read already."""
        for known in self._letters:
            if known.counts == event.counts:
                return
            if event.place and known.place == event.place:
                # Through who came last: the one before may have closed its box.
                known.counts = event.counts
                return
        self._letters.append(Letters(event.counts, event.place, self._clock))

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
        return sum([model.pending() is not None for model in tuple(self._models)])

    @property
    def watched(self) -> tuple[str, ...]:
        """The providers whose mode and budget can be read."""
        return tuple(self._newest)

    @property
    def circuits(self) -> tuple[str, ...]:
        """The providers whose circuits are known."""
        return tuple(dict.fromkeys((*self._newest, *self._phases)))

    @property
    def has_letters(self) -> bool:
        """Whether there is a place for letters."""
        return bool(self._letters)

    def _using(self, provider: str) -> list[Watching]:
        """The living models that use a provider; where none lives, the one that was made last: what it shared goes on without it."""
        living = [model for model in tuple(self._models) if provider in model.providers and model.pending() is not None]
        return living or [self._newest[provider]]

    def mode(self, provider: str) -> int:
        """See `GAUGES`: the farthest from the rule, over all models that use the provider."""
        return max([MODES.get(model.mode(provider), 0) for model in self._using(provider)])

    def state(self, provider: str) -> int:
        """See `GAUGES`: what is forced open refuses as an open circuit does, whatever state it is in."""
        if provider in self._newest and self.mode(provider) == MODES["forced_open"]:
            return STATES["open"]
        return STATES.get(self._phases.get(provider, "closed"), STATES["closed"])

    def budget(self, provider: str) -> float:
        """See `GAUGES`: the least, over all models that use the provider."""
        return min([model.budget(provider) for model in self._using(provider)])

    def pending(self) -> int:
        """See `GAUGES`."""
        return sum([count for model in tuple(self._models) if (count := model.pending()) is not None])

    def store_degraded(self) -> int:
        """See `GAUGES`."""
        return self.degraded

    def depth(self, state: str) -> int:
        """Letters in one of `DEPTHS`, over all places."""
        which = DEPTHS.index(state)
        return sum([int(counts[which] or 0) for counts in self._counted()])

    def oldest(self) -> float:
        """See `GAUGES`."""
        kept = [counts[4] for counts in self._counted() if counts[4] is not None]
        return max(0.0, self._clock.wall() - min(kept)) if kept else 0.0

    def _counted(self) -> list[Counted]:
        """What is in each place, or was when it could last be counted."""
        places = tuple(self._letters)
        begun = [done for place in places if (done := place.begin()) is not None]
        until = self._clock.now() + PATIENCE
        for done in begun:
            done.wait(max(0.0, until - self._clock.now()))
        return [place.last for place in places]


HEARD: dict[type, Callable[[Levels, Any], None]] = {
    Watching: Levels.watch,
    LettersWatched: Levels.watch_letters,
    CircuitChanged: Levels.changed,
    StoreDegraded: Levels.store_changed,
}
"""Events that say what is so now."""
TOLD = frozenset(ROWS) | frozenset(HEARD)
"""Events that count, or say what is so; the others measure, and are each system's own."""
