"""How answers are read: what counts as content, why a stream ended, what it used; and the kinds that no wire sends."""

import time
from typing import Any

import pytest
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult

from langchain_resilient import AllProvidersFailedError, Provider, RateLimits, ResilientChatModel, capture_decisions
from langchain_resilient.engine.events import Usage
from langchain_resilient.testing import Fault, FaultServer, ScriptedChatModel
from langchain_resilient.upstream import ChatUpstream
from tests.clients import ANSWER, WAYS, ask, failure, fresh, instance, resilient, scripted

UPSTREAM = ChatUpstream([HumanMessage("hi")], None, None, {}, time.time)


def chunk(content: Any = "", **settings: Any) -> ChatGenerationChunk:
    """A chunk of a stream."""
    return ChatGenerationChunk(message=AIMessageChunk(content=content, **settings))


CALL = {"name": "f", "args": "", "id": "1", "index": 0, "type": "tool_call_chunk"}
CONTENT = {
    "text": chunk("a"),
    "white space": chunk(" "),
    "a block of text": chunk([{"type": "text", "text": "a", "index": 0}]),
    "a plain text in a list": chunk(["a"]),
    "reasoning": chunk([{"type": "thinking", "thinking": "hm", "index": 0}]),
    "reasoning beside the content": chunk(additional_kwargs={"reasoning_content": "hm"}),
    "a refusal": chunk(additional_kwargs={"refusal": "no"}),
    "audio": chunk(additional_kwargs={"audio": {"data": "x"}}),
    "a tool call": chunk(tool_call_chunks=[CALL]),
    "a block of a tool call": chunk([{"type": "tool_use", "name": "f", "input": {}, "id": "1"}]),
}
SILENCE = {
    "nothing": chunk(),
    "an empty list": chunk([]),
    "an empty block": chunk([{"type": "text", "text": "", "index": 0}]),
    "an empty text in a list": chunk([""]),
    "only an id": chunk([{"type": "text", "id": "msg_1", "index": 0}]),
    "usage": chunk(usage_metadata={"input_tokens": 1, "output_tokens": 1, "total_tokens": 2}),
    "metadata": chunk(response_metadata={"model_name": "x"}),
    "empty reasoning": chunk(additional_kwargs={"reasoning_content": ""}),
    "an unknown extra": chunk(additional_kwargs={"service_tier": "default"}),
}


@pytest.mark.parametrize("name", CONTENT)
def test_what_counts_as_content(name: str):
    """Text, reasoning, tool calls, refusals and audio are content: the first of them ends the wait."""
    assert UPSTREAM.has_content(CONTENT[name])


@pytest.mark.parametrize("name", SILENCE)
def test_what_does_not(name: str):
    """Keep-alives, ids, usage and metadata are none."""
    assert not UPSTREAM.has_content(SILENCE[name])


FINISHED = [
    (chunk(response_metadata={"finish_reason": "stop"}), "stop"),
    (chunk(response_metadata={"stop_reason": "end_turn"}), "end_turn"),
    (chunk(response_metadata={"done_reason": "stop"}), "stop"),
    (chunk(response_metadata={"stopReason": "max_tokens"}), "max_tokens"),
    (chunk(response_metadata={"status": "completed"}), "completed"),
    (chunk(response_metadata={"status": "in_progress"}), None),
    (chunk(response_metadata={"finish_reason": None}), None),
    (chunk(), None),
    (ChatGenerationChunk(message=AIMessageChunk(""), generation_info={"finish_reason": "length"}), "length"),
]


@pytest.mark.parametrize(("part", "reason"), FINISHED)
def test_finish_reasons(part: ChatGenerationChunk, reason: str | None):
    """Each provider's own word for why it stopped is found, in the message or beside it."""
    assert UPSTREAM.finish_reason(part) == reason


def test_usage_of_answers_and_chunks():
    """Tokens are read with their cached part; an answer without them has none."""
    told = {"input_tokens": 9, "output_tokens": 2, "total_tokens": 11, "input_token_details": {"cache_read": 4}}
    whole = ChatResult(generations=[ChatGeneration(message=AIMessage("a", usage_metadata=told))])
    assert UPSTREAM.usage(whole) == UPSTREAM.usage(chunk(usage_metadata=told)) == Usage(9, 2, 4)
    assert UPSTREAM.usage(chunk()) is None


def test_prompts_are_estimated_locally_and_once():
    """A prompt costs a quarter of its characters and a little for its message, a tenth on top; asked twice it is counted once."""
    upstream = ChatUpstream([HumanMessage("a" * 400)], None, None, {}, time.time)
    first = upstream.input_tokens()
    assert 110 <= first <= 125
    upstream._messages = []
    assert upstream.input_tokens() == first


async def test_usage_reaches_the_record_and_the_cost():
    """The record holds the tokens that the provider reported, and what they cost by the configured price."""
    model = resilient(Provider(scripted("one", "four words it is"), cost_per_1k=0.5))
    with capture_decisions() as decisions:
        for way in WAYS:
            await ask(model, way)
    assert [decision.usage for decision in decisions] == [Usage(10, 4, 0)] * 4
    assert [decision.cost for decision in decisions] == [pytest.approx(0.007)] * 4  # 14 tokens at 0.5 $ a thousand


async def test_streams_without_a_finish_reason_are_whole_where_that_is_usual():
    """LangChain's own fakes never send a finish reason: their streams are answers, not truncated."""
    model = resilient(GenericFakeChatModel(messages=iter([AIMessage("whole it is")] * 2)))
    assert await ask(model, "stream") == await ask(model, "astream") == "whole it is"


@pytest.mark.parametrize("way", ["stream", "astream"])
async def test_a_provider_that_finishes_always_is_held_to_it(way: str):
    """After three streams with a finish reason, one without is truncated."""
    inner = ScriptedChatModel(script=["a b"], model_name="one")
    model = resilient(inner)
    for _ in range(3):
        assert await ask(model, way) == "a b"
    inner.finish_reason = None
    error = await failure(model, way)
    assert type(error).__name__ == "StreamInterruptedError" and error.partial == "a b"


# ── Unknown failures ─────────────────────────────────────────────────────────────────────────────────────────────────


class StrangeError(Exception):
    """A failure of which nothing is known."""


@pytest.mark.parametrize("way", ["invoke", "ainvoke"])
async def test_an_answer_without_choices_goes_to_the_next_provider(way: str):
    """Some servers say so under load, with status 200: langchain-openai makes an empty result of it, and LangChain an IndexError."""

    class Empty(ScriptedChatModel):
        def _generate(self, *args: Any, **kwargs: Any) -> ChatResult:
            return ChatResult(generations=[])

        async def _agenerate(self, *args: Any, **kwargs: Any) -> ChatResult:
            return ChatResult(generations=[])

    model = resilient(Empty(model_name="one"), scripted("two"))
    with capture_decisions() as decisions:
        assert await ask(model, way) == ANSWER
    assert [attempt.kind for attempt in decisions[0].attempts] == ["stream_interrupted", "ok"]


@pytest.mark.parametrize("way", WAYS)
async def test_an_unknown_failure_goes_to_the_next_provider(way: str):
    """What is not understood is nobody's fault, and somebody else is asked at once."""
    first = scripted("one", StrangeError())
    model = resilient(first, scripted("two"))
    with capture_decisions() as decisions:
        assert await ask(model, way) == ANSWER
    assert [item.kind for item in decisions[0].attempts] == ["unknown", "ok"] and len(first.calls) == 1
    assert model.status()["scripted/one"]["failures_in_a_row"] == 0


@pytest.mark.parametrize("way", WAYS)
async def test_an_unknown_failure_alone_is_tried_once_more(way: str):
    """With nobody else, what is not understood is tried once more; a bug never is."""
    first = scripted("one", StrangeError())
    assert isinstance(await failure(resilient(first), way), StrangeError) and len(first.calls) == 2
    bug = scripted("one", TypeError("a bug"))
    assert isinstance(await failure(resilient(bug), way), TypeError) and len(bug.calls) == 1


# ── Context windows ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("way", WAYS)
async def test_a_prompt_too_large_goes_to_the_largest_window(way: str):
    """After a context overflow the provider with the largest window is next; if it overflows everywhere, its own error comes."""
    with FaultServer() as small, FaultServer() as middle, FaultServer() as large:
        small.always(Fault.context_overflow())
        model = ResilientChatModel(
            providers=[
                Provider(instance(small, "openai", "small"), context_window=1000),
                Provider(instance(middle, "openai", "middle"), context_window=2000),
                Provider(instance(large, "openai", "large"), context_window=9000),
            ],
            namespace=fresh(),
        )
        assert await ask(model, way) == "Hello from the fault server."
        assert (small.count, middle.count, large.count) == (1, 0, 1)
        middle.always(Fault.context_overflow())
        large.always(Fault.context_overflow())
        error = await failure(model, way)
        assert (small.count, middle.count, large.count) == (2, 1, 2)
        assert not isinstance(error, AllProvidersFailedError) and "context_length" in str(error.body)


async def test_a_response_that_tells_its_limits_tightens_ours():
    """Rate-limit headers of a good answer, where the client keeps them, tighten the bucket."""
    with FaultServer() as server:
        headers = {"x-ratelimit-limit-requests": "60", "x-ratelimit-remaining-requests": "2"}
        server.always(Fault.ok(headers=headers))
        inner = instance(server, "openai", include_response_headers=True)
        model = resilient(Provider(inner, limits=RateLimits(rpm=60, burst=30)))
        await ask(model, "ainvoke")
        free = model.status()["openai/one"]["limits_free"]["rpm"]
        assert free == pytest.approx(2 / 30, abs=0.02)
