"""Rank and admit: who is asked, and how a request comes by its place.

Rules of this file: every step is a plan (see `story`); admission is one atomic step of the store, and a request waits only where a wait can
help: in a line, or for a provider's own short block.
"""

from __future__ import annotations

import math
from collections.abc import Generator
from itertools import count
from typing import Any

from langchain_resilient.engine.backoff import after_hint
from langchain_resilient.engine.effects import Admit, Leave, Look, Plan, Queued, Refused, Sleep, Ticket
from langchain_resilient.engine.errors import DeadlineExceededError
from langchain_resilient.engine.events import AdmissionRefused, Admitted, CircuitChanged, RateLimited, Refusal
from langchain_resilient.engine.plan.journey import Journey
from langchain_resilient.engine.plan.verdict import over
from langchain_resilient.engine.policy import DEFAULT_MAX_WAIT, Target
from langchain_resilient.engine.quota import LINE_LIMITS
from langchain_resilient.engine.routing import View, rank

NUMBERS = count(1)
"""Ids of attempts in this process."""


def _ranked(journey: Journey) -> Generator[Any, Any, Target | None]:
    """Put the candidates in order; returns the slow one to look at, if one is due."""
    policy, request = journey.policy, journey.request
    targets = policy.targets
    views = yield from look(journey)
    ranking = rank(policy.standings, views, policy.routing, policy.rand, policy.first_choices.get(request.stream))
    policy.first_choices[request.stream] = ranking.order[0]
    journey.order = tuple([one for index in ranking.order if (one := targets[index]).name not in journey.ineligible])
    journey.preferred = targets[ranking.preferred]
    for target in journey.order[1:]:
        if why := journey.views[target.name].passed_over:
            journey.refusals[target.name] = Refusal(target.name, why)
    if policy.races and len(journey.order) > 1:
        eligible = [target for target in targets if target.name not in journey.ineligible]
        return next((target for target in eligible if journey.views[target.name].explorable), None)
    return None


def look(journey: Journey) -> Generator[Any, Any, tuple[View, ...]]:
    """View all candidates, and keep the views."""
    targets, request, hedge = journey.policy.targets, journey.request, journey.policy.hedge
    tail = None if hedge is None else hedge.quantile
    views: tuple[View, ...] = yield Look(
        targets, request.stream and not request.whole, request.max_output, tail, journey.policy.routing == "latency"
    )
    journey.views = {target.name: view for target, view in zip(targets, views, strict=True)}
    return views


def admit(
    journey: Journey,
    pool: tuple[Target, ...],
    *,
    pays: bool = False,
    waits: bool = True,
    explore: Target | None = None,
    spare: bool = False,
) -> Generator[Any, Any, Ticket | Refused]:
    """Ask for a place at one of `pool`, standing in a line where that helps and fits the deadline."""
    policy, request = journey.policy, journey.request
    attempt = next(NUMBERS)
    several = len(journey.order) > 1
    until = math.inf
    while True:
        fitting = tuple([target for target in pool if journey.fits(target)])
        if journey.place is not None and journey.place.target not in fitting:
            yield from _leave_line(journey)
        if len(fitting) < len(pool):
            late = tuple([Refusal(target.name, "deadline") for target in pool if target not in fitting])
            journey.refusals.update({refusal.provider: refusal for refusal in late})
            if not fitting:
                return Refused(late)
        ask = Admit(
            attempt, fitting, request.stream, request.lane, journey.tokens(), request.max_output, pays,
            min(journey.left(), until - policy.clock.now()) if waits else 0.0, policy.races and several, several and pool is journey.order, explore, spare,
            whole=request.whole,
        )  # fmt: skip
        reply: Ticket | Queued | Refused = yield ask
        if isinstance(reply, Ticket):
            return granted(journey, reply)
        if isinstance(reply, Queued):
            journey.place = reply.place
            # From the first place on: a wait that is over must not begin anew at the end of the line.
            until = min(until, policy.clock.now() + reply.place.target.longest_wait)
            yield from sleep(journey, reply.seconds, place=True)
            continue
        yield from _leave_line(journey)
        if not spare:  # an extra call that is not made is nothing that the request was refused
            _note_refusals(journey, reply.refusals)
            policy.observe(AdmissionRefused(reply.refusals))
        return reply


def _leave_line(journey: Journey) -> Plan:
    """Give up the place in a line, if there is one: whoever stands behind it must not wait for somebody who is gone."""
    if journey.place is not None:
        yield Leave(journey.place)
        journey.place = None


def _note_refusals(journey: Journey, refusals: tuple[Refusal, ...]) -> None:
    for refusal in refusals:
        journey.refusals[refusal.provider] = refusal
        if refusal.reason in LINE_LIMITS:
            journey.policy.observe(RateLimited(refusal.provider, "client", refusal.reason))


def granted(journey: Journey, ticket: Ticket) -> Ticket:
    """Keep a ticket until it is settled, and tell the observers."""
    journey.place = None
    journey.open.append(ticket)
    if ticket.passed:
        _note_refusals(journey, ticket.passed)
    if ticket.half_opens:
        journey.policy.observe(CircuitChanged(ticket.target.name, "open", "half_open", "probe"))
    if Admitted in journey.policy.heard:
        journey.policy.observe(Admitted(ticket.target.name, ticket.probe, journey.waited))
    return ticket


def sleep(journey: Journey, seconds: float, *, place: bool = False) -> Plan:
    """Wait, in the line at most until woken; the record counts what really passed."""
    clock = journey.policy.clock
    began = clock.now()
    yield Sleep(seconds, journey.place if place else None)
    journey.waited += clock.now() - began


def _plain_ask(journey: Journey) -> Admit:
    """What a healthy day needs: the first provider, if nothing is the matter with it."""
    request, policy = journey.request, journey.policy
    return Admit(
        next(NUMBERS), policy.targets, request.stream, request.lane, journey.tokens(), request.max_output,
        whole=request.whole, plainly=True,
    )  # fmt: skip


def first_place(journey: Journey) -> Generator[Any, Any, Ticket]:
    """The first admission of a request."""
    policy, request = journey.policy, journey.request
    if policy.plain and request.deadline is None:
        plain = yield _plain_ask(journey)
        if isinstance(plain, Ticket):
            return granted(journey, plain)
    if journey.left() <= 0:
        msg = f"deadline: got {request.deadline!r}; it is past already, give seconds > 0"
        raise DeadlineExceededError(msg)
    return (yield from _patiently(journey, (yield from _ranked(journey))))


def place_instead(journey: Journey) -> Generator[Any, Any, Ticket]:
    """The same once whoever was admitted first is no candidate: the others are asked as if it had not been there."""
    # A plain ask looked at nobody.
    explore = None if journey.views else (yield from _ranked(journey))
    if not journey.order:
        raise over(journey)
    return (yield from _patiently(journey, explore))


def _patiently(journey: Journey, explore: Target | None) -> Generator[Any, Any, Ticket]:
    """A place where there was no attempt yet: a provider's own short block may be waited out, and nothing else."""
    while True:
        reply = yield from admit(journey, journey.order, explore=explore)
        if isinstance(reply, Ticket):
            return reply
        waits = [wait for _, reason, wait in reply.refusals if reason == "blocked" and wait is not None]
        soonest = min(waits, default=None)
        patience = DEFAULT_MAX_WAIT if len(journey.order) > 1 else journey.order[0].limits.max_wait
        if (
            reply.rejected is not None
            or soonest is None
            or soonest > patience
            or not journey.fits(journey.order[0], soonest)
        ):
            raise over(journey)
        # Everybody waits for the same moment: without jitter they would all come back in it.
        yield from sleep(journey, after_hint(soonest, journey.policy.rand()))
