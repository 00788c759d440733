"""Events as Prometheus metrics (needs `prometheus-client`: the extra `prometheus`).

Rules of this file: labels are bounded (providers' names and closed vocabularies; never a prompt, a user id or a key); the four names of
the seed design keep their exact spelling and meaning, all others begin with `llm_resilient_`; a label's child is looked up once and kept,
as that is most of the cost of counting.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram

from langchain_resilient.engine.events import (
    Attempted,
    CircuitChanged,
    Continued,
    CredentialBlocked,
    Decided,
    Event,
    FellBack,
    Hedged,
    RateLimited,
    Retried,
    StoreDegraded,
    StreamInterrupted,
    Watching,
)

PHASES = {"closed": 0, "half_open": 1, "open": 2}
SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2, 3, 5, 7.5, 10, 15, 20, 30, 60, 120, 300, 600)


class _Metrics:
    """The metrics of one registry: made once, as Prometheus refuses a second of the same name."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(name, text, labels, registry=registry)

        def histogram(name: str, text: str, *labels: str) -> Histogram:
            return Histogram(name, text, labels, registry=registry, buckets=SECONDS)

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(name, text, labels, registry=registry)

        prefix = "llm_resilient_"
        self.circuit = gauge("circuit_breaker_state", "0 closed, 1 half-open, 2 open", "provider")
        self.fallback = counter(
            "fallback", "Answered requests, by first-ranked and answering provider", "from_provider", "to_provider"
        )
        self.latency = histogram("llm_latency_seconds", "Seconds of answered attempts", "provider")
        self.limit_hits = counter("rate_limit_hits", "Requests that met a rate limit", "user_type")
        self.requests = counter(f"{prefix}requests", "Requests, by how they ended", "outcome", "provider")
        self.request_seconds = histogram(
            f"{prefix}request_seconds", "Seconds of answered requests, over all attempts and waits", "provider"
        )
        self.attempts = counter(f"{prefix}attempts", "Attempts, by how they ended", "provider", "kind")
        self.retries = counter(
            f"{prefix}retries", "Retries at the same provider, by the failure before", "provider", "kind"
        )
        self.fallbacks = counter(f"{prefix}fallbacks", "Moves after a failure", "from_provider", "to_provider", "kind")
        self.tokens = counter(f"{prefix}tokens", "Tokens used", "provider", "direction")
        self.cost = counter(f"{prefix}cost_usd", "US dollars by the configured price", "provider")
        self.first_token = histogram(f"{prefix}first_token_seconds", "Seconds to a stream's first content", "provider")
        self.waits = histogram(
            f"{prefix}wait_seconds", "Seconds that answered requests waited: backoff, Retry-After, limits"
        )
        self.limited = counter(f"{prefix}rate_limited", "Rate limits met", "provider", "source", "dimension")
        self.interruptions = counter(f"{prefix}stream_interruptions", "Streams that broke", "provider", "kind", "shown")
        self.continuations = counter(
            f"{prefix}stream_continuations", "Broken streams that went on", "from_provider", "to_provider"
        )
        self.hedges = counter(f"{prefix}hedges", "Second requests beside a late one", "provider", "beside", "won")
        self.transitions = counter(
            f"{prefix}circuit_transitions", "Changes of circuit state", "provider", "before", "after"
        )
        self.blocked = counter(f"{prefix}credential_blocks", "Credentials left alone", "provider", "reason")
        self.budget = gauge(
            f"{prefix}retry_budget", "Tokens left for extra calls, of 100; none are made at 50", "provider"
        )
        self.models: list[Callable[[], int | None]] = []
        gauge(f"{prefix}pending", "Requests that wait or run").set_function(self._pending)
        self.degraded = gauge(f"{prefix}store_degraded", "1 while the shared store can't be reached")

    def _pending(self) -> float:
        return sum([count for model in tuple(self.models) if (count := model()) is not None])

    def watch(self, pending: Callable[[], int | None]) -> None:
        """Count a model's pending requests too, and forget the models that are gone: nobody may ever scrape."""
        self.models = [*(model for model in self.models if model() is not None), pending]


class _Answers:
    """The children that every answer of one provider counts in."""

    __slots__ = ("attempts", "first_token", "input", "latency", "output", "requests", "seconds")

    def __init__(self, metrics: _Metrics, provider: str) -> None:
        self.attempts = metrics.attempts.labels(provider, "ok")
        self.latency = metrics.latency.labels(provider)
        self.first_token = metrics.first_token.labels(provider)
        self.input = metrics.tokens.labels(provider, "input")
        self.output = metrics.tokens.labels(provider, "output")
        self.requests = metrics.requests.labels("answered", provider)
        self.seconds = metrics.request_seconds.labels(provider)


_PER_REGISTRY: WeakKeyDictionary[CollectorRegistry, _Metrics] = WeakKeyDictionary()


class PrometheusObserver:
    """Counts events.

    Args:
        registry: Where the metrics live; default: prometheus_client's own. Observers of one registry share its metrics.
    """

    events: frozenset[type]

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        metrics = _PER_REGISTRY.get(registry)
        if metrics is None:
            metrics = _PER_REGISTRY[registry] = _Metrics(registry)
        self._metrics = metrics
        self._children: dict[tuple[str, ...], Any] = {}
        self._answers: dict[str, _Answers] = {}

    def _child(self, metric: str, *labels: str) -> Any:
        key = (metric, *labels)
        child = self._children.get(key)
        if child is None:
            child = self._children[key] = getattr(self._metrics, metric).labels(*labels)
        return child

    def __call__(self, event: Event) -> None:
        """Count one event."""
        count = _COUNTS.get(type(event))
        if count is not None:
            count(self, event)

    def _answers_of(self, provider: str) -> _Answers:
        answers = self._answers.get(provider)
        if answers is None:
            answers = self._answers[provider] = _Answers(self._metrics, provider)
        return answers

    def _attempted(self, event: Attempted) -> None:
        if event.kind != "ok":
            self._child("attempts", event.provider, event.kind).inc()
            return
        answers = self._answers_of(event.provider)
        answers.attempts.inc()
        answers.latency.observe(event.seconds)
        if event.first_token is not None:
            answers.first_token.observe(event.first_token)
        if event.usage is not None:
            answers.input.inc(event.usage.input)
            answers.output.inc(event.usage.output)

    def _decided(self, event: Decided) -> None:
        decision = event.decision
        if decision.provider is None:
            self._child("requests", decision.outcome, "none").inc()
            return
        answers = self._answers_of(decision.provider)
        answers.requests.inc()
        answers.seconds.observe(decision.seconds)
        if decision.fallback:
            self._child("fallback", decision.first_choice, decision.provider).inc()
        if decision.cost:
            self._child("cost", decision.provider).inc(decision.cost)
        waited = sum([attempt.wait for attempt in decision.attempts])
        if waited:
            self._metrics.waits.observe(waited)

    def _watching(self, event: Watching) -> None:
        for provider in event.providers:
            # Making the child shows it as 0, closed, without touching one that is known to be open.
            self._child("circuit", provider)
            self._child("budget", provider).set_function(partial(event.budget, provider))
        self._metrics.watch(event.pending)

    def _changed(self, event: CircuitChanged) -> None:
        self._child("circuit", event.provider).set(PHASES[event.after])
        self._child("transitions", event.provider, event.before, event.after).inc()

    def _limited(self, event: RateLimited) -> None:
        self._child("limited", event.provider, event.source, event.dimension).inc()
        self._child("limit_hits", event.user_type).inc()

    def _retried(self, event: Retried) -> None:
        self._child("retries", event.provider, event.kind).inc()

    def _fell_back(self, event: FellBack) -> None:
        self._child("fallbacks", event.from_provider, event.to_provider, event.kind).inc()

    def _interrupted(self, event: StreamInterrupted) -> None:
        self._child("interruptions", event.provider, event.kind, str(event.shown).lower()).inc()

    def _continued(self, event: Continued) -> None:
        self._child("continuations", event.from_provider, event.to_provider).inc()

    def _hedged(self, event: Hedged) -> None:
        self._child("hedges", event.provider, event.beside, str(event.won).lower()).inc()

    def _blocked(self, event: CredentialBlocked) -> None:
        self._child("blocked", event.provider, event.reason).inc()

    def _degraded(self, event: StoreDegraded) -> None:
        self._metrics.degraded.set(event.degraded)


_COUNTS: dict[type, Any] = {
    Attempted: PrometheusObserver._attempted,  # noqa: SLF001
    Decided: PrometheusObserver._decided,  # noqa: SLF001
    CircuitChanged: PrometheusObserver._changed,  # noqa: SLF001
    RateLimited: PrometheusObserver._limited,  # noqa: SLF001
    Retried: PrometheusObserver._retried,  # noqa: SLF001
    FellBack: PrometheusObserver._fell_back,  # noqa: SLF001
    StreamInterrupted: PrometheusObserver._interrupted,  # noqa: SLF001
    Continued: PrometheusObserver._continued,  # noqa: SLF001
    Hedged: PrometheusObserver._hedged,  # noqa: SLF001
    CredentialBlocked: PrometheusObserver._blocked,  # noqa: SLF001
    StoreDegraded: PrometheusObserver._degraded,  # noqa: SLF001
    Watching: PrometheusObserver._watching,  # noqa: SLF001
}
PrometheusObserver.events = frozenset(_COUNTS)
