"""A second provider beside a late one: when, at whom, who wins, and what the loser leaves behind (DESIGN §5)."""

import pytest

from langchain_resilient.engine.backoff import Retry
from langchain_resilient.engine.circuit import Circuit
from langchain_resilient.engine.classify import ErrorKind
from langchain_resilient.engine.effects import Look
from langchain_resilient.engine.events import AdmissionRefused, Attempted, CircuitChanged, Hedged
from langchain_resilient.engine.hedge import Hedge
from langchain_resilient.engine.quota import RateLimits
from tests.engine.harness import NEVER, STOP, Chunk, Step, admitted, settle, status, target

ALWAYS = Hedge(max_fraction=1.0)
USUAL = 20
"""Answers after which it is known what late is."""


def says(text, seconds=1.0):
    """A stream that begins after so many seconds."""
    return Step((Chunk(text), STOP), seconds)


def hedging(world, scripts, targets=None, **settings):
    """A world whose first provider has answered 20 times within a second, so that more than that is late."""
    first, *others = scripts
    scripts = {first: [*[says("usual")] * USUAL, *scripts[first]], **{name: scripts[name] for name in others}}
    w = world(scripts, targets, **{"hedge": ALWAYS, **settings})
    for _ in range(USUAL):
        w.ask(stream=True)
    w.events.clear()
    w.upstream.asked.clear()
    w.upstream.scripts[first] = w.upstream.scripts[first][USUAL:]
    return w


def test_whoever_begins_first_is_told(world):
    """A second after the usual, the second provider is asked beside; it begins sooner, and the late one is cancelled, neutral."""
    w = hedging(world, {"a": [says("late", 9.0)], "b": [says("from b", 2.0)]})
    began = w.clock.now()
    outcome = w.ask(stream=True)
    assert outcome.text == "from b"
    assert w.clock.now() - began == pytest.approx(3.0, rel=0.02)
    assert (w.abandoned, w.left_over()) == (["a"], {})
    assert (outcome.decision.provider, outcome.decision.hedged, outcome.decision.fallback) == ("b", True, True)
    assert sorted((attempt.provider, attempt.kind) for attempt in outcome.decision.attempts) == [
        ("a", "cancelled"),
        ("b", "ok"),
    ]
    assert w.told(Hedged) == [Hedged("b", "a", won=True)]
    assert [(event.provider, event.kind) for event in w.told(Attempted)] == [("a", "cancelled"), ("b", "ok")]
    assert (w.status("a")["circuit"], w.status("a")["failures_in_a_row"]) == ("closed", 0)


def test_a_late_one_that_still_begins_first(world):
    """Its stream is told, and the second request is cancelled."""
    w = hedging(world, {"a": [says("late", 2.0)], "b": [says("from b", 5.0)]})
    outcome = w.ask(stream=True)
    assert (outcome.text, w.abandoned) == ("late", ["b"])
    assert w.told(Hedged) == [Hedged("b", "a", won=False)]
    assert (outcome.decision.fallback, outcome.decision.hedged) == (False, True)
    assert w.left_over() == {}


def test_one_in_time_is_asked_alone(world):
    """Within the usual time nobody else is asked."""
    w = hedging(world, {"a": [says("in time", 0.9)], "b": [says("from b")]})
    outcome = w.ask(stream=True)
    assert (outcome.text, w.asked, outcome.decision.hedged) == ("in time", ["a"], False)


def test_nobody_knows_yet_what_late_is(world):
    """Under 20 answers no hedge is sent."""
    w = world({"a": [says("late", 9.0)], "b": [says("from b")]}, hedge=ALWAYS)
    assert (w.ask(stream=True).text, w.asked) == ("late", ["a"])


def test_whole_answers_are_hedged_on_their_first_token(world):
    """An unstreamed answer is streamed inside, and late when its first content is."""
    w = hedging(world, {"a": [says("late", 9.0)], "b": [says("from b", 1.0)]})
    outcome = w.ask(stream=True, whole=True)
    assert (outcome.text, outcome.decision.hedged, w.left_over()) == ("from b", True, {})


def test_only_a_share_of_the_requests(world):
    """With 5 %, twenty requests earn one; a late request beyond that waits for its own provider."""
    w = hedging(world, {"a": [says("late", 1.5)], "b": [says("from b", 0.1)]}, hedge=Hedge())
    for _ in range(40):
        w.ask(stream=True)
    assert len(w.told(Hedged)) == 3


def test_a_hedge_within_its_share_costs_nothing_else(world):
    """A fallback without traffic of its own earns no budget: paid for from that, hedging would end after fifty for good."""
    w = hedging(world, {"a": [says("late", 2.0)], "b": [says("from b", 0.1)]})
    for _ in range(100):
        assert w.ask(stream=True).decision.hedged
        w.store._routes["a"].lateness._outruns = 0
    assert w.status("b")["retry_budget"] == 100.0


def test_a_hedge_beyond_its_share_is_paid_for_by_the_one_it_goes_to(world):
    """From its retry budget: with that used up none is sent."""
    w = hedging(world, {"a": [says("late", 2.0)], "b": [says("from b", 0.1)]}, hedge=Hedge(max_fraction=0.0001))
    crowded(w)
    assert w.ask(stream=True).decision.hedged
    assert w.status("b")["retry_budget"] == pytest.approx(99.1)
    w.store._routes["b"].budget = 50.0
    assert w.ask(stream=True).text == "late"


@pytest.mark.parametrize("trouble", ["failed", "open", "half-open", "blocked", "slow", "silent", "full"])
def test_nobody_in_trouble_is_asked_besides(world, trouble):
    """A provider that failed last, is open, half-open, throttled, slow, silent or full gets no extra call."""
    limits = RateLimits(rpm=1, burst=1) if trouble == "full" else RateLimits()
    targets = [target("a"), target("b", limits=limits, max_latency=1.0, circuit=Circuit(recovery_timeout=10.0))]
    w = hedging(world, {"a": [says("late", 2.0)], "b": [says("from b", 0.1)]}, targets)
    b = w["b"]
    if trouble in {"open", "half-open"}:
        w.open("b", seconds=11.0 if trouble == "half-open" else 0.0)
    elif trouble == "failed":
        settle(w.store, admitted(w.store, b), ErrorKind.SERVER_ERROR)
    elif trouble == "blocked":
        settle(w.store, admitted(w.store, b), ErrorKind.RATE_LIMITED, retry_after=30.0)
    elif trouble == "slow":
        for _ in range(60):
            ticket = admitted(w.store, b, stream=True)
            w.store.opened(ticket, 5.0)
            settle(w.store, ticket)
    elif trouble == "silent":
        for _ in range(4):
            admitted(w.store, b, stream=True)
        w.clock.advance(8.0)
    else:
        admitted(w.store, b)
    outcome = w.ask(stream=True)
    assert (outcome.text, w.asked, outcome.decision.hedged) == ("late", ["a"], False)
    assert (outcome.decision.refusals, w.told(AdmissionRefused)) == ((), [])


def test_a_second_that_fails_costs_nothing(world):
    """The late one is waited for, or a third takes the second's place."""
    w = hedging(world, {"a": [says("late", 3.0)], "b": [status(503)]})
    assert w.ask(stream=True).text == "late"
    w = hedging(world, {"a": [says("late", 9.0)], "b": [status(503)], "c": [says("from c", 0.5)]})
    outcome = w.ask(stream=True)
    assert (outcome.text, w.asked) == ("from c", ["b", "c", "a"])
    assert w.left_over() == {}


def test_a_late_one_that_fails_while_another_is_asked(world):
    """The second one's answer is the answer; the failure counts."""
    w = hedging(world, {"a": [Step(status(503), 2.0)], "b": [says("from b", 5.0)]})
    outcome = w.ask(stream=True)
    assert outcome.text == "from b"
    assert w.status("a")["failures_in_a_row"] == 1
    assert w.left_over() == {}


def test_where_a_provider_fell_silent_nobody_waits(world):
    """Three late, and no answer since the first of them: whatever the share, the next is asked, and it counts as a failure."""
    targets = [target("a", circuit=Circuit(failure_threshold=1)), target("b")]
    w = hedging(world, {"a": [NEVER], "b": [says("from b", 0.1)]}, targets, hedge=Hedge(max_fraction=0.0001))
    w.clock.advance(0.1)
    for _ in range(3):
        admitted(w.store, w["a"], stream=True)
    began = w.clock.now()
    outcome = w.ask(stream=True)
    assert (outcome.text, outcome.decision.hedged) == ("from b", True)
    assert w.clock.now() - began < 2.0  # the usual second, and not the 12 s that a first token may take
    assert w.told(CircuitChanged) == [CircuitChanged("a", "closed", "open", "silent")]


def crowded(w):
    """Three streams at the first provider that are late already, beside one that began after them and was answered: it is not silent."""
    w.clock.advance(0.1)
    for _ in range(3):
        admitted(w.store, w["a"], stream=True)
    w.clock.advance(3.0)
    ticket = admitted(w.store, w["a"], stream=True)
    w.store.opened(ticket, 0.5)
    settle(w.store, ticket)


def test_one_that_is_outrun_again_and_again_is_asked_last(world):
    """Many late at once, three of them outrun: the next requests go elsewhere, though its circuit is closed and its answers do come."""
    w = hedging(
        world, {"a": [says("late", 4.0)], "b": [says("from b", 0.1)]}, hedge=Hedge(max_fraction=0.0001), races=False
    )
    crowded(w)
    for _ in range(3):
        assert w.ask(stream=True).decision.hedged
    w.upstream.asked.clear()
    assert w.ask(stream=True).text == "from b"
    assert (w.asked, w.circuit("a"), w.status("a")["slow"]) == (["b"], "closed", True)


def test_one_that_was_outrun_is_looked_at_every_five_seconds(world):
    """By a raced request, whose user waits for nobody; one look in time and it is used again."""
    w = hedging(world, {"a": [says("late", 4.0)], "b": [says("from b", 0.1)]}, hedge=Hedge(max_fraction=0.0001))
    crowded(w)
    for _ in range(3):
        w.ask(stream=True)

    def looks(times):
        raced = 0
        for _ in range(times):
            before = len(w.detached)
            assert w.ask(stream=True).text == "from b"
            raced += len(w.detached) - before
        w.land()
        return raced

    assert looks(3) == 1
    w.clock.advance(5.0)
    assert (looks(3), w.status("a")["slow"]) == (1, True)
    w.upstream.scripts["a"] = [says("fast again", 0.5)]
    w.clock.advance(5.0)
    assert (looks(1), w.status("a")["slow"]) == (1, False)
    assert w.ask(stream=True).text == "fast again"


def test_a_cancelled_one_is_a_sample_of_how_late_it_was(world):
    """Or a provider that is often late would look fast: only its fast answers would be known."""
    w = hedging(world, {"a": [says("late", 9.0)], "b": [says("from b", 2.0)]})
    for _ in range(20):
        w.ask(stream=True)
    assert w.status("a")["first_token_p99"] > 2.5


@pytest.mark.parametrize("at", range(30))
def test_a_caller_that_goes_away_at_any_moment(world, at):
    """Whatever was under way is cancelled, and nothing is left over."""
    w = hedging(world, {"a": [says("late", 9.0)], "b": [says("from b", 2.0)]})
    w.seen.clear()
    w.interrupt = (at, KeyboardInterrupt())
    w.ask(stream=True)
    w.interrupt = None
    assert w.left_over() == {}


def test_a_probe_is_raced_and_not_hedged(world):
    """It has somebody beside it from the start."""
    w = hedging(world, {"a": [says("probed", 0.1)], "b": [says("from b", 5.0)]})
    w.open("a", seconds=61.0)
    assert w.ask(stream=True).text == "probed"
    assert w.told(Hedged) == []


def test_the_only_provider_is_asked_alone(world):
    """There is nobody to ask beside it."""
    w = hedging(world, {"a": [says("late", 9.0)]})
    assert (w.ask(stream=True).text, w.asked) == ("late", ["a"])


def test_a_provider_that_does_not_stream_is_asked_alone(world):
    """Its first chunk is its whole answer, and a long one is no late one."""
    w = hedging(world, {"a": [says("late", 9.0)], "b": [says("from b")]})
    w.upstream.whole_only = {"a"}
    assert (w.ask(stream=True).text, w.asked) == ("late", ["a"])


def test_what_a_cancelled_one_was_sent_stays_counted(world):
    """Its prompt was read, so its tokens stay taken from the limit; the answer that nobody heard is given back."""
    limits = RateLimits(tpm=60_000)  # ten seconds' worth: a bucket of 10,000 tokens, 1000 of them back in a second
    w = hedging(
        world, {"a": [says("late", 9.0)], "b": [says("from b", 0.5)]}, [target("a", limits=limits), target("b")]
    )
    w.clock.advance(20.0)
    assert w.ask(stream=True, input_tokens=lambda: 6000, max_output=20).decision.hedged
    # Of 10,000 the prompt's 6000 are gone, and 1500 have come back in the second and a half since.
    assert w.status("a")["limits_free"]["tpm"] == pytest.approx(0.55, abs=0.02)


@pytest.mark.parametrize("retries", [0, 2])
def test_a_second_that_ends_without_a_word_costs_nothing(world, retries):
    """A stream that says nothing and ends has not won: the late one is waited for as long as it takes."""
    retry = Retry(max_retries=retries)
    w = hedging(world, {"a": [says("late", 3.0)], "b": [Step((), 0.1)]}, retry=retry)
    began = w.clock.now()
    outcome = w.ask(stream=True)
    assert (outcome.text, w.asked, w.clock.now() - began) == ("late", ["b", "a"], 3.0)
    assert w.left_over() == {}


def test_a_late_one_that_ends_without_a_word(world):
    """Whoever was asked beside it is waited for."""
    w = hedging(world, {"a": [Step((), 2.0)], "b": [says("from b", 5.0)]}, retry=Retry(max_retries=0))
    outcome = w.ask(stream=True)
    assert (outcome.text, w.asked, w.left_over()) == ("from b", ["a", "b"], {})


def test_a_probes_companion_that_ends_without_a_word(world):
    """It costs the probe's user nothing either."""
    w = world({"a": [says("probed", 3.0)], "b": [Step((), 0.1)]}, retry=Retry(max_retries=0))
    w.open("a", seconds=61.0)
    assert w.ask(stream=True).text == "probed"
    assert w.left_over() == {}


def test_a_third_is_as_well_and_as_paid_for_as_the_second(world):
    """Whoever takes a failed second's place must be all right, and have the budget."""
    w = hedging(world, {"a": [says("late", 9.0)], "b": [status(503)], "c": [says("from c", 0.5)]})
    settle(w.store, admitted(w.store, w["c"]), ErrorKind.SERVER_ERROR)
    assert (w.ask(stream=True).text, w.asked) == ("late", ["b", "a"])


def test_a_third_that_wins_is_a_hedge_that_won(world):
    """Each who was asked beside the late one is told of, and who of them was faster."""
    w = hedging(world, {"a": [says("late", 9.0)], "b": [status(503)], "c": [says("from c", 0.5)]})
    assert w.ask(stream=True).text == "from c"
    assert w.told(Hedged) == [Hedged("b", "a", won=False), Hedged("c", "a", won=True)]


def test_one_that_was_outrun_comes_back_where_nobody_streams_any_more(world):
    """Nobody could outrun it then, so an unstreamed answer is enough."""
    w = hedging(world, {"a": [says("late", 4.0)], "b": [says("from b", 0.1)]}, hedge=Hedge(max_fraction=0.0001))
    crowded(w)
    for _ in range(3):
        w.ask(stream=True)
    w.upstream.scripts = {"a": [Step("fast again")], "b": [Step("from b", 0.5)]}
    w.clock.advance(120.0)
    w.ask()
    w.land()
    assert not w.status("a")["slow"]


def test_heavy_tails_are_no_sign(world):
    """Where a quarter of all time is spent on the slowest few, a quarter of those in flight are that late at any moment."""
    w = world({"a": [says("x")]}, hedge=ALWAYS)
    for seconds in [0.1] * 95 + [60.0] * 5:
        ticket = admitted(w.store, w["a"], stream=True)
        w.store.opened(ticket, seconds)
        settle(w.store, ticket)
    for _ in range(3):
        admitted(w.store, w["a"], stream=True)
    w.clock.advance(59.0)
    for _ in range(9):
        admitted(w.store, w["a"], stream=True)
    late = [view.late for view in w.store.look(Look((w["a"],), stream=True, max_output=None, tail=0.95))]
    assert late == [False]


def test_a_hedge_that_nobody_could_take_is_not_spent(world):
    """What was saved up for it is still there."""
    w = hedging(world, {"a": [says("late", 3.0)], "b": [says("from b", 0.1)]}, hedge=Hedge(max_fraction=0.2))
    settle(w.store, admitted(w.store, w["b"]), ErrorKind.SERVER_ERROR)
    assert w.ask(stream=True).text == "late"
    assert [w.policy.allowance.spend() for _ in range(3)] == [True] * 3
