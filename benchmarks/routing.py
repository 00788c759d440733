"""How well users fare under each routing rule, when providers slow down as they fill up: simulated, in seconds of simulated time.

    python benchmarks/routing.py [--rate 6 --rate 14] [--seed 1] [--seeds 3] [--unstreamed] [--json]

Three providers that batch (one best for whole answers, one in between, one best for first tokens), chat and long answers mixed, Poisson
arrivals of 6 and 14 a second; in the middle the best one is 8 times slower for 60 s. Beside our rules, which are the real plan, store and async
driver: random, the lowest p50 and p99, Finagle's peak-EWMA with two choices, LiteLLM's latency rule, and an oracle that sees everything (see
`routings/rules.py`). Read the ratios within one run, not the seconds: it is a model. A run depends on its seeds alone.

Columns: p50 and p99 of the whole answer and of its first token, in seconds; the p99 as a multiple of LiteLLM's and of the oracle's; shares of
the providers; herd: the largest share of one provider in any 5 s; swing: how much the shares change from one 5 s to the next; crowded: the share
of requests that were sent to a provider beyond its knee while another had room.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from typing import Any

from routings.ours import variants
from routings.providers import FLEET
from routings.rules import OTHERS
from routings.scenario import PHASES, Fate, Numbers, measured, run

RATES = (6.0, 14.0)
REFERENCE, YARDSTICK = "LiteLLM latency", "oracle"
GOAL = 0.5
"""Of LiteLLM's p99 at 14 requests a second."""

Results = dict[float, dict[str, dict[str, Numbers]]]


def one_run(job: tuple[str, int, float, bool]) -> list[Fate]:
    """One rule, one seed, one rate."""
    name, seed, rate, stream = job
    return run(name, seed, rate, stream=stream)


def results(rates: Iterable[float], seeds: range, *, stream: bool) -> Results:
    """Per rate, phase and rule the numbers over all seeds."""
    names = [*OTHERS, *variants(stream=stream)]
    jobs = [(name, seed, rate, stream) for rate in rates for name in names for seed in seeds]
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        fates = dict(zip(jobs, pool.map(one_run, jobs), strict=True))
    return {
        rate: {
            phase: {name: measured([fates[name, seed, rate, stream] for seed in seeds], phase) for name in names}
            for phase in PHASES
        }
        for rate in rates
    }


def rows(table: dict[str, Numbers]) -> list[dict[str, Any]]:
    """A phase, ready to print."""
    return [
        {
            "rule": name,
            "p50": f"{number.p50:.2f}",
            "p99": f"{number.p99:.1f}",
            "/LiteLLM": f"{number.p99 / table[REFERENCE].p99:.2f}",
            "/oracle": f"{number.p99 / table[YARDSTICK].p99:.2f}",
            "first p50": f"{number.first_p50:.2f}",
            "first p99": f"{number.first_p99:.1f}",
            "shares %": "/".join(f"{100 * share:.0f}" for share in number.shares),
            "herd": f"{number.herd:.2f}",
            "swing": f"{number.swing:.2f}",
            "crowded": f"{number.crowded:.2f}",
            "extra %": f"{100 * number.extra:.1f}",
        }
        for name, number in table.items()
    ]


def show(found: list[dict[str, Any]]) -> None:
    """Print a table."""
    widths = {key: max(len(key), *(len(row[key]) for row in found)) for key in found[0]}
    print("  ".join(key.ljust(width) for key, width in widths.items()))
    for row in found:
        print("  ".join(row[key].ljust(width) for key, width in widths.items()).rstrip())
    print()


def verdict(found: Results) -> list[str]:
    """What is to be shown, and what came out."""
    lines = []
    for rate, phases in found.items():
        for phase, table in phases.items():
            ours, theirs = table["ours: latency"], table[REFERENCE]
            ratio = ours.p99 / theirs.p99
            goal = "" if rate < RATES[-1] else f" (goal {GOAL}: {'reached' if ratio <= GOAL else 'missed'})"
            lines.append(
                f"{rate:g}/s {phase}: our p99 is {ratio:.2f} x LiteLLM's{goal}; "
                f"crowded {100 * ours.crowded:.0f} % against {100 * theirs.crowded:.0f} %, swing {ours.swing:.2f} against {theirs.swing:.2f}"
            )
    return lines


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--rate", type=float, action="append", help="requests a second; may be repeated (default 6 and 14)"
    )
    parser.add_argument("--seed", type=int, default=1, help="the first seed (default 1)")
    parser.add_argument("--seeds", type=int, default=3, help="how many (default 3)")
    parser.add_argument("--unstreamed", action="store_true", help="answers that come whole")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    options = parser.parse_args()
    found = results(
        options.rate or RATES, range(options.seed, options.seed + options.seeds), stream=not options.unstreamed
    )
    if options.json:
        plain = {
            f"{rate:g}": {
                phase: {name: number._asdict() for name, number in table.items()} for phase, table in phases.items()
            }
            for rate, phases in found.items()
        }
        print(json.dumps(plain, indent=2))
    else:
        total = sum(model.capacity for model in FLEET)
        print(
            "providers: "
            + ", ".join(f"{m.name} {100 * m.capacity / total:.0f} %" for m in FLEET)
            + " of the capacity\n"
        )
        for rate, phases in found.items():
            for phase, table in phases.items():
                print(f"{rate:g} requests a second, {phase}: {next(iter(table.values())).requests} requests")
                show(rows(table))
        print("\n".join(verdict(found)))
