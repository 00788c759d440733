"""The middleware around an agent's model calls: settings, fallback, what is shared, what passes untouched."""

import asyncio
import gc
import subprocess
import sys
import warnings
import weakref
from collections.abc import Callable
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import AgentMiddleware, ExtendedModelResponse, ModelRequest, ModelResponse
from langchain.agents.structured_output import StructuredOutputValidationError, ToolStrategy
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.runnables import RunnableConfig
from langgraph.errors import GraphBubbleUp, GraphInterrupt
from langgraph.types import Command
from pydantic import BaseModel

from langchain_resilient import (
    AllProvidersFailedError,
    Circuit,
    CircuitOpenError,
    ErrorKind,
    OverloadedError,
    Provider,
    ResilientModelMiddleware,
    Retry,
    SettingsError,
    Timeouts,
    capture_decisions,
)
from langchain_resilient.engine.events import CircuitChanged, Decided
from langchain_resilient.testing import Fault, FaultServer
from tests.clients import ANSWER, WAYS, BusyError, ask, fresh, instance, resilient, scripted

COLOURS = ("sync", "async")


def around(*models: Any, **settings: Any) -> ResilientModelMiddleware:
    """The middleware over these models, without backoff."""
    fixed = {"namespace": fresh(), "retry": Retry(base_delay=0.0)}
    return ResilientModelMiddleware(*models, **(fixed | settings))


def agent(model: Any, *middleware: Any, **settings: Any) -> Any:
    """An agent without tools."""
    return create_agent(model, middleware=list(middleware), **settings)


async def answer(agent: Any, way: str, question: str = "hi", **arguments: Any) -> str:
    """The text of an agent's last message, asked for in one of the four ways."""
    given = {"messages": [("user", question)]}
    if way == "invoke":
        return agent.invoke(given, **arguments)["messages"][-1].text
    if way == "ainvoke":
        return (await agent.ainvoke(given, **arguments))["messages"][-1].text
    if way == "stream":
        return list(agent.stream(given, stream_mode="values", **arguments))[-1]["messages"][-1].text
    return [item async for item in agent.astream(given, stream_mode="values", **arguments)][-1]["messages"][-1].text


def request(model: Any, **fields: Any) -> ModelRequest:
    """A model request as an agent makes it."""
    return ModelRequest(model=model, messages=[HumanMessage("hi")], **fields)


async def wrapped(middleware: Any, colour: str, given: ModelRequest, handler: Callable[[ModelRequest], Any]) -> Any:
    """What the middleware makes of one model call."""
    if colour == "sync":
        return middleware.wrap_model_call(given, handler)

    async def awaited(asked: ModelRequest) -> Any:
        return handler(asked)

    return await middleware.awrap_model_call(given, awaited)


def kinds(decision: Any) -> list[tuple[str, str]]:
    """Who was asked, and what came of it."""
    return [(attempt.provider, attempt.kind) for attempt in decision.attempts]


# ----------------------------------------------------------------------------------------------------------- settings
@pytest.mark.parametrize("name", ["hedge", "on_interruption", "dead_letters", "streaming"])
def test_what_makes_no_sense_in_an_agent_is_refused(name: str):
    """A setting that an agent can't have is an error that says why, even at its default."""
    with pytest.raises(SettingsError, match=f"{name}: got None; "):
        ResilientModelMiddleware(scripted(), **{name: None})


def test_unknown_keyword():
    """An unknown keyword is an error that names the nearest right one."""
    with pytest.raises(SettingsError, match="did you mean 'retry'"):
        ResilientModelMiddleware(retrry=Retry())


def test_nonsense_is_found_at_construction():
    """Settings are checked when the middleware is made, models or not."""
    with pytest.raises(SettingsError, match="routing"):
        ResilientModelMiddleware(routing="random")


def test_a_resilient_chat_model_comes_alone():
    """It brings its providers and its settings: further models, a Provider around it or settings are an error."""
    model = resilient(scripted())
    for models, settings in (
        ((model, scripted()), {}),
        ((scripted(), model), {}),
        ((Provider(model),), {}),
        ((model,), {"max_retries": 1}),
    ):
        with pytest.raises(SettingsError, match="ResilientChatModel"):
            ResilientModelMiddleware(*models, **settings)


def test_settings_beside_an_agents_resilient_chat_model():
    """Settings that would silently mean nothing are an error at the first call."""
    with pytest.raises(SettingsError, match="leave them out"):
        agent(resilient(scripted()), ResilientModelMiddleware(max_retries=1)).invoke({"messages": [("user", "hi")]})


def test_the_name_is_lazy():
    """Importing the package imports no LangChain for the middleware's sake; using the name does."""
    code = (
        "import sys, langchain_resilient as ours; assert 'langchain' not in sys.modules; "
        "ours.ResilientModelMiddleware; assert 'langchain' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# ------------------------------------------------------------------------------------------------------------ fallback
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


async def test_models_given_replace_the_agents_own():
    """The agent's own model is not asked unless it is given as well."""
    own, given = scripted("own", "own"), scripted("given", "given")
    assert await answer(agent(own, around(given)), "ainvoke") == "given"
    assert own.calls == []


async def test_specs_and_providers():
    """Models are given as the chat model takes them: specs and Providers, with their own settings."""
    with FaultServer() as server:
        urls = {"base_url": server.base_url("openai"), "api_key": "sk-test"}
        middleware = around(Provider("openai:gpt-4.1", name="mine", model_kwargs=urls))
        with capture_decisions() as decisions:
            await answer(agent(scripted(), middleware), "ainvoke")
    assert kinds(decisions[0]) == [("mine", "ok")]


async def test_all_failed():
    """When nobody answers, the group of all causes comes, as the chat model raises it."""
    first, second = BusyError("first"), BusyError("second")
    middleware = around(scripted("one", first), scripted("two", second), max_retries=0)
    with pytest.raises(AllProvidersFailedError) as caught:
        await answer(agent(scripted(), middleware), "ainvoke")
    assert caught.value.exceptions == (first, second)


# -------------------------------------------------------------------------------------------------------------- shared
@pytest.mark.parametrize("way", ["invoke", "ainvoke"])
@pytest.mark.parametrize("given", [True, False], ids=["given", "agent's own"])
async def test_a_resilient_chat_model_is_unrolled(way: str, *, given: bool):
    """Its circuits, records and observers are the middleware's: a failure counts once, wherever the call came from."""
    heard: list[Any] = []
    one = scripted("one", BusyError())
    model = resilient(one, scripted("two"), circuit=Circuit(failure_threshold=2), observers=[heard.append])
    built = agent(model, ResilientModelMiddleware(*([model] if given else [])))
    assert await answer(built, way) == ANSWER
    assert model.status()["scripted/one"]["failures_in_a_row"] == 1
    assert await ask(model, way) == ANSWER
    assert model.status()["scripted/one"]["circuit"] == "open" and len(one.calls) == 2
    assert await answer(built, way) == ANSWER
    assert len(one.calls) == 2, "the open circuit holds in the agent as well"
    assert sum(isinstance(event, Decided) for event in heard) == 3
    assert sum(isinstance(event, CircuitChanged) for event in heard) == 1


async def test_a_probe_is_inline():
    """Nothing is raced in an agent: a probe is the caller's own call, and what both policies remember is one."""
    model = resilient(scripted("one"), scripted("two"))
    own = model._engine.policy
    inside = ResilientModelMiddleware()._engine_for(model).policy
    assert own.races and not inside.races
    assert inside.gate is own.gate and inside.last_errors is own.last_errors and inside.observe is own.observe
    assert ResilientModelMiddleware(model)._engine_for(scripted()).policy is inside


async def test_a_changed_setting_holds_from_the_next_call_on():
    """A setting of the ResilientChatModel that changes is seen."""
    model = resilient(scripted("one", BusyError(), ANSWER))
    built = agent(model, ResilientModelMiddleware())
    model.max_retries = 0
    with pytest.raises(BusyError):
        await answer(built, "ainvoke")


async def test_the_agents_own_model_is_the_only_provider():
    """Without models the agent's own is retried, under an engine that is made once."""
    own = scripted("own", BusyError(), ANSWER)
    middleware = around()
    built = agent(own, middleware)
    with capture_decisions() as decisions:
        assert await answer(built, "ainvoke") == ANSWER
        assert await answer(built, "invoke") == ANSWER
    assert kinds(decisions[0]) == [("scripted/own", "overloaded"), ("scripted/own", "ok")]
    assert len(middleware._kept) == 1


def test_few_engines_are_kept():
    """An agent that makes a new model for each call leaves no trail of them."""
    middleware, seen = around(), []
    for index in range(20):
        model = scripted(f"own-{index}")
        middleware.wrap_model_call(request(model), lambda asked: asked.model.invoke("hi"))
        seen.append(weakref.ref(model))
    del model
    gc.collect()
    assert sum(item() is not None for item in seen) <= 8


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


def test_standard_parameters_reach_every_provider():
    """`stop` and parameters that a model has no field for go with each call; what the request says wins over them."""
    asked: list[ModelRequest] = []

    def handler(given: ModelRequest) -> Any:
        asked.append(given)
        return AIMessage("x")

    middleware = around(scripted("one"), stop=["END"], temperature=0.5, max_tokens=7)
    middleware.wrap_model_call(request(scripted()), handler)
    middleware.wrap_model_call(request(scripted(), model_settings={"stop": ["ALSO"], "max_tokens": 9}), handler)
    assert asked[0].model_settings == {"stop": ["END"], "temperature": 0.5, "max_tokens": 7}
    assert asked[1].model_settings == {"stop": ["ALSO"], "temperature": 0.5, "max_tokens": 9}


# ---------------------------------------------------------------------------------------------------- passing untouched
MESSAGE = AIMessage("x", usage_metadata={"input_tokens": 5, "output_tokens": 2, "total_tokens": 7})
RESULTS = [
    MESSAGE,
    ModelResponse(result=[MESSAGE, ToolMessage("done", tool_call_id="1")]),
    ExtendedModelResponse(ModelResponse(result=[MESSAGE]), Command(update={"a": 1})),
]


@pytest.mark.parametrize("colour", COLOURS)
@pytest.mark.parametrize("result", RESULTS, ids=lambda result: type(result).__name__)
async def test_what_a_handler_returns_is_returned(result: Any, colour: str):
    """Whatever form an answer has, it is returned as it is, and its message's usage is on record."""
    with capture_decisions() as decisions:
        assert await wrapped(around(), colour, request(scripted()), lambda _: result) is result
    assert decisions[0].usage is not None and tuple(decisions[0].usage)[:2] == (5, 2)


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


# ------------------------------------------------------------------------------------------------- another provider's terms
class Says(AgentMiddleware):
    """Changes the request before we see it."""

    def __init__(self, **overrides: Any) -> None:
        self.overrides = overrides
        self.tools = []

    async def awrap_model_call(self, request: ModelRequest, handler: Any) -> Any:
        return await handler(request.override(**self.overrides))


async def test_another_provider_is_asked_in_its_own_terms():
    """What was meant for the first provider is translated or left out for the next, and the record says what; the first sees all."""

    def look(place: str) -> str:
        """Look at a place."""
        return place

    with FaultServer() as server:
        server.schedule(Fault.status(503))
        first, second = instance(server, "openai"), instance(server, "anthropic", "two")
        asks = Says(
            tool_choice="none",
            model_settings={"prompt_cache_key": "k", "temperature": 0.5},
            system_message=SystemMessage([{"type": "text", "text": "Be brief."}]),
        )
        built = create_agent(first, [look], middleware=[asks, around(first, second)])
        with capture_decisions() as decisions:
            await answer(built, "ainvoke")
        one, two = (item.body for item in server.requests)
    assert one["tool_choice"] == "none" and one["prompt_cache_key"] == "k" and one["temperature"] == 0.5
    assert two["tool_choice"] == {"type": "none"} and "prompt_cache_key" not in two and two["temperature"] == 0.5
    assert [tool["name"] for tool in two["tools"]] == ["look"] and "Be brief." in str(two["system"])
    failed, answered = decisions[0].attempts
    assert not failed.changed and any("prompt_cache_key" in change for change in answered.changed)


async def test_a_conversation_is_made_portable():
    """Thinking that one provider signed is not sent to another, and the messages of the graph's state stay as they were."""
    thinking = {"type": "thinking", "thinking": "hm", "signature": "s"}
    said = AIMessage([thinking, {"type": "text", "text": "Hello."}], response_metadata={"model_provider": "anthropic"})
    with FaultServer() as server:
        model = instance(server, "openai")
        given = {"messages": [("user", "hi"), said, ("user", "and?")]}
        with capture_decisions() as decisions:
            state = await agent(model, around()).ainvoke(given)
        body = server.requests[0].body
    assert decisions[0].attempts[0].changed
    assert "signature" not in str(body) and "Hello." in str(body)
    assert thinking in state["messages"][1].content


async def test_a_model_that_retries_by_itself_is_told_of():
    """A client with retries of its own is warned about once, as the chat model does."""
    with FaultServer() as server, warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        middleware = around()
        model = instance(server, "openai", max_retries=2)
        for _ in range(2):
            await answer(agent(model, middleware), "ainvoke")
    assert sum("retries by itself" in str(item.message) for item in told) == 1


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
