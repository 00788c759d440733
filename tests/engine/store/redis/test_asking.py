"""An admission, as Redis is asked for it and as the reply is understood."""

import json

import pytest

from langchain_resilient.engine import budget
from langchain_resilient.engine.effects import Place
from langchain_resilient.engine.events import Refusal
from langchain_resilient.engine.quota import Cost, RateLimits
from langchain_resilient.engine.store.redis import asking
from langchain_resilient.engine.store.redis.asking import Asked
from langchain_resilient.engine.store.redis.lines import Standing
from langchain_resilient.engine.store.redis.wire import Candidate, Granted, Keys
from langchain_resilient.engine.store.state import Route
from tests.engine.harness import ask_for, target

A, B, C = target("a"), target("b"), target("c")
KEYS = Keys("here")


def asked(ask, targets, explore=0):
    """An admission of these."""
    return Asked(ask, tuple(Candidate(item, Cost(), affords=True, unfit=False) for item in targets), explore)


@pytest.mark.parametrize(
    ("explore", "targets", "place"), [(None, (A, B), 0), (A, (A, B), 1), (B, (A, B), 2), (C, (A, B, C), 3)]
)
def test_the_one_to_explore_is_asked_once(explore, targets, place):
    """It is told by its place among those who are asked anyway, or comes behind them."""
    assert asking.considered(ask_for(A, B, explore=explore)) == (targets, place)


def test_what_a_process_knows_of_a_candidate():
    """Whether its budget pays, if it must, and whether it is fit, if an extra call asks."""
    route = Route()
    assert asking.candidate(A, route, ask_for(A, pays=True), 0) == (A, Cost(), True, False)
    route.budget = budget.FLOOR
    assert asking.candidate(A, route, ask_for(A, pays=True), 0).affords is False
    assert asking.candidate(A, route, ask_for(A), 0).affords is True
    route.lateness._outruns = 100
    assert asking.candidate(A, route, ask_for(A, spare=True), 0).unfit is True
    assert asking.candidate(A, route, ask_for(A), 0).unfit is False


@pytest.mark.parametrize(("where", "placed"), [(A, 1), (B, 2), (C, 0)])
def test_where_a_request_stands_is_told(where, placed):
    """By the candidate's place; 0 for a line of somebody who is not asked any more, which is left all the same."""
    ask = ask_for(A, B)
    standing = Standing(Place(ask.attempt, where, 0), "p:1|9")
    operation = asking.operation(KEYS, "p:1", asked(ask, (A, B)), 7, standing)
    assert json.loads(operation.words[0])[-4:] == [7, placed, "p:1|9", 2]
    assert operation.about.ask is ask


def test_who_stands_nowhere_says_so():
    """No place and no entry."""
    operation = asking.operation(KEYS, "p:1", asked(ask_for(A), (A, B), 2), 7, None)
    assert json.loads(operation.words[0])[-5:] == [2, 7, 0, "", 1]


def test_a_ticket_says_what_was_granted():
    """With who passed before by name; it holds a place where it probes, or where requests at a time are counted."""
    counted = target("b", limits=RateLimits(concurrency=1))
    granted = Granted(1, 5, False, False, False, False, (7,), 9, (("blocked", 2_000_000),))
    route = Route()
    route.finishes = 3
    ticket = asking.ticket(asked(ask_for(A, counted, attempt=4), (A, counted)), granted, route)
    assert (ticket.attempt, ticket.target, ticket.generation, ticket.granted, ticket.charged) == (
        4,
        counted,
        5,
        9,
        (7,),
    )
    assert (ticket.leased, ticket.finishes, ticket.passed) == (True, True, (Refusal("a", "blocked", 2.0),))
    free = asking.ticket(asked(ask_for(A), (A,)), granted._replace(place=0, passed=()), Route())
    assert (free.leased, free.finishes) == (False, False)
    assert asking.ticket(asked(ask_for(A), (A,)), granted._replace(place=0, passed=(), probe=True), Route()).leased
