"""What our registry exports: every metric's name, its labels, and the words that a label may have.

Rules of this file: read from an observer's own registry and from the tables that the observers count by; nothing is listed here that they know.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge

from langchain_resilient.engine.observe import rows
from langchain_resilient.engine.observe.instruments import metrics_of
from langchain_resilient.engine.observe.levels import DEPTHS
from langchain_resilient.engine.observe.prometheus import PrometheusObserver
from tests.deploy.promql import Asked, Selector

TARGET = frozenset({"job", "instance"})  # Prometheus adds them to whatever it scrapes
BUILT_IN = {
    "up": frozenset(),
    "ALERTS": frozenset({"alertname", "alertstate", "severity", "provider"}),
    "process_start_time_seconds": frozenset(),
}
"""Not ours: Prometheus's own, and what prometheus_client tells of a process."""
WORDS: dict[str, dict[str, set[str]]] = {
    "llm_resilient_requests_total": {"outcome": {*rows.OUTCOMES, rows.OTHER}},
    "llm_resilient_attempts_total": {"kind": {*rows.KINDS, rows.OTHER}},
    "llm_resilient_credential_blocks_total": {"reason": {*rows.BLOCKS}},
    "llm_resilient_dead_letters_total": {"where": {*rows.PLACES}, "kind": {*rows.LETTER_KINDS}},
    "llm_resilient_dead_letters_replayed_total": {"outcome": {*rows.REPLAYS}},
    "llm_resilient_dead_letter_depth": {"state": {*DEPTHS}},
    "llm_resilient_stream_interruptions_total": {"shown": {"true", "false"}},
    "llm_resilient_hedges_total": {"won": {"true", "false"}},
    "llm_resilient_tokens_total": {"direction": {"input", "output"}},
    "ALERTS": {"alertstate": {"firing", "pending"}},
}
"""Labels with a closed vocabulary that an expression may ask for by word."""


def exported() -> dict[str, frozenset[str]]:
    """Every name under which a sample may be scraped, with its labels."""
    registry = CollectorRegistry()
    PrometheusObserver(registry)
    metrics = metrics_of(registry)
    found: dict[str, frozenset[str]] = {}
    histograms = (metrics.latency, metrics.request_seconds, metrics.user_wait, metrics.first_token, metrics.waits)
    for metric in (*metrics.counters.values(), *metrics.gauges.values(), *histograms):
        [family] = metric.describe()
        labels = frozenset(metric._labelnames)
        if isinstance(metric, Counter):
            found[f"{family.name}_total"] = labels
        elif isinstance(metric, Gauge):
            found[family.name] = labels
        else:
            found[f"{family.name}_bucket"] = labels | {"le"}
            found |= {f"{family.name}_{part}": labels for part in ("sum", "count")}
    return found


def foreign(query: Asked, recorded: dict[str, frozenset[str]] | None = None) -> list[str]:
    """What a query names that nobody exports; `recorded` are the names of recording rules, with the labels that they leave."""
    known = exported() | BUILT_IN | (recorded or {})
    wrong = [f"metric {it.metric}" for it in query.selectors if it.metric not in known]
    wrong += [each for it in query.selectors if it.metric in known for each in _wrong_matchers(it, known[it.metric])]
    # A join may name any label of either side.
    all_labels = TARGET.union(*(known.get(it.metric, frozenset()) for it in query.selectors))
    return wrong + [f"grouping by {label}" for label in sorted(query.labels - all_labels - query.made)]


def _wrong_matchers(selector: Selector, labels: frozenset[str]) -> list[str]:
    wrong = []
    for label, sign, text in selector.matchers:
        if label not in labels | TARGET:
            wrong.append(f"label {label} of {selector.metric}")
        elif text.startswith("$"):
            continue  # one of the dashboard's variables
        elif unknown := set(text.split("|") if "~" in sign else [text]) - _words(selector.metric).get(label, set()):
            wrong.append(f"{selector.metric}{{{label}{sign}{sorted(unknown)}}}")
    return wrong


def _words(metric: str) -> dict[str, set[str]]:
    """The vocabularies of a metric's labels; a recording rule `level:metric:operation` keeps those of the counter that it names."""
    parts = metric.split(":")
    return WORDS.get(f"{parts[1]}_total" if len(parts) == 3 else metric, {})
