"""Clients over HTTP whose sync requests can be hung up: a thread can't be interrupted, but the socket that it waits on can be shut.

Rules of this file: only a socket that one of the line's threads is reading from, or writing to, at this instant is shut (`Line` sees to
that), so never one that the pool has given to somebody else. Nothing that is shut is closed here: its own thread finds the end, and its client
throws the connection away. What is not built as expected is left as it is, and then a request ends by its client's own limits, as it
would without us. Outside an attempt's threads nothing changes for anybody who uses the same client.

What is reached into is httpx's (and its successor's): a client's transports, each one's pool, and the pool's network backend, which makes its
connections. All three are private, hence the care. A connection over HTTP/2 carries many requests at once and is left alone; so are clients
over `requests`, boto3 or gRPC, and a name that is looked up or a port that does not answer: each ends by its own limits.
"""

from __future__ import annotations

import copy
import inspect
import logging
import socket
from collections.abc import Iterator
from contextlib import suppress
from functools import cached_property
from typing import Any, Self

from langchain_core.language_models import BaseChatModel

from langchain_resilient.engine.drive.threads import LINE, HungUp
from langchain_resilient.engine.store.forks import ForkLock

HOLDERS = ("root_client", "_client", "client", "_api_client", "_httpx_client")
"""Where a model keeps its SDK's client, and that its HTTP client."""
DEEPEST = 3
"""From model to HTTP client (Google's: `client._api_client._httpx_client`)."""

_log = logging.getLogger(__name__)
_lock = ForkLock()


def let_hang_up(model: BaseChatModel) -> int:
    """Make a model's sync requests ones that can be hung up; returns how many connection pools it has for them."""
    try:
        pools = {id(pool): pool for client in _http_clients(model, DEEPEST) for pool in _pools(client)}
        return sum([_watch(pool) for pool in pools.values()])
    except Exception:  # noqa: BLE001  # private attributes of other packages: whatever they have become, the model works as before
        _log.debug("%s can't be hung up", type(model).__name__, exc_info=True)
        return 0


# -------------------------------------------------------------------------------------------------------------- finding
def _http_clients(holder: Any, depth: int) -> Iterator[Any]:
    for name in HOLDERS:
        held = _held(holder, name)
        if held is None:
            continue
        if hasattr(held, "_transport"):
            yield held
        elif depth > 1:
            yield from _http_clients(held, depth - 1)


def _held(holder: Any, name: str) -> Any:
    if name not in getattr(holder, "__dict__", ()) and isinstance(
        inspect.getattr_static(type(holder), name, None), cached_property
    ):
        # Not made yet (Anthropic's). On a copy, as a client that is made is kept by whatever is later copied from the user's model with
        # other settings. What is found is the HTTP client which the package shares between all models of the same endpoint.
        if not isinstance(holder, BaseChatModel):
            return None
        holder = copy.copy(holder)
    try:
        return getattr(holder, name, None)
    except Exception:  # noqa: BLE001  # a property that can't be had now (no key, say) says so to whoever asks the model
        return None


def _pools(client: Any) -> Iterator[Any]:
    """The pools of an HTTP client, with those of its proxies."""
    for transport in (client._transport, *getattr(client, "_mounts", {}).values()):  # noqa: SLF001  # see above
        pool = getattr(transport, "_pool", None)
        if pool is not None:
            yield pool


def _watch(pool: Any) -> bool:
    """Have a pool's future connections watched; returns whether they are."""
    with _lock.current:  # two models of one client may be made in two threads
        backend = getattr(pool, "_network_backend", None)
        if isinstance(backend, _Backend):
            return True
        connect = getattr(backend, "connect_tcp", None)
        # A pool that does not say what it is may share connections between requests.
        if connect is None or inspect.iscoroutinefunction(connect) or getattr(pool, "_http2", True):
            return False
        pool._network_backend = _Backend(backend)  # noqa: SLF001  # see above
        return True


# ------------------------------------------------------------------------------------------------------------- watching
class _Backend:
    """A pool's network backend; its connections are watched."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def connect_tcp(self, *args: Any, **kwargs: Any) -> _Stream:
        _check()
        return _Stream(self._inner.connect_tcp(*args, **kwargs))

    def connect_unix_socket(self, *args: Any, **kwargs: Any) -> _Stream:
        _check()
        return _Stream(self._inner.connect_unix_socket(*args, **kwargs))


def _check() -> None:
    line = LINE.get()
    if line is not None:
        line.check()


class _Stream:
    """One connection."""

    __slots__ = ("_inner",)

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def read(self, max_bytes: int, timeout: float | None = None) -> Any:
        line = LINE.get()
        if line is None:
            return self._inner.read(max_bytes, timeout)
        line.enter(self)
        try:
            return self._inner.read(max_bytes, timeout)
        finally:
            if line.leave(self):  # a socket that was shut reads as the end of the answer, which it is not
                raise HungUp

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        line = LINE.get()
        if line is None:
            self._inner.write(buffer, timeout)
            return
        line.enter(self)
        try:
            self._inner.write(buffer, timeout)
        finally:
            line.leave(self)  # after a `write`, which clients forgive, comes a `read`

    def hang_up(self) -> None:
        _shut(self._inner.get_extra_info("socket"))

    def start_tls(self, *args: Any, **kwargs: Any) -> _Stream:
        line, sock = LINE.get(), self._inner.get_extra_info("socket")
        # TLS within TLS can't be watched: its sockets have no `dup`.
        if line is None or type(sock) is not socket.socket:
            return _Stream(self._inner.start_tls(*args, **kwargs))
        with _Handshake(sock) as handshake:
            try:
                line.enter(handshake)
            except HungUp:
                self.close()
                raise
            try:
                return _Stream(self._inner.start_tls(*args, **kwargs))
            finally:
                line.leave(handshake)  # one that ended well all the same is closed by the `write` that follows

    def close(self) -> None:
        self._inner.close()

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)


class _Handshake:
    """A TLS handshake on a socket, which is taken out of its object meanwhile; a duplicate of it is not."""

    __slots__ = ("_duplicate",)

    def __init__(self, sock: socket.socket) -> None:
        self._duplicate = sock.dup()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self._duplicate.close()

    def hang_up(self) -> None:
        _shut(self._duplicate)


def _shut(sock: Any) -> None:
    """End a connection in both directions, under whoever waits for it."""
    if isinstance(sock, socket.socket):
        with suppress(OSError):  # the other side was faster
            # Not `SSLSocket.shutdown`, which takes the encryption away first, under a thread that uses it.
            socket.socket.shutdown(sock, socket.SHUT_RDWR)
