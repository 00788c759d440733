"""What each user of ours has taken of the limits that all of them have: a ledger in memory, and its twin on Redis.

Rules of this file
------------------
* A limit's whole state is one integer for each user, GCRA's arrival time (`quota`). A wait is *booked*: one step takes the place in time, the
  arrival times move behind it, and whoever comes next is placed after it. They are the line; nobody polls, nobody overtakes.
* What is taken is charged from the moment at which it may begin: a request that waits for one limit takes of the others then, not now.
* All limits are asked before any is charged: a refusal writes nothing. What is handed back never exceeds what was taken.
* A user whose buckets are full is like one who was never seen, so that one is forgotten.
* Each step takes place at `at`: the ledger's clock, never before the moment of the last thing written about this user.
"""

from __future__ import annotations

import os
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple, Protocol
from weakref import WeakSet

from langchain_resilient.engine import quota
from langchain_resilient.engine.effects import Later
from langchain_resilient.engine.quota import FULL, Dimension
from langchain_resilient.engine.store.turn import Turn

NEVER = -1
"""The patience of one who only looks: granted to nobody."""


class Booking(NamedTuple):
    """One decision: a place in time, or why there is none now. Tuples have an entry for each dimension; times are µs."""

    ledger: Ledger
    """Whose decision it is: it alone can take the place back."""
    key: str
    """"kind:user"."""
    granted: bool
    wait: int
    """Until the place, or until there would be one; 0: now."""
    tightest: int
    """The dimension that makes it wait; -1: none."""
    at: int
    before: tuple[int, ...]
    after: tuple[int, ...]
    """The arrival times: as they were, and as they are now."""
    steps: tuple[int, ...]
    """What was charged, or would be."""
    scale: int = FULL
    """Thousandths of the limits that this ledger may give away."""


class Ledger(Protocol):
    """Where it is written down. A key is "kind:user", as users of different kinds have different limits."""

    def take(self, key: str, dimensions: Sequence[Dimension], costs: Sequence[int], patience: int) -> Booking | Later:
        """Book a place at most `patience` µs from now; `Later`: of a `Booking`, which comes from elsewhere."""

    def hand_back(self, booking: Booking, dimensions: Sequence[Dimension]) -> None:
        """Undo a booking that was not used. Never blocks."""

    def settle(self, booking: Booking, dimensions: Sequence[Dimension], moves: Sequence[int]) -> None:
        """Move the arrival times by so many µs, once it is known what was really used. Never blocks."""

    def close(self) -> None:
        """Write down what is under way, and let go of what is held."""


# ------------------------------------------------------------------------------------------------------------ arithmetic
def _place(
    dimensions: Sequence[Dimension], costs: Sequence[int], before: Sequence[int], at: int, scale: int
) -> tuple[int, int, tuple[int, ...], tuple[int, ...]]:
    """The wait until all dimensions can take their cost, which one is the last to, their states once it is taken then, and the charges."""
    wait, tightest = 0, -1
    after, steps = [], []
    for index, dimension in enumerate(dimensions):
        pause, tat, step = quota.take(dimension, before[index], costs[index], at, scale)
        after.append(tat)
        steps.append(step)
        if pause > wait:
            wait, tightest = pause, index
    if wait:
        start = at + wait
        after = [max(tat, start) + step for tat, step in zip(before, steps, strict=True)]
    return wait, tightest, tuple(after), tuple(steps)


# --------------------------------------------------------------------------------------------------------------- memory
class MemoryLedger:
    """Users' limits in this process.

    Args:
        now: Seconds, monotonic.
        scale: Thousandths of the limits that may be given away here (1 … 1000).
        unknowing: Whether users have been elsewhere before: then a bucket that is not known begins with one request in it, however
            large, and no more.
    """

    def __init__(self, now: Callable[[], float], scale: int = FULL, *, unknowing: bool = False) -> None:
        self._seconds = now
        self._scale = scale
        self._unknowing = unknowing
        self._turn = Turn()
        self._books: OrderedDict[str, tuple[int, ...]] = OrderedDict()
        """By user: when it was last written, and the arrival times. Who was looked at longest ago stands first."""
        _MEMORY.add(self)

    def __len__(self) -> int:
        """Users who are remembered."""
        return len(self._books)

    def take(self, key: str, dimensions: Sequence[Dimension], costs: Sequence[int], patience: int) -> Booking:
        """Book a place at most `patience` µs from now."""
        with self._turn:
            now = int(self._seconds() * 1_000_000)
            book = self._books.get(key)
            at, before = (now, (0,) * len(dimensions)) if book is None else (max(now, book[0]), book[1:])
            wait, tightest, after, steps = _place(dimensions, costs, before, at, self._scale)
            granted = wait <= patience
            if not granted:
                after = before
            else:
                if book is None:
                    self._forget_the_full(now)
                    if self._unknowing:
                        after = tuple([max(tat, at + limit.room) for tat, limit in zip(after, dimensions, strict=True)])
                self._books[key] = (at, *after)
            return Booking(self, key, granted, wait, tightest, at, before, after, steps, self._scale)

    def hand_back(self, booking: Booking, dimensions: Sequence[Dimension]) -> None:
        """Undo a booking that was not used."""
        # The last to have booked leaves all as it was; one with others behind it gives back what it was charged.
        self._write(
            booking.key,
            lambda tats, at: [
                before if tat == after else quota.reconcile(tat, -step, at)
                for tat, before, after, step in zip(tats, booking.before, booking.after, booking.steps, strict=True)
            ],
        )

    def settle(self, booking: Booking, dimensions: Sequence[Dimension], moves: Sequence[int]) -> None:
        """Move the arrival times by so many µs."""
        self._write(
            booking.key, lambda tats, at: [quota.reconcile(tat, by, at) for tat, by in zip(tats, moves, strict=True)]
        )

    def _write(self, key: str, change: Callable[[Sequence[int], int], Sequence[int]]) -> None:
        # The collector may close a waiting coroutine in the middle of a step of this very thread.
        if self._turn.postponed(partial(self._write, key, change)):
            return
        with self._turn:
            if (book := self._books.get(key)) is not None:
                at = max(int(self._seconds() * 1_000_000), book[0])
                self._books[key] = (at, *change(book[1:], at))

    def _forget_the_full(self, now: int) -> None:
        """Look at two for each that comes: so half of what is remembered at most is out of use, and no step takes long."""
        for _ in range(min(2, len(self._books))):
            key, book = self._books.popitem(last=False)
            if max(book) > now:
                self._books[key] = book

    def forget(self, key: str) -> None:
        """Forget one user."""
        with self._turn:
            self._books.pop(key, None)

    def forked(self) -> None:
        """Another thread of the parent may have been in the middle of a step."""
        self._turn = Turn()

    def close(self) -> None:
        """Nothing is held."""


_MEMORY: WeakSet[MemoryLedger] = WeakSet()
_OF_THE_PROCESS: dict[tuple[str, ...], MemoryLedger] = {}


def _after_fork() -> None:
    for ledger in list(_MEMORY):
        ledger.forked()


os.register_at_fork(after_in_child=_after_fork)


def memory_ledger(namespace: str, dimensions: Sequence[Dimension]) -> MemoryLedger:
    """The one ledger of this process and namespace for these dimensions: a limiter that is made anew for each request still counts."""
    name = (namespace, *(dimension.name for dimension in dimensions))
    ledger = _OF_THE_PROCESS.get(name)
    if ledger is None:
        ledger = _OF_THE_PROCESS.setdefault(name, MemoryLedger(time.monotonic))
    return ledger
