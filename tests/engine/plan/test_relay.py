"""Streams: fallback up to the first content, and after it limits, truncation, interruption and early closing (DESIGN §8)."""

import pytest

from langchain_resilient.engine.backoff import Retry
from langchain_resilient.engine.errors import AttemptTimeoutError, StreamInterruptedError, TruncatedStreamError
from langchain_resilient.engine.events import Attempted, CircuitChanged, StreamInterrupted, Usage
from langchain_resilient.engine.policy import Timeouts
from langchain_resilient.engine.quota import RateLimits
from tests.engine.harness import NEVER, STOP, Chunk, GraphBubbleUp, Step, status, target

ONCE = Retry(max_retries=0)
REOPENED = 61.0
KEEP_ALIVE = Chunk()


def words(*texts, end=STOP):
    """A stream of these texts, and its end."""
    return (*(Chunk(text) for text in texts), *([] if end is None else [end]))


def finishing(name="a", **settings):
    """A provider whose wire always ends a stream with a finish reason."""
    return target(name, sends_finish_reason=True, **settings)


@pytest.fixture
def world(world):
    """A world in which nobody goes on with a broken stream; see test_continuing for those in which somebody does."""
    return lambda *args, **settings: world(*args, **{"on_interruption": "raise", **settings})


# ------------------------------------------------------------------------------------------------------- first content
def test_a_stream_is_shown_as_it_came(world):
    """Every chunk, keep-alives before the first content included, in order."""
    chunks = (KEEP_ALIVE, *words("Hel", "lo"))
    w = world({"a": [Step(chunks, 2.0)]}, [finishing()])
    outcome = w.ask(stream=True)
    assert (outcome.shown, outcome.error) == (list(chunks), None)
    assert (outcome.decision.outcome, outcome.decision.first_token) == ("answered", 2.0)
    assert w.left_over() == {}


def test_the_first_token_is_told_as_the_caller_waited_for_it(world):
    """From the request's start, over the attempts and waits before the one that answered; a whole answer has none."""
    w = world({"a": [NEVER], "b": [Step(words("Hel", "lo"), 2.0)]}, [target("a"), target("b")])
    outcome = w.ask(stream=True)
    assert (outcome.decision.first_token, outcome.decision.user_wait) == (14.0, 14.0)
    for asked in ({}, {"stream": True, "whole": True}):
        outcome = world({"a": [Step(words("Hello"), 2.0) if asked else Step("Hello", 2.0)]}).ask(**asked)
        assert (outcome.decision.first_token, outcome.decision.user_wait) == (None, 2.0)


def test_what_was_kept_back_is_waited_for_to_its_end(world):
    """With "restart" the caller has nothing of a stream before it has ended well."""
    slow = (Chunk("Hel"), Chunk("lo", after=3.0), STOP)
    w = world({"a": [Step(slow, 2.0)]}, [finishing()], on_interruption="restart")
    assert w.ask(stream=True).decision.first_token == 5.0


@pytest.mark.parametrize("beginning", [(), (KEEP_ALIVE, KEEP_ALIVE)])
def test_a_failure_before_the_first_content_falls_over(world, beginning):
    """The caller sees the second provider's text alone."""
    w = world({"a": [(*beginning, status(503))], "b": [words("from b")]})
    outcome = w.ask(stream=True)
    assert (outcome.text, w.asked) == ("from b", ["a", "b"])
    assert w.status("a")["failures_in_a_row"] == 1


def test_silence_before_the_first_content_falls_over(world):
    """After the first-token limit (12 s) the next provider is asked, and the record says which limit it was."""
    w = world({"a": [NEVER], "b": [words("from b")]})
    outcome = w.ask(stream=True)
    assert (outcome.text, w.clock.now()) == ("from b", 1012.0)
    assert (outcome.decision.attempts[0].kind, outcome.decision.attempts[0].limit) == ("timeout", "first_token")


@pytest.mark.parametrize("chunks", [(), (KEEP_ALIVE,)])
def test_a_stream_that_ends_before_it_said_anything_falls_over(world, chunks):
    """Nobody saw it: on a wire that always gives a reason it is truncated, and the next provider is asked."""
    w = world({"a": [chunks], "b": [words("from b")]}, [finishing(), target("b")])
    outcome = w.ask(stream=True)
    assert (outcome.text, outcome.decision.attempts[0].kind) == ("from b", "stream_interrupted")
    assert w.told(StreamInterrupted) == [StreamInterrupted("a", "stream_interrupted", shown=False)]


def test_an_empty_stream_is_an_error_on_any_wire(world):
    """No chunk at all is no answer; with nobody else the caller gets the truncation itself."""
    w = world({"a": [()]}, retry=ONCE)
    assert isinstance(w.ask(stream=True).error, TruncatedStreamError)
    assert w.left_over() == {}


def test_an_answer_without_words_is_an_answer(world):
    """A finish reason alone, or on wires that send none an empty chunk, is what the provider had to say."""
    w = world({"a": [(STOP,)]}, [finishing()])
    assert w.ask(stream=True).shown == [STOP]
    w = world({"a": [(KEEP_ALIVE,)]})
    assert w.ask(stream=True).shown == [KEEP_ALIVE]


# ----------------------------------------------------------------------------------------------------------- truncation
def test_an_end_without_a_reason_is_truncated_on_wires_known_to_send_one(world):
    """The caller has seen the text, so it is told that the rest is missing."""
    w = world({"a": [words("half a ", "sent", end=None)]}, [finishing()])
    outcome = w.ask(stream=True)
    assert isinstance(outcome.error, StreamInterruptedError)
    assert outcome.error.partial == "half a sent"
    assert isinstance(outcome.error.__cause__, TruncatedStreamError)


def test_an_end_without_a_reason_is_fine_on_wires_that_never_send_one(world):
    """Many servers, and LangChain's own fakes, give no reason."""
    w = world({"a": [words("hello", end=None)]})
    for _ in range(5):
        assert w.ask(stream=True).error is None


def test_a_wires_habit_is_learned_from_three_streams(world):
    """Where three streams ended with a reason, one without is truncated."""
    w = world({"a": [words("x"), words("x"), words("x", end=None), words("x"), words("x", end=None)]})
    assert [w.ask(stream=True).error for _ in range(4)] == [None] * 4
    assert isinstance(w.ask(stream=True).error, StreamInterruptedError)


# ----------------------------------------------------------------------------------------------------------- idle limit
def test_the_idle_limit_counts_waiting_and_keep_alives_do_not_start_it_again(world):
    """15 s from content to content: two keep-alives of 6 s leave 3, and a content starts afresh."""
    chunks = (
        Chunk("one"),
        Chunk(after=6.0),
        Chunk(after=6.0),
        Chunk("two", after=2.0),
        Chunk("three", after=14.0),
        STOP,
    )
    w = world({"a": [chunks]})
    assert w.ask(stream=True).text == "onetwothree"
    assert w.pulls[:5] == [15.0, 9.0, 3.0, 15.0, 15.0]


def test_keep_alives_alone_end_in_the_idle_limit(world):
    """A provider that says nothing for 15 s has stalled, whatever it sends meanwhile."""
    w = world({"a": [(Chunk("one"), Chunk(after=10.0), Chunk(after=10.0), Chunk("two"))]})
    outcome = w.ask(stream=True)
    assert isinstance(outcome.error, StreamInterruptedError)
    assert isinstance(outcome.error.__cause__, AttemptTimeoutError)
    assert (outcome.error.partial, w.clock.now()) == ("one", 1015.0)
    assert (outcome.decision.attempts[0].kind, outcome.decision.attempts[0].limit) == ("timeout", "idle")
    assert w.status("a")["failures_in_a_row"] == 1


def test_a_caller_that_reads_slowly_is_not_the_providers_fault(world):
    """An hour between two reads costs the stream nothing of its limit."""
    w = world({"a": [words("one", "two", "three")]})
    assert w.ask(stream=True, pace=3600.0).text == "onetwothree"
    assert set(w.pulls) == {15.0}


def test_the_providers_own_idle_limit(world):
    """`Timeouts.idle` is kept for each provider."""
    w = world({"a": [(Chunk("one"), Chunk("two", after=3.0))]}, [target("a", timeouts=Timeouts(idle=2.0))])
    assert w.ask(stream=True).error.partial == "one"


# ---------------------------------------------------------------------------------------------------------- interruption
def test_an_interruption_tells_what_was_shown(world):
    """`StreamInterruptedError` holds the text and the tokens so far, caused by what broke it; nobody else is asked."""
    broke = status(500)
    chunks = (Chunk("Hel", usage=Usage(7, 0)), Chunk("lo", usage=Usage(0, 2)), broke)
    w = world({"a": [chunks], "b": [words("from b")]})
    outcome = w.ask(stream=True)
    error = outcome.error
    assert isinstance(error, StreamInterruptedError)
    assert (error.partial, error.usage, error.__cause__, error.is_retryable) == ("Hello", Usage(7, 2), broke, False)
    assert (outcome.text, w.asked, outcome.decision.outcome) == ("Hello", ["a"], "interrupted")
    assert [(item.kind, item.status) for item in outcome.decision.attempts] == [("server_error", 500)]
    assert w.told(StreamInterrupted) == [StreamInterrupted("a", "server_error", shown=True)]
    assert [(event.provider, event.kind) for event in w.told(Attempted)] == [("a", "server_error")]
    assert w.left_over() == {}


def test_interruptions_count_against_the_circuit(world):
    """Five streams in a row that break after their first content open it, whatever broke them."""
    broken = [
        (Chunk("x"), error) for error in (status(500), status(503), Exception("odd"), TruncatedStreamError("cut"))
    ]
    w = world({"a": [*broken, (Chunk("x"), Chunk("y", after=99.0))]})
    for _ in range(5):
        w.ask(stream=True)
    assert w.told(CircuitChanged) == [CircuitChanged("a", "closed", "open", "stream_interrupted")]


@pytest.mark.parametrize(
    ("error", "blocked"), [(status(429, retry_after=9), "blocked"), (status(401), "auth"), (status(400), None)]
)
def test_an_interruption_that_is_no_sign_of_ill_health(world, error, blocked):
    """A 429, 401 or 400 inside a stream leaves the circuit as it is; the first two block the credential."""
    w = world({"a": [(Chunk("x"), error)]})
    assert isinstance(w.ask(stream=True).error, StreamInterruptedError)
    assert (w.status("a")["failures_in_a_row"], w.status("a")["blocked"]) == (0, blocked)


def test_a_first_token_does_not_close_a_circuit_that_interruptions_opened(world):
    """Its streams break after their beginning, so a probe counts only when it has come to its end."""
    broken = (Chunk("x"), status(500))
    w = world({"a": [broken] * 5 + [broken] + [words("whole")]})
    for _ in range(5):
        w.ask(stream=True)
    w.clock.advance(REOPENED)
    w.ask(stream=True)
    assert w.circuit("a") == "open"
    w.clock.advance(REOPENED)
    for _ in range(3):
        assert w.ask(stream=True).text == "whole"
    assert w.circuit("a") == "closed"


def test_a_first_token_closes_a_circuit_that_failures_opened(world):
    """Three first contents are three good probes, though none of the streams is at its end."""
    w = world({"a": [[Chunk("word")] * 200]})
    w.open("a", seconds=REOPENED)
    for _ in range(3):
        w.ask(stream=True, keep=1)
    assert w.circuit("a") == "closed"


# --------------------------------------------------------------------------------------------------------- early closing
def test_closing_a_stream_early_is_neutral_and_closes_it_upstream(world):
    """The caller has enough: no failure, no answer, nothing left over, and the provider's stream is closed."""
    targets = [target("a", limits=RateLimits(concurrency=1))]
    w = world({"a": [[Chunk("word")] * 500]}, targets)
    outcome = w.ask(stream=True, keep=2)
    assert (outcome.text, outcome.error, outcome.decision.outcome) == ("wordword", None, "cancelled")
    assert w.upstream.all_closed()
    assert w.upstream.closed == ["a"]
    assert (w.status("a")["failures_in_a_row"], w.left_over()) == (0, {})
    assert [(one.kind, one.usage) for one in w.told(Attempted)] == [("cancelled", None)]


def test_an_interrupt_of_the_graph_inside_a_stream_passes_unharmed(world):
    """After the first content, too: it arrives as it is, and counts for nothing."""
    error = GraphBubbleUp()
    w = world({"a": [(Chunk("one"), error)], "b": [words("from b")]})
    outcome = w.ask(stream=True)
    assert (outcome.error, outcome.text, w.asked) == (error, "one", ["a"])
    assert (w.status("a")["failures_in_a_row"], w.left_over(), w.upstream.all_closed()) == (0, {}, True)


# ----------------------------------------------------------------------------------------------------------- what is told
def test_a_streams_usage_is_the_sum_of_its_chunks(world):
    """Some wires tell the input first and the output last."""
    chunks = (Chunk("x", usage=Usage(10, 0, 4)), Chunk("y", usage=Usage(0, 5)), STOP)
    w = world({"a": [chunks]})
    assert w.ask(stream=True).decision.usage == Usage(10, 5, 4)


def test_a_streams_seconds_are_those_of_its_own_attempt(world):
    """What the request waited for before, at another provider, is not this one's latency."""
    chunks = (Chunk("x"), Chunk("y", after=4.0), STOP)
    w = world({"a": [NEVER], "b": [Step(chunks, 1.0)]})
    outcome = w.ask(stream=True)
    assert w.told(Attempted)[-1] == Attempted("b", "ok", 5.0, 1.0, None, probe=False)
    assert outcome.decision.seconds == 17.0


def test_a_broken_streams_seconds_are_those_of_its_own_attempt(world):
    """The same for one that breaks."""
    w = world({"a": [NEVER], "b": [Step((Chunk("x"), Chunk("y", after=4.0), status(500)), 1.0)]})
    w.ask(stream=True)
    assert w.told(Attempted)[-1].seconds == 5.0


# ---------------------------------------------------------------------------------------------------------------- races
def test_a_probe_that_lost_a_streams_race_still_reports_when_the_caller_leaves_early(world):
    """Closing the stream lets go of what the request holds; the probe runs on, and its answer counts."""
    w = world({"a": [Step(words("from a"), 9.0)], "b": [Step(words("one two"), 1.0)]})
    w.open("a", seconds=REOPENED)
    w.ask(stream=True, keep=1)
    assert w.status("a")["in_flight"] == 1
    w.land()
    assert w.store._routes["a"].circuit.successes == 1
    assert w.left_over() == {}


def test_a_streamed_probe_is_raced_to_the_first_content(world):
    """The user reads the companion's stream; the probe's first content comes late, counts, and its stream is closed."""
    w = world({"a": [Step(words("from a"), 8.0)], "b": [Step(words("from ", "b"), 1.0)]})
    w.open("a", seconds=REOPENED)
    outcome = w.ask(stream=True)
    assert (outcome.text, w.circuit("a")) == ("from b", "half_open")
    w.land()
    assert w.store._route(w["a"]).circuit.successes == 1
    assert w.upstream.all_closed()
    assert w.left_over() == {}


def test_a_losing_streamed_probe_that_is_empty_fails(world):
    """A stream that ends without content is no recovery."""
    w = world({"a": [Step((), 8.0)], "b": [Step(words("from b"), 1.0)]}, retry=ONCE)
    w.open("a", seconds=REOPENED)
    assert w.ask(stream=True).text == "from b"
    w.land()
    assert (w.circuit("a"), w.left_over()) == ("open", {})


def test_a_streamed_probe_that_wins_is_shown(world):
    """The companion is abandoned, and the probe has counted at its first content."""
    w = world({"a": [Step(words("from a"), 1.0)], "b": [Step(words("from b"), 2.0)]})
    w.open("a", seconds=REOPENED)
    assert w.ask(stream=True).text == "from a"
    assert (w.abandoned, w.store._route(w["a"]).circuit.successes, w.left_over()) == (["b"], 1, {})
