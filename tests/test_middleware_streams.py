"""Tokens that an agent shows while its model is called: what was shown can't be taken back, so nobody else is asked after it."""

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import AgentMiddleware
from langchain.agents.structured_output import ProviderStrategy, StructuredOutputValidationError
from langchain_core import exceptions as langchain
from langchain_core.callbacks import AsyncCallbackHandler, BaseCallbackHandler, get_usage_metadata_callback
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.outputs import ChatGenerationChunk
from langchain_core.tracers.context import collect_runs
from langgraph.errors import GraphBubbleUp
from pydantic import BaseModel

from langchain_resilient import (
    Circuit,
    ResilientModelMiddleware,
    Retry,
    StreamInterruptedError,
    Timeouts,
    capture_decisions,
)
from langchain_resilient.engine.events import CircuitChanged
from langchain_resilient.testing import Fault, FaultServer, ScriptedChatModel
from tests.clients import ANSWER, BusyError, fresh, instance, resilient, scripted

QUESTION = {"messages": [("user", "hi")]}
STREAMS = ("stream", "astream", "astream_events", "stream_events")


def around(*models: Any, **settings: Any) -> ResilientModelMiddleware:
    """The middleware over these models, without backoff."""
    fixed = {"namespace": fresh(), "retry": Retry(base_delay=0.0)}
    return ResilientModelMiddleware(*models, **(fixed | settings))


def agent(model: Any, *middleware: Any, **settings: Any) -> Any:
    """An agent without tools."""
    return create_agent(model, middleware=list(middleware), **settings)


async def shown(agent: Any, way: str, text: list[str]) -> None:
    """Puts the tokens that a caller sees into `text`, as they come."""
    if way == "stream":
        for message, _ in agent.stream(QUESTION, stream_mode="messages"):
            text.append(message.text)
    elif way == "astream":
        async for message, _ in agent.astream(QUESTION, stream_mode="messages"):
            text.append(message.text)
    elif way == "astream_events":
        async for event in agent.astream_events(QUESTION, version="v2"):
            if event["event"] == "on_chat_model_stream":
                text.append(event["data"]["chunk"].text)
    else:
        for event in agent.stream_events(QUESTION, version="v3"):
            if event["method"] == "messages" and event["params"]["data"][0].get("event") == "content-block-delta":
                text.append(event["params"]["data"][0]["delta"]["text"])


@pytest.mark.parametrize("way", STREAMS)
async def test_after_a_shown_token_nobody_else_is_asked(way: str):
    """A call that breaks after tokens were shown raises what was shown, once; the circuit hears of a broken stream."""
    two = scripted("two")
    model = resilient(scripted("one", break_after=2), two, circuit=Circuit(failure_threshold=1))
    heard: list[Any] = []
    model.observers = [heard.append]
    text: list[str] = []
    with capture_decisions() as decisions, pytest.raises(StreamInterruptedError) as caught:
        await shown(agent(model, ResilientModelMiddleware()), way, text)
    assert "".join(text) == caught.value.partial == "All is"
    assert isinstance(caught.value, langchain.ModelConnectionError), "widened, as the chat model's"
    assert isinstance(caught.value.__cause__, ConnectionError)
    assert [attempt.kind for attempt in decisions[0].attempts] == ["stream_interrupted"] and two.calls == []
    assert model.status()["scripted/one"]["circuit"] == "open"
    assert any(isinstance(event, CircuitChanged) for event in heard), "the observers hear of it as well"
    assert model._engine.policy.gate.pending == 0 and model.status()["scripted/one"]["in_flight"] == 0


@pytest.mark.parametrize("alone", [True, False])
async def test_it_is_the_same_for_one_provider(*, alone: bool):
    """With one provider, or with no attempt left, the error is the same: it is not retried and not put into a group."""
    one = scripted("one", break_after=1)
    models = [one] if alone else [scripted("failed", BusyError()), one]
    with pytest.raises(StreamInterruptedError) as caught:
        await shown(agent(one, around(*models, max_retries=0)), "astream", [])
    assert caught.value.partial == "All" and len(one.calls) == 1


@pytest.mark.parametrize("way", STREAMS)
async def test_before_the_first_token_the_next_answers(way: str):
    """A stream that breaks before anything was shown falls over, and the caller sees one answer."""
    text: list[str] = []
    one = scripted("one", break_after=0)
    await shown(agent(one, around(one, scripted("two"))), way, text)
    assert "".join(text) == ANSWER


class Reports(ScriptedChatModel):
    def _stream(self, *args: Any, **kwargs: Any) -> Iterator[ChatGenerationChunk]:
        """Says how many tokens the prompt had, and breaks."""
        usage = {"input_tokens": 7, "output_tokens": 1, "total_tokens": 8}
        yield ChatGenerationChunk(message=AIMessageChunk("All", usage_metadata=usage))
        raise BusyError


async def test_usage_so_far():
    """What the provider had reported of its tokens is told."""
    model = Reports()
    with pytest.raises(StreamInterruptedError) as caught:
        await shown(agent(model, around(model)), "stream", [])
    assert (caught.value.usage.input, caught.value.usage.output, caught.value.partial) == (7, 1, "All")


@pytest.mark.parametrize("wire", ["openai", "anthropic"])
@pytest.mark.parametrize("way", ["stream", "astream"])
async def test_a_truncated_stream(wire: str, way: str):
    """A shown answer that ends without a finish reason, on a wire that always sends one, is no answer."""
    with FaultServer() as server:
        server.always(Fault.truncate(2))
        model = instance(server, wire)
        text: list[str] = []
        with pytest.raises(StreamInterruptedError) as caught:
            await shown(agent(model, around(model, scripted())), way, text)
    assert caught.value.partial == "".join(text) != ""


@pytest.mark.parametrize("way", ["invoke", "ainvoke"])
async def test_tokens_that_nobody_sees(way: str):
    """Ollama's client tells callbacks of tokens even of an unstreamed call: if nobody listens, the next provider answers."""
    with FaultServer() as server:
        server.always(Fault.reset_after(2))
        model = instance(server, "ollama")
        built = agent(model, around(model, scripted("two"), max_retries=0))
        state = built.invoke(QUESTION) if way == "invoke" else await built.ainvoke(QUESTION)
    assert state["messages"][-1].text == ANSWER


class Prints(BaseCallbackHandler):
    def on_llm_new_token(self, token: str, **kwargs: Any) -> None:
        """Shows it."""


class PrintsAsync(AsyncCallbackHandler):
    async def on_llm_new_token(self, token: str, **kwargs: Any) -> None:
        """Shows it."""


class Counts(BaseCallbackHandler):
    def on_llm_end(self, *args: Any, **kwargs: Any) -> None:
        """Hears of no token."""


@pytest.mark.parametrize(("handler", "listens"), [(Prints(), True), (PrintsAsync(), True), (Counts(), False)])
@pytest.mark.parametrize("where", ["call", "model"])
async def test_who_listens(handler: Any, where: str, *, listens: bool):
    """A callback for tokens, of the call or of the model itself, shows them; one that hears of ends only does not."""
    with FaultServer() as server:
        server.always(Fault.reset_after(2))
        model = instance(server, "ollama", **({"callbacks": [handler]} if where == "model" else {}))
        built = agent(model, around(model, scripted("two"), max_retries=0))
        config = {"callbacks": [handler]} if where == "call" else {}
        if listens:
            with pytest.raises(StreamInterruptedError):
                await built.ainvoke(QUESTION, config=config)
        else:
            assert (await built.ainvoke(QUESTION, config=config))["messages"][-1].text == ANSWER


async def test_nothing_is_doubled():
    """Runs, tokens and usage of an agent are the bare model's agent's: listening adds no run."""

    async def counted(built: Any) -> tuple[Any, Any, int, str]:
        text: list[str] = []
        with get_usage_metadata_callback() as usage, collect_runs() as runs:
            await shown(built, "astream", text)
        return usage.usage_metadata, len(runs.traced_runs), len(text), "".join(text)

    bare, model = scripted(), scripted()
    assert await counted(agent(model, around(model))) == await counted(agent(bare))


async def test_tokens_of_a_slow_stream_keep_it_alive():
    """A stream may go on for longer than an unstreamed answer may take, as long as tokens come."""
    with FaultServer() as server:
        server.answer(" ".join(["word"] * 20), chunk_delay=0.05)
        model = instance(server, "openai")
        text: list[str] = []
        limits = Timeouts(response=0.5, idle=30.0)
        await shown(agent(model, around(model, timeouts=limits)), "astream", text)
    assert "".join(text).count("word") == 20


async def test_a_stream_that_falls_silent():
    """One that says nothing more within the idle limit is broken off, and the cause names the limit."""
    with FaultServer() as server:
        server.always(Fault.hang_after(2))
        model = instance(server, "openai", timeout=30.0)
        limits = Timeouts(response=0.3, idle=0.3)
        with pytest.raises(StreamInterruptedError) as caught:
            await shown(agent(model, around(model, timeouts=limits)), "astream", [])
    assert getattr(caught.value.__cause__, "limit", None) == "idle"


@pytest.mark.parametrize("colour", ["sync", "async"])
async def test_the_graphs_own_interrupt_passes_after_a_token_too(colour: str):
    """What the graph says is no broken stream, whatever was shown."""

    class Interrupts(AgentMiddleware):
        tools = ()

        def wrap_model_call(self, request: Any, handler: Any) -> Any:
            handler(request)
            raise GraphBubbleUp

        async def awrap_model_call(self, request: Any, handler: Any) -> Any:
            await handler(request)
            raise GraphBubbleUp

    model = resilient(scripted("one"), scripted("two"))
    built = agent(model, ResilientModelMiddleware(), Interrupts())
    text: list[str] = []
    # LangGraph keeps it from the caller in some of its ways.
    with capture_decisions() as decisions, suppress(GraphBubbleUp):
        await shown(built, "stream" if colour == "sync" else "astream", text)
    assert decisions[0].outcome == "cancelled" and "".join(text) == ANSWER
    assert model.status()["scripted/one"]["failures_in_a_row"] == 0


async def test_a_shown_answer_that_does_not_parse():
    """A whole answer was shown, so there is no second one: LangChain's own exception comes, as from the bare model."""

    class Forecast(BaseModel):
        """A forecast."""

        city: str

    with FaultServer() as server:
        server.answer('{"place": "Paris"}')
        model = instance(server, "openai")
        built = agent(model, around(model, scripted("two")), response_format=ProviderStrategy(Forecast))
        with pytest.raises(StructuredOutputValidationError) as caught:
            await shown(built, "astream", [])
        assert server.count == 1 and isinstance(caught.value.ai_message, AIMessage)
