"""What is counted of each event: one table for every system that is told of figures.

Rules of this file: it imports no such system. A label is a provider's name, which settings bound, or a word of a closed vocabulary: whatever
is in none is "other", so that no error's text, prompt, tenant or key can become one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from langchain_resilient.engine.classify import ErrorKind
from langchain_resilient.engine.events import (
    AdmissionRefused,
    Admitted,
    CircuitChanged,
    Continued,
    CredentialBlocked,
    DeadLettered,
    Event,
    FellBack,
    Hedged,
    RateLimited,
    Replayed,
    Retried,
    StreamInterrupted,
)
from langchain_resilient.engine.quota import LINE_LIMITS

OTHER = "other"
MOST_USER_TYPES = 100
Words = dict[str, str]
Row = tuple[str, ...]
"""A counter's key and its labels' values."""


def _words(*words: str) -> Words:
    return {str(word): str(word) for word in words}


KINDS = _words("ok", *ErrorKind)
OUTCOMES = _words("answered", "cancelled", "interrupted", "failed", "refused", "deadline", "overloaded")
PHASES = _words("closed", "half_open", "open")
BLOCKS = _words("auth", "quota_exhausted")
TURNS = _words(*ErrorKind, "slow", "probe", "ok", "first_token", "reset")
SOURCES = _words("client", "provider")
DIMENSIONS = _words(*sorted(LINE_LIMITS), "429", "own limiter")
REASONS = _words(
    *sorted(LINE_LIMITS), "circuit_open", "half_open", "forced_open", "blocked", "auth", "quota_exhausted", "deadline", "budget", "slow",
    "silent", "unwell", "ineligible",
)  # fmt: skip
LETTER_KINDS = _words(*ErrorKind, "refused", "deadline")
PLACES = _words("sqlite", "redis", "spool", "lost")
REPLAYS = _words("answered", "refused", "failed", "parked")


class Few:
    """Lets the first hundred words through, for labels whose words the user makes up; later ones are "other"."""

    def __init__(self, most: int = MOST_USER_TYPES) -> None:
        self._most = most
        self._seen: set[str] = set()

    def __call__(self, word: str) -> str:
        """The word, or "other"."""
        if word in self._seen:
            return word
        if len(self._seen) >= self._most:
            return OTHER
        self._seen.add(word)
        return word


class Counted(NamedTuple):
    """One counter."""

    text: str
    labels: tuple[str, ...]


COUNTERS = {
    "fallback": Counted("Answered requests, by first-ranked and answering provider", ("from_provider", "to_provider")),
    "rate_limit_hits": Counted("Requests that met a rate limit", ("user_type",)),
    "requests": Counted("Requests, by how they ended", ("outcome", "provider")),
    "attempts": Counted("Attempts, by how they ended", ("provider", "kind")),
    "retries": Counted("Retries at the same provider, by the failure before", ("provider", "kind")),
    "fallbacks": Counted("Moves after a failure", ("from_provider", "to_provider", "kind")),
    "tokens": Counted("Tokens used", ("provider", "direction")),
    "cost_usd": Counted("US dollars by the configured price", ("provider",)),
    "rate_limited": Counted("Rate limits met", ("provider", "source", "dimension")),
    "stream_interruptions": Counted("Streams that broke", ("provider", "kind", "shown")),
    "stream_continuations": Counted("Broken streams that went on", ("from_provider", "to_provider")),
    "hedges": Counted("Second requests beside a late one", ("provider", "beside", "won")),
    "circuit_transitions": Counted("Changes of circuit state", ("provider", "before", "after")),
    "credential_blocks": Counted("Credentials left alone", ("provider", "reason")),
    "admission_refusals": Counted("Candidates refused where nobody could take the request", ("provider", "reason")),
    "dead_letters": Counted("Requests kept that nobody answered", ("kind", "where")),
    "dead_letters_replayed": Counted("Dead letters asked again, by how that ended", ("outcome",)),
}


def _yes(is_so: object) -> str:
    return "true" if is_so else "false"


def _retried(event: Retried) -> Iterable[Row]:
    return (("retries", event.provider, KINDS.get(event.kind, OTHER)),)


def _fell_back(event: FellBack) -> Iterable[Row]:
    return (("fallbacks", event.from_provider, event.to_provider, KINDS.get(event.kind, OTHER)),)


def _limited(event: RateLimited) -> Iterable[Row]:
    # Whoever counts has passed the one label that users make up through `Few`.
    source, dimension = SOURCES.get(event.source, OTHER), DIMENSIONS.get(event.dimension, OTHER)
    return ("rate_limited", event.provider, source, dimension), ("rate_limit_hits", event.user_type)


def _interrupted(event: StreamInterrupted) -> Iterable[Row]:
    return (("stream_interruptions", event.provider, KINDS.get(event.kind, OTHER), _yes(event.shown)),)


def _continued(event: Continued) -> Iterable[Row]:
    return (("stream_continuations", event.from_provider, event.to_provider),)


def _hedged(event: Hedged) -> Iterable[Row]:
    return (("hedges", event.provider, event.beside, _yes(event.won)),)


def _changed(event: CircuitChanged) -> Iterable[Row]:
    return (("circuit_transitions", event.provider, PHASES.get(event.before, OTHER), PHASES.get(event.after, OTHER)),)


def _blocked(event: CredentialBlocked) -> Iterable[Row]:
    return (("credential_blocks", event.provider, BLOCKS.get(event.reason, OTHER)),)


def _refused(event: AdmissionRefused) -> Iterable[Row]:
    return [("admission_refusals", it.provider, REASONS.get(it.reason, OTHER)) for it in event.refusals]


def _kept(event: DeadLettered) -> Iterable[Row]:
    return (("dead_letters", LETTER_KINDS.get(event.kind, OTHER), PLACES.get(event.where, OTHER)),)


def _replayed(event: Replayed) -> Iterable[Row]:
    return (("dead_letters_replayed", REPLAYS.get(event.outcome, OTHER)),)


ROWS: dict[type, Callable[[Any], Iterable[Row]]] = {
    Retried: _retried,
    FellBack: _fell_back,
    RateLimited: _limited,
    StreamInterrupted: _interrupted,
    Continued: _continued,
    Hedged: _hedged,
    CircuitChanged: _changed,
    CredentialBlocked: _blocked,
    AdmissionRefused: _refused,
    DeadLettered: _kept,
    Replayed: _replayed,
}
"""Events that only count: by one, in each of their rows. `Attempted` and `Decided` also measure, and are each system's own."""


def rows_of(event: Event) -> Iterable[Row]:
    """What is counted of an event that only counts; nothing of any other."""
    return ROWS.get(type(event), _none)(event)


def _none(_: Event) -> Iterable[Row]:
    return ()


UNCOUNTED: dict[type, str] = {
    Admitted: "every admitted attempt ends as an Attempted, which is counted, and what it waited is in Decided; it is the one event that"
    " costs nothing while nobody listens, on the hottest of paths",
}
"""Events that are not counted, and why."""
