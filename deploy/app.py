"""An application to look at: users ask, three fake providers answer over real HTTP, and every few minutes something goes wrong.

    pip install 'langchain-resilient[openai,anthropic,ollama,redis,prometheus]'
    python deploy/app.py

    curl localhost:8000/metrics
    curl localhost:8000/status
    curl -X POST localhost:8000/faults/openai/503      # …/429, /401, /quota, /hang, /slow, /cut, /ok

Needs no key and no network. Rules of this file: whatever is real in production is real here (clients, HTTP, store, metrics); only the providers are
fake. The environment: HOST (127.0.0.1), PORT (8000; 0: any), REDIS_URL (left out: in memory), RATE (questions a second, 6), STORY ("on": the faults
below, over and over; "off": only those that you ask for).
"""

# ruff: noqa: INP001 -- a script, not a package

from __future__ import annotations

import asyncio
import json
import os
import random  # noqa: TID251  # users come when they like, and fakes answer like providers
import signal
import threading
from collections.abc import Callable
from contextlib import ExitStack, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from langchain_resilient import (
    Circuit,
    Hedge,
    KeyedRateLimiter,
    Price,
    Provider,
    RateLimits,
    ResilientChatModel,
    Timeouts,
)
from langchain_resilient.testing import Fault, FaultServer
from langchain_resilient.testing.fault_server import RecordedRequest, WireName

HOST = os.environ.get("HOST", "127.0.0.1")
PORT = int(os.environ.get("PORT", "8000"))
BACKEND = os.environ.get("REDIS_URL", "memory://")
RATE = float(os.environ.get("RATE", "6"))
STORY = os.environ.get("STORY", "on") == "on"

NAMES: tuple[WireName, ...] = ("openai", "anthropic", "ollama")
MODELS = {"openai": "gpt-4.1", "anthropic": "claude-sonnet-4-5", "ollama": "llama3.1"}
EXTRA: dict[WireName, dict[str, object]] = {
    # For an address of your own langchain-openai does not ask for the usage of streams.
    "openai": {"api_key": "fake", "stream_usage": True},
    "anthropic": {"api_key": "fake"},
    "ollama": {},
}
FAULTS = {
    "ok": Fault.ok(),
    "503": Fault.status(503),
    "429": Fault.rate_limited(seconds=20),
    "401": Fault.status(401),
    "quota": Fault.quota_exhausted(),
    "hang": Fault.hang(),
    "slow": Fault.slow(6.0),
    "cut": Fault.truncate(chunks=3),
}
AFTERNOON: tuple[tuple[int, WireName, str], ...] = (
    (120, "openai", "ok"), (300, "openai", "503"), (60, "anthropic", "429"), (120, "anthropic", "ok"), (120, "openai", "ok"),
    (120, "openai", "hang"), (180, "openai", "ok"), (120, "openai", "cut"),
)  # fmt: skip
"""Seconds, and what becomes of whom when they begin; then from the beginning."""


def model_of(servers: dict[WireName, FaultServer]) -> ResilientChatModel:
    """The model of a usual application: three providers in order, short limits as the fakes are fast."""
    return ResilientChatModel(
        providers=[
            Provider(
                f"{name}:{MODELS[name]}",
                model_kwargs={"base_url": servers[name].base_url(name), **EXTRA[name]},
                price=Price(0.0, 0.0) if name == "ollama" else Price(2.0, 8.0),
                limits=RateLimits(rpm=3000, on_limit="next"),
            )
            for name in NAMES
        ],
        backend=BACKEND,
        namespace="deploy-example",
        circuit=Circuit(recovery_timeout=15.0),
        timeouts=Timeouts(first_token=4.0, response=8.0),
        hedge=Hedge(),
        observers=["prometheus"],
    )  # fmt: skip


async def users(model: ResilientChatModel, limiter: KeyedRateLimiter, over: asyncio.Event) -> None:
    """Ask at a steady rate, every other question for a stream, until it is over. A fifth of the questions are one greedy user's."""
    asking: set[asyncio.Task[None]] = set()

    async def ask(number: int) -> None:
        who = "greedy" if number % 5 == 0 else f"user-{number % 40}"
        if not (await limiter.atry_acquire(who)).allowed:
            return  # a real service answers 429 here
        with suppress(Exception):  # a real service answers 503 here; the metrics tell
            question = f"Question {number}: why does a circuit breaker have a half-open state?"
            if number % 2:
                await model.ainvoke(question)
            else:
                async for _ in model.astream(question):
                    pass

    number = 0
    while not over.is_set():
        number += 1
        task = asyncio.create_task(ask(number))
        asking.add(task)
        task.add_done_callback(asking.discard)
        await _pause(over, random.expovariate(RATE))
    for task in asking:
        task.cancel()
    await asyncio.gather(*asking, return_exceptions=True)
    await model.aclose()


async def story(servers: dict[WireName, FaultServer], over: asyncio.Event) -> None:
    """Let things go wrong, over and over."""
    while not over.is_set():
        for seconds, name, fault in AFTERNOON:
            servers[name].always(FAULTS[fault])
            await _pause(over, seconds)


async def _pause(over: asyncio.Event, seconds: float) -> None:
    with suppress(TimeoutError):
        await asyncio.wait_for(over.wait(), seconds)


def page(model: ResilientChatModel, servers: dict[WireName, FaultServer]) -> ThreadingHTTPServer:
    """/metrics, /status and /faults."""

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # the standard library's name
            if self.path == "/metrics":
                self._send(200, generate_latest(), CONTENT_TYPE_LATEST)
            elif self.path == "/status":
                self._send(200, json.dumps(model.status(), default=str).encode(), "application/json")
            else:
                self._send(404, b"/metrics, /status\n")

        def do_POST(self) -> None:  # as above
            match self.path.split("/")[1:]:
                case ["faults", name, fault] if name in servers and fault in FAULTS:
                    servers[name].always(FAULTS[fault])
                    self._send(204, b"")
                case _:
                    self._send(404, f"POST /faults/{'|'.join(NAMES)}/{'|'.join(FAULTS)}\n".encode())

        def _send(self, status: int, body: bytes, content_type: str = "text/plain; charset=utf-8") -> None:
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: object) -> None:
            """Say nothing: Prometheus asks every few seconds."""

    return ThreadingHTTPServer((HOST, PORT), Page)


def usual(seconds: float) -> Callable[[RecordedRequest], float]:
    """The time until an answer begins: around so many seconds, with a tail."""
    return lambda _: random.lognormvariate(0, 0.35) * seconds


async def main() -> None:
    """Run until SIGTERM or Ctrl-C."""
    with ExitStack() as stack:
        servers = {name: stack.enter_context(FaultServer()) for name in NAMES}
        for seconds, server in zip((0.25, 0.35, 0.6), servers.values(), strict=True):
            server.answer(
                "So that one request can find out whether the provider is well again before all others are sent there.",
                delay=usual(seconds),
                chunk_delay=0.02,
                prefill="continue",
            )
        model = model_of(servers)
        limits = RateLimits(rpm=30, burst=5)
        limiter = KeyedRateLimiter(
            BACKEND, limits, user_type="free", namespace="deploy-example", observers=["prometheus"]
        )
        web = stack.enter_context(page(model, servers))
        threading.Thread(target=web.serve_forever, daemon=True).start()
        stack.callback(web.shutdown)
        over = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, over.set)
        print(f"http://{HOST}:{web.server_port}/metrics", flush=True)  # noqa: T201  # where it is to be found: PORT=0 takes any
        await asyncio.gather(users(model, limiter, over), *([story(servers, over)] if STORY else []))


if __name__ == "__main__":
    asyncio.run(main())
