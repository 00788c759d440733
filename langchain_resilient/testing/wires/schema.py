"""The smallest JSON value that fits a schema, with words and numbers taken from the user's message where a value is free.

Only what tool and structured-output schemas use: $ref, anyOf, allOf, enum, const, bounds, required. No pattern, no `not`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any

from langchain_resilient.testing.wires.base import JsonObject

_FORMATS = {
    "date-time": "2026-01-01T00:00:00Z",
    "date": "2026-01-01",
    "time": "00:00:00Z",
    "uuid": "00000000-0000-4000-8000-000000000000",
    "email": "x@example.com",
    "uri": "https://example.com",
}


class Hints:
    """Values that the user's message names, in its order: `f(3)` gives 3, "named 'Ann'" gives Ann."""

    def __init__(self, text: str = "") -> None:
        self.numbers: Iterator[float] = map(float, re.findall(r"(?<![\w.])-?\d+(?:\.\d+)?", text))
        quoted = re.findall(r"(?<!\w)'([^']+)'(?!\w)|\"([^\"]+)\"", text)
        self.words: Iterator[str] = (single or double for single, double in quoted)


def minimal(schema: JsonObject, hints: Hints | None = None) -> Any:
    """Build the smallest value that fits."""
    return _value(schema, schema, hints or Hints())


def _value(schema: JsonObject, root: JsonObject, hints: Hints) -> Any:
    schema = _resolve(schema, root)
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return schema["enum"][0]
    kind = schema.get("type", "object" if "properties" in schema else "string")
    if isinstance(kind, list):
        kind = next((k for k in kind if k != "null"), "null")
    if kind == "object":
        properties = schema.get("properties", {})
        return {key: _value(properties.get(key, {}), root, hints) for key in schema.get("required", [])}
    if kind == "array":
        return [_value(schema.get("items", {}), root, hints) for _ in range(schema.get("minItems", 0))]
    if kind in ("integer", "number"):
        return _number(schema, kind, next(hints.numbers, 1.0))
    if kind == "string":
        return _string(schema, hints)
    return {"boolean": True, "null": None}.get(kind)


def _resolve(schema: JsonObject, root: JsonObject) -> JsonObject:
    """Follow $ref, take the first option that isn't null, merge allOf."""
    while True:
        if "$ref" in schema:
            target: Any = root
            for step in schema["$ref"].removeprefix("#/").split("/"):
                target = target[step]
            schema = target
        elif options := schema.get("anyOf") or schema.get("oneOf"):
            schema = next((o for o in options if o.get("type") != "null"), options[0])
        elif parts := schema.get("allOf"):
            merged = {key: value for key, value in schema.items() if key != "allOf"}
            for part in parts:
                merged |= _resolve(part, root)
            return merged
        else:
            return schema


def _number(schema: JsonObject, kind: str, value: float) -> float:
    """Take the hint if it fits, else a bound, else what lies just inside."""
    low, high = float(schema.get("minimum", -math.inf)), float(schema.get("maximum", math.inf))
    above, below = float(schema.get("exclusiveMinimum", -math.inf)), float(schema.get("exclusiveMaximum", math.inf))
    candidates = (value, low, high, above + 1, below - 1, (max(low, above) + min(high, below)) / 2)
    fits = (n for n in candidates if low <= n <= high and above < n < below and math.isfinite(n))
    chosen = next(fits, value)
    return int(chosen) if kind == "integer" or chosen.is_integer() else chosen


def _string(schema: JsonObject, hints: Hints) -> str:
    if schema.get("format") in _FORMATS:
        return _FORMATS[schema["format"]]
    found = next(hints.words, "x")
    padded = found.ljust(schema.get("minLength", 0), "x")
    return padded[: schema.get("maxLength", len(padded))]
