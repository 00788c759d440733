"""How long the provider asks us to wait.

Rules of this file:

1. Text in, numbers out. Malformed is ignored, never an exception, never negative, NaN or infinite.
2. A hint is positive. `0` and `-1` are sentinels that gateways send for "unknown"; the next source is asked instead.
3. A value past a day is kept as it is. Whether to sleep, block or give up is not decided here.

Theory. A wait comes from five sources, the plainest first: headers that mean "wait this long", the body, the reset of a limit
whose `remaining` is 0, the message, and last a reset that comes without `remaining`. A reset beside a positive `remaining` is
no hint: it tells when the bucket will be full again, not when the next request will pass.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final

from langchain_resilient.engine.classify.headroom import Headroom, limit_rows, read_headroom
from langchain_resilient.engine.classify.hint_headers import (
    HEADER_LIMIT,
    TEXT_LIMIT,
    UNITS,
    Hints,
    as_text,
    positive,
    seconds_from,
    select_hints,
)

__all__ = ["Headroom", "read_headroom", "read_retry_after"]

_NODE_LIMIT: Final = 64  # parts of a body that are looked at

# Headers that say "wait this long", the more exact first, and what one of their units is in seconds.
_WAIT_HEADERS: Final = (
    ("retry-after-ms", 1e-3),
    ("x-ms-retry-after-ms", 1e-3),
    ("x-amz-retry-after", 1e-3),
    ("retry-after", 1.0),
)
# The same in bodies (keys without "_" and "-", lower-cased): Gemini's RetryInfo and what gateways add.
_WAIT_KEYS: Final = {
    "retrydelay": 1.0,
    "retryafter": 1.0,
    "retryafterseconds": 1.0,
    "retryafterms": 1e-3,
}

_SPOKEN: Final = (
    r"\d{1,15}(?:\.\d{1,9})?\s?"
    r"(?:milliseconds?|ms|seconds?|secs?|s|minutes?|mins?|m|hours?|hrs?|h|days?|d)(?![a-z])[\s,]*(?:and\s+)?"
)
# Such as: try again in 6m0s / retry after 20 seconds / "retryDelay": "46s". The number is a word of its own: SDKs print the
# whole body, and in {'message': 'Try again later.'}, 'request_id': 'req_953654d' there is no wait of 2611 years.
_MESSAGE_WAIT: Final = re.compile(
    r"(?:again|retry(?:ing|[_-]?delay|[_-]after)?|wait|resets?)\b[^\d\n}]{0,40}?"
    r"(?<!\w)((?:" + _SPOKEN + r")+)(?!\w|-[0-9a-f]{4}-)",
    re.ASCII,
)
_SPOKEN_PART: Final = re.compile(r"(\d+(?:\.\d+)?)\s?([a-z]+)", re.ASCII)
_SPOKEN_UNITS: Final = {"d": "d", "h": "h", "m": "m", "mi": "m", "ml": "ms", "s": "s"}
_PROTO_WAIT: Final = re.compile(r"retry_delay\s*\{\s*seconds:\s*(\d{1,15})", re.ASCII)  # langchain-google-genai
_ACCESS: Final = re.compile(r"access on (\d{4}-\d\d-\d\d)(?: at (\d\d:\d\d))?", re.ASCII)  # Anthropic's spend limit


def read_retry_after(headers: Mapping[str, str], body: object, message: str, *, wall: float) -> float | None:
    """Return the seconds that the provider asks us to wait, or None where it gave no usable hint."""
    hints = select_hints(headers)
    if plain := _from_headers(hints, wall) or _from_body(body, hints, wall):
        return plain
    rows = limit_rows(hints, wall)
    text = f"{message[:TEXT_LIMIT]}\n{as_text(body)[:TEXT_LIMIT]}".lower()
    # All that is exhausted must come back; of those that might be, the first to come back may be enough.
    empty = max((r.reset for r in rows if r.remaining == 0 and r.reset), default=None)
    unsaid = min((r.reset for r in rows if r.remaining is None and r.reset), default=None)
    return positive(empty) or _from_text(text, hints, wall) or positive(unsaid)


def _from_headers(hints: Hints, wall: float) -> float | None:
    for name, unit in _WAIT_HEADERS:
        if (value := hints.get(name)) and (wait := positive(seconds_from(value, hints, wall, unit))):
            return wait
    return None


def _from_body(body: object, hints: Hints, wall: float) -> float | None:
    for key, value in _leaves(body):
        if key == "headers":  # OpenRouter repeats the upstream's headers in `error.metadata`
            inner = select_hints(value)
            resets = [r.reset for r in limit_rows(inner, wall) if not r.remaining and r.reset]
            wait = _from_headers(inner, wall) or max(resets, default=None)
        elif (unit := _WAIT_KEYS.get(key.replace("_", "").replace("-", ""))) is not None:
            wait = _span(value, hints, wall, unit)
        else:
            continue
        if usable := positive(wait):
            return usable
    return None


def _leaves(body: object) -> Iterator[tuple[str, object]]:
    """Yield (key in lower case, value) of a JSON-like body, breadth first and bounded: it may be huge or hold itself."""
    queue: list[object] = [body]
    for node in queue:  # the queue grows while it is walked
        if len(queue) > _NODE_LIMIT:
            return
        if isinstance(node, dict):
            for key, value in list(node.items())[:_NODE_LIMIT]:
                yield as_text(key).lower(), value
                if isinstance(value, (dict, list, tuple)):
                    queue.append(value)
        elif isinstance(node, (list, tuple)):
            queue.extend(node[:_NODE_LIMIT])
        elif node is not None and not isinstance(node, (str, bytes, int, float)):
            # google.rpc.RetryInfo as google-api-core hands it out: a message, not a dict
            yield "retrydelay", _field(node, "retry_delay")


def _field(message: object, name: str) -> object:
    try:
        return getattr(message, name, None)
    except Exception:  # noqa: BLE001  # foreign code
        return None


def _span(value: object, hints: Hints, wall: float, unit: float) -> float | None:
    """Read a span written as text, as a number, or as protobuf's Duration (as a dict or an object)."""
    if text := as_text(value):
        return seconds_from(text[:HEADER_LIMIT], hints, wall, unit)
    parts = [value.get(p) if isinstance(value, dict) else _field(value, p) for p in ("seconds", "nanos")]
    whole, nanos = (seconds_from(as_text(part) or "0", hints, wall) or 0.0 for part in parts)
    return whole + nanos * 1e-9


def _from_text(text: str, hints: Hints, wall: float) -> float | None:
    if (found := _MESSAGE_WAIT.search(text)) and (wait := positive(_spoken(found[1]))):
        return wait
    if found := _PROTO_WAIT.search(text):
        return positive(float(found[1]))
    if found := _ACCESS.search(text):
        return positive(seconds_from(f"{found[1]}T{found[2] or '00:00'}:00Z", hints, wall))
    return None


def _spoken(words: str) -> float:
    """Add up "1 hour and 2 minutes" or "6m0s"."""
    total = 0.0
    for number, unit in _SPOKEN_PART.findall(words):
        short = "ms" if unit == "ms" else _SPOKEN_UNITS.get(unit[:2]) or _SPOKEN_UNITS[unit[0]]
        total += float(number) * UNITS["ms" if unit.startswith("milli") else short]
    return total
