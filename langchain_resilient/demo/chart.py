"""The afternoon as a picture: who waited how long, who got an error, and who answered in the end.

Rules of this file: draws what a `Result` holds and measures nothing; one result is one picture, to the byte. matplotlib is imported when
a picture is drawn and not before, through its objects: no pyplot, no display, and what is set for a picture is undone after it.

A colour is a provider, in the panels as in the strip below them. Cool means answered; the one warm colour is a failure, which its shape
tells as well (the palette is Okabe and Ito's, for eyes of every kind). All panels share one time axis and one linear scale of waits.
"""

from __future__ import annotations

import io
import logging
import re
import textwrap
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from langchain_resilient.demo.afternoon import HEALTHY
from langchain_resilient.demo.contenders import BARE, FALLBACKS, OURS
from langchain_resilient.demo.ledger import Fate
from langchain_resilient.demo.play import Result, Score
from langchain_resilient.demo.words import counted, percent, seconds, short
from langchain_resilient.engine.errors import SettingsError

if TYPE_CHECKING:  # its package is an extra
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

STEM = "langchain-resilient-demo"
WIDTH, DPI = 10.0, 160
"""Inches, and the PNG's pixels an inch: 1600 across."""
LEFT, RIGHT = 0.5, 1.8
"""Inches beside the panels: the scale, and each contender's figures."""
HEAD, CLOCKS, PANEL, GAP, ROOM, LANE, STRIP, FOOT = 1.16, 0.72, 1.45, 0.36, 0.1, 0.18, 0.6, 0.66
"""Inches from top to bottom: title, phases, one panel, what is above each, more of it, one circuit, who answered, notes."""
INK, QUIET, LINE, SHADES = "#222222", "#666666", "#cfcfcf", ("#f5f3ef", "#eae7e1")
FAILED, UNKNOWN, ANSWERED = "#d55e00", "#999999", ("#0072b2", "#56b4e9", "#009e73", "#cc79a7")
BIN = 8
"""About so many questions make one step of the strip."""
ABOUT = {
    BARE: "one provider, and the client's own two retries",
    FALLBACKS: "LangChain's own: the next provider when one raises",
    OURS: "this package, over the same three providers",
}
STYLE = {
    "font.sans-serif": ["DejaVu Sans", "Verdana", "Helvetica", "Arial"],  # the first comes with matplotlib
    "font.size": 8.5,
    "text.color": INK,
    "text.parse_math": False,  # a "$" is a dollar
    "svg.fonttype": "none",
    "svg.hashsalt": STEM,
}
"""Upon matplotlib's defaults, whatever the user's own matplotlibrc says."""


class Span(NamedTuple):
    """A time in which a circuit was not closed."""

    provider: str
    state: str
    """"open" or "half_open"."""
    begins: float
    ends: float


class Sheet(NamedTuple):
    """The figure with what its parts share."""

    figure: Figure
    height: float
    """Inches."""
    seconds: float
    """Where the time axis ends."""
    slowest: float
    """The longest wait of all: the scale ends just above."""
    colours: dict[str, str]
    """By who answered."""

    def axes(self, top: float, height: float) -> Axes:
        """Bare axes over the common time axis, so many inches from the top."""
        box = (LEFT / WIDTH, 1 - (top + height) / self.height, 1 - (LEFT + RIGHT) / WIDTH, height / self.height)
        axes = self.figure.add_axes(box, xlim=(0.0, self.seconds), ylim=(0.0, 1.0), facecolor="none")
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0, labelsize=8, labelcolor=QUIET)
        axes.set_xticks([])
        axes.set_yticks([])
        return axes

    def write(self, top: float, text: str, **style: Any) -> None:
        """Text so many inches from the top."""
        self.figure.text(LEFT / WIDTH, 1 - top / self.height, text, va="top", **style)


def draw(result: Result, directory: Path) -> tuple[Path, Path]:
    """Draw the afternoon as its users saw it: `langchain-resilient-demo.png` and `.svg`.

    Args:
        result: What the play came to; one that was stopped is drawn as far as it went.
        directory: Where the files go; made if it is missing. Files of these names are replaced.

    Returns:
        The PNG's path and the SVG's.

    Raises:
        SettingsError: matplotlib is missing.
        OSError: The directory cannot be made or written to; the message says which, why, and what to do.
    """
    with _quiet():
        try:
            from matplotlib import style
        except ImportError as error:
            msg = f"the chart needs matplotlib ({error}): pip install 'langchain-resilient[demo]'"
            raise SettingsError(msg) from error
        png, svg = io.BytesIO(), io.BytesIO()
        with style.context(["default", STYLE]):
            figure = _picture(result)
            figure.savefig(png, format="png")
            figure.savefig(svg, format="svg", metadata={"Date": None, "Title": title(result)})
    paths = directory / f"{STEM}.png", directory / f"{STEM}.svg"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for path, drawn in zip(paths, (png, svg), strict=True):
            path.write_bytes(drawn.getvalue())
    except OSError as error:
        msg = f"no chart in {str(directory)!r} ({error.strerror or error}): name a directory that can be written to"
        raise OSError(msg) from error
    return paths


@contextmanager
def _quiet() -> Iterator[None]:
    """What matplotlib logs of its caches and its fonts is not what the command's user asked for."""
    logger = logging.getLogger("matplotlib")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def title(result: Result) -> str:
    """The one sentence to take away."""
    figures = next((score.figures for score in result.scores if score.name == OURS), None)
    if figures is None or not figures.asked:
        return "Nobody has asked anything"
    sentence = f"{OURS} answered {figures.answered} of {counted(figures.asked, 'question')}"
    return sentence if figures.p99 is None else f"{sentence}, p99 {seconds(figures.p99)}"


def subtitle(result: Result) -> str:
    """What the others made of the same."""
    others = "; ".join(
        f"{score.name} answered {score.figures.answered}, p99 {seconds(score.figures.p99)}"
        for score in result.scores
        if score.name != OURS
    )
    return f"The same questions, to providers that fail alike{': ' if others else ''}{others}."


def _picture(result: Result) -> Figure:
    from matplotlib.figure import Figure

    spans = circuit_spans(result)
    lanes = tuple(dict.fromkeys(span.provider for span in spans))
    body = CLOCKS + (PANEL + GAP) * len(result.scores) + GAP + ROOM + LANE * len(lanes) + STRIP
    fates = [fate for score in result.scores for fate in score.fates]
    names = [house.name for house in result.afternoon.houses]
    sheet = Sheet(
        figure=Figure(figsize=(WIDTH, HEAD + body + FOOT), dpi=DPI, facecolor="white"),
        height=HEAD + body + FOOT,
        seconds=max([result.afternoon.seconds, *(fate.at for fate in fates)]),
        slowest=max((fate.seconds for fate in fates), default=0.0) or result.afternoon.limit,
        colours={name: ANSWERED[place % len(ANSWERED)] for place, name in enumerate(names)}
        | {"unknown": UNKNOWN, "failed": FAILED},
    )
    _heading(sheet, result)
    _phases(sheet, body, result)
    top = HEAD + CLOCKS + GAP
    for score in result.scores:
        _panel(sheet, top, score)
        top += PANEL + GAP
    top += ROOM
    _label(sheet.axes(top, LANE), (0, 1), f"Who answered the users of {OURS}", 3, 14, size=9.5, weight="bold")
    for lane in lanes:
        _circuit(sheet, top, [span for span in spans if span.provider == lane], result.seconds)
        top += LANE
    _strip(sheet, top, result)
    _notes(sheet, top + STRIP, result)
    return sheet.figure


def _heading(sheet: Sheet, result: Result) -> None:
    from matplotlib.lines import Line2D

    sheet.write(0.16, title(result), size=14, weight="bold")
    sheet.write(0.45, subtitle(result))
    sheet.write(0.66, "A mark is a question: when it was asked, how long its user waited, and who answered.")
    fates = [fate for score in result.scores for fate in score.fates]
    shown = {house.name for house in result.afternoon.houses} | set(_series(fates, sheet.colours)) - {"failed"}
    handles = [
        Line2D([], [], ls="", marker="o", ms=5, mew=0, color=colour, label=by)
        for by, colour in sheet.colours.items()
        if by in shown
    ]
    handles.append(Line2D([], [], ls="", marker="x", ms=5, mew=1.2, color=FAILED, label="nobody (failed)"))
    corner = (LEFT / WIDTH, 1 - 0.86 / sheet.height)
    tight = {"frameon": False, "borderpad": 0, "borderaxespad": 0, "handletextpad": 0.1, "columnspacing": 1.2}
    sheet.figure.legend(handles=handles, loc="upper left", bbox_to_anchor=corner, ncols=len(handles), **tight)


def _phases(sheet: Sheet, height: float, result: Result) -> None:
    """The story along the top, and behind all: white while all is well, shaded while something fails."""
    axes = sheet.axes(HEAD, height)
    afternoon, panels = result.afternoon, 1 - CLOCKS / height
    letters = 72 * (WIDTH - LEFT - RIGHT) / sheet.seconds / 4.6  # a letter of this size is about 4.6 points wide
    for place, (phase, begins, ends) in enumerate(afternoon.timetable()):
        if any(phase.of(house.wire) != HEALTHY for house in afternoon.houses):
            axes.axvspan(begins, ends, color=SHADES[place % 2], lw=0)
        _label(axes, (begins, 1), phase.clock, 3, -4, weight="bold")
        _label(
            axes,
            (begins, 1),
            textwrap.fill(phase.title, max(8, int((ends - begins) * letters)), break_on_hyphens=False),
            3,
            -16,
            size=7.5,
        )
    if not result.complete and result.seconds < sheet.seconds:
        axes.axvline(result.seconds, ymax=panels, color=INK, lw=0.8, ls=(0, (4, 3)))
        late = result.seconds > sheet.seconds / 2
        _label(axes, (result.seconds, panels), "stopped here", -4 if late else 4, 2, ha="right" if late else "left")


def _label(axes: Axes, at: tuple[float, float], text: str, right: float, up: float, **style: Any) -> None:
    """Text so many points beside a place: its time, and its height as a share of the axes'."""
    place: dict[str, Any] = {"xycoords": axes.get_xaxis_transform(), "textcoords": "offset points", "va": "top"}
    axes.annotate(text, at, (right, up), **place | style)


def _panel(sheet: Sheet, top: float, score: Score) -> None:
    """One contender: its questions as marks, and its figures beside them."""
    axes = sheet.axes(top, PANEL)
    axes.set_ylim(-0.01 * sheet.slowest, 1.05 * sheet.slowest)  # room for the line at 0
    axes.yaxis.set_major_locator(_ticks(4))
    axes.yaxis.set_major_formatter("{x:g} s")
    axes.grid(axis="y", color=LINE, lw=0.5)
    _label(axes, (0, 1), score.name, 3, 14, size=9.5, weight="bold")
    _label(axes, (sheet.seconds, 1), ABOUT.get(score.name, ""), -3, 13, ha="right", color=QUIET)
    for by, fates in _series(score.fates, sheet.colours).items():
        marks: dict[str, Any] = {"marker": "x", "lw": 1.0} if by == "failed" else {"alpha": 0.8, "lw": 0}
        times, waits = [fate.at for fate in fates], [fate.seconds for fate in fates]
        # unclipped, so that a mark on the edge is whole; above the grid (2)
        axes.scatter(times, waits, 12, sheet.colours[by], gid=_slug(score.name, by), clip_on=False, zorder=3, **marks)
    _figures(axes, (sheet.seconds, 1), score)


def _figures(axes: Axes, corner: tuple[float, float], score: Score) -> None:
    figures = score.figures
    lines = [("answered", INK)]
    lines += [(f"{figures.failed} failed", FAILED)] if figures.failed else []
    lines += [(f"{figures.waiting} still waiting", INK)] if figures.waiting else []
    lines += [(f"p50 {seconds(figures.p50)}, p99 {seconds(figures.p99)}", INK)]
    lines += [(f"{counted(score.wasted, 'call')} wasted", INK)]
    _label(axes, corner, f"{figures.answered} of {figures.asked}", 12, 2, size=15, weight="bold")
    for place, (line, colour) in enumerate(lines):  # one by one: matplotlib would space them by their letters' heights
        _label(axes, corner, line, 12, -30 - 14 * place, va="baseline", size=9, color=colour)


def _ticks(most: int) -> Any:
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(most, steps=[1, 2, 2.5, 5, 10])


def _series(fates: Sequence[Fate], colours: dict[str, str]) -> dict[str, list[Fate]]:
    """The questions by who answered; whose provider the story does not know are "unknown", and then there is "failed"."""
    series: dict[str, list[Fate]] = {by: [] for by in colours}
    for fate in fates:
        by = fate.provider if fate.provider in colours else "unknown"
        series[by if fate.answered else "failed"].append(fate)
    return {by: found for by, found in series.items() if found}


def circuit_spans(result: Result) -> list[Span]:
    """When circuits were open or half-open; one that is so at the end, until the end."""
    spans: list[Span] = []
    since: dict[str, tuple[str, float]] = {}
    for at, change in result.changes:
        if change.provider in since:
            spans.append(Span(change.provider, *since.pop(change.provider), at))
        if change.after != "closed":
            since[change.provider] = change.after, at
    spans += [Span(name, state, at, max(at, result.seconds)) for name, (state, at) in since.items()]
    return spans


def _circuit(sheet: Sheet, top: float, spans: Sequence[Span], now: float) -> None:
    """One provider's circuit: a bar while it was open, a line while it was probed, and words at the ends."""
    axes = sheet.axes(top, LANE)
    name, middle = spans[0].provider, {"va": "center_baseline", "size": 7.5}
    for state, (bottom, height) in {"open": (0.28, 0.44), "half_open": (0.46, 0.08)}.items():
        lengths = [(span.begins, span.ends - span.begins) for span in spans if span.state == state]
        colour = sheet.colours.get(name, UNKNOWN)
        axes.broken_barh(lengths, (bottom, height), color=colour, lw=0, gid=_slug("circuit", name, state))
    _label(axes, (spans[0].begins, 0.5), "opened", -4, 0, ha="right", **middle)
    if spans[-1].ends < now:
        _label(axes, (spans[-1].ends, 0.5), "closed", 4, 0, **middle)
    _label(axes, (sheet.seconds, 0.5), f"circuit of {short(name)}", 12, 0, **middle)


def _strip(sheet: Sheet, top: float, result: Result) -> None:
    """Who answered ours: shares of the questions asked in each part of the time, one upon another."""
    fates = next((score.fates for score in result.scores if score.name == OURS), ())
    axes = sheet.axes(top, STRIP)
    axes.xaxis.set_major_locator(_ticks(8))
    axes.xaxis.set_major_formatter("{x:g} s")
    bins = max(1, round(sheet.seconds * result.afternoon.rate / BIN))
    edges = [sheet.seconds * place / bins for place in range(bins + 1)]
    every = _counts(fates, bins, sheet.seconds)
    floor = [0.0] * bins
    for place, (by, found) in enumerate(_series(fates, sheet.colours).items()):
        counts = _counts(found, bins, sheet.seconds)
        shares = [count / (all_ or 1) for count, all_ in zip(counts, every, strict=True)]
        roof = [low + share for low, share in zip(floor, shares, strict=True)]
        axes.stairs(roof, edges, baseline=floor, fill=True, color=sheet.colours[by], lw=0, gid=_slug("share", by))
        floor = roof
        _label(axes, (sheet.seconds, 0), "■", 12, 1 + 11 * place, va="bottom", color=sheet.colours[by])
        said = f"{by.partition('/')[0]} {percent(len(found) / len(fates))}"
        _label(axes, (sheet.seconds, 0), said, 22, 1 + 11 * place, va="bottom")


def _counts(fates: Sequence[Fate], bins: int, length: float) -> list[int]:
    """How many were asked in each of so many equal parts of the time."""
    found = Counter(min(bins - 1, int(fate.at / length * bins)) for fate in fates)
    return [found[place] for place in range(bins)]


def _notes(sheet: Sheet, top: float, result: Result) -> None:
    sheet.write(
        top + 0.26,
        f"Fake providers on loopback, LangChain's own clients, seed {result.seed}; an attempt may take"
        f" {seconds(result.afternoon.limit)}, for all three.\nWaits (p50, p99) are until the answer or the error."
        " A wasted call is one that answered nobody.",
        size=7.5,
        color=QUIET,
    )


def _slug(*words: str) -> str:
    """As an `id` in the SVG."""
    return "-".join(re.sub(r"[^a-z0-9]+", "-", word.lower()) for word in words)
