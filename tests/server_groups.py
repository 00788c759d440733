"""Servers that belong together: a cluster, and a primary whose replica its sentinels promote. Made of `tests/servers.py`."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

from tests.servers import HOST, Server, client_of, until

SLOTS = 16_384


class _Group:
    """What starts several servers and ends them all, also when it fails half-way."""

    def __init__(self) -> None:
        self._stack = ExitStack()

    def _started(self, form: Callable[[], None]) -> None:
        """Do what makes a group of it; on any failure end what was started."""
        try:
            form()
        except BaseException:
            self.close()
            raise

    def _add(self, *arguments: Any, **settings: Any) -> Server:
        return self._stack.enter_context(Server(*arguments, **settings))

    def close(self) -> None:
        """End all of them."""
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()


class Cluster(_Group):
    """A cluster of one binary, formed when the constructor returns (about two seconds).

    Args:
        binary: What to run; left out: `valkey_binary()`.
        primaries: How many share the slots, three or more.
        replicas: How many each primary has; with one, a killed primary is replaced after about `node_timeout`.
        password: Of the user `default`, on every node.
        node_timeout: Milliseconds after which a silent node is held to be dead.
    """

    def __init__(
        self,
        binary: Path | None = None,
        *,
        primaries: int = 3,
        replicas: int = 0,
        password: str | None = None,
        node_timeout: int = 1500,
    ) -> None:
        super().__init__()
        self.primaries: list[Server] = []
        self.replicas: list[Server] = []
        self._password = password
        settings = ["cluster-enabled yes", f"cluster-node-timeout {node_timeout}", "cluster-replica-validity-factor 0"]
        settings += [f"masterauth {password}"] if password else []

        def form() -> None:
            self.primaries += [self._add(binary, password=password, config=settings) for _ in range(primaries)]
            self.replicas += [
                self._add(binary, password=password, config=settings) for _ in range(primaries * replicas)
            ]
            self._form()

        self._started(form)

    @property
    def nodes(self) -> list[Server]:
        """All of them, primaries (as they were at the start) first."""
        return [*self.primaries, *self.replicas]

    @property
    def url(self) -> str:
        """The library's own form of URL, with every node."""
        who = f":{self._password}@" if self._password else ""
        return f"redis+cluster://{who}{','.join(f'{HOST}:{node.port}' for node in self.nodes)}"

    def client(self, **options: Any) -> Any:
        """redis-py's cluster client, with its own retries (it follows a failover)."""
        from redis.cluster import RedisCluster

        return RedisCluster.from_url(self.primaries[0].url, **options)

    def server_of(self, key: str) -> Server:
        """The node that answers for a key, asked of whichever node is there and answers."""
        from redis.exceptions import ConnectionError as Refused
        from redis.exceptions import TimeoutError as Silent

        for node in self.nodes:
            try:
                with client_of(node.url, socket_timeout=0.5) as client:
                    slot = client.execute_command("CLUSTER KEYSLOT", key)
                    port = _port_of(client.execute_command("CLUSTER SLOTS"), slot)
            except (Refused, Silent):
                continue
            return next(other for other in self.nodes if other.port == port)
        raise AssertionError("no node of the cluster answers")

    def wait(self, within: float = 15.0) -> None:
        """Until every node that is there says that the cluster is well."""
        for node in self.nodes:
            if node.alive:
                until(lambda node=node: _cluster_info(node).get("cluster_state") == "ok", f"{node.url} is well", within)

    def _form(self) -> None:
        bounds = [SLOTS * index // len(self.primaries) for index in range(len(self.primaries) + 1)]
        for index, node in enumerate(self.primaries):
            with client_of(node.url) as client:
                # ADDSLOTSRANGE is newer than Redis 6.2.
                client.execute_command("CLUSTER ADDSLOTS", *range(bounds[index], bounds[index + 1]))
                client.execute_command("CLUSTER SET-CONFIG-EPOCH", index + 1)  # refused once it knows another node
        for node in self.primaries:
            with client_of(node.url) as client:
                for other in self.nodes:  # everyone, or their gossip takes seconds to get around
                    if other is not node:
                        client.execute_command("CLUSTER MEET", HOST, other.port)
        known = str(len(self.nodes))
        for node in self.nodes:
            until(
                lambda node=node: _cluster_info(node).get("cluster_known_nodes") == known, "all nodes know one another"
            )
        for index, node in enumerate(self.replicas):
            with client_of(self.primaries[index % len(self.primaries)].url) as client:
                identity = client.execute_command("CLUSTER MYID")
            with client_of(node.url) as client:
                until(lambda client=client, of=identity: client.execute_command("CLUSTER REPLICATE", of), "a replica")
        self.wait()
        for node in self.replicas:
            until(
                lambda node=node: node.info("replication").get("master_link_status") == "up", "a replica's first copy"
            )


def _cluster_info(node: Server) -> dict[str, str]:
    """CLUSTER INFO, whose form depends on redis-py's version and the protocol."""
    with client_of(node.url) as client:
        told = client.execute_command("CLUSTER INFO")
    if isinstance(told, dict):
        return {_text(name): _text(value) for name, value in told.items()}
    return dict(line.split(":", 1) for line in _text(told).splitlines() if ":" in line)


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _port_of(ranges: Any, slot: int) -> int:
    """The primary's port in a reply of CLUSTER SLOTS, which redis-py turns into a dict."""
    if isinstance(ranges, dict):
        return next(node["primary"][1] for (first, last), node in ranges.items() if first <= slot <= last)
    return next(row[2][1] for row in ranges if row[0] <= slot <= row[1])


class Sentinel(_Group):
    """A primary, its replicas, and the sentinels that promote one when the primary has been silent for half a second.

    Args:
        binary: What to run; left out: `valkey_binary()`.
        sentinels: How many there are, one to three; more than half of them have to agree. Three take two seconds longer to find one another.
        replicas: How many replicas.
        password: Of the user `default` of primary and replicas; the sentinels themselves need none.
        service: The name under which the sentinels know the primary.
    """

    def __init__(
        self,
        binary: Path | None = None,
        *,
        sentinels: int = 1,
        replicas: int = 1,
        password: str | None = None,
        service: str = "lr",
    ) -> None:
        super().__init__()
        self.service, self._password = service, password
        self.sentinels: list[Server] = []
        self.replicas: list[Server] = []

        def form() -> None:
            # The primary may have to follow another one day.
            secret = [f"masterauth {password}"] if password else []
            self.primary = self._add(binary, password=password, config=secret)
            for _ in range(replicas):
                self.replicas.append(self._add(binary, password=password, replica_of=self.primary))
            watch = self._watch(sentinels // 2 + 1)
            self.sentinels += [self._add(binary, sentinel=True, config=watch) for _ in range(sentinels)]
            for each in self.sentinels:
                until(lambda each=each: self._is_ready(each), "the sentinels know the replicas and one another", 15)

        self._started(form)

    @property
    def url(self) -> str:
        """The library's own form of URL, with every sentinel."""
        who = f":{self._password}@" if self._password else ""
        return f"redis+sentinel://{who}{','.join(f'{HOST}:{each.port}' for each in self.sentinels)}/{self.service}"

    def client(self, **options: Any) -> Any:
        """A plain redis-py client of whoever is the primary now."""
        return self.primary.client(**options)

    def failover(self) -> None:
        """Kill the primary; returns when a replica has been promoted, and is `primary`. The killed one can be restarted."""
        gone = self.primary
        gone.kill()
        for each in self.sentinels:
            until(lambda each=each: self._named(each) != gone.port, "the sentinels name another primary", 15)
        port = self._named(self.sentinels[0])
        self.primary = next(server for server in self.replicas if server.port == port)
        self.replicas = [gone, *(server for server in self.replicas if server is not self.primary)]
        until(lambda: self.primary.info("replication")["role"] == "master", "the replica is promoted")

    def _watch(self, quorum: int) -> list[str]:
        """The sentinels' configuration."""
        name = self.service
        secret = [f"sentinel auth-pass {name} {self._password}"] if self._password else []
        return [
            f"sentinel monitor {name} {HOST} {self.primary.port} {quorum}",
            f"sentinel down-after-milliseconds {name} 500",
            f"sentinel failover-timeout {name} 3000",
            f"sentinel parallel-syncs {name} 1",
            *secret,
        ]

    def _named(self, sentinel: Server) -> int:
        """The port of the primary, as a sentinel names it."""
        with client_of(sentinel.url) as client:
            return int(client.execute_command("SENTINEL GET-MASTER-ADDR-BY-NAME", self.service)[1])

    def _is_ready(self, sentinel: Server) -> bool:
        with client_of(sentinel.url) as client:
            replicas = len(client.execute_command("SENTINEL REPLICAS", self.service))
            others = len(client.execute_command("SENTINEL SENTINELS", self.service))
        return replicas == len(self.replicas) and others == len(self.sentinels) - 1
