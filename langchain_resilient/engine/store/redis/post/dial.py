"""From a URL to a connected redis-py connection.

Rules of this file
------------------
* redis-py is imported here and nowhere else, when the first URL is read. Features are probed, never versions (5.3 … 8.1).
* Every default that could wait, retry or run a script twice is passed explicitly: redis-py's own wait 3.6 s for a refused port and for ever
  for a server that hangs. RESP2 always: RESP3 lets a server push messages, some of which stretch these very timeouts. A URL that sets one of
  these is refused: ignored in silence, it would be looked for in vain.
* Nothing is sent that a user needs a right for, and we have no need of: redis-py would tell its own name and version (CLIENT SETINFO), go on
  where it may not, and leave two lines in the server's ACL LOG each time.
* What the URL holds between `://` and `@`, and behind `?`, is in no message, no repr and no log.
* A cluster's layout is asked for (`CLUSTER SLOTS`) and followed; its nodes are dialled like any server. redis-py's cluster client would
  follow redirections and reconnect within one command, for longer than a decision may take.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator, Sequence
from string import ascii_lowercase
from typing import Any, NamedTuple
from urllib.parse import parse_qsl

from langchain_resilient.engine.errors import SettingsError
from langchain_resilient.engine.store.redis.post.troubles import Trouble, trouble

CLIENT_NAME = "langchain-resilient"
FORMS = (
    "expected redis://[user:password@]host[:port][/db], rediss://… (TLS), unix:///path?db=0, "
    "redis+cluster://host:port[,host:port] or redis+sentinel://host:port[,host:port]/service[/db]; "
    "characters of a password such as @ : / # are written %40 %3A %2F %23"
)
UNTOLD = ("driver_info", "lib_name", "lib_version")
"""What redis-py sends with CLIENT SETINFO, by the names that one version or another has for it."""
FIXED = frozenset((
    "decode_responses", "health_check_interval", "max_connections", "protocol", "retry", "retry_on_error", "retry_on_timeout",
    "socket_connect_timeout", "socket_timeout", *UNTOLD,
))  # fmt: skip
"""What the courier relies on, and a URL may not set."""
IN_SCHEMES = f"{ascii_lowercase}+"
"""What a scheme is made of that is quoted: anything else may be a password that slipped to the front."""


class Denied(SettingsError):  # noqa: N818  # it is what happened, as the specification of the store names it
    """The server is there, and refuses this user: a wrong password, or a right that is missing. No outage: nothing mends it but a hand."""


class Node(NamedTuple):
    """A server of a cluster."""

    host: str
    port: int


# ---------------------------------------------------------------------------------------------------------------- the URL
def _redis(module: str) -> Any:
    try:
        return importlib.import_module("redis" if not module else f"redis.{module}")
    except ImportError as error:
        msg = "backend: a Redis URL needs redis-py; install it with: pip install 'langchain-resilient[redis]'"
        raise SettingsError(msg) from error


def _bad(scheme: str, why: str) -> SettingsError:
    return SettingsError(f"backend: got {scheme}://…: {why}; {FORMS}")


def _check_options(scheme: str, query: str) -> None:
    """Raise `SettingsError` for an option that is the courier's own. Its value, and all else in the URL, stays unsaid."""
    for name, _ in parse_qsl(query, keep_blank_values=True):
        if name in FIXED:
            raise SettingsError(f"backend: got {scheme}://…?{name}=…: {name} is the courier's own to set; leave it out")


def _addresses(scheme: str, hosts: str, default: int) -> list[Node]:
    nodes = []
    for address in hosts.split(","):
        host, colon, port = address.rpartition(":")
        if not colon or host.endswith(":") or port.endswith("]"):
            host, port = address, str(default)
        host = host.removeprefix("[").removesuffix("]")
        if not host or not port.isdecimal() or not 0 < int(port) < 65536:
            raise _bad(scheme, "a host or a port makes no sense")
        nodes.append(Node(host, int(port)))
    return nodes


class Dial:
    """Where Redis is, and how it is reached.

    Args:
        url: `redis://`, `rediss://`, `unix://`, `redis+cluster://` or `redis+sentinel://` (`rediss+…` with TLS); redis-py's options behind `?`, save
            for `FIXED`.
        budget: Seconds that one step on a connection may take.

    Raises:
        SettingsError: The URL makes no sense, sets what is not its to set, or redis-py is not installed.
    """

    def __init__(self, url: str, budget: float = 0.25) -> None:
        scheme, separator, rest = url.partition("://") if isinstance(url, str) else ("", "", "")
        plain, _, self.form = scheme.partition("+")
        if not separator or plain not in {"redis", "rediss", "unix"} or self.form not in {"", "cluster", "sentinel"}:
            raise _bad(scheme if separator and set(scheme) <= set(IN_SCHEMES) else "…", "that is no Redis URL")
        self.budget = budget
        self._tls = plain == "rediss"
        self._sentinels: list[Node] = []
        self._seeds: list[Node] = []
        self.service = ""
        if self.form:
            rest = self._several(scheme, rest)
        settings = self._settings(scheme, f"{plain}://{rest}")
        self._class = settings.pop("connection_class", None) or _redis("connection").Connection
        self._sentinel_login = {
            name: settings.pop(f"sentinel_{name}")
            for name in ("username", "password")
            if f"sentinel_{name}" in settings
        }
        self._settings_of_one = settings
        self.shown = self._show(scheme)
        wrong = (TypeError, ValueError, _redis("exceptions").RedisError)
        try:
            self._made()
            if self._sentinels:
                self._sentinel_pool()
        except wrong:
            raise _bad(scheme, "an option behind `?` is unknown to redis-py, or makes no sense") from None

    def _several(self, scheme: str, rest: str) -> str:
        """Take the hosts apart; returns the rest of a URL with the first host alone."""
        authority, slash, path = rest.partition("/")
        query = ""
        if not slash:
            authority, mark, query = rest.partition("?")
            path = mark + query
        login, at, hosts = authority.rpartition("@")
        nodes = _addresses(scheme, hosts, 26379 if self.form == "sentinel" else 6379)
        if self.form == "cluster":
            self._seeds = nodes
            path = path[path.index("?") :] if "?" in path else ""
        else:
            self._sentinels = nodes
            path, mark, query = path.partition("?")
            self.service, _, db = path.partition("/")
            if not self.service:
                raise _bad(scheme, "the name of the service is missing")
            path = f"/{db}{mark}{query}" if db or mark else ""
        first = f"[{nodes[0].host}]" if ":" in nodes[0].host else nodes[0].host
        return f"{login}{at}{first}:{nodes[0].port}{path}"

    def _settings(self, scheme: str, url: str) -> dict[str, Any]:
        connection, retry, backoff = _redis("connection"), _redis("retry"), _redis("backoff")
        _check_options(scheme, url.partition("?")[2].partition("#")[0])
        try:
            given: dict[str, Any] = connection.parse_url(url)
        except (ValueError, TypeError, AttributeError):
            # Not even as a cause: it may quote the password.
            raise _bad(scheme, "it can't be read") from None
        if "/" in url.partition("://")[2].partition("?")[0] and not scheme.startswith("unix") and "db" not in given:
            path = url.partition("://")[2].partition("?")[0].partition("/")[2]
            if path:
                raise _bad(scheme, "the database is no number")
        defaults = {
            "client_name": CLIENT_NAME,
            "protocol": 2,
            "socket_keepalive": True,
        }
        if scheme == "unix":
            del defaults["socket_keepalive"]
            if not given.get("path"):
                raise _bad(scheme, "the path is missing")
        elif not self.form:
            given.setdefault("host", "localhost")
            given.setdefault("port", 6379)
        known = inspect.signature(connection.AbstractConnection.__init__).parameters
        return {
            **defaults,
            **given,
            # Where a version has the newest name for it, the older ones are deprecated.
            **{name: None for name in ([UNTOLD[0]] if UNTOLD[0] in known else UNTOLD) if name in known},
            "decode_responses": False,
            "health_check_interval": 0,
            "retry": retry.Retry(backoff.NoBackoff(), 0),
            "socket_connect_timeout": self.budget,
            "socket_timeout": self.budget,
        }

    def _show(self, scheme: str) -> str:
        one = self._settings_of_one
        if scheme == "unix":
            return f"unix://{one['path']}"
        nodes = self._sentinels or self._seeds or [Node(one["host"], one["port"])]
        tail = f"/{self.service}" if self.service else ""
        if one.get("db"):
            tail += f"/{one['db']}"
        return f"{scheme}://{','.join(f'{host}:{port}' for host, port in nodes)}{tail}"

    def __repr__(self) -> str:
        return f"Dial({self.shown!r})"

    # --------------------------------------------------------------------------------------------------------- connections
    @property
    def clustered(self) -> bool:
        """Whether keys live on several servers."""
        return bool(self._seeds)

    def _made(self, node: Node | None = None) -> Any:
        settings = dict(self._settings_of_one)
        if node is not None:
            settings["host"], settings["port"] = node
        return self._class(**settings)

    def _sentinel_pool(self) -> Any:
        sentinel = _redis("sentinel")
        without = ("host", "port", "path", "username", "password", "db", "client_name", "socket_keepalive")
        for_sentinels = {name: value for name, value in self._settings_of_one.items() if name not in without}
        settings = {name: value for name, value in self._settings_of_one.items() if name not in {"host", "port"}}
        if self._tls:
            for_sentinels["ssl"] = settings["ssl"] = True
        known = sentinel.Sentinel(list(self._sentinels), sentinel_kwargs=for_sentinels | self._sentinel_login)
        return sentinel.SentinelConnectionPool(self.service, known, max_connections=8, **settings)

    def connect(self, node: Node | None = None) -> Any:
        """A new connection of redis-py's, connected: to the server, to Sentinel's primary, to that node, or to the first seed that answers.

        Raises:
            Trouble: It can't be had.
        """
        nodes: Sequence[Node | None] = [node] if node is not None else self._seeds or [None]
        failure: Trouble | None = None
        for one in nodes:
            try:
                connection = self._sentinel_pool().make_connection() if self._sentinels else self._made(one)
                connection.connect()
            except Exception as error:  # noqa: BLE001  # redis-py's, the socket's, TLS's: all say that there is no connection
                failure = trouble(error)
                if failure.kind == "denied":
                    break
            else:
                return connection
        if failure is not None:
            if failure.kind in {"script", "noscript"}:
                failure = Trouble("lost", failure.text)
            raise failure
        raise Trouble(
            "lost", "no server is named"
        )  # pragma: no cover  # a URL without a host is refused when it is read

    def slots(self, connection: Any) -> Iterator[tuple[int, int, Node]]:
        """First slot, last slot and primary of each of the cluster's ranges, as this node knows them."""
        connection.send_command("CLUSTER", "SLOTS")
        for first, last, primary, *_ in connection.read_response():
            host = primary[0].decode() if isinstance(primary[0], bytes) else primary[0]
            # A node that does not know its own address leaves it empty: it is the one that we asked.
            yield first, last, Node(host if host and host != "?" else connection.host, int(primary[1]))

    def denial(self, failure: Trouble) -> Denied:
        """A refusal, as the error that names the setting and the fix."""
        rights = failure.text.partition(" ")[0] == "NOPERM" or "permission" in failure.text or "script" in failure.text
        fix = "give the user that right" if rights else "check the user name and the password in the URL"
        if "DB index" in failure.text or "SELECT" in failure.text:
            fix = "name a database that it has, at the end of the URL"
        return Denied(f"backend: {self.shown} refuses this user: {failure.text.rstrip('.')}; {fix}")


def slot_of(key: str) -> int:
    """The hash slot of a key in a cluster."""
    slot: int = _redis("crc").key_slot(key.encode("utf-8", "surrogatepass"))
    return slot
