"""One thread at a time in a store, whatever the garbage collector does meanwhile.

Rules of this file: the collector may run at any allocation, in the middle of a store's step, and close a stream that somebody dropped; its
plan then reports to the very store whose lock this thread holds. Such a report is kept, and made when the step is over: a plain lock would
wait for itself for ever, and a re-entrant one would let one step run in the middle of another's arithmetic.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from threading import get_ident


class Turn:
    """A lock that knows whether this thread holds it, and does what came in between afterwards."""

    __slots__ = ("_later", "_lock", "_owner")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._owner = 0
        self._later: deque[Callable[[], object]] = deque()

    def __enter__(self) -> None:
        self._lock.acquire()
        self._owner = get_ident()

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self._owner = 0
        self._lock.release()
        while self._later:
            self._later.popleft()()

    def postponed(self, step: Callable[[], object]) -> bool:
        """Whether this thread is in the middle of a step; then `step` is done after it."""
        if self._owner != get_ident():
            return False
        self._later.append(step)
        return True
