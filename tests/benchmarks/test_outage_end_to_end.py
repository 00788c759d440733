"""Rules for a whole run of `benchmarks/outage.py`; no timing is asserted."""

import json
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import pytest
from outages import crowd
from outages.cell import Spec
from outages.faults import Timeline
from outages.figures import figures_of

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "outage.py"


@pytest.mark.e2e
async def test_two_systems_meet_the_same_requests():
    """The oracle loses nothing; a bare client dials in vain, which no server sees; both were asked the same at the same times."""
    timeline = Timeline(1.0, 1.0, 1.0)
    specs = [Spec(system, "refused", 3, 10.0, timeline) for system in ("oracle", "bare")]
    missing = []
    oracle, bare = await crowd.run_batch(specs, lambda spec, why: missing.append(why))
    assert missing == []
    assert [(fate.number, fate.at) for fate in oracle.fates] == [(fate.number, fate.at) for fate in bare.fates]
    assert all(fate.error is None for fate in oracle.fates)
    assert figures_of(oracle, timeline).wasted == 0
    assert figures_of(bare, timeline).wasted > 0


@pytest.mark.e2e
async def test_a_cell_that_breaks_says_why():
    """What it said last is in the error, and no process is left."""
    spec = Spec("oracle", "no such fault", 3, 10.0, Timeline(1.0, 1.0, 1.0))
    with pytest.raises(crowd.CellError, match="no such fault"):
        await crowd.run_batch([spec], lambda spec, why: None)


def test_a_cell_sees_nothing_of_the_users_keys(monkeypatch):
    """Its environment is made, not inherited."""
    for name in ("OPENAI_API_KEY", "HTTPS_PROXY", "LANGSMITH_TRACING"):
        monkeypatch.setenv(name, "of the user")
    assert "of the user" not in crowd.environment().values()


def test_a_spec_survives_its_json():
    """What a process is told is what was meant."""
    spec = Spec("ours", "503", 3, 10.0, Timeline(1.0, 2.0, 3.0))
    assert Spec.from_json(spec.to_json()) == spec
    assert json.loads(spec.to_json())["timeline"] == [1.0, 2.0, 3.0]


@pytest.mark.e2e
def test_an_unknown_system_is_refused_by_name():
    """The command says which there are."""
    done = subprocess.run([sys.executable, SCRIPT, "--system", "theirs"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "litellm-tuned" in done.stderr
