"""What OpenAI's Chat Completions would say of a request: the SDK's request type, and the documented rules between messages."""

from __future__ import annotations

import json
import re
from typing import Any

from openai.types.chat.completion_create_params import (
    CompletionCreateParamsNonStreaming,
    CompletionCreateParamsStreaming,
)

from tests.strict.schema import closed, complaints

UNSTREAMED = closed(CompletionCreateParamsNonStreaming)
STREAMED = closed(CompletionCreateParamsStreaming)
NAME = re.compile(r"[^\s<|\\/>]{1,64}")


def problems(body: dict[str, Any]) -> list[str]:
    """Why the request would be refused; empty if it would not."""
    schema = STREAMED if body.get("stream") else UNSTREAMED
    found = complaints(schema, body)
    messages = body.get("messages") or []
    if not messages:
        found.append("messages: empty")
    waiting: list[str] = []
    for place, message in enumerate(messages):
        said, waiting = _message(message, waiting)
        found += [f"messages.{place}: {why}" for why in said]
    if waiting:
        found.append(f"tool calls without a tool message: {len(waiting)}")
    return found


def _message(message: dict[str, Any], waiting: list[str]) -> tuple[list[str], list[str]]:
    """What is wrong with a message after calls that still wait for their results, and which wait after it."""
    found = []
    role = message.get("role")
    name = message.get("name")
    if name is not None and not NAME.fullmatch(name):
        found.append("name does not match the pattern '^[^\\s<|\\\\/>]+$'")
    if role == "tool":
        id_ = message.get("tool_call_id")
        if id_ not in waiting:
            return [*found, "'tool' without a preceding message with its 'tool_calls'"], waiting
        return found, [other for other in waiting if other != id_]
    if waiting:
        found.append("'tool_calls' must be followed by tool messages responding to each 'tool_call_id'")
    calls = message.get("tool_calls") or []
    if role == "assistant" and not calls and message.get("content") is None and not message.get("function_call"):
        found.append("an assistant message needs content or tool calls")
    return found + _calls(calls), [call.get("id") for call in calls]


def _calls(calls: list[dict[str, Any]]) -> list[str]:
    found = []
    ids = [call.get("id") for call in calls]
    if len(set(ids)) < len(ids):
        found.append("duplicate tool call ids")
    for call in calls:
        if not 1 <= len(call.get("id") or "") <= 40:
            found.append("tool_calls.id: string too long or empty. Expected a string with maximum length 40")
        try:
            json.loads(call["function"]["arguments"])
        except (ValueError, KeyError, TypeError):
            found.append("function.arguments is not JSON")
    return found
