"""What belongs to one credential at one provider: its limits, its blocks, and the line of those who wait for it.

Rules of this file: no locks, no clocks; every step takes `now` in the store's integer microseconds. `quota` has the arithmetic.
"""

from __future__ import annotations

from collections import deque

from langchain_resilient.engine import quota
from langchain_resilient.engine.effects import Admit, Place
from langchain_resilient.engine.events import Refusal
from langchain_resilient.engine.policy import Target
from langchain_resilient.engine.quota import FULL, LANES, Scale

SECOND = 1_000_000


class Line(deque[Place]):
    """The requests that wait for one credential's limits, in the order in which they came. Only the first one's turn can come."""

    def front(self, now: int) -> int | None:
        """Whose turn it is. Places whose time is over are dropped, and whoever is first then is woken: it does not know."""
        if self._drop(now) and self:
            self._call(self[0])
        return self[0].attempt if self else None

    def _drop(self, now: int) -> bool:
        dropped = False
        while self and self[0].lapses < now:
            self.popleft()
            dropped = True
        return dropped

    def place_of(self, attempt: int) -> Place | None:
        """Where a request stands."""
        return next((place for place in self if place.attempt == attempt), None)

    def leave(self, place: Place, now: int) -> None:
        """Give up a place, and wake whoever is first now."""
        if place in self:
            self.remove(place)
        self.wake(now)

    def wake(self, now: int) -> None:
        """Tell the first one to ask again."""
        self._drop(now)
        if self:
            self._call(self[0])

    @staticmethod
    def _call(place: Place) -> None:
        place.woken = True
        if place.wake is not None:
            place.wake()

    def wake_all(self) -> None:
        """Break the line up: everybody asks again."""
        while self:
            self._call(self.popleft())

    def seconds(self, place: Place, now: int, turn: float) -> float:
        """How long a place waits before it asks again, unless woken; `turn`: seconds until the first one's turn comes."""
        left = (place.lapses - now) / SECOND
        if self[0] is place:
            return min(left, turn)
        if self[1] is place:  # whoever is first may be gone without a word: its place lapses
            return min(left, (self[0].lapses - now + 1) / SECOND)
        return left


def wanted(target: Target, ask: Admit, cost: quota.Cost) -> tuple[list[tuple[quota.Dimension, int]], str]:
    """What a request takes from each dimension, in units; and the first one that its input alone does not fit into ("": it fits)."""
    found, too_big = [], ""
    for dimension in target.dimensions:
        amount = cost.of(dimension.unit)
        if amount > dimension.limit:
            if target.cost(ask.input_tokens, 0).of(dimension.unit) > dimension.limit:
                too_big = too_big or dimension.name
            # Else only the guess of the answer's length is too much, and a guess must not refuse for ever.
            amount = dimension.limit
        found.append((dimension, amount))
    return found, too_big


class Account:
    """What belongs to one credential at one provider."""

    __slots__ = (
        "blocked_reason",
        "blocked_until",
        "forbidden",
        "leases",
        "line",
        "scale",
        "share",
        "tats",
        "throttled_at",
        "throttles",
    )

    def __init__(self) -> None:
        self.tats: dict[str, int] = {}
        self.leases: dict[int, int] = {}
        self.line = Line()
        self.scale = Scale()
        self.share = FULL
        """The thousandths of the limits that this process may use: all, unless several share them and can't ask one another."""
        self.blocked_until = 0
        self.blocked_reason = "blocked"
        self.throttles = 0
        self.throttled_at = -1
        self.forbidden = 0

    def scale_at(self, now: int) -> int:
        """The thousandths of the limits in force here."""
        scale = quota.scale_at(self.scale, now)
        return scale if self.share == FULL else max(1, scale * self.share // FULL)

    def block(self, until: int, reason: str) -> None:
        """Leave the credential alone until then; never shortens a block."""
        if until > self.blocked_until:
            self.blocked_until = until
            self.blocked_reason = reason

    def unblock(self) -> None:
        """Forget why the credential was left alone. What it has used of the limits, and how far a 429 cut them, stays true."""
        self.blocked_until = self.throttles = self.forbidden = 0
        self.blocked_reason = "blocked"

    def status(self, target: Target, now: int) -> dict[str, object]:
        """For people: seconds, and the share of each limit's bucket that is free."""
        scale = self.scale_at(now)
        free = {
            dimension.name: round(
                1 - max(0, self.tats.get(dimension.name, 0) - now) / quota.capacity(dimension, scale), 3
            )
            for dimension in target.dimensions
        }
        blocked = self.blocked_until > now
        return {
            "blocked": self.blocked_reason if blocked else None,
            "blocked_for": (self.blocked_until - now) / SECOND if blocked else None,
            "limits_free": free,
            "limits_scale": scale / quota.FULL,
            "running": len([lapses for lapses in self.leases.values() if lapses > now]),
            "waiting": len(self.line),
        }

    def measure(self, target: Target, ask: Admit, cost: quota.Cost, now: int) -> tuple[quota.Taken, ...] | Refusal:
        """What the request takes from each dimension, or the one it does not fit into; nothing is charged yet."""
        scale, share, tats = self.scale_at(now), LANES[ask.lane], self.tats
        taken = []
        longest, tightest = 0, ""
        amounts, too_big = wanted(target, ask, cost)
        if too_big:
            return Refusal(target.name, too_big)
        for dimension, amount in amounts:
            step = quota.take(dimension, tats.get(dimension.name, 0), amount, now, scale, share)
            if step.wait > longest:
                longest, tightest = step.wait, dimension.name
            taken.append(step)
        return Refusal(target.name, tightest, longest / SECOND) if longest else tuple(taken)

    def charge(self, target: Target, taken: tuple[quota.Taken, ...]) -> None:
        """Take what was measured."""
        dimensions, tats = target.dimensions, self.tats
        for place, step in enumerate(
            taken
        ):  # a checked `zip` would cost as much as the rest of it: every admission comes here
            tats[dimensions[place].name] = step.tat

    def full(self, target: Target, ask: Admit, now: int) -> Refusal | None:
        """Why no further request may run at the moment, if so; lapsed leases are dropped."""
        most, leases = target.limits.concurrency, self.leases
        if most is None:
            return None
        allowed = quota.places(most, ask.lane, self.share)
        if len(leases) < allowed:
            return None
        for attempt in [attempt for attempt, lapses in leases.items() if lapses <= now]:
            del leases[attempt]
        if len(leases) < allowed:
            return None
        return Refusal(target.name, "concurrency", (min(leases.values()) - now) / SECOND)
