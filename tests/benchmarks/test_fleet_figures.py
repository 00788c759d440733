"""Rules for the arithmetic of `benchmarks/fleet.py`; numbers worked out by hand."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import pytest
from fleets.figures import figures_of, probes_allowed
from fleets.scene import Call, Fate, Scene, Worker

SCENE = Scene(lead_in=2.0, outage=6.0, afterwards=4.0, takes=0.1, recovery=2.0)
FIRST, SECOND = "first", "second"


def seen(workers, calls=()):
    """The figures of what was seen."""
    return figures_of(workers, calls, SCENE, FIRST)


def worker(*fates, probes=(), degraded=()):
    """A process."""
    return Worker(fates, probes, degraded, 0.6)


def dead(*moments):
    """Calls that failed."""
    return [Call(at, failed=True) for at in moments]


def test_calls_into_the_dead_provider():
    """The fifth call leaves at 2.4 and fails at 2.5; two more leave until 50 ms later; the one at 4.7 is late, thus a probe."""
    calls = [*dead(2.0, 2.1, 2.2, 2.3, 2.4, 2.45, 2.54, 4.7), Call(1.0, failed=False)]
    found = seen([worker(probes=(4.8, 9.0)), worker()], calls)
    assert (found.dead, found.in_flight, found.probes) == (8, 2, 1)
    assert found.allowed == 5 + 2 + 4


def test_a_circuit_that_never_opened():
    """Fewer than five failures: nothing was in flight when it opened."""
    assert seen([worker()], dead(2.0, 2.1)).in_flight == 0


def test_probes_come_one_after_the_other():
    """6 s of an open time of 1.8 s at least hold four of them, of which the last may still be under way."""
    assert probes_allowed(SCENE) == 4


def test_waits_are_those_of_the_outage_and_answers_those_of_all():
    """A slow request after the outage moves no quantile of it, but is the slowest; one of four failed."""
    fates = (Fate(1.0, 0.1, FIRST), Fate(3.0, 0.2, SECOND), Fate(4.0, 0.4, SECOND), Fate(9.0, 5.0, "", "TimeoutError"))
    found = seen([worker(*fates)])
    assert (found.p50, found.p99, found.slowest) == (0.2, 0.4, 5.0)
    assert found.answered == 0.75
    assert found.errors == {"TimeoutError": 1}


def test_used_again_is_the_first_answer_after_healing():
    """One process has it 0.6 s after, the other 1.5 s after; an answer that began before the outage is none."""
    one = worker(Fate(1.0, 0.1, FIRST), Fate(8.5, 0.1, FIRST), Fate(9.0, 0.1, FIRST))
    other = worker(Fate(8.2, 0.1, SECOND), Fate(9.4, 0.1, FIRST))
    found = seen([one, other])
    assert (found.used_again, found.by_all) == (pytest.approx(0.6), pytest.approx(1.5))


def test_one_who_never_uses_it_again_is_told():
    """Then not all do."""
    found = seen([worker(Fate(9.0, 0.1, FIRST)), worker(Fate(9.0, 0.1, SECOND))])
    assert found.used_again == pytest.approx(1.1)
    assert found.by_all is None


def test_who_was_told_of_redis():
    """Of three processes two were told that it is away, one that it is back."""
    found = seen([worker(degraded=((5.0, True), (9.0, False))), worker(degraded=((5.0, True),)), worker()])
    assert found.away == (2, 1)
    assert found.cpu == pytest.approx(3 * 0.6 / 12.0)
