"""What users see while a provider is sick: eight systems, nine outages, the same requests against the same faults.

    python benchmarks/outage.py [--quick] [--fault 503 …] [--system ours …] [--seed 1] [--rate 20] [--json FILE] [--chart FILE]

Every run is a process of its own, with three providers of its own on loopback (`langchain_resilient.testing.FaultServer`); the runs of one
outage begin at the same instant, four at a time. No key, proxy or tracing variable of yours takes part, and nothing leaves this machine.
In full it takes about 17 minutes. LiteLLM's rows need `pip install 'litellm>=1.106,<2'`; without it they are left out, and said to be.

Read the ratios to the oracle of the same run, not the seconds. The promises are made for the standard settings: with `--quick`, or another
rate, they are an indication.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from outages import report
from outages.cell import Spec
from outages.chart import draw
from outages.contenders import SYSTEMS
from outages.crowd import CellError, run_batch
from outages.faults import Timeline, outages
from outages.figures import Figures, Run, figures_of
from outages.promises import slow_answers, verdicts

QUICK = Timeline(lead_in=5.0, outage=6.0, afterwards=6.0)
QUICK_SYSTEMS = ("oracle", "fallbacks", "ours")
QUICK_FAULTS = ("503", "blackhole", "429", "cut")
TOGETHER = ("oracle", "ours", "hedged", "litellm-tuned")


def options_of(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fault", nargs="+", choices=list(outages(0)), help="which outages (default: all)")
    parser.add_argument("--system", nargs="+", choices=list(SYSTEMS), help="which systems (default: all)")
    parser.add_argument("--seed", type=int, default=1, help="of arrivals, answer times and dice (default 1)")
    parser.add_argument("--rate", type=float, default=20.0, help="requests a second (default 20)")
    parser.add_argument("--at-once", type=int, default=4, help="runs at the same time (default 4)")
    parser.add_argument(
        "--quick", action="store_true", help="shorter, fewer systems and faults unless named: two minutes"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything that was measured")
    parser.add_argument("--chart", type=Path, metavar="FILE", help="draw it (needs matplotlib)")
    options = parser.parse_args(arguments)
    options.fault = options.fault or list(QUICK_FAULTS if options.quick else outages(0))
    options.system = options.system or list(QUICK_SYSTEMS if options.quick else SYSTEMS)
    options.timeline = QUICK if options.quick else Timeline()
    return options


async def measure(options: argparse.Namespace) -> tuple[list[Run], dict[str, str]]:
    """Run everything; the runs, and why systems are missing."""
    runs: list[Run] = []
    missing: dict[str, str] = {}
    for fault in options.fault:
        # Those that are compared by their ratio run at the same time.
        left = sorted(options.system, key=lambda system: system not in TOGETHER)
        while left := [system for system in left if system not in missing]:
            batch, left = left[: options.at_once], left[options.at_once :]
            began = time.monotonic()
            specs = [Spec(system, fault, options.seed, options.rate, options.timeline) for system in batch]
            runs += await run_batch(specs, lambda spec, why: missing.setdefault(spec.system, why))
            names = ", ".join(batch)
            print(f"  {fault}: {names} ({time.monotonic() - began:.0f} s)", file=sys.stderr, flush=True)
    return runs, missing


def tell(options: argparse.Namespace, runs: Sequence[Run], missing: dict[str, str]) -> dict[str, Any]:
    """Print what came of it; all of it, for a file."""
    faults = outages(options.seed)
    table: dict[tuple[str, str], Figures] = {(run.fault, run.system): figures_of(run, options.timeline) for run in runs}
    for fault, group in itertools.groupby(runs, key=lambda run: run.fault):
        ordered = sorted(group, key=lambda run: list(SYSTEMS).index(run.system))
        rows = [report.row(SYSTEMS[run.system].title, table[fault, run.system], run) for run in ordered]
        report.show(faults[fault].title, report.COLUMNS, rows)
    for system, why in missing.items():
        print(f"{SYSTEMS[system].title}: {why}")
    promises = verdicts(table, slow_answers(options.seed, options.rate, options.timeline))
    standard = options.timeline == Timeline() and options.rate == 20
    report.show(
        "What was to be reached" + ("" if standard else " (at the standard settings: this is an indication)"),
        ("ours", "reach", "measured", "verdict"),
        report.verdict_rows(promises),
    )
    lost, busy = report.void(runs), report.busy(runs)
    machine = max((run.machine for run in runs), default=0.0)
    print(f"A loop with nothing to do was late by at most {1000 * machine:.0f} ms (p99 of a batch).")
    for line in busy:
        print(f"Late by its own work: {line}")
    for line in lost:
        print(f"VOID: {line}")
    versions = {name: version for run in runs for name, version in run.versions.items()}
    print(report.summary(versions))
    return {
        "seed": options.seed,
        "rate": options.rate,
        "timeline": options.timeline._asdict(),
        "versions": versions,
        "missing": missing,
        "void": lost,
        "busy": busy,
        "figures": [
            {
                "fault": run.fault,
                "system": run.system,
                **table[run.fault, run.system].as_json(),
                "lags": run.lags,
                "machine": run.machine,
                "cpu": run.cpu,
            }
            for run in runs
        ],
        "promises": [one._asdict() | {"verdict": one.word} for one in promises],
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    options = options_of(arguments)
    faults = outages(options.seed)
    print(
        report.head(options.timeline, options.seed, options.rate, [faults[fault] for fault in options.fault]),
        flush=True,
    )
    try:
        runs, missing = asyncio.run(measure(options))
    except KeyboardInterrupt:
        print("Stopped; nothing is left running.", file=sys.stderr)
        return 130
    except CellError as error:
        print(error, file=sys.stderr)
        return 1
    told = tell(options, runs, missing)
    if options.json:
        options.json.write_text(json.dumps(told, indent=1), encoding="utf-8")
    if options.chart:
        subtitle = f"{options.rate:g} requests/s, outage of {options.timeline.outage:g} s, seed {options.seed}"
        table = {(run.fault, run.system): figures_of(run, options.timeline) for run in runs}
        draw(options.chart, {fault: faults[fault].title for fault in options.fault}, options.system, table, subtitle)
    return 0


if __name__ == "__main__":
    sys.exit(main())
