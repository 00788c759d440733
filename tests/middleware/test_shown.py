"""Who sees an agent's tokens, and what counts as seen."""

import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from langchain_core.callbacks import AsyncCallbackHandler, BaseCallbackHandler, get_usage_metadata_callback, manager
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from langchain_core.tracers.base import AsyncBaseTracer
from langchain_core.tracers.context import collect_runs
from langchain_core.tracers.log_stream import LogStreamCallbackHandler
from langchain_core.tracers.run_collector import RunCollectorCallbackHandler

from langchain_resilient import StreamInterruptedError
from langchain_resilient.middleware.shown import _SHOWN, Shown, somebody_listens
from langchain_resilient.testing import Fault, FaultServer, ScriptedChatModel
from tests.agents import QUESTION, agent, answer, around, request, shown
from tests.clients import ANSWER, BusyError, instance, scripted


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


class CountsAsync(AsyncCallbackHandler):
    async def on_llm_end(self, *args: Any, **kwargs: Any) -> None:
        """Hears of no token."""


class Writes(AsyncBaseTracer):
    async def _persist_run(self, run: Any) -> None:
        """Writes it down."""


@pytest.mark.parametrize(
    ("handler", "listens"),
    [
        (Prints(), True),
        (PrintsAsync(), True),
        (Counts(), False),
        (RunCollectorCallbackHandler(), False),
        (Writes(), False),
        (CountsAsync(), False),
    ],
)
@pytest.mark.parametrize("where", ["call", "model"])
async def test_who_listens(handler: Any, where: str, *, listens: bool):
    """A callback for tokens, of the call or of the model itself, shows them; one that hears of ends only, or a tracer, does not."""
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


def test_a_tracer_that_shows():
    """One that LangChain itself reads a stream from (`astream_log`) shows tokens, though it is a tracer."""
    assert somebody_listens(scripted(callbacks=[LogStreamCallbackHandler()]))
    assert not somebody_listens(scripted(callbacks=[RunCollectorCallbackHandler()]))


async def test_nothing_is_doubled():
    """Runs, tokens and usage of an agent are the bare model's agent's: listening adds no run."""

    async def counted(built: Any) -> tuple[Any, Any, int, str]:
        text: list[str] = []
        with get_usage_metadata_callback() as usage, collect_runs() as runs:
            await shown(built, "astream", text)
        return usage.usage_metadata, len(runs.traced_runs), len(text), "".join(text)

    bare, model = scripted(), scripted()
    assert await counted(agent(model, around(model))) == await counted(agent(bare))


class Pours(ScriptedChatModel):
    """Streams these chunks, and breaks."""

    chunks: list[str]

    def _stream(self, *args: Any, **kwargs: Any) -> Iterator[ChatGenerationChunk]:
        for text in self.chunks:
            yield ChatGenerationChunk(message=AIMessageChunk(text))
        raise BusyError


class Mutters(ScriptedChatModel):
    """Tells callbacks a token without its chunk, as older partner packages do, and breaks."""

    token: str

    def _generate(self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> ChatResult:
        run_manager.on_llm_new_token(self.token)
        raise BusyError

    async def _agenerate(self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> ChatResult:
        await run_manager.on_llm_new_token(self.token)
        raise BusyError


@pytest.mark.parametrize("way", ["stream", "astream"])
async def test_an_empty_chunk_shows_nothing(way: str):
    """A stream that breaks after a keep-alive falls over, as nobody has seen anything of it."""
    model, text = Pours(chunks=[""]), []
    await shown(agent(model, around(model, scripted("two"), max_retries=1)), way, text)
    assert "".join(text) == ANSWER


@pytest.mark.parametrize("way", ["invoke", "ainvoke"])
@pytest.mark.parametrize("token", ["", "All"])
async def test_a_token_without_a_chunk(token: str, way: str):
    """It counts as shown by its text alone."""
    model = Mutters(token=token)
    built = agent(model, around(model, scripted("two"), max_retries=1))
    if token:
        with pytest.raises(StreamInterruptedError) as caught:
            await answer(built, way, config={"callbacks": [Prints()]})
        assert caught.value.partial == "All"
    else:
        assert await answer(built, way, config={"callbacks": [Prints()]}) == ANSWER


@pytest.mark.parametrize("way", ["invoke", "ainvoke"])
async def test_listening_writes_no_prompt_out(monkeypatch: pytest.MonkeyPatch, way: str):
    """A long conversation is not made one string for each attempt only because it is listened to."""
    written: list[Any] = []
    monkeypatch.setattr(manager, "get_buffer_string", lambda *args, **_: written.append(args) or "")
    await answer(agent(scripted(), around()), way)
    assert written == []


async def test_listening_takes_no_thread(monkeypatch: pytest.MonkeyPatch):
    """A token is heard in the thread that tells it, before anything that follows."""
    threads: set[int] = set()
    monkeypatch.setattr(Shown, "_say", lambda _self, **_: threads.add(threading.get_ident()))
    await shown(agent(scripted(), around()), "astream", [])
    assert threads == {threading.get_ident()}


@pytest.mark.parametrize("raised", [None, BusyError()])
def test_nothing_is_listened_to_afterwards(raised: Exception | None):
    """An attempt's listener hears nothing that runs after it, however it ended."""
    heard: list[Any] = []

    def handler(_: Any) -> Any:
        heard.append(_SHOWN.get())
        if raised is not None:
            raise raised
        return AIMessage("x")

    with suppress(BusyError):
        around(max_retries=0).wrap_model_call(request(scripted()), handler)
    assert isinstance(heard[0], Shown) and _SHOWN.get() is None
