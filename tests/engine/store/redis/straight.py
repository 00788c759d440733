"""A courier without threads: what is asked or told goes to the server at once, so that a history happens in one order only.

It speaks RESP3 on one connection: what is published arrives in its place among the replies, so no test waits for news that may come.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager
from hashlib import sha1

import redis

from langchain_resilient.engine.effects import Later
from langchain_resilient.engine.quota import RateLimits
from tests.engine.harness import target

UNSENT = object()


class ServerError(Exception):
    """The server's answer was an error."""


class Talk:
    """One connection, one exchange at a time.

    Args:
        url: Of the server.
    """

    def __init__(self, url):
        self.client = redis.Redis.from_url(url, protocol=2)
        self._connection = self.client.connection_pool.get_connection()
        self._socket = self._connection._sock
        self._reader = self._socket.makefile("rb")
        self.pushed = []
        """What was published, and not asked for yet."""
        self.say("HELLO", 3)

    def say(self, *words):
        """One command; its reply. Raises `ServerError`."""
        (reply,) = self.send(words)
        if isinstance(reply, ServerError):
            raise reply
        return reply

    def send(self, *commands):
        """Several commands in one go; their replies, errors among them."""
        parts = []
        for words in commands:
            parts.append(b"*%d\r\n" % len(words))
            for word in words:
                raw = word if type(word) is bytes else str(word).encode()
                parts.append(b"$%d\r\n%b\r\n" % (len(raw), raw))
        self._socket.sendall(b"".join(parts))
        return [self.answer() for _ in commands]

    def answer(self):
        """The next reply; what was published before it is put aside."""
        while True:
            line = self._reader.readline()
            if line[:1] != b">":
                return self._parsed(line)
            self.pushed.append(self._parsed(line))

    def _parsed(self, line):
        kind, rest = line[:1], line[1:-2]
        if kind == b"$":
            size = int(rest)
            return None if size < 0 else self._reader.read(size + 2)[:-2]
        if kind in b"*>~%":
            count = int(rest) * (2 if kind == b"%" else 1)
            return [self._parsed(self._reader.readline()) for _ in range(count)]
        if kind == b":":
            return int(rest)
        if kind == b"-":
            return ServerError(rest.decode())
        if kind == b",":
            return float(rest)
        return None if kind == b"_" else rest

    def subscribe(self, channel, *, on=True):
        """Begin to hear what is published there, or end."""
        word = b"SUBSCRIBE" if on else b"UNSUBSCRIBE"
        self._socket.sendall(b"*2\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n" % (len(word), word, len(channel), channel.encode()))
        self.say("PING")

    def news(self):
        """What was published since this was last asked."""
        pushed, self.pushed = self.pushed, []
        return [item[2] for item in pushed if item[0] == b"message"]

    def close(self):
        """Close the connection."""
        self._reader.close()
        self._connection.disconnect()
        self.client.close()


class At(Later):
    """A reply that has come, or comes when somebody wants it."""

    def __init__(self, courier):
        self.courier = courier
        self.reply = UNSENT

    def came(self, reply):
        self.reply = reply

    def result(self):
        """The reply."""
        if self.reply is UNSENT:
            self.courier.deliver()
        return self.reply

    def __await__(self):
        """The reply."""
        return self.result()
        yield


class Straight:
    """The courier's interface.

    Args:
        url: Of the server; or the `Talk` that one test after another uses.
        script: Its Lua.
        channel: Where others publish.
        clock: The script's time, µs.
        adopt: Told the time and the epoch of every batch.
        heard: Told what was published.
        unused: What the real one needs when somebody is away; here all are there, the server too.
    """

    def __init__(self, url, script, *, channel=None, clock=None, adopt, heard, **unused):
        self.lent = isinstance(url, Talk)
        self.talk = url if self.lent else Talk(url)
        self.script, self.sha = script, sha1(script.encode()).hexdigest()  # noqa: S324  # Redis's own name for it
        self.clock, self.adopt, self.heard, self.channel = clock, adopt, heard, channel
        self.up = True
        self.shown = "redis://straight"
        self.keys = set()
        """All that it ever named."""
        self.waiting = []
        self.holding = self.busy = False
        self.turn = threading.RLock()
        if channel:
            self.talk.subscribe(channel)

    def ask(self, operation):
        """Send it; its reply is there at once."""
        at = At(self)
        self._put(operation, at.came)
        return at

    def tell(self, operation, *, urgent=True, then=None):
        """Send it now, whatever the hurry."""
        self._put(operation, then)

    def _put(self, operation, then):
        self.waiting.append((operation, then))
        if not self.holding:
            self.deliver()

    @contextmanager
    def held(self):
        """What is asked and told in this block goes out in one batch at its end, or as soon as somebody wants a reply."""
        self.holding = True
        try:
            yield
        finally:
            self.holding = False
            self.deliver()

    def deliver(self):
        """Send what waits; also what a reply leads to, or the garbage collector tells in the middle of it."""
        with self.turn:
            if self.busy:
                return
            self.busy = True
            try:
                while self.waiting or self.talk.pushed:
                    batch, self.waiting = self.waiting, []
                    replies = self._run([operation for operation, _ in batch]) if batch else ()
                    for (_, then), reply in zip(batch, replies, strict=True):
                        if then is not None:
                            then(reply)
                    for message in self.talk.news():
                        self.heard(message)
            finally:
                self.busy = False

    def _run(self, operations):
        command = self.command(operations)
        try:
            now, epoch, *replies = self.talk.say("EVALSHA", self.sha, *command)
        except ServerError as error:
            if "NOSCRIPT" not in str(error):
                raise
            now, epoch, *replies = self.talk.say("EVAL", self.script, *command)
        self.adopt(int(now), int(epoch))
        return replies

    def command(self, operations):
        """What EVALSHA is given, behind the script's name."""
        keys, words = {}, ["" if self.clock is None else self.clock(), "test"]
        for operation in operations:
            words += (operation.name, len(operation.keys))
            words += [keys.setdefault(key, len(keys) + 1) for key in operation.keys]
            words += (len(operation.words), *operation.words)
        self.keys.update(keys)
        return (len(keys), *keys, *words)

    @staticmethod
    def aside(step):
        """Do a step now."""
        step()

    def check(self):
        """Nothing to check."""

    def flush(self, seconds=0.5):
        """Nothing waits; all that was published by now comes before the answer to a ping."""
        self.talk.say("PING")
        self.deliver()

    def close(self):
        """Close the connection, unless it is lent."""
        if self.channel:
            self.talk.subscribe(self.channel, on=False)
        if not self.lent:
            self.talk.close()


def limited(**limits):
    """A provider with these limits."""
    return target("a", limits=RateLimits(**limits))


def alone(store, *, is_so):
    """Let Redis go away for one store, or come back."""
    store._courier.up = not is_so
    store._changed(not is_so, "test")
    if not is_so:
        store._connected()
