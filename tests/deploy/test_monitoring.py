"""The one thing that a live test changes in the rules: their speed."""

import re
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.deploy.monitoring import faster, quicker

RULES = (Path(__file__).parent.parent.parent / "deploy" / "prometheus" / "alerts.yml").read_text()


def test_only_durations_are_scaled():
    """A window, an offset, a `for` and an age are a fortieth; a quantile, a threshold, a name and what is told stay."""
    assert (
        quicker("increase(x:y:increase2m[2m] offset 65m) > 0.05", 40)
        == "increase(x:y:increase2m[3000ms] offset 97500ms) > 0.05"
    )
    shipped, scaled = (
        yaml.safe_load(RULES)["groups"][0]["rules"],
        yaml.safe_load(faster(RULES, 40))["groups"][0]["rules"],
    )
    assert [{**rule, "expr": "", "for": ""} for rule in shipped] == [{**rule, "expr": "", "for": ""} for rule in scaled]
    assert {rule["for"] for rule in scaled if "for" in rule} == {"3000ms", "7500ms", "15000ms"}
    ages = [
        re.search(r"time\(\) - (.*)", rule["expr"]).group(1)
        for rule in scaled
        if ":llm_resilient_young:" in rule.get("record", "")
    ]
    assert ages == ["3", "15", "97.5"]


@pytest.mark.system("prometheus")
def test_promtool_accepts_scaled_rules(tmp_path: Path):
    """Milliseconds are durations too."""
    path = tmp_path / "alerts.yml"
    path.write_text(faster(RULES, 40))
    done = subprocess.run(["promtool", "check", "rules", path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
