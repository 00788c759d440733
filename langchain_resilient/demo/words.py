"""What the views say: one way to say each thing.

Rules of this file: pure, and without layout. No sentence is sure of a result: all are made from what a scene or a record holds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from langchain_resilient.demo.contenders import BARE, FALLBACKS, OURS
from langchain_resilient.demo.play import Told
from langchain_resilient.engine.events import Attempt, CircuitChanged, Decision

NOTHING = "–"
"""Where there is no number yet."""
LABELS = {BARE: "bare", FALLBACKS: "fallbacks", OURS: "ours"}
"""The contenders where there is little room."""
CIRCUITS = {"closed": "closed", "half_open": "half-open", "open": "open"}
MARKS = {"closed": "●", "half_open": "◐", "open": "×"}
"""A circuit's state by one sign, so that colour is never needed for it."""

_REASONS = {
    "circuit_open": "open",
    "half_open": "half-open",
    "forced_open": "shut by hand",
    "auth": "blocked (key refused)",
    "concurrency": "full",
    "deadline": "too late",
    "budget": "past its retry budget",
}
"""Why a provider was passed over, after "is"."""
_LIMITS = ("rpm", "tpm", "itpm", "otpm", "rpd", "tpd", "usd_per_day")
_ENDINGS = {
    "failed": "nobody answered",
    "refused": "nobody could be asked",
    "cancelled": "cancelled",
    "interrupted": "the stream broke",
    "deadline": "the deadline passed",
    "overloaded": "too many were waiting",
}
_OPENED_BY = {"ok": "slow answers", "slow": "slow answers", "first_token": "slow answers", "timeout": "no answer"}
"""A circuit that opens on an answer opens on a slow one."""


class Entry(NamedTuple):
    """One line of news; the same news several times in a row are one entry."""

    at: float
    """Of the newest."""
    mark: str
    """Of the circuit, for a change; "!" where nobody answered; else "·"."""
    words: str
    joint: str = " "
    """Between the words and the seconds."""
    times: int = 1
    shortest: float | None = None
    longest: float | None = None
    """Seconds of the decisions; None for a change."""

    def text(self) -> str:
        """The news in one line."""
        again = f" ×{self.times}" if self.times > 1 else ""
        if self.shortest is None or self.longest is None:
            return f"{self.words}{again}"
        low, high = seconds(self.shortest), seconds(self.longest)
        took = high if low == high else f"{low.removesuffix(' s')}–{high}"
        return f"{self.words}{again}{self.joint}{took}"


def short(provider: str) -> str:
    """A provider without its model."""
    return provider.partition("/")[0]


def seconds(value: float | None) -> str:
    """A wait: "0.41 s", "12.3 s", "140 s"."""
    if value is None:
        return NOTHING
    digits = 2 if value < 9.995 else 1 if value < 99.95 else 0
    return f"{value:.{digits}f} s"


def percent(share: float) -> str:
    """A share; 100 % is said of the whole only, and 0 % of nothing at all."""
    if 0 < share < 0.01:
        return "<1 %"
    return f"{math.floor(min(1.0, max(0.0, share)) * 100 + 1e-9)} %"


def listed(words: Sequence[str]) -> str:
    """Words in a row: "a, b and c"."""
    return f"{', '.join(words[:-1])} and {words[-1]}" if len(words) > 1 else "".join(words)


def counted(number: int, noun: str) -> str:
    """A number of things: "1 probe", "3 probes"."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def reason_words(reason: str) -> str:
    """Why a circuit opened."""
    return _OPENED_BY.get(reason, reason.replace("_", " "))


def change_words(change: CircuitChanged) -> str:
    """A circuit's change."""
    who = short(change.provider)
    if change.after == "open":
        why = reason_words(str(change.reason))
        return f"circuit of {who} " + (
            f"opened again (probe: {why})" if change.before == "half_open" else f"opened ({why})"
        )
    if change.after == "half_open":
        return f"circuit of {who} half-open: probing"
    return f"circuit of {who} {CIRCUITS.get(change.after, change.after)} again"


def decision_words(decision: Decision, *, brief: bool = False) -> str:
    """Why a request went where it went, without its seconds."""
    failed = [f"{short(attempt.provider)} {_how(attempt)}" for attempt in decision.attempts if attempt.kind != "ok"]
    over = _passed_over(decision, brief=brief)
    if decision.provider is None:
        ending = _ENDINGS.get(decision.outcome, decision.outcome)
        return f"{ending}: {', '.join(failed + over)}" if failed or over else ending
    before = f"{', '.join(over)}: " if over else ""
    who = short(decision.provider)
    if failed:
        return f"{before}{' → '.join([*failed, who])}"
    if decision.outcome != "answered":
        return f"{before}{who}: {_ENDINGS.get(decision.outcome, decision.outcome)}"
    if any(attempt.probe for attempt in decision.attempts):
        return f"{before}{who} answered its probe"
    return f"{before}{who}" if brief and before else f"{before}{who} answered"


def _passed_over(decision: Decision, *, brief: bool) -> list[str]:
    reasons = {short(refusal.provider): _reason(refusal.reason) for refusal in decision.refusals}
    seen = {attempt.provider for attempt in decision.attempts} | {refusal.provider for refusal in decision.refusals}
    if decision.provider is not None and decision.first_choice not in seen:
        # Neither refused nor done: its probe runs beside the one who answered, and is not over yet.
        reasons = {short(decision.first_choice): "being probed"} | reasons
    verb = " " if brief or len(reasons) > 1 else " is "
    return [f"{name}{verb}{why}" for name, why in reasons.items()]


def _reason(reason: str) -> str:
    return f"at its limit ({reason})" if reason in _LIMITS else _REASONS.get(reason, reason.replace("_", " "))


def _how(attempt: Attempt) -> str:
    word = "gave no answer" if attempt.kind == "timeout" else str(attempt.kind).replace("_", " ")
    return f"{attempt.status or word}{' (probe)' if attempt.probe else ''}"


def news(told: Sequence[Told], *, brief: bool = False) -> tuple[Entry, ...]:
    """What was told, newest first; the same in a row is one entry."""
    entries: list[Entry] = []
    for item in told:
        entry = _entry(item, brief=brief)
        last = entries[-1] if entries else None
        if last is not None and (last.mark, last.words) == (entry.mark, entry.words):
            entries[-1] = _merged(last, entry)
        else:
            entries.append(entry)
    return tuple(reversed(entries))


def _entry(item: Told, *, brief: bool) -> Entry:
    event = item.event
    if isinstance(event, CircuitChanged):
        return Entry(item.at, MARKS.get(event.after, "·"), change_words(event))
    # A trail of failures ends with a name, and "→ anthropic 0.41 s" needs no word between.
    trail = brief or (event.provider is not None and any(attempt.kind != "ok" for attempt in event.attempts))
    joint = " " if trail else " after " if event.provider is None else " in "
    mark = "!" if event.provider is None else "·"
    return Entry(item.at, mark, decision_words(event, brief=brief), joint, 1, event.seconds, event.seconds)


def _merged(old: Entry, new: Entry) -> Entry:
    ends = [end for end in (old.shortest, old.longest, new.shortest, new.longest) if end is not None]
    return new._replace(
        times=old.times + new.times,
        shortest=min(ends, default=None),
        longest=max(ends, default=None),
    )
