"""Running a suite: without us, for the outcomes to compare with, and with us.

Rules of this file: a run ends by itself or is ended with all that it started; what it said is kept in `.upstream/logs`.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from time import monotonic as now  # noqa: TID251  # what is measured is real
from typing import NamedTuple

from upstream import outcomes
from upstream.environment import LOGS, ROOT, installed, say, scrubbed
from upstream.suites import EXPLAINED, Suite

MODES = ("plain", "fallback")
OPTIONS = (
    *("-n", "2", "--timeout=120", "--benchmark-disable", "--disable-socket", "--allow-unix-socket", "-p", "no:cacheprovider"),
    # CPython 3.11.7's `ast` fails on some sources that pytest's own traceback style parses, and aborts the run.
    "--tb=native",
    # What is meant where it is left out; but left out, the plugin warns, and deepagents' settings make errors of warnings.
    *("-o", "asyncio_default_fixture_loop_scope=function"),
)  # fmt: skip
LONGEST_RUN = 900.0
"""Seconds."""


class Ready(NamedTuple):
    """A suite that can be run."""

    suite: Suite
    folder: Path
    python: Path


class Baseline(NamedTuple):
    """What a suite comes to without us."""

    outcomes: outcomes.Outcomes
    flaky: list[str]
    """Tests that came to something else in a second run."""


class Run(NamedTuple):
    """What a suite came to with us."""

    suite: str
    mode: str
    outcomes: outcomes.Outcomes
    counts: Counter[str]
    seconds: float
    changed: list[outcomes.Change]
    problems: list[str]
    """Why this run is no pass."""


def pytest(ready: Ready, mode: str) -> tuple[outcomes.Outcomes, Counter[str], float]:
    """Run a suite's tests once, with our plugin if `mode` is one of `MODES`."""
    suite = ready.suite
    log, report, counts = (LOGS / f"{suite.name}-{mode}.{end}" for end in ("log", "xml", "counts"))
    report.unlink(missing_ok=True)
    shutil.rmtree(counts, ignore_errors=True)
    counts.mkdir()
    command = [
        str(ready.python),
        "-m",
        "pytest",
        *suite.paths,
        *(f"--ignore={path}" for path in suite.ignore),
        *OPTIONS,
    ]
    variables = scrubbed()
    if mode in MODES:
        command += ["-p", "upstream.plugin"]
        variables |= {"PYTHONPATH": str(ROOT / "scripts"), "UPSTREAM_MODE": mode, "UPSTREAM_COUNTS": str(counts)}
    began = now()
    with log.open("wb") as output:
        _wait([*command, f"--junitxml={report}"], ready.folder, variables, output.fileno())
    if not report.is_file():
        said = "\n".join(log.read_text(errors="replace").splitlines()[-30:])
        sys.exit(f"{said}\nupstream_tests: {suite.name} {mode}: pytest gave no report; the whole log: {log}")
    counted = Counter[str]()
    for part in counts.glob("*.json"):
        counted.update(json.loads(part.read_text()))
    return outcomes.read(report), counted, now() - began


def _wait(command: list[str], folder: Path, variables: dict[str, str], output: int) -> None:
    # A session of its own: xdist's workers must end with it.
    process = subprocess.Popen(
        command, cwd=folder, env=variables, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
    )  # fmt: skip
    try:
        process.wait(LONGEST_RUN)
    except BaseException as error:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if isinstance(error, subprocess.TimeoutExpired):
            sys.exit(f"upstream_tests: still running after {LONGEST_RUN:.0f} s, so it was ended: {' '.join(command)}")
        raise


def baseline(ready: Ready) -> Baseline:
    """A suite's outcomes without us, of two runs; kept for as long as nothing installed changes."""
    suite, kept = ready.suite, ready.folder / "baseline.json"
    listing = "\n".join([sys.version, *OPTIONS, *suite.paths, *suite.ignore, installed(ready.python)])
    versions = hashlib.sha256(listing.encode()).hexdigest()
    if kept.is_file() and (known := json.loads(kept.read_text()))["versions"] == versions:
        return Baseline(known["outcomes"], known["flaky"])
    say(f"{suite.name}: two runs without us")
    one, other = (pytest(ready, f"baseline-{number}")[0] for number in (1, 2))
    found = Baseline(one, outcomes.differing(one, other))
    kept.write_text(json.dumps({"versions": versions, **found._asdict()}, indent=1))
    return found


def with_us(ready: Ready, mode: str, before: Baseline) -> Run:
    """A suite's outcomes with every model wrapped, against those without."""
    suite = ready.suite
    say(f"{suite.name}: {mode}")
    found, counts, seconds = pytest(ready, mode)
    explained = [entry for entry in EXPLAINED if entry.suite == suite.name and mode in entry.modes]
    changed = outcomes.changes(before.outcomes, found, before.flaky, explained)
    problems = [f"{change.test}: {change.before} -> {change.after}" for change in changed if change.reason is None]
    for what, least in suite.least.items():
        if counts[what] < least and not (mode == "plain" and what == "failures injected"):
            problems.append(f"{what}: {counts[what]}, less than {least}: this run proves nothing")
    for entry in outcomes.unneeded(changed, explained):
        say(f"{suite.name} {mode}: suites.py explains a change that did not happen: {entry.test}")
    return Run(suite.name, mode, found, counts, seconds, changed, problems)
