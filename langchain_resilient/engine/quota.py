"""Rate limits of one credential at one provider: GCRA arithmetic on integers.

Rules of this file
------------------
* Nothing here reads a clock; times are integer microseconds of the store's own time, and each dimension's whole state is one
  integer, its *theoretical arrival time* (`tat`): the moment at which its bucket will be full again.
* Increments are `⌈cost · period / limit⌉` computed afresh from the limit, never a stored interval: a changed limit holds at once and
  rounding can only admit less, never more. The Lua twin does the same arithmetic.
* All dimensions are asked before any is charged: a refusal writes nothing.
* A refund never exceeds its charge, and never makes a bucket fuller than full.

Theory
------
GCRA (ITU-T I.371) admits exactly what a token bucket admits, with one number instead of two, and it knows the wait exactly: a cost
`c` fits when `max(tat, now) + increment(c) − now ≤ increment(burst)`. A cost above the bucket but within the limit per period is
admitted when the bucket is full, and leaves debt: `tat` runs ahead and everyone after it waits for that debt.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal, NamedTuple

from langchain_resilient.engine.errors import checked, is_number, require, unknown_name

MINUTE_US = 60_000_000
DAY_US = 86_400_000_000
FULL = 1000
"""Limits are scaled in thousandths: AIMD and lanes."""
FLOOR = 200
"""AIMD never cuts a limit below this many thousandths."""

Lane = Literal["interactive", "batch", "replay"]
LANES: dict[str, int] = {"interactive": FULL, "batch": 600, "replay": 500}
"""How many thousandths of a burst, of `concurrency` and of `max_pending` a lane may use: the rest stays free for the lanes before it."""

LINE_LIMITS = frozenset({"rpm", "tpm", "itpm", "otpm", "rpd", "tpd", "usd_per_day", "concurrency", "line"})
"""The refusals that come of our own limits, which standing in a line can cure."""

Unit = Literal["requests", "tokens", "input_tokens", "output_tokens", "usd_micros"]


@checked
@dataclass(frozen=True, slots=True)
class RateLimits:
    """What a provider's account allows. None: no such limit. Checked when made: raises `SettingsError`."""

    rpm: int | None = None
    """Requests a minute (≥ 1)."""
    tpm: int | None = None
    """Tokens a minute, input and output together (≥ 1)."""
    itpm: int | None = None
    """Input tokens a minute (≥ 1)."""
    otpm: int | None = None
    """Output tokens a minute (≥ 1)."""
    rpd: int | None = None
    """Requests a day (≥ 1)."""
    tpd: int | None = None
    """Tokens a day, input and output together (≥ 1)."""
    usd_per_day: float | None = None
    """US dollars a day (> 0); needs the provider's `price`."""
    concurrency: int | None = None
    """Requests at a time (≥ 1)."""
    burst: int | None = None
    """Requests that may come at once (≥ 1, needs `rpm`); default `max(1, rpm / 6)`, ten seconds' worth."""
    on_limit: Literal["next", "wait", "reject"] = "next"
    """When the limit is reached: "next" asks the next provider, and waits only when none can take it; "wait" stands in this
    provider's line for up to `max_wait` before it goes on; "reject" raises `RateLimitedError`."""
    max_wait: float = 10.0
    """The longest wait for a place, in seconds (≥ 0)."""

    def __post_init__(self) -> None:
        for name in ("rpm", "tpm", "itpm", "otpm", "rpd", "tpd", "concurrency", "burst"):
            value = getattr(self, name)
            ok = value is None or (isinstance(value, int) and is_number(value, least=1))
            require(ok, f"RateLimits.{name}", value, "use a whole number ≥ 1, or None for no limit")
        usd = self.usd_per_day
        require(
            usd is None or is_number(usd, least=1e-6),
            "RateLimits.usd_per_day",
            usd,
            "use US dollars > 0, or None for no limit",
        )
        require(is_number(self.max_wait, least=0), "RateLimits.max_wait", self.max_wait, "use a number of seconds ≥ 0")
        require(
            self.burst is None or self.rpm is not None,
            "RateLimits.burst",
            self.burst,
            "set rpm as well: burst is counted in requests",
        )
        if self.on_limit not in ("next", "wait", "reject"):  # no set: a list from a file is not hashable
            raise unknown_name("RateLimits.on_limit", self.on_limit, ["next", "wait", "reject"])


class Dimension(NamedTuple):
    """One limit, ready for arithmetic."""

    name: str
    unit: Unit
    limit: int
    """Units per period."""
    period: int
    """µs."""
    burst: int
    """Units that a full bucket holds."""
    room: int = 0
    """`capacity` of the whole burst, µs: what the hot path compares with."""


class Cost(NamedTuple):
    """What a request takes from each unit. Estimated before the attempt, reported after it."""

    requests: int = 1
    input_tokens: int = 0
    output_tokens: int = 0
    usd_micros: int = 0

    def of(self, unit: Unit) -> int:
        """The cost in one unit."""
        if unit == "requests":
            return self.requests
        if unit == "tokens":
            return self.input_tokens + self.output_tokens
        return int(getattr(self, unit))


def dimensions(limits: RateLimits) -> tuple[Dimension, ...]:
    """The dimensions that `limits` sets, in the order in which they are asked."""
    found: list[Dimension] = []
    if limits.rpm is not None:
        found.append(Dimension("rpm", "requests", limits.rpm, MINUTE_US, limits.burst or max(1, limits.rpm // 6)))
    per_minute: tuple[tuple[str, Unit, int | None], ...] = (
        ("tpm", "tokens", limits.tpm),
        ("itpm", "input_tokens", limits.itpm),
        ("otpm", "output_tokens", limits.otpm),
    )
    found += [
        Dimension(name, unit, limit, MINUTE_US, max(1, limit // 6))
        for name, unit, limit in per_minute
        if limit is not None
    ]
    usd = None if limits.usd_per_day is None else int(limits.usd_per_day * 1_000_000)
    per_day: tuple[tuple[str, Unit, int | None], ...] = (
        ("rpd", "requests", limits.rpd),
        ("tpd", "tokens", limits.tpd),
        ("usd_per_day", "usd_micros", usd),
    )
    found += [Dimension(name, unit, limit, DAY_US, limit) for name, unit, limit in per_day if limit is not None]
    return tuple(dimension._replace(room=capacity(dimension)) for dimension in found)


def counts_tokens(limits: RateLimits) -> bool:
    """Whether any dimension needs an estimate of tokens."""
    names = {field.name for field in fields(limits)} & {"tpm", "itpm", "otpm", "tpd", "usd_per_day"}
    return any(getattr(limits, name) is not None for name in names)


def places(most: int, lane: Lane, share: int = FULL) -> int:
    """How many of `most` places a lane may fill (at least one), where this process may use `share` thousandths of them."""
    return max(1, most * LANES[lane] * share // (FULL * FULL))


def increment(dimension: Dimension, cost: int, scale: int = FULL) -> int:
    """How far `cost` units move `tat`, µs, with the limit scaled to `scale` thousandths."""
    whole = -(-cost * dimension.period // dimension.limit)
    return whole if scale == FULL else stretched(whole, scale)


def stretched(step: int, scale: int) -> int:
    """An increment with the limit scaled to `scale` thousandths. In two roundings, as the numbers must stay below 2⁵³ for the Lua twin."""
    return -(-step * FULL // scale)


def capacity(dimension: Dimension, scale: int = FULL, share: int = FULL) -> int:
    """How far `tat` may run ahead of now, µs, for a lane that may use `share` thousandths of the burst (at least one request).

    The same time whatever the scale: under a cut limit each unit takes more of it, so a 429 never lets in what was refused
    the moment before.
    """
    room = _room(dimension, max(1, dimension.burst * share // FULL), FULL)
    return max(room, increment(dimension, 1, scale))


def _room(dimension: Dimension, units: int, scale: int) -> int:
    if dimension.unit == "requests":
        # A whole number of increments, or rounding up each of them would refuse the last request of a burst by a microsecond.
        return units * increment(dimension, 1, scale)
    return increment(dimension, units, scale)


class Taken(NamedTuple):
    """What taking a cost from a dimension comes to."""

    wait: int
    """Microseconds until it fits; 0: now."""
    tat: int
    """The dimension's state once it is charged."""
    charged: int
    """How far the charge moves it, µs."""


def take(dimension: Dimension, tat: int, cost: int, now: int, scale: int = FULL, share: int = FULL) -> Taken:
    """Look whether `cost` fits, and what the state is if it is charged; writes nothing.

    Args:
        dimension: The limit.
        tat: Its present state.
        cost: Units wanted.
        now: The store's time, µs.
        scale: Thousandths of the limit in force (AIMD).
        share: Thousandths of the burst that the caller's lane may use.
    """
    ahead = tat - now if tat > now else 0
    if scale == share == FULL:  # as `increment` and `capacity` have it, without the calls: every admission comes here
        step, room = -(-cost * dimension.period // dimension.limit), dimension.room
    else:
        step, room = increment(dimension, cost, scale), capacity(dimension, scale, share)
    if ahead + step <= room:
        return Taken(0, now + ahead + step, step)
    return Taken(ahead if step > room else ahead + step - room, now + ahead + step, step)


def moved(dimension: Dimension, charged: int, estimated: int, actual: int) -> int:
    """How far the real cost moves `tat` once it is known, µs: forward beyond the estimate, or back (a refund, never above its charge).

    Args:
        dimension: The limit.
        charged: What the estimate had moved it by, µs.
        estimated: The units that were charged.
        actual: The units that were really used.
    """
    if actual > estimated:
        return increment(dimension, actual - estimated)
    return 0 if actual == estimated else -(charged * (estimated - actual) // estimated)


def reconcile(tat: int, by: int, now: int) -> int:
    """The new `tat` once it has moved by so much: a charge counts from now on, a refund never makes a bucket fuller than full."""
    if by > 0:
        return max(tat, now) + by
    return tat if by == 0 or tat <= now else max(now, tat + by)


def tighten(dimension: Dimension, tat: int, remaining: int, now: int, scale: int = FULL) -> int:
    """The new `tat` after the provider said how many units remain: never looser than what is known here."""
    spent = capacity(dimension, scale) - _room(dimension, max(0, remaining), scale)
    return max(tat, now + spent)


class Scale(NamedTuple):
    """By how much 429s have cut the limits (AIMD), in thousandths."""

    permille: int = FULL
    since: int = -MINUTE_US
    """When it was last cut, µs."""


def scale_at(scale: Scale, now: int) -> int:
    """The thousandths of the limit in force: 5 % of the limit come back each minute."""
    if scale.permille == FULL:
        return FULL
    return min(FULL, scale.permille + (now - scale.since) * 50 // MINUTE_US)


def cut(scale: Scale, now: int) -> Scale:
    """The scale after a 429: × 0.8, at most once a minute, never below a fifth."""
    if now - scale.since < MINUTE_US:
        return scale
    return Scale(max(FLOOR, scale_at(scale, now) * 8 // 10), now)
