"""What the tests of dead letters share: letters, and ways to open a box of each kind again and again at one place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from langchain_resilient.engine.dead_letters.box import Box
from langchain_resilient.engine.dead_letters.letter import Letter
from langchain_resilient.engine.dead_letters.redis import RedisBox
from langchain_resilient.engine.dead_letters.sealing import Seal
from langchain_resilient.engine.dead_letters.sqlite import SqliteBox
from langchain_resilient.testing.clock import FakeClock

EPOCH = FakeClock().wall()
TENANT = "acme"
"""Whose all letters here are."""


def letter(number: int = 1, **changed: object) -> Letter:
    """One letter; those with higher numbers are younger."""
    made = Letter(
        id=f"id-{number:04}", key=f"key-{number}", created=EPOCH - 1000 + number, kind="timeout",
        attempts=({"provider": "openai/gpt-4.1", "kind": "timeout", "seconds": 12.0},),
        content={"messages": [{"type": "human", "content": f"question {number}"}], "parameters": {"temperature": 0.5}}, tenant=TENANT,
    )  # fmt: skip
    return replace(made, **changed)


class Place:
    """Where boxes are opened: all that are opened at one place hold the same letters.

    Args:
        kind: "sqlite" or "redis".
        folder: For the file, or the spool.
        url: Of Redis.
        namespace: In Redis.
    """

    def __init__(self, kind: str, folder: Path, url: str = "", namespace: str = "") -> None:
        self.kind, self.folder, self.url, self.namespace = kind, folder, url, namespace
        self.clock = FakeClock()
        self.boxes: list[Box] = []

    def __call__(
        self, *, wall: Callable[[], float] | None = None, seal: Seal | None = None, keep: float = 600.0
    ) -> Box:
        """A box, on this place's clock unless another is given."""
        now = wall or self.clock.wall
        if self.kind == "sqlite":
            box: Box = SqliteBox(self.folder / "letters.db", seal, keep_results=keep, wall=now)
        else:
            box = RedisBox(
                self.url, self.namespace, seal, spool=self.folder, keep_results=keep, clock=lambda: round(now() * 1e6)
            )
        self.boxes.append(box)
        return box

    def close(self) -> None:
        """Close all that were opened."""
        while self.boxes:
            self.boxes.pop().close()


def ids(letters) -> list[str]:
    """Of letters, with or without their states."""
    return [(it[1] if isinstance(it, tuple) else it).id for it in letters]
