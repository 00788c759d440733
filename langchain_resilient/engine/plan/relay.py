"""What a stream may still do after its first content.

Rules of this file: a plan like any other (see `story`); what was shown stays shown, so from here on no second provider's text replaces it.
A stream makes two reports: `Opened` at its first content, before this part begins, and `Settle` at its end, cut, close or cancel.

The idle limit counts only time spent waiting for the provider, so a caller that reads slowly is not the provider's fault; a keep-alive or
an empty delta does not start it again.
"""

from __future__ import annotations

from typing import Any

from langchain_resilient.engine.classify import ErrorKind
from langchain_resilient.engine.effects import Abandon, Answered, End, Failed, Plan, Pull, Report, Settle, Show, Ticket
from langchain_resilient.engine.errors import StreamInterruptedError, TruncatedStreamError
from langchain_resilient.engine.events import Attempted, StreamInterrupted, Usage
from langchain_resilient.engine.plan.journey import PROVIDERS_OWN, Journey


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
            before = self.usage or Usage()
            self.usage = Usage(*(have + more for have, more in zip(before, usage, strict=True)))


def relay(journey: Journey, ticket: Ticket, answered: Answered) -> Plan:
    """Show a stream whose first content has come, to its end."""
    stream = answered.value
    seen = Seen(journey.request.upstream, answered.seconds)
    for chunk in stream.head:
        seen.add(chunk)
        yield Show(chunk)
    failed = yield from _rest(journey, ticket, stream, seen)
    if failed is None and seen.finish_reason is None and journey.always_finishes(ticket):
        failed = Failed(TruncatedStreamError("the stream ended without a finish reason"), 0.0)
    if failed is not None:
        yield Abandon(stream)
        journey.loose.remove(stream)
        yield from _broken(journey, ticket, answered, seen, failed)
    yield from _ended(journey, ticket, answered, seen)
    return None


def _rest(journey: Journey, ticket: Ticket, stream: Any, seen: Seen) -> Any:
    upstream, clock = journey.request.upstream, journey.policy.clock
    waited = 0.0
    while not stream.exhausted:
        asked = clock.now()
        chunk = yield Pull(stream, ticket.target.idle - waited, ticket)
        took = clock.now() - asked
        seen.seconds += took
        if isinstance(chunk, End):
            break
        if isinstance(chunk, Failed):
            return chunk
        waited = 0.0 if upstream.has_content(chunk) else waited + took
        seen.add(chunk)
        yield Show(chunk)
    return None


def _ended(journey: Journey, ticket: Ticket, answered: Answered, seen: Seen) -> Plan:
    policy = journey.policy
    seconds = seen.seconds
    policy.observe(Attempted(ticket.target.name, "ok", seconds, answered.seconds, seen.usage, ticket.probe))
    settled = yield Settle(
        ticket, Report(None, seconds, answered.seconds, usage=seen.usage, finished=seen.finish_reason is not None)
    )
    journey.open.remove(ticket)
    journey.loose.remove(answered.value)
    journey.tell(settled)
    journey.decide("answered", provider=ticket.target, usage=seen.usage)


def _broken(journey: Journey, ticket: Ticket, answered: Answered, seen: Seen, failed: Failed) -> Plan:
    """Report the break, and tell the caller what was shown. Raises `StreamInterruptedError`."""
    policy, target = journey.policy, ticket.target
    failure = journey.classify(failed.error)
    if failure.kind is ErrorKind.CANCELLED:
        raise failed.error
    kind = failure.kind
    if kind in {ErrorKind.SERVER_ERROR, ErrorKind.OVERLOADED, ErrorKind.UNKNOWN, ErrorKind.TIMEOUT}:
        # Whatever broke it, this is a stream that was cut after it had begun: that is what the circuit has to know.
        failure = failure._replace(kind=ErrorKind.STREAM_INTERRUPTED)
    journey.attempts[-1] = journey.attempts[-1]._replace(kind=kind, limit=failure.limit, status=failure.status)
    if failure.kind in PROVIDERS_OWN:
        policy.last_errors[target.name] = failed.error
    seconds = seen.seconds
    policy.observe(Attempted(target.name, kind, seconds, answered.seconds, seen.usage, ticket.probe))
    policy.observe(StreamInterrupted(target.name, kind, shown=True))
    report = Report(
        failure.kind,
        seconds,
        answered.seconds,
        failure.retry_after,
        failure.limit,
        usage=seen.usage,
        headroom=failure.headroom,
    )
    settled = yield Settle(ticket, report)
    journey.open.remove(ticket)
    journey.tell(settled)
    journey.decide("interrupted", usage=seen.usage)
    raise StreamInterruptedError(
        f"{target.name}: the stream broke after {len(seen.text)} chunks ({kind})",
        partial="".join(seen.text),
        usage=seen.usage,
    ) from failed.error
