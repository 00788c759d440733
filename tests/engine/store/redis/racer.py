"""One of the processes of `test_races.py`: it asks for places when it is told to, and says how many it got.

    python -m tests.engine.store.redis.racer URL NAMESPACE

Each line of its input is a command: "KIND COUNT" asks COUNT times for a place of that kind, and answers the number that it got; "end" ends
what it got with success, and answers when the server has heard of it.
"""

from __future__ import annotations

import functools
import itertools
import random
import sys
import time

from langchain_resilient.engine.circuit import Circuit
from langchain_resilient.engine.effects import Admit, Report, Ticket
from langchain_resilient.engine.policy import Target
from langchain_resilient.engine.quota import RateLimits
from langchain_resilient.engine.store.redis.post.courier import Courier
from langchain_resilient.engine.store.redis.store import RedisStore

PROBES = 5
TARGETS = {
    "probes": Target(
        "probes", "probes", "probes:key",
        circuit=Circuit(failure_threshold=1, recovery_timeout=0.01, half_open_max_calls=PROBES, probe="inline"),
    ),
    "places": Target("places", "places", "places:key", limits=RateLimits(concurrency=5)),
    "burst": Target("burst", "burst", "burst:key", limits=RateLimits(rpm=1, burst=10)),
}  # fmt: skip
ATTEMPTS = itertools.count(1)


def store(url, namespace):
    """A store that waits for its server however busy this machine is."""
    return RedisStore(
        url, namespace, now=time.monotonic, rand=random.random, courier=functools.partial(Courier, budget=20.0)
    )


def ask(at, kind):
    """One request for a place."""
    later = at.admit(Admit(next(ATTEMPTS), (TARGETS[kind],), stream=False, lane="interactive"))
    return later.result() if hasattr(later, "result") else later


def say(what):
    """One line, at once."""
    sys.stdout.write(f"{what}\n")
    sys.stdout.flush()


def main(url, namespace):
    """Do as one is told."""
    at, held = store(url, namespace), []
    at.check()
    say("ready")
    for line in sys.stdin:
        kind, _, count = line.strip().partition(" ")
        if kind == "end":
            for ticket in held:
                at.settle(ticket, Report(seconds=0.1))
            held.clear()
            at.flush(20.0)
            say("ended")
            continue
        found = [ticket for ticket in (ask(at, kind) for _ in range(int(count))) if isinstance(ticket, Ticket)]
        held += found
        say(len(found))
    at.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
