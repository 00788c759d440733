"""LiteLLM's Router alone, and with `litellm_hooks.install`: the same requests, the same faults, real time.

    python benchmarks/litellm_router.py [--seconds 20] [--only blackhole,slow] [--system ours …] [--json FILE]

Every run is a process of its own, with three providers in another on loopback (`langchain_resilient.testing.FaultServer`); the runs of one
fault begin at the same instant. No key, proxy or tracing variable of yours takes part, and nothing leaves this machine. In full it takes
about 12 minutes. It needs `pip install 'litellm>=1.106,<2'`, in a Python of its own: in `.venv` LiteLLM would hold the provider clients back.

The gates are printed with PASS or MISS beside them, and never asserted. They are made for the standard settings: with other `--seconds`, or
another rate, they are an indication.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from outages.cell import Spec
from outages.contenders import NotHereError
from outages.crowd import CellError, environment, run_batch
from outages.figures import LAG_ALLOWED, Figures, Run, figures_of
from routers import report
from routers.contenders import OURS, SYSTEMS
from routers.faults import MEDIAN, RATE, SECONDS, faults, timeline_of
from routers.gates import gates, healthy_p50
from routers.overhead import Costs

OVERHEAD = "overhead"
KNOWN = (*faults(0), OVERHEAD)
ROUNDS = 60
"""Of the overhead, at the standard length."""
LONGEST = 600.0
"""Seconds that the overhead may take."""


def options_of(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--only", type=_words, default=KNOWN, metavar="FAULT,…", help=f"which of {', '.join(KNOWN)} (default: all)"
    )
    parser.add_argument("--system", nargs="+", choices=list(SYSTEMS), default=list(SYSTEMS), help="default: all")
    parser.add_argument("--seconds", type=float, default=SECONDS, help=f"of an outage (default {SECONDS:g})")
    parser.add_argument("--seed", type=int, default=1, help="of arrivals and answer times (default 1)")
    parser.add_argument("--rate", type=float, default=RATE, help=f"requests a second (default {RATE:g})")
    parser.add_argument(
        "--median",
        type=float,
        default=MEDIAN,
        help=f"seconds of a healthy answer (default {MEDIAN:g}; outage.py's: 0.3)",
    )
    parser.add_argument("--at-once", type=int, default=2, help="runs at the same time (default 2: a core each)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything that was measured")
    options = parser.parse_args(arguments)
    if min(options.seconds, options.rate, options.median) <= 0 or options.at_once < 1:
        parser.error("--seconds, --rate and --median must be above 0, --at-once 1 or more")
    options.timeline = timeline_of(options.seconds)
    return options


def _words(text: str) -> tuple[str, ...]:
    words = tuple(text.split(","))
    unknown = [word for word in words if word not in KNOWN]
    if unknown:
        msg = f"unknown: {', '.join(unknown)}; there are {', '.join(KNOWN)}"
        raise argparse.ArgumentTypeError(msg)
    return words


async def measure(options: argparse.Namespace) -> list[Run]:
    """Run every fault. `NotHereError` where there is no LiteLLM."""
    runs: list[Run] = []
    missing: dict[str, str] = {}
    for fault in options.only:
        if fault == OVERHEAD:
            continue
        left = list(options.system)
        while left:
            batch, left = left[: options.at_once], left[options.at_once :]
            began = time.monotonic()
            specs = [
                Spec(system, fault, options.seed, options.rate, options.timeline, options.median) for system in batch
            ]
            runs += await run_batch(specs, lambda spec, why: missing.setdefault(spec.system, why), "routers.cell")
            if missing:
                raise NotHereError(next(iter(missing.values())))
            print(f"  {fault}: {', '.join(batch)} ({time.monotonic() - began:.0f} s)", file=sys.stderr, flush=True)
    return runs


async def measure_overhead(seconds: float) -> list[Costs]:
    """What a healthy call costs, alone on the machine."""
    rounds = max(6, round(ROUNDS * seconds / SECONDS))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "routers.overhead", str(rounds)),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment(),
    )
    try:
        said, complained = await asyncio.wait_for(process.communicate(), LONGEST)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if not said.strip():
        msg = "overhead ended early:\n" + "\n".join(complained.decode(errors="replace").splitlines()[-15:])
        raise CellError(msg)
    told = json.loads(said)
    if "missing" in told:
        raise NotHereError(told["missing"])
    return [Costs(*cost) for cost in told["costs"]]


def tell(options: argparse.Namespace, runs: Sequence[Run], costs: Sequence[Costs]) -> dict[str, Any]:
    """Print what came of it; all of it, for a file."""
    titles = {name: fault.title for name, fault in faults(options.seed).items()}
    table: Mapping[tuple[str, str], Figures] = {
        (run.fault, run.system): figures_of(run, options.timeline) for run in runs
    }
    medians = {(run.fault, run.system): healthy_p50(run, options.timeline) for run in runs}
    for fault in dict.fromkeys(run.fault for run in runs):
        rows = [
            report.row(SYSTEMS[run.system].title, table[fault, run.system], medians[fault, run.system], run)
            for run in runs
            if run.fault == fault
        ]
        report.show(titles[fault], report.COLUMNS, rows)
    if costs:
        report.show("What a healthy call costs, tuned Router", report.COST_COLUMNS, report.cost_rows(costs))
    verdicts = gates(table, medians, costs, [system for system in OURS if system in options.system])
    standard = (options.seconds, options.rate, options.median) == (SECONDS, RATE, MEDIAN)
    title = "To reach" + ("" if standard else " (at the standard settings: this is an indication)")
    report.show(title, report.GATE_COLUMNS, report.gate_rows(verdicts))
    late = report.void(runs, SYSTEMS, LAG_ALLOWED)
    print("\n".join(late) if late else f"No loop was late by {1000 * LAG_ALLOWED:.0f} ms (p99).")
    versions = {name: version for run in runs for name, version in run.versions.items()}
    print("Versions: " + ", ".join(f"{name} {version}" for name, version in sorted(versions.items())))
    return {
        "seed": options.seed,
        "rate": options.rate,
        "median": options.median,
        "timeline": options.timeline._asdict(),
        "versions": versions,
        "late": late,
        "figures": [
            {
                "fault": run.fault,
                "system": run.system,
                **table[run.fault, run.system].as_json(),
                "healthy_p50": medians[run.fault, run.system],
                "lags": run.lags,
                "machine": run.machine,
                "cpu": run.cpu,
            }
            for run in runs
        ],
        "overhead": [cost._asdict() for cost in costs],
        "gates": [one._asdict() | {"met": one.met} for one in verdicts],
    }


async def _everything(options: argparse.Namespace) -> tuple[list[Run], list[Costs]]:
    runs = await measure(options)
    return runs, await measure_overhead(options.seconds) if OVERHEAD in options.only else []


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    options = options_of(arguments)
    systems = [SYSTEMS[system] for system in options.system]
    print(report.head(options.timeline, options.seed, options.rate, options.median, systems), flush=True)
    try:
        runs, costs = asyncio.run(_everything(options))
    except KeyboardInterrupt:
        print("Stopped; nothing is left running.", file=sys.stderr)
        return 130
    except (CellError, NotHereError) as error:
        print(error, file=sys.stderr)
        return 1
    told = tell(options, runs, costs)
    if options.json:
        options.json.write_text(json.dumps(told, indent=1), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
