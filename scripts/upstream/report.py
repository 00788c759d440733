"""What is printed of the runs: a table of numbers, then by name all that it only counts.

Rules of this file: short. Tests that passed are not named, nor those whose change is explained; the full logs are elsewhere.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence

from upstream.outcomes import Outcomes, tally
from upstream.runs import Baseline, Ready, Run

OUTCOMES = ("passed", "failed", "error", "skipped", "xfailed")
HEADS = (*OUTCOMES, "changed", "explained", "wrapped", "injected", "seconds")


def table(before: Mapping[Ready, Baseline], runs: Sequence[Run]) -> None:
    """Print what the runs came to, in numbers."""
    print(f"\n{'suite':<28}{'mode':<10}{_columns(HEADS)}")
    for ready, known in before.items():
        print(f"{ready.folder.name:<28}{'without':<10}{_columns(_numbers(known.outcomes))}")
        for run in (run for run in runs if run.suite == ready.suite.name):
            explained = sum(change.reason is not None for change in run.changed)
            hit = run.counts["models wrapped"], run.counts["failures injected"]
            numbers = (*_numbers(run.outcomes), len(run.changed), explained, *hit, round(run.seconds))
            print(f"{'':<28}{run.mode:<10}{_columns(numbers)}")


def _numbers(found: Outcomes) -> tuple[int, ...]:
    counted = tally(found)
    return tuple(counted[outcome] for outcome in OUTCOMES)


def _columns(cells: Sequence[object]) -> str:
    return "".join(f"{cell:>{len(head) + 2}}" for cell, head in zip(cells, HEADS, strict=False))


def details(before: Mapping[Ready, Baseline], runs: Sequence[Run]) -> None:
    """Print by name what the table only counts."""
    for ready, known in before.items():
        bad = [name for name, outcome in known.outcomes.items() if "failed" in outcome.split("+") or "error" in outcome]
        _listed(ready.suite.name, "fails without us too", bad)
        _listed(ready.suite.name, "left out: two runs without us differ", known.flaky)
    for run in runs:
        alone = {what: number for what, number in run.counts.items() if what.startswith("left alone")}
        _listed(
            f"{run.suite} {run.mode}",
            "model arguments that are no chat model",
            [f"{k}: {v}" for k, v in sorted(alone.items())],
        )
        reasons = Counter(change.reason for change in run.changed if change.reason is not None)
        told = [f"{count} × {reason}" for reason, count in reasons.items()]
        _listed(f"{run.suite} {run.mode}", "changed, and explained (by name in scripts/upstream/suites.py)", told)
        _listed(f"{run.suite} {run.mode}", "WRONG", run.problems)


def _listed(of: str, what: str, entries: Sequence[str]) -> None:
    if entries:
        print(f"\n{of}: {what}")
        for entry in entries:
            print(f"    {entry}")


def as_json(before: Mapping[Ready, Baseline], runs: Sequence[Run]) -> str:
    """Every outcome."""
    told = {
        "baseline": {ready.folder.name: known._asdict() for ready, known in before.items()},
        "runs": [{**run._asdict(), "changed": [change._asdict() for change in run.changed]} for run in runs],
    }
    return json.dumps(told, indent=1)
