"""How one chat model goes on with what another began to say.

Rules of this file: what a caller sends together with `+` must read as one message: one id, one model's name, one finish reason, one shape of
content, and usage that adds up. Only text can be continued: a begun tool call, a refusal or audio can't, and what a second model
thinks of its instruction is no part of the answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage
from langchain_core.outputs import ChatGenerationChunk

from langchain_resilient.engine.effects import Begun

OPEN, CLOSE = "<last_words>", "</last_words>"
INSTRUCTION = (
    "The connection broke in the middle of your last message. Write the rest of it, so that both parts read as one text.\n"
    "Begin by repeating, character for character, its last words, which stand here between two tags, and go straight on from there. Do not "
    f"write the tags, do not start again, do not comment on this.\n{OPEN}%s{CLOSE}"
)
CONTINUABLE = frozenset({"text", "thinking", "redacted_thinking", "reasoning", "reasoning_content"})
"""Types of content blocks that another model may go on behind."""
UNCONTINUABLE_EXTRAS = ("refusal", "audio", "tool_calls", "function_call")
ONLY_JSON = ("response_format", "format", "text_format")
"""Arguments and settings that ask for JSON, of which no other model can be trusted to write the second half."""


def asked_to_continue(messages: Sequence[BaseMessage], begun: Begun) -> list[BaseMessage]:
    """A conversation that ends in a begun answer, with the request to write the rest of it."""
    last = messages[-1] if messages else None
    if isinstance(last, AIMessage) and isinstance(last.content, str) and not last.tool_calls:
        # The caller had begun the answer already: to the provider that is all one beginning.
        messages, text = messages[:-1], last.content + begun.text
    else:
        text = begun.text
    asked = [*messages, AIMessage(text)]
    return asked if begun.anchor is None else [*asked, HumanMessage(INSTRUCTION % begun.anchor)]


def asks_for_json(arguments: Any, model: Any) -> bool:
    """Whether a call's arguments, or the model itself, ask for JSON."""
    own = getattr(model, "model_kwargs", None) or {}
    return any(arguments.get(name) or own.get(name) for name in ONLY_JSON) or bool(getattr(model, "format", None))


class ChatContinuation:
    """What was shown of a stream of chat chunks, for another to go on with; see `can_continue`."""

    def __init__(self, shown: Sequence[ChatGenerationChunk]) -> None:
        messages = [chunk.message for chunk in shown]
        self.text = "".join([chunk.text for chunk in shown])
        self._id = next((message.id for message in messages if message.id), None)
        self._provider = next(
            (word for message in messages if (word := message.response_metadata.get("model_provider"))), None
        )
        blocks = [block for message in messages if isinstance(message.content, list) for block in message.content]
        self._in_blocks = bool(blocks)
        dicts = [block for block in blocks if isinstance(block, dict)]
        places = [block["index"] for block in dicts if isinstance(block.get("index"), int)]
        calls = [call["index"] for message in messages for call in getattr(message, "tool_call_chunks", ())]
        self._next_place = max([*places, *[call for call in calls if call is not None]], default=-1) + 1
        texts = [block["index"] for block in dicts if block.get("type") == "text" and "index" in block]
        self._place = texts[-1] if texts else self._next_place
        self._told: set[str] = set()
        for chunk in shown:
            self._told |= {*chunk.message.response_metadata, *(chunk.generation_info or ())}

    def joined(self, chunk: ChatGenerationChunk, text: str) -> ChatGenerationChunk | None:
        """Another stream's chunk as part of the same message, with `text` for its text; None: nothing is left of it."""
        message: Any = chunk.message
        calls: list[Any] = [
            {**call, "index": None if call["index"] is None else call["index"] + self._next_place}
            for call in getattr(message, "tool_call_chunks", ())
        ]
        metadata, told = self._untold(message.response_metadata), self._untold(chunk.generation_info or {})
        position = getattr(message, "chunk_position", None)
        if not (text or calls or metadata or told or message.usage_metadata or position):
            return None
        if self._provider is not None and "model_provider" in message.response_metadata:
            metadata["model_provider"] = self._provider  # LangChain reads a message's shape by it
        arguments = {} if position is None else {"chunk_position": position}  # older langchain-core has none
        joined = AIMessageChunk(
            content=self._content(text), response_metadata=metadata, tool_call_chunks=calls, id=self._id,
            usage_metadata=message.usage_metadata, **arguments,
        )  # fmt: skip
        return ChatGenerationChunk(message=joined, generation_info=told or None)

    def _content(self, text: str) -> Any:
        if not self._in_blocks:
            return text
        return [{"type": "text", "text": text, "index": self._place}] if text else []

    def _untold(self, metadata: Any) -> dict[str, Any]:
        """What was not told by what was shown: LangChain would write the two behind each other."""
        return {key: value for key, value in metadata.items() if key not in self._told}


def can_continue(shown: Sequence[ChatGenerationChunk]) -> bool:
    """Whether all that was shown is text, and what a model thought before it."""
    return all(_is_text(chunk.message) for chunk in shown)


def _is_text(message: Any) -> bool:
    if getattr(message, "tool_call_chunks", None) or getattr(message, "tool_calls", None):
        return False
    if any(message.additional_kwargs.get(name) for name in UNCONTINUABLE_EXTRAS):
        return False
    if isinstance(message.content, str):
        return True
    return all(isinstance(block, str) or block.get("type") in CONTINUABLE for block in message.content)
