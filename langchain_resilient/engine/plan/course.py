"""What each kind of failure leads to: the table of DESIGN §4, as data.

Rules of this file: pure; one row per kind; the plan asks, and does what it is told.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from langchain_resilient.engine.backoff import THROTTLED_BASE, Retry, after_hint, full_jitter
from langchain_resilient.engine.classify import ErrorKind, Failure

Here = Literal["never", "once", "hinted", "alone", "alone_once", "free"]


class Course(NamedTuple):
    """Where to go after a failure."""

    here: Here
    """Whether to ask the same provider again: never; once even while others could take it, and on when nobody else can; where its
    Retry-After is short, or when nobody else can; only when nobody else can; the same but once; or once, at once and for nothing."""
    onward: bool = True
    """Whether another provider may be asked. If not, the provider's own exception goes to the caller."""
    later: bool = True
    """Whether the same request may be answered another time: then it may be kept as a dead letter."""


COURSES: dict[ErrorKind, Course] = {
    ErrorKind.RATE_LIMITED: Course("hinted"),
    ErrorKind.QUOTA_EXHAUSTED: Course("never"),
    ErrorKind.OVERLOADED: Course("alone"),
    ErrorKind.SERVER_ERROR: Course("once"),
    ErrorKind.TIMEOUT: Course("never"),
    ErrorKind.STREAM_INTERRUPTED: Course("alone"),
    ErrorKind.AUTH: Course("never"),
    ErrorKind.PERMISSION: Course("never"),
    ErrorKind.NOT_FOUND: Course("never"),
    ErrorKind.CONTEXT_OVERFLOW: Course("never", later=False),
    ErrorKind.CONTENT_POLICY: Course("never", onward=False, later=False),
    ErrorKind.CLIENT_ERROR: Course("never", onward=False, later=False),
    ErrorKind.INVALID_OUTPUT: Course("alone_once", later=False),
    ErrorKind.CANCELLED: Course("never", onward=False, later=False),
    ErrorKind.LOCAL: Course("free"),
    ErrorKind.UNKNOWN: Course("alone_once"),
}
CALLERS_OWN = frozenset({ErrorKind.CLIENT_ERROR, ErrorKind.CONTENT_POLICY, ErrorKind.CANCELLED})
"""Failures whose own exception always reaches the caller: another provider would only have hidden the reason."""
OWN_IF_EVERYWHERE = frozenset({ErrorKind.CONTEXT_OVERFLOW, ErrorKind.INVALID_OUTPUT})
"""Failures whose own exception reaches the caller where every provider that was asked failed so."""


def delay_beside_others(failure: Failure, retry: Retry, *, tries: int, rand: float) -> float | None:
    """Seconds before the same provider is asked again although others could be; None: ask the others.

    Args:
        failure: How the last attempt there ended.
        retry: The settings.
        tries: How many attempts there were (≥ 1).
        rand: Uniform in [0, 1).
    """
    here = COURSES[failure.kind].here
    if here == "free":
        return 0.0 if tries <= 1 else None
    if tries > min(1, retry.max_retries):
        return None
    if here in {"once", "hinted"} and failure.retry_after is not None:
        return after_hint(failure.retry_after, rand) if failure.retry_after <= retry.max_retry_after else None
    return full_jitter(0, base=retry.base_delay, cap=retry.max_delay, rand=rand) if here == "once" else None


def delay_alone(
    failure: Failure, retry: Retry, *, tries: int, round_: int, blocked: float, rand: float
) -> float | None:
    """Seconds before the same provider is asked again because nobody else can take the request; None: don't.

    Args:
        failure: How the last attempt there ended.
        retry: The settings.
        tries: How many attempts there were (≥ 1).
        round_: How often this request has waited for its turn again already.
        blocked: Seconds for which the provider has asked to be left alone, by this or any other call's 429.
        rand: Uniform in [0, 1).
    """
    here = COURSES[failure.kind].here
    if here == "free":
        return 0.0 if tries <= 1 else None
    most = {"never": 0, "alone_once": 1}.get(here, retry.max_retries)
    if tries > min(most, retry.max_retries) or failure.bug:
        return None
    hint = max(blocked, failure.retry_after or 0.0)
    if hint > 0.0:
        return after_hint(hint, rand) if hint <= retry.max_delay else None
    base = max(THROTTLED_BASE, retry.base_delay) if failure.kind is ErrorKind.RATE_LIMITED else retry.base_delay
    return full_jitter(round_, base=base, cap=retry.max_delay, rand=rand)
