"""What Ollama's chat would say of a request: the fields of the SDK's `ChatRequest` and `Message` as they look on the wire.

The SDK's own types describe the Python side, where an image may be a path, so the wire's are written down here; a test holds the two together.
"""

from __future__ import annotations

from base64 import b64decode
from binascii import Error
from typing import Any, Literal, NotRequired

from typing_extensions import TypedDict

from tests.strict.schema import closed, complaints


class Function(TypedDict):
    name: str
    arguments: dict[str, Any]


class ToolCall(TypedDict):
    function: Function


class Message(TypedDict):
    role: Literal["system", "user", "assistant", "tool"]
    content: NotRequired[str | None]
    thinking: NotRequired[str | None]
    images: NotRequired[list[str] | None]
    tool_name: NotRequired[str | None]
    tool_calls: NotRequired[list[ToolCall] | None]


class Request(TypedDict):
    model: str
    messages: list[Message]
    stream: NotRequired[bool]
    options: NotRequired[dict[str, Any]]
    format: NotRequired[str | dict[str, Any]]
    keep_alive: NotRequired[float | str]
    tools: NotRequired[list[dict[str, Any]]]
    think: NotRequired[bool | str]
    logprobs: NotRequired[bool]
    top_logprobs: NotRequired[int]


SCHEMA = closed(Request)


def problems(body: dict[str, Any]) -> list[str]:
    """Why the request would be refused; empty if it would not."""
    found = complaints(SCHEMA, body)
    called = 0
    for place, message in enumerate(body.get("messages") or []):
        for image in message.get("images") or []:
            if not _is_base64(image):
                found.append(f"messages.{place}: an image is not base64")
        called += len(message.get("tool_calls") or [])
        called -= message.get("role") == "tool"
        if called < 0:
            found.append(f"messages.{place}: a tool's result without a call")
    return found


def _is_base64(image: Any) -> bool:
    try:
        b64decode(image, validate=True)
    except (Error, TypeError, ValueError):
        return False
    return True
