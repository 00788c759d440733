"""What a model said, without what only its own provider reads: an answer of another provider as plain text and tool calls.

Rules of this file: an answer of another provider keeps its text, its calls and its name. All else it may hold (reasoning and its signatures,
server tools, ids that point into the other's storage, media) is unreadable or refused elsewhere, and is noted. The blocks are read as they were
written and not through `content_blocks`, whose translators skip plain strings in lists and refusals outside the content.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from langchain_core.messages import AIMessage

from langchain_resilient.messages.notes import Notes, plain
from langchain_resilient.messages.parts import CACHE_KEYS, MEDIA, TEXTS

REASONING = frozenset({"thinking", "redacted_thinking", "reasoning", "reasoning_content", "thought"})
CALLS = frozenset({
    "tool_use", "tool_call", "tool_call_chunk", "invalid_tool_call", "function_call", "custom_tool_call", "input_json_delta",
})  # fmt: skip
"""Blocks that say again what `tool_calls` says: every client reads the calls there."""
REASONING_EXTRAS = ("reasoning_content", "reasoning")
SILENT_EXTRAS = frozenset({"tool_calls", "name"})
"""Extras that every client ignores or that `tool_calls` repeats."""
SERVER_TOOLS = {
    "server_tool_use": "name", "mcp_tool_use": "name", "server_tool_call": "name", "server_tool_call_chunk": "name", "mcp_call": "name",
}  # fmt: skip
"""Calls of server tools, and the key under which they name the tool."""


def is_plain(message: AIMessage) -> bool:
    """Whether an answer holds nothing but text that is not blank, calls and a name."""
    content = message.content
    if content.__class__ is not str or "output_version" in message.response_metadata:
        return False
    # "messages: text content blocks must contain non-whitespace text": Anthropic's API, and the client skips blank blocks only in lists.
    if not content.strip() and (content or not (message.tool_calls or message.invalid_tool_calls)):
        return False
    extras = message.additional_kwargs
    return not extras or not any(value for key, value in extras.items() if key not in SILENT_EXTRAS)


def portable(message: AIMessage, notes: Notes) -> AIMessage | None:
    """The answer as text and calls; None if nothing is left of it."""
    text = "".join(_texts(message, notes))
    calls, invalid = list(message.tool_calls), list(message.invalid_tool_calls)
    extras = message.additional_kwargs
    if any(extras.get(key) for key in REASONING_EXTRAS):
        notes.lost_reasoning()
    for output in extras.get("tool_outputs") or ():  # where ChatOpenAI's first format of Responses kept server tools
        _note(output, notes)
    if (legacy := extras.get("function_call")) and not calls:
        _legacy_call(legacy, calls, invalid)
    if not text.strip() and (spoken := _spoken(extras, notes)):
        text = spoken
    if not text.strip():
        text = ""
        if not (calls or invalid):
            notes.lost("empty answer")
            return None
    if not notes:
        notes.say("answer converted")
    return AIMessage(content=text, tool_calls=calls, invalid_tool_calls=invalid, name=message.name)


def _texts(message: AIMessage, notes: Notes) -> Iterator[str]:
    if isinstance(message.content, str):
        yield message.content
        return
    for block in message.content:
        if isinstance(block, str):
            yield block
        elif block.get("type") in TEXTS or ("type" not in block and "text" in block):
            yield str(block.get("text") or "")
            if block.get("citations") or block.get("annotations"):
                notes.lost("citations")
            for key in CACHE_KEYS:
                if block.get(key):
                    notes.lost(key)
        elif block.get("type") == "refusal":
            yield str(block.get("refusal") or "")
        elif block.get("type") == "text-plain":
            yield str(block.get("text") or "")
        else:
            _note(block, notes)


def _note(block: dict[str, Any], notes: Notes) -> None:
    """Note a block that stays behind."""
    kind = block.get("type")
    if kind == "non_standard" and isinstance(value := block.get("value"), dict):
        block, kind = value, value.get("type")
    if kind in CALLS or (kind is None and not set(block) - {"id", "index"}):
        return
    if kind in REASONING:
        notes.lost_reasoning()
    elif kind in SERVER_TOOLS:
        notes.lost(f"server tool {plain(block.get(SERVER_TOOLS[kind]), 'call')}")
    elif isinstance(kind, str) and kind.endswith(("_call", "_result", "_output", "_list_tools", "_request")):
        notes.lost(f"server tool {_tool_of(kind)}")
    elif kind in {"executable_code", "server_tool_call_result"}:
        notes.lost("server tool code_execution")
    elif kind in MEDIA or kind in {"image_url", "media"}:
        notes.lost(f"the model's {plain(kind, 'file').removesuffix('_url')}")
    else:
        notes.lost(f"{plain(kind)} block")


def _tool_of(kind: str) -> str:
    for end in ("_call", "_tool_result", "_result", "_call_output", "_output", "_list_tools", "_approval_request"):
        kind = kind.removesuffix(end)
    return plain(kind, "result")


def _spoken(extras: dict[str, Any], notes: Notes) -> str:
    """What was said outside the content: a refusal, or the transcript of speech."""
    audio = extras.get("audio")
    if isinstance(audio, dict):
        notes.lost("the model's audio")
        if audio.get("transcript"):
            return str(audio["transcript"])
    refusal = extras.get("refusal")
    if refusal:
        notes.say("refusal turned into text")
    return str(refusal or "")


def _legacy_call(legacy: dict[str, Any], calls: list[Any], invalid: list[Any]) -> None:
    """OpenAI's `function_call` of 2023, which had no id, as a tool call."""
    name, told = str(legacy.get("name") or ""), str(legacy.get("arguments") or "{}")
    try:
        arguments = json.loads(told)
    except ValueError:
        arguments = None
    if isinstance(arguments, dict):
        calls.append({"name": name, "args": arguments, "id": "", "type": "tool_call"})
    else:
        invalid.append({"name": name, "args": told, "id": "", "error": None, "type": "invalid_tool_call"})
