"""Dead letters in Redis: a stream that a consumer group reads, for all processes of a namespace; spooled while Redis is away.

Rules of this file
------------------
* Each operation is one atomic step of one script (`lua/box.lua`), in one hash slot, on the server's clock; so a claim is exact for leases that
  differ and are renewed, and one that nobody ended comes back whether or not anything new does. (XACKDEL, which takes two steps together, is
  newer than the servers that are supported; XAUTOCLAIM knows one idle time for all.)
* `put` asks Redis for at most 0.25 s, connecting included, and not at all while the breaker says that it is away; then the letter is in the
  spool. It may be in both, which is no harm: a box keeps one letter for a key, and none whose result stands.
* What else is asked of a Redis that is away raises `BoxAwayError`, and is never repeated here: it may have happened.
* A letter has no TTL: it ends by its answer, or by `purge`. Results have one. What survives a restart of Redis is Redis's own setting
  (`appendonly yes`), and a server that evicts (`allkeys-…`) may evict letters.
* The user needs, beside the courier's own commands: +del +exists +hdel +hexists +hget +hmget +hset +hincrby +pexpire +pttl +time +xack +xadd
  +xdel +xgroup +xreadgroup +zadd +zcard +zcount +zrange +zrangebyscore +zrem +zscore.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from hashlib import blake2b
from importlib.resources import files
from pathlib import Path
from typing import Any

from langchain_resilient.engine.dead_letters.box import (
    UNREADABLE_PAUSE,
    BoxAwayError,
    BoxError,
    State,
    Where,
    check_claim,
    check_purge,
    check_state,
)
from langchain_resilient.engine.dead_letters.channel import Channel
from langchain_resilient.engine.dead_letters.following import Follower
from langchain_resilient.engine.dead_letters.letter import (
    KEEP_RESULTS,
    MOST_DELIVERIES,
    Counts,
    Letter,
    Result,
    decode,
    scoped,
)
from langchain_resilient.engine.dead_letters.sealing import Seal
from langchain_resilient.engine.dead_letters.spool import Spool
from langchain_resilient.engine.errors import is_number, require
from langchain_resilient.engine.store.forks import tell_of_forks
from langchain_resilient.engine.store.redis import wire
from langchain_resilient.engine.store.redis.post.breaker import Breaker
from langchain_resilient.engine.store.redis.post.dial import Dial
from langchain_resilient.engine.store.redis.post.troubles import Trouble
from langchain_resilient.engine.store.redis.wire import Operation

LOGGER = logging.getLogger("langchain_resilient")
SECOND = 1_000_000
HURRY = 0.25
"""Seconds that a `put` gives Redis: a user waits for it."""
PATIENCE = 5.0
"""Seconds that everything else does."""
SPOOL = "langchain-resilient-spool"
"""The spool's directory, in the working directory."""
PAGE = 20
"""Letters in one reply, so that it stays at some MB."""


class RedisBox:
    """A namespace's box in Redis.

    Args:
        url: Of the server, see `dial`.
        namespace: Any text without braces.
        seal: What letters pass through.
        spool: Directory where letters lie while Redis is away; None: `SPOOL` in the working directory.
        keep_results: Seconds for which a result is kept.
        clock: The script's time, µs since the epoch; None: the server's.

    Raises:
        SettingsError: The URL, the namespace or the spool can't be meant, redis-py is missing, or the server refuses this user. A server that
            can't be reached raises nothing.
    """

    def __init__(
        self,
        url: str,
        namespace: str,
        seal: Seal | None = None,
        *,
        spool: str | Path | None = None,
        keep_results: float = KEEP_RESULTS,
        clock: Callable[[], int] | None = None,
    ) -> None:
        self._prefix = wire.slot(namespace, ":letters")
        self._seal = seal or Seal()
        self._keep = int(keep_results * SECOND)
        self._dial = Dial(url, HURRY)
        self._breaker = Breaker(self._dial.denial)
        script = (files("langchain_resilient.engine.dead_letters") / "lua" / "box.lua").read_text()
        probe = self._operation("counts")
        self._quick = Channel(self._dial, script, probe, clock)
        # A slow claim of large letters keeps no put waiting: it has a connection of its own, made when the first is asked for.
        self._patient = Channel(Dial(url, PATIENCE), script, probe, clock)
        # By the namespace alone: who moves to another Redis takes what is spooled along.
        name = f"letters-{blake2b(namespace.encode('utf-8', 'surrogatepass'), digest_size=6).hexdigest()}"
        self._spool = Spool(SPOOL if spool is None else spool, name)
        self._follower = Follower(self._spool, self._forward, self._again_at)
        self._closed = False
        self._check()
        tell_of_forks(self)

    def __repr__(self) -> str:
        return f"RedisBox({self._dial.shown!r})"

    # ------------------------------------------------------------------------------------------------------------ exchanges
    def _operation(self, name: str, *words: str | int) -> Operation:
        return Operation(name, (self._prefix,), words)

    def _again_at(self) -> float:
        return 0.0 if self._breaker.up else self._breaker.again_at

    def _failed(self, why: Trouble) -> None:
        reason = self._breaker.failed(why)
        if reason is not None:
            LOGGER.warning(
                "dead letters: Redis at %s is away, so they are spooled in %s: %s",
                self._dial.shown,
                self._spool.folder,
                reason,
            )

    def _worked(self) -> None:
        self._breaker.worked()
        if self._breaker.connected():
            LOGGER.warning("dead letters: Redis at %s is back", self._dial.shown)

    def _ask(self, *operations: Operation) -> tuple[float, list[Any]]:
        """The server's time, seconds since the epoch, and the replies. Raises `BoxError`."""
        if self._closed:
            # A spooled letter that is under way stays in the spool.
            raise BoxAwayError(f"{self._dial.shown}: the box is closed")
        try:
            reply = self._patient.run(operations, PATIENCE)
        except Trouble as why:
            if why.kind in {"script", "noscript"}:
                raise BoxError(f"dead letters at {self._dial.shown}: {why.text}") from why
            if why.kind == "denied":
                raise BoxAwayError(str(self._dial.denial(why))) from why
            # Not told to the breaker: a server that is out of memory still hands letters out.
            raise BoxAwayError(f"dead letters at {self._dial.shown}: {why.text}") from why
        return reply.now / SECOND, reply.replies

    def _one(self, name: str, *words: str | int) -> Any:
        _, (reply,) = self._ask(self._operation(name, *words))
        return reply

    def _check(self) -> None:
        """Look whether Redis is there, and whether we may."""
        try:
            self._quick.run([self._operation("counts")], HURRY)
        except Trouble as why:
            if why.kind == "denied":
                self._quick.close()
                raise self._dial.denial(why) from why
            self._failed(why)
        if not self._spool.empty:
            self._follower.wake()

    def close(self) -> None:
        """Hang up. What is spooled stays on the disk, and goes when the next box is opened."""
        if self._closed:
            return
        self._follower.close()
        self._closed = True
        self._quick.close()
        self._patient.close()
        self._spool.close()

    def forked(self) -> None:
        """In a new child process: connections, threads and the spool's file are the parent's. The rest is told by itself."""
        self._breaker = Breaker(self._dial.denial)
        self._quick.forked()
        self._patient.forked()
        self._follower.forked()

    # -------------------------------------------------------------------------------------------------------------- letters
    def put(self, letter: Letter) -> Where | None:
        """See `Box.put`. Where it is spooled, it is found out when it follows whether Redis has one of that key."""
        written = self._seal.written(self._seal.prepared(letter))
        if self._closed:
            raise BoxError(f"{self._dial.shown}: the box is closed")
        if time.monotonic() >= self._again_at():
            try:
                reply = self._quick.run([self._put(written)], HURRY)
            except Trouble as why:
                self._failed(why)
            else:
                self._worked()
                return "redis" if self._was_put(reply.replies[0], letter.id) else None
        self._spool.append(written)
        self._follower.wake()
        return "spool"

    def _put(self, written: bytes) -> Operation:
        letter, sealed = decode(written)
        hollow = letter.content is None and sealed is None
        return self._operation(
            "put", letter.id, scoped(letter.key, letter.tenant), repr(float(letter.created)), _micros(letter.not_before), letter.parked or "", int(hollow),
            written.decode("utf-8", "surrogatepass"), letter.deliveries,
        )  # fmt: skip

    @staticmethod
    def _was_put(reply: int, letter_id: str) -> bool:
        if reply < 0:
            raise BoxError(f"letter {letter_id}: another letter has this id; make a new one for each letter")
        return bool(reply)

    def _forward(self, written: bytes) -> None:
        """Send one spooled letter on."""
        operation = self._put(written)
        try:
            _, (reply,) = self._ask(operation)
        except BoxAwayError as error:
            why = error.__cause__
            if isinstance(why, Trouble):
                self._failed(why)
            raise
        self._worked()
        self._was_put(reply, decode(written)[0].id)

    def claim(self, most: int, lease: float) -> list[Letter]:
        """See `Box.claim`. Oldest first within what comes at once; a letter that was given back stands behind those that waited meanwhile."""
        check_claim(most, lease)
        if not self._spool.empty:
            self._follower.wake()
        taken: list[Letter] = []
        left = most
        while left > 0:
            asked = min(left, PAGE)
            now, (rows,) = self._ask(self._operation("claim", asked, int(lease * SECOND), MOST_DELIVERIES))
            locked: list[Letter] = []
            for row in rows:
                letter, is_locked = self._read(row)[1:]
                (locked if is_locked else taken).append(letter)
            for letter in locked:
                self.release(letter, now + UNREADABLE_PAUSE, counted=False)
            left -= len(rows) - len(locked)
            if len(rows) < asked:
                break
        return sorted(taken, key=_age)

    def _read(self, row: Sequence[Any]) -> tuple[State, Letter, bool]:
        """State, letter, and whether no key at hand opens it."""
        state, name, written, deliveries, claims, not_before, parked = row
        letter, locked = self._seal.read(written, name.decode())
        letter = replace(
            letter,
            deliveries=int(deliveries),
            claim=int(claims),
            not_before=int(not_before) / SECOND,
            parked=parked.decode() or None,
        )
        return state.decode(), letter, locked

    def renew(self, letters: Sequence[Letter], lease: float) -> None:
        """See `Box.renew`."""
        check_claim(1, lease)
        if letters:
            self._ask(*[self._operation("renew", letter.id, letter.claim, int(lease * SECOND)) for letter in letters])

    def release(self, letter: Letter, not_before: float, *, counted: bool) -> None:
        """See `Box.release`."""
        require(is_number(not_before), "release(not_before=…)", not_before, "use seconds since the epoch")
        self._one("release", letter.id, letter.claim, _micros(not_before), int(counted))

    def park(self, letter: Letter, why: str) -> None:
        """See `Box.park`."""
        self._one("park", letter.id, letter.claim, why)

    def unpark(self, letter_id: str) -> bool:
        """See `Box.unpark`."""
        return bool(self._one("unpark", letter_id))

    # -------------------------------------------------------------------------------------------------------------- results
    def finish(self, letter: Letter, value: object) -> bool:
        """See `Box.finish`."""
        written = self._seal.written_value(value).decode("utf-8", "surrogatepass")
        return bool(self._one("finish", letter.id, scoped(letter.key, letter.tenant), written, self._keep))

    def result(self, key: str, tenant: str | None = None) -> Result | None:
        """See `Box.result`."""
        found = self._one("result", scoped(key, tenant))
        if found is None:
            return None
        letter, written, value = found
        return Result(key, letter.decode(), int(written) / SECOND, self._seal.read_value(value))

    # ----------------------------------------------------------------------------------------------------------- looking in
    def get(self, letter_id: str) -> Letter | None:
        """See `Box.get`. What is spooled is not seen."""
        row = self._one("get", letter_id)
        return None if row is None else self._read(row)[1]

    def letters(
        self, state: State | None = None, most: int = 100, after: str | None = None
    ) -> list[tuple[State, Letter]]:
        """See `Box.letters`. What is spooled is not seen."""
        check_state(state)
        found: list[tuple[State, Letter]] = []
        while len(found) < most:
            asked = min(most - len(found), PAGE)
            page = self._page(state, asked, after)
            found += page
            if len(page) < asked:
                break
            after = page[-1][1].id
        return found

    def _page(self, state: State | None, most: int, after: str | None) -> list[tuple[State, Letter]]:
        created = ""
        if after is not None:
            # If it ended since, its id, which sorts by creation, has to do.
            created = (self._one("created", after) or b"").decode()
        which = {"parked": ("parked",), None: ("open", "parked")}.get(state, ("open",))
        _, pages = self._ask(
            *[self._operation("page", each, state or "", most, created, after or "") for each in which]
        )  # one step: a letter that is parked meanwhile is in one of them
        rows = [self._read(row)[:2] for page in pages for row in page]
        return sorted(rows, key=lambda row: _age(row[1]))[:most]

    def purge(self, *, ids: Sequence[str] = (), state: State | None = None, before: float | None = None) -> int:
        """See `Box.purge`. What is spooled stays."""
        check_purge(ids, state, before)
        each: Iterable[str] = dict.fromkeys(ids)
        moment = "" if before is None else repr(float(before))
        return int(self._one("purge", state or "", moment, len(tuple(each)), *each))

    def counts(self) -> Counts:
        """See `Box.counts`."""
        alive, claimed, parked, oldest = self._one("counts")
        return Counts(alive - claimed, claimed, parked, self.spooled(), float(oldest) if oldest else None)

    def spooled(self) -> int:
        """See `Box.spooled`."""
        return self._spool.count()


def _age(letter: Letter) -> tuple[float, str]:
    return letter.created, letter.id


def _micros(seconds: float) -> int:
    return int(seconds * SECOND)
