"""Sync-only models in async calls: their work runs in our own threads.

Rules of this file: LangChain runs such a model in the loop's default executor, whose few threads hanging providers use up for the whole
process; ours are as many as are needed, and one that nobody waits for any more counts as abandoned, per route. A stream is read a chunk at a
time, so its thread is never ahead of its reader.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

from langchain_resilient.engine.drive.threads import LINE, THREADS, Line

_T = TypeVar("_T")
_END: Any = object()


async def in_thread(work: Callable[[], _T], route: str, late: Callable[[], None] | None = None) -> _T:
    """Do `work` in a thread, and wait for it.

    Args:
        work: What may block.
        route: Whom it may wait for.
        late: Done in the thread once `work` has ended, if nobody waits for it any more.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[_T] = loop.create_future()
    lock, ended, left, line = threading.Lock(), False, False, Line()

    def settle(value: Any, error: BaseException | None) -> None:
        if done.done():
            return
        if error is None:
            done.set_result(value)
        else:
            done.set_exception(error)

    def run() -> None:
        nonlocal ended
        LINE.set(line)
        value, error = None, None
        try:
            value = work()
        except BaseException as raised:  # noqa: BLE001  # for whoever waits, as a thread has nobody to raise it to
            error = raised
        with lock:
            ended = True
        if not left:
            with suppress(RuntimeError):  # its loop is closed, so nobody waits
                loop.call_soon_threadsafe(settle, value, error)
            return
        THREADS.count(route, -1)
        if late is not None:
            late()

    THREADS.start(run, route)
    try:
        return await done
    except asyncio.CancelledError:
        with lock:
            left = not ended
        if left:
            THREADS.count(route, 1)
            line.hang_up()
        raise


async def stream_in_threads(begin: Callable[[], Iterator[_T]], route: str) -> AsyncIterator[_T]:
    """The chunks of a sync stream."""
    chunks = begin()  # a generator: nothing is asked before the first `next`
    close = getattr(chunks, "close", lambda: None)
    try:
        while (chunk := await in_thread(partial(next, chunks, _END), route, late=close)) is not _END:
            yield chunk
    finally:
        with suppress(ValueError):  # its thread is in the middle of it: `late` closes it
            close()
