"""The example application of compose.yaml, as a plain process: it asks, is scraped, falls back on request, and ends when it is told to."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.deploy.exported import exported
from tests.reaper import tell_reaper
from tests.servers import Server, binary_or_skip, valkey_binary

APP = Path(__file__).parent.parent.parent / "deploy" / "app.py"
ANSWERED = {"outcome": "answered", "provider": "anthropic/claude-sonnet-4-5"}

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]


@pytest.fixture(scope="module")
def running() -> Iterator[tuple[subprocess.Popen[str], httpx.Client]]:
    """The application with a shared store; told to end, it does."""
    with Server(binary_or_skip(valkey_binary)) as server:
        settings = {"PORT": "0", "HOST": "127.0.0.1", "REDIS_URL": server.url, "STORY": "off", "RATE": "10"}
        process = subprocess.Popen(
            [sys.executable, APP],
            env=os.environ | settings,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        tell_reaper("+", process.pid)
        try:
            said = process.stdout.readline()
            found = re.fullmatch(r"(http://127\.0\.0\.1:\d+)/metrics\n", said)
            assert found, said + process.communicate(timeout=30)[0]
            with httpx.Client(base_url=found.group(1), timeout=20) as client:
                yield process, client
            process.send_signal(signal.SIGTERM)
            rest, _ = process.communicate(timeout=30)
            assert process.returncode == 0, rest
            assert "Traceback" not in rest
        finally:
            process.kill()
            process.communicate()
            tell_reaper("-", process.pid)


def samples(client: httpx.Client) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """What a Prometheus would be given."""
    families = text_string_to_metric_families(client.get("/metrics").text)
    return {(it.name, frozenset(it.labels.items())): it.value for family in families for it in family.samples}


def until(condition: Callable[[], object]) -> None:
    """Wait until it holds."""
    deadline = time.monotonic() + 40
    while not condition():
        assert time.monotonic() < deadline, "it never came to be"
        time.sleep(0.1)


def test_it_answers_and_is_scraped(running):
    """Users are answered by the first provider, with usage and cost; all that is scraped of ours has a name that the rules may use."""
    _, client = running
    first = frozenset({"provider": "openai/gpt-4.1"}.items())
    until(lambda: samples(client).get(("llm_resilient_cost_usd_total", first), 0) > 0)
    until(lambda: samples(client).get(("llm_resilient_first_token_seconds_count", first), 0) > 0)
    names = {
        name
        for name, _ in samples(client)
        if not name.startswith(("python_", "process_")) and not name.endswith("_created")
    }
    assert names <= set(exported())
    assert samples(client)["llm_resilient_store_degraded", frozenset()] == 0
    assert client.get("/status").json()["openai/gpt-4.1"]["circuit"] == "closed"


def test_a_fault_that_is_asked_for_is_played(running):
    """503s at the first: its circuit opens and the next answers; a fault or provider that it does not know is 404, with those that it does."""
    _, client = running
    assert client.post("/faults/openai/503").status_code == 204
    first = ("circuit_breaker_state", frozenset({"provider": "openai/gpt-4.1"}.items()))
    until(lambda: samples(client)[first] == 2)
    until(lambda: samples(client).get(("llm_resilient_requests_total", frozenset(ANSWERED.items())), 0) > 3)
    assert client.post("/faults/openai/ok").status_code == 204
    for unknown in ("openai/504", "gemini/503", "openai"):
        refused = client.post(f"/faults/{unknown}")
        assert refused.status_code == 404 and "openai|anthropic|ollama/ok|503|" in refused.text
    assert client.get("/").status_code == 404
