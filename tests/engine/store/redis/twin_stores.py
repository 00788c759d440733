"""The two stores of a twin proof on one clock, and what is needed to set them back and to compare them."""

from __future__ import annotations

from typing import NamedTuple

from langchain_resilient.engine.circuit import CircuitState
from langchain_resilient.engine.quota import Scale
from langchain_resilient.engine.store.account import Account
from langchain_resilient.engine.store.memory import MemoryStore
from langchain_resilient.engine.store.redis.store import RedisStore
from tests.engine.store.redis.straight import Straight

S = 1_000_000


class Shared(NamedTuple):
    """All that a fleet shares about one target."""

    circuit: CircuitState
    override: str | None
    explored_at: int
    scale: Scale
    blocked_until: int
    blocked_reason: str
    throttles: int
    throttled_at: int
    forbidden: int
    tats: dict[str, int]
    leases: dict[str, int]
    line: list[tuple[str, int]]


class Clock:
    """The one clock of both. The server's may be set back; the time of a store never goes back, and goes on from there."""

    def __init__(self, start):
        self.shown = self.latest = start
        self.skew = 0

    def show(self, us):
        """Let the server's clock show something else."""
        us = max(0, us)
        self.skew += max(0, self.shown - us)
        self.shown, self.latest = us, us + self.skew

    def reach(self, us):
        """Let the store's time be so late."""
        self.show(us - self.skew)

    def anew(self, skew):
        """Another server a second later, that knows of this skew."""
        self.latest, self.skew = self.latest + S, skew
        self.shown = self.latest - skew


class Mine(MemoryStore):
    """In memory, with integers for time: seconds since the epoch are too coarse as a float."""

    def __init__(self, clock, rand):
        super().__init__(lambda: clock.latest / S, rand)
        self.clock = clock

    def _now(self):
        return self.clock.latest


class Theirs(RedisStore):
    """On the server, in a process whose own clock shows something else."""

    def __init__(self, talk, namespace, clock, ahead, rand):
        self.clock, self.ahead_by = clock, ahead
        super().__init__(
            talk, namespace, now=lambda: self._now() / S, rand=rand, clock=lambda: clock.shown, courier=Straight
        )

    def _now(self):
        return self.clock.latest - self.ahead_by


def reset(account):
    """What an account has that nobody has used."""
    fresh = Account()
    for name in Account.__slots__:
        if name not in {"leases", "share"}:
            setattr(account, name, getattr(fresh, name))


def shown(one, other):
    """Of a ticket or a circuit only what differs."""
    if type(one) is not type(other) or not hasattr(one, "_fields"):
        return repr(one)
    pairs = zip(one._fields, one, other, strict=True)
    return ", ".join(f"{name}={value!r}" for name, value, another in pairs if value != another)
