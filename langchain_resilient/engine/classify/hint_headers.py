"""What responses say about time, at its smallest: which headers are worth reading, and one written wait or moment.

Rules of this file:

1. Text in, numbers out. Malformed is ignored, never an exception, never NaN or infinite.
2. No clock is read: `wall` (seconds since the epoch) comes in, and the response's own `Date` is preferred to it, so that
   two clocks that disagree do not lengthen or shorten the wait.

Theory. A wait is written in five ways, which `seconds_from` tells apart by shape: a number (a delay below 1e9, else a moment
in epoch seconds, or milliseconds from 1e12 on), a Go duration ("6m0s", "20ms"), an RFC 3339 moment and an HTTP date.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final

__all__ = [
    "HEADER_LIMIT",
    "NUMBER",
    "TEXT_LIMIT",
    "UNITS",
    "Hints",
    "as_text",
    "positive",
    "seconds_from",
    "select_hints",
]

TEXT_LIMIT: Final = 4096  # characters of a message or body that are looked at
HEADER_LIMIT: Final = 256  # headers that are looked at, and characters of each

NUMBER: Final = re.compile(r"[+-]?\d{1,15}(?:\.\d{0,18})?", re.ASCII)
UNITS: Final = {"d": 86_400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
_PART: Final = r"(\d{1,15}(?:\.\d{1,18})?)(ms|us|µs|ns|d|h|m|s)"
_DURATION: Final = re.compile(f"(?:{_PART})+", re.ASCII)
_DURATION_PART: Final = re.compile(_PART, re.ASCII)
_RFC_3339: Final = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d", re.ASCII)
_EPOCH_S, _EPOCH_MS = 1e9, 1e12


class Hints(dict[str, str]):
    """The headers that matter here: names in lower case with "-", the prefix of LiteLLM's proxy removed."""


def select_hints(headers: object) -> Hints:
    """Pick the headers that matter from any mapping, whatever its spelling and types."""
    if isinstance(headers, Hints):
        return headers
    hints = Hints()
    try:  # A foreign mapping may raise anything; what was read until then is kept.
        for count, (name, value) in enumerate(headers.items()):  # type: ignore[attr-defined]
            if count >= HEADER_LIMIT:
                break
            key = as_text(name)[:HEADER_LIMIT].lower().removeprefix("llm_provider-").replace("_", "-")
            if key == "date" or "ratelimit" in key or "retry-after" in key:
                hints.setdefault(key, as_text(value)[:HEADER_LIMIT].strip())
    except Exception:  # noqa: BLE001, S110
        pass
    return hints


def as_text(value: object) -> str:
    """Read what should be text: bytes and plain numbers too; anything else is empty."""
    if isinstance(value, str):
        return value
    if isinstance(value, (bytes, bytearray)):
        return bytes(value[:TEXT_LIMIT]).decode("utf-8", "replace")
    return str(value) if type(value) in {int, float} else ""


def positive(seconds: float | None) -> float | None:
    """Keep a wait that can be waited: positive and finite."""
    return seconds if seconds is not None and 0.0 < seconds < math.inf else None


def seconds_from(value: str, hints: Mapping[str, str], wall: float, unit: float = 1.0) -> float | None:
    """Read one written wait or moment as seconds from now; past moments come out negative."""
    value = value.strip()
    if NUMBER.fullmatch(value):
        number = float(value)
        if number >= _EPOCH_S:
            return number / (1000.0 if number >= _EPOCH_MS else 1.0) - _now(hints, wall)
        return number * unit
    if _DURATION.fullmatch(value):
        return sum(float(n) * UNITS[u] for n, u in _DURATION_PART.findall(value))
    moment = _rfc_3339(value) if _RFC_3339.match(value) else _http_date(value)
    return None if moment is None else moment - _now(hints, wall)


def _now(hints: Mapping[str, str], wall: float) -> float:
    sent = _http_date(hints.get("date", ""))
    return wall if sent is None else sent


def _rfc_3339(value: str) -> float | None:
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        return None
    return _timestamp(moment)


@lru_cache(maxsize=16)  # one response's Date is compared with each of its resets
def _http_date(value: str) -> float | None:
    if len(value) < len("Sun Nov  6 08:49:37 1994") or ":" not in value:
        return None
    # Deferred: it costs milliseconds to import, and whoever has an HTTP date has an HTTP client that imported it.
    from email.utils import parsedate_to_datetime

    try:
        return _timestamp(parsedate_to_datetime(value))
    except (ValueError, TypeError, OverflowError, IndexError):
        return None


def _timestamp(moment: datetime) -> float | None:
    try:
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None
