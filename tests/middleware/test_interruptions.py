"""Tokens that an agent shows while its model is called: what was shown can't be taken back, so nobody else is asked after it."""

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from langchain.agents.middleware import AgentMiddleware
from langchain.agents.structured_output import ProviderStrategy, StructuredOutputValidationError
from langchain_core import exceptions as langchain
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.outputs import ChatGenerationChunk
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
from langchain_resilient.engine.events import CircuitChanged, StreamInterrupted
from langchain_resilient.engine.policy import SystemClock
from langchain_resilient.engine.store.memory import MemoryStore
from langchain_resilient.testing import Fault, FaultServer, ScriptedChatModel
from tests.agents import STREAMS, agent, around, shown
from tests.clients import ANSWER, BusyError, instance, resilient, scripted


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


async def test_nobody_is_even_looked_at_afterwards(monkeypatch: pytest.MonkeyPatch):
    """After a shown token the plan takes no step towards anybody else."""
    monkeypatch.setattr(MemoryStore, "look", lambda *_, **__: pytest.fail("looked"))
    one = scripted("one", break_after=1)
    with pytest.raises(StreamInterruptedError):
        await shown(agent(one, around(one, scripted("two"))), "astream", [])


async def test_after_a_fallback_nobody_else_is_asked():
    """The second provider's shown token ends the call as the first one's would."""
    three = scripted("three")
    models = [scripted("one", BusyError()), scripted("two", break_after=1), three]
    with pytest.raises(StreamInterruptedError), capture_decisions() as decisions:
        await shown(agent(scripted(), around(*models)), "astream", [])
    assert decisions[0].attempts[-1].provider == "scripted/two" and three.calls == []


async def test_nothing_is_waited_for_afterwards(monkeypatch: pytest.MonkeyPatch):
    """The caller hears of the break at once, although a retry would have been waited for."""
    order: list[str] = []

    async def asleep(_self: Any, seconds: float, event: Any = None) -> None:
        order.append("slept")

    monkeypatch.setattr(SystemClock, "asleep", asleep)
    models = [scripted("one", BusyError()), scripted("two", break_after=1)]
    retry = Retry(base_delay=2.0, max_retries=5)
    middleware = around(*models, retry=retry, observers=[lambda event: order.append(type(event).__name__)])
    with pytest.raises(StreamInterruptedError):
        await shown(agent(scripted(), middleware), "astream", [])
    assert order.count("Attempted") == 2 and "slept" not in order


@pytest.mark.parametrize("way", ["stream", "astream"])
async def test_wires_that_send_no_finish_reason(way: str):
    """Where none is ever sent, a stream that ends without one is whole."""
    text: list[str] = []
    model = scripted(finish_reason=None)
    await shown(agent(model, around(model)), way, text)
    assert "".join(text) == ANSWER


class LimitedError(Exception):
    """A provider's 429."""

    status_code = 429


@pytest.mark.parametrize("error", ["cut", "limited"])
async def test_observers_hear_of_an_interruption(error: str):
    """A break after a shown token is told as one event, which says that the caller has seen part of it; what broke it is its kind."""

    class Breaks(ScriptedChatModel):
        def _stream(self, *args: Any, **kwargs: Any) -> Iterator[ChatGenerationChunk]:
            yield ChatGenerationChunk(message=AIMessageChunk("All"))
            raise ConnectionError if error == "cut" else LimitedError

    heard: list[Any] = []
    model = Breaks()
    with pytest.raises(StreamInterruptedError):
        await shown(agent(model, around(model, observers=[heard.append])), "astream", [])
    kind = "stream_interrupted" if error == "cut" else "rate_limited"
    assert [event for event in heard if isinstance(event, StreamInterrupted)] == [
        StreamInterrupted("scripted/scripted", kind, shown=True)
    ]


async def test_observers_hear_that_nothing_was_shown():
    """A break before the first token is told as one that nobody saw."""
    heard: list[Any] = []
    one = scripted("one", break_after=0)
    await shown(agent(one, around(one, scripted("two"), observers=[heard.append])), "astream", [])
    assert not any(isinstance(event, StreamInterrupted) and event.shown for event in heard)
