"""What each user of ours has taken of the limits that all of them have, on Redis: one command for a decision, for all processes.

Rules of this file
------------------
* The script (`lua/keyed.lua`) is `MemoryLedger`'s twin. What follows from settings alone is computed here, so that it only adds and compares.
* A user's name leaves this process only as a keyed hash. The key is made of the namespace: it keeps names out of Redis and apart from other
  namespaces' hashes, but is no secret; who knows it can try out names.
* All users of a namespace are in one hash slot: operations go out in batches, and on a Cluster a batch is of one slot. One core decides some
  hundred thousand a second so, and a slot of its own for each user would make one command of each. It is not the providers' slot: on a
  Cluster users burden another node. Who needs more takes more namespaces.
* Redis is never a new way to fail: while it is away this process decides alone, on its share of the limits.
"""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Callable, Generator, Sequence
from hashlib import blake2b
from typing import Any
from weakref import WeakMethod, WeakSet

from langchain_resilient.engine import quota
from langchain_resilient.engine.effects import Later
from langchain_resilient.engine.errors import require
from langchain_resilient.engine.events import StoreDegraded
from langchain_resilient.engine.policy import SystemClock
from langchain_resilient.engine.quota import FULL, Dimension
from langchain_resilient.engine.store.redis import wire
from langchain_resilient.engine.store.redis.post.courier import DOWN, Courier, Operation
from langchain_resilient.engine.store.tenants import Booking, MemoryLedger

SECOND = 1_000_000
BEAT_EVERY_US = 10 * SECOND
BEAT_LIVES_US = 300 * SECOND
"""How long a process counts after it was last heard of: a web worker without a request for minutes is still there when Redis goes."""
ALONE_SHARE = 800
"""Thousandths of the limits that all processes may use together while none can ask the others."""


class RedisLedger:
    """Users' limits for all processes of a namespace.

    Args:
        url: Of the server, see `dial`.
        namespace: Any text without braces.
        now: Seconds, monotonic: for decisions on its own.
        clock: The script's time, µs; None: the server's.
        shared: Whether others in this process use it too, so that closing it only sends what is under way.
        courier: Who carries the operations.

    Raises:
        SettingsError: For a URL or namespace that can't be meant, and for a server that refuses this user. A server that can't be reached
            raises nothing.
    """

    def __init__(
        self,
        url: str,
        namespace: str,
        *,
        now: Callable[[], float],
        clock: Callable[[], int] | None = None,
        shared: bool = False,
        courier: Callable[..., Courier] = Courier,
    ) -> None:
        require(
            not set("{}") & set(namespace), "namespace", namespace, "leave out { and }: they mark Redis's hash slot"
        )
        self._prefix = f"{{{wire.SCHEMA}:{namespace}:u}}"
        self._secret = blake2b(f"langchain-resilient users of {namespace}".encode()).digest()
        self._seconds = now
        self._shared = shared
        self._processes = 1
        self._beat_at = -BEAT_EVERY_US
        self._alone: dict[tuple[str, ...], MemoryLedger] = {}
        """By the names of dimensions: its books know them by their places."""
        self._hearers: list[WeakMethod[Callable[[StoreDegraded], None]]] = []
        members = f"{self._prefix}:processes"
        self._beats = Operation("beat", (members,), (BEAT_LIVES_US,))
        self._ends = Operation("beat", (members,), (0,))
        probe = Operation("probe", (members, f"{self._prefix}:probe"), (BEAT_LIVES_US,))
        self._courier = courier(
            url, wire.script("quota", "keyed"), clock=clock, probe=probe, adopt=self._adopt, orphaned=self._orphaned,
            changed=self._changed,
        )  # fmt: skip
        try:
            self._courier.check()
        except BaseException:
            self._courier.close()
            raise
        _OPEN.add(self)

    def __repr__(self) -> str:
        return f"RedisLedger({self._courier!r})"

    def listen(self, hear: Callable[[StoreDegraded], None]) -> None:
        """Tell a method, for as long as its object lives, when Redis goes away and comes back."""
        self._hearers = [*(item for item in self._hearers if item() is not None), WeakMethod(hear)]

    # ----------------------------------------------------------------------------------------------------- operations
    def key_of(self, key: str) -> str:
        """The Redis key of "kind:user"."""
        kind, _, user = key.partition(":")
        hashed = blake2b(user.encode("utf-8", "surrogatepass"), key=self._secret, digest_size=12).hexdigest()
        return f"{self._prefix}:{kind}:{hashed}"

    def take(self, key: str, dimensions: Sequence[Dimension], costs: Sequence[int], patience: int) -> Later:
        """Book a place at most `patience` µs from now."""
        steps = []
        words: list[str | int] = [patience, len(dimensions)]
        for dimension, cost in zip(dimensions, costs, strict=True):
            step = quota.increment(dimension, cost)
            steps.append(step)
            words += (dimension.name, step, dimension.room)
        operation = Operation("take", (self.key_of(key),), tuple(words))
        return _Answer(self, self._courier.ask(operation), key, dimensions, costs, patience, tuple(steps))

    def answered(self, answer: _Answer, reply: Any) -> Booking:
        """What a decision came to; without an answer it is made here."""
        if reply is DOWN:
            return self._on_our_own(answer.dimensions).take(
                answer.key, answer.dimensions, answer.costs, answer.patience
            )
        return self._booked(answer.key, reply, answer.steps)

    def _booked(self, key: str, reply: Any, steps: tuple[int, ...]) -> Booking:
        granted, wait, tightest, at, born, *each = map(int, reply)
        before, after, lasts, backs = (tuple(each[part::4]) for part in range(4))
        return Booking(self, key, bool(granted), wait, tightest, at, before, after, steps, born, lasts, backs)

    def hand_back(self, booking: Booking, dimensions: Sequence[Dimension]) -> None:
        """Undo a booking that was not used, in so far as nobody booked behind it counts on it."""
        self._undo(self.key_of(booking.key), [dimension.name for dimension in dimensions], booking)

    def _undo(self, key: str, names: Sequence[str], booking: Booking) -> None:
        words: list[str | int] = [booking.born, len(names)]
        was = (booking.before, booking.after, booking.steps, booking.lasts, booking.backs)
        for each in zip(names, *was, strict=True):
            words += each
        self._courier.tell(Operation("hand_back", (key,), tuple(words)))

    def settle(self, booking: Booking, dimensions: Sequence[Dimension], moves: Sequence[int]) -> None:
        """Move the arrival times by so many µs; back, by as many at most."""
        words: list[str | int] = [booking.born, len(moves)]
        for dimension, *each in zip(dimensions, moves, booking.after, booking.backs, strict=True):
            words += (dimension.name, *each)
        self._courier.tell(Operation("settle", (self.key_of(booking.key),), tuple(words)))

    def close(self) -> None:
        """Send what is under way; where nobody else uses it, hang up."""
        if self._shared:
            self._courier.flush()
        else:
            self.end()

    def end(self) -> None:
        """This process ends, and no longer counts."""
        self._courier.tell(self._ends)
        self._courier.close()

    # ----------------------------------------------------------------------------------------------------- what comes
    def _adopt(self, now: int, processes: int) -> None:
        if processes:
            self._processes, self._beat_at = int(processes), now
        elif abs(now - self._beat_at) >= BEAT_EVERY_US:
            self._beat_at = now
            self._courier.tell(self._beats, urgent=False)

    def _orphaned(self, operation: Operation, reply: Any) -> None:
        """Whoever asked is gone: the place that came is given back."""
        if operation.name != "take" or not int(reply[0]):
            return
        words = operation.words[2:]
        booking = self._booked("", reply, tuple([int(step) for step in words[1::3]]))
        self._undo(operation.keys[0], [str(name) for name in words[::3]], booking)

    # ----------------------------------------------------------------------------------------------------- on our own
    def _on_our_own(self, dimensions: Sequence[Dimension]) -> MemoryLedger:
        """Who decides meanwhile: nobody knows what the other processes let in, so each has its part, and starts with one request."""
        alone, names = self._alone, tuple([dimension.name for dimension in dimensions])
        if (ledger := alone.get(names)) is None:
            scale = max(1, min(FULL, ALONE_SHARE // max(1, self._processes)))
            ledger = alone.setdefault(names, MemoryLedger(self._seconds, scale, unknowing=True))
        return ledger

    def _changed(self, up: bool, reason: str) -> None:  # a callback's only words
        if up:
            self._alone = {}
        for item in self._hearers:
            if (hear := item()) is not None:
                hear(StoreDegraded(not up, reason))


class _Answer(Later):
    """A decision that Redis makes."""

    __slots__ = ("_later", "_ledger", "costs", "dimensions", "key", "patience", "steps")

    def __init__(
        self,
        ledger: RedisLedger,
        later: Later,
        key: str,
        dimensions: Sequence[Dimension],
        costs: Sequence[int],
        patience: int,
        steps: tuple[int, ...],
    ) -> None:
        self._ledger, self._later = ledger, later
        self.key, self.dimensions, self.costs, self.patience, self.steps = key, dimensions, costs, patience, steps

    def result(self) -> Booking:
        """Wait for it in this thread."""
        return self._ledger.answered(self, self._later.result())

    def __await__(self) -> Generator[Any, None, Booking]:
        """Wait for it in this task."""
        return self._ledger.answered(self, (yield from self._later.__await__()))


_OPEN: WeakSet[RedisLedger] = WeakSet()
_OF_THE_PROCESS: dict[tuple[str, str], RedisLedger] = {}
_LOCK = threading.Lock()


def _at_exit() -> None:
    for ledger in list(_OPEN):
        ledger.end()


def _after_fork() -> None:
    global _LOCK  # noqa: PLW0603  # a thread of the parent may have held it
    _LOCK = threading.Lock()


atexit.register(_at_exit)
os.register_at_fork(after_in_child=_after_fork)


def redis_ledger(url: str, namespace: str) -> RedisLedger:
    """The one ledger of this process for a server and a namespace: limiters of all kinds of users share its connection."""
    with _LOCK:
        ledger = _OF_THE_PROCESS.get((url, namespace))
        if ledger is None:
            ledger = RedisLedger(url, namespace, now=SystemClock.now, shared=True)
            _OF_THE_PROCESS[(url, namespace)] = ledger
    return ledger
