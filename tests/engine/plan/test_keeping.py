"""Which requests that nobody answered are put away, before their callers hear of it."""

import pytest

from langchain_resilient.engine.backoff import Retry
from langchain_resilient.engine.classify import ErrorKind
from langchain_resilient.engine.drive.common import AT_STORE
from langchain_resilient.engine.effects import Later
from langchain_resilient.engine.events import DeadLettered
from langchain_resilient.engine.plan.course import COURSES
from langchain_resilient.engine.policy import Gate
from langchain_resilient.engine.quota import RateLimits
from tests.engine.harness import FAILURES, NEVER, Chunk, GraphBubbleUp, TimedHands, status, target

ONCE = Retry(max_retries=0)


class Kept(Later):
    """A letter that is written at once, in both colours."""

    def __init__(self, letter):
        self.letter = letter

    def result(self):
        return self.letter

    def __await__(self):
        yield from ()
        return self.letter


class Box:
    """What is put away, by why."""

    def __init__(self, where="sqlite"):
        self.kinds = []
        self.tried = []
        self.where = where

    def __call__(self, kind, attempts):
        self.kinds.append(kind)
        self.tried.append([(attempt.provider, attempt.kind) for attempt in attempts])
        return Kept(self.where and DeadLettered("letter-1", "key", kind, self.where))


@pytest.mark.parametrize("streams", [False, True])
@pytest.mark.parametrize("kind", FAILURES)
def test_what_may_be_answered_another_time(world, kind, streams):
    """A failure of the provider's, of ours or of an unknown kind is kept with all that was tried; a fault of the request itself is not."""
    box, w = Box(), world({"a": [FAILURES[kind]()]}, retry=ONCE)
    outcome = w.ask(stream=streams, keeping=box)
    assert outcome.error is not None
    assert box.kinds == ([str(kind)] if COURSES[kind].later else [])
    assert box.kinds == [] or set(box.tried[0]) == {("a", str(kind))}
    assert w.told(DeadLettered) == [DeadLettered("letter-1", "key", name, "sqlite") for name in box.kinds]


def test_the_caller_s_own_are_never_kept():
    """Kinds that another day would end in the same way: they are named here, so that a new kind must take sides."""
    assert {kind for kind, course in COURSES.items() if not course.later} == {
        ErrorKind.CLIENT_ERROR, ErrorKind.CONTENT_POLICY, ErrorKind.CONTEXT_OVERFLOW, ErrorKind.INVALID_OUTPUT, ErrorKind.CANCELLED,
    }  # fmt: skip


def test_what_is_answered_is_not_kept(world):
    """Neither an answer nor a fallback's answer leaves a letter."""
    box, w = Box(), world({"a": ["from a", status(503)], "b": ["from b"]})
    assert [w.ask(keeping=box).text, w.ask(keeping=box).text] == ["from a", "from b"]
    assert box.kinds == []


def test_the_error_tells_the_letter(world):
    """A note on the exception names the letter, so that whoever reads the log finds it; the exception is the same."""
    error = status(503)
    outcome = world({"a": [error]}, retry=ONCE).ask(keeping=Box())
    assert outcome.error is error
    assert error.__notes__[-1] == "langchain_resilient: kept as dead letter letter-1"


@pytest.mark.parametrize(
    ("where", "note"),
    [("lost", "could not be kept as a dead letter"), (None, "kept as a dead letter, or was answered late, already")],
)
def test_what_is_not_written_anew_is_said_too(world, where, note):
    """A note says that the letter is lost, or that the same request has one; only the first is an event."""
    w = world({"a": [status(503)]}, retry=ONCE)
    outcome = w.ask(keeping=Box(where))
    assert note in outcome.error.__notes__[-1]
    assert [event.where for event in w.told(DeadLettered)] == ([where] if where else [])


def test_refusals_are_kept(world):
    """Nobody was asked, as the circuit is open: it is kept, with nothing that was tried."""
    box, w = Box(), world({"a": ["from a"]})
    w.open("a")
    w.ask(keeping=box)
    assert (box.kinds, box.tried) == (["refused"], [[]])


def test_what_fits_no_limit_is_not_kept(world):
    """A request that costs more than its limit allows per minute is refused for ever."""
    box, w = Box(), world({"a": ["from a"]}, [target("a", limits=RateLimits(tpm=100))])
    outcome = w.ask(keeping=box, input_tokens=lambda: 1000)
    assert (outcome.decision.outcome, box.kinds) == ("refused", [])


def test_a_deadline_that_is_over(world):
    """Too little time is left for anybody: another day there may be more."""
    box, w = Box(), world({"a": [NEVER]})
    w.ask(keeping=box, deadline=5.0)
    assert box.kinds == ["timeout"]
    box = Box()
    w.ask(keeping=box, deadline=0.0)
    assert box.kinds == ["deadline"]


def test_somebody_who_was_not_asked_may_answer_later(world):
    """For `a` the prompt is too long for ever, but `b`'s circuit was open: it may be answered once that is closed."""
    box, w = Box(), world({"a": [status(400, "context_length_exceeded")], "b": ["from b"]})
    w.open("b")
    w.ask(keeping=box)
    assert box.kinds == ["context_overflow"]


def test_a_broken_stream_is_kept(world):
    """What was shown stays shown; the whole answer may come later."""
    box, w = Box(), world({"a": [[Chunk("one "), status(503)]]}, retry=ONCE, on_interruption="raise")
    outcome = w.ask(stream=True, keeping=box)
    assert (outcome.text, outcome.decision.outcome, box.kinds) == ("one ", "interrupted", ["stream_interrupted"])


def test_a_replay_is_no_new_letter(world):
    """What is asked again in the lane of replays is a letter already."""
    box = Box()
    world({"a": [status(503)]}, retry=ONCE).ask(keeping=box, lane="replay")
    assert box.kinds == []


def test_what_is_turned_away_to_shed_load_is_not_kept(world):
    """With too much pending a request costs next to nothing: writing it down would be the queue that was to be avoided."""
    box, gate = Box(), Gate(1)
    gate.enter("interactive")
    outcome = world({"a": ["from a"]}, gate=gate).ask(keeping=box)
    assert (outcome.decision.outcome, box.kinds) == ("overloaded", [])


@pytest.mark.parametrize("gone", [KeyboardInterrupt(), GraphBubbleUp()])
def test_whose_caller_is_gone_is_not_kept(world, gone):
    """A cancelled request, or one that a graph interrupts, is nobody's loss."""
    box, w = Box(), world({"a": ["from a"]})
    w.interrupt = (1, gone)
    outcome = w.ask(keeping=box)
    assert (type(outcome.error), box.kinds, w.left_over()) == (type(gone), [], {})


def test_a_caller_who_goes_while_it_is_written(world):
    """The caller is cancelled during the writing: that is what it hears, and nothing is held."""
    box, w = Box(), world({"a": [status(503)]}, retry=ONCE)
    plan = w.plan(keeping=box)
    effect = next(plan)
    while type(effect).__name__ != "Bury":
        effect = plan.send(_performed(w, effect))
    with pytest.raises(KeyboardInterrupt):
        plan.throw(KeyboardInterrupt())
    assert w.left_over() == {}


def _performed(w, effect):
    at_store = AT_STORE.get(type(effect))
    reply = TimedHands(w).perform(effect) if at_store is None else at_store(w.store, effect)
    return reply.result() if isinstance(reply, Later) else reply
