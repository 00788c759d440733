"""Threads for what would block: a sync call that may outlive its limit, and a sync stream.

Rules of this file: a thread can't be interrupted, so nobody waits for one without a limit; one that outlives its limit is abandoned, what it
still brings is closed, and at most 64 may wait for one provider before attempts at it fail as `local` instead. What it waits on can be ended
from outside, if that registers with the thread's `Line` (`hanging_up` makes HTTP clients do so); whatever does not ends by its own limits.

A line holds only what one of its threads is inside of at this instant, and hangs that up under the lock which a thread needs to leave it. So
what a thread has left, and perhaps given back to a pool where others find it, is never hung up.
"""

from __future__ import annotations

import contextvars
import os
import queue
import threading
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, NamedTuple, Protocol

from langchain_resilient.engine.drive.common import OpenStream
from langchain_resilient.engine.effects import Answered, Call, End, Failed
from langchain_resilient.engine.errors import LocalFaultError

MOST_ABANDONED = 64
READ_AHEAD = 64
"""Chunks that a stream's thread may be ahead of its reader."""


Work = Callable[[], "Callable[[], object] | None"]
"""What a thread does; returns what is to be told when it is done."""


class Threads:
    """Daemon threads, kept for the next call: `concurrent.futures` would wait for a hanging one at interpreter exit."""

    def __init__(self) -> None:
        self._abandoned: Counter[str] = Counter()
        self._idle: list[queue.SimpleQueue[Work]] = []
        self._lock = threading.Lock()

    def abandoned(self, route: str) -> int:
        """Threads that still wait for this provider, though nobody waits for them."""
        return self._abandoned[route]

    def count(self, route: str, change: int) -> None:
        """One more, or one fewer, is abandoned."""
        with self._lock:
            self._abandoned[route] += change

    def forked(self) -> None:
        """In a new child process: the threads are the parent's."""
        self.__init__()  # type: ignore[misc]  # everything anew is what is meant

    def start(self, work: Work, route: str = "") -> None:
        """Do it in a thread, in a copy of this one's context; raises `LocalFaultError` if too many wait for that provider already."""
        if self._abandoned[route] >= MOST_ABANDONED:
            msg = f"{self._abandoned[route]} abandoned threads still wait for this provider, which never answered"
            raise LocalFaultError(msg)
        context = contextvars.copy_context()
        try:
            inbox = self._idle.pop()
        except IndexError:
            inbox = queue.SimpleQueue()
            self._spawn(inbox)
        inbox.put(lambda: context.run(work))

    def _spawn(self, inbox: queue.SimpleQueue[Work]) -> None:
        try:
            threading.Thread(target=self._serve, args=(inbox,), name="langchain-resilient", daemon=True).start()
        except RuntimeError as error:
            msg = "this process can start no more threads"
            raise LocalFaultError(msg) from error

    def _serve(self, inbox: queue.SimpleQueue[Work]) -> None:
        while True:
            tell = inbox.get()()
            # Free before anybody is told: whoever waited asks for the next thread at once, and should find this one.
            self._idle.append(inbox)
            if tell is not None:
                tell()


THREADS = Threads()
os.register_at_fork(after_in_child=THREADS.forked)


class HungUp(BaseException):
    """Raised in a thread that nobody waits for any more. No `Exception`: clients would try again (asyncio's `CancelledError` is none either)."""


class Wait(Protocol):
    """What a thread is inside of, and can be got out of."""

    def hang_up(self) -> None:
        """Make it end soon. May neither block nor raise."""


class Line:
    """What the threads of one attempt wait on, so that it can be hung up from outside.

    One that is made in an attempt's thread is hung up with that attempt's: a resilient model may be called within another.
    """

    __slots__ = ("__weakref__", "_inside", "_lock", "_within", "hung_up")

    def __init__(self) -> None:
        self.hung_up = False
        self._inside: set[Wait] = set()
        self._within: weakref.WeakSet[Line] | None = None
        # Re-entrant: the garbage collector may close a stream, and so hang up, at any moment in any thread.
        self._lock = threading.RLock()
        if (around := LINE.get()) is not None:
            around.hang_up_too(self)

    def hang_up_too(self, line: Line) -> None:
        """Hang up another line with this one."""
        with self._lock:
            if self._within is None:
                self._within = weakref.WeakSet()
            self._within.add(line)
            line.hung_up = self.hung_up

    def check(self) -> None:
        """Raise `HungUp` if it was hung up: nothing may be begun."""
        if self.hung_up:
            raise HungUp

    def enter(self, wait: Wait) -> None:
        """The present thread begins to wait. Raises `HungUp` if it may not."""
        with self._lock:
            self._inside.add(wait)  # before the check: the garbage collector may hang up between the two
            if self.hung_up:
                self._inside.discard(wait)
                raise HungUp

    def leave(self, wait: Wait) -> bool:
        """It no longer waits; returns whether it was hung up meanwhile, so that what it brings is worth nothing."""
        with self._lock:
            self._inside.discard(wait)
            return self.hung_up

    def hang_up(self) -> None:
        """End what is waited on now, and let nothing be waited on again."""
        with self._lock:
            self.hung_up = True
            for wait in (*self._inside, *(self._within or ())):
                wait.hang_up()


LINE: contextvars.ContextVar[Line | None] = contextvars.ContextVar("langchain_resilient_line", default=None)
"""The line of the present attempt, in its threads; None elsewhere."""


class Running:
    """A call in a thread of its own.

    Args:
        call: The call.
        attempt: Makes it.
        until: When its limit is over.
        done: Told when it has ended.
    """

    def __init__(
        self,
        call: Call,
        attempt: Callable[[Call], Answered | Failed],
        until: float,
        done: Callable[[Running], None] | None = None,
    ) -> None:
        self.call = call
        self.until = until
        self.fate: Answered | Failed | None = None
        self.raised: BaseException | None = None
        """What is no provider's failure (SystemExit, say): for whoever waits, as a thread has nobody to raise it to."""
        self.then: Callable[[Answered | Failed], None] | None = None
        self.finished = threading.Event()
        self._attempt = attempt
        self._done = done
        self._abandoned = False
        self._line = Line()
        self._lock = threading.Lock()

    def begin(self) -> None:
        """Start; one that can't, as too many threads are abandoned already, has failed."""
        try:
            THREADS.start(self._work, self.call.ticket.target.route)
        except LocalFaultError as error:
            self.fate = Failed(error, 0.0)
            self.finished.set()

    def _work(self) -> Callable[[], None]:
        LINE.set(self._line)  # in the thread's own copy of the context
        try:
            fate = self._attempt(self.call)
        except BaseException as error:  # noqa: BLE001  # see `raised`
            if not self._abandoned:  # else it is our own hanging up: whoever waited reads `raised` after that
                self.raised = error
            fate = Failed(LocalFaultError("the call's thread was interrupted"), 0.0)
        return lambda: self._tell(fate)

    def _tell(self, fate: Answered | Failed) -> None:
        with self._lock:
            self.fate = fate
            self.finished.set()
            then = self.then
        if self._done is not None:
            self._done(self)
        if then is not None:
            then(fate)

    def afterwards(self, then: Callable[[Answered | Failed], None]) -> None:
        """Do `then` with its fate once it is known, in its thread (now, if it is)."""
        with self._lock:
            fate = self.fate
            self.then = then
        if fate is not None:
            then(fate)

    def abandon(self) -> None:
        """Nobody waits for it any more: it is hung up, and whatever it still brings is closed."""
        self._abandoned = True
        route = self.call.ticket.target.route
        THREADS.count(route, 1)

        def close(fate: Answered | Failed) -> None:
            THREADS.count(route, -1)
            if isinstance(fate, Answered) and isinstance(fate.value, PumpedStream):
                fate.value.close()

        self.afterwards(close)
        self._line.hang_up()


class _Raised(NamedTuple):
    """What ended a stream's thread and is no provider's failure: raised again by whoever reads the stream."""

    error: BaseException


class PumpedStream(OpenStream):
    """A provider's sync stream, read by a thread so that waiting for it can end.

    Its line is within that of the attempt that opens it: until the first content has come, whoever abandons the attempt ends the stream.

    Args:
        chunks: The stream.
        route: Whose it is: its thread counts as waiting for it.
    """

    def __init__(self, chunks: Iterator[Any], route: str) -> None:
        super().__init__()
        self._chunks = chunks
        self._route = route
        self._queue: queue.Queue[Any] = queue.Queue(READ_AHEAD)
        self._closed = False
        self._ended = False
        self._line = Line()
        self._lock = threading.Lock()

    def begin(self) -> None:
        """Start reading; raises `LocalFaultError` if too many threads wait for that provider already."""
        THREADS.start(self._pump, self._route)

    def _pump(self) -> None:
        """Read on until the end, in a thread."""
        LINE.set(self._line)
        try:
            for chunk in self._chunks:
                self._queue.put(chunk)
                self._line.check()
        except Exception as error:  # noqa: BLE001  # a reply, like every failure of a provider
            self._queue.put(Failed(error, 0.0))
        except BaseException as error:  # noqa: BLE001  # see `_Raised`
            self._queue.put(_Raised(error))
        else:
            self._queue.put(End())
        finally:
            close = getattr(self._chunks, "close", None)
            if close is not None:
                # Whoever reads has been told the end already. A client that reads on while it closes is hung up in the middle.
                with suppress(Exception, HungUp):
                    close()
            with self._lock:
                self._ended = True
                THREADS.count(self._route, -self._closed)

    def pull(self, limit: float | None) -> Any:
        """The next chunk, `Failed` or `End`; raises `queue.Empty` after `limit` seconds (None: waits for ever)."""
        item = self._queue.get(timeout=None if limit is None else max(limit, 0.0))
        if isinstance(item, _Raised):
            raise item.error
        self.exhausted = isinstance(item, End | Failed)
        return item

    def close(self) -> None:
        """Hang up, and stop reading as soon as the thread notices; until then it counts as abandoned."""
        with self._lock:
            THREADS.count(self._route, not (self._closed or self._ended))
            self._closed = self._closed or not self._ended
        self._line.hang_up()
        while True:
            try:
                self._queue.get_nowait()
            except queue.Empty:
                return
