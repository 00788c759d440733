"""What a process opens once: stores, ledgers, boxes.

Rules of this file: opening one may take long, and others wait for it meanwhile. In a child process a thread of the parent may have been in the
middle of that, so the lock is made anew.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from threading import Lock
from typing import TypeVar

K = TypeVar("K")
T = TypeVar("T")

_OPENING = Lock()


def opened_once(opened: dict[K, T], name: K, make: Callable[[], T]) -> T:
    """What is open under a name; made, and put there, if nothing is. What `make` raises leaves it so."""
    with _OPENING:
        found = opened.get(name)
        if found is None:
            found = opened[name] = make()
        return found


def _after_fork() -> None:
    global _OPENING  # noqa: PLW0603  # a thread of the parent may have held it
    _OPENING = Lock()


os.register_at_fork(after_in_child=_after_fork)
