"""One TCP port: it listens, gives each connection a thread of its own, refuses, and ends what is open.

Rules of this file: no HTTP. A `Link` is ended by shutting its reading side, which sends nothing and wakes whoever waits on
it; the thread that owns the socket then closes it, with RST if the link was told so. Nobody else ever closes it.
"""

from __future__ import annotations

import contextlib
import itertools
import selectors
import socket
import struct
import sys
import threading
from collections.abc import Callable

_BACKLOG = 1024
_PATIENCE = 1.0  # seconds for a thread to close its connection; one that is stuck in a write is left to its client


class Link:
    """One open connection."""

    def __init__(self, sock: socket.socket, number: int) -> None:
        self.sock = sock
        self.number = number
        self.busy = False
        self.last = False
        """The exchange under way is the last one on this connection."""
        self.ended = False
        """The server itself ends it, so an end of input says nothing about the client."""

    def end(self, *, reset: bool) -> None:
        """Wake the thread that owns the connection, so that it closes it."""
        self.ended = self.last = True
        if reset:
            self.reset_on_close()
        with contextlib.suppress(OSError):  # the client was first
            self.sock.shutdown(socket.SHUT_RD)

    def reset_on_close(self) -> None:
        """Have close() send RST instead of FIN."""
        with contextlib.suppress(OSError):
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


class Port:
    """A port that can be opened, refused and opened again under the same number."""

    def __init__(self, host: str, number: int, serve: Callable[[Link], None]) -> None:
        self.host = host
        self.number = number
        self._serve = serve
        self._holder: socket.socket | None = None
        self._listener: socket.socket | None = None
        self._accepting: threading.Thread | None = None
        self._wake: socket.socket | None = None
        self._links: dict[Link, threading.Thread] = {}
        self._life = threading.Lock()  # one at a time opens or closes
        self._lock = threading.Lock()  # over the links
        self._numbers = itertools.count(1)

    def listen(self) -> None:
        """Accept connections from now on; does nothing if it does so already."""
        with self._life:
            if self._listener is None:
                self._listen()

    def _listen(self) -> None:
        if self._holder is None and sys.platform == "linux":
            # Bound but not listening: keeps the number ours while we refuse, or a client's own outgoing socket may take it.
            self._holder = _bound(self.host, self.number)
            self.number = self._holder.getsockname()[1]
        self._listener = _bound(self.host, self.number)
        self._listener.listen(_BACKLOG)
        self._listener.settimeout(0)  # a client may be gone between select and accept
        self.number = self._listener.getsockname()[1]
        self._wake, woken = socket.socketpair()
        self._accepting = threading.Thread(
            target=self._accept, args=(self._listener, woken), name=f"fault-server-{self.number}", daemon=True
        )
        self._accepting.start()

    def close(self) -> None:
        """Accept no connection from now on; those that are open stay so. Does nothing if closed already."""
        with self._life:
            if self._listener is None or self._wake is None or self._accepting is None:
                return
            self._wake.close()
            self._accepting.join()
            self._listener.close()
            self._listener = None

    def refuse(self) -> None:
        """Refuse new connections, close the idle ones, and let exchanges under way be the last on theirs."""
        self.close()
        with self._lock:
            for link in self._links:
                link.last = True
            idle = {link: thread for link, thread in self._links.items() if not link.busy}
        _end(idle, reset=False)

    def end_all(self, *, reset: bool) -> None:
        """End every connection."""
        with self._lock:
            links = dict(self._links)
        _end(links, reset=reset)

    def release(self) -> None:
        """Give the number back to the system."""
        with self._life:
            if self._holder is not None:
                self._holder.close()
                self._holder = None

    def _accept(self, listener: socket.socket, woken: socket.socket) -> None:
        with selectors.DefaultSelector() as selector, woken:
            selector.register(listener, selectors.EVENT_READ)
            selector.register(woken, selectors.EVENT_READ)
            while True:
                ready = [key.fileobj for key, _ in selector.select()]
                if woken in ready:
                    return
                with contextlib.suppress(OSError):  # gone before it was accepted
                    self._begin(listener.accept()[0])

    def _begin(self, sock: socket.socket) -> None:
        sock.settimeout(None)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        link = Link(sock, next(self._numbers))
        thread = threading.Thread(target=self._run, args=(link,), daemon=True)
        with self._lock:
            self._links[link] = thread
        thread.start()

    def _run(self, link: Link) -> None:
        try:
            with contextlib.suppress(OSError):  # the client went away between two requests
                self._serve(link)
        finally:
            with self._lock:
                del self._links[link]
            link.sock.close()


def _end(links: dict[Link, threading.Thread], *, reset: bool) -> None:
    """End these and wait until they are closed: a client's pool must notice before it picks one of them again."""
    for link in links:
        link.end(reset=reset)
    for thread in links.values():
        if thread is not threading.current_thread():
            thread.join(_PATIENCE)


def _bound(host: str, number: int) -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((host, number))
    except OSError:
        sock.close()
        raise
    return sock
