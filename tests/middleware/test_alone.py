"""The policy of an agent's calls: nothing is raced, and what only an agent raises is judged."""

from typing import Any

import pytest
from langchain.agents.structured_output import StructuredOutputError, StructuredOutputValidationError, ToolStrategy
from langgraph.errors import GraphBubbleUp
from pydantic import BaseModel

from langchain_resilient import ErrorKind, ResilientModelMiddleware, StreamInterruptedError, capture_decisions
from langchain_resilient.engine.classify import Failure
from langchain_resilient.middleware.alone import alone, judged
from langchain_resilient.testing import FaultServer
from tests.agents import agent, answer, around, kinds
from tests.clients import BusyError, instance, resilient, scripted


async def test_a_probe_is_inline():
    """Nothing is raced in an agent: a probe is the caller's own call, and what both policies remember is one."""
    model = resilient(scripted("one"), scripted("two"))
    own = model._engine.policy
    inside = ResilientModelMiddleware()._engine_for(model).policy
    assert own.races and not inside.races
    assert inside.gate is own.gate and inside.last_errors is own.last_errors and inside.observe is own.observe
    assert ResilientModelMiddleware(model)._engine_for(scripted()).policy is inside


class Forecast(BaseModel):
    """A forecast."""

    city: str


@pytest.mark.parametrize("way", ["invoke", "ainvoke"])
async def test_an_answer_that_does_not_parse(way: str):
    """A structured answer that fails validation falls over, neutral to circuits; if all do so, LangChain's own exception comes."""
    strategy = ToolStrategy(Forecast, handle_errors=False)
    with FaultServer() as bad, FaultServer() as good:
        bad.answer_with_tool("Forecast", {"place": "Paris"})
        good.answer_with_tool("Forecast", {"city": "Paris"})
        wrong, right = instance(bad, "openai", "wrong"), instance(good, "anthropic", "right")
        middleware = around(wrong, right)
        with capture_decisions() as decisions:
            assert await answer(agent(wrong, middleware, response_format=strategy), way)
        assert kinds(decisions[0]) == [("openai/wrong", "invalid_output"), ("anthropic/right", "ok")]
        assert middleware._given is not None
        assert middleware._given.status()["openai/wrong"]["failures_in_a_row"] == 0
        with pytest.raises(StructuredOutputValidationError):
            await answer(agent(wrong, around(wrong, max_retries=0), response_format=strategy), way)


def broken(cause: Exception | None) -> StreamInterruptedError:
    """What an attempt raises when it fails after a shown token."""
    error = StreamInterruptedError("cut")
    error.__cause__ = cause
    return error


def judge(own: Any, error: BaseException) -> Any:
    """What is made of an error, at the epoch."""
    return judged(own, lambda: 0.0, error)


class LimitedError(Exception):
    """A provider's 429."""

    status_code = 429


class FailedError(Exception):
    """A provider's 500."""

    status_code = 500


@pytest.mark.parametrize(
    "cause", [ConnectionError(), BusyError(), FailedError(), TimeoutError(), ValueError()], ids=repr
)
def test_what_broke_a_shown_stream(cause: Exception):
    """Whatever broke it by breaking down is, for the circuit, a broken stream."""
    assert judge(None, broken(cause)).kind == ErrorKind.STREAM_INTERRUPTED


def test_what_says_more_than_a_broken_stream():
    """A rate limit stays one after a token, with all that it says."""
    assert judge(None, broken(LimitedError())).kind == ErrorKind.RATE_LIMITED
    assert judge(lambda _: "auth", broken(BusyError())).kind == ErrorKind.AUTH
    assert judge(lambda _: "overloaded", broken(LimitedError())).kind == ErrorKind.STREAM_INTERRUPTED
    told = Failure(ErrorKind.RATE_LIMITED, retry_after=7.0)
    assert judge(lambda _: told, broken(BusyError())) == told


def test_the_users_classifier_is_asked_of_the_providers_own_error():
    """It knows the exceptions of its provider, not ours; what the graph says it is never asked."""
    asked: list[BaseException] = []
    cause, unparsed = BusyError(), StructuredOutputError()
    for error in (broken(cause), unparsed, GraphBubbleUp()):
        judge(asked.append, error)
    assert asked == [cause, unparsed]
    bare = broken(None)
    assert judge(asked.append, bare) is None and asked[-1] is bare, "not made here: left to the usual judgement"


def test_an_answer_that_does_not_parse_by_the_users_classifier():
    """The user's word goes before ours, for whatever LangChain raises of a structured answer."""
    assert judge(None, StructuredOutputError()) == ErrorKind.INVALID_OUTPUT
    assert judge(lambda _: None, StructuredOutputError()) == ErrorKind.INVALID_OUTPUT
    assert judge(lambda _: ErrorKind.OVERLOADED, StructuredOutputError()) == ErrorKind.OVERLOADED
    assert judge(lambda _: ErrorKind.OVERLOADED, ValueError()) == ErrorKind.OVERLOADED


def test_one_policy_has_one_twin():
    """A call makes no policy anew, and a setting that changes makes another."""
    own = resilient(scripted())._engine.policy
    assert alone(own) is alone(own) is not alone(resilient(scripted())._engine.policy)
