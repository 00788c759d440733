"""What each user of ours has taken of the limits that all of them have, on Redis: one command for a decision, for all processes.

Rules of this file
------------------
* The script (`lua/keyed.lua`) is `MemoryLedger`'s twin. What follows from settings alone is computed here, so that it only adds and compares.
* A user's name leaves this process only as a keyed hash. The key is made of the namespace: it keeps names out of Redis and apart from other
  namespaces' hashes, but is no secret; who knows it can try out names.
* All users of a namespace are in one hash slot: operations go out in batches, and on a Cluster a batch is of one slot. One core decides some
  hundred thousand a second so, and a slot of its own for each user would make one command of each. It is not the providers' slot: on a
  Cluster users burden another node. Who needs more takes more namespaces.
* Redis is never a new way to fail: while it is away this process decides alone, on its share of the limits. Observers are told so aside.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from hashlib import blake2b
from typing import Any

from langchain_resilient.engine import quota
from langchain_resilient.engine.effects import Later
from langchain_resilient.engine.events import Event
from langchain_resilient.engine.quota import Dimension
from langchain_resilient.engine.store.forks import tell_of_forks
from langchain_resilient.engine.store.redis import wire
from langchain_resilient.engine.store.redis.fleet import BEAT_LIVES_US, share_alone
from langchain_resilient.engine.store.redis.hearers import Hearers
from langchain_resilient.engine.store.redis.post.courier import DOWN, Courier, Operation
from langchain_resilient.engine.store.tenants import Booking, MemoryLedger

SECOND = 1_000_000
BEAT_EVERY_US = 10 * SECOND


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
        self._prefix = wire.slot(namespace, ":u")
        self._secret = blake2b(f"langchain-resilient users of {namespace}".encode()).digest()
        self._seconds = now
        self._shared = shared
        self._processes = 1
        self._beat_at = -BEAT_EVERY_US
        self._alone: dict[tuple[str, ...], MemoryLedger] = {}
        """By the names of dimensions: its books know them by their places."""
        members = f"{self._prefix}:processes"
        self._beats = Operation("beat", (members,), (BEAT_LIVES_US,))
        self._ends = Operation("beat", (members,), (0,))
        probe = Operation("probe", (members, f"{self._prefix}:probe"), (BEAT_LIVES_US,))
        self._courier = courier(
            url, wire.script("quota", "keyed"), clock=clock, probe=probe, adopt=self._adopt, orphaned=self._orphaned,
            changed=self._changed,
        )  # fmt: skip
        self._hearers = Hearers(self._courier.aside, f"{self._courier.shown} {self._prefix}")
        try:
            self._courier.check()
        except BaseException:
            self._courier.close()
            raise
        tell_of_forks(self)

    def __repr__(self) -> str:
        return f"RedisLedger({self._courier!r})"

    def listen(self, observe: Callable[[Event], object]) -> None:
        """Tell an observer, for as long as it lives, when Redis goes away and comes back; at once, if it is away now."""
        self._hearers.add(observe, ())

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
        alone = partial(self._take_alone, key, dimensions, costs, patience)
        return self._courier.ask(operation).then(partial(self._answered, alone, key, tuple(steps)))

    def _answered(self, alone: Callable[[], Booking], key: str, steps: tuple[int, ...], reply: Any) -> Booking:
        """What a decision came to; without an answer it is made here."""
        return alone() if reply is DOWN else self._booked(key, reply, steps)

    def _take_alone(self, key: str, dimensions: Sequence[Dimension], costs: Sequence[int], patience: int) -> Booking:
        return self._on_our_own(dimensions).take(key, dimensions, costs, patience)

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
        if self._courier.up:  # a reply may come when it was given up already
            self._hearers.alone(None)  # after a fork, a child's own
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
            ledger = MemoryLedger(self._seconds, share_alone(self._processes), unknowing=True)
            ledger = alone.setdefault(names, ledger)
        return ledger

    def _changed(self, up: bool, reason: str) -> None:  # a callback's only words
        if up:
            self._alone = {}
        self._hearers.alone(None if up else reason)

    def forked(self) -> None:
        """In a new child process: whoever was telling is the parent's."""
        self._hearers.forked()
