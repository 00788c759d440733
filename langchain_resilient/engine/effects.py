"""What a plan may ask of its driver, and what it gets back.

Rules of this file: an effect is a frozen record and does nothing; the driver performs it and sends the reply into the plan. A failure of
a provider is a reply (`Failed`), never an exception; an exception thrown into a plan means that the caller was cancelled.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Generator, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

from langchain_resilient.engine.circuit import Phase
from langchain_resilient.engine.classify import ErrorKind
from langchain_resilient.engine.classify.headroom import Headroom
from langchain_resilient.engine.events import Attempt, CircuitChanged, CredentialBlocked, Decision, Refusal, Usage
from langchain_resilient.engine.policy import Target
from langchain_resilient.engine.quota import Cost, Lane
from langchain_resilient.engine.routing import View


class Begun(NamedTuple):
    """An answer that another attempt began to show, and how a provider is asked to go on with it."""

    text: str
    """What was shown."""
    anchor: str | None
    """What the provider is told to begin with, see `seam`; None: it is given the text as the beginning of its own answer (prefill)."""


class Continuation(Protocol):
    """What was shown of a stream, for another stream to go on with."""

    text: str
    """All of its text."""

    def joined(self, chunk: Any, text: str) -> Any | None:
        """A chunk of the other stream as part of the same answer, with `text` for its text; None: nothing is left of it."""


class Upstream(Protocol):
    """The caller's side of the engine: how one request is put to one provider, and how its answers are read."""

    def call(self, target: Target) -> Any:
        """Ask for an unstreamed answer."""

    async def acall(self, target: Target) -> Any:
        """Ask for an unstreamed answer."""

    def stream(self, target: Target, begun: Begun | None = None) -> Iterator[Any]:
        """Ask for a stream of chunks; with `begun`, for the rest of an answer."""

    def astream(self, target: Target, begun: Begun | None = None) -> AsyncIterator[Any]:
        """Ask for a stream of chunks; with `begun`, for the rest of an answer."""

    def streams(self, target: Target) -> bool:
        """Whether a stream from there comes in chunks, and not as one whole answer."""

    def keeps_time(self, target: Target, seconds: float) -> bool:
        """Whether the client itself gives up within about `seconds`, so that a sync call may run in the caller's thread."""

    def changes(self, target: Target) -> tuple[str, ...]:
        """What of the request was converted or left out for this target."""

    def has_content(self, chunk: Any) -> bool:
        """Whether a chunk carries text, reasoning, a tool call, a refusal or audio: not a keep-alive."""

    def finish_reason(self, chunk: Any) -> str | None:
        """Why the provider stopped, if this chunk says so."""

    def usage(self, answer: Any) -> Usage | None:
        """The tokens that an answer, or a chunk, reports."""

    def headroom(self, answer: Any) -> tuple[Headroom, ...]:
        """The limits that the response's headers report, where the client shows them."""

    def text(self, chunk: Any) -> str:
        """The plain text of a chunk."""

    def continuation(self, shown: Sequence[Any]) -> Continuation | None:
        """What another stream needs to go on with these chunks; None: they hold what can't be continued, such as a begun tool call."""

    def whole(self, target: Target, chunks: Sequence[Any]) -> Any:
        """A stream's chunks as the unstreamed answer that they are. Raises `InvalidOutputError` as `call` does."""


class Request(NamedTuple):
    """One request, before anything is known of its way."""

    id: int
    upstream: Upstream
    stream: bool = False
    """Whether providers are asked for streams."""
    lane: Lane = "interactive"
    tenant: str | None = None
    deadline: float | None = None
    """Seconds from now; None: the policy's total."""
    max_output: int | None = None
    """Tokens that the answer may have; None: the provider's default."""
    input_tokens: Callable[[], int] = lambda: 0
    """A local estimate of the prompt's tokens, asked for only where a limit counts them."""
    told: Callable[[Decision], object] | None = None
    """Given this request's decision record when it is over."""
    whole: bool = False
    """Of streams: whether the caller gets one answer at the end."""
    keeping: Callable[[str, tuple[Attempt, ...]], Later] | None = None
    """Puts it away as a dead letter, by why nobody answered it and what was tried: `DeadLettered`, or None where it is kept already."""
    unsure: bool = False
    """Whether a candidate may turn out to be none when it is asked (`IneligibleError`): a fallback is told of once it is known to be one."""


# ---------------------------------------------------------------------------------------------------------- admission
class Admit(NamedTuple):
    """Ask for a place at one of several providers. Reply: a `Ticket`, `Queued` or `Refused`."""

    attempt: int
    targets: tuple[Target, ...]
    """First choice first."""
    stream: bool
    lane: Lane
    input_tokens: int = 0
    max_output: int | None = None
    pays: bool = False
    """Whether this is an extra call, to be paid from the target's retry budget."""
    patience: float = 0.0
    """Seconds it may stand in a line; 0: it is refused at once."""
    races: bool = False
    """Whether a probe of it would be raced."""
    looks_early: bool = False
    """Whether all candidates are asked, and one may be looked at before its time if all are open: not where there is only one, which
    fails fast."""
    explore: Target | None = None
    """A slow one to look at first, if nobody did so in the last 30 s."""
    spare: bool = False
    """Whether it is an extra call that only those are asked for with whom nothing is the matter."""
    whole: bool = False
    """Of a stream: whether the caller gets it as one answer, so that it is an answer's time that must not be too long."""
    plainly: bool = False
    """Whether only the first target is meant, and only if nothing is the matter with it: the one step that a healthy day needs."""


class Ticket(NamedTuple):
    """A granted place; the attempt carries it, and reports by it."""

    attempt: int
    target: Target
    generation: int
    probe: bool
    raced: bool
    """Whether the attempt should be raced against another provider: a probe, or a look at a slow one."""
    leased: bool
    """Whether it holds a place that lapses unless renewed."""
    cost: Cost
    charged: tuple[int, ...]
    """Per dimension of the target, µs."""
    stream: bool
    granted: int
    """The store's time, µs."""
    finishes: bool
    """Whether the provider's streams have been seen to end with a finish reason."""
    half_opens: bool = False
    """Whether this is the probe with which an open circuit became half-open."""
    to_end: bool = False
    """Whether only a stream's end tells how this probe went, as streams broke midway there."""
    passed: tuple[Refusal, ...] = ()
    """Who was asked before it, and refused."""


class Place:
    """A place in a provider's line.

    The driver sets `wake`, which the store calls when the front is reached or may go on; `woken` tells a driver that it came too late to
    be called.
    """

    __slots__ = ("attempt", "lapses", "target", "wake", "woken")

    def __init__(self, attempt: int, target: Target, lapses: int) -> None:
        self.attempt = attempt
        self.target = target
        self.lapses = lapses
        self.wake: Callable[[], object] | None = None
        self.woken = False


class Queued(NamedTuple):
    """The request stands in a line: wait so long, or until woken, and ask again."""

    place: Place
    seconds: float


class Refused(NamedTuple):
    """Nobody could take it; nothing was written."""

    refusals: tuple[Refusal, ...]
    rejected: Refusal | None = None
    """Set where a provider's `on_limit="reject"` ends the request."""


NOT_PLAIN = Refused(())
"""The reply to a plain ask that needs a look at all candidates first."""


# ------------------------------------------------------------------------------------------------------------ reports
class Report(NamedTuple):
    """How an attempt ended."""

    kind: ErrorKind | None = None
    """None: it answered."""
    seconds: float | None = None
    """To the end of an answer."""
    first_token: float | None = None
    """To a stream's first content, where there was one."""
    retry_after: float | None = None
    limit: str | None = None
    never_sent: bool = False
    usage: Usage | None = None
    headroom: tuple[Headroom, ...] = ()
    finished: bool = False
    """Whether a stream ended with a finish reason."""
    whole: bool = False
    """Whether the caller got a stream as one answer, so that its time to the end counts as an answer's."""
    outrun: float | None = None
    """Of a cancelled stream: the seconds it had been silent for when somebody asked later had begun to answer."""


class Settled(NamedTuple):
    """What the store made of a report."""

    phase: Phase
    """The circuit's state afterwards."""
    changes: tuple[CircuitChanged | CredentialBlocked, ...]
    """What observers should be told."""
    blocked: float
    """Seconds that the provider has asked to be left alone; 0: none."""
    affords: bool
    """Whether its retry budget has room for an extra call."""


# ----------------------------------------------------------------------------------------------------- attempts' fate
class Answered(NamedTuple):
    """The provider answered; `value` is the answer, or an open stream whose first content has come."""

    value: Any
    seconds: float


class Failed(NamedTuple):
    """The attempt failed."""

    error: Exception
    seconds: float


class Raced(NamedTuple):
    """A race is decided: each runner's fate, None for the one still running (then `running` is its handle)."""

    fates: tuple[Answered | Failed | None, ...]
    running: Any


class End(NamedTuple):
    """A stream has no more chunks."""


# ------------------------------------------------------------------------------------------------------------ effects
class Look(NamedTuple):
    """View all candidates. Reply: `tuple[View, ...]`."""

    targets: tuple[Target, ...]
    stream: bool
    max_output: int | None
    tail: float | None = None
    """The quantile of the time to first token that is asked for."""
    predicts: bool = False
    """Whether a prediction of each one's time is asked for."""


class Leave(NamedTuple):
    """Give up a place in a line."""

    place: Place


class Call(NamedTuple):
    """Make one attempt, for at most `limit` seconds. Reply: `Answered` or `Failed`."""

    ticket: Ticket
    limit: float
    limited_by: str
    """"response", "first_token", or "deadline" where less is left than the provider's own limit."""
    begun: Begun | None = None
    """The answer that it goes on with, if another attempt began to show one."""


class Race(NamedTuple):
    """Make attempts at once, for the first good answer.

    Reply: `Raced`, as soon as one has answered, any but the first has failed, none is left, or `patience` is over. The first runner is a
    probe, or late, and may hang: when the one beside it fails, somebody else may take that place.
    """

    calls: tuple[Call, ...]
    running: Any = None
    """A runner of an earlier race that goes on: it is then the first, and `calls` begin beside it."""
    patience: float | None = None
    """Seconds after which the reply comes in any case, even if nothing has happened."""


class Detach(NamedTuple):
    """Let a losing probe run on to its own end, and then run the plan that `then` makes of its fate."""

    running: Any
    then: Callable[[Answered | Failed], Plan]
    ticket: Ticket
    """The probe's, which is the plan's no longer."""


class Abandon(NamedTuple):
    """Cancel a race's loser, or close a stream."""

    running: Any


class Opened(NamedTuple):
    """Report a stream's first content. Reply: `Settled`."""

    ticket: Ticket
    first_token: float


class Settle(NamedTuple):
    """Report an attempt's end, idempotent. Reply: `Settled`."""

    ticket: Ticket
    report: Report


class Sleep(NamedTuple):
    """Wait, in a line at most until woken."""

    seconds: float
    place: Place | None = None


class Pull(NamedTuple):
    """Take a stream's next chunk, for at most `limit` seconds. Reply: the chunk, `Failed` or `End`."""

    stream: Any
    limit: float
    ticket: Ticket
    """Its leases are kept alive as long as somebody reads; a reader that pauses for longer than a lease loses them."""
    limited_by: str = "idle"
    """Or "deadline", where less is left and nothing has been shown."""


class Show(NamedTuple):
    """Give a chunk to the caller."""

    chunk: Any


class Bury(NamedTuple):
    """Put a request away that nobody answered. Reply: what `writing` gives."""

    writing: Later


class Later:
    """A store's reply that is under way, as it comes from elsewhere: a shared store answers so where it must be asked over the wire."""

    __slots__ = ()

    def result(self) -> Any:
        """Wait for it in this thread."""
        raise NotImplementedError

    def __await__(self) -> Generator[Any, None, Any]:
        """Wait for it in this task."""
        raise NotImplementedError

    def then(self, read: Callable[[Any], Any]) -> Later:
        """What `read` makes of it, when somebody waits for it."""
        return _Read(self, read)


class _Read(Later):
    """A reply that is read when it has come, in both colours."""

    __slots__ = ("_later", "_read")

    def __init__(self, later: Later, read: Callable[[Any], Any]) -> None:
        self._later, self._read = later, read

    def result(self) -> Any:
        """Wait for it in this thread."""
        return self._read(self._later.result())

    def __await__(self) -> Generator[Any, None, Any]:
        """Wait for it in this task."""
        return self._read((yield from self._later.__await__()))


Effect = Look | Admit | Leave | Call | Race | Detach | Abandon | Opened | Settle | Sleep | Pull | Show | Bury
Plan = Generator[Effect, Any, Any]


class Store(Protocol):
    """Where circuits, limits and latencies live. Every step is atomic."""

    def look(self, ask: Look) -> tuple[View, ...]:
        """What is known of each target."""

    def admit(self, ask: Admit) -> Ticket | Queued | Refused | Later:
        """A place at the first target that can take the request, or none and nothing written. The driver waits for a `Later`."""

    def leave(self, place: Place) -> None:
        """Give up a place in a line."""

    def renew(self, ticket: Ticket, seconds: float) -> None:
        """Keep an attempt's leases alive for so long."""

    def opened(self, ticket: Ticket, first_token: float) -> Settled:
        """A stream's first content came."""

    def settle(self, ticket: Ticket, report: Report) -> Settled:
        """An attempt ended."""
