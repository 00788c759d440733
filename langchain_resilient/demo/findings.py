"""What a play came to, in sentences.

Rules of this file: every number is computed from the result, and every sentence stays true whatever the numbers are. Nothing is said
of what was not asked, and nothing is left out that speaks against us.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from langchain_resilient.demo.afternoon import HEALTHY, Afternoon
from langchain_resilient.demo.contenders import BARE, OURS
from langchain_resilient.demo.play import Result
from langchain_resilient.demo.words import counted, listed, reason_words, seconds, short
from langchain_resilient.engine.events import CircuitChanged


class Opening(NamedTuple):
    """A circuit that was not closed for a while."""

    provider: str
    begins: float
    reason: str
    trials: int
    """How often it was half-open."""
    ends: float | None
    """None: it was open to the end."""


class Healing(NamedTuple):
    """The first provider's recovery: when it was well again, and what was made of it."""

    provider: str
    at: float
    closed: float | None
    """Seconds from there until its circuit was closed again; None: it was closed, or stayed open."""
    used: float | None
    """Seconds from there until a user had an answer of it; None: nobody had."""


def headline(result: Result) -> str:
    """Who answered how many, in one sentence; and how much of the afternoon it is true of."""
    by_name = {score.name: score for score in result.scores}
    ours = by_name.get(OURS)
    if ours is None or not ours.figures.asked:
        return f"Nothing was asked: the play was stopped after {seconds(result.seconds)}."
    figures = ours.figures
    missing = [
        words for words in (_some(figures.failed, "failed"), _some(figures.waiting, "had no answer yet")) if words
    ]
    said = f"{figures.answered} of {figures.asked} questions answered"
    said += f" ({listed(missing)})" if missing else ""
    others = [f"{_the(score.name)} answered {score.figures.answered}" for score in result.scores if score is not ours]
    return f"{said}; {listed(others)}." if others else f"{said}."


def stopped(result: Result) -> str | None:
    """What to know of a play that was stopped; None of a complete one."""
    if result.complete:
        return None
    whole = _setting(result.afternoon.seconds)
    return f"Stopped after {seconds(result.seconds)} of {whole}: the numbers are of what was asked until then."


def waits(result: Result) -> str | None:
    """How long users waited, and how many calls helped nobody."""
    known = [score for score in result.scores if score.figures.p99 is not None]
    if not known:
        return None
    parts = [
        f"{seconds(score.figures.p99)} with {_the(score.name)} ({counted(score.wasted, 'call')} wasted)"
        for score in sorted(known, key=lambda score: score.name != OURS)
    ]
    return f"Of 100 users 99 waited no longer than {listed(parts)}."


def _some(number: int, word: str) -> str:
    return f"{number} {word}" if number else ""


def _the(name: str) -> str:
    return f"the {name}" if name == BARE else name


def openings(changes: Sequence[tuple[float, CircuitChanged]]) -> tuple[Opening, ...]:
    """The times in which a circuit was not closed, by their beginning."""
    begun: dict[str, Opening] = {}
    over: list[Opening] = []
    for at, change in changes:
        name = change.provider
        if change.after == "closed":
            if name in begun:
                over.append(begun.pop(name)._replace(ends=at))
        elif name not in begun:
            begun[name] = Opening(name, at, str(change.reason), int(change.after == "half_open"), None)
        elif change.after == "half_open":
            begun[name] = begun[name]._replace(trials=begun[name].trials + 1)
    return tuple(sorted([*over, *begun.values()], key=lambda opening: opening.begins))


def healing(result: Result) -> Healing | None:
    """How soon the first provider was used again after its last trouble; None where it was never in trouble, or still is."""
    house = result.afternoon.houses[0]
    at, sick = None, False
    for phase, begins, _ in result.afternoon.timetable():
        well = phase.of(house.wire) == HEALTHY
        if well and sick:
            at = begins
        sick = not well
    if at is None or sick or result.seconds <= at:
        return None
    ends = [
        opening.ends
        for opening in openings(result.changes)
        if opening.provider == house.name and opening.begins <= at and opening.ends is not None and opening.ends >= at
    ]
    ours = next((score for score in result.scores if score.name == OURS), None)
    used = [
        fate.at + fate.seconds
        for fate in (ours.fates if ours else ())
        if fate.answered and fate.provider == house.name and fate.at >= at
    ]
    return Healing(house.name, at, ends[0] - at if ends else None, min(used) - at if used else None)


def failures(result: Result) -> list[str]:
    """Why questions failed, the most frequent kind first."""
    return [
        f"{counted(score.figures.failed, 'failure')} of {_the(score.name)}: {listed(_by_number(score.errors))}."
        for score in result.scores
        if score.errors
    ]


def _by_number(errors: Mapping[str, int]) -> list[str]:
    kinds = sorted(errors, key=lambda kind: (-errors[kind], kind))
    return [f"{errors[kind]} × {str(kind).replace('_', ' ')}" for kind in kinds]


def circuits(result: Result) -> list[str]:
    """What our circuits did, and how soon the healed provider was used again."""
    found = [_opened(opening, complete=result.complete) for opening in openings(result.changes)]
    healed = healing(result)
    return (found or ["No circuit opened."]) + ([_healed(healed)] if healed else [])


def _opened(opening: Opening, *, complete: bool) -> str:
    end = "when the play was stopped" if not complete else "at the end"
    last = f"open until {seconds(opening.ends)}" if opening.ends is not None else f"still not closed {end}"
    return (
        f"The circuit of {short(opening.provider)} opened at {seconds(opening.begins)} ({reason_words(opening.reason)}), "
        f"let probes through {counted(opening.trials, 'time')}, and was {last}."
    )


def _healed(healed: Healing) -> str:
    who = short(healed.provider)
    used = f"a user had an answer of it {seconds(healed.used)} later" if healed.used is not None else ""
    closed = f"its circuit closed {seconds(healed.closed)} later" if healed.closed is not None else ""
    after = listed([words for words in (used, closed) if words]) or "nobody has had an answer of it since"
    return f"{who} was well again at {seconds(healed.at)}: {after}."


def small_print(result: Result) -> list[str]:
    """What to know before believing any of it."""
    limit = _setting(result.afternoon.limit)
    alike = (
        f"All three were asked the same at the same instants, with the same limit of {limit} for an attempt. Each had three providers "
        f"of its own on loopback, over real HTTP, which behave alike (seed {result.seed}); none was told what was to come."
    )
    shortened = f"A minute stands for an afternoon: {limit} are what 30 s are there, and all that takes time is shortened alike."
    counts = (
        "A wait ends with the answer in full or with an error. Calls are what the servers have logged; wasted are those that gave no "
        "user an answer."
    )
    others = (
        "bare client: ChatOpenAI with its own two retries. with_fallbacks: ChatOpenAI, ChatAnthropic, ChatOllama, retries off as its "
        "documentation says."
    )
    return [alike, shortened, counts, others, _settings(result.afternoon)]


def _settings(afternoon: Afternoon) -> str:
    return (
        f"ResilientChatModel: the same three. Its times are short as the afternoon is: timeouts {_setting(afternoon.limit)}, "
        f"recovery_timeout {_setting(afternoon.recovery)}, window {_setting(afternoon.window)}, max_retry_after "
        f"{_setting(afternoon.patience)}; openai's and anthropic's max_latency and slow_first_token {_setting(afternoon.slow)}. All else "
        "is as it comes."
    )


def _setting(value: float) -> str:
    """A chosen time: "2.5 s" and not "2.50 s"."""
    return f"{round(value, 2):g} s"
