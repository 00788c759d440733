"""The alert rules as files: each is tested, explained in the runbook, and asks only for what is exported.

That they fire as meant over time is promtool's to say (the system test here); that real traffic fires them, test_fired.py's.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.dashboard import PANELS
from tests.deploy.dashboard import queries as queries_of
from tests.deploy.exported import foreign
from tests.deploy.promql import Selector, asked

ROOT = Path(__file__).parent.parent.parent
RULES = ROOT / "deploy" / "prometheus" / "alerts.yml"
TESTS = ROOT / "deploy" / "prometheus" / "alerts_test.yml"
RUNBOOK = ROOT / "docs" / "runbook.md"


def rules() -> list[dict[str, Any]]:
    """All rules of the file."""
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


ALERTS = {rule["alert"]: rule for rule in rules() if "alert" in rule}
RECORDED = {rule["record"]: rule["expr"] for rule in rules() if "record" in rule}


def labels_of(record: str) -> frozenset[str]:
    """The labels that a recording rule leaves: those in its name's first part, or of the metric that it picks from."""
    level = frozenset(record.split(":", maxsplit=1)[0].split("_"))
    picked = re.match(r"\w+", RECORDED[record].strip())
    return frozenset({"provider"}) if picked and picked.group() == "circuit_breaker_state" else level


def test_there_is_an_alert_for_each_that_was_asked_for():
    """MISSION: circuit, fallback share, p99, error rate; and what else never heals by itself or takes the safety away."""
    thresholds = {name: re.sub(r"\s+", " ", rule["expr"]) for name, rule in ALERTS.items()}
    assert thresholds["LLMFallbackShareHigh"].endswith("> 0.05")
    assert thresholds["LLMFallbackShareVeryHigh"].endswith("> 0.1")
    assert thresholds["LLMErrorRateHigh"].endswith("> 0.01")
    assert "histogram_quantile(0.99" in thresholds["LLMSlowAnswers"] and ") > 10 " in thresholds["LLMSlowAnswers"]
    assert ALERTS["LLMCircuitOpen"]["for"] == ALERTS["LLMCircuitOpenEverywhere"]["for"] == "5m"
    rest = set(ALERTS) - {"LLMFallbackShareHigh", "LLMFallbackShareVeryHigh", "LLMErrorRateHigh", "LLMSlowAnswers"}
    assert rest == {
        "LLMCircuitOpen", "LLMCircuitOpenEverywhere", "LLMAuthFailing", "LLMQuotaExhausted", "LLMUnclassifiedErrors", "LLMRetryBudgetEmpty",
        "LLMStoreDegraded", "LLMDeadLettersLost", "LLMDeadLettersGrowing", "LLMDeadLettersOld", "LLMDeadLettersParked",
    }  # fmt: skip


@pytest.mark.parametrize("alert", ALERTS)
def test_an_alert_says_what_it_is_and_where_to_read_on(alert: str):
    """A severity, a summary and a description of one line each, with the application and a value, and a section of the runbook."""
    rule = ALERTS[alert]
    assert rule["labels"] == {"severity": rule["labels"]["severity"]}
    assert rule["labels"]["severity"] in ("warning", "critical")
    told = rule["annotations"]
    assert set(told) == {"summary", "description", "runbook_url"}
    assert told["summary"].startswith("{{ $labels.job }}: ")
    assert "\n" not in told["summary"] + told["description"]
    assert told["runbook_url"] == f"docs/runbook.md#{alert.lower()}"
    words = told["summary"] + told["description"]
    assert "$value" in words or "$labels.provider" in words or alert == "LLMDeadLettersLost"


def test_the_runbook_has_a_section_for_each_alert_and_for_no_other():
    """The anchor that an alert's link names exists, and each section answers the same five questions."""
    headings = re.findall(r"^## (LLM\w+)$", RUNBOOK.read_text(), re.MULTILINE)
    assert sorted(headings) == sorted(ALERTS)
    for section in re.split(r"^## (?=LLM)", RUNBOOK.read_text(), flags=re.MULTILINE)[1:]:
        name, _, text = section.partition("\n")
        marks = re.findall(r"^\*\*(.+?)\*\*", text, re.MULTILINE)
        assert marks == ["Means.", "Users see.", "First look.", "Causes, likeliest first.", "Do.", "Escalate"], name


def test_the_runbooks_queries_ask_for_what_is_exported():
    """Who pastes one at 2 PM gets an answer."""
    queries = re.findall(r"^```promql\n(.*?)^```", RUNBOOK.read_text(), re.MULTILINE | re.DOTALL)
    assert len(queries) >= len(ALERTS)
    recorded = {record: labels_of(record) for record in RECORDED}
    assert {query: wrong for query in queries if (wrong := foreign(asked(query), recorded))} == {}


def test_what_is_spooled_adds_up_over_machines():
    """Each machine's disk has a part of it: whoever asks for the largest leaves it out, and asks for it by machine."""
    queries = re.findall(r"^```promql\n(.*?)^```", RUNBOOK.read_text(), re.MULTILINE | re.DOTALL)
    for source in (queries, [query for panel in PANELS for query in queries_of(panel)], [it["expr"] for it in rules()]):
        found = [asked(query) for query in source]
        depths = [
            (each, it) for each in found for it in each.selectors if it.metric == "llm_resilient_dead_letter_depth"
        ]
        by_machine = [each for each, it in depths if ("state", "=", "spooled") in it.matchers]
        others = [it for each, it in depths if each not in by_machine]
        assert all(each.made == {"host"} for each in by_machine)
        assert all({("state", "!=", "spooled"), ("state", "=", "parked")} & set(it.matchers) for it in others)
        assert by_machine or source == [it["expr"] for it in rules()]


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule.get("alert") or rule["record"])
def test_a_rule_asks_only_for_what_is_exported(rule: dict[str, Any]):
    """Names, labels and labels' words are those of our registry, of Prometheus itself, or of a rule before it."""
    before = []
    for each in rules():
        if each == rule:
            break
        before += [each["record"]] if "record" in each else []
    assert foreign(asked(rule["expr"]), {record: labels_of(record) for record in before}) == []


def test_asking_for_what_nobody_exports_is_found():
    """The reader and the tables that the test above relies on tell a wrong name, label, word and grouping."""
    assert asked('sum by (job) (rate(up{job=~"a|b"}[5m] offset 1h)) > 10').selectors == (
        Selector("up", (("job", "=~", "a|b"),)),
    )
    assert foreign(asked('sum by (job) (llm_resilient_requests_total{outcome="answered"})')) == []
    assert foreign(asked("llm_resilient_request_total")) == ["metric llm_resilient_request_total"]
    assert foreign(asked('fallback_total{provider="a"}')) == ["label provider of fallback_total"]
    assert foreign(asked('llm_resilient_requests_total{outcome="answred"}')) == [
        "llm_resilient_requests_total{outcome=['answred']}"
    ]
    assert foreign(asked("sum by (kind) (fallback_total)")) == ["grouping by kind"]
    made = 'max by (host, node) (label_replace(up, "host", "$1", "instance", "(.*)"))'
    assert foreign(asked(made)) == ["grouping by node"]
    assert foreign(asked("max by (provider) (job:x:y)"), {"job:x:y": frozenset({"job"})}) == ["grouping by provider"]


def test_a_recording_rule_is_used():
    """By an alert, or by a rule that an alert uses."""
    used = {selector.metric for rule in rules() for selector in asked(rule["expr"]).selectors}
    assert set(RECORDED) <= used


def test_each_count_takes_first_increments_too():
    """Whatever is counted by increase() is counted where it has just appeared as well, with one and the same selector and window."""
    for rule in rules():
        text = re.sub(r"\s+", " ", rule["expr"])
        for x, window in re.findall(r"increase\(([\w:]+(?:\{.*?\})?)\[(\w+)\]\)", text):
            if x == "llm_resilient_user_wait_seconds_bucket":
                continue  # a quantile of what was answered: its rule asks for 20 answers
            young = f"({x} and on (job, instance) instance:llm_resilient_young:{window})"
            new = f"(({x} unless {x} offset {window}) and on (job, instance) (up offset {window} == 1))"
            assert f"{young} or {new} or increase({x}[{window}])" in text


def test_a_young_process_is_one_that_is_younger_than_the_window():
    """The number of seconds in the rule is its name's duration."""
    units = {"m": 60}
    for record, expression in RECORDED.items():
        if record.startswith("instance:llm_resilient_young:"):
            window = record.rpartition(":")[2]
            assert expression.strip() == f"process_start_time_seconds > time() - {int(window[:-1]) * units[window[-1]]}"


def cases() -> dict[str, list[dict[str, Any]]]:
    """The tests of each alert, by the first word of their names."""
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in ALERTS}
    for test in yaml.safe_load(TESTS.read_text())["tests"]:
        found[test["name"].partition(" ")[0]].append(test)
    return found


@pytest.mark.parametrize("alert", ALERTS)
def test_an_alert_has_its_three_cases(alert: str):
    """It fires, stays quiet (twice at least), and resolves; each test looks at this alert, and sees what its name says."""
    seen = {"fires": 0, "stays quiet": 0, "resolves": 0}
    for test in cases()[alert]:
        own = [it for it in test["alert_rule_test"] if it["alertname"] == alert]
        firing = [bool(it["exp_alerts"]) for it in own]
        what = next(word for word in seen if test["name"].startswith(f"{alert} {word}"))
        seen[what] += 1
        if what == "fires":
            assert firing[-1] and (
                not ALERTS[alert].get("for") or test["name"].split(" ", 1)[1] != "fires" or not firing[0]
            )
        elif what == "stays quiet":
            assert firing and not any(firing)
        else:
            assert firing == [True, False]
    assert seen["fires"] >= 1 and seen["stays quiet"] >= 2 and seen["resolves"] == 1


def promtool(*arguments: object) -> str:
    """What promtool printed; a failure shows all of it."""
    done = subprocess.run(["promtool", *map(str, arguments)], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.system("prometheus")
@pytest.mark.timeout(240)
def test_promtool_runs_all_cases():
    """The rules are valid, and every case holds."""
    assert f"{len(rules())} rules found" in promtool("check", "rules", RULES)
    assert "SUCCESS" in promtool("test", "rules", TESTS)


@pytest.mark.system("prometheus")
def test_promtool_accepts_the_configuration():
    """What the compose file mounts is a valid configuration with these rules."""
    promtool("check", "config", "--lint=all", "--syntax-only", RULES.parent / "prometheus.yml")
