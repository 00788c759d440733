"""How what a command found out is laid out: pairs, tables and warnings, for any width.

Rules of this file: pure; without a box, as boxes are no good at 40 columns and in files; nothing is cut off.
"""

from __future__ import annotations

from collections.abc import Sequence

from rich.cells import cell_len
from rich.console import Group, RenderableType
from rich.table import Table as Grid
from rich.text import Text

from langchain_resilient.cli.session import WIDE, indented

Cell = Text | str


def pairs(rows: Sequence[tuple[Cell, Cell]], width: int) -> RenderableType:
    """Two columns, or one below the other where there is no room."""
    grid = _side_by_side(rows, width, 3)
    if grid is None:
        return Group(*(part for left, right in rows for part in (left, indented(right, 3))))
    return grid


def table(heads: Sequence[str], rows: Sequence[Sequence[Cell]], width: int) -> RenderableType:
    """Columns under their heads; where there is no room, each row as pairs under its first cell. Columns without a word are left out."""
    used = [place for place in range(len(heads)) if place == 0 or any(str(row[place]) for row in rows)]
    titles = [Text(heads[at], style="dim") for at in used]
    grid = _side_by_side([titles, *([row[at] for at in used] for row in rows)], width, 2)
    if grid is None:
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
    return grid


def _side_by_side(rows: Sequence[Sequence[Cell]], width: int, gap: int) -> Grid | None:
    """Columns with a gap behind each, in which no word is broken; None: there is no room for that."""
    columns = list(zip(*rows, strict=True))
    least = [max([_longest(str(cell).split()) for cell in column]) for column in columns]
    room = width - sum(least) - gap * len(columns)
    if width < WIDE or room < 0:
        return None
    # Rich's own way takes from the widest column first, and so the ends of ids and names.
    grid = Grid.grid(padding=(0, gap, 0, 0))
    wished = [max([_longest(str(cell).splitlines()) for cell in column]) for column in columns]
    lacking = [wish - has for wish, has in zip(wished, least, strict=True)]
    widths = list(least)
    for at in sorted(range(len(widths)), key=lacking.__getitem__):
        more = min(lacking[at], room)
        widths[at] += more
        room -= more
    for each in widths:
        grid.add_column(width=each)
    for row in rows:
        grid.add_row(*row)
    return grid


def _longest(parts: Sequence[str]) -> int:
    return max(map(cell_len, parts), default=0)


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
