"""Events as metrics: the seed's four names, ours, and labels that stay bounded."""

import pytest
from prometheus_client import REGISTRY, CollectorRegistry

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
from langchain_resilient.engine.observe.prometheus import PrometheusObserver
from langchain_resilient.engine.policy import SystemClock
from tests.engine.harness import Chunk, Step, World, status

P = "llm_resilient_"


@pytest.fixture
def registry():
    """A registry of its own."""
    return CollectorRegistry()


@pytest.fixture
def observe(registry):
    """An observer of it."""
    return PrometheusObserver(registry)


def decision(**fields):
    """A decision record of a healthy request."""
    usual = Decision(1, "a", "a", "answered", 2.0, None, (), (), "closed", False, None, None, False, "batch", "acme")
    return Decided(usual._replace(**fields))


def test_the_seeds_four_names():
    """Read as an operator reads them, from prometheus_client's own registry."""
    observe = PrometheusObserver()

    def value(name, **labels):
        return REGISTRY.get_sample_value(name, labels)

    circuit, phase = {"provider": "seed/a"}, ["closed"]
    observe(Watching(("seed/a",), phase=lambda _: phase[0]))
    assert value("circuit_breaker_state", **circuit) == 0
    for before, after, number in (("closed", "open", 2), ("open", "half_open", 1), ("half_open", "closed", 0)):
        phase[0] = after
        observe(CircuitChanged("seed/a", before, after, "why"))
        assert value("circuit_breaker_state", **circuit) == number
    observe(decision(provider="seed/b", first_choice="seed/a", fallback=True))
    assert value("fallback_total", from_provider="seed/a", to_provider="seed/b") == 1
    observe(Attempted("seed/a", "ok", 1.5, None, None, False))
    observe(Attempted("seed/a", "timeout", 60.0, None, None, False))
    assert value("llm_latency_seconds_count", provider="seed/a") == 1
    assert value("llm_latency_seconds_sum", provider="seed/a") == 1.5
    assert value("llm_latency_seconds_bucket", provider="seed/a", le="1.0") == 0
    assert value("llm_latency_seconds_bucket", provider="seed/a", le="2.0") == 1
    observe(RateLimited("seed/a", "client", "rpm", "seed_free"))
    assert value("rate_limit_hits_total", user_type="seed_free") == 1


def test_a_fallback_counts_once_per_answered_request(registry, observe):
    """From the first-ranked to the answering provider, whatever lay between; each move is counted apart."""
    observe(FellBack("a", "b", "timeout"))
    observe(FellBack("b", "c", "overloaded"))
    observe(decision(provider="c", fallback=True))
    observe(decision(provider=None, outcome="failed"))
    samples = {
        tuple(sample.labels.values()): sample.value
        for metric in registry.collect()
        for sample in metric.samples
        if sample.name == "fallback_total"
    }
    assert samples == {("a", "c"): 1.0}
    moved = {"from_provider": "b", "to_provider": "c", "kind": "overloaded"}
    assert registry.get_sample_value(f"{P}fallbacks_total", moved) == 1


@pytest.mark.parametrize(
    ("event", "name", "labels", "value"),
    [
        (decision(), "requests_total", {"outcome": "answered", "provider": "a"}, 1),
        (decision(provider=None, outcome="refused"), "requests_total", {"outcome": "refused", "provider": "none"}, 1),
        (decision(), "request_seconds_sum", {"provider": "a"}, 2.0),
        (decision(lane="interactive"), "user_wait_seconds_sum", {"provider": "a"}, 2.0),
        (decision(lane="interactive", first_token=0.5), "user_wait_seconds_sum", {"provider": "a"}, 0.5),
        (decision(lane="batch"), "user_wait_seconds_sum", {"provider": "a"}, 0.0),
        (
            Attempted("a", "stream_interrupted", 1.0, 0.5, Usage(10, 20), False, 0.25),
            "cost_usd_total",
            {"provider": "a"},
            0.25,
        ),
        (
            Attempted("a", "stream_interrupted", 1.0, 0.5, Usage(10, 20), False),
            "tokens_total",
            {"provider": "a", "direction": "output"},
            20,
        ),
        (
            decision(attempts=(Attempt("a", "timeout", 1.0, 0.0), Attempt("a", "ok", 1.0, 3.5))),
            "wait_seconds_sum",
            {},
            3.5,
        ),
        (Attempted("a", "ok", 1.0, 0.25, None, False), "first_token_seconds_sum", {"provider": "a"}, 0.25),
        (Attempted("a", "ok", 1.0, None, None, False), "attempts_total", {"provider": "a", "kind": "ok"}, 1),
        (Attempted("a", "auth", 1.0, None, None, False), "attempts_total", {"provider": "a", "kind": "auth"}, 1),
        (
            Attempted("a", "ok", 1.0, None, Usage(10, 20), False),
            "tokens_total",
            {"provider": "a", "direction": "input"},
            10,
        ),
        (
            Attempted("a", "ok", 1.0, None, Usage(10, 20), False),
            "tokens_total",
            {"provider": "a", "direction": "output"},
            20,
        ),
        (Retried("a", "overloaded", 0.5), "retries_total", {"provider": "a", "kind": "overloaded"}, 1),
        (
            RateLimited("a", "provider", "429"),
            "rate_limited_total",
            {"provider": "a", "source": "provider", "dimension": "429"},
            1,
        ),
        (
            StreamInterrupted("a", "timeout", True),
            "stream_interruptions_total",
            {"provider": "a", "kind": "timeout", "shown": "true"},
            1,
        ),
        (Continued("a", "b"), "stream_continuations_total", {"from_provider": "a", "to_provider": "b"}, 1),
        (Hedged("b", "a", won=True), "hedges_total", {"provider": "b", "beside": "a", "won": "true"}, 1),
        (Hedged("b", "a", won=False), "hedges_total", {"provider": "b", "beside": "a", "won": "false"}, 1),
        (
            CircuitChanged("a", "closed", "open", "x"),
            "circuit_transitions_total",
            {"provider": "a", "before": "closed", "after": "open"},
            1,
        ),
        (CredentialBlocked("a", "auth", 300.0), "credential_blocks_total", {"provider": "a", "reason": "auth"}, 1),
        (
            AdmissionRefused((Refusal("a", "rpm", 1.0), Refusal("b", "circuit_open", 2.0))),
            "admission_refusals_total",
            {"provider": "b", "reason": "circuit_open"},
            1,
        ),
        (
            DeadLettered("id", "key", "overloaded", "sqlite"),
            "dead_letters_total",
            {"kind": "overloaded", "where": "sqlite"},
            1,
        ),
        (Replayed("id", "parked", 1.0), "dead_letters_replayed_total", {"outcome": "parked"}, 1),
        (Watching(("a",), lambda _: 42.0), "retry_budget", {"provider": "a"}, 42),
        (Watching(("a",), mode=lambda _: "metrics_only"), "circuit_mode", {"provider": "a"}, 1),
        (LettersWatched(lambda: (4, 3, 2, 1, None)), "dead_letter_depth", {"state": "parked"}, 2),
        (StoreDegraded(True, "x"), "store_degraded", {}, 1),
        (StoreDegraded(False, "x"), "store_degraded", {}, 0),
    ],
)
def test_our_own_names(registry, observe, event, name, labels, value):
    """Each event counts in its metric, under these labels."""
    observe(event)
    assert registry.get_sample_value(P + name, labels) == value


def test_observers_of_one_registry_share_its_metrics(registry):
    """Two models in one process count together, where Prometheus itself would refuse the second."""
    for _ in range(2):
        PrometheusObserver(registry)(decision())
    assert registry.get_sample_value(f"{P}requests_total", {"outcome": "answered", "provider": "a"}) == 2


def test_watching_does_not_touch_what_is_known(registry, observe):
    """A second model of an open provider does not show it as closed."""
    observe(Watching(("a",), pending=lambda: 0, phase=lambda _: "open"))
    observe(Watching(("a", "b"), pending=lambda: 0))
    values = [registry.get_sample_value("circuit_breaker_state", {"provider": name}) for name in "ab"]
    assert values == [2, 0]


def test_what_is_not_counted_is_not_asked_for(observe):
    """An event without a metric is passed over, and named as unwanted."""
    observe(Admitted("a", False, 0.0))
    assert Admitted not in PrometheusObserver.events


def test_labels_are_bounded(registry, observe):
    """A hundred requests of a hundred tenants, with errors that quote the prompt, make no more children than one."""

    def children():
        return sum(len(metric.samples) for metric in registry.collect())

    def story():
        error = status(500)
        error.args = ("Prompt number one",)
        w = World("sync", {"a": [error], "b": [Step(Chunk("hi", usage=Usage(1, 2)), 1.0)]})
        w.policy.__dict__["observe"] = observe
        w.events.append(decision())
        return w

    story().ask(tenant="tenant 0")
    before = children()
    for number in range(1, 100):
        story().ask(tenant=f"tenant {number}")
    assert children() == before
    text = repr(list(registry.collect()))
    assert "tenant" not in text
    assert "Prompt" not in text


def test_a_circuits_whole_story_reaches_the_gauge(world, registry, observe):
    """Open, half-open while it is on trial, closed again."""
    w = world({"a": ["hello"]})
    w.policy.__dict__["observe"] = lambda event: (w.events.append(event), observe(event))
    observe(Watching(("a",), phase=lambda name: w.store.phase(w[name])))
    w.open("a", seconds=61.0)
    seen = []
    for _ in range(3):
        w.ask()
        seen.append(registry.get_sample_value("circuit_breaker_state", {"provider": "a"}))
    assert seen == [1, 1, 0]


def test_models_that_are_gone_are_forgotten_without_a_scrape(registry, observe):
    """Where models come and go and nobody scrapes, only the living are kept."""
    for _ in range(100):
        observe(Watching(("a",), lambda _name: 100, lambda: None))
    observe(Watching(("a",), lambda _name: 100, lambda: 3))
    observe(Watching(("a",), lambda _name: 100, lambda: 4))
    assert observe._metrics.levels.models == 2
    assert registry.get_sample_value(P + "pending") == 7


def test_what_is_forced_open_shows_as_open_and_says_why(registry, observe):
    """An override refuses as an open circuit does, so it shows as one until it is lifted; the mode tells the two apart."""
    modes = {"a": "forced_open", "b": None}
    observe(Watching(("a", "b"), mode=modes.get))

    def shown(name, provider):
        return registry.get_sample_value(name, {"provider": provider})

    assert (shown("circuit_breaker_state", "a"), shown(f"{P}circuit_mode", "a")) == (2, 3)
    assert (shown("circuit_breaker_state", "b"), shown(f"{P}circuit_mode", "b")) == (0, 0)
    modes["a"] = "disabled"
    assert (shown("circuit_breaker_state", "a"), shown(f"{P}circuit_mode", "a")) == (0, 2)


HOSTILE = ["Prompt number {}", "sk-key-{}", "user {}", "\n# HELP x{}", ""]
PEOPLE = 500


def test_hostile_words_become_other(registry, observe):
    """Whatever an event's words are, all but the providers' names are of closed vocabularies, and kinds of users are few."""
    for number in range(PEOPLE):
        for text in HOSTILE:
            word = text.format(number)
            for event in (
                Attempted("a", word, 1.0, None, None, False),
                Retried("a", word, 0.5),
                FellBack("a", "b", word),
                Watching(("a",), mode=lambda _, word=word: word, phase=lambda _, word=word: word),
                CircuitChanged("a", word, word, word),
                CredentialBlocked("a", word, 1.0),
                RateLimited("a", word, word, word),
                StreamInterrupted("a", word, False),
                AdmissionRefused((Refusal("a", word),)),
                StoreDegraded(True, word),
                DeadLettered(word, word, word, word),
                Replayed(word, word, 1.0),
                decision(provider=None, outcome=word, tenant=word, lane=word),
            ):
                observe(event)
    kinds = {
        sample.labels["user_type"]
        for metric in registry.collect()
        for sample in metric.samples
        if "user_type" in sample.labels
    }
    assert len(kinds) == 101
    assert "other" in kinds
    rest = [sample for metric in registry.collect() if metric.name != "rate_limit_hits" for sample in metric.samples]
    words = {word for sample in rest for label, word in sample.labels.items() if label != "le"}
    assert words == {"a", "b", "none", "other", "false"}
    circuit = {"provider": "a"}
    assert registry.get_sample_value("circuit_breaker_state", circuit) == 0, "an unknown state shows as closed"


def test_letters_gauges(registry, observe):
    """Depth by what is with the letters, and the oldest one's age."""
    assert registry.get_sample_value(f"{P}dead_letter_oldest_seconds") == 0, "without letters"
    observe(LettersWatched(lambda: (4, 3, 2, 1, SystemClock.wall() - 3600.0)))
    depth = {
        state: registry.get_sample_value(f"{P}dead_letter_depth", {"state": state})
        for state in ("waiting", "claimed", "parked", "spooled")
    }
    assert depth == {"waiting": 4, "claimed": 3, "parked": 2, "spooled": 1}
    assert 3600 <= registry.get_sample_value(f"{P}dead_letter_oldest_seconds") < 3660
