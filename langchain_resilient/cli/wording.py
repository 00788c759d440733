"""Words for numbers, and for what a rehearsal showed.

Rules of this file: pure; one way to say each thing.
"""

from __future__ import annotations

from collections.abc import Sequence


def duration(seconds: float) -> str:
    """Seconds, as short as they stay true: "12 ms", "1.4 s", "5 min", "1 h"."""
    if 0 < seconds < 0.0995:
        return f"{max(1, round(seconds * 1000))} ms"
    if seconds < 120 or (seconds < 600 and seconds % 60):
        return f"{round(seconds, 1 if seconds < 10 else 0):g} s"
    if seconds < 7200 and seconds != 3600:
        return f"{round(seconds / 60):g} min"
    return f"{round(seconds / 3600, 1):g} h"


def ago(seconds: float) -> str:
    """How old something is: "3 min ago", "12 days ago"; clocks differ, so what is yet to come is "now"."""
    if seconds < 1:
        return "now"
    return f"{round(seconds / 86400):g} days ago" if seconds >= 172_800 else f"{duration(seconds)} ago"


def number(value: float) -> str:
    """With thousands apart: "200 000"."""
    return f"{value:,}".replace(",", "\u202f")


def listed(words: Sequence[str]) -> str:
    """Words in a row: "a, b and c"."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
