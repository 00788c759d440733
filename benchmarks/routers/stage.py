"""The three providers of `outages.stage`, in a process of their own.

Rules of this file: streams are a hundred small steps of a server's threads, which in the client's process would be in the way of its loop.
Both processes read one monotonic clock (the system's), so that the times of calls need no translation.
"""

from __future__ import annotations

import multiprocessing
import threading
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, NamedTuple, Self

from outages.cell import Spec
from outages.faults import Outage
from outages.stage import HOUSES, Call, Stage

from routers.faults import faults

FAREWELL = 5.0
"""Seconds that the process may take to end by itself."""


class Order(NamedTuple):
    """What the process is told: a method of `Stage`, and its arguments."""

    method: str
    arguments: tuple[Any, ...] = ()


class RemoteStage:
    """As `outages.stage.Stage`, elsewhere. A context manager.

    Args:
        spec: Of the run.
    """

    def __init__(self, spec: Spec) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._theirs = theirs
        self._turn = threading.Lock()
        self._process = context.Process(target=serve, args=(theirs, spec), daemon=True)
        self._addresses: tuple[str, ...] = ()

    def __enter__(self) -> Self:
        self._process.start()
        self._theirs.close()
        self._addresses = self._pipe.recv()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pipe.close()
        self._process.join(FAREWELL)

    def base_url(self, provider: int) -> str:
        """What a client of this provider takes as base URL."""
        return self._addresses[provider]

    def strike(self, outage: Outage) -> None:
        """From now on the sick ones are sick: by the outage of the run, whose faults need not travel."""
        self._told(Order("strike"))

    def heal(self) -> None:
        """From now on all are healthy."""
        self._told(Order("heal"))

    def forget(self) -> None:
        """Forget what was asked so far."""
        self._told(Order("forget"))

    def calls(self, zero: float) -> tuple[Call, ...]:
        """All that the providers were asked, in the order of time, which counts from `zero`."""
        found: tuple[Call, ...] = self._told(Order("calls", (zero,)))
        return found

    def _told(self, order: Order) -> Any:
        with self._turn:
            self._pipe.send(order)
            return self._pipe.recv()


def serve(pipe: Connection, spec: Spec) -> None:
    """The process: it ends when the other end of the pipe does, even if that was killed."""
    outage = faults(spec.seed)[spec.fault]
    with Stage(spec.seed, paced=outage.streamed, median=spec.median) as stage:
        pipe.send(tuple(stage.base_url(provider) for provider in range(len(HOUSES))))
        while True:
            try:
                order: Order = pipe.recv()
            except EOFError:
                return
            arguments = (outage,) if order.method == "strike" else order.arguments
            pipe.send(getattr(stage, order.method)(*arguments))
