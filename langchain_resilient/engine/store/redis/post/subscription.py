"""What others publish, heard on a connection of its own.

Rules of this file: no read waits for ever; a connection that says nothing is asked whether it is there; whoever listens is told `GONE` when
nothing more will be heard for a while, and `LOST` when messages may have been missed, and reads everything again.
"""

from __future__ import annotations

import _thread
import logging
import random
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from langchain_resilient.engine.store.redis.post.dial import Dial
from langchain_resilient.engine.store.redis.post.troubles import Trouble, trouble

LOGGER = logging.getLogger("langchain_resilient")

LOST = b"lost"
"""Told in place of a message: some may have been missed."""
GONE = b"gone"
"""Told when nothing more will be heard for a while, so that who waits for a message may ask instead."""
QUIET = 5.0
"""Seconds without a word after which the server is asked whether it is there; as many more, and the connection is given up."""
LOOK = 0.5
"""Seconds for which one read waits."""
PAUSES = (0.25, 5.0)
"""Seconds between attempts to subscribe: the first pause, and the longest."""


def subscribed(dial: Dial, channel: str) -> Any:
    """A connection that is subscribed. Raises `Trouble`."""
    connection = dial.connect()
    try:
        # Asked for now and then while it is quiet: whoever may not is told at once.
        connection.send_command("PING")
        connection.read_response()
        connection.send_command("SUBSCRIBE", channel)
        connection.read_response()
    except BaseException as error:
        connection.disconnect()
        if isinstance(error, Exception):
            raise trouble(error) from error
        raise
    return connection


class Subscription:
    """A daemon thread that hears one channel.

    Args:
        dial: Where Redis is.
        channel: What it is called.
        heard: Told each message, and `LOST`; in that thread. Should not block.
    """

    def __init__(self, dial: Dial, channel: str, heard: Callable[[bytes], object]) -> None:
        self._dial = dial
        self._channel = channel
        self._heard = heard
        self._connection: Any = None
        self._stopped = threading.Event()

    def check(self) -> None:
        """Subscribe, and hang up. Raises `Trouble`."""
        subscribed(self._dial, self._channel).disconnect()

    def start(self) -> None:
        """Begin to listen."""
        # Not threading.Thread: starting one takes locks that a finalizer's thread may be holding.
        _thread.start_new_thread(self._run, ())

    def stop(self) -> None:
        """End the thread, soon."""
        self._stopped.set()
        wire = getattr(self._connection, "_sock", None)
        if wire is not None:
            with suppress(OSError, ValueError):
                wire.shutdown(socket.SHUT_RDWR)

    def leave(self) -> None:
        """In a new child process: the thread is the parent's, and so is the connection. Only this process's copy of its socket is closed."""
        if self._connection is not None:
            self._connection.disconnect()

    def _run(self) -> None:
        threading.current_thread().name = "lr-courier-ears"
        pause, complete = PAUSES[0], True
        while not self._stopped.is_set():
            began = time.monotonic()
            try:
                self._connection = subscribed(self._dial, self._channel)
                if not complete:
                    self._tell(LOST)
                self._listen(self._connection)
            except Trouble as why:
                LOGGER.debug("the subscription to %s was lost: %s", self._dial.shown, why)
                if self._connection is not None and not self._stopped.is_set():
                    # Those who wait to be told something may say nothing themselves: let them find out whether the server is there.
                    self._tell(GONE)
            finally:
                if self._connection is not None:
                    self._connection.disconnect()
                    self._connection = None
            complete = False
            pause = PAUSES[0] if time.monotonic() - began > PAUSES[1] else min(2 * pause, PAUSES[1])
            self._stopped.wait(pause * random.uniform(0.5, 1.0))

    def _listen(self, connection: Any) -> None:
        last, asked = time.monotonic(), False
        while not self._stopped.is_set():
            try:
                if connection.can_read(timeout=LOOK):
                    message = connection.read_response()
                    last, asked = time.monotonic(), False
                    if isinstance(message, list) and message[0] in {b"message", "message"}:
                        self._tell(message[2] if isinstance(message[2], bytes) else str(message[2]).encode())
                    continue
                silence = time.monotonic() - last
                if silence > 2 * QUIET:
                    raise Trouble("timeout", "the server does not answer a PING")
                if silence > QUIET and not asked:
                    connection.send_command("PING")
                    asked = True
            except Trouble:
                raise
            except Exception as error:
                raise trouble(error) from error

    def _tell(self, message: bytes) -> None:
        try:
            self._heard(message)
        except Exception:
            LOGGER.exception("what was published on %s could not be taken in", self._channel)
