"""Candidates that turn out to be none when they are about to be asked: passed over as if they had not been there."""

import functools

import pytest

from langchain_resilient.engine.backoff import Retry
from langchain_resilient.engine.classify import ErrorKind
from langchain_resilient.engine.errors import (
    AllProvidersFailedError,
    CircuitOpenError,
    IneligibleError,
    RefusedError,
)
from langchain_resilient.engine.events import Attempted, FellBack, Hedged, Refusal
from langchain_resilient.engine.quota import RateLimits
from tests.engine.harness import STOP, Chunk, Step, admitted, settle, status, target
from tests.engine.plan.test_hedging import hedging, says

REOPENED = 61.0
"""Seconds after which an open circuit (60 s, no jitter here) lets a probe through."""


@pytest.fixture
def world(world):
    """Worlds whose providers may turn out to be no candidates."""
    return functools.partial(world, unsure=True)


def none():
    """What a provider's client raises in place of asking it."""
    return IneligibleError("not in this team")


def attempts(outcome):
    """Who was asked, and what came of it."""
    return [(attempt.provider, attempt.kind) for attempt in outcome.decision.attempts]


@pytest.mark.parametrize("streams", [False, True])
def test_the_next_one_is_asked_as_if_it_had_not_been_there(world, streams):
    """After a failure `b` is no candidate: `c` answers, and the record shows one fallback and a refusal, but no attempt at `b`."""
    w = world({"a": [status(503)], "b": [none()], "c": ["from c"]})
    outcome = w.ask(stream=streams)
    assert (outcome.text, attempts(outcome)) == ("from c", [("a", "overloaded"), ("c", "ok")])
    assert outcome.decision.refusals == (Refusal("b", "ineligible"),)
    assert w.told(FellBack) == [FellBack("a", "c", "overloaded")]
    assert "b" not in [event.provider for event in w.told(Attempted)]
    assert w.left_over() == {}


def test_nobody_has_failed_where_it_was_the_first(world):
    """The first one that is admitted is no candidate: the second is asked at once, without a wait, and no failure is told of."""
    w = world({"a": ["from a"], "b": [none()], "c": ["from c"]})
    w.open("a")
    outcome = w.ask()
    assert (outcome.text, attempts(outcome), w.clock.sleeps) == ("from c", [("c", "ok")], [])
    assert (w.told(FellBack), w.left_over()) == ([], {})


@pytest.mark.memory
def test_it_is_no_fallback_that_others_pay_for(world):
    """The first fallback is free: with every budget used up the next but one still answers."""
    w = world({"a": [status(503)], "b": [none()], "c": ["from c"]})
    for one in w.targets:
        w.store._route(one).budget = 50.0
    assert w.ask().text == "from c"


def test_it_leaves_nobody_more_attempts(world):
    """Candidates that may not answer add no attempts at those that may: one for each of these, and `max_retries` in all."""
    beside = {f"not {number}": [none()] for number in range(5)}
    w = world({"a": [status(503)], **beside, "c": [status(503)]}, retry=Retry(max_retries=2))
    outcome = w.ask()
    assert len(outcome.decision.attempts) == 4
    assert w.told(FellBack)[0] == FellBack("a", "c", "overloaded")


@pytest.mark.parametrize("streams", [False, True])
@pytest.mark.parametrize("routing", ["priority", "weighted"])
def test_a_short_block_is_waited_out_all_the_same(world, streams, routing):
    """Where `a` has asked for two seconds, and whoever took its place is no candidate, the request waits for `a` as if alone with it."""
    w = world({"a": ["from a"], "b": [none()]}, routing=routing)
    settle(w.store, admitted(w.store, w["a"]), ErrorKind.RATE_LIMITED, retry_after=2.0)
    outcome = w.ask(stream=streams)
    assert (outcome.text, w.asked, w.clock.sleeps) == ("from a", ["b", "a"], [pytest.approx(2.1)])
    assert (outcome.decision.provider, w.left_over()) == ("a", {})


def test_the_rest_are_ranked(world):
    """Where the first of the list is none the others are asked in the order in which a request without it asks them: who is slow, last."""
    w = world(
        {"a": [none()], "b": [Step("from b", 5.0)], "c": ["from c"]},
        [target("a"), target("b", max_latency=1.0), target("c")],
    )
    for _ in range(30):
        settle(w.store, admitted(w.store, w["b"]), seconds=5.0)
    assert w.ask().text == "from c"


def test_a_fallback_is_told_though_nobody_waits_for_its_end(world):
    """Whose caller goes away while the fallback works has fallen back all the same."""
    rehearsal, w = (world({"a": [status(503)], "b": [Step("from b", 5.0)]}) for _ in range(2))
    rehearsal.ask()
    last = max(place for place, name in enumerate(rehearsal.seen) if name == "Call")
    w.interrupt = (last, KeyboardInterrupt())
    assert isinstance(w.ask().error, KeyboardInterrupt)
    assert w.told(FellBack) == [FellBack("a", "b", "overloaded")]
    assert w.left_over() == {}


def test_a_fallback_to_a_probe_that_loses_is_told(world):
    """`b` is probed beside `c` and loses: the request went on to `b`, and the answer is `c`'s."""
    w = world({"a": [status(503)], "b": [Step("from b", 20.0)], "c": [Step("from c", 1.0)]})
    w.open("b", seconds=REOPENED)
    assert w.ask().text == "from c"
    assert w.told(FellBack) == [FellBack("a", "b", "overloaded")]
    w.land()
    assert len(w.told(FellBack)) == 1 and w.left_over() == {}


def test_its_limits_are_given_back_in_full(world):
    """Nothing was sent, so the one request a minute that `a` may take is still there for the next."""
    w = world({"a": [none(), "from a"], "b": ["from b"]}, [target("a", limits=RateLimits(rpm=1)), target("b")])
    assert [w.ask().text, w.ask().text] == ["from b", "from a"]


def test_it_says_nothing_of_its_circuit(world):
    """However often it is passed over: it is neither a failure nor, for a probe, a success."""
    w = world({"a": [none()], "b": ["from b"]})
    for _ in range(20):
        w.ask()
    assert w.status("a")["failures_in_a_row"] == 0
    w.open("a", seconds=REOPENED)
    w.ask()
    w.land()
    assert (w.circuit("a"), w.left_over()) == ("half_open", {})


def test_if_all_are_none_the_refusals_say_so(world):
    """Nobody was asked: each is named as one that may not answer."""
    w = world({"a": [none()], "b": [none()]})
    outcome = w.ask()
    assert isinstance(outcome.error, AllProvidersFailedError)
    assert [(type(one), one.provider) for one in outcome.error.exceptions] == [(RefusedError, "a"), (RefusedError, "b")]
    assert (outcome.decision.outcome, outcome.decision.attempts, w.left_over()) == ("refused", (), {})


def test_the_only_one(world):
    """A refusal of its own, at once, and the same one is not asked again."""
    w = world({"a": [none()]})
    outcome = w.ask()
    assert type(outcome.error) is RefusedError and "may not answer this request" in str(outcome.error)
    assert (w.asked, w.clock.sleeps) == (["a"], [])


def test_other_refusals_are_still_told(world):
    """Where `a` is open and `b` no candidate, the caller hears of the open circuit as well."""
    w = world({"a": ["from a"], "b": [none()]})
    w.open("a")
    outcome = w.ask()
    assert {type(one) for one in outcome.error.exceptions} == {CircuitOpenError, RefusedError}


def test_the_callers_own_fault_stays_its_own(world):
    """Everybody who was asked found the prompt too long: the provider's own exception arrives."""
    error = status(400, "context_length_exceeded")
    w = world({"a": [error], "b": [none()]})
    assert w.ask().error is error


def test_beside_a_probe(world):
    """The companion of a probe is none: the next one takes its place, and the user waits no longer for it."""
    w = world({"a": [Step("from a", 20.0)], "b": [none()], "c": [Step("from c", 1.0)]})
    w.open("a", seconds=REOPENED)
    began = w.clock.now()
    outcome = w.ask()
    assert (outcome.text, w.clock.now() - began) == ("from c", 1.0)
    w.land()
    assert w.left_over() == {}


def test_beside_a_late_one(world):
    """The one that is asked beside a late attempt is none: the next takes its place within the same share, and is the one that is told of."""
    w = hedging(world, {"a": [says("late", 9.0)], "b": [none()], "c": [says("from c", 0.5)]})
    outcome = w.ask(stream=True)
    assert (outcome.text, w.told(Hedged)) == ("from c", [Hedged("c", "a", won=True)])
    assert (w.status("c")["retry_budget"], w.left_over()) == (100.0, {})


def test_nobody_beside_a_late_one(world):
    """Where the only one to be asked beside a late attempt is none, no hedge is told of."""
    w = hedging(world, {"a": [says("late", 9.0)], "b": [none()]})
    outcome = w.ask(stream=True)
    assert (outcome.text, outcome.decision.hedged, w.told(Hedged), w.left_over()) == ("late", False, [], {})


def test_a_broken_stream_goes_on_with_the_next(world):
    """`a` breaks in the middle, `b` is no candidate, `c` continues: one text."""
    w = world({"a": [[Chunk("one "), status(503)]], "b": [none()], "c": [[Chunk("two"), STOP]]})
    outcome = w.ask(stream=True)
    assert (outcome.text, outcome.error) == ("one two", None)
    assert attempts(outcome) == [("a", "overloaded"), ("c", "ok")]
