"""How the answers of each of LiteLLM's routes are read: chat completions, Anthropic's messages, OpenAI's responses.

Rules of this file: what the engine asks of an answer is a function of it, one for each route; a route that can't be continued says so by
None. Nothing here changes an answer.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import litellm

from langchain_resilient.engine.events import Usage
from litellm_hooks import chunks
from litellm_hooks.chunks import ChunkContinuation
from litellm_hooks.streams import PlainStream, ResilientStream

Messages = Any
"""What the prompt's tokens are counted of."""


def _nothing(*_: Any) -> None:
    return None


def _no_words(_: Any) -> Iterator[str]:
    return iter(())


class Report(NamedTuple):
    """What one chunk tells of a stream's tokens; None: it does not say."""

    paid: int | None = None
    """Of the prompt."""
    got: int | None = None
    """Of the whole answer, which only its end knows."""


def _no_report(_: Any) -> Report:
    return Report()


class Reader(NamedTuple):
    """How one route's answers are read."""

    has_content: Callable[[Any], bool]
    """Whether a chunk carries what the user waits for: not a keep-alive, and no mere beginning."""
    finish_reason: Callable[[Any], str | None]
    usage: Callable[[Any], Usage | None]
    text: Callable[[Any], str]
    besides: Callable[[Any], Iterator[str]]
    """What a chunk says besides its text, and costs as much: thoughts, and calls of tools."""
    stream: Callable[[Any, Any, Any, str], Any]
    """What is handed to the user: of the engine's chunks, the first of them, LiteLLM's own stream, and the group."""
    failure: Callable[[Any], Exception | None] = _nothing
    """The failure that an answer, or a chunk, tells in the middle of a success, where the route has such."""
    finishes: bool = False
    """Whether every stream of the route that is whole says why it ended."""
    continuation: Callable[[Sequence[Any], Mapping[str, Any]], ChunkContinuation | None] = _nothing
    """What another stream needs to go on with these chunks of a request; None: it can't be."""
    builds: bool = False
    """Whether a stream's chunks can be put together as the unstreamed answer that they are."""
    whole: Callable[[Sequence[Any], Mapping[str, Any]], Any] = _nothing
    """Does so, where it `builds`."""
    report: Callable[[Any], Report] = _no_report
    """What a chunk tells of a stream's tokens, where the route does so in parts. An attempt's first report tells of the prompt."""


# ----------------------------------------------------------------------------------------------------- chat completions
def _continued(shown: Sequence[Any], request: Mapping[str, Any]) -> ChunkContinuation | None:
    if chunks.asks_for_json(request) or not chunks.can_continue(shown):
        return None
    return ChunkContinuation(shown)


def _built(shown: Sequence[Any], request: Mapping[str, Any]) -> Any:
    return litellm.stream_chunk_builder(list(shown), messages=request.get("messages"))


CHAT = Reader(
    chunks.has_content, chunks.finish_reason, chunks.usage_of, chunks.text_of, chunks.besides_text, ResilientStream, continuation=_continued,
    builds=True, whole=_built,
)  # fmt: skip


# -------------------------------------------------------------------------------------------------- Anthropic's messages
KINDS = {
    "overloaded_error": litellm.ServiceUnavailableError,
    "rate_limit_error": litellm.RateLimitError,
    "invalid_request_error": litellm.BadRequestError,
    "authentication_error": litellm.AuthenticationError,
    "not_found_error": litellm.NotFoundError,
}
"""What an error event is called, in LiteLLM's terms; all others are the server's fault."""


def events_of(chunk: Any) -> Iterator[Mapping[str, Any]]:
    """The events in a chunk of server-sent events; one that comes in pieces is read where its data line is whole."""
    if isinstance(chunk, Mapping):
        yield chunk
        return
    raw = chunk if isinstance(chunk, bytes) else str(chunk).encode()
    for line in raw.splitlines():
        if line.startswith(b"data:"):
            try:
                event = json.loads(line[5:])
            except ValueError:
                continue
            if isinstance(event, Mapping):
                yield event


def _messages_content(chunk: Any) -> bool:
    return any(event.get("type") == "content_block_delta" for event in events_of(chunk))


def _messages_finish(answer: Any) -> str | None:
    told = [{**event, **(event.get("delta") or {})}.get("stop_reason") for event in events_of(answer)]
    return next((str(reason) for reason in told if reason), None)


def _messages_usage(answer: Any) -> Usage | None:
    for event in events_of(answer):
        told = event.get("usage")
        # The last event of a stream tells the output's tokens alone, unless the provider is generous.
        if told and told.get("input_tokens") is not None and told.get("output_tokens") is not None:
            return Usage(told["input_tokens"], told["output_tokens"], told.get("cache_read_input_tokens") or 0)
    return None


def _messages_text(chunk: Any) -> str:
    return "".join(str((event.get("delta") or {}).get("text") or "") for event in events_of(chunk))


def _messages_besides(chunk: Any) -> Iterator[str]:
    for event in events_of(chunk):
        begun, delta = event.get("content_block") or {}, event.get("delta") or {}
        for said in (begun.get("name"), delta.get("thinking"), delta.get("partial_json")):
            if isinstance(said, str):
                yield said


def _messages_report(chunk: Any) -> Report:
    paid = got = None
    for event in events_of(chunk):
        if event.get("type") == "message_start":
            paid = _tokens((event.get("message") or {}).get("usage"), "input_tokens")
        elif event.get("type") == "message_delta":
            got = _tokens(event.get("usage"), "output_tokens")
    return Report(paid, got)


def _tokens(usage: Any, name: str) -> int | None:
    told = usage.get(name) if isinstance(usage, Mapping) else None
    return told if isinstance(told, int) and told > 0 else None  # LiteLLM says 0 where it does not know yet


def _messages_failure(chunk: Any) -> Exception | None:
    for event in events_of(chunk):
        if event.get("type") == "error":
            error = event.get("error") or {}
            kind = KINDS.get(str(error.get("type")), litellm.InternalServerError)
            failure: Exception = kind(message=str(error.get("message")), llm_provider="anthropic", model="")
            return failure
    return None


MESSAGES = Reader(
    _messages_content, _messages_finish, _messages_usage, _messages_text, _messages_besides, PlainStream, failure=_messages_failure,
    finishes=True, report=_messages_report,
)  # fmt: skip


# --------------------------------------------------------------------------------------------------- OpenAI's responses
ENDS = frozenset({"response.completed", "response.incomplete"})
FAILURES = frozenset({"response.failed", "error"})
NO_WORDS = frozenset({"response.output_text.delta", "response.audio.delta", "response.output_audio.delta"})
"""Deltas that are text, and told as such, or sound."""


def _event_type(event: Any) -> str:
    told = getattr(event, "type", "")
    return str(getattr(told, "value", told))


def _responses_content(event: Any) -> bool:
    return _event_type(event).endswith(".delta") and bool(getattr(event, "delta", None))


def _responses_finish(answer: Any) -> str | None:
    kind = _event_type(answer)
    if kind in ENDS:
        return kind
    status = getattr(answer, "status", None)
    return status if status in {"completed", "incomplete"} else None


def _responses_usage(answer: Any) -> Usage | None:
    told = getattr(getattr(answer, "response", answer), "usage", None)
    paid, got = getattr(told, "input_tokens", None), getattr(told, "output_tokens", None)
    return None if paid is None or got is None else Usage(paid, got, 0)


def _responses_text(event: Any) -> str:
    return str(event.delta) if _event_type(event) == "response.output_text.delta" else ""


def _responses_besides(event: Any) -> Iterator[str]:
    kind, delta = _event_type(event), getattr(event, "delta", None)
    if kind.endswith(".delta") and kind not in NO_WORDS and isinstance(delta, str):
        yield delta


def _responses_failure(event: Any) -> Exception | None:
    if _event_type(event) not in FAILURES:
        return None
    error = getattr(getattr(event, "response", None), "error", None) or getattr(event, "error", None) or event
    told = getattr(error, "message", None) or str(error)
    failure: Exception = litellm.InternalServerError(message=str(told), llm_provider="openai", model="")
    return failure


RESPONSES = Reader(
    _responses_content, _responses_finish, _responses_usage, _responses_text, _responses_besides, PlainStream, failure=_responses_failure,
    finishes=True,
)  # fmt: skip

ROUTES: Mapping[str, Reader] = {"acompletion": CHAT, "aanthropic_messages": MESSAGES, "aresponses": RESPONSES}
"""The Router's methods that the engine serves."""
