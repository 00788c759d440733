"""Where dead letters lie: what each kind of box promises.

Rules of this file: the promises and their words only. Every box is sync and thread-safe, survives a fork, and may be used by several processes;
async callers use a thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

from langchain_resilient.engine.dead_letters.letter import Counts, Letter, Result
from langchain_resilient.engine.errors import ResilienceError, require, unknown_name

State = Literal["waiting", "claimed", "parked"]
Where = Literal["sqlite", "redis", "spool"]
STATES: tuple[State, ...] = ("waiting", "claimed", "parked")
UNREADABLE_PAUSE = 60.0
"""Seconds after which a letter that no key at hand opened is offered again: to a process that may have the key."""


class BoxError(ResilienceError):
    """The box could not do it. The text holds nothing of any letter."""

    is_retryable = True


class BoxAwayError(BoxError, ConnectionError):
    """Redis can't be reached, or can't serve us; what was asked may or may not have happened there."""


class Box(Protocol):
    """Dead letters and their late answers.

    A claim is fenced: `renew`, `release` and `park` of somebody whose claim lapsed, and whose letter somebody else has claimed since, do nothing.
    A late `finish` counts all the same, unless a result stands: the answer is good.

    Raises:
        BoxError: From any method: the box could not do it.
    """

    def put(self, letter: Letter) -> Where | None:
        """Keep a letter, and say where; it is durable once this returns. None: a letter or a result of that key is here, and nothing is written."""

    def claim(self, most: int, lease: float) -> list[Letter]:
        """At most so many letters that are due and nobody holds, oldest first; theirs for `lease` seconds.

        Each claim counts as a delivery. A letter that has had `MOST_DELIVERIES` is parked as poison instead; one whose key has a result already
        is ended; one that can't be read, as no key at hand opens it or it is none of ours, is put off for a minute, uncounted.
        """

    def renew(self, letters: Sequence[Letter], lease: float) -> None:
        """Hold claimed letters for `lease` seconds from now."""

    def finish(self, letter: Letter, value: object) -> bool:
        """One atomic step: keep the result by the letter's key, unless one stands (False), and end the letter. `value`: as JSON has it."""

    def release(self, letter: Letter, not_before: float, *, counted: bool) -> None:
        """Give a claimed letter back; nobody gets it before that moment (seconds since the epoch). Unless `counted` nobody was asked."""

    def park(self, letter: Letter, why: str) -> None:
        """Hand a claimed letter out no more."""

    def unpark(self, letter_id: str) -> bool:
        """Let a parked letter wait again, its deliveries counted from 0. False: it is not parked, or its content was left out."""

    def get(self, letter_id: str) -> Letter | None:
        """One letter, whatever its state."""

    def letters(
        self, state: State | None = None, most: int = 100, after: str | None = None
    ) -> list[tuple[State, Letter]]:
        """At most so many letters with their states, oldest first; those after the one with the id `after`."""

    def result(self, key: str, tenant: str | None = None) -> Result | None:
        """The late answer to a tenant's idempotency key, as long as it is kept."""

    def purge(self, *, ids: Sequence[str] = (), state: State | None = None, before: float | None = None) -> int:
        """Remove the letters that meet all that is given (created before that moment); returns how many. Raises `SettingsError` for nothing."""

    def counts(self) -> Counts:
        """How many lie where."""

    def spooled(self) -> int:
        """How many letters of this machine are on their way to a Redis that was away; it is not asked. 0 for a file. Raises nothing."""

    def close(self) -> None:
        """Let go of files and connections. Afterwards the box is not used any more."""


def check_claim(most: int, lease: float) -> None:
    """Raise `SettingsError` for a claim that can't be meant."""
    require(most >= 1, "claim(most=…)", most, "use a whole number ≥ 1")
    require(lease > 0, "claim(lease=…)", lease, "use a number of seconds > 0")


def check_state(state: str | None) -> None:
    """Raise `SettingsError` for a state that no letter has."""
    if state is not None and state not in STATES:
        raise unknown_name("state", state, STATES)


def check_purge(ids: Sequence[str], state: str | None, before: float | None) -> None:
    """Raise `SettingsError` where nothing says what to remove."""
    require(not isinstance(ids, str), "purge(ids=…)", "a text", "give a list of ids")
    given = bool(ids) or state is not None or before is not None
    require(given, "purge()", "nothing", "name ids, a state, or the moment before which letters are removed")
    check_state(state)
