"""Pods under load: chat models over real HTTP, each with /metrics of its own for a Prometheus to scrape.

Rules of this file: a pod is a registry, its /metrics on a free port, and one model; what goes wrong is the FaultServers' to play. All pods live in
this process (their registries keep them apart) and are driven by one event loop in a thread, at a steady rate, whatever becomes of the requests.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, Self

from prometheus_client import CollectorRegistry, ProcessCollector, start_http_server

from langchain_resilient import Provider, ResilientChatModel
from langchain_resilient.engine.observe.prometheus import PrometheusObserver
from langchain_resilient.testing import FaultServer
from tests.clients import fresh
from tests.servers import HOST

Question = Callable[[ResilientChatModel], Coroutine[Any, Any, object]]


async def asked(model: ResilientChatModel) -> object:
    """One question, its answer as a whole."""
    return await model.ainvoke("What is a circuit breaker?")


async def streamed(model: ResilientChatModel) -> object:
    """One question, its answer as a stream."""
    return [chunk async for chunk in model.astream("What is a circuit breaker?")]


def provider(server: FaultServer, name: str, **settings: Any) -> Provider:
    """A provider by its spec, with OpenAI's real client behind it."""
    arguments = {"base_url": server.base_url("openai"), "api_key": "sk-test", "stream_usage": True}
    return Provider(f"openai:{name}", model_kwargs=arguments, **settings)


class Pod:
    """One process of an application, as a Prometheus sees it.

    Args:
        providers: The model's.
        rate: Questions a second.
        question: How one is asked.
        settings: The model's others.
    """

    def __init__(self, *providers: Provider, rate: float, question: Question = asked, **settings: Any) -> None:
        registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self.observe = PrometheusObserver(registry)
        self.model = ResilientChatModel(
            providers=list(providers), observers=[self.observe], **{"namespace": fresh()} | settings
        )
        self.rate, self.question = rate, question
        self._server, self._thread = start_http_server(0, HOST, registry)
        self.address = f"{HOST}:{self._server.server_port}"

    def close(self) -> None:
        """Gone, as a pod is that was replaced: its /metrics too."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)


class Load:
    """Asks pods at their rates until it is left. A context manager."""

    def __init__(self, pods: list[Pod]) -> None:
        self._pods = pods
        self._loop = asyncio.new_event_loop()
        self._over = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="load")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join(30)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._all())

    async def _all(self) -> None:
        drivers = [asyncio.create_task(self._drive(pod)) for pod in self._pods]
        await self._over.wait()
        for driver in drivers:
            driver.cancel()
        await asyncio.gather(*drivers, return_exceptions=True)
        for pod in self._pods:
            await pod.model.aclose()

    async def _drive(self, pod: Pod) -> None:
        running: set[asyncio.Task[None]] = set()
        try:
            while True:
                task = asyncio.create_task(self._ask(pod))
                running.add(task)
                task.add_done_callback(running.discard)
                await asyncio.sleep(1 / pod.rate)
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    @staticmethod
    async def _ask(pod: Pod) -> None:
        with suppress(Exception):  # the metrics are to tell
            await pod.question(pod.model)
