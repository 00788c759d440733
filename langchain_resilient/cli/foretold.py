"""What the rehearsals showed, as tables: which failure leads to what.

Rules of this file: words only; what happens is in the scenes. Failures that lead to the same are one row, and
providers to which the same would happen one table.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from langchain_resilient.cli.rehearsal import OWN_ERROR, Act, Case, Scene
from langchain_resilient.cli.wording import duration, listed

EXAMPLES: dict[str, str] = {
    "rate_limited": "429",
    "quota_exhausted": "credit used up",
    "overloaded": "503, 529",
    "server_error": "500, reset",
    "timeout": "no answer in time",
    "stream_interrupted": "before content",
    "auth": "401",
    "permission": "403",
    "not_found": "404",
    "context_overflow": "prompt too long",
    "content_policy": "refused",
    "client_error": "400, 422",
    "local": "this process's own",
    "invalid_output": "answer does not parse",
    "unknown": "anything else",
}
"""What each kind looks like, as people know it."""
TIMES = {1: "once", 2: "twice"}


class Row(NamedTuple):
    """Failures that lead to the same."""

    failures: tuple[tuple[str, str], ...]
    """Each one's kind, and what it looks like."""
    leads_to: str


class Table(NamedTuple):
    """What happens in one situation."""

    title: str
    rows: tuple[Row, ...]


def tables(acts: Sequence[Act]) -> list[Table]:
    """For each provider with somebody after it, and for whoever is the only one left."""
    names = list(dict.fromkeys(act.provider for act in acts))
    beside: dict[tuple[Row, ...], list[str]] = {}
    alone: dict[tuple[Row, ...], list[str]] = {}
    for name in names:
        own = [act for act in acts if act.provider == name]
        answering = [act.beside.answered_by for act in own if act.beside is not None]
        if answering:
            rows = _rows([(act.case, act.beside) for act in own], max(answering, key=answering.count))
            beside.setdefault(rows, []).append(name)
        alone.setdefault(_rows([(act.case, act.alone) for act in own]), []).append(name)
    found = [Table(f"If {' or '.join(group)} fails", rows) for rows, group in beside.items()]
    return found + [Table(_title_alone(group, names), rows) for rows, group in alone.items()]


def _title_alone(group: list[str], names: list[str]) -> str:
    if len(names) == 1:
        return f"If {names[0]} fails"
    return f"If {'any of them' if group == names else ' or '.join(group)} fails, and nobody else can be asked"


def _rows(scenes: Sequence[tuple[Case, Scene | None]], usual: str | None = None) -> tuple[Row, ...]:
    """The rows of one provider's table; `usual` is who answers for it as a rule."""
    grouped: dict[str, list[tuple[str, str]]] = {}
    for case, scene in scenes:
        if scene is not None:
            grouped.setdefault(told(scene, usual), []).append((str(case.kind), example(case)))
    return tuple(Row(tuple(failures), text) for text, failures in grouped.items())


def example(case: Case) -> str:
    """What a case looks like."""
    if case.midway:
        return "after content"
    hint = "" if case.retry_after is None else f", retry in {duration(case.retry_after)}"
    return EXAMPLES.get(str(case.kind), "no example") + hint


def told(scene: Scene, usual: str | None = None) -> str:
    """A scene in one sentence; the `usual` one to answer needs no name."""
    if not scene.attempts:
        return "it is never asked"
    first = scene.attempts[0].provider
    again = [attempt.wait for attempt in scene.attempts[1:] if attempt.provider == first]
    failures = len(again) + 1
    parts = [f"asked again {_times(again)}"] if again else []
    parts.append(_end(scene, usual, again=bool(again)))
    if scene.blocked_for is not None:
        late = f" from the {_nth(scene.blocked_after)} in a row on" if scene.blocked_after > failures else ""
        parts.append(f"left alone for {duration(scene.blocked_for)}{late}")
    if scene.opens_after is not None and scene.opens_for is not None:
        parts.append(f"circuit opens after {scene.opens_after} in a row, for up to {duration(scene.opens_for)}")
    return "; ".join(parts)


def _times(waits: list[float]) -> str:
    often = TIMES.get(len(waits), f"{len(waits)} times")
    if not any(waits):
        return f"{often} at once"
    said = list(dict.fromkeys(duration(wait) for wait in waits))
    return f"{often} after up to {listed(said)}"


def _end(scene: Scene, usual: str | None, *, again: bool) -> str:
    if scene.answered_by is not None:
        who = "the next one" if scene.answered_by == usual else scene.answered_by
        return f"{'then ' if again else ''}{who} answers"
    if scene.caller_gets == OWN_ERROR:
        return f"{'then' if again else 'the caller gets'} its error as it is"
    return f"{'then' if again else 'the caller gets'} {scene.caller_gets}"


def _nth(number: int) -> str:
    return f"{number}{ {1: 'st', 2: 'nd', 3: 'rd'}.get(number, 'th') }"


def as_dict(act: Act) -> Mapping[str, Any]:
    """One failure for `--json`."""
    return {
        "provider": act.provider,
        "kind": str(act.case.kind),
        "retry_after": act.case.retry_after,
        "after_content": act.case.midway,
        "example": example(act.case),
        "others_answer": None if act.beside is None else _scene_as_dict(act.beside),
        "only_one_left": _scene_as_dict(act.alone),
    }


def _scene_as_dict(scene: Scene) -> Mapping[str, Any]:
    attempts = [
        {"provider": attempt.provider, "kind": str(attempt.kind), "wait": round(attempt.wait, 3)}
        for attempt in scene.attempts
    ]
    return {**scene._asdict(), "attempts": attempts, "in_words": told(scene)}
