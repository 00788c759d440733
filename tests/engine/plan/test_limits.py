"""Requests that meet a limit: go on, wait in line or be turned away; lanes; and what fits no limit at all."""

import pytest

from langchain_resilient.engine.backoff import Retry
from langchain_resilient.engine.drive import stream
from langchain_resilient.engine.effects import Call, Sleep
from langchain_resilient.engine.errors import AllProvidersFailedError, OverloadedError, RateLimitedError
from langchain_resilient.engine.events import RateLimited
from langchain_resilient.engine.policy import Gate
from langchain_resilient.engine.quota import RateLimits
from tests.engine.harness import STOP, Chunk, Stepper, TimedHands, World, status, target

ONE_IN_SIX = {"rpm": 10, "burst": 1}
"""One request, and the next one six seconds later."""


def limited(name="a", **limits):
    """A provider with these limits."""
    return target(name, limits=RateLimits(**limits))


# ------------------------------------------------------------------------------------------------------------ on_limit
def test_next_asks_the_next_provider(world):
    """With `on_limit="next"` the second request goes to `b`, without a wait."""
    w = world({"a": ["from a"], "b": ["from b"]}, [limited("a", **ONE_IN_SIX), target("b")])
    assert [w.ask().text, w.ask().text] == ["from a", "from b"]
    assert w.clock.sleeps == []
    assert w.decisions[-1].fallback


def test_next_waits_when_nobody_can_take_it(world):
    """The third request finds both used up and waits in the line of the one that is free first."""
    w = world({"a": ["from a"], "b": ["from b"]}, [limited("a", **ONE_IN_SIX), limited("b", **ONE_IN_SIX)])
    w.ask()
    w.clock.advance(1.0)
    w.ask()
    w.clock.advance(1.0)
    outcome = w.ask()
    assert (outcome.text, w.clock.sleeps) == ("from a", [4.0])
    assert outcome.decision.attempts[0].wait == 4.0
    assert w.left_over() == {}


def test_wait_stands_in_line_although_another_is_free(world):
    """With `on_limit="wait"` the request stays with its provider for up to `max_wait`."""
    w = world({"a": ["from a"], "b": ["from b"]}, [limited("a", on_limit="wait", **ONE_IN_SIX), target("b")])
    assert [w.ask().text, w.ask().text] == ["from a", "from a"]
    assert w.clock.sleeps == [6.0]


def test_wait_goes_on_where_the_wait_would_be_too_long(world):
    """Six seconds are more than a `max_wait` of five, so it does not begin to wait."""
    limits = limited("a", on_limit="wait", max_wait=5.0, **ONE_IN_SIX)
    w = world({"a": ["from a"], "b": ["from b"]}, [limits, target("b")])
    assert [w.ask().text, w.ask().text] == ["from a", "from b"]
    assert w.clock.sleeps == []


def test_reject_turns_away_at_once(world):
    """With `on_limit="reject"` the caller is told when to come back, although `b` is free."""
    w = world({"a": ["from a"], "b": ["from b"]}, [limited("a", on_limit="reject", **ONE_IN_SIX), target("b")])
    w.ask()
    outcome = w.ask()
    assert isinstance(outcome.error, RateLimitedError)
    assert (outcome.error.retry_after, outcome.error.is_retryable) == (6.0, True)
    assert (w.asked, w.clock.sleeps, outcome.decision.outcome) == (["a"], [], "refused")
    assert w.told(RateLimited) == [RateLimited("a", "client", "rpm")]


def test_a_wait_beyond_the_patience_is_refused(world):
    """One request a minute, and `max_wait` 10 s: the second is refused with the time."""
    w = world({"a": ["from a"]}, [limited("a", rpm=1)])
    w.ask()
    error = w.ask().error
    assert (type(error), error.retry_after, w.clock.sleeps) == (RateLimitedError, 60.0, [])


# ---------------------------------------------------------------------------------------------------- beyond the limit
def test_a_prompt_beyond_the_limit_errors_at_once(world):
    """5,000 tokens never fit into 1,000 a minute: an error that says so, and that waiting can't help."""
    w = world({"a": ["hello"]}, [limited("a", tpm=1000)])
    outcome = w.ask(input_tokens=lambda: 5000)
    assert isinstance(outcome.error, RateLimitedError)
    assert (outcome.error.is_retryable, outcome.error.retry_after) == (False, None)
    assert "costs more than its limit 'tpm' allows per period" in str(outcome.error)
    assert (w.asked, w.clock.sleeps) == ([], [])


def test_a_prompt_beyond_every_limit_is_not_retryable(world):
    """The same at all of several providers; where one has no such limit it answers."""
    w = world({"a": ["hello"], "b": ["hello"]}, [limited("a", tpm=1000), limited("b", itpm=2000)])
    error = w.ask(input_tokens=lambda: 5000).error
    assert (type(error), error.is_retryable) == (RateLimitedError, False)
    w = world({"a": ["hello"], "b": ["from b"]}, [limited("a", tpm=1000), target("b")])
    assert w.ask(input_tokens=lambda: 5000).text == "from b"


def test_tokens_are_estimated_only_where_a_limit_counts_them(world):
    """Counting the prompt costs time: it is done for token limits alone."""
    counted = []
    w = world({"a": ["hello"]}, [limited("a", rpm=10)])
    w.ask(input_tokens=lambda: counted.append(1) or 5)
    assert counted == []
    w = world({"a": ["hello"]}, [limited("a", tpm=10_000)])
    w.ask(input_tokens=lambda: counted.append(1) or 5, max_output=100)
    assert counted


# --------------------------------------------------------------------------------------------------------------- lines
def test_a_line_is_served_in_order():
    """Three requests wait for one place; as it becomes free, they get it in the order in which they came."""
    w = World("sync", {"a": ["hello"]}, [limited("a", concurrency=1)])
    running, *waiting = [Stepper(w) for _ in range(4)]
    assert isinstance(running.effect, Call)
    assert all(isinstance(stepper.effect, Sleep) for stepper in waiting)
    assert w.status("a")["waiting"] == 3
    for stepper in waiting:
        assert not waiting[-1].effect.place.woken or stepper is waiting[-1]
        running.answer()
        assert stepper.effect.place.woken
        running = stepper.reply()
        assert isinstance(running.effect, Call)
    running.answer()
    assert w.left_over() == {}


def test_a_newcomer_does_not_overtake_the_line():
    """A place becomes free while somebody waits: who comes just then stands behind."""
    w = World("sync", {"a": ["hello"]}, [limited("a", concurrency=1)])
    running, first = Stepper(w), Stepper(w)
    running.answer()
    late = Stepper(w)
    assert isinstance(late.effect, Sleep)
    assert isinstance(first.reply().effect, Call)
    assert isinstance(late.reply().effect, Sleep)


def test_a_waiter_that_goes_away_lets_the_next_one_forward():
    """A cancelled waiter leaves the line, and the one behind it is woken."""
    w = World("sync", {"a": ["hello"]}, [limited("a", concurrency=1)])
    running, first, second = Stepper(w), Stepper(w), Stepper(w)
    with pytest.raises(KeyboardInterrupt):
        first.throw(KeyboardInterrupt())
    assert (w.status("a")["waiting"], second.effect.place.woken) == (1, True)
    running.answer()
    assert isinstance(second.reply().effect, Call)


def test_a_waiter_whose_provider_is_blocked_meanwhile_leaves_the_line(world):
    """On waking, the block is seen: the waiter goes, and does not bar the line for those behind it."""
    w = world({"a": ["hello"]}, [limited("a", concurrency=1)], retry=Retry(max_retries=0))
    running, first = Stepper(w), Stepper(w)
    with pytest.raises(Exception, match="429"):
        running.fail(status(429, retry_after=30))
    assert first.effect.place.woken
    with pytest.raises(RateLimitedError):
        first.reply()
    assert w.left_over() == {}


def test_a_wait_that_is_over_does_not_begin_anew(world):
    """Who has waited for `max_wait` is refused, though its place has lapsed meanwhile; and the next in line is woken."""
    w = world({"a": ["hello"]}, [limited("a", concurrency=1, max_wait=2.0)])
    running, first = Stepper(w), Stepper(w)
    w.clock.advance(0.5)
    second = Stepper(w)
    w.clock.advance(1.500001)
    with pytest.raises(RateLimitedError):
        first.reply()
    assert second.effect.place.woken
    assert w.status("a")["waiting"] == 1
    running.answer()
    second.reply().answer()
    assert w.left_over() == {}


def test_a_crowd_beyond_the_limit_is_refused_in_time(world):
    """Of ten that come at once to one a second, those whose wait is over are refused, and whoever comes later is served."""
    w = world({"a": ["hello"]}, [limited("a", rpm=60, burst=1, max_wait=2.5)])
    crowd = [Stepper(w) for _ in range(10)]
    refused = answered = 0
    while any(isinstance(stepper.effect, Sleep) for stepper in crowd):
        w.clock.advance(0.25)
        for stepper in crowd:
            if isinstance(stepper.effect, Sleep):
                try:
                    stepper.reply()
                except RateLimitedError:
                    stepper.effect = None
                    refused += 1
            if isinstance(stepper.effect, Call):
                stepper.answer(seconds=0.0)
                answered += 1
    assert (answered, refused) == (3, 7)
    assert w.clock.now() < 1003.0
    w.clock.advance(1.0)
    assert w.ask().text == "hello"


def test_a_wait_that_just_suffices_leaves_no_place_behind(world):
    """Who is admitted in the very instant in which its patience ends stands in the line no longer."""
    w = world(
        {"a": ["from a"], "b": ["from b"]},
        [target("a", limits=RateLimits(rpm=6, burst=1, on_limit="wait", max_wait=3.0)), target("b")],
    )
    w.ask()
    w.clock.advance(7.0)
    assert (w.ask().text, w.clock.sleeps) == ("from a", [3.0])
    assert w.left_over() == {}


def test_a_waiter_gives_up_after_max_wait(world):
    """A place that never becomes free is waited for `max_wait` seconds, then the caller is told."""
    w = world({"a": ["hello"]}, [limited("a", concurrency=1, max_wait=4.0)])
    hanging = Stepper(w)
    outcome = w.ask()
    assert (type(outcome.error), w.clock.sleeps) == (RateLimitedError, [4.0])
    hanging.answer()
    assert w.left_over() == {}


def test_a_place_in_line_at_one_is_given_up_for_another():
    """A waiter in `a`'s line that wakes to find `b` free goes there, and leaves no place behind."""
    w = World("sync", {"a": ["hello"], "b": ["hello"]}, [limited("a", concurrency=1), limited("b", concurrency=1)])
    at_a, at_b, waiting = Stepper(w), Stepper(w), Stepper(w)
    assert (at_a.effect.ticket.target.name, at_b.effect.ticket.target.name) == ("a", "b")
    assert waiting.effect.place.target.name == "a"
    at_b.answer()
    assert waiting.reply().effect.ticket.target.name == "b"
    at_a.answer()
    waiting.answer()
    assert w.left_over() == {}


def test_a_place_in_line_is_left_when_the_deadline_shuts_the_provider_out():
    """Too late for `a`, whose answers take 5 s, the waiter in its line goes to `b` and leaves no place behind."""
    w = World("sync", {"a": ["hello"], "b": ["hello"]}, [limited("a", concurrency=1), limited("b", concurrency=1)])
    for _ in range(20):
        Stepper(w).answer(seconds=5.0)
    at_a, at_b, waiting = Stepper(w), Stepper(w), Stepper(w, deadline=8.0)
    assert waiting.effect.place.target.name == "a"
    w.clock.advance(4.0)
    at_b.answer(seconds=0.1)
    assert waiting.reply().effect.ticket.target.name == "b"
    assert w.status("a")["waiting"] == 0
    at_a.answer()
    waiting.answer()
    assert w.left_over() == {}


# --------------------------------------------------------------------------------------------------------------- lanes
def test_lanes_leave_room_for_the_lanes_before_them(world):
    """Of a burst of ten, replay may use five, batch six, and interactive all."""
    w = world({"a": ["hello"]}, [limited("a", rpm=60, burst=10, on_limit="reject")])
    granted = {}
    for lane in ("replay", "batch", "interactive"):
        granted[lane] = 0
        while w.ask(lane=lane).error is None:
            granted[lane] += 1
    assert granted == {"replay": 5, "batch": 1, "interactive": 4}


def test_max_pending_turns_away_at_once():
    """The third request of a process that may hold two is refused before anything else, and says so in its record."""
    w = World("sync", {"a": ["hello"]}, gate=Gate(2))
    first, _ = Stepper(w), Stepper(w)
    outcome = w.ask()
    assert isinstance(outcome.error, OverloadedError)
    assert "max_pending=2" in str(outcome.error)
    assert (outcome.decision.outcome, w.asked) == ("overloaded", [])
    first.answer()
    assert w.ask().text == "hello"


def test_max_pending_turns_the_batch_lane_away_first():
    """Of ten places replay may fill five and batch six."""
    w = World("sync", {"a": ["hello"]}, gate=Gate(10))
    pending = []
    for lane, most in (("replay", 5), ("batch", 6), ("interactive", 10)):
        while len(pending) < most:
            pending.append(Stepper(w, lane=lane))
        with pytest.raises(OverloadedError):
            Stepper(w, lane=lane)
        assert w.gate.pending == most


def test_the_gate_is_left_however_a_request_ends(world):
    """Answered, failed, refused, interrupted or closed early: the process's place is free again."""
    endless = [Chunk("word")] * 500
    w = world({"a": ["hello", status(400), (Chunk("x"), status(500)), endless]})
    w.ask()
    w.ask()
    w.ask(stream=True)
    w.ask(stream=True, keep=2)
    w.ask(deadline=0)
    assert (len(w.decisions), w.gate.pending) == (5, 0)


# -------------------------------------------------------------------------------------------------------- 429s and limits
def test_a_failed_attempt_does_not_reserve_twice(world):
    """A request that fails at `a` keeps its input there and gives its output back, before `b` is asked."""
    w = world({"a": [status(503)], "b": ["hello"]}, [limited("a", tpm=6000), target("b")])
    w.ask(input_tokens=lambda: 100, max_output=500)
    # 100 of a bucket of 1,000 (ten seconds' worth) stay taken
    assert w.status("a")["limits_free"] == {"tpm": 0.9}


def test_a_mixture_of_limit_and_circuit_is_a_group(world):
    """One over its limit for long, one open: the caller sees both, with the sooner time."""
    w = world({"a": ["hello"], "b": ["hello"]}, [limited("a", rpm=1), target("b")])
    w.ask()
    w.open("b")
    error = w.ask().error
    assert isinstance(error, AllProvidersFailedError)
    assert error.retry_after == 60.0


def test_streams_hold_their_lease_to_the_end():
    """A stream's place is free when the stream is over, not when it has begun."""
    w = World("sync", {"a": [(Chunk("one"), Chunk("two"), STOP)]}, [limited("a", concurrency=1, on_limit="reject")])
    plan = w.plan(stream=True)
    chunks = stream(plan, TimedHands(w))
    assert next(chunks).text == "one"
    assert isinstance(w.ask().error, RateLimitedError)
    assert [chunk.text for chunk in chunks] == ["two", ""]
    assert w.left_over() == {}


def test_a_guess_of_the_answers_length_refuses_nobody_for_ever(world):
    """Before any answer 1024 tokens are assumed; a limit of 500 a minute admits the request all the same, and a longer prompt never."""
    w = world({"a": ["hello"]}, [target("a", limits=RateLimits(tpm=500))])
    assert w.ask(input_tokens=lambda: 100).text == "hello"
    error = w.ask(input_tokens=lambda: 501).error
    assert (type(error), error.is_retryable) == (RateLimitedError, False)
