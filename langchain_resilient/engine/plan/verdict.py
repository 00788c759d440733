"""What reaches the caller of a request that nobody answered.

Rules of this file: it reads a journey that is at its end, and makes of it one exception and the record's word for it. What was shown stays
shown, a caller's own mistake stays its own, and a refusal names the error of the provider behind it.
"""

from __future__ import annotations

from langchain_resilient.engine.errors import (
    AllProvidersFailedError,
    CircuitOpenError,
    DeadlineExceededError,
    RateLimitedError,
    RefusedError,
    StreamInterruptedError,
)
from langchain_resilient.engine.events import Refusal
from langchain_resilient.engine.plan.course import CALLERS_OWN, OWN_IF_EVERYWHERE
from langchain_resilient.engine.plan.journey import Journey

CIRCUIT_REASONS = {
    "circuit_open": "its circuit is open",
    "half_open": "its circuit is half-open, and its probes are taken",
    "forced_open": "its circuit is forced open",
    "auth": "its credential was refused",
}
EXPLAINED = frozenset({*CIRCUIT_REASONS, "blocked", "quota_exhausted"})
"""Refusals that an earlier error of the provider explains."""
PASSED_OVER = frozenset({"slow", "silent"})
"""Reasons for which a provider is asked later than it would be."""


def over(journey: Journey) -> Exception:
    """Close the record of a request that nobody answered; what reaches the caller, to be raised."""
    error, outcome = verdict(journey)
    journey.decide(outcome)
    return error


def verdict(journey: Journey) -> tuple[Exception, str]:
    """What reaches the caller, and the record's word for it."""
    if journey.shown:
        return _interrupted(journey), "interrupted"
    if journey.last_error is not None and journey.final is not None and _is_callers_own(journey):
        return journey.last_error, "failed"
    if len(journey.policy.targets) == 1:
        return _error_of_one(journey)
    refusals = [refused(refusal) for refusal in journey.not_tried()]
    if not journey.errors:
        return _error_of_refusals(refusals)
    names = ", ".join(f"{attempt.provider} ({attempt.kind})" for attempt in journey.attempts)
    return AllProvidersFailedError(
        f"every provider failed or was refused; tried: {names}", [*journey.errors, *refusals]
    ), "failed"


def _interrupted(journey: Journey) -> StreamInterruptedError:
    """What was shown stays shown, whatever else is to be said."""
    kind = next(attempt.kind for attempt in reversed(journey.attempts) if attempt.provider == journey.speaker.name)
    told = f"{journey.speaker.name}: the stream broke after {len(journey.shown)} chunks ({kind})"
    if journey.continuation is not None:
        refusals = "; ".join(str(refused(refusal)) for refusal in journey.not_tried())
        told += ", and nobody could go on with it" + (f": {refusals}" if refusals else "")
    text = "".join([journey.request.upstream.text(chunk) for chunk in journey.shown])
    error = StreamInterruptedError(told, partial=text, usage=journey.usage)
    error.__cause__ = journey.last_error
    return error


def _is_callers_own(journey: Journey) -> bool:
    if journey.final is None:
        return False
    kinds = {lapse.failure.kind for lapse in journey.lapses.values()}
    return journey.final.kind in CALLERS_OWN or (journey.final.kind in OWN_IF_EVERYWHERE and len(kinds) == 1)


def _error_of_one(journey: Journey) -> tuple[Exception, str]:
    if journey.last_error is not None:
        tried = "; ".join(f"{attempt.kind} after {attempt.seconds:.2f} s" for attempt in journey.attempts)
        note = f"langchain_resilient tried {journey.policy.targets[0].name} {len(journey.attempts)} time(s): {tried}"
        if note not in getattr(journey.last_error, "__notes__", ()):
            journey.last_error.add_note(note)
        return journey.last_error, "failed"
    refusal = next(iter(journey.refusals.values()))
    error = refused(refusal)
    if refusal.reason in EXPLAINED:
        error.__cause__ = _without_frames(journey.policy.last_errors.get(journey.policy.targets[0].name))
    return error, "deadline" if isinstance(error, DeadlineExceededError) else "refused"


def _error_of_refusals(refusals: list[RefusedError]) -> tuple[Exception, str]:
    kinds = {type(refusal) for refusal in refusals}
    waits = [refusal.retry_after for refusal in refusals if refusal.retry_after is not None]
    message = "; ".join(str(refusal) for refusal in refusals)
    if kinds == {RateLimitedError}:
        return RateLimitedError(message, retry_after=min(waits, default=None), never=not waits), "refused"
    if kinds == {DeadlineExceededError}:
        return DeadlineExceededError(message), "deadline"
    return AllProvidersFailedError(f"no provider could take the request: {message}", refusals), "refused"


def _without_frames(error: BaseException | None) -> BaseException | None:
    """Another caller's error, without its frames: their locals are that caller's prompt."""
    link, depth = error, 0
    while link is not None and depth < 8:
        link.__traceback__ = None
        link, depth = link.__cause__ or link.__context__, depth + 1
    return error


def refused(refusal: Refusal) -> RefusedError:
    """The exception that says what a refusal says."""
    name, reason, wait = refusal
    when = "" if wait is None else f"; retry in {wait:.3g} s"
    if reason in CIRCUIT_REASONS:
        return CircuitOpenError(f"{name}: {CIRCUIT_REASONS[reason]}{when}", provider=name, retry_after=wait)
    if reason == "deadline":
        return DeadlineExceededError(f"{name}: too little time is left before the deadline", provider=name)
    if reason == "budget":
        return RefusedError(f"{name}: its retry budget is used up", provider=name)
    if reason == "ineligible":
        return RefusedError(f"{name}: it may not answer this request", provider=name)
    if reason in PASSED_OVER:
        return RefusedError(f"{name}: passed over as too {reason}, and not reached in the end", provider=name)
    if wait is None:
        return RateLimitedError(
            f"{name}: the request costs more than its limit {reason!r} allows per period", provider=name, never=True
        )
    what = {
        "blocked": "it asked to be left alone",
        "quota_exhausted": "its quota is used up",
        "line": "others wait in its line",
    }
    said = what.get(reason, f"its limit {reason!r} is used up")
    return RateLimitedError(f"{name}: {said}{when}", provider=name, retry_after=wait)
