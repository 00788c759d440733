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
    Request,
    Settle,
    Ticket,
)
from langchain_resilient.engine.errors import DeadlineExceededError, OverloadedError, StreamInterruptedError
from langchain_resilient.engine.plan.admission import admit, first_place, granted, plain_ask
from langchain_resilient.engine.plan.course import COURSES
from langchain_resilient.engine.plan.journey import Journey
from langchain_resilient.engine.plan.recovery import next_place
from langchain_resilient.engine.plan.relay import relay
from langchain_resilient.engine.plan.settling import NEUTRAL, Won, close, settle
from langchain_resilient.engine.policy import Policy

_OUTCOMES: dict[type[BaseException], str] = {DeadlineExceededError: "deadline", StreamInterruptedError: "interrupted"}
"""The record's word for an error that ends a request from outside its plan; any other is the caller going away."""


def answer(request: Request, policy: Policy) -> Plan:
    """The plan of a request: returns the answer; as a stream, shows its chunks. Raises what the caller is to see."""
    journey = Journey(request, policy)
    _enter(journey)
    try:
        if policy.plain and request.deadline is None:
            plain = yield plain_ask(journey)
            ticket = granted(journey, plain) if isinstance(plain, Ticket) else (yield from first_place(journey))
        else:
            ticket = yield from first_place(journey)
        while True:
            ticket, answered = yield from _attempts(journey, ticket)
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


def _attempts(journey: Journey, ticket: Ticket) -> Generator[Any, Any, Won]:
    """Attempt after attempt, until one answers, or begins to. Raises what the caller is to see when there is nobody left to ask."""
    while True:
        if ticket.raced:
            won = yield from _race(journey, ticket)
        else:
            won = yield from settle(journey, ticket, (yield journey.call(ticket)))
        if won is not None:
            return won
        ticket = yield from next_place(journey)


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


def _race(journey: Journey, ticket: Ticket) -> Generator[Any, Any, Won | None]:
    """A probe beside another provider: the user gets the first good answer, and a losing probe runs on to its own outcome.

    A probe may hang, and must not make its user wait: if the one beside it fails, the next one takes that place.
    """
    beside = yield from _beside(journey, ticket)
    if beside is None:
        return (yield from settle(journey, ticket, (yield journey.call(ticket))))
    runners: tuple[Ticket, ...] = (ticket, beside)
    raced = yield Race((journey.call(ticket), journey.call(beside)))
    while isinstance(raced.fates[-1], Failed) and raced.fates[0] is None:
        journey.loose.append(raced.running)
        yield from settle(journey, runners[1], raced.fates[1])
        if journey.final is not None and not COURSES[journey.final.kind].onward:
            yield from _lose(journey, ticket, raced.running)
            return None
        beside = yield from _beside(journey, ticket)
        journey.loose.remove(raced.running)
        runners = (ticket,) if beside is None else (ticket, beside)
        raced = yield Race(tuple([journey.call(runner) for runner in runners[1:]]), raced.running)
    journey.loose += [fate.value for fate in raced.fates if isinstance(fate, Answered) and ticket.stream]
    journey.loose += [] if raced.running is None else [raced.running]
    won = None
    for runner, fate in zip(runners, raced.fates, strict=True):
        if fate is None:
            yield from _lose(journey, runner, raced.running)
            continue
        ended = yield from settle(journey, runner, fate, beaten=won is not None)
        won = won or ended
    return won


def _beside(journey: Journey, probe: Ticket) -> Generator[Any, Any, Ticket | None]:
    """A place at somebody who may be asked beside a probe; None: nobody, and the probe is asked alone."""
    others = tuple([target for target in journey.order if target is not probe.target and not journey.tried(target)])
    if not others or journey.attempts_left() < 2:  # a race is two attempts
        return None
    beside = yield from admit(journey, others, waits=False)
    return beside if isinstance(beside, Ticket) else None


def _lose(journey: Journey, runner: Ticket, running: Any) -> Plan:
    if runner.raced:
        yield Detach(running, partial(_late, journey.policy, journey.request, runner))
        journey.loose.remove(running)
    else:
        yield from close(journey, running)
        yield Settle(runner, NEUTRAL)
    journey.open.remove(runner)


def _late(policy: Policy, request: Request, ticket: Ticket, fate: Answered | Failed) -> Plan:
    """The plan of a detached probe's end: a journey of its own that nobody waits for."""
    journey = Journey(request, policy)
    journey.open.append(ticket)
    try:
        yield from settle(journey, ticket, fate, beaten=True)
    except GeneratorExit:
        raise
    except BaseException as error:
        yield from _release(journey)
        if not isinstance(error, Exception):  # an interrupt of the graph, say, has nowhere to go from here
            raise
