"""Writes dead letters for the requests of one model, and is the one who knows the box.

Rules of this file: what can't be written is said aloud, and changes nothing for the caller, who gets the error that would have come anyway. One
box for all models of a process that name the same place in the same way. Async callers wait in threads of our own: LangChain's fill up with
providers that hang, at the very time when letters are to be written.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from langchain_resilient.engine.dead_letters.box import Box, BoxAwayError
from langchain_resilient.engine.dead_letters.letter import Counts, Letter, new_id
from langchain_resilient.engine.dead_letters.opening import DeadLetters, open_box, place_named
from langchain_resilient.engine.effects import Later
from langchain_resilient.engine.events import Attempt, DeadLettered
from langchain_resilient.engine.store.forks import tell_of_forks
from langchain_resilient.engine.store.once import opened_once

LOGGER = logging.getLogger("langchain_resilient")
WRITERS = 8
"""Threads that write for async callers, at most."""
NOISE = 8
"""Random bytes in an id."""

Content = Callable[[], tuple[str, Mapping[str, Any]]]
"""An idempotency key, and what is to be asked again."""


class Keeper:
    """Keeps requests as dead letters.

    Args:
        box: Where.
        wall: Seconds since the epoch.
        place: Tells this place from others, and nobody where it is; "": unknown.
    """

    def __init__(self, box: Box, wall: Callable[[], float] = time.time, place: str = "") -> None:
        self.box = box
        self.place = place
        self._counts = Counts(0, 0, 0, 0, None)
        self._wall = wall
        self._writers = ThreadPoolExecutor(WRITERS, "langchain_resilient_letters")
        tell_of_forks(self)

    def forked(self) -> None:
        """In a new child process the threads are gone."""
        self._writers = ThreadPoolExecutor(WRITERS, "langchain_resilient_letters")

    def counts(self) -> Counts:
        """How many letters lie where; while Redis is away, what lay there last, and what is spooled now. Raises `BoxError`."""
        try:
            self._counts = self.box.counts()
        except BoxAwayError:
            self._counts = self._counts._replace(spooled=self.box.spooled())
        return self._counts

    def keeping(self, tenant: str | None, content: Content) -> Callable[[str, tuple[Attempt, ...]], Later]:
        """How one request is put away: `Request.keeping`.

        Args:
            tenant: Whose it is.
            content: Its idempotency key, and what is to be asked again; called once, if it comes to a letter.
        """

        def writing(kind: str, attempts: tuple[Attempt, ...]) -> Later:
            return Writing(lambda: self._written(tenant, content, kind, attempts), self._writers)

        return writing

    def _written(
        self, tenant: str | None, content: Content, kind: str, attempts: tuple[Attempt, ...]
    ) -> DeadLettered | None:
        created = self._wall()
        name, key, where = new_id(created, os.urandom(NOISE)), "", "lost"
        try:
            key, asked = content()
            tried = tuple([attempt._asdict() for attempt in attempts])
            where = self.box.put(Letter(name, key, created, kind, tried, asked, tenant)) or ""
        except Exception as error:  # noqa: BLE001  # whatever it is: the caller's own error must arrive
            # Not its text: a serializer quotes what it can't write.
            LOGGER.error("a request is lost: it could not be kept as dead letter %s (%s)", name, type(error).__name__)  # noqa: TRY400  # its frames hold the prompt
        return DeadLettered(name, key, kind, where) if where else None


class Writing(Later):
    """A letter that is being written: in the caller's thread, or in one of ours while its task waits."""

    __slots__ = ("_write", "_writers")

    def __init__(self, write: Callable[[], Any], writers: ThreadPoolExecutor) -> None:
        self._write = write
        self._writers = writers

    def result(self) -> Any:
        """Write it in this thread."""
        return self._write()

    def __await__(self) -> Generator[Any, None, Any]:
        """Wait for it in this task. If the task is cancelled it is written all the same."""
        # Shielded: a cancelled task would take what still queues for a thread along.
        return asyncio.shield(asyncio.get_running_loop().run_in_executor(self._writers, self._write)).__await__()


_OF_THE_PROCESS: dict[tuple[DeadLetters, str, str], Keeper] = {}


def keeper_of(settings: DeadLetters, backend: str, namespace: str) -> Keeper:
    """The one keeper of this process for a place and what is said of it; opened at the first call. Raises `SettingsError` as `open_box`."""

    def made() -> Keeper:
        box = open_box(settings, backend=backend, namespace=namespace)
        return Keeper(box, place=place_named(settings.where, backend, namespace))

    return opened_once(_OF_THE_PROCESS, (settings, backend, namespace), made)
