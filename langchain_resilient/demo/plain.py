"""The play as lines of a log, for CI and for terminals that can't do more.

Rules of this file: ASCII, no control characters, at most 120 columns; every line begins with the play's time and stands for itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from langchain_resilient.demo.ledger import Figures
from langchain_resilient.demo.page import ascii_of, printable
from langchain_resilient.demo.play import Play
from langchain_resilient.demo.scene import Scene, Side, look
from langchain_resilient.demo.watching import watch
from langchain_resilient.demo.words import LABELS, change_words
from langchain_resilient.engine.events import CircuitChanged

WIDEST = 120
PERIOD = 1.0
"""Seconds between two lines of counts."""
LOOKS = 10.0
"""Looks a second: how late a line may be."""


class Log:
    """Turns scenes into lines; it remembers what it has told."""

    def __init__(self) -> None:
        self._title = ""
        self._changes = 0
        self._next = PERIOD

    def lines(self, scene: Scene, changes: Sequence[tuple[float, CircuitChanged]], *, over: bool = False) -> list[str]:
        """What is new.

        Args:
            scene: The moment.
            changes: All that our circuits did so far.
            over: Whether this is the end: then the counts are told in any case.
        """
        found = [line_of(at, f"ours: {change_words(change)}") for at, change in changes[self._changes :]]
        self._changes = len(changes)
        title = f"{scene.phase.clock}: {scene.phase.title}"
        if title != self._title:
            found.append(line_of(scene.elapsed, title))
            self._title = title
        if scene.sides and (over or scene.elapsed >= self._next):
            found.append(line_of(scene.elapsed, counts(scene.sides)))
            # Counted from now: after a pause of the process there is one line, not one for each second missed.
            self._next = scene.elapsed + PERIOD
        return found


def counts(sides: Sequence[Side]) -> str:
    """What each contender's users got so far."""
    long = "answered/failed/waiting: " + " | ".join(f"{side.name} {_triple(side.total)}" for side in sides)
    if len(long) <= WIDEST - 12:
        return long
    return "ok/failed/waiting: " + " | ".join(
        f"{LABELS.get(side.name, side.name)} {_triple(side.total)}" for side in sides
    )


def _triple(figures: Figures) -> str:
    return f"{figures.answered}/{figures.failed}/{figures.waiting}".ljust(9)


def line_of(at: float, text: str) -> str:
    """One line of the log."""
    plain = ascii_of(printable(text).replace("→", "->").replace("…", "..."))
    line = f"[{at:5.1f}s] {plain}".rstrip()
    return line if len(line) <= WIDEST else line[: WIDEST - 3] + "..."


async def follow(play: Play, write: Callable[[str], object]) -> None:
    """Write what happens until it is over.

    Args:
        play: Somebody else plays it, in this loop.
        write: Takes one line, without a line break.
    """
    log = Log()

    def tell() -> None:
        for line in log.lines(look(play), play.changes, over=play.over):
            write(line)

    await watch(play, tell, every=1 / LOOKS)
