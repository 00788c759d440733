"""What a run's tests came to, and what two runs differ in.

Rules of this file: pure, but for reading a file. A test is named as in the report, without addresses, which differ from run to run.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

Outcomes = dict[str, str]
"""By test: "passed", "failed", "error", "skipped" or "xfailed"; several, with "+", where a name stands for several cases."""

ADDRESS = re.compile(r"0x[0-9a-f]{6,}")
ABSENT = "absent"


class Explained(NamedTuple):
    """A changed outcome that is not ours to mend."""

    suite: str
    test: str
    """Its name in the report; without its `[parameters]` it stands for every case."""
    modes: tuple[str, ...]
    reason: str


class Change(NamedTuple):
    """A test that came to something else than without us."""

    test: str
    before: str
    after: str
    reason: str | None = None
    """Why that is right; None: it is not explained."""


def read(report: Path) -> Outcomes:
    """The outcomes of a junit XML report of pytest's."""
    found: dict[str, list[str]] = {}
    for case in ET.parse(report).iter("testcase"):  # noqa: S314  # pytest wrote it a moment ago
        name = ADDRESS.sub("0x", f"{case.get('classname', '')}::{case.get('name', '')}")
        found.setdefault(name, []).append(_outcome(case))
    return {name: "+".join(sorted(outcomes)) for name, outcomes in sorted(found.items())}


def _outcome(case: ET.Element) -> str:
    if case.find("error") is not None:
        return "error"
    if case.find("failure") is not None:
        return "failed"
    skipped = case.find("skipped")
    if skipped is None:
        return "passed"
    return "xfailed" if skipped.get("type") == "pytest.xfail" else "skipped"


def differing(one: Mapping[str, str], other: Mapping[str, str]) -> list[str]:
    """The tests that two runs disagree about."""
    return sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))


def changes(
    before: Mapping[str, str], after: Mapping[str, str], flaky: Iterable[str], explained: Iterable[Explained]
) -> list[Change]:
    """What changed, save in the tests that change by themselves."""
    reasons = {entry.test: entry.reason for entry in explained}
    return [
        Change(
            name, before.get(name, ABSENT), after.get(name, ABSENT), reasons.get(name, reasons.get(name.split("[")[0]))
        )
        for name in differing(before, after)
        if name not in set(flaky)
    ]


def unneeded(found: Iterable[Change], explained: Iterable[Explained]) -> list[Explained]:
    """Explanations of what did not happen."""
    names = {name for change in found for name in (change.test, change.test.split("[")[0])}
    return [entry for entry in explained if entry.test not in names]


def tally(outcomes: Mapping[str, str]) -> Counter[str]:
    """How many cases came to what."""
    return Counter(outcome for several in outcomes.values() for outcome in several.split("+"))
