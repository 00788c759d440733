"""What each user of ours has taken of the limits that all of them have: a ledger in memory, and its twin on Redis.

Rules of this file
------------------
* A limit's state is one integer for each user, GCRA's arrival time (`quota`); three more only say what may come back. A wait is *booked*: one
  step takes the place in time, the arrival times move behind it, and whoever comes next is placed after it. They are the line; nobody polls,
  nobody overtakes.
* What is taken is charged from the moment at which it may begin: a request that waits for one limit takes of the others then, not now.
* All limits are asked before any is charged: a refusal writes nothing.
* The last to have booked undoes its booking whole. Of any other's charge comes back what the start of the last booked place finds still owed:
  the rest had flowed back by then, and those behind keep their places. So a place in the middle of a long line is forfeited.
* A user whose buckets are full is like one who was never seen, so that one is forgotten.
* Each step takes place at `at`: the ledger's clock, never before the moment of the last thing written about this user.

Why no more begins than the limits allow, whatever comes back
-------------------------------------------------------------
Let `tat` be the arrival time and `back` all that ever came back. `tat + back` never falls but by an undoing, which leaves no trace; so on this
scale the charges lie side by side, each in an interval of its own that ends at its `after + back`. A booking with the start `s` sets a mark
at `s + back`. Above it lie `tat + back - (s + back) = tat - s`, what is owed when it begins, and only what lies above the last mark comes back;
marks never fall, as starts are in order. So whatever comes back later of earlier charges, `tat` stays at or above `s` plus all charges from this
one on, less what came back of these: for each pair of starts, what is charged between them is at most what GCRA admits.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple, Protocol

from langchain_resilient.engine import quota
from langchain_resilient.engine.effects import Later
from langchain_resilient.engine.quota import FULL, Dimension
from langchain_resilient.engine.store.forks import tell_of_forks
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
    born: int
    """When this user's book was opened: in another one there is nothing to give back, all had flowed back before it."""
    lasts: tuple[int, ...]
    """The last start that was booked before this one."""
    backs: tuple[int, ...]
    """All that had come back until then, µs."""
    scale: int = FULL
    """Thousandths of the limits that this ledger may give away."""

    def __repr__(self) -> str:
        told = f"granted={self.granted}, wait={self.wait}, at={self.at}, before={self.before}, after={self.after}"
        return f"Booking({told})"  # and not whose it is


class Ledger(Protocol):
    """Where it is written down. A key is "kind:user", as users of different kinds have different limits."""

    def take(self, key: str, dimensions: Sequence[Dimension], costs: Sequence[int], patience: int) -> Booking | Later:
        """Book a place at most `patience` µs from now; `Later`: of a `Booking`, which comes from elsewhere."""

    def hand_back(self, booking: Booking, dimensions: Sequence[Dimension]) -> None:
        """Undo a booking that was not used, in so far as nobody booked behind it counts on it. Never blocks."""

    def settle(self, booking: Booking, dimensions: Sequence[Dimension], moves: Sequence[int]) -> None:
        """Move the arrival times by so many µs (back: by as many at most), once it is known what was really used. Never blocks."""

    def close(self) -> None:
        """Write down what is under way, and let go of what is held."""


# ------------------------------------------------------------------------------------------------------------ arithmetic
def _place(
    dimensions: Sequence[Dimension], costs: Sequence[int], before: Sequence[int], last: int, at: int, scale: int
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
    if wait < last - at:  # something came back while others wait: they go first
        wait, tightest = last - at, max(tightest, 0)
    if wait:
        start = at + wait
        after = [max(tat, start) + step for tat, step in zip(before, steps, strict=True)]
    return wait, tightest, tuple(after), tuple(steps)


class _Book(NamedTuple):
    """What is known of a user; tuples have an entry for each dimension, times are µs."""

    written: int
    born: int
    tats: tuple[int, ...]
    lasts: tuple[int, ...]
    """The start of the last place that was booked."""
    backs: tuple[int, ...]
    """All that ever came back."""
    helds: tuple[int, ...]
    """All that had come back when the last place was booked; with its start, the mark."""


def _given(book: _Book, booking: Booking, moves: Sequence[int], at: int) -> _Book:
    """The book once its arrival times have moved; back, by no more than lies above the marks."""
    tats, backs = [], []
    for place, by in enumerate(moves):
        tat, back = book.tats[place], book.backs[place]
        if by < 0:
            owed = booking.after[place] + booking.backs[place] - book.lasts[place] - book.helds[place]
            by = -min(-by, max(0, owed)) if book.born == booking.born else 0  # noqa: PLW2901  # what it comes to
        moved = quota.reconcile(tat, by, at)
        tats.append(moved)
        backs.append(back + max(0, tat - moved))
    return book._replace(tats=tuple(tats), backs=tuple(backs))


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
        self._books: OrderedDict[str, _Book] = OrderedDict()
        """By user. Who was looked at longest ago stands first."""
        tell_of_forks(self)

    def __len__(self) -> int:
        """Users who are remembered."""
        return len(self._books)

    def take(self, key: str, dimensions: Sequence[Dimension], costs: Sequence[int], patience: int) -> Booking:
        """Book a place at most `patience` µs from now."""
        with self._turn:
            now = int(self._seconds() * 1_000_000)
            found = self._books.get(key)
            nothing = (0,) * len(dimensions)
            book = found or _Book(now, now, nothing, nothing, nothing, nothing)
            at, before = max(now, book.written), book.tats
            wait, tightest, after, steps = _place(dimensions, costs, before, max(book.lasts), at, self._scale)
            granted = wait <= patience
            if not granted:
                after = before
            else:
                if found is None:
                    self._forget_the_full(now)
                    if self._unknowing:
                        after = tuple([max(tat, at + limit.room) for tat, limit in zip(after, dimensions, strict=True)])
                starts = (at + wait,) * len(dimensions)
                self._books[key] = _Book(at, book.born, after, starts, book.backs, book.backs)
            return Booking(
                self,
                key,
                granted,
                wait,
                tightest,
                at,
                before,
                after,
                steps,
                book.born,
                book.lasts,
                book.backs,
                self._scale,
            )

    def hand_back(self, booking: Booking, dimensions: Sequence[Dimension]) -> None:
        """Undo a booking that was not used, in so far as nobody booked behind it counts on it."""
        self._write(booking.key, partial(self._undone, booking))

    @staticmethod
    def _undone(booking: Booking, book: _Book, at: int) -> _Book:
        shifts = [now - then for now, then in zip(book.backs, booking.backs, strict=True)]
        ends = [tat + shift for tat, shift in zip(book.tats, shifts, strict=True)]
        if book.born != booking.born or ends != list(booking.after):
            return _given(book, booking, [-step for step in booking.steps], at)
        tats = tuple([before - shift for before, shift in zip(booking.before, shifts, strict=True)])
        return book._replace(tats=tats, lasts=booking.lasts)

    def settle(self, booking: Booking, dimensions: Sequence[Dimension], moves: Sequence[int]) -> None:
        """Move the arrival times by so many µs; back, by as many at most."""
        self._write(booking.key, lambda book, at: _given(book, booking, moves, at))

    def _write(self, key: str, change: Callable[[_Book, int], _Book]) -> None:
        # The collector may close a waiting coroutine in the middle of a step of this very thread.
        if self._turn.postponed(partial(self._write, key, change)):
            return
        with self._turn:
            if (book := self._books.get(key)) is not None:
                at = max(int(self._seconds() * 1_000_000), book.written)
                self._books[key] = change(book, at)._replace(written=at)

    def _forget_the_full(self, now: int) -> None:
        """Look at two for each that comes: so half of what is remembered at most is out of use, and no step takes long."""
        for _ in range(min(2, len(self._books))):
            key, book = self._books.popitem(last=False)
            if max(book.written, *book.tats) > now:
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


_OF_THE_PROCESS: dict[tuple[str, ...], MemoryLedger] = {}


def memory_ledger(namespace: str, dimensions: Sequence[Dimension]) -> MemoryLedger:
    """The one ledger of this process and namespace for these dimensions: a limiter that is made anew for each request still counts."""
    name = (namespace, *(dimension.name for dimension in dimensions))
    ledger = _OF_THE_PROCESS.get(name)
    if ledger is None:
        ledger = _OF_THE_PROCESS.setdefault(name, MemoryLedger(time.monotonic))
    return ledger
