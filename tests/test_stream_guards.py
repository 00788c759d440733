"""Every guard of a stream over real HTTP: three real clients, sync and async, a faulty provider and a healthy one.

Before the first content a guard that fires costs the caller nothing but time: the next provider's text is all that is seen. After it
the caller is told what was shown (`on_interruption="raise"`). Whichever guard fires, the upstream call is cancelled for real.
"""

import asyncio
import contextlib
import socket
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice

import pytest

from langchain_resilient import Provider, ResilientChatModel, Retry, StreamInterruptedError, Timeouts, capture_decisions
from langchain_resilient.engine.events import Decision
from langchain_resilient.testing import Fault, FaultServer
from tests.clients import WIRES, ask, failure, fresh, spec

pytestmark = pytest.mark.e2e

GREETING = "Hello from the fault server."
SHOWN = "Hello from"  # two chunks of it
SHORT = 0.4  # seconds: a limit that is meant to fire, though not before a busy machine's server has read the request
LONG = 20.0  # seconds: one that is not; also the clients' own read timeout, which so never does our work
GONE_WITHIN = 10.0  # seconds that a busy machine is given to close a connection once a guard has fired
WAYS = ("stream", "astream")


@pytest.fixture(scope="module", autouse=True)
async def _warm() -> None:
    """Every client has answered once in each colour: what it imports then is no silence of a provider's."""
    with FaultServer() as server:
        for wire in WIRES:
            for way in WAYS:
                await ask(model_of(wire, server, server), way)


@pytest.fixture
def faulty() -> Iterator[FaultServer]:
    """A server that is told to misbehave."""
    with FaultServer() as server:
        yield server


@pytest.fixture
def healthy() -> Iterator[FaultServer]:
    """A server that isn't."""
    with FaultServer() as server:
        yield server


@pytest.fixture(params=WIRES)
def wire(request: pytest.FixtureRequest) -> str:
    """Each wire in turn."""
    return request.param


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> str:
    """Each colour in turn."""
    return request.param


def model_of(wire: str, faulty: FaultServer | Provider, healthy: FaultServer, **limits: float) -> ResilientChatModel:
    """A model over both, with these limits (seconds) for the first, and no others that could fire."""
    patient = {"connect": LONG, "first_token": LONG, "idle": LONG, "response": LONG}
    first = faulty if isinstance(faulty, Provider) else spec(faulty, wire, "one")
    return ResilientChatModel(
        providers=[replace(first, timeouts=Timeouts(**(patient | limits))), spec(healthy, wire, "two")],
        namespace=fresh(),
        retry=Retry(base_delay=0.0),
        timeouts=Timeouts(**patient),
        on_interruption="raise",
    )


def told(decisions: list[Decision]) -> list[tuple[str, str, str | None]]:
    """Who was tried, what came of it, and which limit fired."""
    [decision] = decisions
    return [(item.provider.rpartition("/")[2], item.kind, item.limit) for item in decision.attempts]


async def hung_up(*servers: FaultServer) -> bool:
    """Whether each provider's only request ended by the client's leaving, in time; says which did not."""
    until = time.monotonic() + GONE_WITHIN
    for server in servers:
        with contextlib.suppress(TimeoutError):  # on a starved machine the limit may be over before anything is sent
            await asyncio.to_thread(server.wait_for, 1)
        for request in server.requests:
            await asyncio.to_thread(request.wait_ended, max(until - time.monotonic(), 0.0))
        assert all(request.disconnected for request in server.requests) and server.count <= 1, server.requests
    return True


# ── Connect ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def deaf() -> Iterator[str]:
    """The URL of a port where nobody accepts: its line is full, so that a further connection is not even refused."""
    with contextlib.ExitStack() as held:
        listener = held.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            waiting = held.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a full line refuses")
async def test_connect(deaf: str, healthy: FaultServer, wire: str, way: str):
    """A provider that can't be connected to in time is left for the next one."""
    # Anthropic's client takes one limit for all: there the first token's is what fires.
    limits = {"first_token": SHORT} if wire == "anthropic" else {"connect": SHORT}
    base_url = f"{deaf}/v1" if wire == "openai" else deaf
    first = spec(healthy, wire, "one", model_kwargs={"base_url": base_url})
    model = model_of(wire, first, healthy, **limits)
    with capture_decisions() as decisions:
        assert await ask(model, way) == GREETING
    assert told(decisions) == [("one", "timeout", next(iter(limits))), ("two", "ok", None)]


# ── Silence ──────────────────────────────────────────────────────────────────────────────────────────────────────────

NO_CONTENT = {
    "nothing": Fault.hang(),
    "headers": Fault.hang_after(0),
    "keep-alives": Fault.keepalive(0.03),
    "empty deltas": Fault.keepalive(0.03, empty_deltas=True),
}
NO_MORE_CONTENT = {
    "nothing": Fault.hang_after(2),
    "keep-alives": Fault.keepalive(0.03, chunks=2),
    "empty deltas": Fault.keepalive(0.03, chunks=2, empty_deltas=True),
}


@pytest.mark.parametrize("silence", NO_CONTENT)
async def test_first_token(faulty: FaultServer, healthy: FaultServer, silence: str, wire: str, way: str):
    """A stream without content in time is left for the next provider, whose text is all that the caller sees."""
    faulty.always(NO_CONTENT[silence])
    with capture_decisions() as decisions:
        assert await ask(model_of(wire, faulty, healthy, first_token=SHORT), way) == GREETING
    assert told(decisions) == [("one", "timeout", "first_token"), ("two", "ok", None)]
    assert await hung_up(faulty)


@pytest.mark.parametrize("silence", NO_MORE_CONTENT)
async def test_idle(faulty: FaultServer, healthy: FaultServer, silence: str, wire: str, way: str):
    """A stream whose contents cease is an error that holds what was shown, whatever else still comes."""
    faulty.always(NO_MORE_CONTENT[silence])
    with capture_decisions() as decisions:
        error = await failure(model_of(wire, faulty, healthy, idle=SHORT), way)
    assert isinstance(error, StreamInterruptedError) and error.partial == SHOWN
    assert told(decisions) == [("one", "timeout", "idle")] and decisions[0].outcome == "interrupted"
    assert await hung_up(faulty) and healthy.count == 0


async def test_slow_contents_are_no_silence(faulty: FaultServer, healthy: FaultServer, wire: str, way: str):
    """A stream that takes longer than a limit in all, but not for any one content, is left alone."""
    faulty.always(Fault.slow(0.06, chunk_delay=0.06))
    faulty.answer("one two three four five six seven eight")
    with capture_decisions() as decisions:
        said = await ask(model_of(wire, faulty, healthy, first_token=0.4, idle=0.4), way)
    assert said == "one two three four five six seven eight"
    assert told(decisions) == [("one", "ok", None)] and decisions[0].seconds > 0.4


# ── Cuts and nonsense ────────────────────────────────────────────────────────────────────────────────────────────────

BREAKS = {  # how it breaks: the kind on record
    "ends early": (Fault.truncate, "stream_interrupted"),
    "is closed": (Fault.close_after, "server_error"),
    "is reset": (Fault.reset_after, "server_error"),
    "is malformed": (Fault.malformed, "server_error"),
    "says overloaded": (Fault.in_band_error, "overloaded"),
    "says server error": (lambda chunks: Fault.in_band_error(chunks, "server_error"), "server_error"),
}


@pytest.mark.parametrize("name", BREAKS)
async def test_a_break_before_content(faulty: FaultServer, healthy: FaultServer, name: str, wire: str, way: str):
    """A stream that breaks before its first content is another provider's from its first word on."""
    fault, kind = BREAKS[name]
    faulty.always(fault(0))
    with capture_decisions() as decisions:
        assert await ask(model_of(wire, faulty, healthy), way) == GREETING
    tries = 2 if kind == "server_error" else 1  # which alone is tried once more
    assert told(decisions) == [("one", kind, None)] * tries + [("two", "ok", None)]


@pytest.mark.parametrize("name", BREAKS)
async def test_a_break_after_content(faulty: FaultServer, healthy: FaultServer, name: str, wire: str, way: str):
    """A stream that breaks after its first content is an error with what was shown, and nobody else is asked."""
    fault, kind = BREAKS[name]
    faulty.always(fault(2))
    with capture_decisions() as decisions:
        error = await failure(model_of(wire, faulty, healthy), way)
    assert isinstance(error, StreamInterruptedError) and error.partial == SHOWN
    assert told(decisions) == [("one", kind, None)] and decisions[0].outcome == "interrupted"
    assert healthy.count == 0


async def test_a_missing_end_mark(faulty: FaultServer, healthy: FaultServer, wire: str, way: str):
    """A stream that lacks only its end mark is whole; Ollama's is its finish reason too, and without that it is cut."""
    faulty.always(Fault.no_done())
    model = model_of(wire, faulty, healthy)
    with capture_decisions() as decisions:
        if wire == "ollama":
            error = await failure(model, way)
            assert isinstance(error, StreamInterruptedError) and error.partial == GREETING
        else:
            assert await ask(model, way) == GREETING
    kind = "stream_interrupted" if wire == "ollama" else "ok"
    assert told(decisions) == [("one", kind, None)] and healthy.count == 0


# ── The caller ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("silence", NO_MORE_CONTENT)
async def test_a_caller_that_leaves(faulty: FaultServer, healthy: FaultServer, silence: str, wire: str):
    """A caller that stops reading ends the upstream call, and nobody else is asked."""
    faulty.always(NO_MORE_CONTENT[silence])
    chunks = model_of(wire, faulty, healthy).astream("hi")
    async for chunk in chunks:
        if chunk.text:
            break
    await chunks.aclose()
    assert await hung_up(faulty) and healthy.count == 0


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(Fault.slow(0, chunk_delay=0.05), id="talking"),
        pytest.param(Fault.hang_after(2), id="silent"),
    ],
)
async def test_a_sync_caller_that_leaves(faulty: FaultServer, healthy: FaultServer, fault: Fault, wire: str):
    """A caller that stops reading ends the upstream call in a sync stream too, whether or not the provider is talking."""
    faulty.answer("word " * 500)
    faulty.always(fault)
    chunks = model_of(wire, faulty, healthy).stream("hi")
    shown = list(islice((chunk.text for chunk in chunks if chunk.text), 2))
    await asyncio.sleep(0.1)  # the caller thinks, and whoever reads ahead of it waits for the provider
    chunks.close()
    assert await hung_up(faulty) and shown == ["word", " word"] and healthy.count == 0
