"""What was asked and told and is not on its way yet, in one order; and the bell that is rung for it.

Rules of this file
------------------
* Putting something in takes no lock and starts nothing: the garbage collector may run a finalizer that tells at any allocation, in a thread
  that is in the middle of anything, also of this. Each step is one atomic step of a deque or a dict.
* Only whoever holds the wire takes something out.
* Of what is told the oldest is dropped, and counted, where there is too much of it. What is asked is bounded by those who wait.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from langchain_resilient.engine.store.redis.post.letters import Carrier, Letter
from langchain_resilient.engine.store.redis.wire import Operation

BATCH = 256
"""Operations in one EVALSHA: the server does nothing else meanwhile, about 0.15 ms."""
MOST_TOLD = 10_000
LINGER = 0.1
"""Seconds that what is not urgent may wait for company."""

Then = Callable[[Any], object] | None
"""Who is told the reply to what was told."""


class Mailbag:
    """What one process has for Redis."""

    def __init__(self) -> None:
        self.open: dict[Letter, None] = {}
        """What was asked, and somebody waits for: whoever takes a letter out decides what becomes of its reply."""
        self.dropped = 0
        """What was told, and never sent."""
        self.urgent = False
        """Whether something told must go at once."""
        self._asked: deque[Letter] = deque()
        self._told: deque[tuple[int, Operation, Then]] = deque()
        self._places = itertools.count()
        self._lingering = False
        """Whether something that was told must go when it is `due`."""
        self._due = 0.0
        self._bell = threading.Lock()
        self._bell.acquire()
        self._rung = False

    # ------------------------------------------------------------------------------------------------------------- putting in
    def ask(self, carrier: Carrier, operation: Operation) -> Letter:
        """Put in what somebody waits for."""
        letter = Letter(carrier, operation, next(self._places))
        self.open[letter] = None
        self._asked.append(letter)
        return letter

    def tell(self, operation: Operation, then: Then, *, urgent: bool) -> None:
        """Put in what nobody waits for, and ring if it must go earlier than all else."""
        told = self._told
        told.append((next(self._places), operation, then))
        if len(told) > MOST_TOLD:
            with suppress(IndexError):  # it may just have been carried
                told.popleft()
                self.dropped += 1
        if urgent:
            self.urgent = True
            self.ring()
        elif not self._lingering:
            self._due = time.monotonic() + LINGER
            self._lingering = True
            self.ring()

    # ------------------------------------------------------------------------------------------------------------- taking out
    @property
    def pressing(self) -> bool:
        """Whether something must go now."""
        return bool(self._asked) or self.urgent

    @property
    def empty(self) -> bool:
        """Whether nothing is left."""
        return not self._told and not self._asked

    @property
    def nothing_told(self) -> bool:
        """Whether nothing that was told is left."""
        return not self._told

    def rest(self, now: float) -> float | None:
        """Seconds until something must go: 0: now; None: nothing must."""
        if self._lingering and now >= self._due:
            self._lingering = False
            self.urgent = self.urgent or bool(self._told)
        if self.pressing:
            return 0
        return self._due - now if self._lingering else None

    def batch(self) -> tuple[list[Operation], list[Letter | Then]]:
        """Take out the next batch, and who is told the replies, in the order in which it was asked and told."""
        self.urgent = False
        asked, told, opened = self._asked, self._told, self.open
        operations: list[Operation] = []
        receivers: list[Letter | Then] = []
        while len(operations) < BATCH:
            if asked and (not told or asked[0].place < told[0][0]):
                letter = asked.popleft()
                if letter in opened:
                    operations.append(letter.operation)
                    receivers.append(letter)
            elif told:
                _, operation, then = told.popleft()
                operations.append(operation)
                receivers.append(then)
            else:
                break
        if told:
            self.urgent = True
        return operations, receivers

    def emptied(self) -> list[Letter]:
        """Drop all; returns the letters that somebody waits for."""
        self.dropped += len(self._told)
        self._told.clear()
        letters = list(self.open)
        self._asked.clear()
        return letters

    # --------------------------------------------------------------------------------------------------------------- the bell
    def ring(self) -> None:
        """Wake the courier's thread."""
        if not self._rung:
            self._rung = True
            with suppress(RuntimeError):  # somebody else rang
                self._bell.release()

    def listen(self, seconds: float | None) -> None:
        """Wait until somebody rings, for at most so long (None: for ever)."""
        self._bell.acquire(timeout=-1 if seconds is None else seconds)
        self._rung = False
