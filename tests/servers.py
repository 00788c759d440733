"""Real Redis-compatible servers for tests: start them, hurt them, and leave nothing behind.

Rules of this file:

- Each server is a process of its own on 127.0.0.1 (or a unix socket), without persistence, in a directory of its own.
- It ends by its pid, however the test ends: `close()` (or `with`), and where nobody came to call that, `tests/reaper.py`.
- Ports lie below those that the system hands to outgoing connections: a killed server finds its port free again when it is restarted.

`tests/server_binaries.py` has where the servers come from, `tests/server_groups.py` what consists of several: a cluster, a primary with
sentinels.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

from tests.reaper import tell_reaper
from tests.server_binaries import NoServerError, apt_binary, binary_or_skip, floor_binary, valkey_binary
from tests.tls import HOST, Tunnel, certificates, has_tls

__all__ = [
    "HOST",
    "MINIMUM_RIGHTS",
    "NoServerError",
    "Server",
    "apt_binary",
    "binary_or_skip",
    "client_of",
    "floor_binary",
    "free_port",
    "rights",
    "until",
    "valkey_binary",
]

# Below the ephemeral ports of Linux (32768) and macOS (49152); a cluster's nodes also take the port 10 000 above.
PORTS = range(11_000, 22_000)
BUS = 10_000
# What a user of the library needs to be allowed, beside the key and channel pattern (see `rights`): the courier's own commands, and those
# that the scripts call, which Redis checks as well. A database other than 0 needs +select besides, a Cluster +cluster|slots.
MINIMUM_RIGHTS = (
    "-@all +evalsha +script|load +ping +client|setname +subscribe"
    " +time +get +set +pexpire +publish +hmget +hset +hincrby +hgetall +lindex +llen +lpop +lpos +lrem +rpush"
    " +zadd +zcard +zcount +zrange +zrem +zremrangebyscore +zscore"
)


# ── helpers ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def free_port() -> int:
    """A port on which nobody listens now, nor on the cluster bus's port that belongs to it."""
    for _ in range(200):
        port = PORTS[secrets.randbelow(len(PORTS))]
        try:
            for each in (port, port + BUS):
                with socket.socket() as probe:
                    probe.bind((HOST, each))
        except OSError:
            continue
        return port
    raise RuntimeError("no free port found")


def until(condition: Callable[[], Any], what: str, within: float = 10.0) -> Any:
    """Wait for a condition, asking every 10 ms; an error of the server or the network counts as not yet."""
    from redis.exceptions import RedisError

    deadline, last = time.monotonic() + within, None
    while time.monotonic() < deadline:
        try:
            if found := condition():
                return found
        except (RedisError, OSError) as error:
            last = error
        time.sleep(0.01)
    raise AssertionError(f"not within {within} s: {what}" + (f" (last: {type(last).__name__}: {last})" if last else ""))


def rights(pattern: str) -> str:
    """The ACL rule of a user who may do no more than the library needs, on keys and channels of this pattern."""
    return f"resetkeys ~{pattern} resetchannels &{pattern} {MINIMUM_RIGHTS}"


def client_of(url: str, **options: Any) -> Any:
    """A plain redis-py client that gives up after two seconds and never tries twice."""
    import redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    bounds = {"socket_timeout": 2.0, "socket_connect_timeout": 2.0, "retry": Retry(NoBackoff(), 0)}
    return redis.Redis.from_url(url, **(bounds | options))


# ── one server ───────────────────────────────────────────────────────────────────────────────────────────────────────


class Server:
    """One running server: started by the constructor, gone after `close()` or the `with` block.

    Args:
        binary: What to run; left out: `valkey_binary()`.
        port: Where to listen; left out: a free port.
        unix: Listen on a unix socket instead of a port.
        tls: Listen with TLS only, with certificates made on the spot (`ca` is the path of the authority's). The wheels' servers know
            no TLS: they get a tunnel in front, which takes connections also while the server is killed, and then hangs up.
        password: Of the user `default`; left out: none needed.
        users: Further users, each name with its password and its ACL rule.
        maxmemory: As in redis.conf, e.g. "3mb": beyond it, writes are refused (nothing is evicted).
        maxclients: How many connections are taken.
        replica_of: The server to replicate; the constructor returns when the first copy is complete.
        config: Further lines of redis.conf.
        sentinel: Run as a sentinel.
    """

    def __init__(
        self,
        binary: Path | None = None,
        *,
        port: int | None = None,
        unix: bool = False,
        tls: bool = False,
        password: str | None = None,
        users: Mapping[str, tuple[str, str]] | None = None,
        maxmemory: str | None = None,
        maxclients: int | None = None,
        replica_of: Server | None = None,
        config: Sequence[str] = (),
        sentinel: bool = False,
    ) -> None:
        self.binary = binary or valkey_binary()
        self.unix, self.tls, self.sentinel, self.password = unix, tls, sentinel, password
        self.users = dict(users or {})
        self.folder = Path(tempfile.mkdtemp(prefix="lr-server-"))
        tell_reaper("+", self.folder)
        self.ca: Path | None = None
        self._log = self.folder / "log"
        self._process: subprocess.Popen[bytes] | None = None
        self._tunnel: Tunnel | None = None
        self._clients: list[Any] = []
        lines = [*self._settings(maxmemory, maxclients, replica_of), *config]
        try:
            self._first_start(port, lines)
            if replica_of is not None:
                until(lambda: self.info("replication")["master_link_status"] == "up", "the replica has its first copy")
        except BaseException:
            self.close()
            raise

    # ── what it is ──

    @property
    def socket_path(self) -> Path:
        """Its unix socket, if it has one."""
        return self.folder / "socket"

    @property
    def url(self) -> str:
        """How redis-py finds it, as the user `default`; it holds the password, and for TLS the authority's path."""
        return self.url_of(None)

    def url_of(self, user: str | None, password: str | None = None) -> str:
        """The same as one of its `users`, or with another password."""
        known = self.users[user][0] if user in self.users else self.password
        secret = password if password is not None else known
        who = f"{quote(user or '')}:{quote(secret)}@" if secret is not None else ""
        if self.unix:
            return f"unix://{who}{self.socket_path}"
        query = f"?ssl_ca_certs={quote(str(self.ca))}" if self.tls else ""
        return f"redis{'s' if self.tls else ''}://{who}{HOST}:{self.port}{query}"

    def client(self, **options: Any) -> Any:
        """A plain redis-py client; closed with the server."""
        client = client_of(self.url, **options)
        self._clients.append(client)
        return client

    def info(self, section: str) -> dict[str, Any]:
        """A section of INFO."""
        with client_of(self.url) as client:
            return client.info(section)

    @property
    def pid(self) -> int:
        """Of the present or the last process."""
        assert self._process is not None
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the process is there, be it running or stopped."""
        return self._process is not None and self._process.poll() is None

    # ── what can be done to it ──

    def kill(self) -> None:
        """SIGKILL; returns when the process is gone. Its port is kept for `restart`."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            self._process.wait()
            tell_reaper("-", self._process.pid)

    def stop(self) -> None:
        """SIGSTOP: it accepts connections (the kernel does) and never answers. Returns when it has stopped."""
        os.kill(self.pid, signal.SIGSTOP)
        os.waitpid(self.pid, os.WUNTRACED)

    def cont(self) -> None:
        """SIGCONT: it goes on, with whatever it was sent meanwhile."""
        os.kill(self.pid, signal.SIGCONT)

    def restart(self) -> None:
        """Kill it unless that is done, and start it again at the same place, empty; a cluster's node knows its cluster again."""
        self.kill()
        self._start()

    def promote(self) -> None:
        """Make a replica a primary."""
        with client_of(self.url) as client:
            client.replicaof("NO", "ONE")

    def close(self) -> None:
        """End it and remove its directory; once is enough, twice does no harm."""
        while self._clients:
            self._clients.pop().close()
        self.kill()
        if self._tunnel is not None:
            self._tunnel.close()
            self._tunnel = None
        shutil.rmtree(self.folder, ignore_errors=True)
        tell_reaper("-", self.folder)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    # ── how it is started ──

    def _settings(self, maxmemory: str | None, maxclients: int | None, replica_of: Server | None) -> list[str]:
        """The lines of redis.conf that do not depend on the port."""
        lines = [f"bind {HOST}", f"dir {self.folder}", "daemonize no"]
        if self.sentinel:
            return lines
        # Replicas get their first copy at once: by default a primary waits 5 s for more of them.
        lines += ['save ""', "appendonly no", "repl-diskless-sync yes", "repl-diskless-sync-delay 0"]
        lines += [f"maxmemory {maxmemory}"] if maxmemory else []
        lines += [f"maxclients {maxclients}"] if maxclients else []
        lines += [f"requirepass {self.password}"] if self.password else []
        lines += [f"user {name} on >{password} {rule}" for name, (password, rule) in self.users.items()]
        if replica_of is not None:
            lines += [f"replicaof {HOST} {replica_of.port}"]
            lines += [f"masterauth {replica_of.password}"] if replica_of.password else []
        return lines

    def _listening(self) -> list[str]:
        """The lines that say where to listen."""
        at_socket = ["port 0", f"unixsocket {self.socket_path}"]
        if self.unix:
            return at_socket
        if not self.tls:
            return [f"port {self.port}"]
        self.ca, certificate, key = certificates(self.folder)
        if not has_tls(self.binary):
            self._tunnel = Tunnel(self.port, certificate, key, self.socket_path)
            return at_socket
        files = [f"tls-cert-file {certificate}", f"tls-key-file {key}", f"tls-ca-cert-file {self.ca}"]
        return ["port 0", f"tls-port {self.port}", *files, "tls-auth-clients no"]

    def _first_start(self, port: int | None, lines: list[str]) -> None:
        """Start it, at another port if somebody was faster to take this one."""
        for last in (False, False, False, False, True):
            self.port = 0 if self.unix else port or free_port()
            try:
                (self.folder / "server.conf").write_text("\n".join([*self._listening(), *lines, ""]))
                self._start()
            except (RuntimeError, OSError) as error:
                if last or port is not None or "in use" not in str(error):
                    raise
            else:
                return

    def _start(self) -> None:
        """Start the process, and return when it takes connections: its log says so, a port may be answered by another."""
        command = [str(self.binary), str(self.folder / "server.conf"), *(["--sentinel"] if self.sentinel else [])]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.folder, start_new_session=True
            )
        tell_reaper("+", self._process.pid)
        # "Ready" of a port, "now ready" of Redis 6.2's socket; a sentinel names what it watches instead.
        ready = b"+monitor" if self.sentinel else b"eady to accept connections"
        deadline = time.monotonic() + 10
        while ready not in self._log.read_bytes():
            if not self.alive or time.monotonic() > deadline:
                self.kill()
                raise RuntimeError(f"{self.binary} did not start:\n{self._log.read_text(errors='replace')[-2000:]}")
            time.sleep(0.005)
