"""One model call of an agent: fallback, limits, what passes untouched."""

import asyncio
from typing import Any

import pytest
from langchain.agents.middleware import ModelRequest
from langchain_core.messages import AIMessage
from langchain_core.rate_limiters import BaseRateLimiter
from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import var_child_runnable_config
from langgraph.errors import GraphBubbleUp, GraphInterrupt

from langchain_resilient import (
    AllProvidersFailedError,
    Circuit,
    CircuitOpenError,
    ErrorKind,
    OverloadedError,
    ResilientModelMiddleware,
    SettingsError,
    Timeouts,
    capture_decisions,
)
from langchain_resilient.engine.drive.common import AT_STORE
from langchain_resilient.engine.effects import Call
from langchain_resilient.middleware.attempts import Attempts
from langchain_resilient.testing import Fault, FaultServer
from tests.agents import agent, answer, around, kinds, request, wrapped
from tests.clients import ANSWER, WAYS, BusyError, instance, resilient, scripted

COLOURS = ("sync", "async")


@pytest.mark.parametrize("way", WAYS)
async def test_the_next_provider_answers(way: str):
    """A failing provider's call goes to the next; the record tells both attempts, its usage and no stream."""
    one, two = scripted("one", BusyError()), scripted("two")
    built = agent(one, around(one, two))
    with capture_decisions() as decisions:
        assert await answer(built, way) == ANSWER
    (decision,) = decisions
    assert kinds(decision) == [("scripted/one", "overloaded"), ("scripted/two", "ok")]
    assert decision.usage is not None and decision.usage.output == 3 and decision.fallback


async def test_all_failed():
    """When nobody answers, the group of all causes comes, as the chat model raises it."""
    first, second = BusyError("first"), BusyError("second")
    middleware = around(scripted("one", first), scripted("two", second), max_retries=0)
    with pytest.raises(AllProvidersFailedError) as caught:
        await answer(agent(scripted(), middleware), "ainvoke")
    assert caught.value.exceptions == (first, second)


async def test_an_open_circuit_refuses_at_once():
    """A single provider whose circuit is open raises `CircuitOpenError` and is not asked."""
    own = scripted("own", BusyError())
    built = agent(own, around(circuit=Circuit(failure_threshold=1), max_retries=0))
    with pytest.raises(BusyError):
        await answer(built, "ainvoke")
    with pytest.raises(CircuitOpenError):
        await answer(built, "ainvoke")
    assert len(own.calls) == 1


@pytest.mark.parametrize("way", WAYS)
async def test_options_of_a_call(way: str):
    """`deadline`, `tenant` and `lane` in an agent's configuration hold for each of its model calls."""
    config: RunnableConfig = {"configurable": {"tenant": "acme", "lane": "batch"}}
    built = agent(scripted(), around(scripted("one")))
    with capture_decisions() as decisions:
        await answer(built, way, config=config)
    assert (decisions[0].tenant, decisions[0].lane) == ("acme", "batch")
    with pytest.raises(SettingsError, match="deadline"):
        await answer(built, way, config={"configurable": {"deadline": "soon"}})


def test_max_pending_holds():
    """A full house is refused before any handler runs."""
    model = resilient(scripted(), max_pending=1)
    model._engine.policy.gate.enter("interactive")
    with pytest.raises(OverloadedError):
        ResilientModelMiddleware(model).wrap_model_call(request(model), lambda _: pytest.fail("asked"))


async def test_include_decision():
    """With `include_decision` the answer carries its record, once; without it, nothing is added to a message."""
    built = agent(resilient(scripted(), include_decision=True), ResilientModelMiddleware())
    message = (await built.ainvoke({"messages": [("user", "hi")]}))["messages"][-1]
    assert message.response_metadata["resilience"]["outcome"] == "answered"
    message = agent(scripted(), around()).invoke({"messages": [("user", "hi")]})["messages"][-1]
    assert "resilience" not in message.response_metadata


@pytest.mark.parametrize("colour", COLOURS)
@pytest.mark.parametrize(
    "raised", [GraphBubbleUp(), GraphInterrupt(()), KeyboardInterrupt(), asyncio.CancelledError()], ids=repr
)
async def test_what_the_graph_says_passes(raised: BaseException, colour: str):
    """Interrupts and cancellations pass as they are: nobody else is asked, nothing counts against a provider, nothing stays held."""
    model = resilient(scripted("one"), scripted("two"), classifier=lambda _: ErrorKind.SERVER_ERROR)
    calls: list[ModelRequest] = []

    def handler(given: ModelRequest) -> Any:
        calls.append(given)
        raise raised

    with pytest.raises(type(raised)) as caught, capture_decisions() as decisions:
        await wrapped(ResilientModelMiddleware(model), colour, request(model), handler)
    assert caught.value is raised and len(calls) == 1
    assert decisions[0].outcome == "cancelled"
    status = model.status()["scripted/one"]
    assert status["failures_in_a_row"] == 0 and status["in_flight"] == 0
    assert model._engine.policy.gate.pending == 0


def test_sync_runs_in_the_callers_thread():
    """A graph's context belongs to a thread: a sync handler runs in the caller's, whatever the client's timeouts are."""
    import threading

    threads: list[int] = []

    def handler(given: ModelRequest) -> Any:
        threads.append(threading.get_ident())
        return AIMessage("x")

    around(scripted(total_timeout=None)).wrap_model_call(request(scripted()), handler)
    assert threads == [threading.get_ident()]


async def test_an_async_attempt_has_its_limit():
    """A provider that hangs is given up after the response limit, and the next one answers."""
    with FaultServer() as server:
        server.always(Fault.hang())
        silent = instance(server, "openai", timeout=30.0)
        middleware = around(silent, scripted("two"), timeouts=Timeouts(response=0.25))
        with capture_decisions() as decisions:
            assert await answer(agent(silent, middleware), "ainvoke") == ANSWER
    assert kinds(decisions[0]) == [("openai/one", "timeout"), ("scripted/two", "ok")]
    assert decisions[0].attempts[0].limit == "response"


async def test_a_providers_own_timeout_is_its_own():
    """A `TimeoutError` that comes before the attempt's limit reaches the caller as it was raised."""
    error = TimeoutError("theirs")

    def handler(_: ModelRequest) -> Any:
        raise error

    with pytest.raises(TimeoutError) as caught:
        await wrapped(around(max_retries=0), "async", request(scripted()), handler)
    assert caught.value is error


def first_call(plan: Any, engine: Any) -> Call:
    """The first attempt that a plan asks for."""
    effect = next(plan)
    while not isinstance(effect, Call):
        effect = plan.send(AT_STORE[type(effect)](engine.store, effect))
    return effect


@pytest.mark.parametrize("keeps_limit", [True, False])
def test_who_keeps_an_attempts_limit(*, keeps_limit: bool):
    """An async attempt keeps its limit itself, under the name of what sets it, and its driver is given none; a sync one's is the driver's."""
    model = resilient(scripted())
    engine = ResilientModelMiddleware(model)._engine_for(model)
    token = var_child_runnable_config.set({"configurable": {"deadline": 7.0}})
    try:
        attempts = Attempts(engine, request(model), pytest.fail)
    finally:
        var_child_runnable_config.reset(token)
    plan = attempts.plan(keeps_limit=keeps_limit)
    effect = first_call(plan, engine)
    assert effect.limited_by == "deadline" and (effect.limit > 7.0) is keeps_limit
    assert (attempts._limit.limited_by == "deadline" and attempts._limit.seconds <= 7.0) is keeps_limit
    plan.close()


def test_a_long_answer_has_longer():
    """The tokens that an agent allows an answer lengthen its attempt, as they do for the chat model."""
    model = resilient(scripted())
    engine = ResilientModelMiddleware(model)._engine_for(model)
    usual, long = (
        first_call(
            Attempts(engine, request(model, model_settings=settings), pytest.fail).plan(keeps_limit=False), engine
        )
        for settings in ({}, {"max_tokens": 20_000})
    )
    assert usual.limit < long.limit


class Full(BaseRateLimiter):
    """A limiter that has no place, and must not be waited for without end."""

    def acquire(self, *, blocking: bool = True) -> bool:
        assert not blocking
        return False

    async def aacquire(self, *, blocking: bool = True) -> bool:
        return self.acquire(blocking=blocking)


@pytest.mark.parametrize("way", WAYS)
async def test_a_models_own_limiter(way: str):
    """A provider whose own limiter has no place is not waited for where another one can answer."""
    one = scripted("one", rate_limiter=Full())
    with capture_decisions() as decisions:
        assert await answer(agent(one, around(one, scripted("two"))), way) == ANSWER
    assert kinds(decisions[0]) == [("scripted/one", "rate_limited"), ("scripted/two", "ok")] and one.calls == []
