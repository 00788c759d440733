"""How each route's answers are read, on what the routes send."""

import json
from types import SimpleNamespace

import litellm
import pytest

from langchain_resilient.engine.events import Usage
from litellm_hooks.readers import CHAT, MESSAGES, RESPONSES, ROUTES, events_of


def sse(*events):
    """Server-sent events in one piece."""
    return b"".join(b"event: %s\ndata: %s\n\n" % (e["type"].encode(), json.dumps(e).encode()) for e in events)


START = {"type": "message_start", "message": {"id": "msg_1", "usage": {"input_tokens": 3, "output_tokens": 0}}}
DELTA = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hi"}}
END = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 5}}


def event(kind, **fields):
    """An event of OpenAI's responses."""
    return SimpleNamespace(type=kind, **fields)


def test_every_route_has_a_reader():
    """The Router's methods that the engine serves."""
    assert set(ROUTES) == {"acompletion", "aanthropic_messages", "aresponses"}


def test_events_in_pieces():
    """Several in one chunk are several; what is cut, or no event, is none; an unstreamed answer is one."""
    assert [one["type"] for one in events_of(sse(START, DELTA))] == ["message_start", "content_block_delta"]
    assert list(events_of(b'data: {"type": "mess')) == [] == list(events_of(b"data: [1]\n\n: ping\n"))
    assert list(events_of({"stop_reason": "end_turn"})) == [{"stop_reason": "end_turn"}]
    assert [one["type"] for one in events_of(sse(DELTA).decode())] == ["content_block_delta"]


@pytest.mark.parametrize(
    ("reader", "chunk", "content"),
    [
        (MESSAGES, sse(START), False),
        (MESSAGES, sse({"type": "ping"}), False),
        (MESSAGES, sse(START, DELTA), True),
        (RESPONSES, event("response.created"), False),
        (RESPONSES, event("response.output_text.delta", delta=""), False),
        (RESPONSES, event("response.output_text.delta", delta="Hi"), True),
        (RESPONSES, event("response.function_call_arguments.delta", delta="{"), True),
    ],
)
def test_a_beginning_is_no_content(reader, chunk, content):
    """The first token is what the user waits for."""
    assert reader.has_content(chunk) is content


@pytest.mark.parametrize(
    ("reader", "answer", "reason"),
    [
        (MESSAGES, sse(DELTA), None),
        (MESSAGES, sse(END), "end_turn"),
        (MESSAGES, {"stop_reason": "max_tokens"}, "max_tokens"),
        (RESPONSES, event("response.in_progress"), None),
        (RESPONSES, event("response.completed"), "response.completed"),
        (RESPONSES, SimpleNamespace(status="incomplete"), "incomplete"),
    ],
)
def test_why_it_ended(reader, answer, reason):
    """As the provider says it, of streams and of whole answers."""
    assert reader.finish_reason(answer) == reason


def test_tokens_are_told_where_both_are_known():
    """Half an account would refund what was spent."""
    whole = {"usage": {"input_tokens": 3, "output_tokens": 5, "cache_read_input_tokens": 2}}
    assert MESSAGES.usage(whole) == Usage(3, 5, 2)
    assert MESSAGES.usage(sse(END)) is None
    used = SimpleNamespace(input_tokens=3, output_tokens=5)
    assert RESPONSES.usage(event("response.completed", response=SimpleNamespace(usage=used))) == Usage(3, 5, 0)
    assert RESPONSES.usage(SimpleNamespace(usage=used)) == Usage(3, 5, 0)
    assert RESPONSES.usage(event("response.created", response=SimpleNamespace(usage=None))) is None


def test_texts():
    """What was shown, for errors that tell it."""
    assert MESSAGES.text(sse(START, DELTA, DELTA)) == "HiHi"
    assert RESPONSES.text(event("response.output_text.delta", delta="Hi")) == "Hi"
    assert RESPONSES.text(event("response.reasoning_text.delta", delta="Hm")) == ""


def test_what_is_said_besides_text():
    """Thoughts, and calls of tools with their arguments, each once, and never the text itself."""
    tool = {"type": "content_block_start", "content_block": {"type": "tool_use", "name": "look", "input": {}}}
    deltas = [{"thinking": "Hm"}, {"partial_json": "{}"}, {"signature": "c2ln"}]
    thoughts = [{"type": "content_block_delta", "delta": delta} for delta in deltas]
    assert list(MESSAGES.besides(sse(START, DELTA, tool, *thoughts, END))) == ["look", "Hm", "{}"]
    kinds = ("output_text", "reasoning_text", "function_call_arguments", "output_audio")
    told = [event(f"response.{kind}.delta", delta=kind) for kind in kinds]
    assert [said for one in told for said in RESPONSES.besides(one)] == ["reasoning_text", "function_call_arguments"]
    call = {"index": 0, "function": {"name": "look", "arguments": "{}"}}
    delta = {"content": "Hi", "reasoning_content": "Hm", "tool_calls": [call]}
    assert list(CHAT.besides(litellm.ModelResponseStream(choices=[{"index": 0, "delta": delta}]))) == [
        "Hm",
        "look",
        "{}",
    ]


def test_a_message_s_tokens_are_told_in_parts():
    """The prompt's at its beginning, the answer's at its end; LiteLLM's 0 at the beginning means that it does not know."""
    assert MESSAGES.report(sse(START)) == (3, None)
    assert MESSAGES.report(sse(DELTA, END)) == (None, 5)
    unknown = {"type": "message_start", "message": {"usage": {"input_tokens": 0}}}
    assert MESSAGES.report(sse(unknown)) == MESSAGES.report(sse({"type": "message_start"})) == (None, None)
    assert CHAT.report(None) == RESPONSES.report(event("response.created")) == (None, None)


@pytest.mark.parametrize(
    ("reader", "told", "kind"),
    [
        (MESSAGES, sse({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}), 503),
        (MESSAGES, {"type": "error", "error": {"type": "rate_limit_error", "message": "Slow down"}}, 429),
        (MESSAGES, sse({"type": "error", "error": {"type": "something_new"}}), 500),
        (RESPONSES, event("response.failed", response=SimpleNamespace(error=SimpleNamespace(message="no"))), 500),
        (RESPONSES, event("error", message="no"), 500),
    ],
)
def test_a_failure_inside_a_success_is_one(reader, told, kind):
    """HTTP said 200 before the provider knew."""
    assert reader.failure(told).status_code == kind


@pytest.mark.parametrize("told", [sse(START, DELTA, END), {"type": "message", "content": []}])
def test_a_success_tells_no_failure(told):
    """Neither a stream's events nor a whole answer."""
    assert MESSAGES.failure(told) is None


def test_what_can_be_put_together_and_continued():
    """Chat completions alone; JSON never."""
    assert [reader.builds for reader in (CHAT, MESSAGES, RESPONSES)] == [True, False, False]
    shown = [litellm.ModelResponseStream(choices=[{"index": 0, "delta": {"content": "Hi"}}])]
    assert MESSAGES.continuation(shown, {}) is None is RESPONSES.continuation(shown, {})
    assert CHAT.continuation(shown, {}).text == "Hi"
    assert CHAT.continuation(shown, {"response_format": {"type": "json_object"}}) is None
    assert CHAT.whole(shown, {"messages": []}).choices[0].message.content == "Hi"
