"""What the play came to: for a terminal, for a text, for a program.

Rules of this file: one set of lines, drawn for a width; the text is those lines without their colours. Sentences are in `findings`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from langchain_resilient.demo.contenders import OURS
from langchain_resilient.demo.findings import circuits, failures, headline, small_print, stopped, waits
from langchain_resilient.demo.ledger import Figures
from langchain_resilient.demo.page import (
    ACCENT,
    BAD,
    CARE,
    GOOD,
    LOUD,
    QUIET,
    Column,
    Page,
    cut,
    paragraph,
    printable,
    table,
)
from langchain_resilient.demo.play import Result, Score
from langchain_resilient.demo.words import LABELS, NOTHING, seconds

WIDEST = 100
"""Cells, and the width of the text: a wider terminal has no wider summary."""
NARROW, WIDE = 60, 92
"""Up to the one, a phase's contenders are below one another; from the other on, a phase is one line."""


def summary(result: Result, *, width: int) -> RenderableType:
    """The final view: who answered what, phase by phase, and what to know before believing it.

    Args:
        result: Of a complete play or of one that was stopped.
        width: Cells (≥ 20).
    """
    return Page(_lines(result, width))


def as_text(result: Result) -> str:
    """The same for a file: 100 columns, no colour, no blanks at the ends of lines."""
    return Page(_lines(result, WIDEST)).text()


def _lines(result: Result, width: int) -> list[Text]:
    width = max(20, min(width, WIDEST))
    parts = [_told([headline(result)], width, LOUD), _told([line for line in (waits(result),) if line], width)]
    parts[1:1] = [_told([line], width, CARE) for line in (stopped(result),) if line]
    lines = [line for part in parts for line in part]
    if result.scores:
        for more in (
            _totals(result.scores, width),
            _phases(result, width),
            _told([*failures(result), *circuits(result)], width),
        ):
            lines += [Text(), *more]
        lines += [Text(), *_told(small_print(result), width, QUIET, hang="  ")]
    return [cut(line, width) for line in lines]


def _told(sentences: Sequence[str], width: int, style: str = "", *, hang: str = "") -> list[Text]:
    lines = []
    for sentence in sentences:
        first, *rest = paragraph(sentence, width - len(hang))
        lines += [Text(first, style), *(Text(hang + line, style) for line in rest)]
    return lines


def _totals(scores: Sequence[Score], width: int) -> list[Text]:
    narrow = width <= NARROW
    figures = [score.figures for score in scores]
    waiting = any(each.waiting for each in figures)
    columns = [
        Column("" if narrow else "in all", _names(scores, narrow=narrow), 0 if narrow else 18),
        _numbers("asked", [each.asked for each in figures]),
        _numbers("ok" if narrow else "answered in full", [each.answered for each in figures], GOOD),
        _numbers("fail" if narrow else "failed", [each.failed for each in figures], BAD),
        *([_numbers("wait" if narrow else "waiting", [each.waiting for each in figures], CARE)] if waiting else ()),
        _seconds("p50" if narrow else "p50 wait", [each.p50 for each in figures], keep=3),
        _seconds("p99" if narrow else "p99 wait", [each.p99 for each in figures], keep=5),
        _numbers("calls", [sum(score.calls.values()) for score in scores], keep=2),
        _numbers("wasted", [score.wasted for score in scores], keep=4),
    ]
    return table(columns, width, 1 if narrow else 2)


def _phases(result: Result, width: int) -> list[Text]:
    """A line for each phase; its title above it, or the contenders below one another, as there is less room."""
    phases, scores = result.afternoon.phases, result.scores
    cells = [[_cell(figures) for figures in score.by_phase] for score in scores]
    title = "answered of asked, p99 wait"
    clocks = [cut(Text(f"{printable(phase.clock):>8}", ACCENT), 8) for phase in phases]
    if width <= NARROW:
        lines = [Text(title, LOUD)]
        for index, phase in enumerate(phases):
            lines += _entitled(clocks[index], phase.title, width)
            names = Column("", _names(scores, narrow=True), 10)
            lines += table([names, Column("", [column[index] for column in cells], 15, right=True)], width)[1:]
        return lines
    named = [
        Column(LABELS[OURS] if score.name == OURS else score.name, column, 15, right=True)
        for score, column in zip(scores, cells, strict=True)
    ]
    left = width - sum(column.needs + 2 for column in named)
    head, *rows = table([Column(title, [Text()] * len(phases), left, least=left), *named], width)
    lines = [head]
    for clock, phase, row in zip(clocks, phases, rows, strict=True):
        if width >= WIDE:
            begun, *rest = _entitled(clock, phase.title, left)
            begun.append(" " * (left - begun.cell_len))
            lines += [begun.append_text(row[left:]), *rest]
        else:
            lines += [*_entitled(clock, phase.title, width), row]
    return lines


def _entitled(clock: Text, title: str, width: int) -> list[Text]:
    """A phase's time and title, on as many lines as they need."""
    margin = clock.cell_len + 2
    first, *rest = paragraph(title, max(2, width - margin))
    return [Text().append_text(clock).append(f"  {first}"), *(Text(" " * margin + line) for line in rest)]


def _cell(figures: Figures) -> Text:
    if not figures.asked:
        return Text(NOTHING, QUIET)
    style = GOOD if not figures.failed else BAD
    return Text().append(f"{figures.answered}/{figures.asked}", style).append(f" {seconds(figures.p99):>7}")


def _names(scores: Sequence[Score], *, narrow: bool) -> list[Text]:
    return [
        Text(LABELS.get(score.name, score.name) if narrow else score.name, ACCENT if score.name == OURS else "")
        for score in scores
    ]


def _numbers(title: str, numbers: Iterable[int], style: str = "", *, keep: int = 9) -> Column:
    return Column(title, [Text(str(number), style if number else QUIET) for number in numbers], right=True, keep=keep)


def _seconds(title: str, values: Iterable[float | None], *, keep: int) -> Column:
    return Column(title, [Text(seconds(value)) for value in values], 7, right=True, keep=keep)


def as_dict(result: Result) -> dict[str, Any]:
    """All of it as JSON-able values. Times are seconds of the play; "at", "begin" and "end" count from its beginning.

    seed, complete, seconds       of the play; how long it was played, and whether to its end
    headline                      the summary's first sentence
    settings                      questions_per_second; attempt_limit, slow, recovery_timeout, window, max_retry_after;
                                  providers: name, seconds (of an answer when well), seconds_between_words
    phases                        clock, title, begin, end; conditions: by provider, in a word
    contenders                    name; asked, answered, failed, waiting, p50, p99 (of users' waits; null: nobody's is over);
                                  calls and outcomes (what the servers did with them) by provider; wasted (calls); errors
                                  (failures by kind); phases: the same six figures of the questions asked in each;
                                  questions: number, at, seconds (waited), provider (null: nobody), error (null: answered)
    circuits                      at, provider, before, after, reason: every change of ours
    """
    afternoon = result.afternoon
    return {
        "seed": result.seed,
        "complete": result.complete,
        "seconds": _rounded(result.seconds),
        "headline": headline(result),
        "settings": {
            "questions_per_second": afternoon.rate,
            "attempt_limit": afternoon.limit,
            "slow": afternoon.slow,
            "recovery_timeout": afternoon.recovery,
            "window": afternoon.window,
            "max_retry_after": afternoon.patience,
            "providers": [
                {"name": house.name, "seconds": house.seconds, "seconds_between_words": house.between_words}
                for house in afternoon.houses
            ],
        },
        "phases": [
            {
                "clock": phase.clock,
                "title": phase.title,
                "begin": _rounded(begin),
                "end": _rounded(end),
                "conditions": {house.name: phase.of(house.wire).word for house in afternoon.houses},
            }
            for phase, begin, end in afternoon.timetable()
        ],
        "contenders": [_contender(score) for score in result.scores],
        "circuits": [
            {"at": _rounded(at), **change._asdict(), "reason": str(change.reason)} for at, change in result.changes
        ],
    }


def _contender(score: Score) -> dict[str, Any]:
    return {
        "name": score.name,
        **_figures(score.figures),
        "calls": dict(score.calls),
        "outcomes": {name: dict(outcomes) for name, outcomes in score.outcomes.items()},
        "wasted": score.wasted,
        "errors": {str(kind): number for kind, number in score.errors.items()},
        "phases": [_figures(figures) for figures in score.by_phase],
        "questions": [
            {**fate._asdict(), "at": _rounded(fate.at), "seconds": _rounded(fate.seconds)} for fate in score.fates
        ],
    }


def _figures(figures: Figures) -> dict[str, Any]:
    return {**figures._asdict(), "p50": _rounded(figures.p50), "p99": _rounded(figures.p99)}


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
