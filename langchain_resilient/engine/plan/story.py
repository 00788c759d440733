"""The story of a request, told once.

Rules of this file: a plan is a generator that yields effects and is sent their replies; it performs nothing itself, so the same story
runs under the sync and the async driver. An exception thrown in by the driver means that the caller is gone: everything that is open is
settled as cancelled, which says nothing about the provider.

    rank     candidates in order
    admit    one atomic step over the ordered candidates
    call     one attempt under its limits (or a race of two, if the first is a probe)
    settle   what it came to
    decide   done │ ask here again │ ask the next │ wait │ give up
"""

from __future__ import annotations

from collections.abc import Generator
from functools import partial
from typing import Any

from langchain_resilient.engine.effects import (
    Abandon,
    Answered,
    Detach,
    Failed,
    Leave,
    Plan,
    Race,
    Raced,
    Request,
    Settle,
    Ticket,
)
from langchain_resilient.engine.errors import DeadlineExceededError, OverloadedError, StreamInterruptedError
from langchain_resilient.engine.events import Hedged
from langchain_resilient.engine.plan.admission import admit, first_place, look
from langchain_resilient.engine.plan.course import COURSES
from langchain_resilient.engine.plan.journey import Journey
from langchain_resilient.engine.plan.recovery import next_place
from langchain_resilient.engine.plan.relay import hear_out, relay
from langchain_resilient.engine.plan.settling import NEUTRAL, Won, close, settle
from langchain_resilient.engine.policy import Policy
from langchain_resilient.engine.routing import CALM

SHORTEST_LOOK = 0.05
"""Seconds between two looks at a late attempt, at least."""
_OUTCOMES: dict[type[BaseException], str] = {DeadlineExceededError: "deadline", StreamInterruptedError: "interrupted"}
"""The record's word for an error that ends a request from outside its plan; any other is the caller going away."""


def answer(request: Request, policy: Policy) -> Plan:
    """The plan of a request: returns the answer; as a stream, shows its chunks. Raises what the caller is to see."""
    journey = Journey(request, policy)
    _enter(journey)
    if policy.allowance is not None:
        policy.allowance.earn()
    try:
        ticket = yield from first_place(journey)
        while True:
            if ticket.raced or policy.hedge is not None:
                won = yield from _accompanied(journey, ticket)
            else:
                won = yield from settle(journey, ticket, (yield journey.call(ticket)))
            if won is not None:
                ticket, answered = won
                if not request.stream:
                    journey.decide("answered", provider=ticket.target)
                    return answered.value
                if (yield from relay(journey, ticket, answered)):
                    return journey.value
            ticket = yield from next_place(journey)
    except GeneratorExit:
        raise
    except BaseException as error:
        yield from _release(journey)
        if journey.decision is None:
            journey.decide(_OUTCOMES.get(type(error), "cancelled"))
        raise
    finally:
        policy.gate.leave()


def _enter(journey: Journey) -> None:
    request, gate = journey.request, journey.policy.gate
    try:
        gate.enter(request.lane)
    except OverloadedError:
        journey.decide("overloaded")
        raise


def _release(journey: Journey) -> Plan:
    for ticket in journey.open:
        yield Settle(ticket, NEUTRAL)
    if journey.place is not None:
        yield Leave(journey.place)
    for running in journey.loose:
        yield Abandon(running)


def _accompanied(journey: Journey, ticket: Ticket) -> Generator[Any, Any, Won | None]:
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
    raced = yield Race((journey.call(beside),), raced.running)
    won = yield from _decide(journey, (ticket, beside), raced)
    ahead = won is not None and won[0] is beside
    journey.policy.observe(Hedged(beside.target.name, ticket.target.name, ahead))
    return won


def _second(journey: Journey, ticket: Ticket) -> Generator[Any, Any, Ticket | None]:
    """A place at somebody to ask beside a late attempt, if that may be done."""
    yield from look(journey)
    allowance = journey.policy.allowance
    free = journey.views[ticket.target.name].late
    if allowance is None or not (free or allowance.spend()):
        return None
    second = yield from _beside(journey, ticket, spare=True)
    if second is None and not free:
        allowance.give_back()
    journey.hedged = journey.hedged or second is not None
    return second


def _decide(journey: Journey, runners: tuple[Ticket, ...], raced: Raced) -> Generator[Any, Any, Won | None]:
    """A race's end. The first runner may hang, and must not make its user wait: if the one beside it fails, the next takes that place."""
    first = runners[0]
    while isinstance(failed := raced.fates[-1], Failed) and raced.fates[0] is None:
        journey.loose.append(raced.running)
        yield from settle(journey, runners[1], failed)
        if journey.final is not None and not COURSES[journey.final.kind].onward:
            yield from _lose(journey, first, raced.running)
            return None
        beside = yield from _beside(journey, first)
        journey.loose.remove(raced.running)
        runners = (first,) if beside is None else (first, beside)
        raced = yield Race(tuple([journey.call(runner) for runner in runners[1:]]), raced.running)
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


def _beside(journey: Journey, first: Ticket, *, spare: bool = False) -> Generator[Any, Any, Ticket | None]:
    """A place at somebody who may be asked beside the first; None: nobody, and the first is asked alone.

    `spare`: only at somebody with whom nothing is the matter, paid for from its budget.
    """
    others = tuple([target for target in journey.order if target is not first.target and not journey.tried(target)])
    if not others or journey.attempts_left() < 2:  # a race is two attempts
        return None
    pays = spare and journey.policy.retry.budget
    beside = yield from admit(journey, others, pays=pays, waits=False, spare=spare)
    return beside if isinstance(beside, Ticket) else None


def _lose(journey: Journey, runner: Ticket, running: Any, *, late: bool = False) -> Plan:
    if runner.raced:
        yield Detach(running, partial(_late, journey.policy, journey.request, runner))
        journey.loose.remove(running)
        journey.open.remove(runner)
        return
    yield from close(journey, running)
    silent = journey.policy.clock.now() - journey.sent[runner.attempt]
    journey.cancelled(runner, silent)
    settled = yield Settle(runner, NEUTRAL._replace(outrun=silent) if late else NEUTRAL)
    journey.open.remove(runner)
    journey.tell(settled)


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
        yield from _release(journey)
        if not isinstance(error, Exception):  # an interrupt of the graph, say, has nowhere to go from here
            raise
