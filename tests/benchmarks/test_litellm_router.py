"""Rules for the pure parts of `benchmarks/litellm_router.py`, with numbers verified by hand. LiteLLM takes no part."""

import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import litellm_router
import pytest
from outages.figures import Fate, Figures, Run, figures_of
from outages.stage import Call, Stage
from routers import report
from routers.contenders import SYSTEMS
from routers.faults import LIMIT, SLOWER, faults, recovery_of, timeline_of
from routers.gates import gates, healthy_p50, word
from routers.overhead import AGAIN, BARE, OURS, Round, costs_of, turns

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "litellm_router.py"
TIMELINE = timeline_of(20.0)


def _run_of(fates, calls=(), *, lag=0.001, machine=0.001):
    return Run("ours", "slow", tuple(fates), tuple(calls), (lag, lag), machine, 0.0, {})


def _figures(*, answered=100, p50=0.1, wasted=5):
    return Figures(100, answered, p50, 0.8, wasted, 1.0, 1.0, 1.0, 1.0, {})


def _found(table, medians=None, costs=()):
    return {gate.what: gate for gate in gates(table, medians or {}, costs, ["ours"])}


def _round(bare, again, ours):
    return Round({BARE: bare, AGAIN: again, OURS: ours}, {BARE: bare / 2, AGAIN: again / 2, OURS: ours / 2})


def test_the_play_of_the_facts():
    """An outage of 20 s with LiteLLM's own 5 s of cooldown; a shorter one shortens it alike."""
    assert (TIMELINE.lead_in, TIMELINE.heals_at, TIMELINE.seconds) == (8.0, 28.0, 48.0)
    assert recovery_of(TIMELINE) == 5.0
    assert recovery_of(timeline_of(8.0)) == 2.0


def test_every_fault_has_the_same_limit():
    """Also where `outages` has another; and only the first provider is ever sick."""
    assert {fault.limit for fault in faults(1).values()} == {LIMIT}
    assert {provider for fault in faults(1).values() for provider in fault.sick} == {0}


def test_a_slow_primary_begins_later_and_says_the_same():
    """Its calls are counted as wasted, though they are answered."""
    stage = Stage(1)
    with stage:
        stage.strike(faults(1)["slow"])
        stage.heal()
    assert [(provider, begins < ends) for provider, begins, ends in stage._slow] == [(0, True)]
    assert faults(1)["slow"].sick[0].later == SLOWER


def test_healthy_is_before_the_outage():
    """The median of those who arrived then: 0.1, 0.2, 0.9; never of those after it."""
    fates = [Fate(n, at, took, None) for n, (at, took) in enumerate([(1, 0.9), (2, 0.1), (7.9, 0.2), (8, 4), (40, 4)])]
    assert healthy_p50(_run_of(fates), TIMELINE) == 0.2
    assert healthy_p50(_run_of([]), TIMELINE) is None


def test_gates_pass_at_their_limits_and_miss_beyond():
    """25 calls, 99 of 100 answered, 1.5 times as slow."""
    table = {
        ("blackhole", "ours"): _figures(wasted=25),
        ("cut", "ours"): _figures(answered=99),
        ("stalled", "ours"): _figures(answered=98),
        ("slow", "ours"): _figures(p50=0.16),
    }
    found = _found(table, {("slow", "ours"): 0.1})
    assert word(found["ours: calls into the black hole"]) == "PASS"
    assert word(found["ours: broken mid-stream, answered in full, %"]) == "PASS"
    assert word(found["ours: stalled mid-stream, answered in full, %"]) == "MISS"
    assert word(found["ours: slow primary, p50 / healthy p50"]) == "MISS"


def test_what_was_not_run_is_not_measured():
    """Nor are other systems' rows ours."""
    found = _found({("blackhole", "tuned"): _figures(wasted=200)})
    assert {word(gate) for gate in found.values()} == {"not measured"}


def test_overhead_is_compared_with_both_bare_routers_of_its_round():
    """1.1 in each round, however the rounds differ; one pair of two differs by 1.25, medians of two by 0.25 · 1.25 / √2."""
    costs = costs_of([_round(4.0, 5.0, 4.95), _round(10.0, 10.0, 11.0)], streamed=False)
    assert costs.ratio == pytest.approx(1.1)
    assert costs.noise == pytest.approx(1.221, abs=0.001)
    assert (costs.bare, costs.bare_cpu) == (pytest.approx(7.25), pytest.approx(3.625))
    assert word(_found({}, costs=[costs])["healthy call: ours / bare Router"]) == "PASS"
    assert word(_found({}, costs=[costs])["healthy stream: ours / bare Router"]) == "not measured"


def test_overhead_beyond_the_noise_is_missed():
    """1.1 of 1.0."""
    costs = costs_of([_round(5.0, 5.0, 5.5)], streamed=True)
    assert word(_found({}, costs=[costs])["healthy stream: ours / bare Router"]) == "MISS"


def test_everybody_is_everywhere_equally_often():
    """In six rounds each is first, second and third twice."""
    for place in range(3):
        seen = [turns(number)[place] for number in range(6)]
        assert {name: seen.count(name) for name in (BARE, AGAIN, OURS)} == {BARE: 2, AGAIN: 2, OURS: 2}


def test_a_row_says_what_was_lost_outside_the_outage():
    """Beside the errors in it."""
    fates = [Fate(0, 1.0, 0.1, "Timeout"), Fate(1, 9.0, 5.0, "Timeout"), Fate(2, 9.5, 0.1, None)]
    run = _run_of(fates, [Call(0, 9.0, answered=False, wasted=True)])
    cells = report.row("title", figures_of(run, TIMELINE), 0.1, run)
    assert len(cells) == len(report.COLUMNS)
    assert cells[1] == "50.0 %"
    assert cells[-1] == "1 Timeout; 0.0 % outside the outage"


def test_a_late_machine_voids_a_run_and_a_busy_system_does_not():
    """The two are told apart."""
    void, busy = report.void([_run_of([], lag=0.2, machine=0.2), _run_of([], lag=0.2)], SYSTEMS, 0.1)
    assert "VOID" in void
    assert "its own work" in busy
    assert report.void([_run_of([])], SYSTEMS, 0.1) == []


def test_options_are_read():
    """Faults by commas."""
    options = litellm_router.options_of(["--only", "blackhole,overhead", "--seconds", "8"])
    assert options.only == ("blackhole", "overhead")
    assert options.timeline == timeline_of(8.0)


@pytest.mark.e2e
def test_an_unknown_fault_is_refused_by_name():
    """The command says which there are."""
    done = subprocess.run([sys.executable, SCRIPT, "--only", "flood"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "flood" in done.stderr and "blackhole" in done.stderr
