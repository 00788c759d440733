"""Decide: where to go after a failure.

Rules of this file: `course` says what a kind of failure allows; this asks for it, in one order: the same provider again where its failure
is of a passing kind, the next provider, and when nobody new can take the request, whoever failed and may be asked again soonest.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from langchain_resilient.engine.classify import ErrorKind
from langchain_resilient.engine.effects import Refused, Ticket
from langchain_resilient.engine.events import FellBack, Retried
from langchain_resilient.engine.plan.admission import admit, look, place_instead, sleep
from langchain_resilient.engine.plan.course import COURSES, delay_alone, delay_beside_others
from langchain_resilient.engine.plan.journey import Journey, Lapse
from langchain_resilient.engine.plan.verdict import over
from langchain_resilient.engine.policy import Target


def next_place(journey: Journey) -> Generator[Any, Any, Ticket]:
    """Where to go after a failure; raises what the caller is to see when there is nowhere."""
    failure, failed = journey.final, journey.failed
    if failure is None:
        return (yield from place_instead(journey))
    if not COURSES[failure.kind].onward:
        raise over(journey)
    if not journey.views:
        yield from look(journey)
    others = _untried(journey, by_window=failure.kind is ErrorKind.CONTEXT_OVERFLOW)
    found = None
    if journey.attempts_left() > 0:
        if others:
            found = (yield from _beside_others(journey, failed, others)) or (
                yield from _fall_back(journey, failed, others)
            )
        found = found or (yield from _wait_for_any(journey, failed, others))
    if found is None:
        raise over(journey)
    return found


def _untried(journey: Journey, *, by_window: bool) -> tuple[Target, ...]:
    others = [target for target in journey.order if not journey.tried(target)]
    if by_window:
        others.sort(key=lambda target: -(target.context_window or 0))
    return tuple(others)


def _beside_others(journey: Journey, failed: Target, others: tuple[Target, ...]) -> Generator[Any, Any, Ticket | None]:
    """Ask the same provider once more, although others could be asked, where its failure is of a passing kind."""
    policy, lapse = journey.policy, journey.lapse(failed)
    delay = delay_beside_others(lapse.failure, policy.retry, tries=lapse.tries, rand=policy.rand())
    if delay is None or not journey.fits(failed, delay) or not _affords(journey, lapse):
        return None
    return (yield from _again(journey, failed, (failed, *others), failed, delay))


def _fall_back(journey: Journey, failed: Target, others: tuple[Target, ...]) -> Generator[Any, Any, Ticket | None]:
    # The first fallback is what a second provider is for; further ones are extra load, paid by whoever gets it.
    waits = not _alone(journey)
    reply = yield from admit(journey, others, pays=journey.policy.retry.budget and journey.fallbacks > 0, waits=waits)
    return _moved(journey, failed, reply, 0.0)


def _wait_for_any(journey: Journey, failed: Target, others: tuple[Target, ...]) -> Generator[Any, Any, Ticket | None]:
    """Nobody new can take the request: wait for the soonest of those that failed, and ask again."""
    candidates = _alone(journey)
    if not candidates:
        return None
    journey.round += 1
    delay, soonest = candidates[0]
    pool = (*(target for _, target in candidates), *others)
    return (yield from _again(journey, soonest, pool, failed, delay))


def _alone(journey: Journey) -> list[tuple[float, Target]]:
    """Who may be asked again when nobody new can take the request, and in how many seconds; soonest first."""
    policy = journey.policy
    found: list[tuple[float, Target]] = []
    for target in journey.order:
        lapse = journey.lapses.get(target.name)
        if lapse is None or not _affords(journey, lapse):
            continue
        delay = delay_alone(
            lapse.failure,
            policy.retry,
            tries=lapse.tries,
            round_=journey.round,
            blocked=lapse.blocked,
            rand=policy.rand(),
        )
        if delay is not None and journey.fits(target, delay):
            found.append((delay, target))
    # Of those that may be asked at once first the one that was not at fault: it turned our words down, and is asked in others.
    return sorted(found, key=lambda pair: (pair[0], journey.lapse(pair[1]).failure.kind is not ErrorKind.LOCAL))


def _affords(journey: Journey, lapse: Lapse) -> bool:
    """Whether the budget has room for a retry: asked before the wait, which would be for nothing."""
    return lapse.affords or not journey.policy.retry.budget or lapse.failure.kind is ErrorKind.LOCAL


def _again(
    journey: Journey, target: Target, pool: tuple[Target, ...], failed: Target, delay: float
) -> Generator[Any, Any, Ticket | None]:
    """Wait, and ask `target` once more, or whoever of `pool` can take the request by then."""
    free = not journey.policy.retry.budget or journey.lapse(target).failure.kind is ErrorKind.LOCAL
    if delay > 0:
        yield from sleep(journey, delay)
    reply = yield from admit(journey, pool, pays=not free)
    return _moved(journey, failed, reply, delay)


def _moved(journey: Journey, failed: Target, reply: Ticket | Refused, delay: float) -> Ticket | None:
    """Tell whether this is a retry or a fallback."""
    if not isinstance(reply, Ticket):
        return None
    kind = journey.lapse(failed).failure.kind
    if reply.target is failed:
        journey.policy.observe(Retried(failed.name, kind, delay))
    else:
        journey.moving = reply.attempt, FellBack(failed.name, reply.target.name, kind)
        if not journey.request.unsure:
            journey.asked(reply)
    return reply
