"""What holds for every test: a scrubbed environment, no socket beyond this machine, system tests by request only.

The environment is scrubbed while this file is imported, before any client library can read it, and never restored.
The socket rule is an audit hook, not a patched `socket`: it holds from here to the end of the process, in threads,
fixtures and imports alike, and a library that swallows the error is found out all the same.
"""

import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from uuid import uuid4

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from tests.servers import Server  # at run time inside the fixtures: tests/test_house_rules.py copies this file

_OUTSIDE = dict(os.environ)
SCRUBBED = (
    "OPENAI_", "ANTHROPIC_", "OLLAMA_HOST", "LANGSMITH_", "LANGCHAIN_", "GOOGLE_API_KEY", "GEMINI_API_KEY", "MISTRAL_API_KEY",
    "GROQ_API_KEY", "DEEPSEEK_API_KEY", "XAI_API_KEY",
)  # fmt: skip

for _name in list(os.environ):
    if _name.upper().startswith(SCRUBBED) or _name.upper().endswith("_PROXY"):
        del os.environ[_name]
os.environ["NO_PROXY"] = os.environ["no_proxy"] = "127.0.0.1,localhost"

# House rule: a test asserts no timings, so an example may take as long as a busy machine needs.
settings.register_profile("house", deadline=None, print_blob=True)
settings.load_profile("house")


def pytest_xdist_auto_num_workers() -> int:
    """How many workers `-n auto` takes: one more than there are cores, as tests that wait leave a quarter of two cores idle."""
    return len(os.sched_getaffinity(0)) + 1 if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1) + 1


def _hosts_of(url: str) -> set[str]:
    """The host names of a URL, and what they resolve to: a CI service is no address of this machine."""
    hosts = {part.rpartition("@")[2].partition(":")[0] for part in urlsplit(url).netloc.split(",")} - {""}
    return hosts | {str(found[4][0]) for host in hosts for found in socket.getaddrinfo(host, None)}


# The one exception from the rule below, because whoever runs the tests names it: a Redis server to use.
REDIS_URL = os.environ.get("REDIS_URL")
_ALLOWED = _hosts_of(REDIS_URL) if REDIS_URL else set()


class DialledOutError(ConnectionError):
    """A test reached for an address beyond this machine."""


_dialled: list[str] = []


def is_local(host: object) -> bool:
    """Whether a host, as the socket module is given it, is this machine."""
    text = host.decode(errors="replace") if isinstance(host, bytes) else host
    if text in (None, "", "localhost") or text in _ALLOWED:
        return True
    try:
        return ip_address(str(text).split("%")[0]).is_loopback
    except ValueError:
        return False  # a name: looking it up dials out as well


def _refuse_remote(event: str, arguments: tuple) -> None:
    if event in ("socket.connect", "socket.sendto"):
        address = arguments[1]
        remote = isinstance(address, tuple) and not is_local(address[0])  # unix sockets have a path
    elif event == "socket.getaddrinfo":
        address = arguments[:2]
        # Numbers need no resolver, and servers resolve the wildcard address in order to bind it.
        remote = not is_local(address[0]) and address[0] not in ("0.0.0.0", "::")  # noqa: S104  # nothing is bound
    else:
        return
    if remote:
        _dialled.append(f"{event} {address}")
        raise DialledOutError(f"tests reach nothing beyond this machine: {event} {address}")


sys.addaudithook(_refuse_remote)


@pytest.fixture(scope="session")
def outside_environment() -> dict[str, str]:
    """The environment as it was before the scrubbing, for a test that runs pip: an index may be behind a proxy."""
    return dict(_OUTSIDE)


@pytest.fixture
def dialled() -> list[str]:
    """The attempts to dial out so far. A test that makes one on purpose clears it."""
    return _dialled


@pytest.fixture(autouse=True)
def _nothing_dials_out(dialled: list[str]) -> Iterator[None]:
    """Fail the test during which something tried to dial out, even if the error was swallowed."""
    yield
    attempts, dialled[:] = list(dialled), []
    assert not attempts, f"something dialled out (and may have swallowed the refusal): {attempts}"


# ── Redis-compatible servers: tests/servers.py ───────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="session")
def redis_server() -> Iterator["Server"]:
    """A Valkey 9 of this xdist worker's own, for tests that only use it; whoever hurts a server starts another."""
    from tests.servers import Server, binary_or_skip, valkey_binary

    with Server(binary_or_skip(valkey_binary)) as server:
        yield server


@pytest.fixture(scope="session")
def redis_url(request: pytest.FixtureRequest) -> str:
    """The server to use: REDIS_URL, which others may share (so each test keeps to its `namespace`), else `redis_server`."""
    return REDIS_URL or request.getfixturevalue("redis_server").url


@pytest.fixture
def namespace() -> str:
    """A namespace that no other test uses, nor another run on the same server."""
    return f"test-{uuid4().hex}"


@pytest.fixture(scope="module")
def much_of_the_machine() -> Iterator[None]:
    """For tests that start many processes, and for those whose times are short: none of them runs beside another, in any xdist worker.

    Who asks for it waits for the others, so its module's `timeout` must have room for that.
    """
    import fcntl
    import tempfile

    with (Path(tempfile.gettempdir()) / f"langchain-resilient-tests-{os.getuid()}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@pytest.fixture(
    scope="session",
    params=["valkey", "redis-6.2", pytest.param("redis-apt", marks=pytest.mark.system("redis-server"))],
)
def every_redis(request: pytest.FixtureRequest) -> Iterator["Server"]:
    """Each server that is supported, in turn: the newest, the oldest, and (in `make test-full`) the distribution's."""
    from tests.servers import Server, apt_binary, binary_or_skip, floor_binary, valkey_binary

    find = {"valkey": valkey_binary, "redis-6.2": floor_binary, "redis-apt": apt_binary}[request.param]
    with Server(binary_or_skip(find)) as server:
        yield server


# ── tests that need system packages ──────────────────────────────────────────────────────────────────────────────────


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options of scripts/system_tests.py."""
    parser.addoption("--system", action="store_true", help="run the tests marked `system` instead of skipping them")
    parser.addoption("--write-system-packages", metavar="FILE", help="write the Debian packages that the marks name")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip the system tests unless they are asked for; each must name what it needs."""
    for item in items:
        for mark in item.iter_markers("system"):
            if not mark.args:
                raise pytest.UsageError(f"{item.nodeid}: @pytest.mark.system names no Debian package")
            if not config.getoption("--system"):
                item.add_marker(pytest.mark.skip(reason=f"needs {', '.join(mark.args)}"))


def pytest_collection_finish(session: pytest.Session) -> None:
    """Write down what the selected tests need."""
    if path := session.config.getoption("--write-system-packages"):
        marks = [mark for item in session.items for mark in item.iter_markers("system")]
        Path(path).write_text("\n".join(sorted({package for mark in marks for package in mark.args})))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """With --system, a system test that skips itself has failed: `make test-full` installs or fails."""
    report = yield
    if report.skipped and item.config.getoption("--system") and item.get_closest_marker("system"):
        report.outcome = "failed"
        report.longrepr = f"skipped although its packages are installed: {report.longrepr}"
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """List by name what `make test` left to `make test-full`."""
    if config.getoption("--system"):
        return
    # The report of a file that is skipped as a whole has no keywords.
    skipped = terminalreporter.stats.get("skipped", [])
    left = [report for report in skipped if "system" in getattr(report, "keywords", ())]
    if left:
        terminalreporter.section(f"{len(left)} skipped: they need system packages, and `make test-full` runs them")
        for report in left:
            terminalreporter.line(f"{report.nodeid}  ({report.longrepr[2].removeprefix('Skipped: ')})")


if signal.getsignal(signal.SIGINT) is signal.SIG_IGN and threading.current_thread() is threading.main_thread():
    # A suite that was started in the background inherits this, and so would the processes that are sent a Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
