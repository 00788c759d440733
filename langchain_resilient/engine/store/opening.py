"""From a backend's URL to the store behind it, or to the ledger of users' limits: one for each backend and namespace of this process.

Rules of this file: the shared store's module, and redis-py with it, is imported when the first shared backend is opened. A URL's password is
in no error.
"""

from __future__ import annotations

import atexit
import random
import time
from collections.abc import Callable
from string import ascii_lowercase
from typing import TYPE_CHECKING, TypeVar

from langchain_resilient.engine.errors import require, unknown_name
from langchain_resilient.engine.store.memory import MemoryStore, memory_store
from langchain_resilient.engine.store.once import opened_once

if TYPE_CHECKING:
    from langchain_resilient.engine.store.redis.store import RedisStore
    from langchain_resilient.engine.store.redis.tenants import RedisLedger

T = TypeVar("T")

MEMORY = "memory://"
SHARED = ("redis", "rediss", "unix", "redis+cluster", "redis+sentinel", "rediss+cluster", "rediss+sentinel")
"""Schemes of shared backends."""
_IN_SCHEMES = f"{ascii_lowercase}+"

_SHARED: dict[tuple[str, str], RedisStore] = {}
_LEDGERS: dict[tuple[str, str], RedisLedger] = {}


def check_backend(backend: object) -> None:
    """Raise `SettingsError` for what can't be a backend."""
    fix = 'give "memory://", "redis://host:6379/0", or another URL of Redis'
    require(isinstance(backend, str), "backend", type(backend).__name__, fix)
    scheme, found, _ = str(backend).partition("://")
    require(bool(found), "backend", f"{len(scheme)} characters without ://", fix)
    # Nothing else is quoted: it may be a password that slipped to the front.
    require(
        set(scheme) <= set(_IN_SCHEMES),
        "backend",
        f"{len(scheme)} characters before ://, not all of them small letters",
        fix,
    )
    if backend != MEMORY and scheme not in SHARED:
        raise unknown_name("backend", f"{scheme}://", [MEMORY, *(f"{known}://" for known in SHARED)])


def open_store(backend: str, namespace: str) -> MemoryStore:
    """The store of this process for a backend and a namespace.

    Args:
        backend: "memory://", or a URL of Redis or Valkey.
        namespace: Models of one namespace share what they know; for a shared backend those of all its processes.

    Raises:
        SettingsError: The URL can't be meant, redis-py is not installed, or the server refuses this user. A server that can't be reached
            raises nothing.
    """
    check_backend(backend)
    if backend == MEMORY:
        return memory_store(namespace)
    from langchain_resilient.engine.store.redis.store import RedisStore

    def made() -> RedisStore:
        store = RedisStore(backend, namespace, now=time.monotonic, rand=random.random)
        try:
            store.check()
        except BaseException:
            store.close()
            raise
        return store

    return _one(_SHARED, (backend, namespace), made)


def open_ledger(backend: str, namespace: str) -> RedisLedger:
    """The ledger of this process for a shared backend and a namespace: limiters of all kinds of users share its connection.

    Raises:
        SettingsError: As `open_store`.
    """
    from langchain_resilient.engine.store.redis.tenants import RedisLedger

    return _one(
        _LEDGERS, (backend, namespace), lambda: RedisLedger(backend, namespace, now=time.monotonic, shared=True)
    )


def _one(opened: dict[tuple[str, str], T], name: tuple[str, str], make: Callable[[], T]) -> T:
    def made() -> T:
        found = make()
        if not (_SHARED or _LEDGERS):
            # After the courier's own, so that it runs before it.
            atexit.register(_close_all)
        return found

    return opened_once(opened, name, made)


def _close_all() -> None:
    for store in tuple(_SHARED.values()):
        store.close()
    for ledger in tuple(_LEDGERS.values()):
        ledger.end()


def shown(backend: str) -> str:
    """A backend for people: without what it holds of users and passwords."""
    scheme, _, rest = backend.partition("://")
    return f"{scheme}://{'…' if rest else ''}"
