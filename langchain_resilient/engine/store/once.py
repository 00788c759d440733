"""What a process opens once: stores, ledgers, boxes.

Rules of this file: opening one may take long, and others wait for it meanwhile; not in a child process, where nobody opens it any more.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from langchain_resilient.engine.store.forks import ForkLock

K = TypeVar("K")
T = TypeVar("T")

_OPENING = ForkLock()


def opened_once(opened: dict[K, T], name: K, make: Callable[[], T]) -> T:
    """What is open under a name; made, and put there, if nothing is. What `make` raises leaves it so."""
    with _OPENING.current:
        found = opened.get(name)
        if found is None:
            found = opened[name] = make()
        return found
