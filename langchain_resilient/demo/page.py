"""Lines that fit: columns that give way by importance, bars, paragraphs, and a page that any terminal can print.

Rules of this file: nothing here knows the play. Widths are terminal cells. No line is ever wider than it was told, whatever it holds;
what is cut ends with "…". Widths hang on the terminal and not on what is shown, so that nothing jumps from one frame to the next.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from rich.cells import cell_len, chop_cells
from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

GOOD, CARE, BAD, ACCENT, QUIET, LOUD = "green", "yellow", "red", "cyan", "dim", "bold"
"""One colour for each meaning: well, doubtful, broken, the thread of the story; and what is read last, or first."""
FULL, EMPTY, DONE, HEAD, TO_COME, CURSOR = "█", "░", "━", "╸", "─", "▌"
_WORDS = re.compile(r"\S*\d s\b\S*|\S+")
_PLAIN = str.maketrans("●◐×█░━╸─→·–—…▌’“”", 'o%x#.=>->---._\'""')
"""One sign for one sign: a line keeps its width and its colours."""


def ascii_of(text: str) -> str:
    """The same for a terminal that knows ASCII only, sign by sign."""
    return "".join(sign if sign.isascii() else "?" for sign in text.translate(_PLAIN))


def printable(text: str) -> str:
    """Without line breaks and control characters: what came from elsewhere must not move the cursor."""
    return "".join(sign if sign.isprintable() else " " for sign in text)


class Page:
    """Lines as they are to be printed; in ASCII where the console's encoding has no more."""

    def __init__(self, lines: Sequence[Text]) -> None:
        self.lines = tuple(lines)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Print the lines; a console narrower than the page cuts them."""
        for line in self.lines:
            shown = cut(line.copy(), options.max_width)
            if options.ascii_only:
                shown.plain = ascii_of(shown.plain)
                # A sign without width has become one of a cell. What is now too long is cut without an ellipsis, which isn't ASCII.
                shown.overflow = "crop"
                shown.truncate(options.max_width, overflow="crop")
            yield shown

    def text(self) -> str:
        """The same without colour and trailing blanks."""
        return "\n".join(line.plain.rstrip() for line in self.lines)


class Column(NamedTuple):
    """One column of a table."""

    title: str
    cells: Sequence[Text] | Callable[[int], Sequence[Text]]
    """One for each row; or what draws them for the width that the column gets, for one that may shrink."""
    width: int = 0
    """What it takes at least, so that growing numbers move nothing; a column that may shrink takes no more than this."""
    right: bool = False
    keep: int = 9
    """Importance: where there is no room, the least important goes first; 9 stays."""
    least: int | None = None
    """To how few cells it may shrink; None: not at all."""

    @property
    def needs(self) -> int:
        """The cells that it can't do without."""
        if self.least is not None:
            return self.least
        return max([self.width, cell_len(self.title), *(cell.cell_len for cell in self.drawn(self.width))])

    def drawn(self, width: int) -> Sequence[Text]:
        """The cells at this width."""
        return self.cells(width) if callable(self.cells) else self.cells


def fitting(columns: Sequence[Column], width: int, gap: int = 2) -> list[tuple[Column, int]]:
    """The columns that find room, with their widths."""
    chosen = list(columns)
    while len(chosen) > 1 and sum(column.needs for column in chosen) + gap * (len(chosen) - 1) > width:
        drop = min(reversed(chosen), key=lambda column: column.keep)
        if drop.keep >= 9:
            break
        chosen.remove(drop)
    spare = width - sum(column.needs for column in chosen) - gap * (len(chosen) - 1)
    widths = []
    for column in chosen:
        more = max(0, min(spare, column.width - column.needs))
        spare -= more
        widths.append((column, column.needs + more))
    return widths


def table(columns: Sequence[Column], width: int, gap: int = 2) -> list[Text]:
    """A line of titles and a line for each row. The first column's title is the table's."""
    chosen = fitting(columns, width, gap)
    titled = [
        [Text(column.title, QUIET if index else LOUD), *column.drawn(cells)]
        for index, (column, cells) in enumerate(chosen)
    ]
    lines = []
    for row in zip(*titled, strict=True):
        line = Text()
        for index, (cell, (column, cells)) in enumerate(zip(row, chosen, strict=True)):
            line.append(" " * gap if index else "")
            line.append_text(_aligned(cell, cells, right=column.right))
        line.rstrip()
        lines.append(cut(line, width))
    return lines


def _aligned(cell: Text, width: int, *, right: bool) -> Text:
    shown = cut(cell.copy(), width)
    room = max(0, width - shown.cell_len)
    return Text().append(" " * room).append_text(shown) if right else shown.append(" " * room)


def cut(line: Text, width: int) -> Text:
    """At most `width` cells of a line."""
    line.no_wrap, line.overflow = True, "ellipsis"
    line.truncate(width, overflow="ellipsis")
    return line


def apart(left: Text, right: Text, width: int) -> Text:
    """Two texts at the two ends of a line; the left one gives way."""
    room = width - right.cell_len - 2
    if room < 8:
        return cut(left.copy(), width)
    line = Text().append_text(cut(left.copy(), room))  # not the left one itself: its style would become the line's
    line.append(" " * (width - right.cell_len - line.cell_len))
    return line.append_text(right)


def bar(share: float, width: int, style: str) -> Text:
    """A share as a bar: full only at one, and empty only at nought."""
    share = min(1.0, max(0.0, share))
    filled = round(share * width)
    if 0 < share < 1 and width > 1:
        filled = min(width - 1, max(1, filled))
    return Text().append(FULL * filled, style=style).append(EMPTY * (width - filled), style=QUIET)


def progress(share: float, width: int) -> Text:
    """How far something is, as a thin line."""
    done = math.floor(min(1.0, max(0.0, share)) * width)
    head = HEAD if done < width else ""
    return (
        Text().append(DONE * done + head, style=ACCENT).append(TO_COME * max(0, width - done - len(head)), style=QUIET)
    )


def paragraph(text: str, width: int) -> list[str]:
    """A text broken between words, but not before the unit of "2.5 s"; a word longer than a line is broken itself."""
    lines = [""]
    for word in _WORDS.findall(printable(text)):
        for part in chop_cells(word, width) if cell_len(word) > width else [word]:
            joined = f"{lines[-1]} {part}".lstrip()
            if cell_len(joined) <= width:
                lines[-1] = joined
            else:
                lines.append(part)
    return lines


def indented(lines: Iterable[Text], margin: int) -> list[Text]:
    """The same lines with blanks before them."""
    return [Text(" " * margin).append_text(line) if line.plain else line for line in lines]
