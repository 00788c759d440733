"""What a response says is left of the provider's limits.

Rules of this file: headers in, rows out; malformed is ignored, never an exception; no clock is read (`hint_headers`).

Theory. A limit is told in three notations: a header for each of limit, remaining and reset (x-ratelimit-*,
anthropic-ratelimit-*, ratelimit-*), the IETF draft's `RateLimit: "default";r=0;t=30` beside its `RateLimit-Policy`, and the
older draft's `limit=9, remaining=0, reset=30`. All become rows of (dimension, window, limit, remaining, reset).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

from langchain_resilient.engine.classify.hint_headers import NUMBER, Hints, seconds_from, select_hints

__all__ = ["Headroom", "LimitRow", "limit_rows", "read_headroom"]

_DIMENSIONS: Final = {
    "": "requests",  # X-RateLimit-Limit without a dimension counts requests
    "requests": "requests",
    "tokens": "tokens",
    "input-tokens": "input_tokens",
    "output-tokens": "output_tokens",
    "tokens-prompt": "input_tokens",  # Fireworks
    "tokens-generated": "output_tokens",
}
_FIELDS: Final = frozenset({"limit", "remaining", "reset"})
_WINDOWS: Final = frozenset({"second", "minute", "hour", "day", "month"})
_SHORT_WINDOWS: Final = frozenset({"", "second", "minute"})
_LONG_WINDOW: Final = 3600.0  # seconds in a policy's `w` from which it is no longer a limit per minute
_POLICY_PARAM: Final = re.compile(r'([a-z]+)\s*=\s*"?([^";,\s]+)"?', re.ASCII)


class Headroom(NamedTuple):
    """What one response said about one limit per minute (or about a limit whose window it did not name)."""

    dimension: str
    """"requests", "tokens", "input_tokens" or "output_tokens"."""
    limit: int | None
    remaining: int | None
    reset: float | None
    """Seconds from this response until the limit is whole again, ≥ 0."""


class LimitRow(NamedTuple):
    """One limit as it was sent; `window` is "" where its name does not tell it."""

    dimension: str
    window: str
    limit: int | None
    remaining: int | None
    reset: float | None


def read_headroom(headers: Mapping[str, str], *, wall: float) -> tuple[Headroom, ...]:
    """Tell what is left of the provider's limits; limits per hour and day are left out, as no field could tell them apart."""
    rows = limit_rows(select_hints(headers), wall)
    return tuple(Headroom(r.dimension, r.limit, r.remaining, r.reset) for r in rows if r.window in _SHORT_WINDOWS)


def limit_rows(hints: Hints, wall: float) -> list[LimitRow]:
    """Gather x-ratelimit-*, anthropic-ratelimit-*, ratelimit-* and the IETF draft's `RateLimit`."""
    groups: dict[tuple[str, str], dict[str, str]] = {}
    for name, value in hints.items():
        before, found, after = name.partition("ratelimit-")
        if not found or before not in {"", "x-", "anthropic-"}:
            continue
        words = after.split("-")
        field = next((w for w in words if w in _FIELDS), None)
        window = next((w for w in words if w in _WINDOWS), "")
        dimension = _DIMENSIONS.get("-".join(w for w in words if w not in _FIELDS and w not in _WINDOWS))
        if field and dimension:
            groups.setdefault((dimension, window), {}).setdefault(field, value)
    rows = [
        LimitRow(*key, _count(v.get("limit")), _count(v.get("remaining")), _reset(v.get("reset"), hints, wall))
        for key, v in groups.items()
    ]
    return rows + _structured(hints, wall)


def _count(value: str | None) -> int | None:
    found = NUMBER.match(value or "")
    number = float(found[0]) if found else -1.0
    return int(number) if number >= 0.0 else None


def _reset(value: str | None, hints: Hints, wall: float) -> float | None:
    seconds = seconds_from(value, hints, wall) if value else None
    return None if seconds is None or not math.isfinite(seconds) else max(0.0, seconds)


def _structured(hints: Hints, wall: float) -> list[LimitRow]:
    """Read `RateLimit: "default";r=0;t=30` beside its `RateLimit-Policy`, and the older `limit=9, remaining=0, reset=30`."""
    value = hints.get("ratelimit", "")
    if not value:
        return []
    if ";" not in value:
        old = dict(_POLICY_PARAM.findall(value))
        reset = _reset(old.get("reset"), hints, wall)
        row = LimitRow("requests", "", _count(old.get("limit")), _count(old.get("remaining")), reset)
        return [row] if old.keys() & _FIELDS else []
    policies = dict(_members(hints.get("ratelimit-policy", "")))
    rows = []
    for name, params in _members(value):
        policy = policies.get(name, {})
        about = f"{name} {policy.get('qu', '')}"
        dimension = "requests" if "token" not in about else "tokens"
        window = "day" if (_count(policy.get("w")) or 0) >= _LONG_WINDOW or "day" in about or "daily" in about else ""
        if params.keys() & {"r", "t"}:
            reset = _reset(params.get("t"), hints, wall)
            rows.append(LimitRow(dimension, window, _count(policy.get("q")), _count(params.get("r")), reset))
    return rows


def _members(value: str) -> Iterator[tuple[str, dict[str, str]]]:
    for member in value.lower().split(","):
        name, _, params = member.partition(";")
        yield name.strip().strip('"'), dict(_POLICY_PARAM.findall(params))
