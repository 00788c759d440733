"""One connection to Redis, for one exchange at a time, within a limit that holds for all of it.

Rules of this file
------------------
* Where Redis is and how it is spoken to is `dial`'s and `line`'s. Nothing is sent twice: what came to nothing may have happened.
* Connecting takes several steps, a name server among them, and none of these knows the limit: a thread of its own connects, and who waits for it
  goes on when the time is up. A connection that came too late serves the next.
* After any failure but the script's own the connection is given up; the next exchange asks anew where the server is (failover).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from langchain_resilient.engine.store.redis.post.dial import Dial
from langchain_resilient.engine.store.redis.post.line import Reply, Wire
from langchain_resilient.engine.store.redis.post.troubles import Trouble, trouble
from langchain_resilient.engine.store.redis.wire import Operation


class _Opening:
    """A connection that is being made."""

    def __init__(self, make: Callable[[], Wire]) -> None:
        self._make = make
        self.done = threading.Event()
        self.wire: Wire | None = None
        self.failure: Trouble | None = None
        threading.Thread(target=self._run, name="langchain-resilient-dead-letters-dial", daemon=True).start()

    def _run(self) -> None:
        try:
            self.wire = self._make()
        except Exception as error:  # noqa: BLE001  # whatever it was, there is no connection
            self.failure = trouble(error)
        finally:
            self.done.set()


class Channel:
    """A connection that is made when it is needed.

    Args:
        dial: Where Redis is; its budget bounds each step of connecting.
        script: What is run.
        probe: An operation that is run on every new connection: it connects to the right node of a cluster, and shows whether we may.
        clock: The script's time, µs; None: the server's.
    """

    def __init__(self, dial: Dial, script: str, probe: Operation, clock: Callable[[], int] | None) -> None:
        self._dial = dial
        self._script = script
        self._probe = probe
        self._clock = clock
        self._wire: Wire | None = None
        self._anew()

    def _anew(self) -> None:
        self._free = threading.Lock()
        self._opening: _Opening | None = None

    def _head(self) -> tuple[str]:
        return ("" if self._clock is None else str(self._clock()),)

    def run(self, operations: Sequence[Operation], within: float) -> Reply:
        """One exchange, connecting included, in at most so many seconds. Raises `Trouble`."""
        until = time.monotonic() + within
        if not self._free.acquire(timeout=within):
            raise Trouble("timeout", f"no turn within {within:.3g} s")
        try:
            if self._wire is not None and self._wire.stale(time.monotonic()):
                self._hang_up()
            if self._wire is None:
                self._wire = self._connected(until, within)
            left = until - time.monotonic()
            if left <= 0:
                raise Trouble("timeout", f"no answer within {within:.3g} s")
            return self._wire.run(operations, self._head(), left)
        except BaseException as error:
            # A late reply must not be read as the next one's.
            if not (isinstance(error, Trouble) and error.kind == "script"):
                self._hang_up()
            raise
        finally:
            self._free.release()

    def _connected(self, until: float, within: float) -> Wire:
        opening = self._opening = self._opening or _Opening(self._open)
        if not opening.done.wait(max(0.0, until - time.monotonic())):
            raise Trouble("timeout", f"no connection within {within:.3g} s")
        self._opening = None
        if opening.wire is None:
            raise opening.failure or Trouble("lost", "no connection")
        return opening.wire

    def _open(self) -> Wire:
        wire = Wire(self._dial, self._script)
        try:
            wire.open()
            wire.run([self._probe], self._head())
        except BaseException:
            wire.close()
            raise
        return wire

    def _hang_up(self) -> None:
        wire, self._wire = self._wire, None
        if wire is not None:
            wire.close()

    def close(self) -> None:
        """Hang up."""
        with self._free:
            self._hang_up()

    def forked(self) -> None:
        """In a new child process: the connection is the parent's, and so is the thread that makes one."""
        self._anew()
        self._hang_up()  # this process's copy of the socket: redis-py ends no connection that another process made
