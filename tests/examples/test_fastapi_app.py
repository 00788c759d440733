"""The web service of the examples, as it stands, over real HTTP: limits, outages, clients that hang up, two workers."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from langchain_resilient.testing import Fault, FaultServer
from tests.servers import Server, binary_or_skip, free_port, valkey_binary

EXAMPLES = Path(__file__).parent.parent.parent / "examples"
ASKED = {"json": {"text": "Hello"}, "headers": {"Authorization": "Bearer demo"}}
OTHER = ASKED | {"headers": {"Authorization": "Bearer other"}}
OPENAI = "openai/gpt-4.1"

pytestmark = pytest.mark.e2e


def until(condition: Callable[[], Any], within: float = 10.0) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline, "it never came to be"
        time.sleep(0.02)


def answers(client: httpx.Client) -> bool:
    """Whether the service is there."""
    try:
        return client.get("/status").status_code == 200
    except httpx.TransportError:
        return False


@contextmanager
def services(
    count: int, openai: FaultServer, anthropic: FaultServer, **environment: str
) -> Iterator[list[httpx.Client]]:
    """The example in so many uvicorns, each a process of its own; a client of each."""
    keys = {"OPENAI_API_KEY": "test-key", "ANTHROPIC_API_KEY": "test-key"}
    urls = {"OPENAI_BASE_URL": openai.base_url("openai"), "ANTHROPIC_BASE_URL": anthropic.base_url("anthropic")}
    left = {name: value for name, value in os.environ.items() if name != "REDIS_URL"}
    command = [sys.executable, "-m", "uvicorn", "--app-dir", EXAMPLES, "fastapi_app:app", "--port"]
    with ExitStack() as stack:
        clients = []
        for port in [free_port() for _ in range(count)]:
            process = subprocess.Popen(
                [*command, str(port)], env=left | keys | urls | environment,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            )  # fmt: skip
            stack.callback(end, process)
            client = stack.enter_context(httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=20))
            clients.append((client, process))
        for client, process in clients:
            until(lambda: process.poll() is not None or answers(client), 50)  # noqa: B023  # called before the next round
            assert process.poll() is None, process.stdout.read()
        yield [client for client, _ in clients]


def end(process: subprocess.Popen[str]) -> None:
    """As Ctrl-C does."""
    process.send_signal(signal.SIGINT)
    try:
        process.communicate(timeout=15)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def providers() -> Iterator[tuple[FaultServer, FaultServer]]:
    """OpenAI and Anthropic."""
    with FaultServer() as openai, FaultServer() as anthropic:
        yield openai, anthropic


@pytest.fixture(scope="module")
def running(providers: tuple[FaultServer, FaultServer]) -> Iterator[httpx.Client]:
    """One service in memory for the tests of this file that use up no limit of a user that another uses."""
    with services(1, *providers) as [client]:
        yield client


@pytest.fixture
def openai(providers: tuple[FaultServer, FaultServer]) -> Iterator[FaultServer]:
    """The first provider, well at the beginning and the end."""
    for server in providers:
        server.answer("It is fine, thank you.")
        server.reset_log()
    yield providers[0]
    for server in providers:
        server.always(Fault.ok())


def running_at(client: httpx.Client, provider: str = OPENAI) -> int:
    """Attempts that hold a place at a provider."""
    return int(client.get("/status").json()[provider]["running"])


def test_limits_are_told_and_are_each_users_own(openai: FaultServer, running: httpx.Client):
    """An unknown token is 401; five answers at once for a user, then 429 with an exact Retry-After; another user goes on."""
    unknown = running.post("/generate", json={"text": "Hi"}, headers={"Authorization": "Bearer nobody"})
    assert unknown.status_code == 401
    assert unknown.headers["www-authenticate"] == "Bearer"
    assert running.post("/generate", json={"text": "Hi"}).status_code == 401
    first = running.post("/generate", **ASKED)
    assert first.json() == {"text": "It is fine, thank you."}
    assert first.headers["ratelimit-policy"] == '"rpm";q=20;w=60, "tpm";q=60000;w=60;qu="tokens"'
    assert first.headers["ratelimit"].startswith('"rpm";r=4;t=3, "tpm";r=9000;')
    stream = running.post("/generate/stream", **ASKED)
    assert re.match(
        '"rpm";r=3;.*"tpm";r=[89]...;', stream.headers["ratelimit"]
    )  # the first was settled to what it took
    for _ in range(3):
        assert running.post("/generate", **ASKED).status_code == 200
    refused = running.post("/generate", **ASKED)
    assert refused.status_code == 429
    exact = refused.json()["detail"]["retry_after"]
    assert 0 < exact <= 3
    assert refused.headers["retry-after"] == str(-int(-exact // 1))
    assert openai.count == 5
    assert running.post("/generate", **OTHER).status_code == 200
    time.sleep(exact)
    assert running.post("/generate", **ASKED).status_code == 200


def test_streams_come_as_events(openai: FaultServer, running: httpx.Client):
    """Each chunk is one, and all together are the answer."""
    with running.stream("POST", "/generate/stream", **OTHER) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        lines = list(response.iter_lines())
    texts = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: ")]
    assert "".join(texts) == "It is fine, thank you."
    assert lines.count("event: done") == 1
    assert len(texts) > 3


@pytest.mark.parametrize(
    ("path", "fault"),
    [
        ("/generate", Fault.hang()),
        ("/generate/stream", Fault.hang()),
        ("/generate/stream", Fault.slow(0.0, chunk_delay=0.3)),
    ],
    ids=["before an answer", "before the first word", "midway"],
)
def test_a_client_that_hangs_up_ends_the_call(openai: FaultServer, running: httpx.Client, path: str, fault: Fault):
    """The provider sees the disconnect, and the place there is free again."""
    openai.schedule(fault)
    with httpx.Client(base_url=running.base_url) as leaver:
        if fault.name == "hang":
            with pytest.raises(httpx.ReadTimeout):
                leaver.post(path, **OTHER, timeout=0.5)
        else:
            with leaver.stream("POST", path, **OTHER) as response:
                next(response.iter_lines())
    record = openai.wait_for(1)[0]
    assert record.wait_ended(5)
    assert record.disconnected
    until(lambda: running_at(running) == 0)


def test_what_nobody_could_answer_costs_nothing(openai: FaultServer):
    """503 with Retry-After, more often than the limit would allow."""
    with FaultServer() as anthropic, services(1, openai, anthropic) as [client]:
        for server in (openai, anthropic):
            server.always(Fault.status(401))
        for path in ("/generate", "/generate/stream") * 4:
            failed = client.post(path, **ASKED)
            assert failed.status_code == 503
            assert int(failed.headers["retry-after"]) >= 1


def test_workers_share_limits(openai: FaultServer):
    """With REDIS_URL, whichever worker is asked: five at once for a user, and not five of each."""
    with (
        Server(binary_or_skip(valkey_binary)) as server,
        FaultServer() as anthropic,
        services(2, openai, anthropic, REDIS_URL=server.url) as workers,
    ):
        statuses = [client.post("/generate", **ASKED).status_code for client in workers * 5]
        assert statuses[:5] == [200] * 5
        assert 5 <= statuses.count(200) <= 6  # one more comes back each 3 s
        with server.client() as client:
            assert not [key for key in client.keys("*") if b"user-1" in key]
