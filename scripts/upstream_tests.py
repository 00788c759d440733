"""Run upstream's agent tests with `ResilientChatModel` around every model: `python scripts/upstream_tests.py [--suite S] [--mode M]`.

Rules: an outcome counts only against the same tests without us, run twice on the same versions (those runs are kept: they can't change until
a version does); a test that differs from itself is named and left out. Every other difference fails the run, unless `upstream/suites.py`
says why it is right. So does a run that wrapped too few models, or in which the failing provider was hardly hit. The tests of deepagents are
in none of its sdists: they run where `--deepagents` (or the variable DEEPAGENTS_CHECKOUT) names a checkout of `libs/deepagents`.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from time import monotonic as now  # noqa: TID251  # what is measured is real

from upstream.environment import LOGS, environment, prepare_home, say, sources
from upstream.report import as_json, details, table
from upstream.runs import MODES, Ready, baseline, with_us
from upstream.suites import SUITES, Suite


def chosen(options: argparse.Namespace) -> list[Suite]:
    """The suites to run; deepagents' only where its tests are."""
    found = [suite for suite in SUITES if options.suite in {None, suite.name}]
    missing = [suite for suite in found if suite.version is None and options.deepagents is None]
    for suite in missing:
        text = (
            f"{suite.name}: NOT RUN: its sdists hold no tests; name a checkout with --deepagents or DEEPAGENTS_CHECKOUT"
        )
        if options.suite is not None:
            sys.exit(f"upstream_tests: {text}")
        say(text)
    return [suite for suite in found if suite not in missing]


def prepared(suites: list[Suite], checkout: Path | None) -> list[Ready]:
    """The suites with their sources and environments."""
    prepare_home()
    ready = []
    for name in dict.fromkeys(suite.venv for suite in suites):
        # All that share it, whichever are chosen, or `--suite` would make it anew each time.
        folders = {suite: sources(suite, checkout) for suite in SUITES if suite.venv == name}
        python = environment(name, folders)
        ready += [Ready(suite, folder, python) for suite, folder in folders.items() if suite in suites]
    return ready


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description="Run upstream's agent tests with ResilientChatModel around every model."
    )
    parser.add_argument("--suite", choices=[suite.name for suite in SUITES], help="one suite; left out: all")
    parser.add_argument("--mode", choices=MODES, help="one mode; left out: both")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every outcome to FILE")
    checkout = os.environ.get("DEEPAGENTS_CHECKOUT") or None
    told = "a checkout of libs/deepagents, of the version to be tested"
    parser.add_argument("--deepagents", type=Path, metavar="DIR", default=checkout, help=told)
    return parser.parse_args()


def main() -> None:
    """Prepare, run, compare, tell."""
    options = arguments()
    began = now()
    before, runs = {}, []
    for ready in prepared(chosen(options), options.deepagents):
        before[ready] = baseline(ready)
        runs += [with_us(ready, mode, before[ready]) for mode in MODES if options.mode in {None, mode}]
    table(before, runs)
    details(before, runs)
    if options.json:
        options.json.write_text(as_json(before, runs))
    wrong = sum(len(run.problems) for run in runs)
    say(f"{'FAILED: ' if wrong else ''}{wrong} unexplained, {now() - began:.0f} s; logs: {LOGS}")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
