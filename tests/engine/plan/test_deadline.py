"""One deadline over retries, fallbacks and waits; and callers who are gone leave nothing behind (promises I8 and I9)."""

import pytest

from langchain_resilient.engine.backoff import Retry
from langchain_resilient.engine.classify import ErrorKind
from langchain_resilient.engine.errors import AllProvidersFailedError, AttemptTimeoutError, DeadlineExceededError
from langchain_resilient.engine.events import CircuitChanged
from langchain_resilient.engine.policy import Timeouts
from langchain_resilient.engine.quota import RateLimits
from tests.engine.harness import NEVER, STOP, Chunk, GraphBubbleUp, Step, Stepper, status, target


@pytest.mark.parametrize("deadline", [0.0, -1.0])
def test_a_deadline_that_is_past_is_an_error_at_once(world, deadline):
    """Nobody is asked, and the record says why."""
    w = world({"a": ["hello"], "b": ["hello"]})
    outcome = w.ask(deadline=deadline)
    assert isinstance(outcome.error, DeadlineExceededError)
    assert str(outcome.error) == f"deadline: got {deadline!r}; it is past already, give seconds > 0"
    assert (w.asked, outcome.decision.outcome, w.left_over()) == ([], "deadline", {})


def test_an_attempt_gets_no_more_than_what_is_left(world):
    """The deadline cuts the provider's own limit of 60 s, and the record says which of the two fired."""
    w = world({"a": [NEVER]})
    outcome = w.ask(deadline=5.0)
    assert [(call.limit, call.limited_by) for call in w.calls] == [(5.0, "deadline")]
    assert isinstance(outcome.error, AttemptTimeoutError)
    assert (outcome.error.limit, w.clock.now()) == ("deadline", 1005.0)


def test_a_timeout_that_the_deadline_caused_is_neutral(world):
    """However often callers give too little time, the provider's circuit learns nothing from it."""
    w = world({"a": ["hello", "hello", "hello", NEVER]})
    for _ in range(3):
        w.ask()
    for _ in range(12):
        w.ask(deadline=5.0)
    assert (w.circuit("a"), w.status("a")["failures_in_a_row"], w.told(CircuitChanged)) == ("closed", 0, [])


def test_the_providers_own_limit_does_count(world):
    """The same silence, up to the provider's own limit of 60 s, opens the circuit at the fifth."""
    w = world({"a": ["hello", "hello", "hello", NEVER]})
    for _ in range(3 + 5):
        w.ask()
    assert [(call.limit, call.limited_by) for call in w.calls[-1:]] == [(60.0, "response")]
    assert w.circuit("a") == "open"


def test_timeouts_of_a_provider_that_never_answered_weigh_half(world):
    """A model that nobody has seen answer may only be slow to load: its circuit opens at the tenth timeout, not at the fifth."""
    w = world({"a": [NEVER]})
    for _ in range(9):
        w.ask()
    assert w.circuit("a") == "closed"
    w.ask()
    assert w.circuit("a") == "open"


def test_nothing_starts_after_the_deadline(world):
    """The first provider used up the time, so the second is not asked, and the caller learns of both."""
    w = world({"a": [Step(status(503), 10.0)], "b": ["hello"]}, retry=Retry(max_retries=0))
    outcome = w.ask(deadline=10.0)
    assert w.asked == ["a"]
    assert isinstance(outcome.error, AllProvidersFailedError)
    assert [type(error) for error in outcome.error.exceptions] == [AttemptTimeoutError, DeadlineExceededError]


def known_to_take(w, name, seconds):
    """As if 20 calls there had just taken so long."""
    for _ in range(20):
        w.store._route(w[name]).latency.calls.add(seconds, w.clock.now(), None)


def test_an_attempt_needs_the_providers_p50(world):
    """`b` usually takes 4 s: with 3 s left it is not asked, with 5 s it is."""
    w = world({"a": [Step(status(503), 7.0)], "b": [Step("from b", 4.0)]}, retry=Retry(max_retries=0))
    known_to_take(w, "b", 4.0)
    w.ask(deadline=10.0)
    assert w.asked == ["a"]
    assert w.ask(deadline=12.0).text == "from b"


def test_a_p50_that_nobody_renews_is_forgotten(world):
    """A provider that was too slow for every deadline is asked again once its samples are a minute old: it may have recovered."""
    w = world({"a": [Step("from a", 0.2)]})
    known_to_take(w, "a", 4.0)
    assert type(w.ask(deadline=1.0).error) is DeadlineExceededError
    w.clock.advance(71.0)
    assert w.ask(deadline=1.0).text == "from a"


def test_a_further_attempt_at_an_unknown_provider_needs_a_second(world):
    """Without samples a fallback starts only if 1 s is left; a first attempt starts with whatever there is."""
    w = world({"a": [Step(status(503), 9.5)], "b": ["from b"]}, retry=Retry(max_retries=0))
    w.ask(deadline=10.0)
    assert w.asked == ["a"]
    assert w.ask(deadline=10.6).text == "from b"
    fresh = world({"a": ["hello"]})
    assert fresh.ask(deadline=0.2).text == "hello"


def test_a_wait_longer_than_what_is_left_is_not_begun(world):
    """A Retry-After of 20 s with 15 s left is told, not slept."""
    error = status(429, retry_after=20)
    w = world({"a": [error, "hello"]})
    assert (w.ask(deadline=15.0).error, w.clock.sleeps) == (error, [])


def test_a_retry_that_would_come_too_late_is_left_for_the_next_provider(world):
    """With 1.1 s left, a backoff of 0.25 s leaves less than the second that an attempt needs: `b` is asked at once."""
    w = world({"a": [Step(status(500), 0.9)], "b": ["from b"]})
    assert (w.ask(deadline=2.0).text, w.asked, w.clock.sleeps) == ("from b", ["a", "b"], [])


def test_a_block_longer_than_what_is_left_is_not_waited_for(world):
    """The provider is blocked for 8 s; a request with 5 s is refused at once, one with 9 s waits, with jitter."""
    w = world({"a": [status(429, retry_after=8), "hello"]}, retry=Retry(max_retries=0))
    w.ask()
    assert w.ask(deadline=5.0).error.retry_after == 8.0
    assert w.clock.sleeps == []
    assert w.ask(deadline=9.0).text == "hello"
    assert w.clock.sleeps == [8.4]  # 8 + 0.5 · 0.8: everybody waits for the same moment


def test_a_line_is_left_in_time(world):
    """The next place is 6 s away; a request with 4 s is refused at once instead of being kept waiting for nothing."""
    w = world({"a": ["hello"]}, [target("a", limits=RateLimits(rpm=10, burst=1))])
    w.ask()
    outcome = w.ask(deadline=4.0)
    assert (outcome.error.retry_after, w.clock.sleeps, w.left_over()) == (6.0, [], {})
    assert w.ask(deadline=7.5).text == "hello"


def test_the_policys_total_is_the_default_deadline(world):
    """Where the request says nothing, `Timeouts.total` bounds it."""
    w = world({"a": [NEVER]}, [target("a", timeouts=Timeouts(response=500.0))], total=30.0)
    w.ask()
    assert [(call.limit, call.limited_by) for call in w.calls] == [(30.0, "deadline")]


def test_a_stream_that_delivers_is_not_cut_by_the_deadline(world):
    """The deadline bounds starting and waiting, not a text that is under way."""
    chunks = (Chunk("one"), Chunk("two", after=8.0), Chunk("three", after=8.0), STOP)
    w = world({"a": [chunks]})
    assert w.ask(stream=True, deadline=10.0).text == "onetwothree"


# -------------------------------------------------------------------------------------------------------- the caller is gone
STORIES = {
    "plain": ({"a": ["hello"]}, {}),
    "retry": ({"a": [status(500), "hello"]}, {}),
    "fallback": ({"a": [status(503)], "b": ["hello"]}, {}),
    "race": ({"a": [Step("slow", 3.0)], "b": [Step("hello", 1.0)]}, {}),
    "lost race": ({"a": [Step("hello", 1.0)], "b": [Step("slow", 3.0)]}, {}),
    "stream": ({"a": [(Chunk("one"), Chunk("two"), STOP)]}, {"stream": True}),
    "streams' race": ({"a": [Step("slow", 3.0)], "b": [Step("hello", 1.0)]}, {"stream": True}),
    "truncated": ({"a": [(STOP._replace(finish=None),), "x"], "b": ["hello"]}, {"stream": True}),
    "broken": ({"a": [(Chunk("one"), status(500))]}, {"stream": True}),
    "block": ({"a": [status(429, retry_after=4), "hello"]}, {}),
    "line": ({"a": ["hello"]}, {"full": True}),
}


def a_world(world, story):
    """The world of a story, with leases everywhere; the race's first provider is about to be probed."""
    scripts, fields = STORIES[story]
    fields = dict(fields)
    limits = RateLimits(rpm=10, burst=1, concurrency=5) if fields.pop("full", False) else RateLimits(concurrency=5)
    w = world(scripts, [target(name, limits=limits, sends_finish_reason=True) for name in scripts])
    if "race" in story:
        w.open("a", seconds=61.0)
    if story == "line":
        w.ask()
    w.seen.clear()
    return w, fields


@pytest.mark.parametrize("error", [KeyboardInterrupt(), GraphBubbleUp()], ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("story", STORIES)
def test_an_interruption_at_any_effect_leaves_nothing_behind(world, story, error):
    """Whichever effect it meets, no lease, permit, place in line or in the gate is kept, and it passes as it is."""
    whole, fields = a_world(world, story)
    whole.ask(**fields)
    effects = len(whole.seen)
    whole.land()
    assert whole.left_over() == {}
    for index in range(effects):
        w, fields = a_world(world, story)
        w.interrupt = (index, error)
        outcome = w.ask(**fields)
        w.interrupt = None
        w.land()
        assert (outcome.error, w.left_over()) == (error, {}), w.seen
        assert w.upstream.all_closed(), w.seen


def test_cancellation_is_neutral(world):
    """Ten callers who go away while the provider works neither open its circuit nor count as answers."""
    w = world({"a": ["hello"]})
    for _ in range(10):
        w.seen.clear()
        w.interrupt = (1, KeyboardInterrupt())
        outcome = w.ask()
        assert w.seen[:2] == ["admit", "Call"]
        assert outcome.decision.outcome == "cancelled"
    told = w.status("a")
    assert (told["circuit"], told["failures_in_a_row"], told["p50"]) == ("closed", 0, None)


def test_a_cancelled_probe_does_not_wedge_the_circuit(world):
    """Its permit is given back, it is no success, and the next request probes."""
    w = world({"a": ["hello"]})
    w.open("a", seconds=61.0)
    w.seen.clear()
    w.interrupt = (3, KeyboardInterrupt())
    w.ask()
    assert w.seen[:4] == ["admit", "look", "admit", "Call"]
    w.interrupt = None
    assert w.store._route(w["a"]).circuit.successes == 0
    assert w.circuit("a") == "half_open"
    assert w.ask().text == "hello"
    assert w.store._route(w["a"]).circuit.successes == 1


def test_an_interrupt_of_the_graph_passes_unharmed(world):
    """GraphBubbleUp raised inside a provider is no failure: it is not retried, not counted, and arrives as it is."""
    error = GraphBubbleUp()
    w = world({"a": [error], "b": ["hello"]})
    outcome = w.ask()
    assert (outcome.error, w.asked, w.left_over()) == (error, ["a"], {})
    assert (w.status("a")["failures_in_a_row"], outcome.decision.outcome) == (0, "cancelled")
    assert not hasattr(error, "__notes__")


def test_a_detached_probe_that_ends_in_an_interrupt_leaves_nothing_behind(world):
    """Nobody waits for it, so the interrupt goes nowhere; its permit and lease are given back, neutrally."""
    targets = [target("a", limits=RateLimits(concurrency=5)), target("b")]
    w = world({"a": [Step(GraphBubbleUp(), 3.0)], "b": [Step("hello", 1.0)]}, targets)
    w.open("a", seconds=61.0)
    assert w.ask().text == "hello"
    w.land()
    assert (w.circuit("a"), w.left_over()) == ("half_open", {})


def test_a_plan_that_is_dropped_gives_its_gate_back(world):
    """A generator that is thrown away unfinished frees its place in the process; its leases lapse by themselves."""
    w = world({"a": ["hello"]}, [target("a", limits=RateLimits(concurrency=1))])
    stepper = Stepper(w)
    assert w.gate.pending == 1
    stepper.plan.close()
    assert w.gate.pending == 0
    assert w.status("a")["running"] == 1
    w.clock.advance(30.0)
    assert w.status("a")["running"] == 0
    assert w.ask().text == "hello"


def test_an_errors_kind_cancelled_by_the_users_classifier_is_the_callers(world):
    """What a user's classifier calls cancelled is raised as it is and counts for nothing."""
    error = status(503)
    w = world({"a": [error], "b": ["hello"]}, classifier=lambda _: ErrorKind.CANCELLED)
    assert (w.ask().error, w.asked, w.status("a")["failures_in_a_row"]) == (error, ["a"], 0)
