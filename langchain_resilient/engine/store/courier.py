"""Carries operations to Redis in batches, on one connection for all threads, event loops and background work of this process.

Rules of this file
------------------
* What is asked and told goes in one order. Whoever holds the wire takes up to 256 operations of it, sends ONE EVALSHA and gives the replies
  out (flat combining): a thread that asks carries for itself and all others if the wire is free, so one at a time costs no thread switch. A
  task never carries, nor does anybody connect: the courier's own thread does. It also carries what was told.
* An asker waits for at most the budget. An operation is sent once; a second time only if the script was not there. What nobody waits for
  any more is not sent, or its reply is given back through `orphaned`.
* The first timeout, or three connection errors in a row, opens the breaker: `up` is False, everybody is answered DOWN at once, and the
  thread probes after jittered pauses of 0.25 … 5 s.
* Asking and telling takes no lock and starts no `threading.Thread`: the garbage collector may run a finalizer that tells at any allocation,
  in a thread that is in the middle of anything.
* A Ctrl-C may hit between a lock and what is done with it. A wire that isn't given back is replaced by another.
"""

from __future__ import annotations

import _thread
import asyncio
import atexit
import itertools
import logging
import os
import random
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from langchain_resilient.engine.store.dial import Denied, Dial, Trouble
from langchain_resilient.engine.store.letters import DOWN, UNSET, Desk, Letter
from langchain_resilient.engine.store.line import Wire
from langchain_resilient.engine.store.subscription import Subscription, subscribed
from langchain_resilient.engine.store.wire import Operation

__all__ = ["DOWN", "Courier", "Denied", "Operation"]

LOGGER = logging.getLogger("langchain_resilient")

BATCH = 256
"""Operations in one EVALSHA: the server does nothing else meanwhile, about 0.15 ms."""
MOST_TOLD = 10_000
LINGER = 0.1
"""Seconds that what is not urgent may wait for company."""
PAUSES = (0.25, 5.0)
"""Seconds between probes: the first pause, and the longest."""
ERRORS = 3
"""Connection errors in a row that open the breaker."""
AGAIN = 0.01
"""Seconds between them."""
STUCK = 2.0
"""Seconds after which a wire that is held, and says nothing, is replaced: far more than an exchange can take."""
FRESH = 0.8
"""The part of its budget that an asker must have left to carry: it would wait for longer than it has otherwise."""


Then = Callable[[Any], object] | None
"""Who is told the reply to what was told."""


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

    The four are called in whichever thread carries; they may tell and ask, but wait for nothing. What they raise is logged.

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
    ) -> None:
        self.budget = budget
        self._dial = Dial(url, budget)
        self._script = script
        self._channel = channel
        self._clock = clock
        self._probe = probe
        self._adopt, self._heard, self._orphaned, self._changed = adopt, heard, orphaned, changed
        self._complained: set[str] = set()
        self._anew()
        _COURIERS.add(self)

    def _anew(self) -> None:
        """As nothing had ever been asked: at first, and in a child process."""
        self.process = os.urandom(8).hex()
        """This process's id."""
        self.up = True
        """Whether Redis is thought to answer."""
        self.dropped = 0
        """What was told, and never sent: too much of it at once, or Redis was away."""
        self.open: dict[Letter, None] = {}
        self._asked: deque[Letter] = deque()
        self._told: deque[tuple[int, Operation, Then]] = deque()
        self._places = itertools.count()
        self._sleepers: deque[Letter] = deque()
        """Letters whose threads wait and could carry; answered ones are taken out when they are met."""
        self._urgent = self._lingering = False
        self._due = 0.0
        self._wire: Wire | None = None
        self._desks = threading.local()
        self._bell = threading.Lock()
        self._bell.acquire()
        self._rung = False
        self._unstarted = [True]
        self._subscription: Subscription | None = None
        self._closed = False
        self._ended, self._tried = threading.Event(), threading.Event()
        self._turning = threading.Lock()
        self._failures = 0
        self._pause = PAUSES[0]
        self._again_at = 0.0
        self._denied: Denied | None = None
        self._seen: tuple[Wire | None, int, float] = (None, 0, 0.0)

    def __repr__(self) -> str:
        return f"Courier({self._dial.shown!r})"

    # -------------------------------------------------------------------------------------------------------------- asking
    def ask(self, operation: Operation) -> Letter:
        """Have it done. Its result is the script's reply, or DOWN where none came within the budget."""
        letter = Letter(self, operation, next(self._places))
        if not self.up or self._closed:
            letter.reply = DOWN
            return letter
        self.open[letter] = None
        self._asked.append(letter)
        if self._unstarted:
            self._start()
        return letter

    def tell(self, operation: Operation, *, urgent: bool = True, then: Callable[[Any], object] | None = None) -> None:
        """Have it done, and nobody waits: at once, or (not `urgent`) with what comes next, 0.1 s later at the latest.

        `then` is told the reply if one comes, in whichever thread carries.
        """
        if not self.up or self._closed:
            self.dropped += 1
            return
        told = self._told
        told.append((next(self._places), operation, then))
        if len(told) > MOST_TOLD:
            with suppress(IndexError):  # it may just have been carried
                told.popleft()
                self.dropped += 1
        if self._unstarted:
            self._start()
        if urgent:
            self._urgent = True
            self.ring()
        elif not self._lingering:
            self._due = time.monotonic() + LINGER
            self._lingering = True
            self.ring()

    @staticmethod
    def aside(step: Callable[[], object]) -> None:
        """Do a step in a thread of its own: nothing that may be slow is done by who carries."""
        _thread.start_new_thread(step, ())

    def check(self) -> None:
        """Connect, for at most the budget. Raises `Denied` if the server refuses this user; nothing if there is none."""
        if self._unstarted:
            self._start()
        self.ring()
        self._tried.wait(self.budget)
        if self._denied is not None:
            raise self._denied

    def flush(self, timeout: float = 0.5) -> bool:
        """Send what was told, for at most so many seconds. Returns whether nothing is left."""
        until = time.monotonic() + timeout
        while self.up and not self._closed and (left := until - time.monotonic()) > 0:
            wire = self._wire
            if wire is None or not wire.for_callers:
                if not self._told and not self._asked:
                    break
                self._urgent = True
                self.ring()
                time.sleep(min(left, 0.005))
            elif wire.free.acquire(timeout=left):
                try:
                    self._turn(wire, time.monotonic())
                finally:
                    wire.free.release()
                if not self._told and not self._asked:
                    break
        return not self._told

    def close(self) -> None:
        """Flush for at most 0.5 s, end the threads, hang up. Afterwards everything asked is DOWN."""
        if self._closed:
            return
        started = not self._unstarted
        if started:
            self.flush()
        self._closed = True
        self.ring()
        if self._subscription is not None:
            self._subscription.stop()
        if started and _thread.get_ident() != getattr(self, "_ident", 0):
            self._ended.wait(0.5)
        wire, self._wire = self._wire, None
        if wire is not None:
            wire.close()
        self._dismiss()

    # ------------------------------------------------------------------------------------------------------------- waiting
    def accompany(self, letter: Letter) -> Any:
        """Wait for a reply in this thread, and carry it if nobody does."""
        try:
            while letter.reply is UNSET:
                now = time.monotonic()
                left = letter.asked_at + self.budget - now
                if left <= 0 or not self.up or self._closed:
                    break
                wire = self._wire
                if wire is None or not wire.for_callers or left < FRESH * self.budget:
                    self.ring()
                elif wire.free.acquire(blocking=False):
                    try:
                        # A caller's own limit is the socket's own, but for an instant: telling the socket would take longer.
                        self._turn(wire, now, None if left > self.budget - 0.005 else left)
                    finally:
                        wire.free.release()
                    self._pass_on()
                    continue
                else:
                    self._sleepers.append(letter)
                if not self._woken(letter, left):
                    break
        except BaseException:
            self.give_up(letter)
            self._pass_on()
            raise
        if letter.reply is UNSET and self.open.pop(letter, letter) is None:
            # It may be this thread that was chosen to carry.
            self._pass_on()
            return DOWN
        return letter.reply

    @staticmethod
    def _woken(letter: Letter, left: float) -> bool:
        alarm = letter.alarm
        if alarm is None:
            alarm = threading.Lock()
            alarm.acquire()
            letter.alarm = alarm
            # In this order: a carrier sets the reply and looks for an alarm then.
            if letter.reply is not UNSET:
                return True
        return alarm.acquire(timeout=left)

    def give_up(self, letter: Letter) -> None:
        """Nobody waits for it any more."""
        if self.open.pop(letter, letter) is not None and letter.reply is not UNSET and letter.reply is not DOWN:
            self.orphan(letter.operation, letter.reply)

    def orphan(self, operation: Operation, reply: Any) -> None:
        """A reply came that nobody waits for."""
        self._safely(self._orphaned, operation, reply)

    def desk(self) -> Desk:
        """Where the letters of the running loop are given out."""
        loop = asyncio.get_running_loop()
        desk: Desk | None = getattr(self._desks, "desk", None)
        if desk is None or desk.loop is not loop:
            desk = self._desks.desk = Desk(loop, self)
        return desk

    def ring(self) -> None:
        """Wake the courier's thread."""
        if not self._rung:
            self._rung = True
            with suppress(RuntimeError):  # somebody else rang
                self._bell.release()

    def _pass_on(self) -> None:
        """See to it that somebody carries what has come meanwhile."""
        if not self._asked and not self._urgent:
            return
        sleepers = self._sleepers
        while sleepers:
            try:
                letter = sleepers.popleft()
            except IndexError:
                break
            if letter in self.open and letter.alarm is not None:
                with suppress(RuntimeError):  # it is awake
                    letter.alarm.release()
                return
        self.ring()

    # ------------------------------------------------------------------------------------------------------------ carrying
    def _drained(self) -> tuple[list[Operation], list[Letter | Then]]:
        """The next batch, in the order in which it was asked and told."""
        self._urgent = False
        asked, told, opened = self._asked, self._told, self.open
        operations: list[Operation] = []
        letters: list[Letter | Then] = []
        while len(operations) < BATCH:
            if asked and (not told or asked[0].place < told[0][0]):
                letter = asked.popleft()
                if letter in opened:
                    operations.append(letter.operation)
                    letters.append(letter)
            elif told:
                _, operation, then = told.popleft()
                operations.append(operation)
                letters.append(then)
            else:
                break
        if told:
            self._urgent = True
        return operations, letters

    def _turn(self, wire: Wire, now: float, limit: float | None = None) -> None:
        """Carry one batch; `wire.free` is held."""
        if wire is not self._wire:
            return
        if wire.stale(now):
            self._lose(wire, Trouble("lost", "the server closed the connection"), counts=False)
            return
        head = self._head()
        operations, letters = self._drained()
        if not operations:
            return
        try:
            for part in wire.parts(operations):
                if part is None:
                    self._run(wire, head, operations, letters, limit)
                else:
                    self._run(
                        wire, head, [operations[place] for place in part], [letters[place] for place in part], limit
                    )
        except Trouble as why:
            self._lose(wire, why)
            self._answer_down(letters)
        except Exception:
            LOGGER.exception("%r made a mistake", self)
            self._lose(wire, Trouble("lost", "a mistake of the courier's, see the log"))
            self._answer_down(letters)
        except BaseException:
            # Ctrl-C: the reply is still to come, so this connection can't be used again.
            self._lose(wire, Trouble("lost", "the exchange was interrupted"), counts=False)
            self._answer_down(letters)
            raise

    def _head(self) -> tuple[str, str]:
        return ("" if self._clock is None else str(self._clock()), self.process)

    def _run(
        self,
        wire: Wire,
        head: Sequence[str],
        operations: list[Operation],
        letters: list[Letter | Then],
        limit: float | None,
    ) -> None:
        now, epoch, replies = wire.run(operations, head, limit)
        self._failures, self._pause = 0, PAUSES[0]
        self._safely(self._adopt, now, epoch)
        self._answer(letters, replies)

    def _answer(self, letters: Sequence[Letter | Then], replies: Sequence[Any]) -> None:
        desks: set[Desk] = set()
        told: list[tuple[Callable[..., object], tuple[Any, ...]]] = []
        for letter, reply in zip(letters, map(self._sound, replies), strict=True):
            if isinstance(letter, Letter):
                # First the reply, then out of `open`: whoever finds the letter gone finds the reply.
                letter.reply = reply
                if self.open.pop(letter, letter) is None:
                    self._wake(letter, desks)
                elif reply is not DOWN:
                    told.append((self._orphaned, (letter.operation, reply)))
            elif letter is not None and reply is not DOWN:
                told.append((letter, (reply,)))
        for desk in desks:
            desk.call()
        for function, arguments in told:
            self._safely(function, *arguments)

    def _sound(self, reply: Any) -> Any:
        """A reply, or DOWN where the script put an error in its place."""
        if isinstance(reply, Trouble):
            self._complain(reply)
            return DOWN
        return reply

    @staticmethod
    def _wake(letter: Letter, desks: set[Desk]) -> None:
        if (desk := letter.table) is not None:
            desk.ready.append(letter)
            desks.add(desk)
        elif (alarm := letter.alarm) is not None:
            with suppress(RuntimeError):  # it was woken to carry
                alarm.release()

    def _answer_down(self, letters: Sequence[Letter | Then]) -> None:
        # Open, with a reply: a Ctrl-C came in between.
        left = [
            letter
            for letter in letters
            if isinstance(letter, Letter) and (letter.reply is UNSET or letter in self.open)
        ]
        self._answer(left, [DOWN if letter.reply is UNSET else letter.reply for letter in left])

    def _dismiss(self) -> None:
        """Answer all who wait, and drop what was told."""
        self.dropped += len(self._told)
        self._told.clear()
        letters = list(self.open)
        self._asked.clear()
        self._answer_down(letters)

    # --------------------------------------------------------------------------------------------------------- the breaker
    def _lose(self, wire: Wire, why: Trouble, *, counts: bool = True) -> None:
        """An exchange failed."""
        if why.kind == "script":
            self._complain(why)
            return
        wire.close()
        if wire is self._wire:
            self._wire = None
            self._fail(why, counts=counts)

    def _fail(self, why: Trouble, *, counts: bool = True) -> None:
        self._failures += counts
        self._denied = self._dial.denial(why) if why.kind == "denied" else None
        if why.kind == "lost" and self._failures < ERRORS:
            self._again_at = time.monotonic() + AGAIN * self._failures
            self.ring()
            return
        with self._turning:
            was, self.up = self.up, False
            self._again_at = time.monotonic() + self._pause * random.uniform(0.75, 1.25)
            self._pause = min(2 * self._pause, PAUSES[1])
        if was:
            reason = why.text if self._denied is None else str(self._denied)
            if self._denied is not None and self._tried.is_set():
                LOGGER.warning("%s", reason)
            self._dismiss()
            self._safely(self._changed, False, reason)  # noqa: FBT003  # the callback's own signature
        self.ring()

    def _complain(self, why: Trouble) -> None:
        """A script's error, once each."""
        text = why.text[:200]
        if text not in self._complained and len(self._complained) < 100:
            self._complained.add(text)
            LOGGER.warning("%s: the script failed: %s", self._dial.shown, text)

    def _safely(self, function: Callable[..., object], *arguments: object) -> None:
        try:
            function(*arguments)
        except Exception:
            LOGGER.exception("%r could not be told something", self)

    # ---------------------------------------------------------------------------------------------------------- the thread
    def _start(self) -> None:
        try:
            self._unstarted.pop()
        except IndexError:  # somebody else does
            return
        _thread.start_new_thread(self._work, ())

    def _work(self) -> None:
        threading.current_thread().name = "lr-courier"
        self._ident = _thread.get_ident()
        while not self._closed:
            rest: float | None = 0.1
            try:
                rest = self._attend()
            except Exception:
                LOGGER.exception("%r stumbled, and goes on", self)
            self._bell.acquire(timeout=-1 if rest is None else rest)
            self._rung = False
        self._ended.set()

    def _attend(self) -> float | None:
        """Do what is due; returns the seconds until there is more to do, None: until somebody rings."""
        now = time.monotonic()
        wire = self._wire
        if wire is None:
            if now < self._again_at:
                return self._again_at - now
            self._connect()
            return 0
        while True:
            now = time.monotonic()
            if self._lingering and now >= self._due:
                self._lingering = False
                self._urgent = self._urgent or bool(self._told)
            if not self._asked and not self._urgent:
                return self._due - now if self._lingering else None
            if not wire.free.acquire(blocking=False):
                return self._watch(wire, now)
            try:
                self._turn(wire, now)
            finally:
                wire.free.release()
            if wire is not self._wire:
                return 0
            self._tidy()

    def _tidy(self) -> None:
        """Forget sleepers who wait no more, where this thread carries all the time."""
        sleepers = self._sleepers
        with suppress(IndexError):
            while sleepers[0] not in self.open:
                sleepers.popleft()

    def _watch(self, wire: Wire, now: float) -> float:
        """Somebody else carries, and will ring; unless it lost the wire."""
        seen, turns, since = self._seen
        if seen is not wire or turns != wire.turns:
            self._seen = (wire, wire.turns, now)
        elif now - since >= STUCK:
            self._lose(wire, Trouble("lost", "the connection was not given back"), counts=False)
            return 0
        return STUCK

    def _connect(self) -> None:
        wire = Wire(self._dial, self._script)
        try:
            wire.open()
            if self._probe is not None:
                now, epoch, _ = wire.run([self._probe], self._head())
                self._safely(self._adopt, now, epoch)
            if self._channel is not None and self._subscription is None:
                subscribed(self._dial, self._channel).disconnect()
        except Trouble as why:
            wire.close()
            self._fail(Trouble("outage", why.text) if why.kind in {"script", "noscript"} else why)
            self._tried.set()
            return
        self._listen()
        self._wire = wire
        self._denied = None
        with self._turning:
            was, self.up = self.up, True
        if not was:
            self._safely(self._changed, True, "")  # noqa: FBT003  # the callback's own signature
        self._tried.set()

    def _listen(self) -> None:
        if self._channel is not None and self._subscription is None:
            self._subscription = Subscription(self._dial, self._channel, self._heard)
            self._subscription.start()

    # ---------------------------------------------------------------------------------------------- forks, and the very end
    def forked(self) -> None:
        """In a new child process: nobody carries, and whoever waited is the parent's."""
        waiting, wire, subscription, closed = list(self.open), self._wire, self._subscription, self._closed
        self._anew()
        self._closed = closed
        for letter in waiting:
            letter.reply = DOWN
        # Closes this process's copies of the sockets; redis-py ends no connection that another process made.
        if wire is not None:
            wire.close()
        if subscription is not None:
            subscription.leave()


_COURIERS: weakref.WeakSet[Courier] = weakref.WeakSet()


def _after_fork() -> None:
    for courier in list(_COURIERS):
        courier.forked()


def _at_exit() -> None:
    for courier in list(_COURIERS):
        courier.close()


os.register_at_fork(after_in_child=_after_fork)
atexit.register(_at_exit)
