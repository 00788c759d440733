"""Eight real processes race over a real server for the same few places: never more get one than may, and never fewer."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from langchain_resilient.engine.classify import ErrorKind
from langchain_resilient.engine.effects import Report
from tests.engine.store.redis.racer import PROBES, ask, store

ROOT = Path(__file__).parents[4]
RACERS = 8

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]


class Racers:
    """Processes that wait for one word, and then all ask at once."""

    def __init__(self, url, namespace):
        command = [sys.executable, "-m", "tests.engine.store.redis.racer", url, namespace]
        self.processes = [
            subprocess.Popen(command, cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            for _ in range(RACERS)
        ]

    def hear(self):
        """What each of them says."""
        return [process.stdout.readline().strip() for process in self.processes]

    def say(self, command):
        """Tell all of them, and hear what they say."""
        for process in self.processes:
            process.stdin.write(f"{command}\n")
            process.stdin.flush()
        return self.hear()

    def got(self, kind, each=4):
        """How many places they got together, when each asked so often."""
        return sum(map(int, self.say(f"{kind} {each}")))

    def close(self):
        """End them."""
        for process in self.processes:
            process.kill()
            process.communicate()


@pytest.fixture
def racers(redis_url, namespace):
    """Eight processes that are ready."""
    racers = Racers(redis_url, namespace)
    try:
        assert racers.hear() == ["ready"] * RACERS
        yield racers
    finally:
        racers.close()


def test_probes_are_as_many_as_are_allowed(racers, redis_url, namespace):
    """Of 32 asks of eight processes min(1 + successes, half_open_max_calls) may probe a half-open circuit: 1, then 2, then 4."""
    own = store(redis_url, namespace)
    try:
        own.settle(ask(own, "probes"), Report(ErrorKind.SERVER_ERROR))
        own.flush(20.0)
        time.sleep(0.05)  # the circuit is open for about 10 ms
        successes = 0
        while successes < PROBES:
            allowed = min(1 + successes, PROBES)
            assert racers.got("probes") == allowed, f"after {successes} successes"
            assert racers.got("probes") == 0
            racers.say("end")
            successes += allowed
        assert racers.got("probes") == RACERS * 4, "closed"
    finally:
        own.close()


def test_places_are_as_many_as_are_allowed(racers):
    """Five at a time, not one more and not one fewer; and again five when they are given back."""
    for _ in range(5):
        assert racers.got("places") == 5
        assert racers.got("places") == 0
        racers.say("end")


def test_a_burst_is_as_large_as_it_is(racers):
    """Ten requests of a burst of ten, whoever comes first."""
    assert racers.got("burst") == 10
    assert racers.got("burst") == 0
