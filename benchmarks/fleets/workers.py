"""Who takes part, each in a process of its own: the two providers, and the fleet's workers.

Rules of this file: providers are real HTTP servers, and workers ask them through langchain-openai. Every process plays its own part of the
scene from the common beginning on; nobody tells it anything meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from typing import Any, NamedTuple

from fleets.scene import Call, Fate, Scene, Worker
from langchain_resilient.testing.fault_server import Fault, FaultServer

STRAGGLERS = 5.0
"""Seconds after the last arrival that answers are waited for."""
LINGER = 1.0
"""Seconds after the last arrival that everybody stays."""
FIRST, SECOND = "openai/first", "openai/second"


class Houses:
    """Both providers; the first one fails for a while."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._servers = (FaultServer(), FaultServer())

    async def prepare(self) -> tuple[str, ...]:
        """Open both; where they are."""
        for name, server in zip((FIRST, SECOND), self._servers, strict=True):
            server.start()
            server.answer(name, delay=self._scene.takes)
        return tuple(server.base_url("openai") for server in self._servers)

    async def run(self, zero: float) -> tuple[Call, ...]:
        """The outage; what the first one was asked."""
        first, scene = self._servers[0], self._scene
        first.reset_log()
        sick = Fault.status(503, delay=scene.takes)
        await asyncio.sleep(zero + scene.lead_in - time.monotonic())
        first.always(sick)
        await asyncio.sleep(zero + scene.heals_at - time.monotonic())
        first.always(Fault.ok())
        await asyncio.sleep(zero + scene.seconds + LINGER - time.monotonic())
        return tuple(Call(record.at - zero, record.outcome == sick.name) for record in first.requests)


class Spec(NamedTuple):
    """One worker."""

    scene: Scene
    backend: str
    namespace: str
    urls: tuple[str, ...]
    number: int
    size: int
    """Of the fleet."""


class Asker:
    """One worker."""

    def __init__(self, spec: Spec) -> None:
        from langchain_resilient import Circuit, Provider, ResilientChatModel

        logging.disable(logging.WARNING)  # circuits are to open, and Redis is to go away
        self._spec = spec
        self._zero = 0.0
        self._fates: list[Fate] = []
        self._probes: list[float] = []
        self._degraded: list[tuple[float, bool]] = []
        keys = [{"base_url": url, "api_key": "sk-none"} for url in spec.urls]
        self._model = ResilientChatModel(
            providers=[
                Provider(f"openai:{name.partition('/')[2]}", name=name, model_kwargs=key)
                for name, key in zip((FIRST, SECOND), keys, strict=True)
            ],
            backend=spec.backend,
            namespace=spec.namespace,
            circuit=Circuit(recovery_timeout=spec.scene.recovery),
            observers=[self._observe],
        )

    def _observe(self, event: Any) -> None:
        at, kind = time.monotonic() - self._zero, type(event).__name__
        if kind == "Attempted" and event.probe and event.provider == FIRST:
            self._probes.append(at)
        elif kind == "StoreDegraded":
            self._degraded.append((at, event.degraded))

    async def prepare(self) -> None:
        """A few questions that don't count."""
        for _ in range(2):
            await self._model.ainvoke("Hello")

    async def run(self, zero: float) -> Worker:
        """This process's part of the requests: a Poisson process, drawn from its number."""
        self._zero = zero
        self._probes.clear()
        scene, spec = self._spec.scene, self._spec
        rng = random.Random(f"{spec.number} of {spec.size}")
        await asyncio.sleep(zero - time.monotonic())
        used = time.process_time()
        asking: set[asyncio.Task[None]] = set()
        at = rng.expovariate(scene.rate / spec.size)
        while at < scene.seconds:
            await asyncio.sleep(zero + at - time.monotonic())
            task = asyncio.create_task(self._ask(at))
            asking.add(task)
            task.add_done_callback(asking.discard)
            at += rng.expovariate(scene.rate / spec.size)
        if asking:
            _, late = await asyncio.wait(asking, timeout=STRAGGLERS)
            self._fates += [Fate(scene.seconds, STRAGGLERS, "", "no answer in time")] * len(late)
        await asyncio.sleep(zero + scene.seconds + LINGER - time.monotonic())
        used = time.process_time() - used
        return Worker(tuple(self._fates), tuple(self._probes), tuple(self._degraded), used)

    async def _ask(self, at: float) -> None:
        error = provider = ""
        try:
            provider = (await self._model.ainvoke("Hello")).text
        except Exception as failure:  # noqa: BLE001  # every failure is a result here
            error = type(failure).__name__
        self._fates.append(Fate(at, time.monotonic() - self._zero - at, provider, error))
