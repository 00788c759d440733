"""The play on a terminal, as it goes.

Rules of this file: a frame is made of a scene and a size, and of nothing else. What finds no room goes by importance: the contenders'
counts stay, then the time of the story, our providers, the news, the answer on screen.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from rich.console import Console, RenderableType
from rich.live import Live
from rich.text import Text

from langchain_resilient.demo.frame import Look, contenders, decisions, heading, on_screen, providers
from langchain_resilient.demo.page import Page, cut, indented
from langchain_resilient.demo.plain import follow
from langchain_resilient.demo.play import Play
from langchain_resilient.demo.scene import Scene, look
from langchain_resilient.demo.watching import watch

FRAMES = 6.0
"""Frames a second: often enough for words that come one by one, too seldom to flicker."""
_IMPORTANCE = (1, 0, 2, 4, 3)
"""The blocks of a frame, by their places in it: who gets its lines first."""


class Block(NamedTuple):
    """A part of a frame."""

    lines: Sequence[Text]
    least: int
    """Lines without which it is not shown."""
    enough: int
    """Lines that it gets before any part gets all."""

    @classmethod
    def whole(cls, lines: Sequence[Text]) -> Block:
        """All of it or nothing."""
        return cls(lines, len(lines), len(lines))


def render(scene: Scene, *, width: int, height: int) -> RenderableType:
    """One frame: at most `height` lines of at most `width` cells."""
    view = Look.of(width)
    blocks = (
        Block.whole(heading(scene, view)),
        Block.whole(contenders(scene.sides, view) if scene.sides else []),
        Block.whole(providers(scene.standings, view) if scene.standings else []),
        Block(on_screen(scene.stream, view), 2, 2),
        Block(decisions(scene.told, view), 2, 5),
    )
    return Page([cut(line, width) for line in indented(_stacked(blocks, height), view.margin)])


def _stacked(blocks: Sequence[Block], height: int) -> list[Text]:
    """What finds room: first the least of each by importance, then blank lines between them, then more of each."""
    shown: dict[int, int] = {}
    free = height
    for index in _IMPORTANCE:
        block = blocks[index]
        if block.lines and block.least <= free:
            shown[index] = block.least
            free -= block.least
    gaps = min(max(0, len(shown) - 1), free)
    free -= gaps
    for all_of_it in (False, True):
        for index in sorted(shown):
            wanted = len(blocks[index].lines) if all_of_it else min(blocks[index].enough, len(blocks[index].lines))
            more = min(free, max(0, wanted - shown[index]))
            shown[index] += more
            free -= more
    lines: list[Text] = []
    for place, index in enumerate(sorted(shown)):
        lines += [Text()] * (0 < place <= gaps)
        lines += blocks[index].lines[: shown[index]]
    return lines


async def show(play: Play, console: Console) -> None:
    """Show it until it is over, on the terminal's other screen: what was there before is there again afterwards.

    On a terminal that can't move its cursor, and on none, it is told in lines instead (`plain.follow`).

    Args:
        play: Somebody else plays it, in this loop. Cancelled, this leaves the terminal as it was.
        console: Where to.
    """
    if not console.is_terminal or console.is_dumb_terminal:
        await follow(play, lambda line: console.print(line, markup=False, highlight=False, emoji=False, soft_wrap=True))
        return
    # The other screen and not in place: a window that changes its size would leave torn lines behind.
    with Live(console=console, screen=True, auto_refresh=False) as live:

        def draw() -> None:
            # A scene's own choice is a second's news. Here it is as long as the play keeps it: equal news are one line.
            scene = look(play)._replace(told=tuple(play.told))
            live.update(render(scene, width=console.width, height=console.height), refresh=True)

        await watch(play, draw, every=1 / FRAMES)
