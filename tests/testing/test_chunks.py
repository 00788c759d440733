"""FaultServer's streams: where they are cut into chunks, what may follow the k-th, and that a client's leaving is seen."""

import asyncio
import json
from contextlib import suppress

import httpx
import pytest
from langchain_core.language_models import BaseChatModel

from langchain_resilient.testing.fault_server import Fault, FaultServer
from langchain_resilient.testing.wires.base import Reply
from tests.testing.paths import PATHS
from tests.texts import TEXTS, chunks, sizes

TEXT = "añ👨‍👩‍👧 שלום e\u0301x\r\n  y"


@pytest.mark.parametrize("sizes", [(1,), (3, 1), (100,), (2, 5, 1)])
def test_chunks_have_the_sizes_told(server: FaultServer, model: BaseChatModel, sizes: tuple[int, ...]):
    """A streamed text is cut at code points into the sizes told, taken over and over, and joins to itself."""
    server.answer(TEXT, chunk_sizes=sizes)
    chunks = [chunk.text for chunk in model.stream("hi") if chunk.text]
    assert "".join(chunks) == TEXT
    assert [len(chunk) for chunk in chunks[:-1]] == [sizes[i % len(sizes)] for i in range(len(chunks) - 1)]
    assert model.invoke("hi").text == TEXT


def test_chunks_in_full():
    """Three, one, three, one code points, the last chunk as it comes; an empty text has no chunk."""
    assert Reply("abcdefghij", 1, 1, sizes=(3, 1)).parts() == ["abc", "d", "efg", "h", "ij"]
    assert Reply("", 1, 1, sizes=(3, 1)).parts() == []


@pytest.mark.parametrize("name", TEXTS)
def test_every_text_arrives_whole(server: FaultServer, model: BaseChatModel, name: str):
    """Each text for cut tests is 40 to 400 code points long, and reaches a real client unchanged in the chunks it is cut into."""
    assert 40 <= len(TEXTS[name]) <= 400
    server.answer(TEXTS[name], chunk_sizes=sizes(name))
    assert [chunk.text for chunk in model.stream("hi") if chunk.text] == chunks(name)
    assert "".join(chunks(name)) == TEXTS[name] == model.invoke("hi").text


def test_a_seed_cuts_anew():
    """The same name and seed give the same chunks, of 1 to 12 code points; another seed gives others."""
    assert chunks("json") == chunks("json") != chunks("json", seed=1)
    assert {len(chunk) for name in TEXTS for chunk in chunks(name)} == set(range(1, 13))


@pytest.mark.parametrize(
    ("fault", "ends"),
    [
        (Fault.truncate(2), None),
        (Fault.close_after(2), "incomplete chunked read"),
        (Fault.reset_after(2), "reset by peer"),
        (Fault.malformed(2), "Expecting|Unterminated|delimiter"),
        (Fault.in_band_error(2), "overload|busy"),
    ],
    ids=str,
)
def test_what_follows_the_second_chunk(server: FaultServer, model: BaseChatModel, fault: Fault, ends: str | None):
    """After two chunks of the sizes told the stream ends as told: cleanly, by FIN, by RST, in nonsense or in an error."""
    server.answer("abcdefgh", chunk_sizes=(3, 1))
    server.schedule(fault)
    shown: list[str] = []
    error = None
    try:
        shown.extend(chunk.text for chunk in model.stream("hi") if chunk.text)
    except Exception as caught:
        error = caught
    assert shown == ["abc", "d"]
    if ends is None:
        assert error is None
        return
    told = [error]
    while told[-1].__cause__ or told[-1].__context__:
        told.append(told[-1].__cause__ or told[-1].__context__)
    assert any(word in f"{item} {getattr(item, 'body', '')}" for item in told for word in ends.split("|"))


def test_signs_of_life_after_content(server: FaultServer, model: BaseChatModel):
    """After its first chunks a provider may send pings and deltas without text only, which no client takes for content."""
    server.answer("abcdefgh", chunk_sizes=(3,))
    server.schedule(Fault.keepalive(0.01, seconds=0.1, chunks=2, empty_deltas=True))
    assert [chunk.text for chunk in model.stream("hi") if chunk.text] == ["abc", "def"]
    assert server.requests[0].outcome == "keepalive(2)"


def test_empty_deltas_are_on_the_wire(server: FaultServer, wire: str):
    """Every other sign of life is a delta of the wire's own form whose text is empty, behind a proper opening."""
    server.schedule(Fault.keepalive(0.01, seconds=0.1, empty_deltas=True))
    raw = httpx.post(server.url + PATHS[wire], json={"model": "m", "messages": [], "stream": True}).text
    lines = [line.removeprefix("data: ") for line in raw.splitlines() if line.startswith(("data: ", "{"))]
    events = [json.loads(line) for line in lines]
    if wire == "openai":
        deltas = [e["choices"][0]["delta"] for e in events]
        assert deltas[0]["role"] == "assistant" and {"content": ""} in deltas and ": keep-alive" in raw
    elif wire == "anthropic":
        kinds = [e["type"] for e in events]
        assert kinds[:2] == ["message_start", "content_block_start"] and {"ping", "content_block_delta"} <= set(kinds)
        assert all(e["delta"]["text"] == "" for e in events if e["type"] == "content_block_delta")
    else:
        assert events and all(e["message"]["content"] == "" and not e["done"] for e in events)


# ── The client goes away ─────────────────────────────────────────────────────────────────────────────────────────────

ENDLESS = [Fault.hang_after(2), Fault.keepalive(0.02, chunks=2), Fault.slow(0, chunk_delay=0.02)]


@pytest.mark.parametrize("fault", ENDLESS, ids=str)
def test_a_closed_stream_is_seen(server: FaultServer, model: BaseChatModel, fault: Fault):
    """A sync client that stops reading in mid-stream is noted as gone, whatever the server was doing."""
    server.answer("word " * 5000)
    server.schedule(fault)
    stream = model.stream("hi")
    while not next(stream).text:
        pass
    stream.close()
    assert server.requests[0].wait_ended() and server.requests[0].disconnected


@pytest.mark.parametrize("fault", ENDLESS, ids=str)
async def test_a_closed_async_stream_is_seen(server: FaultServer, model: BaseChatModel, fault: Fault):
    """An async client that stops reading in mid-stream is noted as gone, whatever the server was doing."""
    server.answer("word " * 5000)
    server.schedule(fault)
    stream = model.astream("hi")
    async for chunk in stream:
        if chunk.text:
            break
    await stream.aclose()
    # In a thread: openai's client leaves the closing of an abandoned response to the loop.
    assert await asyncio.to_thread(server.requests[0].wait_ended) and server.requests[0].disconnected


def test_a_client_that_stays_is_not_gone(server: FaultServer, model: BaseChatModel):
    """Whoever reads to the end, be it broken or not, has not gone away."""
    server.schedule(Fault.ok(), Fault.truncate(1), Fault.close_after(1), Fault.keepalive(0.01, seconds=0.05, chunks=1))
    for _ in range(4):
        with suppress(Exception):  # what each of them looks like is tested above
            list(model.stream("hi"))
    assert all(request.wait_ended() and not request.disconnected for request in server.requests)
