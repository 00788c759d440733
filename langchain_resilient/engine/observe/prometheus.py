"""Events as Prometheus metrics (needs `prometheus-client`: the extra `prometheus`).

Rules of this file: labels are bounded (providers' names and closed vocabularies; never a prompt, a user id or a key); the four names of
the seed design keep their exact spelling and meaning, all others begin with `llm_resilient_`; a label's child is looked up once and kept,
as that is most of the cost of counting.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from prometheus_client import REGISTRY, CollectorRegistry

from langchain_resilient.engine.events import Attempted, Decided, Event
from langchain_resilient.engine.observe.instruments import Metrics, metrics_of
from langchain_resilient.engine.observe.levels import HEARD, TOLD
from langchain_resilient.engine.observe.rows import KINDS, OTHER, OUTCOMES, rows_of


class _Answers:
    """The children that every answer of one provider counts in."""

    __slots__ = ("attempts", "first_token", "latency", "requests", "seconds", "user_wait")

    def __init__(self, metrics: Metrics, provider: str) -> None:
        counters = metrics.counters
        self.attempts = counters["attempts"].labels(provider, "ok")
        self.latency = metrics.latency.labels(provider)
        self.first_token = metrics.first_token.labels(provider)
        self.requests = counters["requests"].labels("answered", provider)
        self.seconds = metrics.request_seconds.labels(provider)
        self.user_wait = metrics.user_wait.labels(provider)


class PrometheusObserver:
    """Counts events.

    With `PROMETHEUS_MULTIPROC_DIR` (several workers of one server) serve `MultiProcessCollector(CollectorRegistry())`, and let the server
    call `mark_process_dead(pid)` when a worker ends: gauges are the worst of the workers that live, `llm_resilient_pending` is their sum.

    Args:
        registry: Where the metrics live; default: prometheus_client's own. Observers of one registry share its metrics.

    Raises:
        SettingsError: If somebody else's metric on the registry has one of our names; it says which, and what to do.
    """

    events: frozenset[type]

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self._metrics = metrics_of(registry)
        self._counts = _COUNTS_OF_MANY if self._metrics.many else _COUNTS
        self._children: dict[tuple[str, ...], Any] = {}
        self._answers: dict[str, _Answers] = {}

    def _child(self, counter: str, *labels: str) -> Any:
        key = (counter, *labels)
        child = self._children.get(key)
        if child is None:
            child = self._children[key] = self._metrics.counters[counter].labels(*labels)
        return child

    def __call__(self, event: Event) -> None:
        """Count one event."""
        count = self._counts.get(type(event))
        if count is not None:
            count(self, event)

    def _first_answer(self, provider: str) -> _Answers:
        answers = self._answers[provider] = _Answers(self._metrics, provider)
        return answers

    def _attempted(self, event: Attempted) -> None:
        provider = event.provider
        if event.kind == "ok":
            answers = self._answers.get(provider) or self._first_answer(provider)
            answers.attempts.inc()
            answers.latency.observe(event.seconds)
            if event.first_token is not None:
                answers.first_token.observe(event.first_token)
        else:
            self._child("attempts", provider, KINDS.get(event.kind, OTHER)).inc()
        usage = event.usage
        if usage is not None:
            self._child("tokens", provider, "input").inc(usage.input)
            self._child("tokens", provider, "output").inc(usage.output)
        if event.cost:
            self._child("cost_usd", provider).inc(event.cost)

    def _decided(self, event: Decided) -> None:
        decision = event.decision
        if decision.provider is None:
            self._child("requests", OUTCOMES.get(decision.outcome, OTHER), "none").inc()
            return
        answers = self._answers.get(decision.provider) or self._first_answer(decision.provider)
        answers.requests.inc()
        answers.seconds.observe(decision.seconds)
        if decision.lane == "interactive":
            answers.user_wait.observe(decision.user_wait)
        if decision.fallback:
            self._child("fallback", decision.first_choice, decision.provider).inc()
        waited = sum([attempt.wait for attempt in decision.attempts])
        if waited:
            self._metrics.waits.observe(waited)

    def _told(self, event: Event) -> None:
        for row in rows_of(self._metrics.heard(event)):
            self._child(*row).inc()


_COUNTS: dict[type, Callable[[PrometheusObserver, Any], None]] = {
    **dict.fromkeys(TOLD, PrometheusObserver._told),  # noqa: SLF001  # the class's own table
    Attempted: PrometheusObserver._attempted,  # noqa: SLF001
    Decided: PrometheusObserver._decided,  # noqa: SLF001
}
PrometheusObserver.events = frozenset(_COUNTS)


def _of_many(kind: type) -> Callable[[PrometheusObserver, Any], None]:
    """Counts in one process of many, where nobody asks the gauges: this process writes them, at once where an event moves one."""
    count, moves = _COUNTS[kind], kind in HEARD

    def counted(observer: PrometheusObserver, event: Any) -> None:
        metrics = observer._metrics  # noqa: SLF001  # one of its own methods, in effect
        metrics.join_in()
        count(observer, event)
        if moves:
            metrics.refresh(letters=False)

    return counted


_COUNTS_OF_MANY = {kind: _of_many(kind) for kind in _COUNTS}
