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

from langchain_resilient.engine.classify import ErrorKind
from langchain_resilient.engine.effects import Plan, Request
from langchain_resilient.engine.errors import DeadlineExceededError, OverloadedError, StreamInterruptedError
from langchain_resilient.engine.plan.admission import first_place
from langchain_resilient.engine.plan.journey import Journey
from langchain_resilient.engine.plan.keeping import keep
from langchain_resilient.engine.plan.racing import accompanied
from langchain_resilient.engine.plan.recovery import next_place
from langchain_resilient.engine.plan.relay import relay
from langchain_resilient.engine.plan.settling import release, settle
from langchain_resilient.engine.policy import Policy

_OUTCOMES: dict[type[BaseException], str] = {DeadlineExceededError: "deadline", StreamInterruptedError: "interrupted"}
"""The record's word for an error that ends a request from outside its plan."""


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
                won = yield from accompanied(journey, ticket)
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
    except GeneratorExit:  # the collector was here before the driver, who gives back what is held
        journey.leave()
        raise
    except BaseException as error:
        yield from release(journey)
        if journey.decision is None:
            journey.decide(_OUTCOMES.get(type(error)) or ("failed" if _is_fault(journey, error) else "cancelled"))
        yield from keep(journey, error)
        raise
    finally:
        policy.gate.leave()


def _is_fault(journey: Journey, error: BaseException) -> bool:
    """Whether something is wrong that no plan knows of; else the caller is going away."""
    return isinstance(error, Exception) and journey.classify(error).kind is not ErrorKind.CANCELLED


def _enter(journey: Journey) -> None:
    request, gate = journey.request, journey.policy.gate
    try:
        gate.enter(request.lane)
    except OverloadedError:
        journey.decide("overloaded")
        raise
