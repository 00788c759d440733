"""Writes dashboard.json beside it: `python deploy/grafana/make_dashboard.py`.

Rules of this file: a panel is one line of the table and one question; what Grafana needs around it is told once. Queries are per job, provider
and instance by the dashboard's variables. The JSON is what ships; a test says that it is this script's output.
"""

# ruff: noqa: INP001 -- a script, not a package

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

Json = dict[str, Any]
TARGET = Path(__file__).with_name("dashboard.json")
WIDTH = 24
"""Columns of Grafana's grid."""
HEIGHT = 8
EACH = 'job=~"$job",instance=~"$instance"'
MINE = f'{EACH},provider=~"$provider"'
FROM = f'{EACH},from_provider=~"$provider"'
OURS = "llm_resilient_"
SPOOLED = f'sum(max by (host) (label_replace({OURS}dead_letter_depth{{{EACH},state="spooled"}}, "host", "$1", "instance", "(.*?)(:[0-9]+)?")))'
"""The processes of one machine tell the same, those of others another part."""
LINE, STAT, STATES = "timeseries", "stat", "state-timeline"


class Panel(NamedTuple):
    """One panel: its title, what its queries are (with their legends), the unit, and how it is drawn."""

    title: str
    queries: tuple[tuple[str, str], ...]
    unit: str
    text: str
    kind: str = LINE
    width: int = 8
    stacked: bool = False
    mappings: tuple[tuple[int, str, str], ...] = ()
    """For states: value, word, colour."""
    most: float | None = None


def rate(metric: str, labels: str, by: str = "") -> str:
    """Per second, summed."""
    return f"sum{f' by ({by})' if by else ''} (rate({metric}{{{labels}}}[$__rate_interval]))"


def grown(metric: str, labels: str, by: str) -> str:
    """How many in each interval, summed."""
    return f"sum by ({by}) (increase({metric}{{{labels}}}[$__rate_interval]))"


def quantiles(metric: str, labels: str, by: str = "", legend: str = "") -> tuple[tuple[str, str], ...]:
    """The p50 and p99 of a histogram."""
    inner = f"sum by ({', '.join(filter(None, [by, 'le']))}) (rate({metric}_bucket{{{labels}}}[$__rate_interval]))"
    return tuple((f"histogram_quantile({q}, {inner})", f"{legend}{name}") for q, name in ((0.5, "p50"), (0.99, "p99")))


CIRCUIT = ((0, "closed", "green"), (1, "half-open", "yellow"), (2, "open", "red"))
MODE = ((0, "rules itself", "green"), (1, "metrics only", "blue"), (2, "disabled", "orange"), (3, "forced open", "red"))
STORE = ((0, "shared", "green"), (1, "alone", "red"))
REQUESTS = f"{OURS}requests_total"
ENDED = rate(REQUESTS, EACH + ',outcome!="cancelled"')
ANSWERED = rate(REQUESTS, EACH + ',outcome="answered"')
FAILED = rate(REQUESTS, EACH + ',outcome!~"answered|cancelled"')

ROWS: tuple[tuple[str, tuple[Panel, ...]], ...] = (
    (
        "Are users answered",
        (
            Panel("Answered", ((f"{ANSWERED} / {ENDED}", "answered"),), "percentunit", "Of requests that were not cancelled.", STAT, 4, most=1),
            Panel(
                "Requests", ((rate(REQUESTS, EACH, "outcome"), "{{outcome}}"),), "reqps", "By how they ended.", width=7, stacked=True
            ),
            Panel(
                "Users' wait", (*quantiles(f"{OURS}user_wait_seconds", EACH), *quantiles(f"{OURS}request_seconds", EACH, legend="to the last word, ")), "s",
                "Of answered requests, over all attempts and waits: to the first word of a stream, or to the whole answer. The alert is at 10 s.", width=7,
            ),
            Panel(
                "Error rate", ((f"({FAILED} or vector(0)) / {ENDED}", "errors"),), "percentunit",
                "Ended without an answer, callers' own mistakes included. The alert leaves those out; it is at 1 %.", width=6,
            ),
        ),
    ),
    (
        "Providers",
        (
            Panel(
                "Circuits", ((f"max by (provider) (circuit_breaker_state{{{MINE}}})", "{{provider}}"),), "none",
                "The worst process's.", STATES, mappings=CIRCUIT,
            ),
            Panel(
                "Set aside by hand", ((f"max by (provider) ({OURS}circuit_mode{{{MINE}}})", "{{provider}}"),), "none",
                "Circuits that somebody overrode.", STATES, mappings=MODE,
            ),
            Panel(
                "Circuit changes", ((grown(f"{OURS}circuit_transitions_total", MINE, "provider, after"), "{{provider}} → {{after}}"),), "short",
                "Summed over processes: with a shared store each of them hears of one change.", stacked=True,
            ),
            Panel(
                "Latency", quantiles("llm_latency_seconds", MINE, "provider", "{{provider}} "), "s", "Of answered attempts."
            ),
            Panel(
                "First token", quantiles(f"{OURS}first_token_seconds", MINE, "provider", "{{provider}} "), "s", "Of streams."
            ),
            Panel(
                "Attempts", ((rate(f"{OURS}attempts_total", MINE, "provider, kind"), "{{provider}} {{kind}}"),), "reqps", "By how they ended.",
                stacked=True,
            ),
            Panel(
                "Credentials left alone", ((grown(f"{OURS}credential_blocks_total", MINE, "provider, reason"), "{{provider}} {{reason}}"),), "short",
                "Refused (auth) or used up.", stacked=True,
            ),
        ),
    ),
    (
        "Fallbacks, hedges and continuations",
        (
            Panel(
                "Fallback share", ((f"({rate('fallback_total', FROM)} or vector(0)) / {ANSWERED}", "fallbacks"),), "percentunit",
                "Of answered requests. The alerts are at 5 and 10 %.",
            ),
            Panel(
                "Answered by another", ((rate("fallback_total", FROM, "from_provider, to_provider"), "{{from_provider}} → {{to_provider}}"),),
                "reqps", "From the first-ranked to the answering provider.", stacked=True,
            ),
            Panel("Moves after a failure", ((rate(f"{OURS}fallbacks_total", FROM, "kind"), "{{kind}}"),), "reqps", "By the failure.", stacked=True),
            Panel("Retries", ((rate(f"{OURS}retries_total", MINE, "provider, kind"), "{{provider}} {{kind}}"),), "reqps", "At the same provider.", stacked=True),
            Panel("Hedges", ((rate(f"{OURS}hedges_total", MINE, "won"), "won: {{won}}"),), "reqps", "Second requests beside a late one.", stacked=True),
            Panel(
                "Broken streams",
                (
                    (rate(f"{OURS}stream_interruptions_total", MINE, "provider, kind"), "{{provider}} {{kind}}"),
                    (rate(f"{OURS}stream_continuations_total", FROM), "went on"),
                ),
                "reqps", "And those that went on.",
            ),
        ),
    ),
    (
        "Limits",
        (
            Panel("Rate limit hits", ((rate("rate_limit_hits_total", EACH, "user_type"), "{{user_type}}"),), "reqps", "By kind of user.", stacked=True),
            Panel(
                "Whose limits", ((rate(f"{OURS}rate_limited_total", EACH, "provider, source, dimension"), "{{provider}} {{source}} {{dimension}}"),),
                "reqps", "Ours (client) or a provider's 429; users' own limits are those of \"none\".", stacked=True,
            ),
            Panel(
                "Refused candidates", ((rate(f"{OURS}admission_refusals_total", MINE, "provider, reason"), "{{provider}} {{reason}}"),), "reqps",
                "Where nobody could take a request at once.", stacked=True,
            ),
            Panel(
                "Retry budget", ((f"min by (provider) ({OURS}retry_budget{{{MINE}}})", "{{provider}}"),), "short",
                "Tokens of 100 in the poorest process; at 50 no extra call is made.", most=100,
            ),
            Panel("Waits", quantiles(f"{OURS}wait_seconds", EACH), "s", "Of answered requests that waited: backoff, Retry-After, limits."),
        ),
    ),
    (
        "Store and pending",
        (
            Panel(
                "Shared store", ((f"max by (instance) ({OURS}store_degraded{{{EACH}}})", "{{instance}}"),), "none",
                "Whether each process reaches it.", STATES, 12, mappings=STORE,
            ),
            Panel("Pending", ((f"sum by (instance) ({OURS}pending{{{EACH}}})", "{{instance}}"),), "short", "Requests that wait or run.", width=12, stacked=True),
        ),
    ),
    (
        "Dead letters",
        (
            Panel(
                "Depth", ((f'max by (state) ({OURS}dead_letter_depth{{{EACH},state!="spooled"}})', "{{state}}"), (SPOOLED, "spooled")), "short",
                "The largest that a process tells of: those who share a store tell the same. What is spooled lies on each machine, and adds up.",
                width=6,
            ),
            Panel("Oldest", ((f"max({OURS}dead_letter_oldest_seconds{{{EACH}}})", "oldest"),), "s", "Waiting or claimed. The alert is at an hour.", width=6),
            Panel("Put aside", ((grown(f"{OURS}dead_letters_total", EACH, "kind, where"), "{{kind}} {{where}}"),), "short", "By why and where.", width=6, stacked=True),
            Panel("Replayed", ((grown(f"{OURS}dead_letters_replayed_total", EACH, "outcome"), "{{outcome}}"),), "short", "By how that ended.", width=6, stacked=True),
        ),
    ),
    (
        "Cost and tokens",
        (
            Panel("Tokens", ((rate(f"{OURS}tokens_total", MINE, "provider, direction"), "{{provider}} {{direction}}"),), "short", "Per second.", width=12, stacked=True),
            Panel("Cost per hour", ((f"{rate(f'{OURS}cost_usd_total', MINE, 'provider')} * 3600", "{{provider}}"),), "currencyUSD", "By the configured prices.", width=12, stacked=True),
        ),
    ),
)  # fmt: skip


def drawn(panel: Panel, number: int, x: int, y: int) -> Json:
    """A panel as Grafana has it."""
    source = {"type": "prometheus", "uid": "${datasource}"}
    defaults: Json = {"unit": panel.unit, "min": 0}
    if panel.most is not None:
        defaults["max"] = panel.most
    options: Json = {
        "tooltip": {"mode": "multi", "sort": "desc"},
        "legend": {"displayMode": "list", "placement": "bottom"},
    }
    if panel.kind == LINE:
        defaults["custom"] = {
            "fillOpacity": 20 if panel.stacked else 5,
            "stacking": {"mode": "normal" if panel.stacked else "none"},
        }
    elif panel.kind == STATES:
        defaults = {
            "unit": panel.unit,
            "custom": {"fillOpacity": 80, "lineWidth": 0},
            "mappings": [
                {"type": "value", "options": {str(value): {"text": word, "color": colour, "index": index}}}
                for index, (value, word, colour) in enumerate(panel.mappings)
            ],
        }
        options = {"mergeValues": True, "showValue": "auto", "legend": {"displayMode": "list", "placement": "bottom"}}
    else:
        steps = [{"color": "red", "value": None}, {"color": "orange", "value": 0.95}, {"color": "green", "value": 0.99}]
        defaults |= {"decimals": 2, "thresholds": {"mode": "absolute", "steps": steps}}
        options = {"reduceOptions": {"calcs": ["lastNotNull"]}, "colorMode": "background", "graphMode": "area"}
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.text,
        "datasource": source,
        "gridPos": {"h": HEIGHT, "w": panel.width, "x": x, "y": y},
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": options,
        "targets": [
            {"refId": chr(ord("A") + index), "datasource": source, "expr": query, "legendFormat": legend}
            for index, (query, legend) in enumerate(panel.queries)
        ],
    }


def placed() -> list[Json]:
    """All panels, row by row, from left to right."""
    found: list[Json] = []
    y = 0
    for title, panels in ROWS:
        row = {"h": 1, "w": WIDTH, "x": 0, "y": y}
        found.append(
            {"id": len(found) + 1, "type": "row", "title": title, "collapsed": False, "gridPos": row, "panels": []}
        )
        y, x = y + 1, 0
        for panel in panels:
            if x + panel.width > WIDTH:
                y, x = y + HEIGHT, 0
            found.append(drawn(panel, len(found) + 1, x, y))
            x += panel.width
        y += HEIGHT
    return found


def variable(name: str, label: str, query: str) -> Json:
    """A choice among a label's values, all by default."""
    return {
        "name": name,
        "label": label,
        "type": "query",
        "datasource": {"type": "prometheus", "uid": "${datasource}"},
        "query": {"query": query, "refId": name},
        "refresh": 2,
        "includeAll": True,
        "allValue": ".*",
        "multi": True,
        "current": {"text": ["All"], "value": ["$__all"]},
        "sort": 1,
    }


def dashboard() -> Json:
    """The whole of it."""
    return {
        "uid": "langchain-resilient",
        "title": "langchain-resilient",
        "description": "Are users answered, by whom, and what carries it. docs/runbook.md says what to do.",
        "tags": ["llm", "langchain-resilient"],
        "schemaVersion": 39,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "timezone": "browser",
        "annotations": {
            "list": [
                {
                    "name": "Alerts",
                    "enable": True,
                    "iconColor": "red",
                    "datasource": {"type": "prometheus", "uid": "${datasource}"},
                    "expr": 'ALERTS{job=~"$job",alertstate="firing"}',
                    "titleFormat": "{{alertname}} {{provider}}",
                }
            ]
        },
        "templating": {
            "list": [
                {
                    "name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus",
                    "current": {"text": "Prometheus", "value": "prometheus"},
                },
                variable("job", "Application", f"label_values({OURS}pending, job)"),
                variable("provider", "Provider", 'label_values(circuit_breaker_state{job=~"$job"}, provider)'),
                variable("instance", "Process", f'label_values({OURS}pending{{job=~"$job"}}, instance)'),
            ]
        },
        "panels": placed(),
    }  # fmt: skip


def text() -> str:
    """As it is written."""
    return json.dumps(dashboard(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    TARGET.write_text(text(), encoding="utf-8")
