"""Two providers at once: a probe beside a healthy one, and a hedge beside one that is late.

Rules of this file: plans like any other (see `story`); the user gets the first good answer, and waits for nobody who may hang. What a race
leaves over is accounted for: a losing probe runs on to its own outcome, any other loser is cancelled, which says nothing about its provider
unless it was outrun among many.
"""

from __future__ import annotations

from collections.abc import Generator
from functools import partial
from typing import Any

from langchain_resilient.engine.effects import (
    Answered,
    Detach,
    Failed,
    Plan,
    Race,
    Raced,
    Request,
    Settle,
    Ticket,
)
from langchain_resilient.engine.errors import IneligibleError
from langchain_resilient.engine.events import Hedged
from langchain_resilient.engine.plan.admission import admit, look
from langchain_resilient.engine.plan.course import COURSES
from langchain_resilient.engine.plan.journey import Journey
from langchain_resilient.engine.plan.relay import hear_out
from langchain_resilient.engine.plan.settling import NEUTRAL, Won, broken_before_content, close, release, settle
from langchain_resilient.engine.policy import Policy
from langchain_resilient.engine.routing import CALM

SHORTEST_LOOK = 0.05
"""Seconds between two looks at a late attempt, at least."""


def accompanied(journey: Journey, ticket: Ticket) -> Generator[Any, Any, Won | None]:
    """An attempt beside which somebody else may be asked: at once, if it is late, or not at all."""
    if ticket.raced:
        return (yield from _race(journey, ticket))
    if journey.may_hedge(ticket):
        return (yield from _hedge(journey, ticket))
    return (yield from settle(journey, ticket, (yield journey.call(ticket))))


def _race(journey: Journey, ticket: Ticket) -> Generator[Any, Any, Won | None]:
    """A probe beside another provider: the user gets the first good answer, and a losing probe runs on to its own outcome."""
    beside = yield from _beside(journey, ticket)
    if beside is None:
        return (yield from settle(journey, ticket, (yield journey.call(ticket))))
    raced = yield Race((journey.call(ticket), journey.call(beside)))
    return (yield from _decide(journey, (ticket, beside), raced))


def _hedge(journey: Journey, ticket: Ticket) -> Generator[Any, Any, Won | None]:
    """An attempt that may be late: then somebody else is asked beside it, and the user gets whoever begins first."""
    if journey.views.get(ticket.target.name, CALM).tail is None:
        yield from look(journey)
    late = journey.views[ticket.target.name].tail
    if late is None:  # nobody knows yet what late is
        return (yield from settle(journey, ticket, (yield journey.call(ticket))))
    raced = yield Race((journey.call(ticket),), patience=late)
    while True:
        fate = raced.fates[0]
        if fate is not None:
            return (yield from settle(journey, ticket, fate))
        journey.loose.append(raced.running)
        beside = yield from _second(journey, ticket)
        journey.loose.remove(raced.running)
        if beside is not None:
            break
        raced = yield Race((), raced.running, max(late / 2, SHORTEST_LOOK))
    attempts, hedged_before = len(journey.attempts), journey.hedged
    journey.hedged = True
    raced = yield Race((journey.call(beside),), raced.running)
    won = yield from _decide(journey, (ticket, beside), raced)
    asked = [one.provider for one in journey.attempts[attempts:] if one.provider != ticket.target.name]
    for name in asked:
        journey.policy.observe(Hedged(name, ticket.target.name, won is not None and won[0].target.name == name))
    if not asked:  # whoever was to be asked is no candidate
        journey.hedged = hedged_before
    return won


def _second(journey: Journey, ticket: Ticket) -> Generator[Any, Any, Ticket | None]:
    """A place at somebody to ask beside a late attempt, if that may be done."""
    yield from look(journey)
    allowance = journey.policy.allowance
    free = journey.views[ticket.target.name].late
    paid = allowance is not None and allowance.spend()
    if allowance is None or not (paid or free):
        return None
    second = yield from _beside(journey, ticket, spare=True, pays=not paid)
    if second is None and paid:
        allowance.give_back()
    return second


def _decide(journey: Journey, runners: tuple[Ticket, ...], raced: Raced) -> Generator[Any, Any, Won | None]:
    """A race's end. The first runner may hang, and must not make its user wait: if the one beside it fails, the next takes that place."""
    first = runners[0]
    raced = yield from _judged(journey, runners, raced)
    while raced.running is not None and isinstance(
        failed := next((f for f in raced.fates if f is not None), None), Failed
    ):
        loser = runners[raced.fates.index(failed)]
        journey.loose.append(raced.running)
        yield from settle(journey, loser, failed)
        if loser is first:
            fresh: tuple[Ticket, ...] = ()
            runners = runners[1:]  # who was asked beside it is waited for alone
        elif journey.final is not None and not COURSES[journey.final.kind].onward:
            yield from _lose(journey, first, raced.running)
            return None
        else:
            # For one that was no candidate nobody was asked: whoever takes its place is the second, and not one more.
            pays = not first.raced and not isinstance(failed.error, IneligibleError)
            beside = yield from _beside(journey, first, spare=not first.raced, pays=pays)
            fresh = () if beside is None else (beside,)
            runners = (first, *fresh)
        journey.loose.remove(raced.running)
        raced = yield Race(tuple([journey.call(runner) for runner in fresh]), raced.running)
        raced = yield from _judged(journey, runners, raced)
    journey.loose += [fate.value for fate in raced.fates if isinstance(fate, Answered) and first.stream]
    journey.loose += [] if raced.running is None else [raced.running]
    won = None
    for runner, fate in zip(runners, raced.fates, strict=True):
        if fate is None:
            yield from _lose(journey, runner, raced.running, late=runner is first)
            continue
        ended = yield from settle(journey, runner, fate, beaten=won is not None)
        won = won or ended
    return won


def _judged(journey: Journey, runners: tuple[Ticket, ...], raced: Raced) -> Generator[Any, Any, Raced]:
    """The same, but a stream that ended before it said anything has failed: whoever runs beside it is still waited for."""
    fates = list(raced.fates)
    held = [fate.value for fate in fates if isinstance(fate, Answered) and runners[0].stream]
    held += [] if raced.running is None else [raced.running]
    journey.loose += held
    for place, (runner, fate) in enumerate(zip(runners, raced.fates, strict=True)):
        if not isinstance(fate, Answered) or not runner.stream:
            continue
        broken = broken_before_content(journey, runner, fate.value)
        if broken is not None:
            yield from close(journey, fate.value)
            held.remove(fate.value)
            fates[place] = Failed(broken, fate.seconds)
    for thing in held:
        journey.loose.remove(thing)
    return raced._replace(fates=tuple(fates))


def _beside(
    journey: Journey, first: Ticket, *, spare: bool = False, pays: bool = False
) -> Generator[Any, Any, Ticket | None]:
    """A place at somebody who may be asked beside the first; None: nobody, and the first is asked alone.

    `spare`: only at somebody with whom nothing is the matter. `pays`: from its retry budget.
    """
    others = tuple([target for target in journey.order if target is not first.target and not journey.tried(target)])
    if not others or journey.attempts_left() < 2:  # a race is two attempts
        return None
    pays = pays and journey.policy.retry.budget
    beside = yield from admit(journey, others, pays=pays, waits=False, spare=spare)
    return beside if isinstance(beside, Ticket) else None


def _lose(journey: Journey, runner: Ticket, running: Any, *, late: bool = False) -> Plan:
    if runner.raced:
        journey.asked(runner)
        yield Detach(running, partial(_late, journey.policy, journey.request, runner), runner)
        journey.loose.remove(running)
        journey.open.remove(runner)
        return
    yield from close(journey, running)
    silent = journey.policy.clock.now() - journey.sent[runner.attempt]
    journey.cancelled(runner, silent)
    settled = yield Settle(runner, NEUTRAL._replace(outrun=silent) if late else NEUTRAL)
    journey.open.remove(runner)
    journey.tell(runner.target, settled)


def _late(policy: Policy, request: Request, ticket: Ticket, fate: Answered | Failed) -> Plan:
    """The plan of a detached probe's end: a journey of its own that nobody waits for."""
    journey = Journey(request, policy)
    journey.open.append(ticket)
    try:
        won = yield from settle(journey, ticket, fate, beaten=not ticket.to_end)
        if won is not None and ticket.to_end and ticket.stream:
            yield from hear_out(journey, *won)
    except GeneratorExit:
        raise
    except BaseException as error:
        yield from release(journey)
        if not isinstance(error, Exception):  # an interrupt of the graph, say, has nowhere to go from here
            raise
