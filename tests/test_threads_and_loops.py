"""Many threads and several event loops over one model, with the real clients.

Nothing is lost, and nothing is blamed on a provider that this process did to itself.
"""

import asyncio
import errno
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import redis
from langchain_core.language_models import BaseChatModel, SimpleChatModel

from langchain_resilient import (
    Circuit,
    Provider,
    RateLimits,
    ResilientChatModel,
    Retry,
    Timeouts,
    capture_decisions,
    classify_error,
)
from langchain_resilient.engine.drive.threads import THREADS as OUR_THREADS
from langchain_resilient.engine.events import Attempted, Decided
from langchain_resilient.testing import Fault, FaultServer, ScriptedChatModel
from tests.clients import (
    ANSWER,
    MADE,
    WAYS,
    WIRES,
    BusyError,
    ask,
    failure,
    fresh,
    instance,
    made,
    resilient,
    scripted,
    spec,
)

GREETING = "Hello from the fault server."
THREADS = 24
EACH = 8


@pytest.fixture
def server() -> Iterator[FaultServer]:
    """A server of one's own: clients pool their connections by address."""
    with FaultServer() as running:
        yield running


def everyone(model: ResilientChatModel, way: str) -> list[str]:
    """Ask from 24 threads, or from 24 tasks, eight times each."""

    async def several() -> list[str]:
        return [await ask(model, way) for _ in range(EACH)]

    async def tasks() -> list[list[str]]:
        return await asyncio.gather(*(several() for _ in range(THREADS)))

    if way in {"ainvoke", "astream"}:
        return [text for texts in asyncio.run(tasks()) for text in texts]
    with ThreadPoolExecutor(THREADS) as pool:
        return [text for texts in pool.map(lambda _: asyncio.run(several()), range(THREADS)) for text in texts]


@pytest.mark.parametrize("way", WAYS)
def test_threads_over_a_flaky_provider(server: FaultServer, way: str):
    """24 threads, or tasks, hammer one model whose first provider fails a third of the time: all are answered, no lease is lost, all adds up."""
    heard: list[Any] = []
    with FaultServer() as second:
        server.always(Fault.flaky(0.33, Fault.status(500), seed=1))
        first = Provider(instance(server, "openai", timeout=20.0), limits=RateLimits(concurrency=THREADS))
        model = ResilientChatModel(
            providers=[first, instance(second, "openai", "two", timeout=20.0)],
            namespace=fresh(),
            circuit=Circuit(failure_threshold=10_000, failure_rate=1.0, minimum_calls=10_000),
            retry=Retry(base_delay=0.0, budget=False),
            observers=[heard.append],
        )

        answers = everyone(model, way)
        assert answers == [GREETING] * THREADS * EACH
        status = model.status()["openai/one"]
        assert (status["running"], status["in_flight"], status["waiting"]) == (0, 0, 0)
        assert model.status()["openai/two"]["in_flight"] == 0
        decisions = [event.decision for event in heard if isinstance(event, Decided)]
        assert len(decisions) == THREADS * EACH
        attempts = [attempt for decision in decisions for attempt in decision.attempts]
        assert len([event for event in heard if isinstance(event, Attempted)]) == len(attempts)
        assert server.count + second.count == len(attempts)
        outcomes = [request.outcome for request in server.requests]
        assert outcomes.count("status(500)") == len([item for item in attempts if item.kind == "server_error"]) > 0
        assert len([item for item in attempts if item.kind == "ok"]) == THREADS * EACH


def test_threads_keep_the_concurrency_limit():
    """24 threads at a provider that takes three at a time: never more are inside, and everybody gets in."""
    lock, inside, most = threading.Lock(), 0, 0

    def note(messages: list) -> str:
        nonlocal inside, most
        with lock:
            inside += 1
            most = max(most, inside)
        threading.Event().wait(0.002)
        with lock:
            inside -= 1
        return "x"

    model = resilient(Provider(scripted("one", note), limits=RateLimits(concurrency=3, on_limit="wait")))
    with ThreadPoolExecutor(THREADS) as pool:
        assert len(list(pool.map(lambda _: model.invoke("hi"), range(72)))) == 72
    assert most == 3 and model.status()["scripted/one"]["running"] == 0


# ── Event loops ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("way", ["ainvoke", "astream"])
@pytest.mark.parametrize("how", MADE)
@pytest.mark.parametrize("wire", WIRES)
def test_several_loops_in_a_row(server: FaultServer, wire: str, how: str, way: str):
    """A client's pool that belongs to a closed loop is our own fault: one retry at once, no wait, never a failure of the provider."""
    model = ResilientChatModel(
        providers=[made(how, server, wire)], namespace=fresh(), circuit=Circuit(failure_threshold=1)
    )
    with capture_decisions() as decisions:
        for _ in range(4):
            assert asyncio.run(ask(model, way)) == GREETING
    attempts = [attempt for decision in decisions for attempt in decision.attempts]
    assert {attempt.kind for attempt in attempts} <= {"ok", "local"}
    assert [attempt.kind for attempt in attempts].count("ok") == 4
    assert all(len(decision.attempts) <= 2 for decision in decisions)
    assert sum(attempt.wait for attempt in attempts) == 0.0
    status = model.status()[f"{wire}/one"]
    assert (status["circuit"], status["failures_in_a_row"], status["in_flight"]) == ("closed", 0, 0)


def test_a_stale_loop_is_seen_at_all(server: FaultServer):
    """The tests above test something: the second loop does meet the first one's connections, and the retry is what saves it."""
    model = ResilientChatModel(providers=[instance(server, "openai")], namespace=fresh(), max_retries=0)
    with capture_decisions() as decisions:
        for _ in range(2):
            assert asyncio.run(ask(model, "ainvoke")) == GREETING
    assert [[attempt.kind for attempt in decision.attempts] for decision in decisions] == [["ok"], ["local", "ok"]]


@pytest.mark.parametrize("wire", WIRES)
def test_two_loops_at_once(server: FaultServer, wire: str):
    """Two loops that use one async client at the same time get in each other's way, as the bare client does; never is it the provider's fault.

    Partner packages keep one async HTTP client per process, so this can't be promised to work without a client per loop; that the
    circuit opens at the first failure shows that none is counted. Both loops tick, as any loop does that has more to do: a loop
    that only waits may sleep through what the other set for it (asyncio's events wake no other loop), and no limit can tell that
    from a provider that is silent.
    """
    model = ResilientChatModel(providers=[spec(server, wire)], namespace=fresh(), circuit=Circuit(failure_threshold=1))
    together = threading.Barrier(2, timeout=10)
    kinds: list[str] = []

    def tick() -> None:
        asyncio.get_running_loop().call_later(0.01, tick)

    async def several() -> None:
        tick()
        await asyncio.to_thread(together.wait)
        for way in ["ainvoke", "astream"] * 5:
            try:
                assert await ask(model, way) == GREETING
            except Exception as error:
                kinds.append(classify_error(error))

    threads = [threading.Thread(target=asyncio.run, args=(several(),)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(kinds) <= {"local"}
    assert (model.status()[f"{wire}/one"]["circuit"], model.status()[f"{wire}/one"]["in_flight"]) == ("closed", 0)


@pytest.mark.parametrize("wire", WIRES)
async def test_out_of_file_descriptors(server: FaultServer, monkeypatch: pytest.MonkeyPatch, wire: str):
    """When this process can open no more files, that is no provider's fault, though HTTP pools hide why they could not connect."""
    model = ResilientChatModel(providers=[spec(server, wire)], namespace=fresh(), max_retries=0)

    def refused(*_: object, **__: object) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    with monkeypatch.context() as patched, capture_decisions() as decisions:
        patched.setattr(socket, "socket", refused)
        assert await failure(model, "ainvoke") is not None
    assert {attempt.kind for attempt in decisions[0].attempts} == {"local"}


@pytest.mark.parametrize("way", WAYS)
def test_asked_while_something_is_handled(way: str):
    """What the caller handles when it asks, its own store's failure say, is not held for the provider's error."""

    def busy(messages: list) -> str:
        raise BusyError

    model = resilient(scripted("one", busy), max_retries=0)
    try:
        raise redis.ConnectionError("the cache is away")
    except redis.ConnectionError:
        with capture_decisions() as decisions, pytest.raises(BusyError):
            asyncio.run(ask(model, way))
    assert [attempt.kind for attempt in decisions[0].attempts] == ["overloaded"]


async def test_sync_calls_inside_a_loop(server: FaultServer):
    """A sync call from a task works beside async ones, on one model."""
    model = ResilientChatModel(providers=[instance(server, "openai")], namespace=fresh())
    texts = await asyncio.gather(
        model.ainvoke("hi"), asyncio.to_thread(model.invoke, "hi"), asyncio.to_thread(model.invoke, "hi")
    )
    assert [answer.text for answer in texts] == [GREETING] * 3
    assert model.invoke("hi").text == GREETING


# ── Nothing dials out ────────────────────────────────────────────────────────────────────────────────────────────────

ALONE = """
import asyncio, sys
sys.path.insert(0, {root!r})
import tests.conftest as conftest
from langchain_resilient import Provider, RateLimits, ResilientChatModel
from langchain_resilient.testing import FaultServer
from tests.clients import WAYS, WIRES, ask, spec
with FaultServer() as server:
    limits = RateLimits(rpm=1000, tpm=1_000_000, usd_per_day=100)
    model = ResilientChatModel(
        providers=[spec(server, wire, limits=limits, cost_per_1k=0.01) for wire in WIRES], observers=["prometheus"],
    )
    async def all_ways():
        return [await ask(model, way) for way in WAYS]
    assert asyncio.run(all_ways()) == ["Hello from the fault server."] * 4
    model.status()
assert conftest._dialled == [], conftest._dialled
print("nothing dialled out")
"""


def test_a_process_with_blocked_sockets_answers():
    """Making a model of three providers with token limits, asking it and closing it reaches for nothing but the providers."""
    root = str(Path(__file__).parent.parent)
    done = subprocess.run(
        [sys.executable, "-c", ALONE.format(root=root)],
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
        cwd=root,
        env=dict(os.environ),
    )
    assert done.stdout.strip() == "nothing dialled out", done.stderr[-2000:]


class SyncOnly(ScriptedChatModel):
    """A model whose author wrote only the sync half."""

    _agenerate = BaseChatModel._agenerate
    _astream = BaseChatModel._astream


class Simple(SyncOnly):
    """The same, as LangChain's own simple models are."""

    _agenerate = SimpleChatModel._agenerate


@pytest.mark.parametrize("kind", [SyncOnly, Simple])
@pytest.mark.parametrize("way", ["ainvoke", "astream"])
def test_sync_models_that_hang_take_no_thread_from_others(way: str, kind: type[SyncOnly]):
    """In async calls, a sync model runs in a thread of ours: the executor that all of a loop's work shares stays free."""
    release = threading.Event()

    def hang(messages: list) -> str:
        release.wait(20)
        return "late"

    hanging = Provider(kind(script=[hang], model_name="one"), circuit=Circuit(failure_threshold=10_000))
    model = resilient(
        hanging, kind(script=[ANSWER], model_name="two"), timeouts=Timeouts(response=0.2, first_token=0.2)
    )
    route = model._engine.policy.targets[0].route

    async def all_of_them() -> list[str]:
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
        answers = await asyncio.gather(*(ask(model, way) for _ in range(12)))
        assert OUR_THREADS.abandoned(route) == 12
        assert await asyncio.to_thread(lambda: "free") == "free"
        return answers

    try:
        assert asyncio.run(all_of_them()) == [ANSWER] * 12
    finally:
        release.set()
    until = time.monotonic() + 10
    while OUR_THREADS.abandoned(route) and time.monotonic() < until:
        time.sleep(0.01)
    assert OUR_THREADS.abandoned(route) == 0
    status = model.status()
    assert status["scripted/two"]["failures_in_a_row"] == status["scripted/two"]["in_flight"] == 0


async def test_a_sync_stream_that_is_left_is_closed():
    """A sync model's stream that an async caller leaves is closed, at once or as soon as its thread comes back."""
    closed, release = threading.Event(), threading.Event()

    class Watched(SyncOnly):
        def _stream(self, *args: Any, **kwargs: Any) -> Iterator[Any]:
            try:
                yield from super()._stream(*args, **kwargs)
                release.wait(10)
            finally:
                closed.set()

    chunks = resilient(Watched(script=["a b c"])).astream("hi")
    assert (await anext(chunks)).text == "a"
    await chunks.aclose()
    assert closed.is_set()

    closed.clear()
    chunks = resilient(Watched(script=["a b"])).astream("hi")
    texts = [(await anext(chunks)).text for _ in range(3)]
    waiting = asyncio.ensure_future(anext(chunks))
    await asyncio.sleep(0.05)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    await chunks.aclose()
    release.set()
    assert texts == ["a", " b", ""] and await asyncio.to_thread(closed.wait, 10)


@pytest.mark.parametrize("way", ["ainvoke", "astream"])
async def test_a_sync_models_error_is_its_own(way: str):
    """What a sync model raises reaches an async caller as it is."""
    error = await failure(resilient(SyncOnly(script=[BusyError("no")])), way)
    assert type(error) is BusyError and str(error) == "no"
