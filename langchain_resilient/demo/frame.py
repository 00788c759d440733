"""One frame of the view: the parts that it is put together from.

Rules of this file: a part is made of values and a look; it does not know how many lines it will get, so what matters comes first. What
a colour tells, a word or a sign tells as well.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from typing import NamedTuple

from rich.text import Text

from langchain_resilient.demo.afternoon import HEALTHY
from langchain_resilient.demo.contenders import OURS
from langchain_resilient.demo.page import (
    ACCENT,
    BAD,
    CARE,
    CURSOR,
    GOOD,
    LOUD,
    QUIET,
    Column,
    apart,
    bar,
    cut,
    paragraph,
    printable,
    progress,
    table,
)
from langchain_resilient.demo.play import Stream, Told
from langchain_resilient.demo.scene import Scene, Side, Standing
from langchain_resilient.demo.traffic import FAQ
from langchain_resilient.demo.words import CIRCUITS, LABELS, MARKS, news, percent, seconds, short

WIDEST = 120
"""Cells: a wider terminal has no wider view, as an eye loses its line on the way back."""
NARROW = 60
"""Up to here tables have few columns and short names."""
_COLOURS = {MARKS["closed"]: GOOD, MARKS["half_open"]: CARE, MARKS["open"]: BAD, "!": BAD}


class Look(NamedTuple):
    """How much a view of some width can say."""

    room: int
    """Cells of a line, without its margins."""
    margin: int
    narrow: bool

    @classmethod
    def of(cls, width: int) -> Look:
        """The look of this width."""
        narrow = width <= NARROW
        margin = 0 if narrow else 1
        return cls(max(8, min(width, WIDEST) - 2 * margin), margin, narrow)

    @property
    def gap(self) -> int:
        """Cells between two columns."""
        return 1 if self.narrow else 2

    def word(self, long: str, brief: str) -> str:
        """What there is room for."""
        return brief if self.narrow else long


def heading(scene: Scene, view: Look) -> list[Text]:
    """What time it is in the story, what happens there, and how far the afternoon is."""
    late = scene.elapsed >= scene.seconds
    time = Text("the last answers" if late else f"{scene.elapsed:.0f} s of {scene.seconds:.0f} s", style=QUIET)
    clock = Text().append(printable(scene.phase.clock), style=f"{LOUD} {ACCENT}")
    title = Text(printable(scene.phase.title), style=LOUD)
    thread = progress(scene.elapsed / scene.seconds if scene.seconds > 0 else 1.0, view.room)
    if view.narrow:
        return [apart(clock, time, view.room), cut(title, view.room), thread]
    return [apart(clock.append("  ").append_text(title), time, view.room), thread]


def contenders(sides: Sequence[Side], view: Look) -> list[Text]:
    """The three beside one another: what their users got."""
    ours = f"{LOUD} {ACCENT}"
    names = [
        Text(printable(view.word(side.name, LABELS.get(side.name, side.name))), ours if side.name == OURS else "")
        for side in sides
    ]
    totals = [side.total for side in sides]
    digits = 4 if view.narrow else 8
    shares = [figures.answered / figures.asked if figures.asked else 0.0 for figures in totals]
    columns = [
        Column(
            view.word("the same questions", "asked"), names, 9 if view.narrow else 18, least=9 if view.narrow else 18
        ),
        _numbers(view.word("answered", "ok"), [figures.answered for figures in totals], digits, GOOD),
        _numbers(view.word("failed", "fail"), [figures.failed for figures in totals], view.narrow * 4, BAD),
        _numbers(view.word("waiting", "wait"), [figures.waiting for figures in totals], view.narrow * 4, CARE),
        _seconds(view.word("p50 now", "p50"), [side.recent.p50 for side in sides], keep=3),
        _seconds(view.word("p99 now", "p99"), [side.recent.p99 for side in sides], keep=5),
        Column("calls", [Text(str(side.calls)) for side in sides], 5, right=True, keep=4),
        _shares("answered of all", shares, 34, GOOD, least=20, keep=2),
    ]
    return table(columns, view.room, view.gap)


def providers(standings: Sequence[Standing], view: Look) -> list[Text]:
    """Ours: what each really does, and what the model has learned of it."""
    names = [Text(printable(short(standing.name))) for standing in standings]
    truths = [
        Text(printable(standing.truth), QUIET if standing.truth == HEALTHY.word else BAD) for standing in standings
    ]
    known = [_known(standing, narrow=view.narrow) for standing in standings]
    columns = [
        Column(view.word("our providers", "providers"), names, 9),
        Column("really", truths, 16, least=7 if view.narrow else 16, keep=6),
        Column(view.word("as the model knows it", "as known"), known, 30, least=14 if view.narrow else 22),
        _seconds("p50", [standing.p50 for standing in standings], keep=2),
        _seconds("p99", [standing.p99 for standing in standings], keep=3),
        _shares("share", [standing.share for standing in standings], 34, ACCENT, least=5, keep=5),
    ]
    return table(columns, view.room, view.gap)


def on_screen(stream: Stream | None, view: Look) -> list[Text]:
    """The answer that is coming: always as many lines, so that what is below stays where it is."""
    if stream is None:
        return []
    state = f"from {short(stream.provider)}" if stream.provider else "broken off" if stream.over else "streaming"
    style = GOOD if stream.provider else BAD if stream.over else CARE
    question = apart(Text(printable(stream.question), style=LOUD), Text(printable(state), style=style), view.room)
    inner = view.room - 2
    rows = _rows(inner)
    said = paragraph(stream.text + ("" if stream.over else CURSOR), inner)[-rows:]
    return [question, *(Text(f"  {line}") for line in said), *([Text()] * (rows - len(said)))]


@cache
def _rows(width: int) -> int:
    return max(len(paragraph(answer + CURSOR, width)) for answer in FAQ.values())


def decisions(told: Sequence[Told], view: Look) -> list[Text]:
    """What happened last, newest first."""
    if not told:
        return []
    lines = [Text("last decisions", style=LOUD)]
    for entry in news(told, brief=view.narrow):
        line = Text().append(f"{entry.at:5.1f}{view.word(' s  ', ' ')}", style=QUIET)
        line.append(entry.mark, style=_COLOURS.get(entry.mark, QUIET))
        lines.append(cut(line.append(f" {printable(entry.text())}"), view.room))
    return lines


def _known(standing: Standing, *, narrow: bool) -> Text:
    """A circuit's state, and all else for which a provider is passed over: "● closed, silent, blocked 1.2 s"."""
    state = CIRCUITS.get(standing.circuit, standing.circuit)
    doubts = [f"blocked {standing.blocked_for:.1f} s"] if standing.blocked_for else []
    doubts += ["silent"] * standing.hot + ["slow"] * standing.slow
    if standing.circuit == "open":
        due = standing.probes_in is None or standing.probes_in <= 0
        probe = "probe due" if due else f"probe in {standing.probes_in:.1f} s"
        doubts.insert(0, probe.removeprefix("probe in ") if narrow else probe)
    # With little room, what keeps requests away from a closed circuit says more than that it is closed.
    words = doubts if narrow and standing.circuit == "closed" and doubts else [state, *doubts]
    good = CARE if doubts else GOOD
    style = {"closed": good, "half_open": CARE}.get(standing.circuit, BAD)
    return Text(f"{MARKS.get(standing.circuit, '!')} {', '.join(words)}", style=style)


def _numbers(title: str, numbers: Iterable[int], width: int, style: str) -> Column:
    return Column(title, [Text(str(number), style if number else QUIET) for number in numbers], width, right=True)


def _seconds(title: str, values: Iterable[float | None], *, keep: int) -> Column:
    cells = [Text(seconds(value), "" if value is not None else QUIET) for value in values]
    return Column(title, cells, 7, right=True, keep=keep)


def _shares(title: str, shares: Sequence[float], width: int, style: str, *, least: int, keep: int) -> Column:
    """Shares in figures and, as far as there is room, as bars."""

    # The bar is as long as the column may become: the table cuts nothing off it, as it is drawn for the width it gets.
    def drawn(cells: int) -> list[Text]:
        return [
            Text(percent(share).rjust(5))
            .append(" " if cells > 8 else "")
            .append_text(bar(share, cells - 6, style) if cells > 8 else Text())
            for share in shares
        ]

    return Column(title, drawn, width, keep=keep, least=least)
