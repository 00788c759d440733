"""Carries operations to Redis in batches, on one connection for all threads, event loops and background work of this process.

Rules of this file
------------------
* What is asked and told goes in one order (`mailbag`). Whoever holds the wire takes up to 256 operations of it, sends ONE EVALSHA and gives the
  replies out (`carriage`; this is called flat combining): a thread that asks carries for itself and all others if the wire is free, so one at a
  time costs no thread switch. A task never carries, nor does anybody connect: the courier's own thread does (`porter`). It also carries what
  was told.
* An asker waits for at most the budget. An operation is sent once; again only if the script was not there. What nobody waits for any more is
  not sent, or its reply is given back through `orphaned`.
* While Redis is known to be away (`breaker`), everybody is answered DOWN at once.
* Asking and telling takes no lock and starts no `threading.Thread`: the garbage collector may run a finalizer that tells at any allocation,
  in a thread that is in the middle of anything.
* A Ctrl-C may hit between a lock and what is done with it. A wire that isn't given back is replaced by another.
"""

from __future__ import annotations

import _thread
import asyncio
import atexit
import os
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

from langchain_resilient.engine.store.forks import tell_of_forks
from langchain_resilient.engine.store.redis.post.breaker import Breaker
from langchain_resilient.engine.store.redis.post.callbacks import Callbacks
from langchain_resilient.engine.store.redis.post.carriage import Carriage
from langchain_resilient.engine.store.redis.post.dial import Denied, Dial
from langchain_resilient.engine.store.redis.post.letters import DOWN, UNSET, Desk, Letter, Sleepers
from langchain_resilient.engine.store.redis.post.mailbag import Mailbag
from langchain_resilient.engine.store.redis.post.porter import Porter
from langchain_resilient.engine.store.redis.post.subscription import Subscription
from langchain_resilient.engine.store.redis.post.troubles import Trouble
from langchain_resilient.engine.store.redis.wire import Operation

__all__ = ["DOWN", "Courier", "Denied", "Operation"]

FRESH = 0.8
"""The part of its budget that an asker must have left to carry: it would wait for longer than it has otherwise."""


def _nothing(*_: object) -> None:
    pass


class Courier:
    """What carries this process's operations to one Redis.

    Args:
        url: Where it is, see `dial`.
        script: Its Lua, which every batch calls: `KEYS` are the batch's distinct keys; `ARGV` are the clock in µs or "", this process's id,
            and for each operation its name, the number of its keys, their places in `KEYS` (from 1), the number of its words, its words. It
            answers a list: the time in µs, an epoch, and each operation's reply.
        channel: Where others publish; None: nothing is heard.
        budget: Seconds for which an asker waits at most; default 0.25.
        clock: The script's time, in µs; None: it takes the server's.
        probe: An operation that shows whether the script can do its work; run on every new connection.
        adopt: Told time and epoch of every batch, before its replies are given out.
        heard: Told what is published, `b"gone"` when nothing more will be heard for a while, and `b"lost"` when some may have been missed.
        orphaned: Told an operation and its reply where nobody waits for it any more.
        changed: Told once for each change of `up`: what it is, and why.
        connected: Told of every new wire, after `changed`: what was being told when the last one broke may not have come.

    The five are called in whichever thread carries; they may tell and ask, but wait for nothing. What they raise is logged.

    Raises:
        SettingsError: The URL makes no sense, or redis-py is not installed.
    """

    def __init__(
        self,
        url: str,
        script: str,
        *,
        channel: str | None = None,
        budget: float = 0.25,
        clock: Callable[[], int] | None = None,
        probe: Operation | None = None,
        adopt: Callable[[int, int], object] = _nothing,
        heard: Callable[[bytes], object] = _nothing,
        orphaned: Callable[[Operation, Any], object] = _nothing,
        changed: Callable[[bool, str], object] = _nothing,
        connected: Callable[[], object] = _nothing,
    ) -> None:
        self.budget = budget
        self._dial = Dial(url, budget)
        self._script = script
        self._channel, self._heard = channel, heard
        self._clock = clock
        self._probe = probe
        self._callbacks = Callbacks(self._dial.shown, adopt, orphaned, changed, connected)
        self._closed = False
        self._anew()
        _COURIERS.add(self)
        tell_of_forks(self)

    def _anew(self) -> None:
        """As nothing had ever been asked: at first, and in a child process."""
        self.process = os.urandom(8).hex()
        """This process's id."""
        self._bag = Mailbag()
        self.open = self._bag.open
        """What was asked, and somebody waits for."""
        self.ring = self._bag.ring
        """Wakes the courier's thread."""
        self._breaker = Breaker(self._dial.denial)
        self._carriage = Carriage(self._bag, self._breaker, self._callbacks, self.process, self._clock)
        ears = None if self._channel is None else Subscription(self._dial, self._channel, self._heard)
        self._porter = Porter(self._carriage, self._dial, self._script, self._probe, ears)
        self._desks = threading.local()

    def __repr__(self) -> str:
        return f"Courier({self.shown!r})"

    @property
    def shown(self) -> str:
        """Where it is, without users and passwords."""
        return self._dial.shown

    @property
    def up(self) -> bool:
        """Whether Redis is thought to answer."""
        return self._breaker.up

    @property
    def dropped(self) -> int:
        """What was told, and never sent: too much of it at once, or Redis was away."""
        return self._bag.dropped

    # -------------------------------------------------------------------------------------------------------------- asking
    def ask(self, operation: Operation) -> Letter:
        """Have it done. Its result is the script's reply, or DOWN where none came within the budget."""
        if not self._breaker.up or self._closed:
            letter = Letter(self, operation, 0)
            letter.reply = DOWN
            return letter
        letter = self._bag.ask(self, operation)
        if self._porter.unstarted:
            self._porter.start(self)
        return letter

    def tell(self, operation: Operation, *, urgent: bool = True, then: Callable[[Any], object] | None = None) -> None:
        """Have it done, and nobody waits: at once, or (not `urgent`) with what comes next, 0.1 s later at the latest.

        `then` is told the reply if one comes, in whichever thread carries.
        """
        if not self._breaker.up or self._closed:
            self._bag.dropped += 1
            return
        self._bag.tell(operation, then, urgent=urgent)
        if self._porter.unstarted:
            self._porter.start(self)

    @staticmethod
    def aside(step: Callable[[], object]) -> None:
        """Do a step in a thread of its own: nothing that may be slow is done by who carries."""
        _thread.start_new_thread(step, ())

    def check(self) -> None:
        """Connect, for at most the budget. Raises `Denied` if the server refuses this user; nothing if there is none."""
        self._porter.start(self)
        self.ring()
        self._porter.tried.wait(self.budget)
        denied = self._breaker.denied
        if denied is not None:
            raise denied

    def flush(self, timeout: float = 0.5) -> bool:
        """Send what was told, and wait until what is under way has come back, for at most so many seconds. Returns whether nothing is left."""
        bag, carriage = self._bag, self._carriage
        until = time.monotonic() + timeout
        while self.up and not self._closed and (left := until - time.monotonic()) > 0:
            wire = carriage.wire
            if wire is None or not (wire.for_callers or bag.empty):
                if bag.empty:
                    break
                bag.urgent = True
                bag.ring()
                time.sleep(min(left, 0.005))
            elif wire.free.acquire(timeout=left):
                # Nothing is under way now.
                try:
                    if wire.for_callers:
                        carriage.turn(wire, time.monotonic())
                finally:
                    wire.free.release()
                carriage.pass_on()
                if bag.empty:
                    return True
        wire = carriage.wire
        return bag.nothing_told and not (wire is not None and wire.free.locked())

    def close(self) -> None:
        """Flush for at most 0.5 s, end the threads, hang up. Afterwards everything asked is DOWN."""
        if self._closed:
            return
        if not self._porter.unstarted:
            self.flush()
        self._closed = True
        self._porter.stop()
        wire, self._carriage.wire = self._carriage.wire, None
        if wire is not None:
            wire.close()
        self._carriage.dismiss()

    # ------------------------------------------------------------------------------------------------------------- waiting
    def accompany(self, letter: Letter) -> Any:
        """Wait for a reply in this thread, and carry it if nobody does."""
        carriage, breaker = self._carriage, self._breaker
        try:
            while letter.reply is UNSET:
                now = time.monotonic()
                left = letter.asked_at + self.budget - now
                if left <= 0 or not breaker.up or self._closed:
                    break
                wire = carriage.wire
                if wire is None or not wire.for_callers or left < FRESH * self.budget:
                    self.ring()
                elif wire.free.acquire(blocking=False):
                    try:
                        # A caller's own limit is the socket's own, but for an instant: telling the socket would take longer.
                        carriage.turn(wire, now, None if left > self.budget - 0.005 else left)
                    finally:
                        wire.free.release()
                    carriage.pass_on()
                    continue
                else:
                    carriage.sleepers.add(letter)
                if not Sleepers.sleep(letter, left):
                    break
        except BaseException:
            self.give_up(letter)
            carriage.pass_on()
            raise
        if letter.reply is UNSET and self.open.pop(letter, letter) is None:
            # It may be this thread that was chosen to carry.
            carriage.pass_on()
            self.late()
            return DOWN
        return letter.reply

    def late(self) -> None:
        """Somebody waited in vain. Where there is no wire, connecting hangs (a name server, a firewall), and nobody else need wait for that."""
        if self._carriage.wire is None and self._breaker.up and not self._closed:
            self._carriage.fail(Trouble("timeout", f"no connection within {self.budget} s"))

    def give_up(self, letter: Letter) -> None:
        """Nobody waits for it any more."""
        if self.open.pop(letter, letter) is not None and letter.reply is not UNSET and letter.reply is not DOWN:
            self.orphan(letter.operation, letter.reply)

    def orphan(self, operation: Operation, reply: Any) -> None:
        """A reply came that nobody waits for."""
        self._callbacks.tell(self._callbacks.orphaned, operation, reply)

    def desk(self) -> Desk:
        """Where the letters of the running loop are given out."""
        loop = asyncio.get_running_loop()
        desk: Desk | None = getattr(self._desks, "desk", None)
        if desk is None or desk.loop is not loop:
            desk = self._desks.desk = Desk(loop, self)
        return desk

    # ---------------------------------------------------------------------------------------------- forks, and the very end
    def forked(self) -> None:
        """In a new child process: nobody carries, and whoever waited is the parent's."""
        waiting, wire, porter = list(self.open), self._carriage.wire, self._porter
        self._anew()
        for letter in waiting:
            letter.reply = DOWN
        # Closes this process's copies of the sockets; redis-py ends no connection that another process made.
        if wire is not None:
            wire.close()
        porter.leave()


_COURIERS: weakref.WeakSet[Courier] = weakref.WeakSet()


def _at_exit() -> None:
    for courier in list(_COURIERS):
        courier.close()


atexit.register(_at_exit)
