"""Who must be told in a new child process that it is one.

Rules of this file: a child has a copy of everything and none of the other threads, so a lock that one of these held is never given back, and
what they were doing is never done. Whoever keeps such a thing makes it anew.
"""

from __future__ import annotations

import os
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


def _after_fork() -> None:
    for who in list(_ALIVE):
        who.forked()


os.register_at_fork(after_in_child=_after_fork)
