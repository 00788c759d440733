"""What a stream may still do after its first content.

Rules of this file: a plan like any other (see `story`); what was shown stays shown, and no second provider's text replaces it: another
stream goes on where the first one broke, or the caller is told. A stream makes two reports: `Opened` at its first content, before this part
begins, and `Settle` at its end, cut, close or cancel.

    continue   chunks are shown as they come; after a break the next provider goes on behind the last one
    restart    chunks are kept back until the stream has ended well; a break costs time, but nothing was shown, so anybody may begin anew
    raise      chunks are shown as they come; after a break the caller gets what was shown, in an error

A request for a whole answer is a stream that is kept back in any case.

The idle limit counts only time spent waiting for the provider, so a caller that reads slowly is not the provider's fault; a keep-alive or
an empty delta does not start it again.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from typing import Any

from langchain_resilient.engine.classify import ErrorKind
from langchain_resilient.engine.effects import Abandon, Answered, End, Failed, Plan, Pull, Report, Settle, Show, Ticket
from langchain_resilient.engine.errors import TruncatedStreamError
from langchain_resilient.engine.events import Continued, StreamInterrupted, Usage
from langchain_resilient.engine.plan.journey import PROVIDERS_OWN, Journey
from langchain_resilient.engine.plan.telling import Joint, Kept, Telling, Unheard, Whole
from langchain_resilient.engine.plan.verdict import over

CUT = frozenset({ErrorKind.SERVER_ERROR, ErrorKind.OVERLOADED, ErrorKind.UNKNOWN, ErrorKind.TIMEOUT})
"""Kinds of failure that are all one to a stream that had begun: it was cut, and that is what the circuit has to know."""


class Seen:
    """What has been read of a stream so far."""

    __slots__ = ("_upstream", "finish_reason", "seconds", "text", "usage")

    def __init__(self, upstream: Any, seconds: float) -> None:
        self._upstream = upstream
        self.seconds = seconds
        """Spent waiting for this provider: neither what came before the attempt, nor what the caller takes to read."""
        self.finish_reason: str | None = None
        self.usage: Usage | None = None
        self.text: list[str] = []

    def add(self, chunk: Any) -> None:
        """Read one chunk."""
        upstream = self._upstream
        self.text.append(upstream.text(chunk))
        self.finish_reason = upstream.finish_reason(chunk) or self.finish_reason
        usage = upstream.usage(chunk)
        if usage is not None:
            self.usage = usage if self.usage is None else self.usage.plus(usage)


def relay(journey: Journey, ticket: Ticket, answered: Answered) -> Generator[Any, Any, bool]:
    """Tell a stream whose first content has come, to its end.

    Returns whether it ended well; if not, another provider may go on with it, or begin anew. Raises what the caller is to see if nobody
    may.
    """
    stream, seen = answered.value, Seen(journey.request.upstream, answered.seconds)
    telling = _telling(journey, ticket)
    journey.speaker = ticket.target
    failed = yield from _to_its_end(journey, ticket, stream, seen, telling)
    if failed is None:
        yield from _ended(journey, ticket, answered, seen)
        return True
    yield Abandon(stream)
    journey.loose.remove(stream)
    yield from _broken(journey, ticket, answered, seen, failed)
    return False


def _telling(journey: Journey, ticket: Ticket) -> Telling:
    request, policy = journey.request, journey.policy
    if journey.continuation is not None:
        journey.continued += 1
        policy.observe(Continued(journey.speaker.name, ticket.target.name))
        return Joint(journey.continuation, journey.begun.get(ticket.attempt), request.upstream.text)
    if request.whole:
        return Whole(lambda chunks: request.upstream.whole(ticket.target, chunks))
    return Kept() if policy.on_interruption == "restart" else Telling()


def _to_its_end(
    journey: Journey, ticket: Ticket, stream: Any, seen: Seen, telling: Telling
) -> Generator[Any, Any, Failed | None]:
    """Show a stream chunk by chunk; what broke it, if it does not end well."""
    upstream, clock, idle = journey.request.upstream, journey.policy.clock, ticket.target.idle
    waited, take = 0.0, _heard(seen, telling)
    ahead = iter(stream.head)
    while True:
        chunk = next(ahead, None)
        if chunk is None:
            if stream.exhausted:
                break
            asked = clock.now()
            chunk = yield _pull(journey, ticket, stream, idle - waited)
            took = clock.now() - asked
            seen.seconds += took
            if isinstance(chunk, End):
                break
            if isinstance(chunk, Failed):
                if seen.finish_reason is not None:
                    break  # it had said all, and that it had
                return chunk
            waited = 0.0 if upstream.has_content(chunk) else waited + took
        failed = yield from _show(journey, take, chunk)
        if failed is not None:
            return failed
    if seen.finish_reason is None and journey.always_finishes(ticket):
        return Failed(TruncatedStreamError("the stream ended without a finish reason"), 0.0)
    failed = yield from _show(journey, telling.end)
    journey.value = telling.value
    return failed


def _heard(seen: Seen, telling: Telling) -> Callable[[Any], Iterable[Any]]:
    def taken(chunk: Any) -> Iterable[Any]:
        seen.add(chunk)
        return telling.take(chunk)

    return taken


def _pull(journey: Journey, ticket: Ticket, stream: Any, limit: float) -> Pull:
    # A stream that delivers is not cut by the deadline; but of one that is kept back for its end nothing has been delivered.
    kept = journey.request.whole or journey.policy.on_interruption == "restart"
    if kept and (left := journey.left()) < limit:
        return Pull(stream, max(left, 0.0), ticket, "deadline")
    return Pull(stream, limit, ticket)


def _show(journey: Journey, told: Callable[..., Iterable[Any]], *chunk: Any) -> Generator[Any, Any, Failed | None]:
    try:
        chunks = list(told(*chunk))
    except Exception as error:  # noqa: BLE001  # it can't be read, put together, or joined: somebody else's may
        return Failed(error, 0.0)
    for shown in chunks:
        journey.show(shown)
        yield Show(shown)
    return None


def hear_out(journey: Journey, ticket: Ticket, answered: Answered) -> Plan:
    """Read the stream of a losing probe to its end: where streams broke midway, only that tells whether they still do."""
    stream, seen = answered.value, Seen(journey.request.upstream, answered.seconds)
    failed = yield from _to_its_end(journey, ticket, stream, seen, Unheard())
    if failed is None:
        yield from _settle_end(journey, ticket, answered, seen)
        return
    yield Abandon(stream)
    journey.loose.remove(stream)
    yield from _settle_break(journey, ticket, answered, seen, failed)


def _settle_end(journey: Journey, ticket: Ticket, answered: Answered, seen: Seen) -> Plan:
    whole = journey.request.whole
    journey.attempted(ticket, "ok", seen.seconds, answered.seconds, seen.usage)
    finished = seen.finish_reason is not None
    settled = yield Settle(
        ticket, Report(None, seen.seconds, answered.seconds, usage=seen.usage, finished=finished, whole=whole)
    )
    journey.open.remove(ticket)
    journey.loose.remove(answered.value)
    journey.tell(ticket.target, settled)


def _ended(journey: Journey, ticket: Ticket, answered: Answered, seen: Seen) -> Plan:
    yield from _settle_end(journey, ticket, answered, seen)
    journey.mend(ticket, "ok", seen.seconds)
    journey.use(ticket.target, seen.usage)
    journey.decide("answered", provider=ticket.target)


def _broken(journey: Journey, ticket: Ticket, answered: Answered, seen: Seen, failed: Failed) -> Plan:
    """Report the break. Raises what the caller is to see, unless somebody else may go on."""
    yield from _settle_break(journey, ticket, answered, seen, failed)
    journey.use(ticket.target, seen.usage)
    if not journey.shown:
        return
    if journey.policy.on_interruption == "continue":
        journey.continuation = journey.request.upstream.continuation(journey.shown)
    if journey.continuation is None:
        raise over(journey)


def _settle_break(journey: Journey, ticket: Ticket, answered: Answered, seen: Seen, failed: Failed) -> Plan:
    policy, target = journey.policy, ticket.target
    failure = journey.classify(failed.error)
    if failure.kind is ErrorKind.CANCELLED:
        raise failed.error
    kind = failure.kind
    if kind in CUT and failure.limit != "deadline":
        failure = failure._replace(kind=ErrorKind.STREAM_INTERRUPTED)
    journey.mend(ticket, kind, seen.seconds, failure)
    if failure.kind in PROVIDERS_OWN:
        policy.last_errors[target.name] = failed.error
    journey.attempted(ticket, kind, seen.seconds, answered.seconds, seen.usage)
    policy.observe(StreamInterrupted(target.name, kind, shown=bool(journey.shown)))
    report = Report(
        failure.kind,
        seen.seconds,
        answered.seconds,
        failure.retry_after,
        failure.limit,
        usage=seen.usage,
        headroom=failure.headroom,
    )
    settled = yield Settle(ticket, report)
    journey.open.remove(ticket)
    journey.failed_at(target, failed.error, failure, settled)
    journey.tell(ticket.target, settled)
