"""The stream object that a caller is given: LiteLLM's own to look at, the engine's to read."""

from typing import Any, NamedTuple

import litellm
import pytest
from litellm import CustomStreamWrapper

from langchain_resilient.engine.errors import TruncatedStreamError
from litellm_hooks.streams import ResilientStream
from tests.litellm_hooks.world import MESSAGES


class Chunks(NamedTuple):
    """What was read of a source, and whether it was closed."""

    read: list[str]
    closed: list[bool]


def source(log: Chunks, *items: Any) -> Any:
    """The engine's chunks, sync."""
    try:
        for item in items:
            if isinstance(item, Exception):
                raise item
            log.read.append(item)
            yield item
    finally:
        log.closed.append(True)


async def asource(log: Chunks, *items: Any) -> Any:
    """The engine's chunks, async."""
    chunks = source(log, *items)
    try:
        for item in chunks:
            yield item
    finally:
        chunks.close()


@pytest.fixture
def log() -> Chunks:
    """Nothing was read yet."""
    return Chunks([], [])


@pytest.fixture
def begun() -> Any:
    """A stream of LiteLLM's own."""
    return litellm.completion(model="openai/gpt-4.1", messages=MESSAGES, stream=True, mock_response="x")


async def test_the_first_chunk_is_said_once(log, begun):
    """The chunk that was taken comes first, then the rest, sync and async."""
    assert list(ResilientStream(source(log, "b", "c"), "a", begun, "main")) == ["a", "b", "c"]
    stream = ResilientStream(asource(log, "b", "c"), "a", begun, "main")
    assert [chunk async for chunk in stream] == ["a", "b", "c"]


def test_it_is_litellm_s_stream_to_look_at(log, begun):
    """It is of LiteLLM's type and tells what the stream that began tells."""
    stream = ResilientStream(source(log), "a", begun, "main")
    assert isinstance(stream, CustomStreamWrapper)
    assert stream._hidden_params == begun._hidden_params
    assert (stream.model, stream.logging_obj) == (begun.model, begun.logging_obj)


def test_nothing_is_read_ahead(log, begun):
    """A chunk is read when it is asked for."""
    stream = ResilientStream(source(log, "b", "c"), "a", begun, "main")
    assert (next(stream), log.read) == ("a", [])
    assert (next(stream), log.read) == ("b", ["b"])


async def test_letting_go_lets_go_of_the_provider(log, begun):
    """Closed early, sync or async, it closes what it reads from; a second time nothing happens."""
    stream = ResilientStream(source(log, "b", "c"), "a", begun, "main")
    assert [next(stream), next(stream)] == ["a", "b"]
    stream.close()
    stream.close()
    assert log.closed == [True]
    astream = ResilientStream(asource(log, "b", "c"), "a", begun, "main")
    assert [await anext(astream), await anext(astream)] == ["a", "b"]
    await astream.aclose()
    await astream.aclose()
    assert log.closed == [True, True]


async def test_what_breaks_is_litellm_s_exception(log, begun):
    """An error of ours in the midst of a stream is one of LiteLLM's, with ours as its cause."""
    broken = TruncatedStreamError("cut")
    with pytest.raises(litellm.APIConnectionError) as caught:
        list(ResilientStream(source(log, broken), "a", begun, "main"))
    assert caught.value.__cause__ is broken
    with pytest.raises(litellm.APIConnectionError):
        [chunk async for chunk in ResilientStream(asource(log, broken), "a", begun, "main")]
