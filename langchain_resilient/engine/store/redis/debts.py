"""Places that Redis may hold for nobody: what it granted unheard, and what it may not have been told.

Rules of this file: no lock; each step is one operation on a container, safe in any thread. What is told twice here does no harm: it gives back
what an attempt holds, and nothing else. All is bounded: what is forgotten lapses by itself.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

from langchain_resilient.engine.effects import Ticket
from langchain_resilient.engine.store.redis import wire
from langchain_resilient.engine.store.redis.asking import Asked
from langchain_resilient.engine.store.redis.post.courier import Courier

MOST_OWED = 10_000


class Debts:
    """What one process has to give back.

    Args:
        keys: The namespace's.
        courier: Who tells Redis.
        named: How the fleet names an attempt.
    """

    def __init__(self, keys: wire.Keys, courier: Courier, named: Callable[[int], str]) -> None:
        self._keys = keys
        self._courier = courier
        self._named = named
        self._ghosts: dict[int, Asked] = {}
        """Admissions whose answer never came: the server may have granted them all the same."""
        self._unsure: dict[int, Ticket] = {}
        """Attempts that ended and held a place, until Redis says that it was told."""
        self._owed: deque[wire.Operation] = deque(maxlen=MOST_OWED)
        """What gives back places that Redis granted before it went away."""

    def unheard(self, asked: Asked) -> None:
        """No answer came to this one."""
        if len(self._ghosts) >= MOST_OWED:
            self._ghosts.clear()
        self._ghosts[asked.ask.attempt] = asked

    def owe(self, operation: wire.Operation) -> None:
        """Tell Redis what it would otherwise keep a place for: now, or when it is back."""
        if self._courier.up:
            self._courier.tell(operation)
        else:
            self._owed.append(operation)

    def release(self, ticket: Ticket, operation: wire.Operation) -> None:
        """Tell of the end of an attempt that held a place, and give the place back again unless Redis says that it was told."""
        self._unsure[ticket.attempt] = ticket
        self._courier.tell(operation, then=partial(self._told, ticket.attempt))

    def _told(self, attempt: int, _: Any) -> None:
        self._unsure.pop(attempt, None)

    def free(self, ticket: Ticket) -> wire.Operation:
        """What gives back what an attempt holds; it moves no limit, as a report without usage does not."""
        return wire.give_back(self._keys, ticket, self._named(ticket.attempt))

    def connected(self) -> None:
        """What was asked or told when the last connection broke did perhaps come, or not: so again."""
        for attempt, asked in tuple(self._ghosts.items()):
            self._courier.tell(wire.cancel(self._keys, asked.targets, self._named(attempt)))
            self._ghosts.pop(attempt, None)
        for attempt, ticket in tuple(self._unsure.items()):
            self._courier.tell(self.free(ticket), then=partial(self._told, attempt))

    def pay(self) -> None:
        """Redis is back: tell it what was owed."""
        while self._owed:
            self._courier.tell(self._owed.popleft())

    def forked(self) -> None:
        """In a new child process: what is owed is the parent's."""
        self._ghosts.clear()
        self._unsure.clear()
        self._owed.clear()
