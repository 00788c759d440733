"""`dead-letters replay`, `purge` and `unpark`: what ends letters, or lets them wait again.

Rules of this file: nothing is removed that was not named and agreed to. A replay that is interrupted gives back what it holds, and says what
it has done.
"""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import typer
from rich.text import Text

from langchain_resilient.chat_model import ResilientChatModel
from langchain_resilient.cli import box, sources
from langchain_resilient.cli.chat import promptly
from langchain_resilient.cli.failures import CommandFailed, interrupted, usage_error
from langchain_resilient.cli.session import Session
from langchain_resilient.cli.wording import duration, listed
from langchain_resilient.engine.dead_letters.box import STATES, Box, BoxError
from langchain_resilient.engine.dead_letters.replaying import ReplayReport
from langchain_resilient.engine.events import Event, Replayed

OUTCOMES = ("answered", "failed", "refused", "parked")


# ---------------------------------------------------------------------------------------------------------------- replay
class Replaying(NamedTuple):
    """What was typed."""

    most: int | None = None
    concurrency: int = 4
    wait: bool = False


class Tally:
    """What became of each letter, also before a Ctrl-C, after which there is no report."""

    def __init__(self) -> None:
        self._ends: dict[str, str] = {}
        """By letter: one that nobody could be asked about comes back."""

    def __call__(self, event: Event) -> None:
        """Take note."""
        if isinstance(event, Replayed):
            self._ends[event.letter] = event.outcome

    def report(self) -> ReplayReport:
        """What there is to report so far."""
        counts = Counter(self._ends.values())
        return ReplayReport(**{name: counts[name] for name in OUTCOMES})


def replay(session: Session, file: Path, wanted: Replaying) -> None:
    """Ask them again. Raises `CommandFailed`, also where a letter that was asked was not answered, or `SettingsError`."""
    tally = Tally()
    with session.holding_back():
        settings = sources.settings_of(session, sources.Source(file=file))
        place = box.place_of(settings)
        if place is None or box.is_absent(place):
            raise CommandFailed(box.NONE if place is None else box.absent(place), kind="settings", code=2)
        model = sources.build(session, {**settings, "observers": [*settings.get("observers", ()), tally]})
        told = {"source": str(file), "where": box.shown_place(place, settings)}
        try:
            report = promptly(_replayed(model, wanted))
        except KeyboardInterrupt:
            document = {**told, **_document(session, model, tally.report())}
            _show(session, tally.report())
            raise interrupted(document) from None
        except BoxError as error:
            document = {**told, **_document(session, None, tally.report())}
            raise CommandFailed(
                f"the dead letters can't be reached: {error}", kind="letters_away", document=document
            ) from error
        document = {**told, **_document(session, model, report)}
    _show(session, report)
    for line in document["warnings"] if not session.wants_json else ():
        session.note(line)
    left = _left(report)
    if left:
        raise CommandFailed(left, kind="letters_left", document=document)
    if session.wants_json:
        session.document(document)


async def _replayed(model: ResilientChatModel, wanted: Replaying) -> ReplayReport:
    try:
        return await model.areplay(most=wanted.most, concurrency=wanted.concurrency, wait=wanted.wait)
    finally:
        await asyncio.shield(model.aclose())  # a shared backend is told of what was cut off


def _document(session: Session, model: ResilientChatModel | None, report: ReplayReport) -> dict[str, Any]:
    counts = None
    if model is not None:
        try:
            counts = box.counted(model.letters.counts())
        except BoxError:
            counts = None
    return {"report": report._asdict(), "counts": counts, "warnings": session.told()}


def _show(session: Session, report: ReplayReport) -> None:
    if session.wants_json:
        return
    found = [f"{getattr(report, name)} {name}" for name in OUTCOMES if getattr(report, name)]
    session.show(Text(listed(found) if found else "no letter was due"))


def _left(report: ReplayReport) -> str:
    """What to say where a letter that was asked was not answered; "": all were."""
    why = {
        "failed": f"{report.failed} failed and will be asked again",
        "refused": f"{report.refused} could not be asked (circuits or limits)",
        "parked": f"{report.parked} are parked: `dead-letters list --state parked` says why",
    }
    said = [words for name, words in why.items() if getattr(report, name)]
    if not said:
        return ""
    asked = report.answered + report.failed + report.refused + report.parked
    later = f"; nobody may be asked for {duration(report.retry_after)}" if report.retry_after else ""
    return f"{asked - report.answered} of {asked} letters were not answered: {listed(said)}{later}"


# ----------------------------------------------------------------------------------------------------- purge and unpark
class Purge(NamedTuple):
    """What was typed."""

    ids: Sequence[str] = ()
    state: str | None = None
    older_than: str | None = None
    yes: bool = False


def purge(session: Session, file: Path, wanted: Purge) -> None:
    """Remove them. Raises `CommandFailed` or `SettingsError`."""
    if not (wanted.ids or wanted.state or wanted.older_than):
        raise usage_error("nothing says what to remove: give ids, --state or --older-than")
    state = box.state_named(wanted.state, STATES)
    before = None if wanted.older_than is None else box.wall() - box.age_of(wanted.older_than)
    asks = not wanted.yes
    if asks and (session.wants_json or not sys.stdin.isatty()):
        raise usage_error("nobody can be asked whether to remove them: add --yes")
    with box.opened(session, file) as (found, where):
        ids = [letter.id for letter in box.known(found, wanted.ids)]
        if asks:
            named = [letter.id for _, letter in box.every(found, state, before)]
            ids = [each for each in named if each in ids] if ids else named
            if ids and not typer.confirm(f"Remove {_letters(len(ids))} from {where} for good?", err=True):
                raise CommandFailed("nothing was removed", kind="declined")
        # By their ids: others may have come while somebody thought it over. Without any, all that is named would go.
        removed = found.purge(ids=ids, state=state, before=before) if ids or not asks else 0
        counts = box.counted(found.counts())
    if session.wants_json:
        session.document({"source": str(file), "where": where, "removed": removed, "counts": counts, "warnings": []})
    else:
        session.show(Text(f"{_letters(removed)} removed"))


def _letters(many: int) -> str:
    return f"{many} letter{'' if many == 1 else 's'}"


def unpark(session: Session, file: Path, ids: Sequence[str], *, all_of_them: bool) -> None:
    """Let parked letters wait again. Raises `CommandFailed`, also where one could not, or `SettingsError`."""
    if bool(ids) == all_of_them:
        raise usage_error("give ids, or --all for every parked letter")
    with box.opened(session, file) as (found, where):
        given = [letter.id for letter in box.known(found, ids)] if ids else _parked(found)
        done = [letter_id for letter_id in given if found.unpark(letter_id)]
        counts = box.counted(found.counts())
    left = [letter_id for letter_id in given if letter_id not in done]
    document = {"source": str(file), "where": where, "unparked": done, "left": left, "counts": counts, "warnings": []}
    if not session.wants_json:
        session.show(Text(f"{_letters(len(done))} {'waits' if len(done) == 1 else 'wait'} again"))
    if left:
        message = f"{listed(left)}: not parked, or kept without its content, so that nobody could be asked"
        raise CommandFailed(message, kind="not_unparked", document=document)
    if session.wants_json:
        session.document(document)


def _parked(found: Box) -> list[str]:
    return [letter.id for _, letter in box.every(found, "parked")]
