"""Each alert fired once by real traffic that a real Prometheus scraped, and each panel of the dashboard drawn from the same.

Rules of this file: the rules are the shipped ones, two dozen times faster. Everything goes wrong at once, each in an application of its own, so that the
whole takes less than two minutes; nothing is timed, only waited for. Needs Debian's `prometheus`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import yaml

from tests.deploy import scenes
from tests.deploy.dashboard import PANELS, filled, queries
from tests.deploy.monitoring import Prometheus, faster
from tests.deploy.pods import Load
from tests.deploy.scenes import Scene
from tests.servers import Server, binary_or_skip, valkey_binary

RULES = (Path(__file__).parent.parent.parent / "deploy" / "prometheus" / "alerts.yml").read_text()
ALERTS = {rule["alert"] for rule in yaml.safe_load(RULES)["groups"][0]["rules"] if "alert" in rule}
FACTOR = 24
SCRAPE = 0.5
"""Seconds. A scrape must be over within it, or its series are gone for a moment and `for` begins anew: not less on a busy machine."""
PATIENCE = 180.0
"""Seconds. On a quiet machine a minute is enough for all to fire, and half of one for all to be over."""


class Afternoon:
    """What was seen of the scenes."""

    def __init__(self, prometheus: Prometheus, played: list[Scene]) -> None:
        self.prometheus = prometheus
        self.meant = {(scene.job, alert) for scene in played for alert in scene.alerts}
        self._eventful = {scene.job for scene in played if scene.eventful}
        self.early: set[tuple[str, str]] = set()
        self.fired: set[tuple[str, str]] = set()
        self.left: set[tuple[str, str]] = set()

    def firing(self) -> set[tuple[str, str]]:
        """What fires now, but for the eventful scenes."""
        return {(job, alert) for job, alert in self.prometheus.firing() if job not in self._eventful}

    def all_fired(self) -> bool:
        """Whether each has been seen to fire by now."""
        self.fired |= self.firing()
        return self.fired >= self.meant

    def all_over(self) -> bool:
        """Whether none fires any more."""
        self.left = self.firing()
        self.fired |= self.left
        return not self.left


@pytest.fixture(scope="module")
def afternoon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Afternoon]:
    """All scenes, from well over sick to well again, with the Prometheus that saw them."""
    with ExitStack() as stack:
        server = stack.enter_context(Server(binary_or_skip(valkey_binary)))
        makers = (
            scenes.outage, scenes.one_of_two, scenes.slow, scenes.failing, scenes.bad_key, scenes.no_credit, scenes.bug, scenes.letters,
            scenes.well, scenes.varied,
        )  # fmt: skip
        played = [*(make(stack) for make in makers), scenes.store_away(stack, server)]
        targets = {scene.job: [pod.address for pod in scene.pods] for scene in played}
        prometheus = stack.enter_context(
            Prometheus(
                tmp_path_factory.mktemp("prometheus"), faster(RULES, FACTOR), targets, scrape=SCRAPE, factor=FACTOR
            )
        )
        stack.enter_context(Load([pod for scene in played for pod in scene.pods]))
        seen = Afternoon(prometheus, played)
        prometheus.wait_for(
            lambda: prometheus.has_data(f"sum(llm_latency_seconds_count) > {8 * len(played)}", 1), "they answer", 60
        )
        seen.early = seen.firing()
        for scene in played:
            scene.begin()
        _wait(prometheus, seen.all_fired)
        for scene in played:
            scene.heal()
        _wait(prometheus, seen.all_over)
        yield seen


def _wait(prometheus: Prometheus, condition) -> None:
    """Give it time; what is missing then is told by the tests, alert by alert."""
    try:
        prometheus.wait_for(condition, "", PATIENCE)
    except AssertionError:
        prometheus.wait_for(prometheus._is_ready, "Prometheus still runs", 5)


pytestmark = [pytest.mark.e2e, pytest.mark.system("prometheus"), pytest.mark.timeout(400)]


def test_nothing_fires_before_anything_is_wrong(afternoon: Afternoon):
    """Ten healthy applications under load: silence."""
    assert afternoon.early == set()


@pytest.mark.parametrize("alert", sorted(ALERTS))
def test_an_alert_fires_where_it_should_and_resolves(afternoon: Afternoon, alert: str):
    """In the applications that had its fault and in no other; and not any more once that is mended."""
    meant = {job for job, name in afternoon.meant if name == alert}
    assert meant, "no scene fires it"
    assert {job for job, name in afternoon.fired if name == alert} == meant
    assert {job for job, name in afternoon.left if name == alert} == set()


def test_every_rule_could_be_evaluated(afternoon: Afternoon):
    """No evaluation ended with an error, such as two series where one is to be joined."""
    rules = [rule for group in afternoon.prometheus.ask("rules")["groups"] for rule in group["rules"]]
    assert {rule["name"]: rule.get("lastError") for rule in rules if rule["health"] != "ok"} == {}
    assert {rule["name"] for rule in rules} > ALERTS


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_a_panel_has_data(afternoon: Afternoon, panel: dict):
    """Each of its queries runs as Grafana sends it, and draws something of that afternoon."""
    for query in queries(panel):
        assert afternoon.prometheus.has_data(filled(query, "5s"), 120), query


def test_the_dashboards_variables_find_something(afternoon: Afternoon):
    """Each offers the values that the applications have."""
    jobs = afternoon.prometheus.ask("label/job/values", **{"match[]": "llm_resilient_pending"})
    assert {"outage", "well", "store-away"} <= set(jobs)
    assert {"openai/first", "openai/second"} <= set(
        afternoon.prometheus.ask("label/provider/values", **{"match[]": "circuit_breaker_state"})
    )
