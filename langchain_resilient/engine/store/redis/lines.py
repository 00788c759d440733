"""Where this process's requests stand, in lines that Redis keeps.

Rules of this file: no lock and no clock; the store takes its turn around each step. A place's `wake` is somebody else's code: nothing is
woken here, whoever is to be called is returned.
"""

from __future__ import annotations

from typing import NamedTuple

from langchain_resilient.engine.effects import Place, Queued
from langchain_resilient.engine.policy import Target
from langchain_resilient.engine.store.account import SECOND
from langchain_resilient.engine.store.redis import wire

MOST_CALLED = 1000


class Standing(NamedTuple):
    """A place in a line."""

    place: Place
    entry: str
    """How the line names it."""


class Lines:
    """The places of one process."""

    def __init__(self) -> None:
        self._standing: dict[int, Standing] = {}
        """By attempt."""
        self._called: set[int] = set()
        """Attempts that were called to the front of their line before they knew of their place."""

    def of(self, attempt: int) -> Standing | None:
        """Where a request stands, if it does."""
        return self._standing.get(attempt)

    def was_called(self, attempt: int) -> bool:
        """Whether it was called to the front before its answer came; asked once for each answer."""
        called = attempt in self._called
        self._called.discard(attempt)
        return called

    def stand(self, attempt: int, booked: wire.Booked, target: Target, *, called: bool) -> Queued:
        """Keep a place that Redis gave, or still has for us."""
        standing = self._standing.get(attempt)
        place = Place(attempt, target, 0) if standing is None or standing.entry != booked.entry else standing.place
        place.woken = called
        self._standing[attempt] = Standing(place, booked.entry)
        return Queued(place, booked.pause / SECOND)

    def leave(self, attempt: int) -> Standing | None:
        """Forget a place, and say where it was."""
        return self._standing.pop(attempt, None)

    def call(self, attempt: int | None) -> list[Place]:
        """Note that somebody may ask again, or (None) that all may; whom to wake for it."""
        if attempt is None:
            found = [standing.place for standing in self._standing.values()]
        elif (standing := self._standing.get(attempt)) is not None:
            found = [standing.place]
        else:
            found = []
            if len(self._called) >= MOST_CALLED:
                self._called.clear()
            self._called.add(attempt)
        for place in found:
            place.woken = True
        return found

    def forked(self) -> None:
        """In a new child process: whoever stands in a line is the parent's."""
        self._standing.clear()
        self._called.clear()
