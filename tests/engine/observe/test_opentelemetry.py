"""Events as OpenTelemetry metrics and span events, read back from the real SDK."""

import pytest

pytest.importorskip("opentelemetry.sdk", reason="the test group has opentelemetry-sdk: make test brings it")

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from langchain_resilient.engine.errors import SettingsError
from langchain_resilient.engine.events import (
    AdmissionRefused,
    Admitted,
    Attempt,
    Attempted,
    CircuitChanged,
    Continued,
    CredentialBlocked,
    DeadLettered,
    Decided,
    Decision,
    FellBack,
    Hedged,
    LettersWatched,
    RateLimited,
    Refusal,
    Replayed,
    Retried,
    StoreDegraded,
    StreamInterrupted,
    Usage,
    Watching,
)
from langchain_resilient.engine.observe.opentelemetry import OpenTelemetryObserver, named
from langchain_resilient.engine.observe.prometheus import PrometheusObserver
from langchain_resilient.testing import FakeClock

GPT = "openai/gpt-4.1"
CHAT = {
    "gen_ai.operation.name": "chat",
    "gen_ai.provider.name": "openai",
    "gen_ai.request.model": "gpt-4.1",
    "llm_resilient.provider": GPT,
}
BUCKETS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)


class Metered:
    """A meter provider and what its reader sees."""

    def __init__(self):
        self.reader = InMemoryMetricReader()
        self.provider = MeterProvider(metric_readers=[self.reader])
        self.units = {}

    def read(self):
        """Every point by its metric's name: (attributes, point)."""
        found, data = {}, self.reader.get_metrics_data()
        for resource in data.resource_metrics if data else ():
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    found[metric.name] = [(dict(point.attributes), point) for point in metric.data.data_points]
                    self.units[metric.name] = metric.unit
        return found

    def value(self, name, **labels):
        """One number."""
        wanted = {f"llm_resilient.{label}": word for label, word in labels.items()}
        return next(point.value for attributes, point in self.read()[name] if attributes == wanted)


@pytest.fixture
def metered():
    """Metrics of this test alone."""
    return Metered()


@pytest.fixture
def observe(metered):
    """An observer of them."""
    return OpenTelemetryObserver(metered.provider)


@pytest.fixture
def spans():
    """A tracer and the spans that ended."""
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return provider, exporter


def decision(**fields):
    """A decision record of a healthy request."""
    usual = Decision(1, GPT, GPT, "answered", 2.0, None, (), (), "closed", False, None, None, False, "batch", "acme")
    return Decided(usual._replace(**fields))


def test_an_attempt_in_the_conventions_words(metered, observe):
    """Duration, time to first chunk and tokens, with the conventions' names, units, buckets and attributes."""
    observe(Attempted(GPT, "ok", 1.5, 0.25, Usage(10, 20), False))
    observe(Attempted(GPT, "overloaded", 0.5, None, None, False))
    found = metered.read()
    durations = {
        attributes.get("error.type"): (attributes, point)
        for attributes, point in found["gen_ai.client.operation.duration"]
    }
    assert durations[None][0] == CHAT
    assert durations["overloaded"][0] == CHAT | {"error.type": "overloaded"}
    point = durations[None][1]
    assert (point.count, point.sum, tuple(point.explicit_bounds)) == (1, 1.5, BUCKETS)
    ((attributes, first),) = found["gen_ai.client.operation.time_to_first_chunk"]
    assert (attributes, first.sum, tuple(first.explicit_bounds)) == (CHAT, 0.25, BUCKETS)
    tokens = {
        attributes.pop("gen_ai.token.type"): (attributes, point.sum)
        for attributes, point in found["gen_ai.client.token.usage"]
    }
    assert tokens == {"input": (CHAT, 10), "output": (CHAT, 20)}
    bounds = found["gen_ai.client.token.usage"][0][1].explicit_bounds
    assert (bounds[:3], bounds[-1], len(bounds)) == ((1, 4, 16), 67108864, 14)
    assert [metered.units[name] for name in sorted(found) if name.startswith("gen_ai.")] == ["s", "s", "{token}"]


@pytest.mark.parametrize(
    ("provider", "who", "model"),
    [
        ("gemini/gemini-2.5-pro", "gcp.gemini", "gemini-2.5-pro"),
        ("bedrock/us.anthropic.claude", "aws.bedrock", "us.anthropic.claude"),
        ("azure/my-deployment", "azure.ai.openai", "my-deployment"),
        ("ollama/library/llama3", "ollama", "library/llama3"),
        ("FakeChatModel", "FakeChatModel", None),
    ],
)
def test_providers_have_the_conventions_names(provider, who, model):
    """Where the conventions know one; a name of the user's own stays as it is, and says no model."""
    found = named(provider)
    assert (found["gen_ai.provider.name"], found.get("gen_ai.request.model")) == (who, model)
    assert found["llm_resilient.provider"] == provider


@pytest.mark.parametrize(
    ("event", "name", "labels", "value"),
    [
        (decision(), "requests", {"outcome": "answered", "provider": GPT}, 1),
        (decision(provider=None, outcome="refused"), "requests", {"outcome": "refused", "provider": "none"}, 1),
        (Attempted(GPT, "ok", 1.0, None, Usage(10, 20), False, 0.25), "cost_usd", {"provider": GPT}, 0.25),
        (decision(fallback=True, first_choice="b"), "fallback", {"from_provider": "b", "to_provider": GPT}, 1),
        (Retried(GPT, "timeout", 0.5), "retries", {"provider": GPT, "kind": "timeout"}, 1),
        (FellBack("a", "b", "timeout"), "fallbacks", {"from_provider": "a", "to_provider": "b", "kind": "timeout"}, 1),
        (RateLimited("a", "client", "rpm", "free"), "rate_limit_hits", {"user_type": "free"}, 1),
        (
            RateLimited("a", "client", "rpm"),
            "rate_limited",
            {"provider": "a", "source": "client", "dimension": "rpm"},
            1,
        ),
        (Hedged("b", "a", won=True), "hedges", {"provider": "b", "beside": "a", "won": "true"}, 1),
        (Continued("a", "b"), "stream_continuations", {"from_provider": "a", "to_provider": "b"}, 1),
        (
            StreamInterrupted("a", "timeout", True),
            "stream_interruptions",
            {"provider": "a", "kind": "timeout", "shown": "true"},
            1,
        ),
        (CredentialBlocked("a", "auth", 300.0), "credential_blocks", {"provider": "a", "reason": "auth"}, 1),
        (AdmissionRefused((Refusal("a", "rpm"),)), "admission_refusals", {"provider": "a", "reason": "rpm"}, 1),
        (DeadLettered("id", "key", "timeout", "lost"), "dead_letters", {"kind": "timeout", "where": "lost"}, 1),
        (Replayed("id", "failed", 1.0), "dead_letters_replayed", {"outcome": "failed"}, 1),
        (Watching(("a",), phase=lambda _: "open"), "circuit_state", {"provider": "a"}, 2),
        (
            CircuitChanged("a", "closed", "open", "timeout"),
            "circuit_transitions",
            {"provider": "a", "before": "closed", "after": "open"},
            1,
        ),
        (Watching(("a",), mode=lambda _: "forced_open"), "circuit_state", {"provider": "a"}, 2),
        (Watching(("a",), mode=lambda _: "forced_open"), "circuit_mode", {"provider": "a"}, 3),
        (Watching(("a",), lambda _: 42.0), "retry_budget", {"provider": "a"}, 42),
        (Watching(("a",), lambda _: 42.0, lambda: 3), "pending", {}, 3),
        (LettersWatched(lambda: (4, 3, 2, 1, None)), "dead_letter_depth", {"state": "spooled"}, 1),
        (LettersWatched(lambda: (0, 0, 0, 0, None)), "dead_letter_oldest_seconds", {}, 0),
        (StoreDegraded(True, "x"), "store_degraded", {}, 1),
    ],
)
def test_our_own_names_mean_what_prometheuss_mean(metered, observe, event, name, labels, value):
    """`llm_resilient.` and Prometheus's word; the labels are attributes."""
    observe(event)
    assert metered.value(f"llm_resilient.{name}", **labels) == value


def test_requests_are_timed(metered, observe):
    """Answered ones, and what they waited."""
    observe(decision(attempts=(Attempt(GPT, "timeout", 1.0, 0.5), Attempt(GPT, "ok", 1.0, 3.0))))
    observe(decision(first_token=0.5, lane="interactive"))
    observe(decision(provider=None, outcome="failed"))
    found = metered.read()
    assert [point.sum for _, point in found["llm_resilient.request.duration"]] == [4.0]
    assert [point.sum for _, point in found["llm_resilient.user_wait.duration"]] == [0.5]
    assert [point.sum for _, point in found["llm_resilient.wait.duration"]] == [3.5]


def test_it_counts_the_events_that_prometheus_counts():
    """A new event is either counted by both or excused for both."""
    assert OpenTelemetryObserver.events == PrometheusObserver.events


def test_what_is_not_counted_is_passed_over(metered, observe):
    """An event without a metric changes nothing."""
    observe(Admitted("a", False, 0.0))
    assert all(point.value == 0 for points in metered.read().values() for _, point in points)


def test_observers_of_one_provider_share_its_metrics(metered):
    """Two models count together, and the gauges tell of both; another provider hears nothing."""
    other = Metered()
    for name, pending in (("a", 1), ("b", 2)):
        observe = OpenTelemetryObserver(metered.provider)
        observe(Watching((name,), lambda _: 50.0, lambda pending=pending: pending))
        observe(Retried(name, "timeout", 0.5))
    OpenTelemetryObserver(other.provider)
    assert metered.value("llm_resilient.pending") == 3
    assert [attributes["llm_resilient.provider"] for attributes, _ in metered.read()["llm_resilient.retries"]] == [
        "a",
        "b",
    ]
    assert "llm_resilient.retries" not in other.read()


def test_the_global_provider_is_the_default():
    """Without a provider nothing is lost that is set later, and it never raises."""
    OpenTelemetryObserver()(Attempted(GPT, "ok", 1.0, 0.5, Usage(1, 2), False))
    assert OpenTelemetryObserver()._instruments is OpenTelemetryObserver()._instruments


@pytest.mark.parametrize("field", ["meter_provider", "tracer_provider"])
def test_what_is_no_provider_is_refused(field):
    """By its name."""
    with pytest.raises(SettingsError, match=f"{field}: got 'x'"):
        OpenTelemetryObserver(**{field: "x"})


# ----------------------------------------------------------------------------------------------------------------- spans
@pytest.mark.parametrize(
    ("event", "name", "attributes"),
    [
        (Retried("a", "timeout", 0.5), "retry", {"provider": "a", "kind": "timeout", "delay": 0.5}),
        (FellBack("a", "b", "timeout"), "fallback", {"from_provider": "a", "to_provider": "b", "kind": "timeout"}),
        (
            CircuitChanged("a", "closed", "open", "timeout"),
            "circuit_change",
            {"provider": "a", "before": "closed", "after": "open", "reason": "timeout"},
        ),
        (Hedged("b", "a", won=True), "hedge", {"provider": "b", "beside": "a", "won": True}),
        (
            StreamInterrupted("a", "timeout", True),
            "stream_interruption",
            {"provider": "a", "kind": "timeout", "shown": True},
        ),
        (Continued("a", "b"), "stream_continuation", {"from_provider": "a", "to_provider": "b"}),
        (RateLimited("a", "client", "rpm"), "rate_limit", {"provider": "a", "source": "client", "dimension": "rpm"}),
        (
            CredentialBlocked("a", "auth", 300.0),
            "credential_block",
            {"provider": "a", "reason": "auth", "seconds": 300.0},
        ),
        (
            DeadLettered("id", "key", "timeout", "sqlite"),
            "dead_letter",
            {"letter": "id", "kind": "timeout", "where": "sqlite"},
        ),
    ],
)
def test_what_went_wrong_is_told_on_the_current_span(observe, spans, event, name, attributes):
    """As an event of the caller's own span; never a letter's key."""
    provider, exporter = spans
    with provider.get_tracer("test").start_as_current_span("request"):
        observe(event)
    (span,) = exporter.get_finished_spans()
    (told,) = span.events
    assert told.name == f"llm_resilient.{name}"
    assert dict(told.attributes) == {f"llm_resilient.{field}": value for field, value in attributes.items()}


def test_a_healthy_request_tells_nothing_on_spans(observe, spans):
    """Nor is anything made where no span is recorded."""
    provider, exporter = spans
    with provider.get_tracer("test").start_as_current_span("request"):
        for event in (Admitted(GPT, False, 0.0), Attempted(GPT, "ok", 1.0, None, None, False), decision()):
            observe(event)
    observe(Retried("a", "timeout", 0.5))
    (span,) = exporter.get_finished_spans()
    assert span.events == ()


def test_hostile_words_become_other(metered, observe, spans):
    """In metrics and on spans: no error's text, prompt or key comes through."""
    provider, exporter = spans
    with provider.get_tracer("test").start_as_current_span("request"):
        for number in range(300):
            word = f"Prompt number {number}"
            for event in (
                Attempted("a", word, 1.0, None, None, False),
                Retried("a", word, 0.5),
                FellBack("a", "b", word),
                CircuitChanged("a", word, word, word),
                CredentialBlocked("a", word, 1.0),
                RateLimited("a", word, word, word),
                StreamInterrupted("a", word, False),
                AdmissionRefused((Refusal("a", word),)),
                StoreDegraded(True, word),
                DeadLettered("id", word, word, word),
                Replayed("id", word, 1.0),
                decision(provider=None, outcome=word, tenant=word),
            ):
                observe(event)
    found = metered.read()
    assert len(found.pop("llm_resilient.rate_limit_hits")) == 101
    assert "Prompt" not in repr([attributes for points in found.values() for attributes, _ in points])
    assert max(map(len, found.values())) == 1
    (span,) = exporter.get_finished_spans()
    assert "Prompt" not in repr([(event.name, dict(event.attributes)) for event in span.events])


def test_attempts_are_spans_where_a_tracer_is_given(metered, spans):
    """Below the current one, for as long as the attempt took, in error where it failed."""
    provider, exporter = spans
    observe = OpenTelemetryObserver(metered.provider, provider, clock=FakeClock(1000.0))
    with provider.get_tracer("test").start_as_current_span("request") as request:
        observe(Attempted(GPT, "overloaded", 1.5, None, None, True))
        observe(Attempted(GPT, "ok", 2.0, 0.5, Usage(10, 20), False))
        observe(Attempted(GPT, "cancelled", 2.0, None, None, False))
    failed, answered, outrun, _ = exporter.get_finished_spans()
    assert {span.name for span in (failed, answered)} == {"chat gpt-4.1"}
    assert {span.kind for span in (failed, answered)} == {SpanKind.CLIENT}
    assert failed.parent.span_id == request.get_span_context().span_id
    assert failed.end_time - failed.start_time == 1_500_000_000
    assert [span.status.status_code for span in (failed, answered, outrun)] == [
        StatusCode.ERROR, StatusCode.UNSET, StatusCode.UNSET,
    ]  # fmt: skip
    assert dict(failed.attributes) == CHAT | {"error.type": "overloaded", "llm_resilient.probe": True}
    used = {
        "gen_ai.usage.input_tokens": 10,
        "gen_ai.usage.output_tokens": 20,
        "gen_ai.response.time_to_first_chunk": 0.5,
    }
    assert dict(answered.attributes) == CHAT | used | {"llm_resilient.probe": False}
