"""Circuits in the story of a request: failing fast, probes that cost their user nothing, late reports, overrides, slow and silent ones."""

from dataclasses import replace

import pytest

from langchain_resilient.engine.backoff import Retry
from langchain_resilient.engine.circuit import Circuit
from langchain_resilient.engine.effects import Call, Race, Ticket
from langchain_resilient.engine.errors import AllProvidersFailedError, CircuitOpenError
from langchain_resilient.engine.events import CircuitChanged
from langchain_resilient.engine.quota import RateLimits
from tests.engine.harness import (
    STOP,
    Chunk,
    Step,
    Stepper,
    World,
    admitted,
    ask_for,
    queued,
    refused,
    settle,
    status,
    target,
)

ONCE = Retry(max_retries=0)
REOPENED = 61.0
"""Seconds after which an open circuit (60 s, no jitter here) lets a probe through."""


# ------------------------------------------------------------------------------------------------------------- opening
def test_five_failures_open_it_and_the_sixth_fails_fast(world):
    """The only provider's circuit is open: nobody is asked, nothing is waited for, and the last failure is the cause."""
    last = status(503)
    w = world({"a": [status(503), status(503), status(503), status(503), last]}, retry=ONCE)
    for _ in range(5):
        w.ask()
    w.clock.advance(20.0)
    outcome = w.ask()
    assert isinstance(outcome.error, CircuitOpenError)
    assert (outcome.error.retry_after, outcome.error.provider, outcome.error.__cause__) == (40.0, "a", last)
    assert (len(w.asked), w.clock.sleeps, outcome.decision.outcome) == (5, [], "refused")
    assert w.told(CircuitChanged) == [CircuitChanged("a", "closed", "open", "overloaded")]


def test_half_of_the_calls_failing_opens_it(world):
    """Every other call fails, never two in a row: after ten calls the circuit is open."""
    w = world({"a": ["hello", status(503)] * 5}, retry=ONCE)
    for _ in range(9):
        w.ask()
    assert w.circuit("a") == "closed"
    w.ask()
    assert w.circuit("a") == "open"


def test_an_open_one_is_passed_over(world):
    """With `a` open the request goes straight to `b`, and the record tells that this is a fallback."""
    w = world({"a": ["from a"], "b": ["from b"]})
    w.open("a")
    outcome = w.ask()
    assert (outcome.text, w.asked) == ("from b", ["b"])
    assert (outcome.decision.fallback, outcome.decision.first_choice) == (True, "a")


def test_it_is_asked_again_without_anybody_filtering_it_out(world):
    """An hour later the provider is a candidate again and recovers, however healthy the other one is."""
    w = world({"a": ["from a"], "b": ["from b"]})
    w.open("a", seconds=3600.0)
    for _ in range(3):
        w.ask()
        w.land()
        w.clock.advance(5.0)
    assert w.circuit("a") == "closed"
    assert w.ask().text == "from a"


# -------------------------------------------------------------------------------------------------------------- probes
@pytest.mark.memory
def test_a_probe_never_costs_its_user(world):
    """A slow probe is raced: the user gets `b`'s answer after 1 s, and the probe runs on and closes the circuit by itself."""
    w = world({"a": [Step("from a", 20.0)], "b": [Step("from b", 1.0)]})
    w.open("a", seconds=REOPENED)
    for number in range(1, 4):
        began = w.clock.now()
        outcome = w.ask()
        assert (outcome.text, w.clock.now() - began) == ("from b", 1.0)
        assert w.circuit("a") == "half_open"
        w.land()
        assert w.asked == ["b", "a"] * number
    assert w.circuit("a") == "closed"
    assert w.told(CircuitChanged) == [
        CircuitChanged("a", "open", "half_open", "probe"),
        CircuitChanged("a", "half_open", "closed", "ok"),
    ]
    assert (w.abandoned, w.left_over()) == ([], {})


def test_a_probe_that_is_first_wins(world):
    """The recovered provider answers first: the user gets its answer, and the companion is cancelled, neutrally."""
    targets = [target("a"), target("b", limits=RateLimits(concurrency=1))]
    w = world({"a": [Step("from a", 1.0)], "b": [Step("from b", 2.0)]}, targets)
    w.open("a", seconds=REOPENED)
    outcome = w.ask()
    assert (outcome.text, w.abandoned) == ("from a", ["b"])
    assert (w.status("b")["p50"], w.status("b")["running"], w.left_over()) == (None, 0, {})
    assert [(item.provider, item.kind, item.probe) for item in outcome.decision.attempts] == [
        ("a", "ok", True),
        ("b", "cancelled", False),
    ]
    assert not outcome.decision.fallback


def test_a_probe_that_fails_first_costs_nothing(world):
    """The probe's failure opens the circuit again; the companion's answer is the user's."""
    w = world({"a": [Step(status(503), 0.5)], "b": [Step("from b", 1.0)]})
    w.open("a", seconds=REOPENED)
    outcome = w.ask()
    assert (outcome.text, w.asked, w.circuit("a")) == ("from b", ["a", "b"], "open")
    assert [(item.provider, item.kind) for item in outcome.decision.attempts] == [("a", "overloaded"), ("b", "ok")]


def test_a_probe_that_hangs_does_not_hold_up_its_user_when_the_other_fails(world):
    """`b` beside it fails after 1 s, and `c` takes that place at once; the probe runs on to its own outcome."""
    w = world({"a": [Step(status(503), 20.0)], "b": [Step(status(429), 1.0)], "c": [Step("from c", 2.0)]})
    w.open("a", seconds=REOPENED)
    began = w.clock.now()
    outcome = w.ask()
    assert (outcome.text, w.clock.now() - began) == ("from c", 3.0)
    assert [(item.provider, item.kind) for item in outcome.decision.attempts] == [("b", "rate_limited"), ("c", "ok")]
    assert w.circuit("a") == "half_open"
    w.land()
    assert (w.circuit("a"), w.left_over()) == ("open", {})


def test_a_probe_is_waited_for_where_nobody_else_is_left(world):
    """`b` beside it fails, and there is no `c`: the probe's answer is the user's."""
    w = world({"a": [Step("from a", 5.0)], "b": [Step(status(429), 1.0)]})
    w.open("a", seconds=REOPENED)
    began = w.clock.now()
    outcome = w.ask()
    assert (outcome.text, w.clock.now() - began, w.left_over()) == ("from a", 5.0, {})


def test_a_callers_own_mistake_ends_a_race(world):
    """`b` beside the probe says that the request is wrong: the caller is told at once, and nobody else is asked."""
    w = world({"a": [Step(status(503), 20.0)], "b": [Step(status(400), 1.0)], "c": ["from c"]})
    w.open("a", seconds=REOPENED)
    began = w.clock.now()
    outcome = w.ask()
    assert (outcome.error.status_code, w.clock.now() - began) == (400, 1.0)
    w.land()
    assert (w.asked, w.left_over()) == (["b", "a"], {})


def test_a_losing_probe_that_fails_opens_the_circuit_again(world):
    """It runs on to its own outcome, good or bad."""
    w = world({"a": [Step(status(503), 9.0)], "b": [Step("from b", 1.0)]})
    w.open("a", seconds=REOPENED)
    assert w.ask().text == "from b"
    w.land()
    assert w.circuit("a") == "open"
    assert w.told(CircuitChanged)[-1] == CircuitChanged("a", "half_open", "open", "overloaded")


def test_a_probe_and_a_companion_that_both_fail(world):
    """The story goes on as after any failure, with both in the record."""
    w = world({"a": [Step(status(503), 0.5)], "b": [Step(status(401), 1.0)], "c": ["from c"]})
    w.open("a", seconds=REOPENED)
    outcome = w.ask()
    assert (outcome.text, [item.provider for item in outcome.decision.attempts]) == ("from c", ["a", "b", "c"])


@pytest.mark.memory
def test_a_race_counts_as_two_attempts(world):
    """With one of seven attempts left a probe is made without a companion, although one could be had."""
    last = Step(status(500), REOPENED)
    w = world(
        {"a": [status(500), status(500), status(500), last], "b": [status(500)], "c": [status(500)], "d": ["from d"]}
    )
    w.open("c")
    w.store._account(w["d"]).block(1_060_000_000, "blocked")
    w.ask()
    assert ("".join(w.asked), "Race" in w.seen) == ("aabbaac", False)


def test_a_race_costs_no_budget(world):
    """The companion is no extra call that the budget has to pay."""
    w = world({"a": [Step("from a", 2.0)], "b": [Step("from b", 1.0)]})
    w.open("a", seconds=REOPENED)
    w.store._route(w["b"]).budget = 50.0
    assert w.ask().text == "from b"


def test_raced_probes_are_spaced(world):
    """In the 5 s after a raced probe everybody is served by `b` alone."""
    w = world({"a": [Step("from a", 3.0)], "b": ["from b"]})
    w.open("a", seconds=REOPENED)
    w.ask()
    assert w.seen.count("Race") == 1
    w.clock.advance(4.9)
    w.ask()
    assert w.seen.count("Race") == 1
    w.clock.advance(0.1)
    w.land()
    w.ask()
    assert w.seen.count("Race") == 2


def test_without_a_companion_the_probe_is_the_users_call(world):
    """The other candidate is blocked, so the probe runs inline."""
    w = world({"a": ["from a"], "b": [status(429, retry_after=100)]}, retry=ONCE)
    w.open("a")
    w.ask()
    w.clock.advance(REOPENED)
    assert w.ask().text == "from a"
    assert "Race" not in w.seen


def test_with_one_candidate_a_probe_is_inline(world):
    """The user's own calls are the probes; three close the circuit, and they need not be spaced."""
    w = world({"a": ["hello"]})
    w.open("a", seconds=REOPENED)
    assert [w.ask().text for _ in range(3)] == ["hello"] * 3
    assert (w.circuit("a"), "Race" in w.seen) == ("closed", False)


@pytest.mark.parametrize("how", ["the provider's setting", "the policy's"])
def test_inline_probes_by_choice(world, how):
    """With `probe="inline"`, or where nothing may be raced, the user's call goes to the provider on trial alone."""
    setting = Circuit(probe="inline" if how == "the provider's setting" else "raced")
    targets = [target("a", circuit=setting), target("b")]
    w = world({"a": [Step("from a", 3.0)], "b": ["from b"]}, targets, races=how != "the policy's")
    w.open("a", seconds=REOPENED)
    assert (w.ask().text, "Race" in w.seen) == ("from a", False)


def test_when_all_are_open_the_soonest_is_probed(world):
    """Every candidate is open: the one that opens soonest takes leased probes, and three answers close its circuit."""
    w = world({"a": ["from a"], "b": ["from b"]})
    w.open("b", seconds=10.0)
    w.open("a")
    assert [w.ask().text for _ in range(3)] == ["from b"] * 3
    assert (w.asked, w.circuit("b")) == (["b", "b", "b"], "closed")


def test_when_all_are_open_each_is_looked_at_once_in_5_s(world):
    """An early probe that fails leaves the next request another provider's; then all fail fast until 5 s have passed."""
    w = world({"a": [status(503)], "b": [status(503)]}, retry=Retry(max_retries=0))
    w.open("b", seconds=10.0)
    w.open("a")
    for _ in range(2):
        w.ask()
    assert w.asked == ["b", "a"]
    error = w.ask().error
    assert isinstance(error, AllProvidersFailedError)
    assert [type(item) for item in error.exceptions] == [CircuitOpenError, CircuitOpenError]
    assert w.asked == ["b", "a"]
    w.clock.advance(5.0)
    for _ in range(3):
        w.ask()
    assert sorted(w.asked) == ["a", "a", "b", "b"]


def test_the_only_candidate_is_not_probed_early(world):
    """With nobody else the open time is kept: the caller is told when it ends."""
    w = world({"a": ["hello"]})
    w.open("a", seconds=10.0)
    assert w.ask().error.retry_after == 50.0
    assert w.asked == []


def test_a_429_in_a_probe_is_no_recovery(world):
    """It moves nothing: the circuit stays half-open with the permit given back."""
    w = world({"a": [status(429, retry_after=1)]}, retry=ONCE)
    w.open("a", seconds=REOPENED)
    w.ask()
    assert (w.circuit("a"), w.store._route(w["a"]).circuit.successes, w.left_over()) == ("half_open", 0, {})


# ------------------------------------------------------------------------------------------------------- late reports
def late(world_, outcome):
    """A call that began while the circuit was closed ends, well or badly, after it opened and half-opened."""
    w = World("sync", {"a": ["hello"]}, retry=ONCE)
    old = Stepper(w)
    w.open("a", seconds=REOPENED)
    probe = Stepper(w)
    assert isinstance(probe.effect, Call)
    before = w.store._route(w["a"]).circuit
    if outcome == "success":
        old.answer()
    else:
        with pytest.raises(Exception, match="503"):
            old.fail(status(503))
    return before, w.store._route(w["a"]).circuit, w


@pytest.mark.parametrize("outcome", ["success", "failure"])
def test_a_late_report_changes_no_circuit(outcome):
    """The report of another generation neither closes nor opens anything; as a latency sample it counts."""
    before, after, w = late(World, outcome)
    assert after == before
    assert (w.status("a")["p50"] is not None) is (outcome == "success")


# ----------------------------------------------------------------------------------------------------------- overrides
def test_forced_open(world):
    """Nobody asks it until the override is taken back; then all is as before."""
    w = world({"a": ["hello"]})
    w.store.override(w["a"], "forced_open")
    error = w.ask().error
    assert isinstance(error, CircuitOpenError)
    assert (error.retry_after, w.asked) == (None, [])
    w.store.override(w["a"], None)
    assert w.ask().text == "hello"


def test_forced_open_is_passed_over(world):
    """The others answer meanwhile, and it is not raced back in."""
    w = world({"a": ["from a"], "b": ["from b"]})
    w.store.override(w["a"], "forced_open")
    assert [w.ask().text for _ in range(3)] == ["from b"] * 3
    assert w.asked == ["b"] * 3


def test_disabled(world):
    """However often it fails, its circuit neither opens nor counts, and an open one lets everybody through."""
    w = world({"a": [status(503)]}, retry=ONCE)
    w.open("a")
    w.store.override(w["a"], "disabled")
    for _ in range(12):
        w.ask()
    assert (len(w.asked), w.circuit("a")) == (12, "open")
    w.store.override(w["a"], None)
    assert isinstance(w.ask().error, CircuitOpenError)


def test_metrics_only(world):
    """The circuit opens for all to see, and refuses nobody."""
    w = world({"a": [status(503)]}, retry=ONCE)
    w.store.override(w["a"], "metrics_only")
    for _ in range(8):
        w.ask()
    assert (len(w.asked), w.circuit("a")) == (8, "open")
    assert w.told(CircuitChanged) == [CircuitChanged("a", "closed", "open", "overloaded")]


# ---------------------------------------------------------------------------------------------------- slow and silent ones
def a_slow_one(world, seconds):
    """A world whose preferred provider took 2.5 s twenty times, against a `max_latency` of 2 s, and takes `seconds` from now on."""
    script = [Step("from a", 2.5)] * 20 + [Step("from a", seconds)]
    w = world({"a": script, "b": [Step("from b", 1.0)]}, [target("a", max_latency=2.0), target("b")])
    for _ in range(20):
        w.ask()
    assert w.asked == ["a"] * 20
    assert w.status("a")["slow"]
    return w


def test_a_slow_provider_ranks_last_and_is_explored_once_in_thirty_seconds(world):
    """The first request looks at it, raced, and costs its user nothing; the next ones leave it alone for 30 s."""
    w = a_slow_one(world, 3.0)
    assert (w.ask().text, w.seen.count("Race")) == ("from b", 1)
    w.land()
    for _ in range(3):
        assert w.ask().text == "from b"
    assert w.asked[20:] == ["b", "a", "b", "b", "b"]
    w.clock.advance(30.0)
    w.ask()
    assert w.seen.count("Race") == 2


def test_a_slow_provider_comes_back(world):
    """Three quick answers to the requests that explore it, and it is the first choice again."""
    w = a_slow_one(world, 0.5)
    for _ in range(3):
        assert w.ask().text == "from a"
        w.clock.advance(30.0)
    assert not w.status("a")["slow"]
    races = w.seen.count("Race")
    assert (w.ask().text, races, w.seen.count("Race")) == ("from a", 3, 3)


def test_a_slow_provider_is_still_asked_when_nobody_else_is_left(world):
    """`max_latency` ranks, it refuses nobody."""
    w = a_slow_one(world, 3.0)
    w.open("b")
    assert w.ask().text == "from a"


def test_a_silent_provider_ranks_last_until_it_answers():
    """Three calls silent for half their limit (30 s) make it hot: others are asked, until one of them answers."""
    w = World("sync", {"a": ["from a"], "b": ["from b"]})
    silent = [Stepper(w) for _ in range(3)]
    w.clock.advance(30.0)
    assert (w.status("a")["hot"], w.ask().text) == (False, "from a")
    w.clock.advance(0.1)
    assert w.status("a")["hot"] is False  # an answer came after the oldest of them began
    for stepper in silent:
        stepper.answer()
    w.clock.advance(0.1)
    silent = [Stepper(w) for _ in range(3)]
    w.clock.advance(30.1)
    assert (w.status("a")["hot"], w.ask().text) == (True, "from b")
    silent[0].answer()
    assert (w.status("a")["hot"], w.ask().text) == (False, "from a")


def test_who_else_is_hot_is_no_matter_for_the_only_one():
    """Hot ranks last and refuses nobody."""
    w = World("sync", {"a": ["from a"]})
    silent = [Stepper(w) for _ in range(3)]
    w.clock.advance(31.0)
    assert w.status("a")["hot"] is True and len(silent) == 3
    assert w.ask().text == "from a"


def test_a_race_by_hand():
    """The effect names both calls, the probe first, each under its own limit."""
    w = World("sync", {"a": ["from a"], "b": ["from b"]})
    w.open("a", seconds=REOPENED)
    race = Stepper(w, max_output=2000).effect
    assert isinstance(race, Race)
    assert [(call.ticket.target.name, call.limit, call.ticket.probe, call.ticket.raced) for call in race.calls] == [
        ("a", 160.0, True, True),
        ("b", 160.0, False, False),
    ]


# ------------------------------------------------------------------------------------------------ streams that broke midway
def test_a_losing_probe_of_a_circuit_that_interruptions_opened_is_heard_to_its_end(world):
    """A first token proves nothing there: the probe that lost its race is read on, unheard, and its end decides."""
    broken = (Chunk("x"), status(500))
    whole = Step((Chunk("x"), Chunk("y"), STOP), 3.0)
    w = world({"a": [*[broken] * 5, whole, whole, whole, "x"], "b": [Step((Chunk("from b"), STOP), 1.0)]})
    w.store.override(w["b"], "forced_open")
    w.policy = replace(w.policy, on_interruption="raise", retry=Retry(max_retries=0))
    for _ in range(5):
        w.ask(stream=True)
    w.store.override(w["b"], None)
    w.clock.advance(REOPENED)
    for _ in range(3):
        assert w.ask(stream=True).text == "from b"
        w.land()
    assert (w.circuit("a"), w.left_over()) == ("closed", {})
    assert w.upstream.all_closed()


def test_a_losing_probe_that_breaks_midway_opens_the_circuit_again(world):
    """What its caller never saw still says that streams break there."""
    broken = Step((Chunk("x"), status(500)), 3.0)
    w = world({"a": [broken], "b": [Step((Chunk("from b"), STOP), 1.0)]}, retry=Retry(max_retries=0))
    w.policy = replace(w.policy, on_interruption="raise")
    w.store.override(w["b"], "forced_open")
    for _ in range(5):
        w.ask(stream=True)
    w.store.override(w["b"], None)
    w.clock.advance(REOPENED)
    assert w.ask(stream=True).text == "from b"
    w.land()
    assert (w.circuit("a"), w.left_over()) == ("open", {})


# ------------------------------------------------------------------------------------------------------- opened by slowness
SLOW = Circuit(slow_first_token=1.0, minimum_calls=2)


def test_a_circuit_that_slowness_opened_is_asked_last_rather_than_not_at_all(world):
    """Its answers are late, but answers: with nobody else left it is asked, and neither closes nor opens anew by that."""
    targets = [target("a", circuit=SLOW), target("b")]
    w = world({"a": [Step("slow a", 2.0)], "b": ["from b", "from b", status(404)]}, targets)
    w.store.override(w["b"], "forced_open")
    for _ in range(2):
        w.ask()
    w.store.override(w["b"], None)
    assert (w.circuit("a"), w.ask().text, w.ask().text) == ("open", "from b", "from b")
    generation = w.status("a")["generation"]
    assert w.ask().text == "slow a"
    assert (w.circuit("a"), w.status("a")["generation"], w.left_over()) == ("open", generation, {})


def test_a_slow_provider_alone_goes_on_answering(world):
    """Failing fast would help nobody."""
    w = world({"a": [Step("slow a", 2.0)]}, [target("a", circuit=SLOW)])
    assert [w.ask().text for _ in range(6)] == ["slow a"] * 6
    assert w.circuit("a") == "open"


def test_limits_hold_for_a_slow_last_resort(world):
    """It is admitted like any request: what its limits refuse stays refused."""
    limited = target("a", circuit=SLOW, limits=RateLimits(rpm=60, burst=2, on_limit="reject"))
    w = world({"a": [Step("slow a", 2.0)]}, [limited])
    for _ in range(2):
        w.ask()
    for _ in range(2):
        settle(w.store, admitted(w.store, limited))
    # The circuit's refusal is the one that is told: it came before the limit's, which only the last resort asks for.
    assert refused(w.store, limited) == [("circuit_open", 60.0)]


def test_a_slow_last_resort_has_a_line():
    """Whoever stands in it is not overtaken by a newcomer."""
    limits = RateLimits(rpm=60, burst=1, on_limit="wait", max_wait=30.0)
    slow = Circuit(slow_first_token=1.0, minimum_calls=1)
    w = World("sync", {"a": ["x"]}, [target("a", limits=limits, circuit=slow)])
    ticket = admitted(w.store, w["a"])
    queued(w.store, w["a"], attempt=77)
    settle(w.store, ticket, seconds=5.0)
    assert w.circuit("a") == "open"
    w.clock.advance(1.0)
    assert not isinstance(w.store.admit(ask_for(w["a"], patience=60.0)), Ticket)
