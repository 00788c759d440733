"""A decision record as people read it: who answered, who was asked, who was not and why.

Rules of this file: a pure rendering; what it is given holds no prompt, answer or credential.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from langchain_resilient.cli.session import WIDE, indented
from langchain_resilient.cli.wording import duration
from langchain_resilient.engine.events import Attempt, Decision, Refusal

ENDINGS = {
    "answered": "answered",
    "interrupted": "the stream broke",
    "cancelled": "cancelled",
    "failed": "nobody answered",
    "refused": "nobody could be asked",
    "deadline": "the deadline passed",
    "overloaded": "too many requests wait in this process",
}
"""An outcome, in words."""


def drawn(decision: Decision, width: int) -> RenderableType:
    """The record on a few lines of at most `width` columns."""
    return Group(_headline(decision), indented(_way(decision, width)), *map(indented, _costs(decision)))


def _headline(decision: Decision) -> Text:
    said = ENDINGS.get(decision.outcome, decision.outcome)
    good = decision.provider is not None
    line = Text(f"{decision.provider} {said}" if good else said, style="green" if good else "red")
    line.append(
        f" in {duration(decision.seconds)}" if good else f" after {duration(decision.seconds)}", style="default"
    )
    if decision.first_token is not None:
        line.append(f", first token after {duration(decision.first_token)}", style="default")
    if decision.fallback:
        line.append(f", instead of {decision.first_choice}", style="default")
    if decision.continued:
        line.append(f", continued {_times(decision.continued)}", style="default")
    if decision.hedged:
        line.append(", hedged", style="default")
    return line


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _way(decision: Decision, width: int) -> RenderableType:
    steps = [(attempt.provider, _end(attempt), _when(attempt)) for attempt in decision.attempts]
    steps += [(refusal.provider, Text("not asked", style="yellow"), _why(refusal)) for refusal in decision.refusals]
    if width < WIDE:
        return Group(*(part for who, end, more in steps for part in (who, indented(Text("  ").join((end, more))))))
    table = Table.grid(padding=(0, 2, 0, 0))
    for step in steps:
        table.add_row(*step)
    return table


def _end(attempt: Attempt) -> Text:
    return Text(outcome(attempt), style="green" if attempt.kind == "ok" else "red")


def outcome(attempt: Attempt) -> str:
    """How an attempt ended, with the status or the limit that tells more."""
    more = f" {attempt.status}" if attempt.status else f" ({attempt.limit})" if attempt.limit else ""
    return f"{attempt.kind}{more}"


def _when(attempt: Attempt) -> Text:
    waited = f", asked after {duration(attempt.wait)}" if attempt.wait else ""
    return Text(f"{duration(attempt.seconds)}{waited}{', a probe' if attempt.probe else ''}")


def _why(refusal: Refusal) -> Text:
    wait = "" if refusal.retry_after is None else f", for {duration(refusal.retry_after)}"
    return Text(f"{refusal.reason}{wait}")


def _costs(decision: Decision) -> list[Text]:
    if decision.usage is None:
        return []
    used = f"{decision.usage.input} tokens in, {decision.usage.output} out"
    return [Text(used if decision.cost is None else f"{used}, ${decision.cost:.4f}", style="dim")]


def as_dict(decision: Decision) -> Mapping[str, Any]:
    """The record for `--json`."""
    return {
        **decision._asdict(),
        "attempts": [attempt._asdict() for attempt in decision.attempts],
        "refusals": [refusal._asdict() for refusal in decision.refusals],
        "usage": None if decision.usage is None else decision.usage._asdict(),
    }
