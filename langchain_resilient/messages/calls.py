"""Ids of tool calls: each call keeps its own where the target takes it, and gets a new one otherwise; its result follows it.

Rules of this file: an id is kept if it fits and nobody else has it. A new one depends only on what came before it in the conversation, so that
the same history looks the same in every request and a provider's prompt cache still serves. A result belongs to the last answer before it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Any

from langchain_resilient.messages.dialects import Traits


class Ids:
    """The ids of one conversation.

    Args:
        traits: Of the target.
        taken: Ids of calls that the target itself made: they stay.
    """

    def __init__(self, traits: Traits, taken: set[str]) -> None:
        self._traits = traits
        self._taken = taken
        self._waiting: dict[str, deque[str]] = {}
        self.rewritten = False

    def own(self, calls: Sequence[Mapping[str, Any]]) -> None:
        """Take calls of the target's own as they are."""
        self._waiting = {}
        for call in calls:
            old = call.get("id") or ""
            self._waiting.setdefault(old, deque()).append(old)

    def calls(self, calls: Sequence[Mapping[str, Any]]) -> list[str]:
        """Give each call of another's answer its id."""
        self._waiting = {}
        given = []
        for call in calls:
            old = call.get("id") or ""
            new = self._fit(old)
            self._waiting.setdefault(old, deque()).append(new)
            given.append(new)
        return given

    def result(self, old: str) -> str:
        """Find the id of the call that a result answers; a result without one is left to the provider's judgement."""
        waiting = self._waiting.get(old)
        if not waiting:
            return old
        return waiting.popleft() if len(waiting) > 1 else waiting[0]

    def _fit(self, old: str) -> str:
        if self._traits.ids.fullmatch(old) and old not in self._taken:
            self._taken.add(old)
            return old
        self.rewritten = True
        attempt = 0
        while True:
            made = blake2b(f"{attempt}:{old}".encode(), digest_size=12).hexdigest()
            new = f"call_{made}" if self._traits.long_ids else made[:9]
            if new not in self._taken:
                self._taken.add(new)
                return new
            attempt += 1
