"""What the caller said: the content blocks of user, system and tool messages, in forms that the target reads.

Rules of this file: what form a block has is told by langchain-core's own translation (`content_blocks`), one block at a time; a block that the
target reads as it stands is kept as it stands. Text is never left out: a block that can't be carried but holds text becomes that text. What
is left out of a user's message is replaced by a line that says so, since the model would otherwise answer about nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from langchain_core.messages import BaseMessage, HumanMessage

from langchain_resilient.messages.dialects import Traits, is_native
from langchain_resilient.messages.notes import Notes, plain

Block = str | dict[str, Any]

CACHE_KEYS = ("cache_control", "prompt_cache_breakpoint")
"""Anthropic's and OpenAI's way to ask for caching at a block."""
TEXTS = ("text", "input_text", "output_text")
MEDIA = ("image", "audio", "video", "file", "text-plain")
READ_BY_ALL = ("image", "image_url", "text")
"""Block types that every client reads as they are, if they come in a way that the target takes."""
HOW = {"base64": "as data", "url": "by url", "id": "by file id"}


class Parts:
    """Carries content blocks to one target.

    Args:
        home: The target's dialect.
        traits: What it takes.
        notes: Where changes are noted.
    """

    def __init__(self, home: str, traits: Traits, notes: Notes) -> None:
        self._home = home
        self._traits = traits
        self._notes = notes

    def user(self, content: list[Any]) -> list[Block] | None:
        """Blocks of a user's message; None if they are right as they are."""
        return self._carried(content, self._traits.media, None)

    def system(self, content: list[Any]) -> list[Block] | None:
        """Blocks of a system message: text only."""
        return self._carried(content, frozenset(), None)

    def tool(self, content: list[Any], moved: list[Block]) -> list[Block] | None:
        """Blocks of a tool's result; what only a user may show goes to `moved`."""
        return self._carried(content, self._traits.tool_media, moved if self._traits.follows_tool else None)

    def _carried(
        self, content: list[Any], media: frozenset[tuple[str, str]], moved: list[Block] | None
    ) -> list[Block] | None:
        carried = [self._block(block, media, moved) for block in content]
        if all(new is old for new, old in zip(carried, content, strict=True)):
            return None
        kept = [block for block in carried if block is not None]
        return kept or [_text("(empty)")]  # a cache mark alone: an empty list is refused by all

    def _block(self, block: Block, media: frozenset[tuple[str, str]], moved: list[Block] | None) -> Block | None:
        if isinstance(block, str):
            return block
        kind = block.get("type")
        if kind in TEXTS and isinstance(block.get("text"), str):
            return self._narrowed(block)
        if media and is_native(block, self._home):
            return block
        standard = _standard(block)
        if standard["type"] == "text":
            return _text(standard["text"])
        if standard["type"] in MEDIA:
            return self._medium(block, standard, media, moved)
        return self._foreign(block)

    def _narrowed(self, block: dict[str, Any]) -> Block:
        """A text block without what only another provider reads."""
        own = {"type": "text", "text": block["text"]}
        if (key := self._traits.cache_key) and key in block:
            own[key] = block[key]
        if own == block:
            return block
        extras = block.get("extras")
        self._note_cache(block, extras if isinstance(extras, dict) else {})
        return own

    def _note_cache(self, *places: Mapping[str, Any]) -> None:
        lost = [key for key in CACHE_KEYS if key != self._traits.cache_key and any(place.get(key) for place in places)]
        for key in lost:
            self._notes.lost(key)
        if not lost:
            self._notes.say("marks of a text block left out")  # citations, ids and the like

    def _medium(
        self,
        block: dict[str, Any],
        standard: dict[str, Any],
        media: frozenset[tuple[str, str]],
        moved: list[Block] | None,
    ) -> Block:
        kind, how = standard["type"], _how(standard)
        if (kind, how) in media:
            return self._readable(block, standard)
        if kind == "text-plain" and isinstance(standard.get("text"), str):
            self._notes.say("document turned into text")
            return _text(standard["text"])
        if moved is not None and (kind, how) in self._traits.media:
            self._notes.say(f"{kind} of a tool result shown by the user")
            moved.append(self._readable(block, standard))
            return _text(f"(The {kind} follows in the next message.)")
        self._notes.lost(f"{kind} {HOW.get(how, how)}")
        return _text(f"({kind} left out)")

    def _readable(self, block: dict[str, Any], standard: dict[str, Any]) -> Block:
        """The block itself if every client reads such blocks, else its standard form."""
        foreign = any(key in block and key != self._traits.cache_key for key in CACHE_KEYS)
        as_it_is = standard == block or isinstance(block.get("image_url"), dict)
        if as_it_is and not foreign:
            return block
        if foreign:
            self._note_cache(block)
        else:
            self._notes.say(f"{standard['type']} converted")
        # Not the `id`: core mints a new one at every reading, and the same history must look the same.
        new = {key: value for key, value in standard.items() if key not in CACHE_KEYS and key != "id"}
        extras = {key: value for key, value in (standard.get("extras") or {}).items() if key not in CACHE_KEYS}
        own = self._traits.cache_key
        if own and (mark := block.get(own)):
            new[own] = mark
        return {key: value for key, value in new.items() if key != "extras"} | ({"extras": extras} if extras else {})

    def _foreign(self, block: dict[str, Any]) -> Block | None:
        """A block that only another provider reads."""
        if "cachePoint" in block:
            self._notes.lost("cachePoint")
            return None
        name = plain(block.get("type"))
        if said := "\n".join(_texts(block)):
            self._notes.say(f"{name} block turned into text")
            return _text(said)
        self._notes.lost(f"{name} block")
        return _text(f"({name} left out)")


def _standard(block: dict[str, Any]) -> dict[str, Any]:
    """LangChain's standard form of a block, by its own translation; type "non_standard" if it has none."""
    if isinstance(url := block.get("image_url"), str):  # as some write it, and as OpenAI's Responses does
        block = {"type": "image_url", "image_url": {"url": url}}
    try:
        translated: Any = HumanMessage(content=[block]).content_blocks
    except Exception:  # noqa: BLE001 - a malformed block fails in core's translators as KeyError, ValueError, binascii.Error, …
        return {"type": "non_standard"}
    return dict(translated[0]) if len(translated) == 1 else {"type": "non_standard"}


def _how(standard: Mapping[str, Any]) -> str:
    if standard["type"] == "text-plain":
        return "text"
    if standard.get("base64") is not None:
        return "base64"
    return "url" if standard.get("url") else "id"


def _text(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def _texts(found: Any) -> list[str]:
    """The texts inside a block of unknown form: under `text`, or nested in `content`, `source` or `value`."""
    if isinstance(found, list):
        return [text for item in found for text in _texts(item)]
    if isinstance(found, str):
        return [found] if found else []
    if not isinstance(found, dict):
        return []
    own = found.get("text")
    nested = [text for key in ("content", "value", "source") if not isinstance(found.get(key), str) or key == "content"
              for text in _texts(found.get(key))]  # fmt: skip
    return ([own] if isinstance(own, str) and own else []) + nested


def with_content(message: BaseMessage, content: Any, **update: Any) -> BaseMessage:
    """A copy of a message with other content."""
    return message.model_copy(update={"content": content, **update})
