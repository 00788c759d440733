"""The thread that sends spooled letters on, as soon as Redis is back.

Rules of this file: it lives only while something is spooled; whoever spools wakes it. It asks no more often than the breaker on Redis allows.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from langchain_resilient.engine.dead_letters.box import BoxAwayError, BoxError
from langchain_resilient.engine.dead_letters.spool import Spool

LOGGER = logging.getLogger("langchain_resilient")
IN_THE_WAY = 1.0
"""Seconds between two looks at files that another process holds."""


class Follower:
    """Sends on what is in a spool.

    Args:
        spool: The spool.
        send: See `Spool.drain`.
        again_at: When Redis may be asked next, monotonic seconds.
    """

    def __init__(self, spool: Spool, send: Callable[[bytes], None], again_at: Callable[[], float]) -> None:
        self._spool = spool
        self._send = send
        self._again_at = again_at
        self._anew()

    def _anew(self) -> None:
        self._free = threading.Lock()
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    def wake(self) -> None:
        """Something is spooled."""
        with self._free:
            if self._thread is None and not self._closed.is_set():
                self._thread = threading.Thread(target=self._run, name="langchain-resilient-dead-letters", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        while not self._closed.wait(max(0.0, self._again_at() - time.monotonic())):
            try:
                if count := self._spool.drain(self._send):
                    LOGGER.warning("dead letters: %d spooled ones have followed", count)
            except BoxAwayError:
                pass
            except (BoxError, OSError):
                LOGGER.exception("dead letters: the spool can't be sent on now")
                self._closed.wait(IN_THE_WAY)
            else:
                with self._free:
                    # Under the lock: who spools after this look finds no thread, and starts one.
                    if self._closed.is_set() or self._spool.empty:
                        self._thread = None
                        return
                self._closed.wait(IN_THE_WAY)

    def close(self, patience: float = 1.0) -> None:
        """Stop, waiting for at most so many seconds for the letter that is under way."""
        self._closed.set()
        with self._free:
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(patience)

    def forked(self) -> None:
        """In a new child process: the thread is the parent's."""
        self._anew()
