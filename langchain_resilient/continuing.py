"""How one chat model goes on with what another began to say.

Rules of this file: what a caller sends together with `+` must read as one message: one id, one model's name, one finish reason, one shape of
content, and usage that adds up. Only text can be continued: a begun tool call, a refusal or audio can't, and what a second model
thinks of its instruction is no part of the answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage
from langchain_core.outputs import ChatGenerationChunk

from langchain_resilient.engine.effects import Begun
from langchain_resilient.engine.seam import INSTRUCTION
from langchain_resilient.messages.dialects import MARK, dialect

CONTINUABLE = frozenset({"text", "thinking", "redacted_thinking", "reasoning", "reasoning_content"})
"""Types of content blocks that another model may go on behind."""
MODEL_NAMES = frozenset({"model_name", "model", "model_id"})
"""Under which a message tells who wrote it: one name is enough."""
UNCONTINUABLE_EXTRAS = ("refusal", "audio", "tool_calls", "function_call")
ONLY_JSON = (
    "response_format", "text_format", "text",  # OpenAI, Mistral, Groq and their like
    "format",  # Ollama
    "output_format", "output_config",  # Anthropic
    "response_schema", "response_json_schema", "response_mime_type",  # Google
)  # fmt: skip
"""Arguments and settings that ask for JSON, of which no other model can be trusted to write the second half."""
HOLDING = ("text", "output_config")
"""Those that have it under "format", beside other settings."""


def asked_to_continue(messages: Sequence[BaseMessage], begun: Begun) -> list[BaseMessage]:
    """A conversation that ends in a begun answer, with the request to write the rest of it."""
    last = messages[-1] if messages else None
    if isinstance(last, AIMessage) and not last.tool_calls and _is_text(last):
        # The caller had begun the answer already: to the provider that is all one beginning.
        messages, text = messages[:-1], last.text + begun.text
    else:
        text = begun.text
    asked = [*messages, AIMessage(str(text))]
    return asked if begun.anchor is None else [*asked, HumanMessage(INSTRUCTION % begun.anchor)]


def asks_for_json(arguments: Mapping[str, Any], model: Any) -> bool:
    """Whether a call's arguments, or the model itself, ask for JSON."""
    own = getattr(model, "model_kwargs", None) or {}
    return any(_is_json(name, told.get(name)) for told in (arguments, own, vars(model)) for name in ONLY_JSON)


def _is_json(name: str, told: Any) -> bool:
    if name in HOLDING:
        told = told.get("format") if isinstance(told, Mapping) else None
    word = told.get("type") if isinstance(told, Mapping) else told
    return bool(told) and word not in {"text", "text/plain"}


class ChatContinuation:
    """What was shown of a stream of chat chunks, for another to go on with; see `can_continue`."""

    def __init__(self, shown: Sequence[ChatGenerationChunk]) -> None:
        messages = [chunk.message for chunk in shown]
        self.text = "".join([chunk.text for chunk in shown])
        self._id = next((message.id for message in messages if message.id), None)
        told = [message.response_metadata for message in messages]
        self._provider = next((word for metadata in told if (word := metadata.get("model_provider"))), None)
        # Under "v1" LangChain has rewritten what was shown, in the chunks themselves, and reads ours as standard blocks too.
        self._standard = any(metadata.get("output_version") == "v1" for metadata in told)
        blocks = [block for message in messages if isinstance(message.content, list) for block in message.content]
        self._in_blocks = self._standard or any(isinstance(message.content, list) for message in messages)
        dicts = [block for block in blocks if isinstance(block, dict)]
        places = [block["index"] for block in dicts if isinstance(block.get("index"), int)]
        texts = [block["index"] for block in dicts if block.get("type") == "text" and "index" in block]
        free = max(places, default=-1) + 1
        self._place = texts[-1] if texts else free
        self._next_place = free if texts else free + 1
        self._told: set[str] = {MARK} if any(MARK in metadata for metadata in told) else set()
        for chunk in shown:
            self._tell({*chunk.message.response_metadata, *(chunk.generation_info or ())})

    def joined(self, chunk: ChatGenerationChunk, text: str) -> ChatGenerationChunk | None:
        """Another stream's chunk as part of the same message, with `text` for its text; None: nothing is left of it."""
        message: Any = chunk.message
        calls: list[Any] = [
            {**call, "index": self._place_of(call)} for call in getattr(message, "tool_call_chunks", ())
        ]
        metadata, told = self._untold(message.response_metadata), self._untold(chunk.generation_info or {})
        position = getattr(message, "chunk_position", None)
        if not (text or calls or metadata or told or message.usage_metadata or position):
            return None
        # LangChain reads a message's shape by it: that is the first one's, also where that one tells it at the end only, as Ollama's does.
        if self._provider is None and not self._standard:
            metadata.pop("model_provider", None)
        if self._standard:
            metadata["output_version"] = "v1"
        if MARK not in self._told:
            self._told.add(MARK)
            metadata[MARK] = True
        arguments = {} if position is None else {"chunk_position": position}  # older langchain-core has none
        joined = AIMessageChunk(
            content=self._content(text, calls), response_metadata=metadata, tool_call_chunks=calls, id=self._id,
            usage_metadata=message.usage_metadata, **arguments,
        )  # fmt: skip
        return ChatGenerationChunk(message=joined, generation_info=told or None)

    def _place_of(self, call: Any) -> int | None:
        """A place that nothing shown has; a call that comes whole has none of its own, and gets one where blocks need it."""
        if call["index"] is not None:
            return int(call["index"]) + self._next_place
        if not self._in_blocks:
            return None
        self._next_place += 1
        return self._next_place - 1

    def _content(self, text: str, calls: Sequence[Any]) -> Any:
        if not self._in_blocks:
            return str(text)
        # Exactly a `str`: LangChain refuses to add one of its own `TextAccessor`s to it.
        blocks: list[dict[str, Any]] = [{"type": "text", "text": str(text), "index": self._place}] if text else []
        if self._standard:
            blocks += [{**call, "type": "tool_call_chunk"} for call in calls]
        elif self._provider is not None and (as_block := CALLS.get(dialect(self._provider))):
            blocks += [as_block(call) for call in calls]
        return blocks

    def _tell(self, keys: set[str]) -> None:
        self._told |= keys
        if not keys.isdisjoint(MODEL_NAMES):
            self._told |= MODEL_NAMES

    def _untold(self, metadata: Any) -> dict[str, Any]:
        """What was not told by what was shown: LangChain would write the two behind each other."""
        return {key: value for key, value in metadata.items() if key not in self._told and key != "output_version"}


def _as_anthropics(call: Any) -> dict[str, Any]:
    if not call["name"]:
        return {"type": "input_json_delta", "partial_json": call["args"] or "", "index": call["index"]}
    block = {"type": "tool_use", "id": call["id"], "name": call["name"], "input": {}, "index": call["index"]}
    return {**block, "partial_json": call["args"]} if call["args"] else block


def _as_openais(call: Any) -> dict[str, Any]:
    block = {"type": "function_call", "arguments": call["args"] or "", "index": call["index"]}
    return {**block, "name": call["name"], "call_id": call["id"]} if call["name"] else block


CALLS = {"anthropic": _as_anthropics, "openai": _as_openais}
"""A part of a tool call as the block in which a client streams it: of theirs LangChain reads the content alone. OpenAI's has blocks in its
Responses API only."""


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
