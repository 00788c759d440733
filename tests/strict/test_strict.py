"""The strict fakes refuse what the providers document that they refuse, and accept what they accept."""

from __future__ import annotations

from typing import Any

import ollama
import pytest

from tests.strict import anthropic_messages, ollama_chat, openai_chat
from tests.strict.anthropic_messages import redacted, signature
from tests.strict.wire import PROBLEMS

USER = {"role": "user", "content": "hi"}
THOUGHT = {"type": "thinking", "thinking": "hm", "signature": signature("hm")}
SECRET = {"type": "redacted_thinking", "data": redacted("s")}


def chat(*messages: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A request of Chat Completions or of Ollama."""
    return {"model": "m", "messages": list(messages), **more}


def message(*messages: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A request of Messages."""
    return chat(*messages, max_tokens=1, **more)


def called(*ids: str) -> dict[str, Any]:
    """An assistant's calls on OpenAI's wire."""
    calls = [{"id": id_, "type": "function", "function": {"name": "f", "arguments": "{}"}} for id_ in ids]
    return {"role": "assistant", "content": None, "tool_calls": calls}


def tool(id_: str) -> dict[str, Any]:
    """A result on OpenAI's wire."""
    return {"role": "tool", "content": "4", "tool_call_id": id_}


def use(*ids: str) -> dict[str, Any]:
    """An assistant's calls on Anthropic's wire."""
    return {"role": "assistant", "content": [{"type": "tool_use", "id": id_, "name": "f", "input": {}} for id_ in ids]}


def result(*ids: str, after: tuple[dict[str, Any], ...] = ()) -> dict[str, Any]:
    """Results on Anthropic's wire."""
    blocks = [{"type": "tool_result", "tool_use_id": id_, "content": "4"} for id_ in ids]
    return {"role": "user", "content": [*after, *blocks]}


def said(*blocks: dict[str, Any]) -> dict[str, Any]:
    """An assistant's blocks."""
    return {"role": "assistant", "content": list(blocks)}


SPOKEN = {"type": "text", "text": "so"}

ACCEPTED = [
    ("openai", chat(USER, called("a", "b"), tool("b"), tool("a"), USER)),
    ("openai", chat({"role": "user", "content": [SPOKEN, {"type": "image_url", "image_url": {"url": "https://x"}}]})),
    ("openai", chat(USER, stream=True, stream_options={"include_usage": True})),
    ("anthropic", message(USER, use("a", "b"), result("b", "a"), said(THOUGHT, SECRET, SPOKEN), USER)),
    ("anthropic", message(USER, use("a"), result("a"), USER, temperature=1.0, stream=True)),
    ("anthropic", message(USER, {"role": "assistant", "content": ""})),
    ("ollama", chat(USER, {"role": "assistant", "content": "", "thinking": "hm"}, stream=True, options={"top_k": 1})),
]

REFUSED = {
    "openai: an unknown key": ("openai", chat(USER | {"cache_control": {}}), "Extra inputs"),
    "openai: no messages": ("openai", chat(), "empty"),
    "openai: a call without result": ("openai", chat(USER, called("a", "b"), tool("a"), USER), "must be followed"),
    "openai: a call without result at the end": ("openai", chat(USER, called("a")), "without a tool message"),
    "openai: a result without call": ("openai", chat(USER, tool("a")), "without a preceding"),
    "openai: a result twice": ("openai", chat(USER, called("a"), tool("a"), tool("a")), "without a preceding"),
    "openai: twins": ("openai", chat(USER, called("a", "a"), tool("a")), "duplicate"),
    "openai: a long id": ("openai", chat(USER, called("x" * 41), tool("x" * 41)), "too long"),
    "openai: a name of two words": ("openai", chat(USER | {"name": "a b"}), "pattern"),
    "openai: an empty answer": ("openai", chat(USER, {"role": "assistant", "content": None}), "needs content"),
    "openai: a tool's image": (
        "openai",
        chat(USER, called("a"), tool("a") | {"content": [{"type": "image_url", "image_url": {"url": "https://x"}}]}),
        "Input should be",
    ),
    "anthropic: an unknown key": (
        "anthropic",
        message({"role": "user", "content": [SPOKEN | {"id": "x"}]}),
        "Extra inputs",
    ),
    "anthropic: an assistant first": ("anthropic", message(said(SPOKEN), USER), "first message"),
    "anthropic: blank text": ("anthropic", message({"role": "user", "content": " "}), "non-whitespace"),
    "anthropic: nothing said": ("anthropic", message(USER, said(), USER), "non-empty"),
    "anthropic: a call without result": ("anthropic", message(USER, use("a"), USER), "without `tool_result`"),
    "anthropic: a call without result at the end": ("anthropic", message(USER, use("a")), "without `tool_result`"),
    "anthropic: a result after text": (
        "anthropic",
        message(USER, use("a"), result("a", after=(SPOKEN,))),
        "immediately after",
    ),
    "anthropic: a result without call": ("anthropic", message(USER, result("a")), "unexpected"),
    "anthropic: twins": ("anthropic", message(USER, use("a"), result("a"), use("a"), result("a")), "unique"),
    "anthropic: an id with a dot": ("anthropic", message(USER, use("a.b"), result("a.b")), "pattern"),
    "anthropic: a foreign signature": (
        "anthropic",
        message(USER, said(THOUGHT | {"signature": "x"}, SPOKEN)),
        "signature",
    ),
    "anthropic: a changed thought": (
        "anthropic",
        message(USER, said(THOUGHT | {"thinking": "x"}, SPOKEN)),
        "signature",
    ),
    "anthropic: a foreign secret": ("anthropic", message(USER, said(SECRET | {"data": "x"}, SPOKEN)), "redacted"),
    "anthropic: a server's result alone": (
        "anthropic",
        message(USER, said({"type": "web_search_tool_result", "tool_use_id": "s", "content": []}, SPOKEN)),
        "server tool's result",
    ),
    "anthropic: an assistant's image": (
        "anthropic",
        message(USER, said({"type": "image", "source": {"type": "url", "url": "https://x"}})),
        "not permitted",
    ),
    "anthropic: too hot": ("anthropic", message(USER, temperature=1.5), "temperature"),
    "anthropic: too many images": (
        "anthropic",
        message({"role": "user", "content": [{"type": "image", "source": {"type": "url", "url": "https://x"}}] * 101}),
        "too many",
    ),
    "ollama: an unknown key": ("ollama", chat(USER | {"tool_call_id": "x"}), "Extra inputs"),
    "ollama: content in blocks": ("ollama", chat({"role": "user", "content": [SPOKEN]}), "string"),
    "ollama: an image by url": ("ollama", chat(USER | {"images": ["https://x"]}), "base64"),
    "ollama: a result without call": ("ollama", chat(USER, {"role": "tool", "content": "4"}), "without a call"),
}


@pytest.mark.parametrize(("provider", "body"), ACCEPTED)
def test_a_good_request_is_accepted(provider, body):
    """What the providers document as right has no problem."""
    assert PROBLEMS[provider](body) == []


@pytest.mark.parametrize("case", REFUSED)
def test_a_bad_request_is_refused(case):
    """What the providers document as wrong has the problem that it has."""
    provider, body, why = REFUSED[case]
    assert why in " ".join(PROBLEMS[provider](body))


def test_ollamas_types_are_the_sdks_fields():
    """What is written down of Ollama's wire has the fields of the SDK's own types."""
    assert set(ollama_chat.Message.__annotations__) == set(ollama.Message.model_fields)
    assert set(ollama_chat.ToolCall.__annotations__) == set(ollama.Message.ToolCall.model_fields)
    assert set(ollama_chat.Function.__annotations__) == set(ollama.Message.ToolCall.Function.model_fields)
    assert set(ollama_chat.Request.__annotations__) == set(ollama._types.ChatRequest.model_fields)


def test_every_published_type_is_closed():
    """No request is accepted with a key that its published type does not have, however deep."""
    source = {"type": "url", "url": "https://x", "more": 1}
    assert anthropic_messages.problems(message({"role": "user", "content": [{"type": "image", "source": source}]}))
    assert anthropic_messages.problems(message(USER, more=1))
    assert openai_chat.problems(chat(USER, tools=[{"type": "function", "function": {"name": "f", "more": 1}}]))
