"""What happened: frozen records, told to observers.

Rules of this file: a record is a `NamedTuple` (frozen, and the cheapest thing Python can build on a hot path); times are seconds; no
record holds a prompt, an answer, a credential or an exception, so an observer may write any of them anywhere.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol


class Usage(NamedTuple):
    """Tokens that one answer used."""

    input: int = 0
    output: int = 0
    cached_input: int = 0
    """The part of `input` that the provider read from its cache."""

    def plus(self, other: Usage) -> Usage:
        """Both together."""
        return Usage(*(ours + theirs for ours, theirs in zip(self, other, strict=True)))


class Attempt(NamedTuple):
    """One attempt at one provider, as the decision record keeps it."""

    provider: str
    kind: str
    """"ok", or the `ErrorKind` of the failure; "cancelled": another one had answered first, or its caller went away."""
    seconds: float
    wait: float = 0.0
    """Seconds waited before it: backoff, Retry-After or a rate limit."""
    probe: bool = False
    limit: str | None = None
    """For a timeout: which limit fired."""
    status: int | None = None
    changed: tuple[str, ...] = ()
    """What of the request was converted or left out, as this provider would not have taken it."""


class Refusal(NamedTuple):
    """A candidate that was not tried."""

    provider: str
    reason: str
    """"circuit_open", "half_open", "forced_open", "blocked", "auth", "rpm" … (the dimension), "concurrency", "line", "deadline", "budget";
    "ineligible": it may not answer this request; "slow" and "silent": only asked later than it would have been."""
    retry_after: float | None = None
    """Seconds until it may be admitted; None: not by waiting."""


class Decision(NamedTuple):
    """Why this request went where it went."""

    request_id: int
    provider: str | None
    """Who answered; None if nobody did."""
    first_choice: str
    """The first-ranked provider of this request."""
    outcome: str
    """"answered", "cancelled", "interrupted", or the reason that ended it ("failed", "refused", "deadline", "overloaded")."""
    seconds: float
    first_token: float | None
    """Seconds until the caller had the first of a stream, over all attempts and waits; None: the answer came whole, or nothing was shown."""
    attempts: tuple[Attempt, ...]
    refusals: tuple[Refusal, ...]
    circuit: str
    """The answering (else the last tried) provider's circuit state afterwards."""
    fallback: bool
    """True if somebody other than `first_choice` answered."""
    usage: Usage | None
    cost: float | None
    """US dollars by the provider's `price`; None where price or usage is unknown."""
    stream: bool
    lane: str
    tenant: str | None
    continued: int = 0
    """How often another provider (or the same one again) went on with what was shown already."""
    hedged: bool = False
    """Whether a second provider was asked beside a late one."""

    @property
    def user_wait(self) -> float:
        """Seconds until the caller had something to read: the first of a stream, else the whole answer."""
        return self.seconds if self.first_token is None else self.first_token


class Watching(NamedTuple):
    """A model was made that uses these providers; what of it may be read at any time, for gauges."""

    providers: tuple[str, ...]
    budget: Callable[[str], float] = lambda _: 0.0
    """The retry budget's tokens, by provider."""
    pending: Callable[[], int | None] = lambda: None
    """Requests of this model that wait or run; None once the model is gone."""
    mode: Callable[[str], str | None] = lambda _: None
    """How a provider's circuit is set aside by hand ("forced_open", "disabled", "metrics_only"), by provider; None: it rules."""
    phase: Callable[[str], str] = lambda _: "closed"
    """A provider's circuit ("closed", "half_open", "open"), by provider, as far as this process knows: without a round trip."""
    store: str = ""
    """The shared store, as `StoreDegraded` names it; "": there is none."""
    alone: Callable[[], bool] = lambda: False
    """Whether the shared store can't be reached now, as far as this process knows."""


class Admitted(NamedTuple):
    """A provider granted a place to one attempt."""

    provider: str
    probe: bool
    waited: float


class AdmissionRefused(NamedTuple):
    """No candidate could take the request when it was asked."""

    refusals: tuple[Refusal, ...]


class Attempted(NamedTuple):
    """One attempt ended."""

    provider: str
    kind: str
    """"ok", or the `ErrorKind`; "cancelled": another one had answered first, or its caller went away."""
    seconds: float
    first_token: float | None
    usage: Usage | None
    probe: bool
    cost: float | None = None
    """US dollars for `usage` by the provider's `price`, whether or not anybody saw the answer; None where either is unknown."""


class Retried(NamedTuple):
    """The same provider is asked again."""

    provider: str
    kind: str
    delay: float


class FellBack(NamedTuple):
    """Another provider is asked after a failure."""

    from_provider: str
    to_provider: str
    kind: str


class CircuitChanged(NamedTuple):
    """A circuit changed state."""

    provider: str
    before: str
    after: str
    reason: str
    """The `ErrorKind` of the failure that opened it, or "slow"; "probe" for half-open; "ok", "first_token" or "reset" (by hand) for
    closed."""


class CredentialBlocked(NamedTuple):
    """A credential is left alone for a while: refused ("auth") or used up ("quota_exhausted"). Somebody should look at it."""

    provider: str
    reason: str
    seconds: float


class RateLimited(NamedTuple):
    """A rate limit was hit: `source` is "client" (our limits) or "provider" (its 429)."""

    provider: str
    source: str
    dimension: str
    user_type: str = "default"


class Hedged(NamedTuple):
    """A second request was sent beside a late first one; told when it is known who was the first to say something."""

    provider: str
    """Who was asked second."""
    beside: str
    """Who was late."""
    won: bool
    """Whether the second was the first to answer."""


class StreamInterrupted(NamedTuple):
    """A stream broke; `shown` tells whether the caller had seen part of it."""

    provider: str
    kind: str
    shown: bool


class Continued(NamedTuple):
    """A broken stream goes on, from another provider or from the same one."""

    from_provider: str
    to_provider: str


class StoreDegraded(NamedTuple):
    """The shared store can't be reached (or can again)."""

    degraded: bool
    reason: str
    store: str = ""
    """Which one: its servers and the namespace, without users and passwords."""


class Decided(NamedTuple):
    """A request is over."""

    decision: Decision


class DeadLettered(NamedTuple):
    """A request that nobody answered was kept, to be asked again later."""

    letter: str
    """Its id."""
    key: str
    """Its idempotency key."""
    kind: str
    """The `ErrorKind` of the last failure; "refused": nobody was asked; "deadline"."""
    where: str
    """"sqlite", "redis" or "spool"; "lost": it could be written nowhere."""


class Replayed(NamedTuple):
    """A dead letter was asked again."""

    letter: str
    outcome: str
    """"answered"; "refused": nobody was asked (circuits or limits); "failed": it goes back; "parked": it failed too often."""
    seconds: float


class LettersWatched(NamedTuple):
    """A place for dead letters was opened; what is in it may be read at any time, for gauges.

    A place counts once, however many tell of it: those with one `place`, and those with equal functions (a method of one object is equal to
    itself).
    """

    counts: Callable[[], tuple[int, int, int, int, float | None]]
    """Letters waiting, claimed, parked and spooled, and the seconds since the epoch at which the oldest of the waiting and claimed was kept
    (None: there is none). It may read a file or ask a server that hangs: it is asked in a thread of its own, at most once in five seconds."""
    place: str = ""
    """Which place it is: only compared, so a hash does, and no password is in it. "": unknown, and counted beside all others."""


Event = (
    Admitted
    | AdmissionRefused
    | Attempted
    | Retried
    | FellBack
    | CircuitChanged
    | CredentialBlocked
    | RateLimited
    | Hedged
    | StreamInterrupted
    | Continued
    | StoreDegraded
    | Decided
    | Watching
    | DeadLettered
    | Replayed
    | LettersWatched
)


class Observer(Protocol):
    """Told of every event, in the thread (or task) where it happened; must be quick and must not block.

    One that raises is logged once and never breaks a call.
    """

    def __call__(self, event: Event, /) -> None:
        """Take one event."""
