"""Where an application's dead letters lie, and what may be said of one.

Rules of this file: no provider is needed, so neither is a key. A box is not made where none was: who looks in the wrong directory is told so.
Of a letter only what tells why and when is said; its content only to who asks for it by name. A key that a caller chose may be a prompt,
so it counts as content.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from langchain_resilient.cli import unasked
from langchain_resilient.cli.failures import CommandFailed, usage_error
from langchain_resilient.cli.session import Session
from langchain_resilient.engine.dead_letters.box import Box, BoxError, State
from langchain_resilient.engine.dead_letters.letter import Counts, Letter
from langchain_resilient.engine.dead_letters.opening import DeadLetters, open_box
from langchain_resilient.engine.dead_letters.opening import place_of as place_named
from langchain_resilient.engine.errors import unknown_name
from langchain_resilient.engine.policy import SystemClock
from langchain_resilient.engine.store.opening import MEMORY, SHARED

COUNTS = ("waiting", "claimed", "parked", "spooled")
ATTEMPT = ("provider", "kind", "status", "limit", "seconds", "wait")
"""What is said of an attempt."""
PAGE = 100
MOST_NEAR = 1000
"""Letters among which the nearest id is looked for."""
NONE = "dead_letters: these settings keep none; add `dead_letters: true` (the backend's Redis, else a file), a path or a URL of Redis"
_OURS = re.compile(r"[0-9a-f]{32}")
_AGE = re.compile(r"(\d+(?:\.\d+)?)\s*([smhdw])")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604_800}


# ---------------------------------------------------------------------------------------------------------------- the box
def place_of(settings: Mapping[str, Any]) -> str | None:
    """The path or URL of the box of these settings; None: they keep no letters. Raises `SettingsError`."""
    given = settings.get("dead_letters")
    if given is None or given is False:
        return None
    return place_named(_settings(given).where, settings.get("backend", MEMORY))


def _settings(given: Any) -> DeadLetters:
    return given if isinstance(given, DeadLetters) else DeadLetters(given)


def shown_place(place: str, settings: Mapping[str, Any]) -> str:
    """For people: which file, or which server, database and namespace; without a password. Raises `SettingsError` for a URL that makes no sense."""
    if place.partition("://")[0] not in SHARED:
        return str(Path(place).absolute())
    from langchain_resilient.engine.store.redis.post.dial import Dial  # and redis-py with it

    return f"{Dial(place).shown}, namespace {settings.get('namespace', 'default')}"


def is_absent(place: str) -> bool:
    """Whether it is a file that nobody has made."""
    return place.partition("://")[0] not in SHARED and not Path(place).exists()


def absent(place: str) -> str:
    """What to say of it."""
    return (
        f"dead_letters: there is no file {Path(place).absolute()}: a path is taken from the working directory, so run this where the "
        "application runs"
    )


@contextmanager
def opened(session: Session, file: Path) -> Iterator[tuple[Box, str]]:
    """The box of a settings file, and what to call its place. Raises `SettingsError`, and `CommandFailed` where it can't be used."""
    with session.holding_back():
        settings = unasked.settings_of(session, file)
    try:
        with open_at(session, settings) as found:
            yield found
    except BoxError as error:
        raise CommandFailed(f"the dead letters can't be read: {error}", kind="letters_away") from error
    for line in session.told():
        session.note(line)


@contextmanager
def open_at(session: Session, settings: Mapping[str, Any]) -> Iterator[tuple[Box, str]]:
    """As `opened`, of settings; and `BoxError` of whatever is done with it."""
    with session.holding_back():
        place = place_of(settings)
        if place is None:
            raise CommandFailed(NONE, kind="settings", code=2)
        if is_absent(place):
            raise CommandFailed(absent(place), kind="settings", code=2)
        words = {name: settings[name] for name in ("backend", "namespace") if name in settings}
        found = open_box(_settings(settings["dead_letters"]), **words)
        try:
            yield found, shown_place(place, settings)
        finally:
            found.close()


def every(box: Box, state: State | None = None, before: float | None = None) -> Iterator[tuple[State, Letter]]:
    """All letters, oldest first; those created before a moment."""
    after = None
    while True:
        page = box.letters(state, PAGE, after)
        for found, letter in page:
            if before is not None and letter.created >= before:
                return
            yield found, letter
        if len(page) < PAGE:
            return
        after = page[-1][1].id


def known(box: Box, ids: Sequence[str]) -> list[Letter]:
    """The letters of these ids; `CommandFailed` names the nearest one to the first that there is not."""
    found = []
    for name in ids:
        letter = box.get(name)
        if letter is None:
            there = [letter.id for _, letter in box.letters(None, MOST_NEAR)]
            near = get_close_matches(name, there, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]}?" if near else "`dead-letters list` has their ids"
            raise CommandFailed(f"there is no dead letter {name}; {hint}", kind="unknown_letter", code=2)
        found.append(letter)
    return found


def state_named(given: str | None, states: Sequence[State]) -> State | None:
    """The state of this name. Raises `SettingsError`, which names the nearest."""
    for state in states:
        if state == given:
            return state
    if given is not None:
        raise unknown_name("--state", given, states)
    return None


def age_of(given: str) -> float:
    """Seconds, of "7d" or "12h"; `CommandFailed` for what is no age."""
    match = _AGE.fullmatch(given.strip().lower())
    if match is None:
        raise usage_error(f"--older-than: got {given!r}; give a number and a unit (s, m, h, d, w), such as 7d or 12h")
    return float(match[1]) * _UNITS[match[2]]


def wall() -> float:
    """Seconds since the epoch."""
    return SystemClock().wall()


# ------------------------------------------------------------------------------------------------------------- what is said
def counted(counts: Counts) -> dict[str, Any]:
    """How many lie where, for `--json`, and the age of the oldest in seconds."""
    oldest = None if counts.oldest is None else max(0.0, wall() - counts.oldest)
    return {**{name: getattr(counts, name) for name in COUNTS}, "oldest_age": oldest}


def told(session: Session, state: State, letter: Letter) -> dict[str, Any]:
    """A letter for `--json`, without its content."""
    now, line = wall(), session.redactor.line
    tried = [{name: _plain(session, attempt.get(name)) for name in ATTEMPT} for attempt in letter.attempts]
    return {
        "id": line(letter.id),
        "state": state,
        "kind": line(letter.kind),
        "created": letter.created,
        "age": max(0.0, now - letter.created),
        "deliveries": letter.deliveries,
        "due_in": max(0.0, letter.not_before - now) if state == "waiting" else None,
        "parked": None if letter.parked is None else line(letter.parked),
        "tenant": None if letter.tenant is None else line(letter.tenant),
        "key": letter.key if _OURS.fullmatch(letter.key) else None,
        "readable": letter.content is not None,
        "attempts": tried,
    }


def _plain(session: Session, value: Any) -> Any:
    return session.redactor.line(value) if isinstance(value, str) else value if isinstance(value, int | float) else None


def with_content(row: dict[str, Any], letter: Letter) -> dict[str, Any]:
    """The same with what was asked, and the key that the caller gave it."""
    return {**row, "key": letter.key, "content": letter.content}


def as_line(content: Any) -> str:
    """JSON on one line, for any encoding."""
    return json.dumps(content, ensure_ascii=True)


def as_text(content: Any) -> str:
    """JSON for people."""
    return json.dumps(content, ensure_ascii=False, indent=2)
