"""What every wire format speaks of, and the protocol that each of them keeps.

Rules of this file: plain frozen values, no sockets, no clock. A wire turns a request body into an `Ask`, a `Reply` into
bytes, and a `Problem` into that provider's own error body. Nothing outside a wire's file knows how its bytes look.
"""

from __future__ import annotations

import itertools
import json
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

JsonObject = dict[str, Any]
WireName = Literal["openai", "anthropic", "ollama"]
FinishReason = Literal["stop", "content_filter"]


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool that the request offers: its name and the JSON schema of its arguments."""

    name: str
    schema: JsonObject


@dataclass(frozen=True, slots=True)
class ToolUse:
    """A tool call to answer with."""

    name: str
    args: JsonObject


@dataclass(frozen=True, slots=True)
class Ask:
    """What a request asks for, whatever its wire.

    `tools` may be called; of `forced`, one must be. `output_schema` is the JSON schema that the answer has to fit, an empty
    one when any JSON object will do, None when plain text is wanted. `tool_result` is set when the last message is one,
    `prefill` is that message's text if it is the assistant's, `last_user` if it is the user's. `invalid` is what this provider
    objects to in a prefill, whatever the model.
    """

    model: str
    stream: bool
    user_text: str
    prompt_tokens: int
    tool_result: str | None = None
    tools: tuple[Tool, ...] = ()
    forced: tuple[Tool, ...] = ()
    output_schema: JsonObject | None = None
    include_usage: bool = False
    prefill: str | None = None
    last_user: str | None = None
    invalid: Problem | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """A healthy answer: text or one tool call, and its usage in tokens.

    `sizes` are the code points of each chunk of a streamed text, over and over; empty: a word a chunk.
    """

    text: str
    input_tokens: int
    output_tokens: int
    tool: ToolUse | None = None
    finish: FinishReason = "stop"
    sizes: tuple[int, ...] = ()

    def parts(self) -> list[str]:
        """Cut the text into the chunks of a stream, between code points."""
        return cut(self.text, self.sizes) if self.sizes else pieces(self.text)


@dataclass(frozen=True, slots=True)
class Problem:
    """A provider's error. `members` are further members of its error object; `flat`: that object is the body itself (Mistral)."""

    status: int
    message: str
    type: str | None = None
    code: str | None = None
    param: str | None = None
    members: Mapping[str, Any] = field(default_factory=dict)
    flat: bool = False


ProblemName = Literal["quota_exhausted", "overloaded", "server_error", "context_overflow", "content_filter"]
Problems = Mapping[int | ProblemName, Problem]


@dataclass(frozen=True, slots=True)
class Frames:
    """A response body cut where it may go wrong: before content, between chunks, before the finish, before the end mark."""

    opening: tuple[bytes, ...]
    content: tuple[bytes, ...]
    finish: tuple[bytes, ...]
    done: tuple[bytes, ...]


class Wire(Protocol):
    """One provider's wire format."""

    name: WireName
    path: str  # the end of the request's path
    base_path: str  # what a client's base URL has after the port
    stream_type: str  # content type of a stream
    ping: bytes  # what keeps a silent stream open
    empty: bytes  # a content delta that says nothing
    garbage: bytes  # a stream frame that no client can parse

    def headers(self) -> dict[str, str]:
        """Headers that this provider adds to every response."""
        ...

    def parse(self, body: JsonObject) -> Ask:
        """Read a request."""
        ...

    def answer(self, ask: Ask, reply: Reply) -> JsonObject:
        """Write the body of an unstreamed answer."""
        ...

    def frames(self, ask: Ask, reply: Reply) -> Frames:
        """Write the body of a streamed answer."""
        ...

    def problem(self, which: int | ProblemName, ask: Ask) -> Problem:
        """Say what this provider answers for a status or a named problem."""
        ...

    def error_body(self, problem: Problem) -> JsonObject:
        """Write the body of an error response."""
        ...

    def error_frame(self, problem: Problem) -> bytes:
        """Write an error inside a stream that began with HTTP 200."""
        ...


def unstreamed_frames(body: bytes) -> Frames:
    """Cut an unstreamed body in two, so that whatever can break a stream can break it as well."""
    middle = len(body) // 2
    return Frames(opening=(), content=(body[:middle],), finish=(body[middle:],), done=())


def pieces(text: str) -> list[str]:
    """Cut a text into words that join to it again, as tokens do: each carries the space before it."""
    return re.findall(r"\s*\S+(?:\s+$)?", text) or ([text] if text else [])


def cut(text: str, sizes: tuple[int, ...]) -> list[str]:
    """Cut a text into chunks of these numbers of code points, taken over and over."""
    chunks: list[str] = []
    start = 0
    for size in itertools.cycle(sizes):
        if start >= len(text):
            return chunks
        chunks.append(text[start : start + size])
        start += size
    return chunks


def to_json(value: Any) -> bytes:
    """Write compact JSON, unicode unescaped, as providers do."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def new_id(prefix: str) -> str:
    """Make an id that looks like the provider's."""
    return prefix + secrets.token_hex(12)


def text_of(content: Any, between: str = " ") -> str:
    """Gather the text of a message's content, be it a string or a list of parts, put together with `between` (a space)."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    texts = (part if isinstance(part, str) else part.get("text") for part in content if isinstance(part, str | dict))
    return between.join(text for text in texts if isinstance(text, str))


def prefill_of(messages: list[JsonObject]) -> str | None:
    """Read the last message's text if it is the assistant's and calls no tool."""
    last: JsonObject = messages[-1] if messages else {}
    content = last.get("content")
    blocks = content if isinstance(content, list) else []
    calls = last.get("tool_calls") or any(isinstance(b, dict) and b.get("type") == "tool_use" for b in blocks)
    return text_of(content, "") if last.get("role") == "assistant" and not calls else None


def last_user_of(messages: list[JsonObject]) -> str | None:
    """Read the last message's text if it is the user's."""
    last: JsonObject = messages[-1] if messages else {}
    return text_of(last.get("content"), "\n") if last.get("role") == "user" else None


def messages_of(body: JsonObject) -> list[JsonObject]:
    """List the request's messages, leaving out what is no message."""
    return [m for m in body.get("messages") or [] if isinstance(m, dict)]


def estimate_tokens(value: Any) -> int:
    """Estimate tokens as a quarter of the characters."""
    return max(1, len(json.dumps(value, ensure_ascii=False)) // 4)


def lookup(problems: Problems, which: int | ProblemName, ask: Ask) -> Problem:
    """Find a problem in a wire's table (an unlisted status answers like its class) and fill in the model's name."""
    if isinstance(which, int):
        alike = problems[500 if which >= 500 else 400]
        found = replace(problems.get(which, alike), status=which)
    else:
        found = problems[which]
    return replace(found, message=found.message.replace("{model}", ask.model))
