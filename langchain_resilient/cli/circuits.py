"""`circuits`: see the circuits of a fleet, open one by hand, close it, reset it.

Rules of this file: what is changed is changed for all processes that share the backend, or the command says that it did not. With a backend of
each process's own there is nothing to change from here. After `close` and `reset` requests flow.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from rich.console import RenderableType
from rich.text import Text

from langchain_resilient.cli.failures import CommandFailed
from langchain_resilient.cli.layout import Cell, table, warned
from langchain_resilient.cli.session import Session
from langchain_resilient.cli.unasked import ALONE, Seen, away, seen
from langchain_resilient.cli.wording import duration
from langchain_resilient.engine.errors import unknown_name

Action = Literal["open", "close", "reset"]
FIELDS = ("circuit", "override", "generation", "failures_in_a_row", "probes_in", "blocked", "blocked_for")
OF_CREDENTIAL = frozenset({"blocked", "blocked_for"})
HEADS = ("provider", "circuit", "by hand", "blocked", "failures in a row", "generation")
COLOURS = {"closed": "green", "half_open": "yellow", "open": "red"}
DONE = {
    "open": "is opened by hand: no process asks it, until `circuits close`",
    "close": "is closed: every process asks it again",
    "reset": "is reset: every process asks it again, and nothing is held against its credential",
}


def show(session: Session, file: Path) -> None:
    """List them. Raises `CommandFailed` or `SettingsError`."""
    of = seen(session, file)
    document = {
        "source": of.source,
        "backend": of.backend,
        "circuits": [{"name": name, **told(row)} for name, row in of.providers.items()],
        "warnings": of.warnings,
    }
    if of.reachable is False:
        raise away(of, document)
    if session.wants_json:
        session.document(document)
        return
    rows = [(Text(name, style="bold"), *cells(row)) for name, row in of.providers.items()]
    session.show(table(HEADS, rows, session.width), *warned(of.warnings))


def told(row: Mapping[str, Any]) -> dict[str, Any]:
    """A circuit for `--json`; what can't be known is null."""
    found = {name: row.get(name) if row["known"] or name not in OF_CREDENTIAL else None for name in FIELDS}
    return {**found, "credential_known": row["known"]}


def cells(row: Mapping[str, Any]) -> tuple[Cell, ...]:
    """A circuit for people; what can't be known is not shown."""
    if "circuit" not in row:
        return (Text("unknown", style="dim"), "", "", "", "")
    circuit, wait = row["circuit"], row["probes_in"]
    state = Text(circuit.replace("_", "-"), style=COLOURS[circuit])
    if wait is not None:
        state.append(f", probed in {duration(wait)}" if wait else ", to be probed", style="default")
    blocked = f"{row['blocked']}, for {duration(row['blocked_for'])}" if row["blocked"] and row["known"] else ""
    return (state, row["override"] or "", blocked, str(row["failures_in_a_row"] or ""), str(row["generation"]))


def change(session: Session, file: Path, provider: str, action: Action) -> None:
    """Open, close or reset one for the whole fleet. Raises `CommandFailed` or `SettingsError`."""
    of = seen(session, file)
    if not of.shared:
        raise CommandFailed(ALONE, kind="memory_backend", code=2)
    if provider not in of.providers:
        raise unknown_name("provider", provider, list(of.providers))
    before = after = of.providers[provider]
    if of.reachable:
        after = _changed(session, of, provider, action)
    warnings = [*of.warnings, *_rest(provider, action, after)]
    document = {
        "source": of.source, "backend": of.backend, "provider": provider, "action": action, "before": told(before), "after": told(after),
        "warnings": warnings,
    }  # fmt: skip
    if not of.reachable:
        raise away(of, document, ", and nothing was changed")
    if not _came(action, after):
        raise away(of, document, "; whether anything was changed `circuits list` will tell")
    if session.wants_json:
        session.document(document)
        return
    was = _was(before)
    page: list[RenderableType] = [Text.assemble((provider, "bold"), f" {DONE[action]}", (f" (it was {was})", "dim"))]
    session.show(*page, *warned(warnings))


def _act(of: Seen, provider: str, action: Action) -> None:
    if action == "open":
        of.model.override(provider, "forced_open")
    else:
        of.model.reset(provider, blocks=action == "reset")


def _changed(session: Session, of: Seen, provider: str, action: Action) -> dict[str, Any]:
    with session.holding_back():
        _act(of, provider, action)
        row = of.model.status()[provider]
    return {**(row if row["shared"] else {}), "known": of.providers[provider]["known"]}


def _came(action: Action, after: Mapping[str, Any]) -> bool:
    """Whether the fleet was told: it may have gone away between two words."""
    return "circuit" in after and (after["override"] == "forced_open") is (action == "open")


def _was(before: Mapping[str, Any]) -> str:
    by_hand = f", {before['override']} by hand" if before["override"] else ""
    return f"{before['circuit'].replace('_', '-')}{by_hand}"


def _rest(provider: str, action: Action, after: Mapping[str, Any]) -> list[str]:
    if action == "close" and after.get("blocked") and after["known"]:
        left = duration(after["blocked_for"])
        return [
            f"{provider}: its credential is still left alone for {left} ({after['blocked']}); `circuits reset` ends that too"
        ]
    return []
