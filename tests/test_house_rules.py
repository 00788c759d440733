"""The rules of conftest.py hold: nothing dials out, no secret leaks in, system tests are skipped by name or run."""

import asyncio
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

REMOTE = "192.0.2.1"  # TEST-NET-1: nobody's
CONFTEST = Path(__file__).with_name("conftest.py")


@pytest.mark.parametrize("host", [REMOTE, "example.com", "2001:db8::1"])
def test_connecting_beyond_this_machine_is_refused_and_recorded(host: str, dialled: list[str]):
    """A socket to a foreign address or name fails at once, and the attempt is kept even if the error is swallowed."""
    with pytest.raises(ConnectionError, match="nothing beyond this machine"):
        socket.create_connection((host, 443), timeout=1)
    assert len(dialled) == 1
    dialled.clear()


async def test_asyncio_is_refused_too(dialled: list[str]):
    """The rule holds where names are resolved in a thread and sockets connect without create_connection."""
    with pytest.raises(ConnectionError, match="nothing beyond this machine"):
        await asyncio.open_connection("example.com", 443)
    assert len(dialled) == 1
    dialled.clear()


async def test_loopback_works():
    """Servers on this machine can be reached, by number and by name."""
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        for host in ("127.0.0.1", "localhost"):
            reader, writer = await asyncio.open_connection(host, port, family=socket.AF_INET)
            assert await reader.read() == b""
            writer.close()


def test_environment_is_scrubbed():
    """No key, endpoint, tracing switch or proxy of the developer reaches a client."""
    prefixes = ("OPENAI_", "ANTHROPIC_", "OLLAMA_HOST", "LANGSMITH_", "LANGCHAIN_")
    left = [name for name in os.environ if name.upper().startswith(prefixes) or name.upper().endswith("_PROXY")]
    assert sorted(left) == ["NO_PROXY", "no_proxy"]
    assert os.environ["NO_PROXY"] == os.environ["no_proxy"] == "127.0.0.1,localhost"


SAMPLE = """
import os, pytest, socket
@pytest.mark.system("redis-server", "chromium")
def test_needs_packages():
    {body}
def test_needs_none():
    assert not os.environ.get("OPENAI_API_KEY") and not os.environ.get("https_proxy")
def test_swallows():
    try:
        socket.getaddrinfo("example.com", 443)
    except OSError:
        pass
"""


def run_sample(directory: Path, *options: str, body: str = "pass") -> str:
    """Run three tests under this conftest in a process of their own, with secrets in the environment."""
    (directory / "conftest.py").write_text(CONFTEST.read_text())
    (directory / "test_sample.py").write_text(SAMPLE.format(body=body))
    (directory / "pytest.ini").write_text("[pytest]\nmarkers =\n    system(*apt_packages): x\n")
    environment = os.environ | {"OPENAI_API_KEY": "sk-real", "https_proxy": "http://proxy.example:3128"}
    command = [sys.executable, "-m", "pytest", "-rA", "--tb=line", "-p", "no:cacheprovider", *options]
    return subprocess.run(command, cwd=directory, env=environment, capture_output=True, text=True, check=False).stdout


def test_system_tests_are_skipped_by_name_and_swallowed_dialling_is_found(tmp_path: Path):
    """`make test` lists what it left out, with the packages; a test that hides its dialling out fails all the same."""
    printed = run_sample(tmp_path)
    assert "1 skipped: they need system packages, and `make test-full` runs them" in printed
    assert "test_sample.py::test_needs_packages  (needs redis-server, chromium)" in printed
    assert "PASSED test_sample.py::test_needs_none" in printed
    assert "ERROR test_sample.py::test_swallows" in printed


def test_system_tests_run_on_request_and_may_not_skip_then(tmp_path: Path):
    """`make test-full` learns the packages from the marks, and a skip there is a failure."""
    listing = tmp_path / "packages"
    assert "1 passed" in run_sample(tmp_path, "--system", "-m", "system", f"--write-system-packages={listing}")
    assert listing.read_text().split() == ["chromium", "redis-server"]
    assert "1 failed" in run_sample(tmp_path, "--system", "-m", "system", body='pytest.skip("no binary")')
