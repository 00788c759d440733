"""Who must be told in a new child process that it is one.

Rules of this file: a child has a copy of everything and none of the other threads, so a lock that one of these held is never given back, and
what they were doing is never done. Whoever keeps such a thing makes it anew.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from threading import Lock
from typing import Protocol
from weakref import WeakSet


class Forks(Protocol):
    """What keeps a lock, or work for another thread."""

    def forked(self) -> None:
        """In a new child process."""


_ALIVE: WeakSet[Forks] = WeakSet()


def tell_of_forks(who: Forks) -> None:
    """Have it told, for as long as it lives."""
    _ALIVE.add(who)


class ForkLock:
    """A lock that is free in a new child process, whoever held it in the parent: `with lock.current: …`.

    Args:
        make: Makes one; `current` is what it made, as a `with` of Python's own locks is not torn apart by a signal.
    """

    def __init__(self, make: Callable[[], AbstractContextManager[object]] = Lock) -> None:
        self._make = make
        self.current = make()
        tell_of_forks(self)

    def forked(self) -> None:
        """In a new child process."""
        self.current = self._make()


def _after_fork() -> None:
    for who in list(_ALIVE):
        who.forked()


os.register_at_fork(after_in_child=_after_fork)
