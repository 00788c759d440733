"""The dashboard as a file: what it asks is exported, what it shows has a place and a unit. test_fired.py sees that it has data."""

from __future__ import annotations

import json
import re
from itertools import combinations
from typing import Any

import pytest

from tests.deploy.dashboard import DASHBOARD, PANELS, queries
from tests.deploy.exported import exported, foreign
from tests.deploy.promql import asked

MAKER = DASHBOARD.with_name("make_dashboard.py")
QUERIES = [(panel["title"], query) for panel in PANELS for query in queries(panel)]


def test_it_is_what_its_script_writes():
    """Whoever edits one of the two, and not the other, is told."""
    scope: dict[str, Any] = {"__name__": "maker", "__file__": str(MAKER)}
    exec(compile(MAKER.read_text(), MAKER, "exec"), scope)  # noqa: S102  # our own script; `deploy` is no package
    assert DASHBOARD.read_text() == scope["text"]()


@pytest.mark.parametrize(("title", "query"), QUERIES)
def test_a_panel_asks_only_for_what_is_exported(title: str, query: str):
    """Names, labels and labels' words, and only of the chosen applications and processes."""
    found = asked(query)
    assert foreign(found) == []
    for selector in found.selectors:
        assert {("job", "=~", "$job"), ("instance", "=~", "$instance")} <= set(selector.matchers)


@pytest.mark.parametrize(("title", "query"), QUERIES)
def test_a_legend_names_labels_that_the_query_leaves(title: str, query: str):
    """Else it would be a row of equal lines."""
    [legend] = [
        target["legendFormat"]
        for panel in PANELS
        for target in panel["targets"]
        if target["expr"] == query and panel["title"] == title
    ]
    assert set(re.findall(r"\{\{(\w+)\}\}", legend)) == asked(query).labels - asked(query).made - {"le"}


def test_every_metric_of_ours_is_shown():
    """A metric that is on no panel is one that nobody looks at."""
    shown = {selector.metric for _, query in QUERIES for selector in asked(query).selectors}
    families = {re.sub("_(bucket|sum|count)$", "", name) if "seconds" in name else name for name in exported()}
    assert {re.sub("_bucket$", "", name) for name in shown} == families


def test_the_annotation_and_the_variables_ask_for_what_is_exported():
    """The same for what is not on a panel."""
    board = json.loads(DASHBOARD.read_text())
    variables = {it["name"]: it for it in board["templating"]["list"]}
    assert list(variables) == ["datasource", "job", "provider", "instance"]
    assert variables["datasource"]["type"] == "datasource"
    for name in ("job", "provider", "instance"):
        selector, label = re.fullmatch(r"label_values\((.+), (\w+)\)", variables[name]["query"]["query"]).groups()
        assert label == name
        assert foreign(asked(selector)) == []
    [annotation] = board["annotations"]["list"]
    assert foreign(asked(annotation["expr"])) == []


def test_panels_have_ids_places_and_units_of_their_own():
    """Ids are unique, no two panels lie upon one another, none leaves the grid, and each says its unit and what it shows."""
    board = json.loads(DASHBOARD.read_text())["panels"]
    assert len({panel["id"] for panel in board}) == len(board)
    for panel in board:
        at = panel["gridPos"]
        assert at["x"] >= 0 and at["x"] + at["w"] <= 24
    for one, other in combinations(board, 2):
        a, b = one["gridPos"], other["gridPos"]
        apart = (
            a["x"] + a["w"] <= b["x"]
            or b["x"] + b["w"] <= a["x"]
            or a["y"] + a["h"] <= b["y"]
            or b["y"] + b["h"] <= a["y"]
        )
        assert apart, (one["title"], other["title"])
    for panel in PANELS:
        assert panel["fieldConfig"]["defaults"]["unit"]
        assert panel["description"] and panel["title"]
        assert panel["datasource"]["uid"] == "${datasource}"
        assert [target["refId"] for target in panel["targets"]] == list("ABCD"[: len(panel["targets"])])


def test_the_rows_are_in_the_order_of_the_questions():
    """Whether users are answered comes first."""
    rows = [panel["title"] for panel in json.loads(DASHBOARD.read_text())["panels"] if panel["type"] == "row"]
    assert rows == [
        "Are users answered", "Providers", "Fallbacks, hedges and continuations", "Limits", "Store and pending", "Dead letters", "Cost and tokens",
    ]  # fmt: skip
