"""What is so at the moment, over all models that share one set of metrics: for gauges.

Rules of this file: it imports no system of metrics. What models and places for letters give to be read is read when somebody asks, never
kept up to date on a request's path, nor remembered of events: of those only one who hears all could tell what is so. Whoever is gone is
forgotten when somebody new comes, as it may be that nobody ever asks.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

from langchain_resilient.engine.budget import FULL
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
LEFT_BEHIND = 600.0
"""Seconds for which the last model of a provider is read after it was made, though none lives: where each request makes a model of its own,
none may live when somebody asks."""
DEPTHS = ("waiting", "claimed", "parked", "spooled")
LETTERS_KEPT = 5.0
"""Seconds for which a count of letters is good enough: it may cost a read of a file, or a round trip."""
PATIENCE = 0.25
"""Seconds that whoever asks waits for counts to end, all of them together; then the last ones are shown."""
COUNTER = "langchain-resilient-counter"
"""The threads that count letters."""
Counted = tuple[int, int, int, int, float | None]

GAUGES = {
    "circuit_state": "0 closed or disabled, 1 half-open, 2 open or forced open",
    "circuit_mode": "0 the circuit rules; set aside by hand: 1 metrics only, 2 disabled, 3 forced open",
    "retry_budget": "Tokens left for extra calls, of 100; none are made at 50",
    "pending": "Requests that wait or run",
    "store_degraded": "1 while a shared store can't be reached",
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
        clock: Seconds, for letters' ages and the pace at which they are counted; for how long the last model counts.
    """

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._models: list[Watching] = []
        self._newest: dict[str, tuple[float, Watching]] = {}
        """The last model of each provider, and when it was made."""
        self._letters: list[Letters] = []
        self._read: set[str] = set()
        """The shared stores of models, which can be asked."""
        self._away: set[str] = set()
        """Those that were told of as out of reach, of models and of users' limits."""
        self._user_type = Few()
        self.forked()
        tell_of_forks(self)

    def forked(self) -> None:
        """In a new child process: a thread of the parent may have held it."""
        # Re-entrant, as a signal's handler may make a model in the middle of this.
        self._adding = threading.RLock()

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
        with self._adding:
            self._newest.update(dict.fromkeys(event.providers, (self._clock.now(), event)))
            self._models = [*(model for model in self._models if model.pending() is not None), event]
            if event.store:
                self._read.add(event.store)

    def watch_letters(self, event: LettersWatched) -> None:
        """Read a place for letters too, unless it is read already."""
        with self._adding:
            for known in self._letters:
                if known.counts == event.counts:
                    return
                if event.place and known.place == event.place:
                    # Through who came last: the one before may have closed its box.
                    known.counts = event.counts
                    return
            self._letters.append(Letters(event.counts, event.place, self._clock))

    def store_changed(self, event: StoreDegraded) -> None:
        """Remember whether a shared store is away."""
        (self._away.add if event.degraded else self._away.discard)(event.store)

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
        """The providers that can be read."""
        return tuple(self._newest)

    @property
    def has_letters(self) -> bool:
        """Whether there is a place for letters."""
        return bool(self._letters)

    def _using(self, provider: str) -> list[Watching]:
        """The living models that use a provider; where none lives, the one that was made last, if that was of late."""
        living = [model for model in tuple(self._models) if provider in model.providers and model.pending() is not None]
        made, last = self._newest[provider]
        return living or ([last] if self._clock.now() - made < LEFT_BEHIND else [])

    def mode(self, provider: str) -> int:
        """See `GAUGES`: the farthest from the rule, over all models that use the provider; 0 where none does any more."""
        return max([MODES.get(model.mode(provider), 0) for model in self._using(provider)], default=MODES[None])

    def state(self, provider: str) -> int:
        """See `GAUGES`: the worst, over all models that use the provider; 0 where none does any more."""
        return max([_state(model, provider) for model in self._using(provider)], default=STATES["closed"])

    def budget(self, provider: str) -> float:
        """See `GAUGES`: the least, over all models that use the provider; full where none does any more."""
        return min([model.budget(provider) for model in self._using(provider)], default=FULL)

    def pending(self) -> int:
        """See `GAUGES`."""
        return sum([count for model in tuple(self._models) if (count := model.pending()) is not None])

    def store_degraded(self) -> int:
        """See `GAUGES`: a model's store is asked; of the others it is known what was told."""
        alone = any(model.alone() for provider in self.watched for model in self._using(provider))
        return int(alone or bool(self._away - self._read))

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


def _state(model: Watching, provider: str) -> int:
    """What is forced open refuses as an open circuit does, and a disabled one refuses nobody, whatever state it is in."""
    mode = model.mode(provider)
    if mode in {"forced_open", "disabled"}:
        return STATES["open" if mode == "forced_open" else "closed"]
    return STATES.get(model.phase(provider), STATES["closed"])


HEARD: dict[type, Callable[[Levels, Any], None] | None] = {
    Watching: Levels.watch,
    LettersWatched: Levels.watch_letters,
    CircuitChanged: None,
    StoreDegraded: Levels.store_changed,
}
"""Events that say what is so now, or (None) that what is read has moved."""
TOLD = frozenset(ROWS) | frozenset(HEARD)
"""Events that count, or say what is so; the others measure, and are each system's own."""
