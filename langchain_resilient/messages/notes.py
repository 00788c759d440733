"""What was changed, in the words of the decision record.

Rules of this file: a note is short, comes from a closed set of phrases and holds nothing of the conversation; of names that others chose only
plain words are repeated.
"""

from __future__ import annotations

import re

_VERSION = re.compile(r"(_preview)?(_\d{4}_?\d{2}_?\d{2})?$")
_WORD = re.compile(r"[a-z][a-z0-9_]{0,39}")


class Notes:
    """The changes of one conversation, each told once, in the order in which they were first made."""

    def __init__(self) -> None:
        self._said: dict[str, None] = {}
        self._reasoning = 0

    def __bool__(self) -> bool:
        """Whether anything was changed."""
        return bool(self._said)

    def lost(self, what: str) -> None:
        """Note what was left out."""
        self.say(f"{what} left out")

    def lost_reasoning(self) -> None:
        """Count a block of reasoning that was left out."""
        self._reasoning += 1
        self._said[""] = None

    def say(self, change: str) -> None:
        """Note a change."""
        self._said[change] = None

    def told(self) -> tuple[str, ...]:
        """All of them."""
        count = self._reasoning
        reasoning = f"{count} reasoning block{'s' if count > 1 else ''} left out"
        return tuple(said or reasoning for said in self._said)


def plain(name: object, otherwise: str = "unknown") -> str:
    """A provider's word for something without its version; `otherwise` if it isn't a plain word."""
    word = _VERSION.sub("", name) if isinstance(name, str) else ""
    return word if _WORD.fullmatch(word) else otherwise
