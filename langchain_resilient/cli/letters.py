"""`dead-letters list`, `show`, `result` and `export`: what waits, why, and what came of it.

Rules of this file: it reads, and changes nothing. Content goes only where it was asked for by name; a file that it is written to is its owner's
alone, and is never one that was there.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import RenderableType
from rich.text import Text

from langchain_resilient.cli import box
from langchain_resilient.cli.failures import CommandFailed, usage_error
from langchain_resilient.cli.layout import Cell, pairs, table
from langchain_resilient.cli.session import Session
from langchain_resilient.cli.wording import ago, duration
from langchain_resilient.engine.dead_letters.box import STATES, Box, State
from langchain_resilient.engine.dead_letters.letter import Letter

HEADS = ("id", "came", "why", "state", "deliveries", "tenant", "tried", "note")
STYLES = {"waiting": "yellow", "claimed": "green", "parked": "red"}


def show_all(session: Session, file: Path, state: str | None, most: int, after: str | None) -> None:
    """List them. Raises `CommandFailed` or `SettingsError`."""
    if most < 1:
        raise usage_error(f"--most: got {most}; give a whole number ≥ 1")
    wanted = box.state_named(state, STATES)
    with box.opened(session, file) as (found, where):
        letters = found.letters(wanted, most, after)
        rows = [box.told(session, each, letter) for each, letter in letters]
        counts = box.counted(found.counts())
    following = rows[-1]["id"] if len(rows) == most else None
    if session.wants_json:
        session.document(
            {"source": str(file), "where": where, "letters": rows, "counts": counts, "after": following, "warnings": []}
        )
        return
    if not rows:
        session.show(Text(f"no {state or 'dead'} letters in {where}"))
        return
    session.show(table(HEADS, [_cells(row) for row in rows], session.width))
    if following is not None:
        session.note(f"there may be more: --after {following}")


def _cells(row: Mapping[str, Any]) -> tuple[Cell, ...]:
    tried = [attempt["provider"] for attempt in row["attempts"]]
    more = f" and {len(tried) - 1} more" if len(tried) > 1 else ""
    state = Text(row["state"], style=STYLES[row["state"]])
    return (
        row["id"], ago(row["age"]), row["kind"], state, str(row["deliveries"] or ""), row["tenant"] or "",
        f"{tried[0]}{more}" if tried else "nobody", _note(row),
    )  # fmt: skip


def _note(row: Mapping[str, Any]) -> str:
    if row["parked"]:
        return str(row["parked"])
    return f"asked again in {duration(row['due_in'])} at the earliest" if row["due_in"] else ""


def show_one(session: Session, file: Path, letter_id: str, *, content: bool) -> None:
    """Show one. Raises `CommandFailed` or `SettingsError`."""
    with box.opened(session, file) as (found, where):
        (letter,) = box.known(found, [letter_id])
        row = box.told(session, _state_of(found, letter), letter)
    if content:
        row = box.with_content(row, letter)
    if session.wants_json:
        session.document({"source": str(file), "where": where, "letter": row, "warnings": []})
        return
    facts: list[tuple[Cell, Cell]] = [(head, cell) for head, cell in zip(HEADS, _cells(row), strict=True) if str(cell)]
    if row["key"]:
        facts.append(("key", row["key"] if content else session.redactor.line(row["key"])))
    if not row["readable"]:
        facts.append(("content", "left out, or sealed with a key that these settings do not have"))
    page: list[RenderableType] = [pairs(facts, session.width)]
    if row["attempts"]:
        heads = ("provider", "end", "seconds", "waited")
        page += ["", table(heads, [_attempt(attempt) for attempt in row["attempts"]], session.width)]
    session.show(*page)
    if content:
        session.answer(f"\n{box.as_text(letter.content)}\n")


def _state_of(found: Box, letter: Letter) -> State:
    """Its state as lists have it: whether a claim still holds only the box can tell."""
    if letter.parked is not None:
        return "parked"
    return "claimed" if any(each.id == letter.id for _, each in box.every(found, "claimed")) else "waiting"


def _attempt(attempt: Mapping[str, Any]) -> tuple[Cell, ...]:
    more = f" {attempt['status']}" if attempt["status"] else f" ({attempt['limit']})" if attempt["limit"] else ""
    times = [duration(attempt[name]) if attempt[name] else "" for name in ("seconds", "wait")]
    return (str(attempt["provider"]), f"{attempt['kind']}{more}", *times)


def show_result(session: Session, file: Path, key: str, tenant: str | None = None) -> None:
    """Show a late answer. Raises `CommandFailed` where there is none, or `SettingsError`."""
    with box.opened(session, file) as (found, where):
        result = found.result(key, tenant)
    if result is None:
        whose = "without a tenant" if tenant is None else "of that tenant"
        raise CommandFailed(
            f"there is no answer to that key {whose}: none has come, or it is kept no longer", kind="no_result"
        )
    if session.wants_json:
        said = {"letter": result.letter, "written": result.written, "value": result.value}
        session.document({"source": str(file), "where": where, "result": said, "warnings": []})
        return
    session.answer(_text(result.value))
    session.end_answer()


def _text(value: Any) -> str:
    """An answer's own text where it is one message's, else JSON."""
    content = value.get("data", {}).get("content") if isinstance(value, Mapping) else None
    return content if isinstance(content, str) and content else box.as_text(value)


class Export(NamedTuple):
    """What is to be exported, and where to."""

    state: str | None = None
    output: Path | None = None
    content: bool = False


def export(session: Session, file: Path, wanted: Export) -> None:
    """Write them as JSON lines. Raises `CommandFailed` or `SettingsError`."""
    state, rows = box.state_named(wanted.state, STATES), []
    with box.opened(session, file) as (found, where):
        for each, letter in box.every(found, state):
            row = box.told(session, each, letter)
            rows.append(box.with_content(row, letter) if wanted.content else row)
    lines = "".join(f"{box.as_line(row)}\n" for row in rows)
    if wanted.output is not None:
        _write(wanted.output, lines)
    document = {"source": str(file), "where": where, "exported": len(rows), "warnings": []}
    if session.wants_json:
        file_or_rows = {"letters": rows} if wanted.output is None else {"file": str(wanted.output)}
        session.document({**document, **file_or_rows})
    elif wanted.output is None:
        session.answer(lines)
    else:
        session.show(Text(f"{len(rows)} letters written to {wanted.output}"))


def _write(path: Path, lines: str) -> None:
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    except FileExistsError:
        raise usage_error(f"--output: {path} is there already; name a file that is not") from None
    except OSError as error:
        raise usage_error(f"--output: {path} can't be written ({error.strerror}); name another") from None
    with os.fdopen(descriptor, "w", encoding="utf-8") as written:
        written.write(lines)
