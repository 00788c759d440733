"""Keep: what nobody could answer now, and somebody may later, is put away as a dead letter before its caller hears of it.

Rules of this file: what a letter holds and where it lies is the request's own affair (`Request.keeping`); a caller's own mistake is not kept, nor
is what was turned away to shed load, what its caller gave up, or what is a letter already and is asked again.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from langchain_resilient.engine.effects import Bury
from langchain_resilient.engine.events import DeadLettered
from langchain_resilient.engine.plan.course import CALLERS_OWN, COURSES
from langchain_resilient.engine.plan.journey import Journey

UNANSWERED = frozenset({"failed", "refused", "deadline", "interrupted"})
"""The outcomes of requests whose callers still wait."""


def keep(journey: Journey, error: BaseException) -> Generator[Any, Any, None]:
    """Put a request away, if it may be answered later; its error tells the letter's id."""
    writing = journey.request.keeping
    if writing is None or (kind := kind_of(journey, error)) is None:
        return
    kept: DeadLettered | None = yield Bury(writing(kind, tuple(journey.attempts)))
    if kept is None:
        error.add_note("langchain_resilient: the same request is kept as a dead letter, or was answered late, already")
        return
    journey.policy.observe(kept)
    if kept.where == "lost":
        error.add_note("langchain_resilient: this request could not be kept as a dead letter; see the log")
    else:
        error.add_note(f"langchain_resilient: kept as dead letter {kept.letter}")


def kind_of(journey: Journey, error: BaseException) -> str | None:
    """Why nobody answered, if it is worth asking again: an `ErrorKind`, "refused" or "deadline"; None: it is not to be kept."""
    decision = journey.decision
    if decision is None or decision.outcome not in UNANSWERED or journey.request.lane == "replay":
        return None
    if journey.final is None:
        if decision.outcome == "deadline":
            return "deadline"
        return "refused" if getattr(error, "is_retryable", False) else None
    kinds = {lapse.failure.kind for lapse in journey.lapses.values()}
    if not CALLERS_OWN.isdisjoint(kinds):
        return None
    may = any(COURSES[kind].later for kind in kinds) or any(one.retry_after is not None for one in decision.refusals)
    return str(journey.final.kind) if may else None
