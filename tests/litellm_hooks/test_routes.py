"""Anthropic's messages and OpenAI's responses through the Router, over real HTTP: each fault, streamed and not.

Neither is continued after its first content: then the error comes, and it is the only one of the request.
"""

import asyncio
import json
from itertools import product

import litellm
import pytest

from langchain_resilient import capture_decisions
from langchain_resilient.testing import Fault
from tests.litellm_hooks.world import TEXT

ASKED = {
    "aanthropic_messages": {"messages": [{"role": "user", "content": "What happened?"}], "max_tokens": 50},
    "aresponses": {"input": "What happened?"},
}
FAULTS = {
    "overloaded": Fault.status(503),
    "rate limited": Fault.status(429),
    "bad key": Fault.status(401),
    "silence": Fault.hang(),
    "closed at once": Fault.close_after(0),
    "keep-alives": Fault.keepalive(0.03),
    "refused inside": Fault.in_band_error(0),
}
SILENT = ("silence", "keep-alives", "stalled")
BREAKS = {"closed": Fault.close_after(2), "stalled": Fault.hang_after(2)}
CELLS = list(product(FAULTS, ASKED, [False, True]))


def model(world, server, name, group):
    """A deployment that speaks Anthropic's wire."""
    told = {"model": "anthropic/claude-sonnet-4-5", "api_base": server.base_url("anthropic"), "api_key": "test"}
    return {"model_name": group, "litellm_params": told, "model_info": {"id": f"{world.namespace}-{name}"}}


def pair(world, limit=20.0):
    """A Router with a first provider and a fallback group, and both servers; `limit` (seconds) is for whoever is silent."""
    first, second = world.server(), world.server()
    models = [model(world, first, "a", "main"), model(world, second, "b", "back")]
    router = world.router(*models, fallbacks=[{"main": ["back"]}])
    world.install(router, timeouts={"first_token": limit, "idle": limit, "response": limit}, retry={"base_delay": 0.0})
    return router, first, second


async def ask(router, route, shown, *, stream):
    """The text that a client reads, as far as it came in `shown`."""
    answer = await getattr(router, route)(model="main", stream=stream, **ASKED[route])
    if not stream:
        return answer["content"][0]["text"] if isinstance(answer, dict) else answer.output[0].content[0].text
    async for chunk in answer:
        shown.append(text_of(chunk))
    return "".join(shown)


def text_of(chunk):
    """A chunk's text, of either route."""
    if not isinstance(chunk, bytes):
        kind = getattr(chunk.type, "value", chunk.type)
        return chunk.delta if kind == "response.output_text.delta" else ""
    events = [json.loads(line[5:]) for line in chunk.splitlines() if line.startswith(b"data:")]
    return "".join(event["delta"].get("text", "") for event in events if event["type"] == "content_block_delta")


@pytest.mark.parametrize(("fault", "route", "stream"), CELLS)
async def test_the_next_answers(world, fault, route, stream):
    """Before its first content any failure costs the client nothing but time, and each attempt is one request and one settlement."""
    router, first, second = pair(world, 1.0 if fault in SILENT else 20.0)
    first.always(FAULTS[fault])
    shown = []
    with capture_decisions() as decisions:
        assert await ask(router, route, shown, stream=stream) == TEXT
    [decision] = decisions
    asked = [attempt.provider.rpartition("-")[2] for attempt in decision.attempts]
    assert (asked.count("a"), asked.count("b")) == (first.count, second.count) and second.count == 1


def test_every_cell_is_there():
    """A fault that is added is tried on each route, streamed and not."""
    assert {(fault, route) for fault, route, _ in CELLS} == set(product(FAULTS, ASKED)) and len(CELLS) == 28


@pytest.mark.parametrize(("fault", "route"), list(product(BREAKS, ASKED)))
async def test_a_break_after_content_is_an_error(world, fault, route):
    """What was shown can't be unsaid on these routes, and nobody else is asked."""
    router, first, second = pair(world, 1.0 if fault in SILENT else 20.0)
    first.always(BREAKS[fault])
    shown = []
    with pytest.raises(Exception) as caught:  # LiteLLM lets some of httpx's own through
        await ask(router, route, shown, stream=True)
    assert not isinstance(caught.value, AssertionError)
    assert TEXT.startswith("".join(shown)) and "".join(shown)
    assert (first.count, second.count) == (1, 0)


async def test_a_message_cut_off_cleanly_is_no_whole_one(world):
    """An end without a reason, which Anthropic's streams always have, is a break."""
    router, first, second = pair(world)
    first.always(Fault.truncate(2))
    with pytest.raises(litellm.APIConnectionError, match="without saying why"):
        await ask(router, "aanthropic_messages", [], stream=True)
    assert second.count == 0


async def test_a_stream_that_is_closed_is_hung_up(world):
    """The provider sees the disconnect; until then the stream tells what LiteLLM's own tells."""
    router, first, _ = pair(world)
    first.answer("word " * 200)
    first.always(Fault.slow(0, chunk_delay=0.05))
    answer = await router.aanthropic_messages(model="main", stream=True, **ASKED["aanthropic_messages"])
    async for chunk in answer:
        if text_of(chunk):
            break
    assert answer._hidden_params is not None
    await answer.aclose()
    [request] = first.requests
    await asyncio.to_thread(request.wait_ended, 10.0)
    assert request.disconnected
