"""Processes that prepare themselves, begin at the same instant, and tell what came of it.

Rules of this file: all are forked from one process that has imported the libraries, and no more, so each costs milliseconds. A process is
known by its handle, and ends when its parent does, even if that was killed.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from types import TracebackType
from typing import Any, Protocol, Self

SETTLE = 0.3
"""Seconds between the last one's being ready and the beginning."""
PREPARE = 120.0
"""Seconds that one may take to be ready: LiteLLM's import alone takes several on a busy machine."""
STRAGGLE = 30.0
"""Seconds beyond its time that one may take to tell."""
FOREIGN = ("OPENAI_", "LANGSMITH_", "LANGCHAIN_", "LITELLM_")
"""What keys, tracing and a library's own settings are named like."""
PRELOADED = ("langchain_resilient.chat_model", "langchain_resilient.keyed", "redis.asyncio")


class Work(Protocol):
    """What a process does."""

    async def prepare(self) -> Any:
        """Make everything ready; what it returns is told to the parent."""

    async def run(self, zero: float) -> Any:
        """Do it, from `zero` (`time.monotonic`) on."""


class CrewError(Exception):
    """A process failed."""


class Member:
    """One process, told what to do.

    Args:
        make: Makes its work of its spec, in the process.
        spec: Anything that can be pickled.
        context: Where processes come from.
    """

    def __init__(self, make: Callable[[Any], Work], spec: Any, context: ForkServerContext) -> None:
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_live, args=(make, spec, theirs), daemon=True)
        self._process.start()
        theirs.close()

    def ready(self) -> Any:
        """Wait until it is."""
        return self._hear(PREPARE)

    def go(self, zero: float) -> None:
        """Tell it when to begin."""
        self._pipe.send(zero)

    def result(self, seconds: float) -> Any:
        """What came of it."""
        return self._hear(seconds + STRAGGLE)

    def _hear(self, seconds: float) -> Any:
        try:
            word, told = self._pipe.recv() if self._pipe.poll(seconds) else ("failed", f"silent for {seconds:.0f} s")
        except EOFError:
            word, told = "failed", "it ended without a word"
        if word == "failed":
            raise CrewError(told)
        return told

    def close(self) -> None:
        """End it, whatever it is at."""
        if self._process.is_alive():
            self._process.kill()
        self._process.join()
        self._pipe.close()


class Crew:
    """Several processes. A context manager.

    Args:
        imports: Modules that all of them need; those of the first crew of a run count.
    """

    def __init__(self, imports: Sequence[str] = ()) -> None:
        self.members: list[Member] = []
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload([*PRELOADED, *imports])

    def add(self, make: Callable[[Any], Work], specs: Sequence[Any]) -> list[Any]:
        """Start processes; returns what they told when all were ready."""
        added = []
        for spec in specs:
            added.append(Member(make, spec, self._context))
            self.members.append(added[-1])
        return [member.ready() for member in added]

    def go(self) -> float:
        """Tell all when to begin; returns that moment (`time.monotonic`)."""
        zero = time.monotonic() + SETTLE
        for member in self.members:
            member.go(zero)
        return zero

    def results(self, seconds: float) -> list[Any]:
        """What came of it, in the order of adding."""
        return [member.result(seconds) for member in self.members]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for member in self.members:
            member.close()


def own_environment() -> None:
    """Make nothing of the user's environment take part, here and in all processes to come; to be called before the first crew."""
    for name in tuple(os.environ):
        if name.upper().endswith("_PROXY") or name.startswith(FOREIGN):
            del os.environ[name]
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # else it is fetched from the network
    os.environ["LITELLM_MODE"] = "PRODUCTION"  # else it reads the .env files around


def _live(make: Callable[[Any], Work], spec: Any, pipe: Connection) -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()

    async def main() -> None:
        work = make(spec)
        pipe.send(("told", await work.prepare()))
        zero = await asyncio.to_thread(pipe.recv)
        pipe.send(("told", await work.run(zero)))

    try:
        asyncio.run(main())
    except BaseException:  # noqa: BLE001  # whatever it was, the parent is told
        pipe.send(("failed", traceback.format_exc()))
    pipe.close()
    os._exit(0)  # a library's threads and late callbacks are not waited for


def _end_with(parent: Any) -> None:
    parent.join()
    os._exit(1)
