"""Prints tables: rich draws them where it is installed, else they are plain."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec

from stores.figures import Gate


def show(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table; into a file or a pipe nothing is folded to fit a screen."""
    if not find_spec("rich"):
        print("\n".join(("", title, *plain(columns, rows))))
        return
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD)
    for index, column in enumerate(columns):
        table.add_column(column, justify="right" if index else "left", no_wrap=not index)
    for cells in rows:
        table.add_row(*cells)
    console = Console()
    (console if console.is_terminal else Console(width=180)).print(table)


def plain(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a table without rich."""
    widths = [max(len(line[index]) for line in (columns, *rows)) for index in range(len(columns))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in (columns, *rows)
    ]


def show_gates(gates: Sequence[Gate]) -> None:
    """Print what was to be reached."""
    show("To reach (DESIGN §13)", ("what", "reach", "measured", ""), [(*one[:3], one.word) for one in gates])
