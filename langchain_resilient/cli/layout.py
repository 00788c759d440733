"""How what a command found out is laid out: pairs, tables and warnings, for any width.

Rules of this file: pure; without a box, as boxes are no good at 40 columns and in files; nothing is cut off.
"""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table as Grid
from rich.text import Text

from langchain_resilient.cli.session import WIDE, indented

Cell = Text | str


def pairs(rows: Sequence[tuple[Cell, Cell]], width: int) -> RenderableType:
    """Two columns, or one below the other where there is no room."""
    if width < WIDE:
        return Group(*(part for left, right in rows for part in (left, indented(right, 3))))
    grid = Grid.grid(padding=(0, 3, 0, 0))
    for left, right in rows:
        grid.add_row(left, right)
    return grid


def table(heads: Sequence[str], rows: Sequence[Sequence[Cell]], width: int) -> RenderableType:
    """Columns under their heads; where there is no room, each row as pairs under its first cell. Columns without a word are left out."""
    used = [place for place in range(len(heads)) if place == 0 or any(str(row[place]) for row in rows)]
    if width < WIDE:
        return Group(
            *(
                part
                for row in rows
                for part in (
                    row[0],
                    *[indented(Text.assemble((f"{heads[at]}: ", "dim"), row[at])) for at in used[1:] if str(row[at])],
                )
            )
        )
    grid = Grid.grid(padding=(0, 2, 0, 0))
    grid.add_row(*[Text(heads[at], style="dim") for at in used])
    for row in rows:
        grid.add_row(*[row[at] for at in used])
    return grid


def bullet(text: str) -> Grid:
    """A warning."""
    grid = Grid.grid(padding=(0, 1, 0, 0))
    grid.add_row(Text("!", style="yellow"), text)
    return grid


def warned(warnings: Sequence[str]) -> list[RenderableType]:
    """All warnings under their head; nothing where there are none."""
    if not warnings:
        return []
    return ["", Text("Warnings", style="bold yellow"), *[indented(bullet(text)) for text in warnings]]
