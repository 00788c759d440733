"""One worker of several (`PROMETHEUS_MULTIPROC_DIR`): counts what it is told to, says so, and lives until its input ends.

Run as `python workers.py PROVIDER STATE PENDING BUDGET LETTERS`; with "fork" as a sixth argument the models are made before a fork, as a
server that loads its application first does, and the child does the counting.
"""

import os
import sys

from prometheus_client import CollectorRegistry

from langchain_resilient.engine.events import (
    Attempted,
    CircuitChanged,
    LettersWatched,
    Retried,
    StoreDegraded,
    Watching,
)
from langchain_resilient.engine.observe.prometheus import PrometheusObserver


def main() -> None:
    """Count, and wait."""
    provider, state, pending, budget, letters = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:6])
    level, phase = [pending], ["closed"]
    observe, beside = PrometheusObserver(), PrometheusObserver(CollectorRegistry())
    observe(Watching((provider,), lambda _: float(budget), lambda: level[0], lambda _: None, lambda _: phase[0]))
    observe(LettersWatched(lambda: (letters, 0, 0, 0, None)))
    if "fork" in sys.argv and (child := os.fork()):
        os.waitpid(child, 0)
        return
    for _ in range(3):
        observe(Attempted(provider, "ok", 1.0, None, None, False))
    # On another registry of the same process: the files know of none.
    beside(Attempted(provider, "ok", 1.0, None, None, False))
    beside(Retried(provider, "timeout", 0.5))
    if state != "closed":
        observe(StoreDegraded(True, "gone"))
        phase[0] = state
        observe(CircuitChanged(provider, "closed", state, "timeout"))
    sys.stdout.write(f"{os.getpid()}\n")
    sys.stdout.flush()
    for line in sys.stdin:
        level[0] = int(line)


if __name__ == "__main__":
    main()
