"""What happens when a stream breaks after its beginning was shown: another goes on, or nothing was shown yet, or the caller is told."""

import pytest

from langchain_resilient.engine.backoff import Retry
from langchain_resilient.engine.errors import (
    AllProvidersFailedError,
    AttemptTimeoutError,
    DeadlineExceededError,
    InvalidOutputError,
    NewAnswerError,
    StreamInterruptedError,
)
from langchain_resilient.engine.events import Attempted, Continued, FellBack, StreamInterrupted, Usage
from langchain_resilient.engine.policy import Price, Timeouts
from tests.engine.harness import NEVER, STOP, Chunk, Step, status, target

BROKE = status(500)
SAYS = "One two three four five six seven eight nine ten."


def words(text, end=STOP):
    """A stream of a text's words, and its end."""
    first, *rest = text.split(" ")
    return (Chunk(first), *(Chunk(f" {word}") for word in rest), *([] if end is None else [end]))


def cut(text, at, error=BROKE):
    """A stream that breaks after so many words."""
    return (*words(text, None)[:at], error)


def after(text, at):
    """What is left of a text after so many words."""
    return text[len("".join(chunk.text for chunk in words(text, None)[:at])) :]


# ---------------------------------------------------------------------------------------------------------- continue
def test_another_provider_goes_on(world):
    """The caller sees one text; the second provider is told what was shown, and what to begin with."""
    w = world({"a": [cut(SAYS, 4)], "b": [words(SAYS)]})
    outcome = w.ask(stream=True)
    assert (outcome.text, outcome.error) == (SAYS, None)
    assert [begun and begun.text for begun in w.upstream.begun] == [None, "One two three four"]
    assert w.upstream.begun[1].anchor == "One two three four"
    assert w.left_over() == {}


def test_the_record_and_the_events_of_a_continued_answer(world):
    """Who broke, who went on, and what both used; the answer is the second provider's, and its usage and cost are both legs'."""
    broken = (Chunk("One", usage=Usage(100, 1)), Chunk(" two", usage=Usage(0, 2)), BROKE)
    rest = (*words(after(SAYS, 2), None), Chunk(finish="stop", usage=Usage(110, 8)))
    targets = [target("a", price=Price(1.0, 10.0)), target("b", price=Price(2.0, 20.0), takes_prefill=True)]
    w = world({"a": [broken], "b": [rest]}, targets)
    outcome = w.ask(stream=True)
    decision = outcome.decision
    assert (decision.outcome, decision.provider, decision.fallback, decision.continued) == ("answered", "b", True, 1)
    assert [(attempt.provider, attempt.kind) for attempt in decision.attempts] == [("a", "server_error"), ("b", "ok")]
    assert decision.usage == Usage(210, 11)
    # 100 + 3·10 of the first, 2·110 + 8·20 of the second, in millionths
    assert decision.cost == pytest.approx(510e-6)
    assert w.told(StreamInterrupted) == [StreamInterrupted("a", "server_error", shown=True)]
    assert w.told(Continued) == [Continued("a", "b")]
    assert w.told(FellBack) == [FellBack("a", "b", "stream_interrupted")]
    assert [event.kind for event in w.told(Attempted)] == ["server_error", "ok"]
    assert w.status("a")["failures_in_a_row"] == 1


def test_several_interruptions_in_one_answer(world):
    """Each leg is asked with all that was shown before it."""
    w = world({"a": [cut(SAYS, 2)], "b": [cut(SAYS, 5)], "c": [words(SAYS)]})
    outcome = w.ask(stream=True)
    assert (outcome.text, outcome.decision.continued) == (SAYS, 2)
    assert [begun.text for begun in w.upstream.begun[1:]] == ["One two", "One two three four five"]


def test_the_only_provider_goes_on_itself(world):
    """A cut connection is passing: with nobody else it is asked again, after a backoff."""
    w = world({"a": [cut(SAYS, 2), words(SAYS)]})
    assert w.ask(stream=True).text == SAYS
    assert w.clock.sleeps == [0.25]


def test_a_leg_that_fails_before_it_says_anything(world):
    """It falls over like any attempt; what was shown stays."""
    w = world({"a": [cut(SAYS, 2)], "b": [status(503)], "c": [words(SAYS)]})
    outcome = w.ask(stream=True)
    assert (outcome.text, w.asked) == (SAYS, ["a", "b", "c"])
    assert w.told(Continued) == [Continued("a", "c")]


def test_a_leg_that_only_repeats_and_breaks_shows_nothing(world):
    """What is held back as it may be repetition is not lost: the next leg says it again."""
    w = world({"a": [cut(SAYS, 6)], "b": [cut(SAYS, 3)], "c": [words(SAYS)]})
    outcome = w.ask(stream=True)
    assert outcome.text == SAYS
    assert [begun.text for begun in w.upstream.begun[1:]] == ["One two three four five six"] * 2


def test_a_new_answer_is_not_joined(world):
    """A provider that begins another answer is passed over: neutral to its circuit, and the next one is asked."""
    other = words("One two three o'clock rock, and nothing else that would fit behind it.")
    w = world({"a": [cut(SAYS, 6)], "b": [other], "c": [words(SAYS)]})
    outcome = w.ask(stream=True)
    assert (outcome.text, w.asked) == (SAYS, ["a", "b", "c"])
    assert (outcome.decision.attempts[1].kind, w.status("b")["failures_in_a_row"]) == ("invalid_output", 0)
    w = world({"a": [cut(SAYS, 6)], "b": [other]}, retry=Retry(max_retries=0))
    error = w.ask(stream=True).error
    assert isinstance(error, StreamInterruptedError)
    assert (error.partial, type(error.__cause__)) == ("One two three four five six", NewAnswerError)


def test_nobody_is_left_to_go_on(world):
    """The caller is told what was shown, what it used, and why; the refusals are named."""
    w = world({"a": [cut(SAYS, 2)], "b": [status(503)]}, retry=Retry(max_retries=0))
    outcome = w.ask(stream=True)
    assert isinstance(outcome.error, StreamInterruptedError)
    assert outcome.error.partial == outcome.text == "One two"
    assert outcome.decision.outcome == "interrupted"
    assert "nobody could go on" in str(outcome.error)
    assert w.left_over() == {}


def test_no_leg_begins_after_the_deadline(world):
    """A stream that delivers is not cut by it, but what is left decides whether another provider is asked."""
    late = (Chunk("One"), Chunk(" two", after=14.0), status(500))
    w = world({"a": [late], "b": [words(SAYS)]}, total=10.0)
    outcome = w.ask(stream=True)
    assert (outcome.text, w.asked, type(outcome.error)) == ("One two", ["a"], StreamInterruptedError)


def test_attempts_are_bounded_over_all_legs(world):
    """One per provider and `max_retries` in all, legs included."""
    w = world({"a": [cut(SAYS, 1)], "b": [cut(SAYS, 1)]}, retry=Retry(max_retries=1, budget=False))
    assert isinstance(w.ask(stream=True).error, StreamInterruptedError)
    assert len(w.asked) == 3


@pytest.mark.parametrize("error", [status(400), status(400, "content_filter")])
def test_what_no_other_provider_can_mend_is_told_at_once(world, error):
    """A refusal inside a stream is the provider's answer."""
    w = world({"a": [cut(SAYS, 2, error)], "b": [words(SAYS)]})
    outcome = w.ask(stream=True)
    assert (w.asked, outcome.error.partial, outcome.error.__cause__) == (["a"], "One two", error)


def test_what_cannot_be_continued_is_told_at_once(world):
    """A begun tool call, JSON: the caller's side says so."""
    w = world({"a": [cut(SAYS, 2)], "b": [words(SAYS)]})
    w.upstream.continues = False
    outcome = w.ask(stream=True)
    assert (w.asked, type(outcome.error)) == (["a"], StreamInterruptedError)


def test_a_break_after_the_finish_reason_is_no_break(world):
    """All was said, and that it was: nobody is asked to add to it."""
    w = world({"a": [(*words(SAYS), BROKE)], "b": [words("More?")]})
    outcome = w.ask(stream=True)
    assert (outcome.text, w.asked, outcome.error, w.left_over()) == (SAYS, ["a"], None, {})


@pytest.mark.parametrize("keep", [1, 2, 3, 4, 5])
def test_a_caller_that_leaves_a_continued_answer(world, keep):
    """Whenever it leaves nothing is left over, and both streams are closed upstream."""
    w = world({"a": [cut(SAYS, 2)], "b": [[*words(SAYS, None), *[Chunk("more")] * 300]]})
    outcome = w.ask(stream=True, keep=keep)
    assert outcome.error is None
    assert w.upstream.all_closed()
    assert w.left_over() == {}


# ----------------------------------------------------------------------------------------------------------- prefill
def test_a_provider_that_takes_a_begun_answer_is_given_it(world):
    """Without an instruction; it goes on exactly behind it."""
    w = world({"a": [cut(SAYS, 4)], "b": [words(after(SAYS, 4))]}, [target("a"), target("b", takes_prefill=True)])
    assert w.ask(stream=True).text == SAYS
    assert w.upstream.begun[1].anchor is None


@pytest.mark.parametrize("code", [400, 422])
def test_a_begun_answer_that_is_turned_down_is_learned_from(world, code):
    """The same provider is asked at once in words, its circuit learns nothing, and the next request does not try again."""
    targets = [target("a"), target("b", takes_prefill=True)]
    w = world({"a": [cut(SAYS, 4)], "b": [status(code), words(SAYS), words(SAYS)]}, targets)
    outcome = w.ask(stream=True)
    assert (outcome.text, w.asked, w.clock.sleeps) == (SAYS, ["a", "b", "b"], [])
    assert (w.status("b")["failures_in_a_row"], w.status("b")["retry_budget"]) == (0, 100.0)
    assert [begun and begun.anchor for begun in w.upstream.begun] == [None, None, "One two three four"]
    w.upstream.begun.clear()
    assert w.ask(stream=True).text == SAYS
    assert [begun and begun.anchor for begun in w.upstream.begun] == [None, "One two three four"]


def test_a_request_that_is_wrong_in_any_words(world):
    """If the instruction is turned down too, the caller is told."""
    w = world({"a": [cut(SAYS, 4)], "b": [status(400)]}, [target("a"), target("b", takes_prefill=True)])
    outcome = w.ask(stream=True)
    assert (w.asked, type(outcome.error)) == (["a", "b", "b"], StreamInterruptedError)


def test_where_nothing_but_white_space_was_shown(world):
    """The next provider is asked as if nothing had been, and its own first white space is not shown again."""
    w = world({"a": [(Chunk("\n"), BROKE)], "b": [(Chunk("\nOne"), Chunk(" two"), STOP)]})
    assert w.ask(stream=True).text == "\nOne two"
    assert w.upstream.begun == [None, None]


# ----------------------------------------------------------------------------------------------------------- restart
def test_nothing_is_shown_before_its_end(world):
    """With "restart" a break costs time alone: the caller sees the second answer from its first word, and no word of the first."""
    w = world({"a": [cut("Quite another answer it is", 4)], "b": [words(SAYS)]}, on_interruption="restart")
    outcome = w.ask(stream=True)
    assert (outcome.text, outcome.decision.continued) == (SAYS, 0)
    assert w.upstream.begun == [None, None]
    assert w.told(StreamInterrupted) == [StreamInterrupted("a", "server_error", shown=False)]


def test_a_restart_that_nobody_is_left_for(world):
    """Nothing was shown, so the caller gets what any failed call gives."""
    w = world({"a": [cut(SAYS, 4)], "b": [cut(SAYS, 4)]}, on_interruption="restart", retry=Retry(max_retries=0))
    outcome = w.ask(stream=True)
    assert (outcome.text, type(outcome.error)) == ("", AllProvidersFailedError)
    assert w.left_over() == {}


# ------------------------------------------------------------------------------------------------------ whole answers
def test_a_whole_answer_is_watched_as_a_stream(world):
    """A provider that hangs is left at the first-token limit (12 s), and the caller gets one answer."""
    w = world({"a": [NEVER], "b": [words(SAYS)]})
    outcome = w.ask(stream=True, whole=True)
    assert (outcome.shown, outcome.text, w.clock.now()) == ([], SAYS, 1012.0)


@pytest.mark.parametrize("mode", ["continue", "raise", "restart"])
def test_a_whole_answer_that_broke_begins_anew(world, mode):
    """Nothing of it was shown, whatever `on_interruption` says of streams."""
    w = world({"a": [cut("Something else altogether", 2)], "b": [words(SAYS)]}, on_interruption=mode)
    outcome = w.ask(stream=True, whole=True)
    assert (outcome.text, w.upstream.begun) == (SAYS, [None, None])


def test_a_whole_answer_keeps_the_deadline(world):
    """It has delivered nothing yet, so the deadline cuts it, and that is no fault of the provider's."""
    slow = (Chunk("One"), *[Chunk(" two", after=4.0)] * 10, STOP)
    w = world({"a": [slow], "b": [words(SAYS)]}, total=10.0)
    outcome = w.ask(stream=True, whole=True)
    assert w.clock.now() == 1010.0
    assert isinstance(outcome.error, AllProvidersFailedError)
    kinds = [type(error) for error in outcome.error.exceptions]
    assert kinds == [AttemptTimeoutError, DeadlineExceededError]
    assert w.status("a")["failures_in_a_row"] == 0


def test_a_whole_answer_that_cannot_be_read_falls_over(world):
    """As an unstreamed answer does: neutral to the circuit, and its tokens are counted."""

    def read(text):
        if text != SAYS:
            raise InvalidOutputError("no", usage=Usage(1, 1))

    w = world({"a": [words("Something else")], "b": [words(SAYS)]})
    w.upstream.reads = read
    outcome = w.ask(stream=True, whole=True)
    assert (outcome.text, outcome.decision.attempts[0].kind) == (SAYS, "invalid_output")
    assert w.status("a")["failures_in_a_row"] == 0


def test_a_whole_answers_time_is_an_answers(world):
    """Its time to the end is in the provider's p50, its first content in that of first tokens."""
    w = world({"a": [Step((Chunk("One"), Chunk(" two", after=3.0), STOP), 1.0)]})
    for _ in range(3):
        w.ask(stream=True, whole=True)
    assert (w.status("a")["first_token_p50"], w.status("a")["p50"]) == (
        pytest.approx(1.0, rel=0.02),
        pytest.approx(4.0, rel=0.02),
    )


def test_a_provider_that_does_not_stream_has_an_answers_time(world):
    """Its first chunk is all of its answer: the response limit (60 s) holds, not the first-token limit."""
    w = world({"a": [Step(words(SAYS), 30.0)]}, [target("a", timeouts=Timeouts(first_token=1.0))])
    w.upstream.whole_only = {"a"}
    assert w.ask(stream=True).text == SAYS


def test_a_restart_keeps_the_deadline(world):
    """Nothing of it was shown yet, so the deadline cuts it."""
    slow = (Chunk("One"), *[Chunk(" two", after=4.0)] * 10, STOP)
    w = world({"a": [slow], "b": [words(SAYS)]}, total=10.0, on_interruption="restart")
    began = w.clock.now()
    w.ask(stream=True)
    assert w.clock.now() - began == 10.0


def test_a_whole_answer_that_cannot_be_put_together(world):
    """Chunks that do not merge are a failure of that attempt, and the next provider answers."""

    def read(text):
        if text != SAYS:
            raise TypeError("can't be merged")

    w = world({"a": [words("Something else")], "b": [words(SAYS)]})
    w.upstream.reads = read
    assert w.ask(stream=True, whole=True).text == SAYS


def test_a_begun_answer_that_is_turned_down_takes_no_attempt(world):
    """Our wrong guess does not count against `max_retries`."""
    targets = [target("a"), target("b", takes_prefill=True)]
    w = world({"a": [cut(SAYS, 4)], "b": [status(400), words(SAYS)]}, targets, retry=Retry(max_retries=0))
    outcome = w.ask(stream=True)
    assert (outcome.text, w.asked) == (SAYS, ["a", "b", "b"])
