"""What Anthropic's Messages would say of a request: the SDK's request type, and the documented rules between messages.

The fake signs its thinking blocks (`signature`, `redacted`) and refuses those that it did not sign.
"""

from __future__ import annotations

import re
from hashlib import blake2b
from itertools import groupby
from typing import Any

from anthropic.types.message_create_params import MessageCreateParamsNonStreaming, MessageCreateParamsStreaming

from tests.strict.schema import closed, complaints

UNSTREAMED = closed(MessageCreateParamsNonStreaming)
STREAMED = closed(MessageCreateParamsStreaming)
ID = re.compile(r"[a-zA-Z0-9_-]+")
IMAGES = 100
BY_ASSISTANT = {"text", "thinking", "redacted_thinking", "tool_use", "server_tool_use"}
TEMPERATURE = {"temperature", "top_p", "top_k"}
"""Accepted by the API for models that have them, and no longer in the SDK's type."""


def signature(thinking: str) -> str:
    """The fake's signature under a thought."""
    return "sig_" + blake2b(thinking.encode(), digest_size=12, key=b"fake").hexdigest()


def redacted(secret: str) -> str:
    """A redacted thought of the fake's."""
    return f"{secret}.{signature(secret)}"


def problems(body: dict[str, Any]) -> list[str]:
    """Why the request would be refused; empty if it would not."""
    known = {key: value for key, value in body.items() if key not in TEMPERATURE}
    found = complaints(STREAMED if body.get("stream") else UNSTREAMED, known)
    if not 0 <= body.get("temperature", 0) <= 1:
        found.append("temperature: Input should be less than or equal to 1")
    messages = body.get("messages") or []
    if not messages or messages[0].get("role") != "user":
        found.append('messages: first message must use the "user" role')
    for place, message in enumerate(messages):
        last = place == len(messages) - 1
        found += [f"messages.{place}: {why}" for why in _contents(message, last=last)]
    blocks = [block for message in messages for block in _blocks(message)]
    uses = [block["id"] for block in blocks if block["type"] == "tool_use"]
    if len(set(uses)) < len(uses):
        found.append("`tool_use` ids must be unique")
    if sum(block["type"] == "image" for block in blocks) > IMAGES:
        found.append("too many images")
    return found + _pairing(messages)


def _blocks(message: dict[str, Any]) -> list[dict[str, Any]]:
    content = message.get("content")
    return [{"type": "text", "text": content}] if content and isinstance(content, str) else list(content or [])


def _contents(message: dict[str, Any], *, last: bool) -> list[str]:
    found = []
    blocks = _blocks(message)
    assistant = message.get("role") == "assistant"
    if not blocks and not (last and assistant):
        found.append("all messages must have non-empty content except for the optional final assistant message")
    for block in blocks:
        kind = block.get("type")
        if assistant and kind not in BY_ASSISTANT and not str(kind).endswith("_tool_result"):
            found.append(f"{kind} blocks are not permitted in assistant messages")
        if kind == "text" and not block.get("text", "").strip():
            found.append("text content blocks must contain non-whitespace text")
        if kind == "thinking" and block.get("signature") != signature(block.get("thinking", "")):
            found.append("Invalid `signature` in `thinking` block")
        if kind == "redacted_thinking" and block.get("data") != redacted(block.get("data", "").partition(".")[0]):
            found.append("Invalid `data` in `redacted_thinking` block")
        id_ = block.get("id") if kind == "tool_use" else block.get("tool_use_id") if kind == "tool_result" else "fine"
        if not ID.fullmatch(id_ or ""):
            found.append(f"{kind}.id: String should match pattern '^[a-zA-Z0-9_-]+$'")
    return found


def _pairing(messages: list[dict[str, Any]]) -> list[str]:
    """Results must come first in the very next user turn; consecutive messages of one role are one turn."""
    found = []
    waiting: set[str] = set()
    for role, group in groupby(messages, key=lambda message: message.get("role")):
        blocks = [block for message in group for block in _blocks(message)]
        if role == "user":
            leading = []
            for block in blocks:
                if block["type"] != "tool_result":
                    break
                leading.append(block["tool_use_id"])
            if waiting - set(leading):
                found.append("`tool_use` ids were found without `tool_result` blocks immediately after")
            strangers = {block["tool_use_id"] for block in blocks if block["type"] == "tool_result"} - waiting
            if strangers:
                found.append("unexpected `tool_use_id` found in `tool_result` blocks")
            waiting = set()
        else:
            if role == "assistant" and waiting:
                found.append("`tool_use` ids were found without `tool_result` blocks immediately after")
            waiting = {block["id"] for block in blocks if block["type"] == "tool_use"}
            served = {block["id"] for block in blocks if block["type"] == "server_tool_use"}
            results = {block["tool_use_id"] for block in blocks if str(block["type"]).endswith("_tool_result")}
            if results - served:
                found.append("unexpected `tool_use_id` found in a server tool's result")
    if waiting:
        found.append("`tool_use` ids were found without `tool_result` blocks immediately after")
    return found
