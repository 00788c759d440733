"""One asked operation on its way, and who waits for it: a thread, or a task of some event loop.

Rules of this file
------------------
* Nothing here takes a lock that a finalizer could need: a letter belongs to whoever takes it out of `open`, and taking it out is one atomic
  step of a dict. The carrier sets the reply first and takes it out then; so whoever finds it gone finds the reply.
* A loop is woken once for a batch, and has one timer for all that wait on it, not one each.
* Of the threads that wait while another carries, one is woken to carry next, not all.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Generator, Mapping
from contextlib import suppress
from typing import Any, Protocol

from langchain_resilient.engine.effects import Later
from langchain_resilient.engine.store.redis.wire import Operation


class Sentinel:
    """A reply that no script can make."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __repr__(self) -> str:
        return self._name

    def __reduce__(self) -> str:
        return self._name


DOWN = Sentinel("DOWN")
"""The reply where Redis did not answer within the budget, or is known to be away."""
UNSET = Sentinel("UNSET")


class Carrier(Protocol):
    """What a letter needs of the courier that took it."""

    open: dict[Letter, None]
    budget: float

    @property
    def up(self) -> bool:
        """Whether Redis is thought to answer."""

    def accompany(self, letter: Letter) -> Any:
        """Wait for the reply in this thread, and carry it if nobody does."""

    def ring(self) -> None:
        """Have it carried by the courier's thread."""

    def give_up(self, letter: Letter) -> None:
        """Nobody waits for it any more."""

    def orphan(self, operation: Operation, reply: Any) -> None:
        """A reply came that nobody waits for."""

    def late(self) -> None:
        """Somebody waited for all of the budget in vain."""

    def desk(self) -> Desk:
        """Where the letters of the running loop are given out."""


class Letter(Later):
    """An operation on its way; to be waited for once."""

    __slots__ = ("alarm", "asked_at", "carrier", "future", "operation", "place", "reply", "table")

    def __init__(self, carrier: Carrier, operation: Operation, place: int) -> None:
        self.carrier = carrier
        self.operation = operation
        self.place = place
        """Its place among all that was asked and told."""
        self.asked_at = time.monotonic()
        self.reply: Any = UNSET
        self.alarm: threading.Lock | None = None
        """Of a thread that waits: locked, and released when there is something to do for it."""
        self.table: Desk | None = None
        """Of a task that waits: its loop's desk."""
        self.future: asyncio.Future[Any] | None = None

    def result(self) -> Any:
        """Wait for it in this thread."""
        return self.reply if self.reply is not UNSET else self.carrier.accompany(self)

    def __await__(self) -> Generator[Any, None, Any]:
        """Wait for it in this task."""
        if self.reply is not UNSET:
            return self.reply
        carrier = self.carrier
        table = carrier.desk()
        future = self.future = table.loop.create_future()
        self.table = table
        # In this order: a carrier sets the reply and looks for a desk then.
        if self.reply is not UNSET:
            return self.reply
        if not carrier.up:
            carrier.give_up(self)
            return DOWN
        table.wait(self)
        carrier.ring()
        try:
            return (yield from future)
        except BaseException:
            carrier.give_up(self)
            raise

    def wake(self, desks: set[Desk]) -> None:
        """Say that the reply is there: to the thread that waits; a task's desk is added to those that are to be called."""
        if (desk := self.table) is not None:
            desk.ready.append(self)
            desks.add(desk)
        elif (alarm := self.alarm) is not None:
            with suppress(RuntimeError):  # it was woken to carry
                alarm.release()


class Sleepers:
    """The threads that wait for a reply and could carry.

    Args:
        waiting: Letters that somebody waits for.
    """

    def __init__(self, waiting: Mapping[Letter, None]) -> None:
        self._waiting = waiting
        self._letters: deque[Letter] = deque()
        """Answered ones are taken out when they are met."""

    def add(self, letter: Letter) -> None:
        """Its thread is about to sleep."""
        self._letters.append(letter)

    @staticmethod
    def sleep(letter: Letter, seconds: float) -> bool:
        """Wait in this thread for the reply, or for being chosen to carry; returns False if it took too long."""
        alarm = letter.alarm
        if alarm is None:
            alarm = threading.Lock()
            alarm.acquire()
            letter.alarm = alarm
            # In this order: a carrier sets the reply and looks for an alarm then.
            if letter.reply is not UNSET:
                return True
        return alarm.acquire(timeout=seconds)

    def wake_one(self) -> bool:
        """Choose one to carry; returns False if there is none."""
        letters = self._letters
        while letters:
            try:
                letter = letters.popleft()
            except IndexError:
                break
            if letter in self._waiting and letter.alarm is not None:
                with suppress(RuntimeError):  # it is awake
                    letter.alarm.release()
                return True
        return False

    def tidy(self) -> None:
        """Forget those who wait no more, where none of them is ever chosen."""
        letters = self._letters
        with suppress(IndexError):
            while letters[0] not in self._waiting:
                letters.popleft()


class Desk:
    """Where one event loop's letters are given out. Only `ready` is touched from other threads.

    Args:
        loop: The loop.
        carrier: Whose letters.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, carrier: Carrier) -> None:
        self.loop = loop
        self.ready: deque[Letter] = deque()
        self._carrier = carrier
        self._waiting: deque[Letter] = deque()
        self._armed = False

    def wait(self, letter: Letter) -> None:
        """See to it that a letter is answered within the budget, whatever the carriers are stuck in."""
        self._waiting.append(letter)
        if not self._armed:
            self._armed = True
            self.loop.call_later(self._carrier.budget, self._expire)

    def call(self) -> None:
        """Wake the loop for what is ready; from any thread."""
        try:
            self.loop.call_soon_threadsafe(self._give_out)
        except RuntimeError:  # the loop is closed: whoever waited there never will again
            while self.ready:
                letter = self.ready.popleft()
                # DOWN: its coroutine may be closed later, and then has nothing to give back.
                reply, letter.reply = letter.reply, DOWN
                self._carrier.orphan(letter.operation, reply)

    def _give_out(self) -> None:
        ready = self.ready
        while ready:
            letter = ready.popleft()
            if letter.future is not None and not letter.future.done():
                letter.future.set_result(letter.reply)

    def _expire(self) -> None:
        waiting, carrier = self._waiting, self._carrier
        late = time.monotonic() - carrier.budget
        while waiting:
            letter = waiting[0]
            future = letter.future
            if future is not None and not future.done():
                if carrier.open.get(letter, letter) is None and letter.asked_at > late:
                    break
                # Taken out by us: it is too late. By a carrier: the reply is there, and on its way to the desk.
                in_vain = carrier.open.pop(letter, letter) is None
                future.set_result(DOWN if in_vain else letter.reply)
                if in_vain:
                    carrier.late()
            waiting.popleft()
        self._armed = bool(waiting)
        if waiting:
            left = waiting[0].asked_at - late
            self.loop.call_later(max(left, 0.001), self._expire)
