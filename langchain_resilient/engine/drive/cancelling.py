"""Cancelling what may not heed it: limits of attempts, and the end of tasks that nobody waits for.

Rules of this file: a cancellation is asked for again until it is heeded, and none that was swallowed on the way is forgotten. Clients do
swallow them: `asyncio.wait_for` of Python 3.11 loses the one that arrives in the instant in which what it waits for is done
(python/cpython#86296; langchain-openai puts each chunk of a stream into one), and a stream of keep-alives or empty deltas would then be read
for ever.
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Any, Self

INSIST_EVERY = 1.0
"""Seconds until a cancellation that was not heeded is asked for again: more than a client needs to close its connection."""


class Limit:
    """An `asyncio.timeout` that insists; a plain context manager, as it awaits nothing.

    Args:
        seconds: After so many what is inside is cancelled (None: never); the context manager then raises `TimeoutError`.
    """

    __slots__ = ("_before", "_fired", "_loop", "_seconds", "_task", "_timer")

    def __init__(self, seconds: float | None) -> None:
        self._seconds = seconds
        self._fired = 0
        self._timer: asyncio.TimerHandle | None = None

    def __enter__(self) -> Self:
        task = asyncio.current_task()
        if task is None:  # pragma: no cover  # a coroutine is only ever driven by a task here
            msg = "a limit needs a running task"
            raise RuntimeError(msg)
        self._task = task
        self._before = task.cancelling()
        if self._seconds is not None:
            self._loop = task.get_loop()
            self._timer = self._loop.call_later(max(self._seconds, 0.0), self._fire)
        return self

    def _fire(self) -> None:
        self._fired += 1
        self._task.cancel()
        self._timer = self._loop.call_later(INSIST_EVERY, self._fire)

    @property
    def expired(self) -> bool:
        """Whether it has fired."""
        return self._fired > 0

    def prolong(self, seconds: float) -> None:
        """Be over not before so many seconds from now, if it is not over yet."""
        if self._timer is None or self._fired:
            return
        until = max(self._timer.when(), self._loop.time() + seconds)
        self._timer.cancel()
        self._timer = self._loop.call_at(until, self._fire)

    def check(self, *, others: bool = False) -> None:
        """Raise the cancellation (`others`: one that is not this limit's own) that whatever was awaited inside has swallowed."""
        if self._task.cancelling() > self._before + (self._fired if others else 0):
            raise asyncio.CancelledError

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._fired:
            return
        left = [self._task.uncancel() for _ in range(self._fired)][-1]
        if kind is not None and issubclass(kind, asyncio.CancelledError) and left <= self._before:
            raise TimeoutError from error


async def cancel(task: asyncio.Future[Any]) -> None:
    """Cancel a task until it has ended; its outcome is for whoever wants it."""
    while not task.done():
        task.cancel()
        await asyncio.wait([task], timeout=INSIST_EVERY)
