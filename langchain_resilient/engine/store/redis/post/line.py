"""One connection to Redis, and one exchange on it at a time: a batch of operations out, their replies back.

Rules of this file
------------------
* RESP2 is spoken on redis-py's connected socket itself, see `resp`. Where there is no such socket, or another protocol is spoken, redis-py's
  own reader does it.
* An exchange that fails in any way closes the connection: a late reply must not be read as another's. An error that the server answered with
  is an answer.
* A batch is sent again only where the server said that it did not have the script, and so ran nothing.
* Whoever takes `free` has the line; nobody waits for a lock here.
"""

from __future__ import annotations

import select
import socket
import threading
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from langchain_resilient.engine.store.redis.post.dial import Dial, Node, slot_of
from langchain_resilient.engine.store.redis.post.resp import CRLF, packed, unpacked
from langchain_resilient.engine.store.redis.post.troubles import Trouble, trouble
from langchain_resilient.engine.store.redis.wire import Operation

CHUNK = 65536
IDLE = 0.1
"""Seconds after which a server may have hung up unnoticed, so that the socket is looked at before it is used."""


class Reply(NamedTuple):
    """What a batch came back with."""

    now: int
    """The server's time, µs."""
    epoch: int
    replies: list[Any]


def flattened(operations: Iterable[Operation], head: Sequence[str]) -> tuple[list[str], list[str]]:
    """The distinct keys of a batch, and its arguments."""
    keys: dict[str, int] = {}
    words = list(head)
    for name, its_keys, its_words, _ in operations:
        words.append(name)
        words.append(str(len(its_keys)))
        words.extend([str(keys.setdefault(key, len(keys) + 1)) for key in its_keys])
        words.append(str(len(its_words)))
        words.extend(map(str, its_words))
    return list(keys), words


class Line:
    """A connection that has the script.

    Args:
        connection: redis-py's, connected.
        script: What it is to run.
        budget: Seconds for one exchange.
    """

    def __init__(self, connection: Any, script: str, budget: float) -> None:
        self._connection = connection
        self._script = script
        self._budget = budget
        speaks = str(getattr(connection, "protocol", "")) == "2"
        self._socket: socket.socket | None = getattr(connection, "_sock", None) if speaks else None
        self._poll: select.poll | None = None
        if self._socket is not None:
            self._poll = select.poll()
            self._poll.register(self._socket, select.POLLIN)
            self._socket.settimeout(budget)
        self._used = time.monotonic()
        self.sha = ""

    def call(self, *words: str, limit: float | None = None) -> Any:
        """One command, one reply, for at most `limit` seconds (None: the budget).

        Raises:
            Trouble: It came to nothing; unless the server itself said so, the connection is closed.
        """
        limit = self._budget if limit is None else limit
        try:
            if self._socket is None:
                reply = self._asked(packed(words), limit)
            else:
                reply = self._exchanged(self._socket, packed(words), limit)
        except Exception as error:
            self.close()
            why = trouble(error)
            # What the server answers with is returned; what is raised, and means nothing else, broke the connection.
            raise (Trouble("lost", why.text) if why.kind == "script" else why) from error
        except BaseException:
            self.close()
            raise
        if isinstance(reply, Trouble):
            raise reply
        return reply

    def _asked(self, sent: bytes, limit: float) -> Any:
        """An exchange with redis-py's own means."""
        self._connection.send_packed_command([sent])
        if not self._connection.can_read(timeout=limit):
            raise Trouble("timeout", f"no answer within {limit:.3g} s")
        try:
            reply = self._connection.read_response()
        except Exception as error:
            if "ResponseError" not in {base.__name__ for base in type(error).__mro__}:
                raise
            return trouble(error)
        return (
            [trouble(item) if isinstance(item, Exception) else item for item in reply]
            if isinstance(reply, list)
            else reply
        )

    def _exchanged(self, wire: socket.socket, sent: bytes, limit: float) -> Any:
        until = self._used = time.monotonic()
        until += limit
        if limit != self._budget:
            wire.settimeout(limit)
        try:
            wire.sendall(sent)
            came = b""
            while True:
                chunk = wire.recv(CHUNK)
                if not chunk:
                    raise Trouble("lost", "the server closed the connection")
                came = came + chunk if came else chunk
                if chunk.endswith(CRLF):
                    lines = came.split(CRLF)
                    lines.pop()
                    try:
                        return unpacked(iter(lines))
                    except StopIteration:
                        pass
                left = until - time.monotonic()
                if left <= 0:
                    raise TimeoutError
                wire.settimeout(left)
                limit = left
        except TimeoutError as error:
            raise Trouble("timeout", f"no answer within {until - self._used:.3g} s") from error
        finally:
            if limit != self._budget:
                wire.settimeout(self._budget)

    def load(self) -> None:
        """Give the server the script."""
        sha = self.call("SCRIPT", "LOAD", self._script)
        self.sha = sha.decode() if isinstance(sha, bytes) else str(sha)

    def run(self, operations: Sequence[Operation], head: Sequence[str], limit: float | None = None) -> Reply:
        """Run a batch; again only if the script was not there, and so did not run."""
        keys, words = flattened(operations, head)
        given = (str(len(keys)), *keys, *words)
        try:
            reply = self.call("EVALSHA", self.sha, *given, limit=limit)
        except Trouble as why:
            if why.kind != "noscript":
                raise
            reply = self._repeated(given, limit)
        if not isinstance(reply, list) or len(reply) != len(operations) + 2:
            raise Trouble("script", f"the script answered {len(operations)} operations with {type(reply).__name__}")
        try:
            return Reply(int(reply[0]), int(reply[1]), reply[2:])
        except (TypeError, ValueError):
            raise Trouble("script", "the script's answer begins with no time and epoch") from None

    def _repeated(self, given: Sequence[str], limit: float | None) -> Any:
        """Run what the server had no script for."""
        self.load()
        try:
            return self.call("EVALSHA", self.sha, *given, limit=limit)
        except Trouble as why:
            if why.kind != "noscript":
                raise
        # It was flushed in between. Its source can't be; but EVAL is a right that nobody needs save for this.
        return self.call("EVAL", self._script, *given, limit=limit)

    def stale(self, now: float) -> bool:
        """Whether the server has hung up while nothing was said."""
        if self._poll is None or now - self._used < IDLE:
            return False
        return bool(self._poll.poll(0))

    def close(self) -> None:
        """Hang up; in a child process, without ending the parent's connection."""
        with suppress(Exception):  # then it is gone
            self._connection.disconnect()


class Wire:
    """All that one process says to Redis: one line, or in a cluster one for each node that is talked to.

    Args:
        dial: Where Redis is.
        script: What it is to run.
    """

    def __init__(self, dial: Dial, script: str) -> None:
        self.free = threading.Lock()
        """Held by whoever carries a batch."""
        self.turns = 0
        """How often it was taken, so that it can be told from a wire that is never given back."""
        self._dial = dial
        self._script = script
        self._lines: dict[Node | None, Line] = {}
        self._ranges: list[tuple[int, int, Node]] = []
        self.for_callers = not dial.clustered
        """Whether a caller may carry: in a cluster that may mean to connect to another node, and a caller never connects."""

    def open(self) -> None:
        """Connect, and give the server the script. Raises `Trouble`."""
        connection = self._dial.connect()
        if not self._dial.clustered:
            self._lines[None] = self._line(connection)
            return
        try:
            self._ranges = list(self._dial.slots(connection))
        except Exception as error:
            raise trouble(error) from error
        finally:
            connection.disconnect()
        if not self._ranges:
            raise Trouble("outage", "the cluster has no slots assigned")

    def _line(self, connection: Any) -> Line:
        line = Line(connection, self._script, self._dial.budget)
        try:
            line.load()
        except BaseException:
            line.close()
            raise
        return line

    def parts(self, operations: Sequence[Operation]) -> list[list[int]] | list[None]:
        """The batch's operations that can go together, by their places: in a cluster those of one slot; None: all of them."""
        if self.for_callers:
            return [None]
        by_slot: dict[int, list[int]] = {}
        for place, operation in enumerate(operations):
            by_slot.setdefault(slot_of(operation.keys[0]) if operation.keys else 0, []).append(place)
        return list(by_slot.values())

    def run(self, operations: Sequence[Operation], head: Sequence[str], limit: float | None = None) -> Reply:
        """Run operations that can go together. Raises `Trouble`."""
        self.turns += 1
        if self.for_callers:
            return self._lines[None].run(operations, head, limit)
        slot = slot_of(operations[0].keys[0]) if operations[0].keys else 0
        return self._line_to(slot).run(operations, head, limit)

    def _line_to(self, slot: int) -> Line:
        node = next((node for first, last, node in self._ranges if first <= slot <= last), None)
        if node is None:
            raise Trouble("outage", f"no node of the cluster serves slot {slot}")
        line = self._lines.get(node)
        if line is None:
            line = self._lines[node] = self._line(self._dial.connect(node))
        return line

    def stale(self, now: float) -> bool:
        """Whether the server has hung up while nothing was said."""
        return any(line.stale(now) for line in tuple(self._lines.values()))

    def close(self) -> None:
        """Hang up everywhere."""
        for line in list(self._lines.values()):
            line.close()
