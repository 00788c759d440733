"""Events as OpenTelemetry metrics, and as events of the current span (needs `opentelemetry-api`: the extra `opentelemetry`).

Rules of this file: what the GenAI conventions name keeps their name, unit and buckets (as of their own repository, `semantic-conventions-genai`,
late in 2026: still in development); all else is `llm_resilient.` and means what Prometheus's metric of that name does, by the same table.
Attributes are bounded as labels are, and never a prompt, an answer or a key, in metrics and in spans.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

from opentelemetry import metrics, trace
from opentelemetry.metrics import CallbackOptions, Counter, Histogram, Meter, MeterProvider, Observation
from opentelemetry.trace import Span, SpanKind, StatusCode, Tracer, TracerProvider

from langchain_resilient.engine.errors import require
from langchain_resilient.engine.events import (
    Attempted,
    CircuitChanged,
    Continued,
    CredentialBlocked,
    DeadLettered,
    Decided,
    Event,
    FellBack,
    Hedged,
    RateLimited,
    Retried,
    StreamInterrupted,
)
from langchain_resilient.engine.observe.levels import DEPTHS, GAUGES, TOLD, Levels
from langchain_resilient.engine.observe.rows import (
    COUNTERS,
    DIMENSIONS,
    KINDS,
    LETTER_KINDS,
    OTHER,
    OUTCOMES,
    PHASES,
    PLACES,
    SOURCES,
    TURNS,
    rows_of,
)
from langchain_resilient.engine.policy import Clock, SystemClock
from langchain_resilient.engine.store.forks import ForkLock

NAME = "langchain_resilient"
OURS = "llm_resilient."
Attributes = Mapping[str, str]

SECONDS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
TOKENS = tuple(4**power for power in range(14))
"""The conventions' buckets."""

PROVIDERS = {
    "azure": "azure.ai.openai", "azure_ai": "azure.ai.inference", "bedrock": "aws.bedrock", "gemini": "gcp.gemini", "mistral": "mistral_ai",
    "moonshot": "moonshot_ai", "vertex_ai": "gcp.vertex_ai", "watsonx": "ibm.watsonx.ai", "xai": "x_ai",
}  # fmt: skip
"""LiteLLM's word for a provider, in the conventions' spelling, where the two differ."""

SPAN_EVENTS: dict[type, tuple[str, tuple[str, ...]]] = {
    Retried: ("retry", ("provider", "kind", "delay")),
    FellBack: ("fallback", ("from_provider", "to_provider", "kind")),
    CircuitChanged: ("circuit_change", ("provider", "before", "after", "reason")),
    CredentialBlocked: ("credential_block", ("provider", "reason", "seconds")),
    RateLimited: ("rate_limit", ("provider", "source", "dimension")),
    Hedged: ("hedge", ("provider", "beside", "won")),
    StreamInterrupted: ("stream_interruption", ("provider", "kind", "shown")),
    Continued: ("stream_continuation", ("from_provider", "to_provider")),
    DeadLettered: ("dead_letter", ("letter", "kind", "where")),
}
"""Events that are told on the current span, and which of their fields: a letter's idempotency key is the caller's own."""
WORDS = {
    "kind": KINDS | LETTER_KINDS, "before": PHASES, "after": PHASES, "reason": TURNS, "source": SOURCES, "dimension": DIMENSIONS,
    "where": PLACES,
}  # fmt: skip
"""The vocabularies of these fields."""


def named(provider: str) -> dict[str, str]:
    """A provider in the conventions' words: who serves, and which model of theirs (where our name says both)."""
    who, _, model = provider.partition("/")
    found = {"gen_ai.operation.name": "chat", "gen_ai.provider.name": PROVIDERS.get(who, who)}
    if model:
        found["gen_ai.request.model"] = model
    return found | {f"{OURS}provider": provider}


class _Instruments:
    """The instruments of one meter provider, made once: an SDK drops the callbacks of a second gauge of the same name."""

    def __init__(self, meter: Meter) -> None:
        self.levels = Levels()

        def histogram(name: str, unit: str, text: str, buckets: Iterable[float] = SECONDS) -> Histogram:
            return meter.create_histogram(name, unit, text, explicit_bucket_boundaries_advisory=list(buckets))

        self.duration = histogram("gen_ai.client.operation.duration", "s", "GenAI operation duration.")
        self.first_chunk = histogram(
            "gen_ai.client.operation.time_to_first_chunk", "s", "Seconds to a stream's first content"
        )
        self.tokens = histogram(
            "gen_ai.client.token.usage", "{token}", "Number of input and output tokens used.", TOKENS
        )
        self.request_seconds = histogram(
            f"{OURS}request.duration", "s", "Seconds of answered requests, over all attempts and waits"
        )
        self.user_wait = histogram(
            f"{OURS}user_wait.duration",
            "s",
            "Seconds of interactive requests to the first of a stream, or to the whole answer, over all attempts and waits",
        )
        self.waits = histogram(
            f"{OURS}wait.duration", "s", "Seconds that answered requests waited: backoff, Retry-After, limits"
        )
        # The conventions' histograms count attempts and tokens.
        self.counters: dict[str, Counter] = {
            key: meter.create_counter(OURS + key, description=counted.text)
            for key, counted in COUNTERS.items()
            if key not in {"attempts", "tokens"}
        }
        levels = self.levels
        read: dict[str, Callable[[], Iterable[Observation]]] = {
            "circuit_state": lambda: _each("provider", levels.watched, levels.state),
            "circuit_mode": lambda: _each("provider", levels.watched, levels.mode),
            "retry_budget": lambda: _each("provider", levels.watched, levels.budget),
            "pending": lambda: [Observation(levels.pending())],
            "store_degraded": lambda: [Observation(levels.store_degraded())],
            "dead_letter_depth": lambda: _each("state", DEPTHS, levels.depth) if levels.has_letters else (),
            "dead_letter_oldest_seconds": lambda: [Observation(levels.oldest())] if levels.has_letters else (),
        }
        for key, text in GAUGES.items():
            # What waits in several processes adds up; the rest does not.
            create = meter.create_observable_up_down_counter if key == "pending" else meter.create_observable_gauge
            create(OURS + key, [partial(_asked, read[key])], description=text)


def _asked(read: Callable[[], Iterable[Observation]], _: CallbackOptions) -> Iterable[Observation]:
    return read()


def _each(label: str, words: Iterable[str], read: Callable[[str], float]) -> Iterable[Observation]:
    return [Observation(read(word), {OURS + label: word}) for word in words]


def _ours(labels: Mapping[str, str]) -> dict[str, str]:
    return {OURS + name: value for name, value in labels.items()}


_LOCK = ForkLock()
_MADE: WeakKeyDictionary[MeterProvider, _Instruments] = WeakKeyDictionary()
_GLOBAL: list[_Instruments] = []
"""Of the global meter provider, which is first a stand-in and then the one that was set: another object with the same instruments."""


def _instruments_of(given: MeterProvider | None) -> _Instruments:
    with _LOCK.current:
        ruling = metrics.get_meter_provider()
        if given is None or given is ruling:
            if not _GLOBAL:
                _GLOBAL.append(_Instruments(ruling.get_meter(NAME)))
            return _GLOBAL[0]
        made = _MADE.get(given)
        if made is None:
            made = _MADE[given] = _Instruments(given.get_meter(NAME))
        return made


class OpenTelemetryObserver:
    """Counts events with OpenTelemetry, and tells of what went wrong on the current span, if one is recorded.

    Args:
        meter_provider: Where the metrics go; None: the global one. Observers of one provider share its metrics.
        tracer_provider: Makes a span of each attempt, below the current one; None: no spans of our own, as the providers' clients may be
            instrumented already.
        clock: Time, for the spans of attempts.

    Raises:
        SettingsError: For what is no provider.
    """

    events: frozenset[type]

    def __init__(
        self,
        meter_provider: MeterProvider | None = None,
        tracer_provider: TracerProvider | None = None,
        *,
        clock: Clock | None = None,
    ) -> None:
        ok = meter_provider is None or hasattr(meter_provider, "get_meter")
        require(ok, "meter_provider", meter_provider, "give an OpenTelemetry MeterProvider, or None for the global one")
        ok = tracer_provider is None or hasattr(tracer_provider, "get_tracer")
        require(ok, "tracer_provider", tracer_provider, "give an OpenTelemetry TracerProvider, or None for no spans")
        self._instruments = _instruments_of(meter_provider)
        self._tracer: Tracer | None = None if tracer_provider is None else tracer_provider.get_tracer(NAME)
        self._clock = clock or SystemClock()
        self._named: dict[tuple[str, str], Attributes] = {}

    def __call__(self, event: Event) -> None:
        """Count one event."""
        count = _COUNTS.get(type(event))
        if count is not None:
            count(self, event)
        told = SPAN_EVENTS.get(type(event))
        if told is not None:
            span = trace.get_current_span()
            if span.is_recording():
                _tell(span, event, *told)

    def _attributes(self, provider: str, kind: str = "ok") -> Attributes:
        found = self._named.get((provider, kind))
        if found is None:
            found = self._named[provider, kind] = named(provider) | ({} if kind == "ok" else {"error.type": kind})
        return found

    def _attempted(self, event: Attempted) -> None:
        instruments = self._instruments
        attributes = self._attributes(event.provider, KINDS.get(event.kind, OTHER))
        instruments.duration.record(event.seconds, attributes)
        if event.first_token is not None:
            instruments.first_chunk.record(event.first_token, attributes)
        if event.usage is not None:
            for direction in ("input", "output"):
                instruments.tokens.record(
                    getattr(event.usage, direction), {**attributes, "gen_ai.token.type": direction}
                )
        if event.cost:
            instruments.counters["cost_usd"].add(event.cost, _ours({"provider": event.provider}))
        if self._tracer is not None:
            self._span(self._tracer, event, attributes)

    def _span(self, tracer: Tracer, event: Attempted, attributes: Attributes) -> None:
        """The attempt is over when it is told of: its span is made backwards."""
        ended = self._clock.wall()
        name = attributes.get("gen_ai.request.model", event.provider)
        began = int((ended - event.seconds) * 1e9)
        span = tracer.start_span(f"chat {name}", kind=SpanKind.CLIENT, attributes=dict(attributes), start_time=began)
        span.set_attribute(f"{OURS}probe", event.probe)
        if event.usage is not None:
            span.set_attribute("gen_ai.usage.input_tokens", event.usage.input)
            span.set_attribute("gen_ai.usage.output_tokens", event.usage.output)
        if event.first_token is not None:
            span.set_attribute("gen_ai.response.time_to_first_chunk", event.first_token)
        if event.kind not in {"ok", "cancelled"}:
            span.set_status(StatusCode.ERROR)
        span.end(int(ended * 1e9))

    def _decided(self, event: Decided) -> None:
        decision, counters = event.decision, self._instruments.counters
        outcome = OUTCOMES.get(decision.outcome, OTHER)
        counters["requests"].add(1, _ours({"outcome": outcome, "provider": decision.provider or "none"}))
        if decision.provider is None:
            return
        answered_by = _ours({"provider": decision.provider})
        self._instruments.request_seconds.record(decision.seconds, answered_by)
        if decision.lane == "interactive":
            self._instruments.user_wait.record(decision.user_wait, answered_by)
        if decision.fallback:
            moved = {"from_provider": decision.first_choice, "to_provider": decision.provider}
            counters["fallback"].add(1, _ours(moved))
        waited = sum([attempt.wait for attempt in decision.attempts])
        if waited:
            self._instruments.waits.record(waited)

    def _told(self, event: Event) -> None:
        for key, *labels in rows_of(self._instruments.levels.heard(event)):
            self._instruments.counters[key].add(1, _ours(dict(zip(COUNTERS[key].labels, labels, strict=True))))


def _tell(span: Span, event: Event, word: str, fields: tuple[str, ...]) -> None:
    values = ((field, getattr(event, field)) for field in fields)
    span.add_event(
        OURS + word, {OURS + field: WORDS[field].get(it, OTHER) if field in WORDS else it for field, it in values}
    )


_COUNTS: dict[type, Callable[[OpenTelemetryObserver, Any], None]] = {
    **dict.fromkeys(TOLD, OpenTelemetryObserver._told),  # noqa: SLF001  # the class's own table
    Attempted: OpenTelemetryObserver._attempted,  # noqa: SLF001
    Decided: OpenTelemetryObserver._decided,  # noqa: SLF001
}
OpenTelemetryObserver.events = frozenset(_COUNTS)
