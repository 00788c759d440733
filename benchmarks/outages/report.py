"""What is printed.

Rules of this file: turns figures into text; every system that was measured has a row, best or worst. Rich draws the tables where it is
installed; else they are plain.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from importlib.util import find_spec

from outages.contenders import SYSTEMS
from outages.faults import Outage, Timeline
from outages.figures import LAG_ALLOWED, LAST, Figures, Run
from outages.promises import Verdict

COLUMNS = ("system", "answered", "p50 s", "p99 s", "wasted", "used again s", "at end", "calls ×", "lag ms", "errors")


def head(timeline: Timeline, seed: int, rate: float, outages: Iterable[Outage]) -> str:
    """What is the same for all."""
    limits = sorted({outage.limit for outage in outages})
    told = " / ".join(f"{limit:g}" for limit in limits)
    return "\n".join(
        (
            (
                f"{rate:g} requests/s (Poisson, seed {seed}): {timeline.lead_in:g} s healthy, {timeline.outage:g} s outage,"
                f" {timeline.afterwards:g} s healthy."
            ),
            "Three providers: OpenAI's wire, Anthropic's, OpenAI's; lognormal answer times around 0.3 s, drawn by request and provider.",
            f"Limit of an attempt {told} s{' (brownout: the longer one)' if len(limits) > 1 else ''}, for every system:",
            *(f"  {system.title:<28} {system.limits}" for system in SYSTEMS.values()),
            (
                f"Shortened alike to {timeline.recovery:g} s: ours' recovery_timeout (default 60 s), LiteLLM's cooldown_time where tuned"
                " (its default is 5 s)."
            ),
            "",
            "answered: in full and to the letter, of the requests that arrived in the outage; p50, p99: seconds that their users waited;",
            "wasted: calls that a sick provider failed or was slow over; used again: seconds from healing to the first provider's first answer;",
            f"at end: its share of the last {LAST:g} s; calls ×: upstream calls per request in the outage; lag: p99 of the event loop's lateness.",
        )
    )


def row(title: str, figures: Figures, run: Run) -> tuple[str, ...]:
    """One system's cells."""
    return (
        title,
        f"{100 * figures.answered / max(1, figures.asked):.1f} %",
        _seconds(figures.p50),
        _seconds(figures.p99),
        str(figures.wasted),
        _seconds(figures.used_again, "never"),
        f"{100 * figures.share_at_end:.0f} %",
        f"{figures.amplification:.2f}",
        f"{1000 * run.lags[0]:.0f}",
        ", ".join(f"{count} {name}" for name, count in sorted(figures.errors.items(), key=lambda item: -item[1]))
        + ("" if figures.answered_elsewhere == 1 else f"; {100 * figures.answered_elsewhere:.1f} % outside the outage"),
    )


def void(runs: Iterable[Run]) -> list[str]:
    """The runs that don't count, as the machine itself was late."""
    return [
        f"{SYSTEMS[run.system].title} under {run.fault}: a loop with nothing to do was late by {1000 * run.machine:.0f} ms (p99)"
        for run in runs
        if run.machine > LAG_ALLOWED
    ]


def busy(runs: Iterable[Run]) -> list[str]:
    """The runs whose loop was late while the machine was not: by what the system, or its servers beside it, had to do."""
    return [
        f"{SYSTEMS[run.system].title} under {run.fault}: {1000 * run.lags[0]:.0f} ms (p99)"
        for run in runs
        if run.machine <= LAG_ALLOWED < run.lags[0]
    ]


def verdict_rows(verdicts: Iterable[Verdict]) -> list[tuple[str, ...]]:
    """The promises' cells."""
    return [
        (one.what, one.reach, "–" if one.measured is None else f"{one.measured:.2f}".rstrip("0").rstrip("."), one.word)
        for one in verdicts
    ]


def show(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table."""
    if find_spec("rich"):
        _show_rich(title, columns, rows)
    else:
        print("\n".join(("", title, *plain(columns, rows))))


def plain(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a table without rich."""
    widths = [max(len(line[index]) for line in (columns, *rows)) for index in range(len(columns))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in (columns, *rows)
    ]


def _show_rich(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD)
    for index, column in enumerate(columns):
        numeric = index not in (0, len(columns) - 1)
        table.add_column(column, justify="right" if numeric else "left", no_wrap=numeric or index == 0)
    for cells in rows:
        table.add_row(*cells)
    console = Console()
    # Into a file or a pipe nothing is folded to fit a screen.
    (console if console.is_terminal else Console(width=160)).print(table)


def summary(versions: Mapping[str, str]) -> str:
    """Which packages took part."""
    return "Versions: " + ", ".join(f"{name} {version}" for name, version in sorted(versions.items()))


def _seconds(value: float | None, otherwise: str = "–") -> str:
    return otherwise if value is None else f"{value:.2f}"
