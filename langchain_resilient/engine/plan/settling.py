"""Settle: what an attempt came to, told to the store, the record and the observers.

Rules of this file: a report is made once and before the ticket is let go of, so that whatever interrupts it leaves the ticket to
`story`, which settles all that is open.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from langchain_resilient.engine.classify import ErrorKind
from langchain_resilient.engine.effects import Abandon, Answered, Failed, Leave, Opened, Plan, Report, Settle, Ticket
from langchain_resilient.engine.errors import (
    IneligibleError,
    InvalidOutputError,
    StreamInterruptedError,
    TruncatedStreamError,
)
from langchain_resilient.engine.events import RateLimited, StreamInterrupted
from langchain_resilient.engine.plan.journey import PROVIDERS_OWN, Journey

NEUTRAL = Report(ErrorKind.CANCELLED)
Won = tuple[Ticket, Answered]
"""An attempt that answered."""


def settle(
    journey: Journey, ticket: Ticket, fate: Answered | Failed, *, beaten: bool = False
) -> Generator[Any, Any, Won | None]:
    """Report an attempt; returns it if it answered. `beaten`: somebody else's answer is shown already."""
    request, target = journey.request, ticket.target
    if isinstance(fate, Failed):
        yield from _settle_failure(journey, ticket, fate)
        return None
    if request.stream:
        return (yield from _settle_opening(journey, ticket, fate, beaten=beaten))
    try:
        usage, headroom = request.upstream.usage(fate.value), request.upstream.headroom(fate.value)
    except Exception as error:  # noqa: BLE001  # what can't be read is no answer: somebody else's may be
        yield from _settle_failure(journey, ticket, Failed(error, fate.seconds))
        return None
    journey.answered(ticket, fate.seconds, None, usage)
    settled = yield Settle(ticket, Report(None, fate.seconds, usage=usage, headroom=headroom))
    journey.open.remove(ticket)
    journey.tell(ticket.target, settled)
    journey.policy.last_errors.pop(target.name, None)
    if not beaten:
        journey.use(target, usage)
    return ticket, fate


def _settle_opening(
    journey: Journey, ticket: Ticket, fate: Answered, *, beaten: bool
) -> Generator[Any, Any, Won | None]:
    """Report a stream's first content: the attempt's lease stays open until its end, unless nobody will see the rest."""
    if fate.value not in journey.loose:
        journey.loose.append(fate.value)
    broken = broken_before_content(journey, ticket, fate.value)
    if broken is not None:
        yield from close(journey, fate.value)
        yield from _settle_failure(journey, ticket, Failed(broken, fate.seconds))
        return None
    journey.tell(ticket.target, (yield Opened(ticket, fate.seconds)))
    journey.policy.last_errors.pop(ticket.target.name, None)
    if not beaten:
        journey.note(ticket, "ok", fate.seconds)
        return ticket, fate
    yield from close(journey, fate.value)
    journey.answered(ticket, fate.seconds, fate.seconds, None)
    settled = yield Settle(ticket, NEUTRAL)
    journey.open.remove(ticket)
    journey.tell(ticket.target, settled)
    return ticket, fate


def close(journey: Journey, running: Any) -> Plan:
    """Cancel a runner, or close a stream, that nobody reads any more."""
    yield Abandon(running)
    journey.loose.remove(running)


def broken_before_content(journey: Journey, ticket: Ticket, stream: Any) -> Exception | None:
    """A stream that ended before it said anything is truncated, unless its provider gave a reason: nobody saw it, so others may try."""
    upstream = journey.request.upstream
    if not stream.exhausted or any(
        upstream.has_content(chunk) or upstream.finish_reason(chunk) for chunk in stream.head
    ):
        return None
    if stream.head and not journey.always_finishes(ticket):
        return None
    return TruncatedStreamError("the stream ended without content and without a finish reason")


def _settle_failure(journey: Journey, ticket: Ticket, fate: Failed) -> Plan:
    policy, target, error = journey.policy, ticket.target, fate.error
    if isinstance(error, IneligibleError):
        yield from _strike_off(journey, ticket)
        return
    failure = journey.classify(error)
    if failure.kind is ErrorKind.CANCELLED:
        raise error
    journey.note(ticket, failure.kind, fate.seconds, failure)
    if journey.turned_down(ticket, failure):
        # We guessed wrong, which is no fault of the provider's: it is asked again at once, in other words.
        failure = failure._replace(kind=ErrorKind.LOCAL)
    if failure.kind in PROVIDERS_OWN:
        policy.last_errors[target.name] = error
    usage = error.usage if isinstance(error, InvalidOutputError) else None  # a whole answer, and used up as one
    journey.attempted(ticket, failure.kind, fate.seconds, None, usage)
    if failure.kind is ErrorKind.RATE_LIMITED:
        source = "provider" if failure.status is not None else "client"
        policy.observe(RateLimited(target.name, source, "429" if failure.status is not None else "own limiter"))
    shown = isinstance(error, StreamInterruptedError)  # of an agent's handler, which shows its stream itself
    if shown or failure.kind is ErrorKind.STREAM_INTERRUPTED:
        policy.observe(StreamInterrupted(target.name, failure.kind, shown=shown))
    report = Report(
        failure.kind,
        fate.seconds,
        None,
        failure.retry_after,
        failure.limit,
        failure.never_sent,
        usage,
        failure.headroom,
    )
    settled = yield Settle(ticket, report)
    journey.open.remove(ticket)
    journey.failed_at(target, error, failure, settled)
    journey.tell(ticket.target, settled)


def _strike_off(journey: Journey, ticket: Ticket) -> Plan:
    """Nobody was asked, so there was no attempt: it costs nothing, and others may be asked as if this one had not been there."""
    settled = yield Settle(ticket, NEUTRAL._replace(never_sent=True))
    journey.open.remove(ticket)
    journey.strike_off(ticket.target)
    journey.tell(ticket.target, settled)


def release(journey: Journey) -> Plan:
    """Give back all that a journey holds, as its caller is gone."""
    for ticket in journey.open:
        journey.given_up(ticket)
        yield Settle(ticket, NEUTRAL)
    if journey.place is not None:
        yield Leave(journey.place)
    for running in journey.loose:
        yield Abandon(running)
