"""`status`: providers, backend and dead letters at a glance.

Rules of this file: it reads, and changes nothing. What can't be known from here is said to be unknown, never shown as if all were well.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from langchain_resilient.cli import box, circuits
from langchain_resilient.cli.failures import CommandFailed
from langchain_resilient.cli.layout import Cell, pairs, table, warned
from langchain_resilient.cli.session import Session, indented
from langchain_resilient.cli.unasked import Seen, away, seen
from langchain_resilient.cli.wording import ago, duration
from langchain_resilient.engine.dead_letters.box import BoxError

HEADS = (*circuits.HEADS[:4], "p50", "p99", "free", "running")
TIMES = ("p50", "p99", "first_token_p50", "first_token_p99")
OF_CREDENTIAL = ("limits_free", "limits_scale", "running", "waiting")


def show(session: Session, file: Path) -> None:
    """Do what was typed. Raises `CommandFailed` or `SettingsError`."""
    of = seen(session, file)
    letters = _letters(session, of)
    document = {
        "source": of.source,
        "backend": of.backend,
        "providers": [{"name": name, **_told(row)} for name, row in of.providers.items()],
        "dead_letters": letters,
        "warnings": of.warnings,
    }
    failed = away(of, document) if of.reachable is False else None
    if failed is None and letters is not None and letters["error"] is not None:
        failed = CommandFailed(f"dead letters: {letters['error']}", kind="letters_away", document=document)
    if not session.wants_json:
        session.show(*_page(of, letters, session.width))
    elif failed is None:
        session.document(document)
    if failed is not None:
        raise failed


def _letters(session: Session, of: Seen) -> dict[str, Any] | None:
    """How many letters lie where; None: the model keeps none."""
    place = box.place_of(of.settings)
    if place is None:
        return None
    counted: dict[str, Any] = {
        "where": box.shown_place(place, of.settings),
        **dict.fromkeys(box.COUNTS),
        "oldest_age": None,
    }
    if box.is_absent(place):
        of.warnings.append(session.redactor.line(box.absent(place)))
        return {**counted, "error": None}
    try:
        with box.open_at(session, of.settings) as (found, _):
            counted["spooled"] = found.spooled()  # on this machine's disk, wherever the others lie
            counts = found.counts()
    except BoxError as error:
        return {**counted, "error": session.redactor.line(str(error))}
    finally:
        of.warnings.extend(session.told())
    return {**counted, **box.counted(counts), "error": None}


def _told(row: Mapping[str, Any]) -> dict[str, Any]:
    times = {name: row.get(name) for name in TIMES}
    return {**circuits.told(row), **times, **{name: row.get(name) if row["known"] else None for name in OF_CREDENTIAL}}


def _page(of: Seen, letters: Mapping[str, Any] | None, width: int) -> list[RenderableType]:
    rows = [(Text(name, style="bold"), *_cells(row)) for name, row in of.providers.items()]
    facts: list[tuple[Cell, Cell]] = [("backend", _backend(of))]
    if letters is not None:
        facts.append(("dead letters", _counts(letters)))
    return [
        Text("Providers", style="bold"), indented(table(HEADS, rows, width - 2)),
        "", pairs(facts, width), *warned(of.warnings),
    ]  # fmt: skip


def _cells(row: Mapping[str, Any]) -> tuple[Cell, ...]:
    shown = circuits.cells(row)[:3]
    if "circuit" not in row:
        return (*shown, "", "", "", "")
    p50, p99 = [_first(row.get(name), row.get(f"first_token_{name}")) for name in ("p50", "p99")]
    free = row["limits_free"] if row["known"] else {}
    limits = ", ".join(f"{name} {share:.0%}" for name, share in free.items())
    return (*shown, p50, p99, limits, str(row["running"] or "") if row["known"] else "")


def _first(call: float | None, token: float | None) -> str:
    """An answer's time, or a stream's to its first token."""
    if call is not None:
        return duration(call)
    return "" if token is None else f"{duration(token)} to the first token"


def _backend(of: Seen) -> Text:
    url = of.backend["url"]
    if not of.shared:
        return Text.assemble(url, (", of each process alone", "dim"))
    said = ("reachable", "green") if of.reachable else ("can't be reached: each process decides alone", "red")
    return Text.assemble(f"{url}, ", said)


def _counts(letters: Mapping[str, Any]) -> Text:
    if letters["waiting"] is None:
        if letters["error"] is None:
            return Text("unknown", style="dim")
        here = f"; {letters['spooled']} spooled on this machine" if letters["spooled"] else ""
        return Text(f"{letters['error']}{here}", style="red")
    counts = [f"{letters[name]} {name}" for name in box.COUNTS if letters[name] or name == "waiting"]
    age = letters["oldest_age"]
    return Text(", ".join(counts) + (f"; the oldest came {ago(age)}" if age is not None else ""))
