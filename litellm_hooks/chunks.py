"""How LiteLLM's answers and chunks are read, and how one stream goes on behind another.

Rules of this file: chunks are OpenAI's, whoever the provider is, since LiteLLM makes them so. What a client reads must be one answer: one id,
one model, one role, one finish reason.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

from langchain_resilient.engine.effects import Begun
from langchain_resilient.engine.events import Usage
from langchain_resilient.engine.seam import INSTRUCTION

SPEAKING = (
    "content",
    "reasoning_content",
    "tool_calls",
    "function_call",
    "refusal",
    "audio",
    "images",
    "thinking_blocks",
)
CONTINUABLE = frozenset({"content", "reasoning_content", "thinking_blocks"})
"""What another model may go on behind."""


def told(thing: Any, name: str) -> Any:
    """As `getattr(thing, name, None)`: a pydantic model takes 5 µs to say that it has no such attribute, and chunks lack most."""
    kind: Any = type(thing)  # mypy takes no class for hashable
    if not _answers(kind, "model_extra") or _answers(kind, name):
        return getattr(thing, name, None)
    found = vars(thing).get(name)
    return found if found is not None or not thing.model_extra else thing.model_extra.get(name)


@lru_cache(maxsize=256)
def _answers(kind: type, name: str) -> bool:
    """Whether the class itself has it: a property, say."""
    return any(name in vars(one) for one in kind.__mro__)


def delta_of(chunk: Any) -> Any:
    """What a chunk adds; None: nothing (usage, say)."""
    choices = getattr(chunk, "choices", None)
    return choices[0].delta if choices else None


def has_content(chunk: Any) -> bool:
    """Whether a chunk carries text, reasoning, a tool call, a refusal or audio."""
    delta = delta_of(chunk)
    return delta is not None and any(told(delta, name) for name in SPEAKING)


def finish_reason(answer: Any) -> str | None:
    """Why the provider stopped, if this answer or chunk says so."""
    choices = getattr(answer, "choices", None)
    reason = choices[0].finish_reason if choices else None
    return None if reason is None else str(reason)


def usage_of(answer: Any) -> Usage | None:
    """The tokens that an answer, or a chunk, reports."""
    usage = told(answer, "usage")
    if usage is None:
        return None
    details = getattr(usage, "prompt_tokens_details", None)
    cached = getattr(details, "cached_tokens", None) if details is not None else None
    return Usage(usage.prompt_tokens or 0, usage.completion_tokens or 0, cached or 0)


def text_of(chunk: Any) -> str:
    """The plain text of a chunk."""
    delta = delta_of(chunk)
    return (told(delta, "content") or "") if delta is not None else ""


def besides_text(chunk: Any) -> Iterator[str]:
    """What a chunk says besides its text: thoughts, and calls of tools."""
    delta = delta_of(chunk)
    calls = [call.function for call in told(delta, "tool_calls") or ()]
    for said in (
        told(delta, "reasoning_content"),
        *(part for call in calls for part in (call.name, call.arguments)),
    ):
        if isinstance(said, str):
            yield said


def can_continue(shown: Sequence[Any]) -> bool:
    """Whether all that was shown is text, and what a model thought before it, of one choice."""
    for chunk in shown:
        delta = delta_of(chunk)
        if delta is None:
            continue
        if len(chunk.choices) > 1 or chunk.choices[0].index != 0:
            return False
        if any(told(delta, name) for name in SPEAKING if name not in CONTINUABLE):
            return False
    return True


def asks_for_json(request: Mapping[str, Any]) -> bool:
    """Whether a request asks for JSON, of which no other model can be trusted to write the second half."""
    form = request.get("response_format")
    if form is None:
        return False
    return not (isinstance(form, Mapping) and form.get("type") in {None, "text"})


def asked_to_continue(messages: Sequence[Any], begun: Begun) -> list[Any]:
    """A conversation that ends in a begun answer, with the request to write the rest of it."""
    messages, text = list(messages), begun.text
    last = messages[-1] if messages else None
    if (
        isinstance(last, Mapping)
        and last.get("role") == "assistant"
        and isinstance(last.get("content"), str)
        and not last.get("tool_calls")
    ):
        # The caller had begun the answer already: to the provider that is all one beginning.
        messages, text = messages[:-1], last["content"] + text
    if begun.anchor is None:
        return [*messages, {"role": "assistant", "content": text, "prefix": True}]
    return [*messages, {"role": "assistant", "content": text}, {"role": "user", "content": INSTRUCTION % begun.anchor}]


class ChunkContinuation:
    """What was shown of a stream, for another to go on with; see `can_continue`."""

    def __init__(self, shown: Sequence[Any]) -> None:
        self.text = "".join(map(text_of, shown))
        self._first = shown[0]

    def joined(self, chunk: Any, text: str) -> Any | None:
        """Another stream's chunk as part of the same answer, with `text` for its text; None: nothing is left of it."""
        delta = delta_of(chunk)
        rest = delta is not None and any(told(delta, name) for name in SPEAKING if name not in CONTINUABLE)
        if not (text or rest or finish_reason(chunk) or told(chunk, "usage")):
            return None
        chunk.id, chunk.created, chunk.model = self._first.id, self._first.created, self._first.model
        if delta is not None:
            delta.role = None
            delta.content = text or None
            for name in ("reasoning_content", "thinking_blocks"):
                if told(delta, name):
                    setattr(delta, name, None)
        return chunk
