"""Real clients over real HTTP: whoever breaks, however, and whoever goes on, the caller reads one text."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from itertools import product
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.messages import AIMessage
from langchain_core.tools import tool
from pydantic import BaseModel

from langchain_resilient import Retry, StreamInterruptedError, Timeouts, capture_decisions
from langchain_resilient.testing import Fault, FaultServer, Repeat
from tests.clients import WIRES, spec
from tests.continued import BROKEN, SHOWN, TEXT, Pair, obeying, pair

pytestmark = pytest.mark.e2e

PAIRS = list(product(WIRES, WIRES))
QUESTION = "What happened?"
BREAKS = {  # how it breaks: the kind on record
    "is reset": (Fault.reset_after(4), "server_error"),
    "is closed": (Fault.close_after(4), "server_error"),
    "says overloaded": (Fault.in_band_error(4), "overloaded"),
    "falls silent": (Fault.hang_after(4), "timeout"),
    "ends early": (Fault.truncate(4), "stream_interrupted"),
}


@tool
def get_weather(city: str) -> str:
    """Tell the weather of a city."""
    return f"It rains in {city}."


class Weather(BaseModel):
    """The weather."""

    city: str


# ── Ways to read a stream ────────────────────────────────────────────────────────────────────────────────────────────


async def streamed(model: Any) -> str:
    """The sync way."""
    return "".join(chunk.text for chunk in model.stream(QUESTION))


async def astreamed(model: Any) -> str:
    """The async way."""
    return "".join([chunk.text async for chunk in model.astream(QUESTION)])


async def events(model: Any) -> str:
    """By events, whose last one holds the same text."""
    shown, ends = [], []
    async for event in model.astream_events(QUESTION, version="v2"):
        if event["event"] == "on_chat_model_stream":
            shown.append(event["data"]["chunk"].text)
        elif event["event"] == "on_chat_model_end":
            ends.append(event["data"]["output"].text)
    assert ends == ["".join(shown)]
    return ends[0]


async def third_events(model: Any) -> str:
    """By events of the third version."""
    stream = model.stream_events(QUESTION, version="v3")
    shown = "".join(stream.text)
    assert stream.output.text == shown
    return shown


async def agent(model: Any) -> str:
    """By LangGraph's messages, out of an agent with a tool; its state holds one message with the same text."""
    built = create_agent(model, [get_weather])
    shown, state = [], {}
    for mode, part in built.stream({"messages": [("user", QUESTION)]}, stream_mode=["messages", "values"]):
        if mode == "values":
            state = part
        elif isinstance(part[0], AIMessage):
            shown.append(part[0].text)
    assert [message.text for message in state["messages"]] == [QUESTION, "".join(shown)]
    return "".join(shown)


WAYS = {way.__name__: way for way in (streamed, astreamed, events, third_events, agent)}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("first", "second"), PAIRS)
async def test_the_text_comes_whole_by_every_way(first: str, second: str, way: str):
    """Anthropic's is given what was shown, any other is told in words; both servers are asked once."""
    with pair(first, second) as (model, one, two):
        assert await WAYS[way](model) == TEXT
        assert (one.count, two.count) == (1, 1)
        asked = two.requests[0].body["messages"]
    roles = ["assistant"] if second == "anthropic" else ["assistant", "user"]
    assert [message["role"] for message in asked][-len(roles) - 1 :] == ["user", *roles]


@pytest.mark.parametrize("name", BREAKS)
@pytest.mark.parametrize(("first", "second"), PAIRS)
async def test_however_it_breaks(first: str, second: str, name: str):
    """A reset, an end, an error, silence or truncation after four chunks: all one to the caller."""
    fault, kind = BREAKS[name]
    # Silence alone is waited for. What a client imports for its first answer is no silence: that limit is the usual one.
    timeouts = Timeouts(idle=0.3) if name == "falls silent" else Timeouts()
    with pair(first, second, fault, timeouts=timeouts) as (model, *_), capture_decisions() as decisions:
        assert await astreamed(model) == TEXT
    [decision] = decisions
    assert [attempt.kind for attempt in decision.attempts] == [kind, "ok"]
    assert (decision.outcome, decision.continued) == ("answered", 1)


@pytest.mark.parametrize("where", range(1, 21))
async def test_wherever_it_breaks(where: int):
    """After any of its chunks but the last; the client cuts what it is given at its end, so that a blank may be said again."""
    for second in WIRES:
        with pair("openai", second, Fault.reset_after(where)) as (model, *_):
            assert await astreamed(model) == TEXT


# ── How it goes on ───────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("prefill", ["continue", "trimmed", "restart"])
@pytest.mark.parametrize("second", WIRES)
async def test_a_begun_answer_goes_on(second: str, prefill: Any):
    """A provider that its user says takes one is given it, and may say the blank at its end again or not, or start from the top."""
    with pair("openai", second, Fault.reset_after(1), prefill=True) as (model, one, two):
        one.answer(TEXT, chunk_sizes=(47,))
        two.answer(TEXT, prefill=prefill)
        assert await astreamed(model) == TEXT
        assert two.requests[0].begun_by == "prefill"


@pytest.mark.parametrize("instructed", ["restart", Repeat(60)], ids=["from the top", "from earlier on"])
@pytest.mark.parametrize("second", WIRES)
async def test_an_instruction_that_is_not_followed(second: str, instructed: Any):
    """What is said once more, from the top or from before the words it was to begin with, is not shown again."""
    with pair("openai", second, Fault.reset_after(9), prefill=False) as (model, _, two):
        two.answer(TEXT, instructed=instructed)
        assert await astreamed(model) == TEXT


@pytest.mark.parametrize("second", WIRES)
async def test_a_begun_answer_that_is_refused(second: str):
    """The provider is asked at once in words, in the same request; and from then on in words only."""
    with pair("openai", second, prefill=True, retry=Retry()) as (model, _, two):
        two.answer(obeying(), prefill="refuse")
        assert [await astreamed(model) for _ in range(2)] == [TEXT, TEXT]
        assert [record.outcome for record in two.requests] == ["prefill refused", "ok", "ok"]


@pytest.mark.parametrize(("second", "third"), PAIRS)
async def test_a_second_interruption(second: str, third: str):
    """The third provider is given both parts; nothing is lost or said twice at either seam."""
    with FaultServer() as last:
        last.answer(obeying(), prefill="continue")
        with pair("openai", second, BROKEN, spec(last, third, "third")) as (model, _, two):
            two.always(Fault.reset_after(12))
            with capture_decisions() as decisions:
                assert await astreamed(model) == TEXT
    assert decisions[0].continued == 2


async def test_the_same_provider_goes_on_where_there_is_no_other():
    """The only provider is asked again, in words."""
    with FaultServer() as server:
        server.answer(obeying())
        server.schedule(Fault.reset_after(4))
        with pair("openai", "openai") as (model, *_):
            alone = model.model_copy(update={"providers": [spec(server, "openai", "gpt-4.1")]})
            assert await astreamed(alone) == TEXT


async def test_many_at_once():
    """Answers that break side by side in one model, in threads and tasks, are joined each to its own."""
    with pair("openai", "anthropic") as (model, *_):
        for provider in model.status():
            model.override(provider, "disabled")
        inside = [asyncio.to_thread(asyncio.run, streamed(model)) for _ in range(4)]
        assert await asyncio.gather(*inside, *[astreamed(model) for _ in range(8)]) == [TEXT] * 12


# ── What is not continued ────────────────────────────────────────────────────────────────────────────────────────────


async def told(chunks: AsyncIterator[Any]) -> tuple[str, StreamInterruptedError]:
    """What was shown, and the error that says why that is all."""
    shown = []
    with pytest.raises(StreamInterruptedError) as caught:
        async for chunk in chunks:
            shown.append(chunk)
    return "".join(chunk.text for chunk in shown), caught.value


@pytest.mark.parametrize("second", WIRES)
@pytest.mark.parametrize("first", ["openai", "anthropic"])  # Ollama's calls come in one piece
async def test_a_begun_tool_call_is_not_continued(first: str, second: str):
    """Half of its arguments may have been shown, and nobody else can write the other half."""
    with pair(first, second, Fault.reset_after(2)) as (model, one, two):
        one.answer_with_tool("get_weather", {"city": "Bath", "day": "Monday", "hour": "noon"})
        shown, error = await told(model.bind_tools([get_weather]).astream(QUESTION))
        assert (shown, error.partial, two.count) == ("", "", 0)


JSON = {
    "openai": {"response_format": {"type": "json_object"}},
    "anthropic": {"output_config": {"format": {"type": "json_schema", "schema": {"type": "object"}}}},
    "ollama": {"format": "json"},
}


@pytest.mark.parametrize("wire", WIRES)
async def test_json_is_not_continued(wire: str):
    """Neither where a call asks for it, in its provider's way, nor a schema; the error holds what was shown."""
    with pair(wire, "openai") as (model, one, two):
        one.answer('{"city": "Bath and some more words", "days": 3}')
        shown, error = await told(model.astream(QUESTION, **JSON[wire]))
        assert shown == error.partial == '{"city": "Bath and some'
        for method in ("json_schema", "json_mode") if wire == "openai" else ("json_schema",):
            with pytest.raises(StreamInterruptedError):
                [part async for part in model.with_structured_output(Weather, method=method).astream(QUESTION)]
        assert two.count == 0


@pytest.mark.parametrize("wire", WIRES)
async def test_raise_tells_at_once(wire: str):
    """With "raise" the caller gets what was shown in an error, and nobody else is asked."""
    with pair(wire, "openai", on_interruption="raise") as (model, _, two):
        shown, error = await told(model.astream(QUESTION))
        assert (shown, error.partial, two.count) == (SHOWN, SHOWN, 0)


@pytest.mark.parametrize(("first", "second"), PAIRS)
async def test_restart_shows_one_answer_alone(first: str, second: str):
    """With "restart" nothing is shown before the end, and the second answer owes nothing to the first."""
    other = "Quite another answer: it snowed."
    with pair(first, second, on_interruption="restart") as (model, _, two):
        two.answer(other)
        assert await astreamed(model) == other
        assert len(two.requests[0].body["messages"]) == 1


# ── The caller leaves ────────────────────────────────────────────────────────────────────────────────────────────────


def _slowly(servers: Pair) -> None:
    servers.second.answer(obeying(TEXT + " word" * 500), prefill="continue", chunk_delay=0.02)


@pytest.mark.parametrize("second", WIRES)
async def test_a_caller_that_leaves_the_second_part(second: str):
    """Both calls upstream are over: the one that fell silent, and the one that goes on."""
    with pair("openai", second, Fault.hang_after(4), timeouts=Timeouts(idle=0.3)) as servers:
        _slowly(servers)
        chunks, shown = servers.model.astream(QUESTION), ""
        async for chunk in chunks:
            shown += chunk.text
            if len(shown) > len(SHOWN):
                break
        await chunks.aclose()
        for record in (*servers.first.requests, *servers.second.requests):
            assert await asyncio.to_thread(record.wait_ended, 3.0)
            assert record.disconnected
    assert (TEXT + " word" * 500).startswith(shown)


@pytest.mark.parametrize("second", WIRES)
def test_a_sync_caller_that_leaves_the_second_part(second: str):
    """The same from a thread."""
    with pair("openai", second) as servers:
        _slowly(servers)
        chunks: Iterator[Any] = servers.model.stream(QUESTION)
        shown = ""
        while len(shown) <= len(SHOWN):
            shown += next(chunks).text
        chunks.close()
        [record] = servers.second.requests
        assert record.wait_ended(3.0)
        assert record.disconnected
