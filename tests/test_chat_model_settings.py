"""Settings of a model: what is refused at construction, what people may ask and set, who is told, and how it is closed."""

import asyncio
import logging
import sys
import warnings
from typing import Any

import pytest
from langchain_openai import AzureChatOpenAI, ChatOpenAI
from prometheus_client import REGISTRY

from langchain_resilient import (
    AllProvidersFailedError,
    Circuit,
    CircuitOpenError,
    OverloadedError,
    Price,
    Provider,
    RateLimitedError,
    RateLimits,
    ResilientChatModel,
    Retry,
    SettingsConflict,
    SettingsError,
    Timeouts,
    capture_decisions,
)
from langchain_resilient.engine.events import Admitted, Attempted, Decided, Watching
from langchain_resilient.providers import InnerRetriesWarning
from langchain_resilient.testing import ScriptedChatModel
from tests.clients import ANSWER, WAYS, BusyError, ask, failure, fresh, resilient, scripted

BAD = {  # keyword arguments beside a good provider: what the error says
    "no providers": ({"providers": []}, 'providers: got []; name at least one, such as "openai:gpt-4.1"'),
    "providers is a word": ({"providers": "openai:gpt-4.1"}, "providers: got 'openai:gpt-4.1'; name at least one"),
    "providers is None": ({"providers": None}, "providers: got None; name at least one"),
    "a provider of a wrong type": ({"providers": [7]}, "providers[0]: got 'int'; give a LangChain chat model, a spec"),
    "a spec without its provider": ({"providers": ["gpt-4.1"]}, "providers[0]: got 'gpt-4.1'; write \"provider:model\""),
    "a spec without its model": ({"providers": ["openai:"]}, "providers[0]: got 'openai:'; write \"provider:model\""),
    "an unknown provider": ({"providers": ["opnai:gpt-4.1"]}, "providers[0]: got 'opnai:gpt-4.1'; Unsupported provider"),
    "an unknown keyword": ({"timeuots": 1}, "unknown keyword: got 'timeuots'; did you mean 'timeouts'?"),
    "an unknown routing": ({"routing": "prioritty"}, "routing: got 'prioritty'; did you mean 'priority'?"),
    "a routing of a wrong type": ({"routing": None}, "routing: got None"),
    "an unknown interruption": ({"on_interruption": "contine"}, "on_interruption: got 'contine'; did you mean 'continue'?"),
    "an unknown backend": ({"backend": "rediss:/localhost"}, "backend: got"),
    "a backend of another kind": ({"backend": "postgres://user:hidden@localhost"}, "backend: got 'postgres://'; did you mean 'redis://'?"),
    "a hedge that is no Hedge": ({"hedge": True}, "hedge: got True; give a Hedge(...), or None for none"),
    "dead letters of a wrong type": ({"dead_letters": 7}, "dead_letters: got 'int'; give True, a path, a URL of Redis"),
    "an empty namespace": ({"namespace": ""}, "namespace: got ''; give a name that is not empty"),
    "no bound at all": ({"max_pending": 0}, "max_pending: got 0; use a whole number ≥ 1"),
    "a fractional bound": ({"max_pending": 1.5}, "max_pending: got 1.5; use a whole number ≥ 1"),
    "a circuit of a wrong type": ({"circuit": {"failure_threshold": 3}}, "circuit: got {'failure_threshold': 3}; give a Circuit(...)"),
    "a retry of a wrong type": ({"retry": 3}, "retry: got 3; give a Retry(...)"),
    "timeouts of a wrong type": ({"timeouts": 3.0}, "timeouts: got 3.0; give a Timeouts(...)"),
    "a timeout of zero": ({"timeout": 0}, "timeout: got 0; use a number > 0, or None"),
    "tokens below zero": ({"max_tokens": -1}, "max_tokens: got -1; use a number > 0, or None"),
    "a negative temperature": ({"temperature": -0.1}, "temperature: got -0.1; use a number ≥ 0, or None"),
    "retries below zero": ({"max_retries": -1}, "max_retries: got -1"),
    "stop as a word": ({"stop": "END"}, "stop: got 'END'; give a list of words, or None"),
    "a classifier that is none": ({"classifier": 7}, "classifier: got 7; give a function"),
    "observers as a word": ({"observers": "prometheus"}, "observers: got 'prometheus'; give a list"),
    "an unknown observer": ({"observers": ["promethius"]}, "observers: got 'promethius'; give a function of an event"),
    "two of one name": (
        {"providers": [scripted("one"), scripted("one")]},
        "providers: got 'scripted/one'; two have this name: give each a `name` of its own",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_settings(name: str):
    """A nonsensical setting is an error at construction that names the field, what was given and the fix."""
    settings, message = BAD[name]
    with pytest.raises(SettingsError) as caught:
        ResilientChatModel(**({"providers": [scripted()], "namespace": fresh()} | settings))
    assert message in str(caught.value)


BAD_PARTS = {
    "failures below one": (lambda: Circuit(failure_threshold=0), "Circuit.failure_threshold: got 0"),
    "rate above one": (lambda: Circuit(failure_rate=1.5), "Circuit.failure_rate: got 1.5"),
    "an unknown probe": (lambda: Circuit(probe="racing"), "Circuit.probe: got 'racing'"),
    "a delay below zero": (lambda: Retry(base_delay=-1), "Retry.base_delay: got -1"),
    "no time": (lambda: Timeouts(first_token=0), "Timeouts.first_token: got 0; use a number of seconds > 0"),
    "no requests": (lambda: RateLimits(rpm=0), "RateLimits.rpm: got 0; use a whole number ≥ 1"),
    "an unknown limit word": (lambda: RateLimits(rpm=1, on_limit="wiat"), "RateLimits.on_limit: got 'wiat'"),
    "a burst without a rate": (lambda: RateLimits(burst=3), "RateLimits.burst: got 3"),
    "dollars without a price": (
        lambda: Provider("openai:gpt-4.1", limits=RateLimits(usd_per_day=5.0)),
        "RateLimits.usd_per_day: got 5.0; set the provider's price",
    ),
    "two prices": (
        lambda: Provider("openai:x", cost_per_1k=0.1, price={"input": 1}),
        "Provider.cost_per_1k: got 0.1; give either cost_per_1k or price",
    ),
    "an unknown keyword of a provider": (
        lambda: Provider("openai:x", max_latencey=3),
        "Provider: unknown keyword: got 'max_latencey'; did you mean 'max_latency'?",
    ),
    "an unknown keyword of a circuit": (lambda: Circuit(failure_treshold=3), "did you mean 'failure_threshold'?"),
    "an unknown keyword of limits": (lambda: RateLimits(rmp=3), "RateLimits: unknown keyword: got 'rmp'; did you mean 'rpm'?"),
    "an unknown keyword of retries": (lambda: Retry(retries=3), "Retry: unknown keyword: got 'retries'; did you mean 'max_retries'?"),
    "an unknown keyword of timeouts": (lambda: Timeouts(firsttoken=3), "did you mean 'first_token'?"),
    "an unknown keyword of a price": (lambda: Price(1, 2, cached=3), "Price: unknown keyword: got 'cached'"),
    "a missing argument": (lambda: Price(1), "Price: missing a required argument: 'output'; it takes input, output"),
    "nothing at all": (Provider, "Provider: missing a required argument: 'model'"),
    "too many arguments": (lambda: Retry(1, 2, 3, 4, 5, 6), "Retry: too many positional arguments; it takes max_retries"),
    "arguments that are a word": (lambda: Provider("openai:x", model_kwargs="sk-secret"), "Provider.model_kwargs: got 'str'; give a mapping"),
    "arguments that are None": (lambda: Provider("openai:x", model_kwargs=None), "Provider.model_kwargs: got 'NoneType'; give a"),
    "a name that is no text": (lambda: Provider("openai:x", name=5), "Provider.name: got 5; give a name"),
    "an account that is no text": (lambda: Provider("openai:x", account=5), "Provider.account: got 'int'; give a name"),
    "a prefill that is no bool": (lambda: Provider("openai:x", prefill="yes"), "Provider.prefill: got 'yes'; use True or False, or None: by the model's name"),
    "a total of one provider": (
        lambda: Provider("openai:x", timeouts=Timeouts(total=5.0)),
        "Provider.timeouts.total: got 5.0; it is the request's, over all providers: set it for all of them",
    ),
    "no model": (lambda: Provider(None), "Provider.model: got None; give a chat model or a spec"),
    "an empty name": (lambda: Provider("openai:x", name=""), "Provider.name: got ''"),
    "a fractional priority": (lambda: Provider("openai:x", priority=1.5), "Provider.priority: got 1.5"),
    "a negative weight": (lambda: Provider("openai:x", weight=-1), "Provider.weight: got -1"),
    "no latency": (lambda: Provider("openai:x", max_latency=0), "Provider.max_latency: got 0"),
    "a negative cost": (lambda: Provider("openai:x", cost_per_1k=-1), "Provider.cost_per_1k: got -1"),
    "no window": (lambda: Provider("openai:x", context_window=0), "Provider.context_window: got 0"),
    "limits of a wrong type": (lambda: Provider("openai:x", limits=5), "Provider.limits: got 5; give a RateLimits(...)"),
    "arguments for an instance": (
        lambda: Provider(scripted(), model_kwargs={"api_key": "sk-secret"}),
        "Provider.model_kwargs: got ['api_key']; only a spec",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_PARTS)
def test_bad_parts(name: str):
    """A nonsensical part is an error where it is made, in the same form."""
    make, message = BAD_PARTS[name]
    with pytest.raises(SettingsError) as caught:
        make()
    assert message in str(caught.value) and "sk-secret" not in str(caught.value)


def test_a_missing_package(monkeypatch: pytest.MonkeyPatch):
    """A spec whose package is not installed names the spec and what to install, and no extra that there is not."""
    monkeypatch.setitem(sys.modules, "langchain_groq", None)
    with pytest.raises(SettingsError) as caught:
        ResilientChatModel(providers=[scripted(), "groq:llama"])
    assert "providers[1]: got 'groq:llama'; its package is missing" in str(caught.value)
    assert "pip install langchain-groq" in str(caught.value) and "langchain-resilient[" not in str(caught.value)


def test_a_spec_without_langchain(monkeypatch: pytest.MonkeyPatch):
    """Without the package `langchain` a spec says so; an instance needs none."""
    monkeypatch.setitem(sys.modules, "langchain.chat_models", None)
    with pytest.raises(
        SettingsError, match=r"a spec needs the package `langchain`: pip install .langchain-resilient.openai."
    ):
        ResilientChatModel(providers=["openai:gpt-4.1"])
    assert resilient().invoke("hi").text == ANSWER


def test_a_client_that_cannot_be_made():
    """What the client says against its arguments is told, without the key among them."""
    bad = Provider("openai:x", model_kwargs={"api_key": "sk-secret", "temperature": "hot"})
    with pytest.raises(SettingsError) as caught:
        ResilientChatModel(providers=[bad])
    assert "providers[0]: got 'openai:x'" in str(caught.value) and "sk-secret" not in str(caught.value)
    with pytest.raises(SettingsError, match=r"providers\[0\]: got 'openai:x'; its client can't be made"):
        ResilientChatModel(providers=["openai:x"])  # no key anywhere


# ── Refused at once ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("way", WAYS)
async def test_a_prompt_beyond_the_limit_per_period(way: str):
    """A request that costs more than a limit allows per period is refused at once: waiting can't help."""
    inner = scripted()
    model = resilient(Provider(inner, limits=RateLimits(tpm=100)))
    error = await failure(model, way, "word " * 400)
    assert isinstance(error, RateLimitedError) and not error.is_retryable
    assert "costs more than its limit 'tpm' allows per period" in str(error) and inner.calls == []


@pytest.mark.parametrize("way", ["invoke", "ainvoke"])
async def test_max_pending(way: str):
    """Beyond `max_pending` a request is turned away at once, and the place is free again afterwards."""
    model: ResilientChatModel

    def ask_again(messages: list) -> str:
        try:
            model.invoke("inside")
        except OverloadedError as error:
            return str(error)
        return "answered"

    model = resilient(scripted("one", ask_again), max_pending=1)
    assert "1 requests are pending in this process (max_pending=1" in await ask(model, way)
    assert model._engine.policy.gate.pending == 0


@pytest.mark.parametrize("way", WAYS)
async def test_a_circuit_that_is_open(way: str):
    """One provider with an open circuit refuses with `CircuitOpenError`, caused by the provider's last error."""
    model = resilient(scripted("one", BusyError()), circuit=Circuit(failure_threshold=2), max_retries=0)
    for _ in range(2):
        assert isinstance(await failure(model, way), BusyError)
    error = await failure(model, way)
    assert isinstance(error, CircuitOpenError) and isinstance(error.__cause__, BusyError)
    assert 0 < error.retry_after <= 66  # recovery_timeout, and its tenth
    assert model.status()["scripted/one"]["circuit"] == "open"


# ── People ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_overrides():
    """forced_open refuses, metrics_only records without refusing, disabled does neither; cleared, the circuit rules."""
    first, second = scripted("one"), scripted("two", "Second.")
    model = resilient(first, second)
    model.override("scripted/one", "forced_open")
    assert model.status()["scripted/one"]["override"] == "forced_open"
    assert model.invoke("hi").text == "Second." and first.calls == []
    model.clear_override("scripted/one")
    assert model.invoke("hi").text == ANSWER and model.status()["scripted/one"]["override"] is None


@pytest.mark.parametrize(("mode", "failures"), [("disabled", 0), ("metrics_only", 2)])
def test_overrides_that_never_refuse(mode: str, failures: int):
    """`disabled` neither refuses nor records, `metrics_only` records but never refuses."""
    model = resilient(scripted("one", BusyError()), circuit=Circuit(failure_threshold=2), max_retries=0)
    model.override("scripted/one", mode)
    for _ in range(2):
        with pytest.raises(BusyError):
            model.invoke("hi")
    assert model.status()["scripted/one"]["failures_in_a_row"] == failures or failures
    assert (model.status()["scripted/one"]["circuit"] == "open") == (mode == "metrics_only")
    with pytest.raises(BusyError):
        model.invoke("hi")


def test_overrides_of_unknown_names():
    """An unknown provider or mode names the nearest right one."""
    model = resilient(scripted("one"), scripted("two"))
    with pytest.raises(SettingsError, match=r"provider: got 'scripted/on'; did you mean 'scripted/one'?"):
        model.override("scripted/on", "disabled")
    with pytest.raises(SettingsError, match=r"did you mean 'scripted/two'?"):
        model.clear_override("scripted/tow")
    with pytest.raises(SettingsError, match=r"override: got 'forced-open'; did you mean 'forced_open'?"):
        model.override("scripted/one", "forced-open")
    with pytest.raises(SettingsError, match=r"override: got None; one of: disabled, forced_open, metrics_only"):
        model.override("scripted/one", None)


def test_status_tells_latency_and_limits():
    """Status names each provider, with its circuit, latency in seconds and the free share of its limits."""
    model = resilient(Provider(scripted(), limits=RateLimits(rpm=60, burst=10)))
    model.invoke("hi")
    [(name, status)] = model.status().items()
    assert name == "scripted/one" and status["circuit"] == "closed" and 0 <= status["p50"] < 5
    assert status["limits_free"]["rpm"] == pytest.approx(0.9, abs=0.02) and status["running"] == 0


async def test_closing():
    """A model can be closed, twice, by hand or by `with`; another model of its namespace is not touched."""
    namespace = fresh()
    with resilient(namespace=namespace) as model:
        model.invoke("hi")
    model.close()
    model.close()
    async with resilient(namespace=namespace) as other:
        assert (await other.ainvoke("hi")).text == ANSWER
    await other.aclose()
    assert (await other.ainvoke("hi")).text == ANSWER


# ── Who is told ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_observers_hear_of_events():
    """A callable gets every event; one that raises is logged once and breaks nothing."""
    heard: list[Any] = []
    logger, lines = logging.getLogger("langchain_resilient"), []
    sink = logging.Handler()
    sink.emit = lambda record: lines.append(record.getMessage())
    logger.addHandler(sink)

    def broken(event: Any) -> None:
        message = "no"
        raise RuntimeError(message)

    model = resilient(observers=[broken, heard.append])
    model.invoke("hi")
    model.invoke("hi")
    logger.removeHandler(sink)
    assert [type(event) for event in heard] == [Watching, *(Admitted, Attempted, Decided) * 2]
    assert len([line for line in lines if "observer" in line and "failed" in line]) == 1


def test_prometheus_counts():
    """`observers=["prometheus"]` counts on the default registry, under the seed's names."""
    name, other = f"prom-{fresh()}", f"prom-{fresh()}"
    first = Provider(scripted("one", BusyError()), name=name)
    model = resilient(first, Provider(scripted("two"), name=other), observers=["prometheus"])
    assert REGISTRY.get_sample_value("circuit_breaker_state", {"provider": name}) == 0.0
    model.invoke("hi")
    labels = {"from_provider": name, "to_provider": other}
    assert REGISTRY.get_sample_value("fallback_total", labels) == 1.0
    assert REGISTRY.get_sample_value("llm_latency_seconds_count", {"provider": other}) == 1.0


def test_two_models_with_other_settings_warn_once_each():
    """A model that names a known provider with other settings warns; one with the same settings does not."""
    namespace = fresh()

    def make(threshold: int) -> ResilientChatModel:
        return resilient(scripted(), namespace=namespace, circuit=Circuit(failure_threshold=threshold))

    make(3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make(3)
    with pytest.warns(SettingsConflict, match="scripted/one") as caught:
        make(4)
    assert len(caught) == 1


def test_a_spec_whose_inner_retries_were_turned_on_again_is_warned_about():
    """By `model_kwargs`; a spec that says nothing of them has none and is not."""
    with pytest.warns(InnerRetriesWarning, match=r"ChatOpenAI\(max_retries=2\).*max_retries=0"):
        ResilientChatModel(providers=[Provider("openai:x", model_kwargs={"api_key": "sk-test", "max_retries": 2})])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ResilientChatModel(providers=[Provider("openai:x", model_kwargs={"api_key": "sk-test"})])


def test_inner_retries_warn():
    """A client that retries by itself gets one warning that says how to turn it off; a spec's never does."""
    with pytest.warns(InnerRetriesWarning, match=r"ChatOpenAI\(max_retries=2\).*max_retries=0") as caught:
        resilient(ChatOpenAI(model="x", api_key="x", max_retries=2))
    assert len(caught) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        spec = Provider("openai:x", model_kwargs={"api_key": "x"})
        assert resilient(spec)._engine.policy.targets[0].client.model.max_retries == 0


def test_retries_of_the_sdk_itself_warn():
    """A client made without `max_retries` retries as its SDK does by default, so it warns as well."""
    azure = AzureChatOpenAI(azure_deployment="p", azure_endpoint="https://x.test", api_version="1", api_key="x")
    for silent in (ChatOpenAI(model="x", api_key="x"), azure):
        with pytest.warns(InnerRetriesWarning, match=r"ChatOpenAI\(max_retries=2\).*max_retries=0") as caught:
            resilient(silent)
        assert len(caught) == 1


def test_warnings_point_at_the_users_line():
    """A warning names the line that made the model, however deep in the libraries it arose."""
    namespace = fresh()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        ResilientChatModel(providers=[ChatOpenAI(model="x", api_key="x")], namespace=namespace)
        ResilientChatModel(
            providers=[ChatOpenAI(model="x", api_key="x")], namespace=namespace, circuit=Circuit(window=9.0)
        )
    assert [item.category for item in caught] == [InnerRetriesWarning, InnerRetriesWarning, SettingsConflict]
    assert {item.filename for item in caught} == {__file__}


@pytest.mark.parametrize("way", WAYS)
async def test_settings_that_change_later_hold(way: str):
    """What is set on a model after it was made, or on a copy of it, holds from then on; nonsense is refused there too."""
    first, second = scripted("one"), scripted("two", "Second.")
    model = resilient(first)
    assert await ask(model, way) == ANSWER
    copy = model.model_copy(update={"providers": [second]})
    assert (await ask(copy, way), await ask(model, way)) == ("Second.", ANSWER)
    model.providers = [second]
    assert await ask(model, way) == "Second." and list(model.status()) == ["scripted/two"]
    with pytest.raises(SettingsError, match="temperature: got -1; use a number ≥ 0"):
        model.temperature = -1
    with pytest.raises(SettingsError, match="temperature: got -1; use a number ≥ 0"):
        model.model_copy(update={"temperature": -1})
    assert model.model_copy()._engine is model._engine


@pytest.mark.parametrize("way", WAYS)
async def test_arguments_of_a_call_that_are_no_numbers_are_the_providers_to_judge(way: str):
    """A `max_tokens` that is no whole number reaches the provider, and breaks nothing of ours."""
    assert await ask(resilient(), way, max_tokens="100") == ANSWER


@pytest.mark.parametrize("way", WAYS)
async def test_options_of_a_call_that_are_no_mapping(way: str):
    """A `configurable` that is no mapping is named, with the fix."""
    error = await failure(resilient(), way, config={"configurable": [1]})
    assert isinstance(error, SettingsError)
    assert str(error) == "configurable: got [1]; give a mapping, such as {'deadline': 5.0}"


def test_a_classifier_of_ones_own():
    """`classifier` is asked first; None leaves the error to ours."""
    from langchain_resilient import ErrorKind

    class OddError(Exception):
        pass

    def mine(error: BaseException) -> ErrorKind | None:
        return ErrorKind.CLIENT_ERROR if isinstance(error, OddError) else None

    second = scripted("two")
    with pytest.raises(OddError):
        resilient(scripted("one", OddError()), second, classifier=mine).invoke("hi")
    assert second.calls == []
    assert resilient(scripted("one", BusyError()), second, classifier=mine).invoke("hi").text == ANSWER


@pytest.mark.parametrize("junk", [RuntimeError("my bug"), 42, "no such kind"])
async def test_a_broken_classifier_replaces_nothing(junk: Any):
    """A classifier that raises or answers junk leaves the error to ours; the caller gets the provider's own, and no lease is lost."""

    def broken(error: BaseException) -> Any:
        if isinstance(junk, Exception):
            raise junk
        return junk

    model = resilient(scripted("one", BusyError()), classifier=broken)
    with capture_decisions() as decisions, pytest.raises(BusyError):
        await model.ainvoke("hi")
    assert model.status()["scripted/one"]["in_flight"] == 0 and len(decisions) == 1


def test_rates_refuse_together():
    """When all are refused by limits alone, the error is a `RateLimitedError` with the soonest time."""
    limits = RateLimits(rpm=1, burst=1, max_wait=0.0)
    model = resilient(Provider(scripted("one"), limits=limits), Provider(scripted("two"), limits=limits))
    assert [model.invoke("hi").text for _ in range(2)] == [ANSWER, ANSWER]
    with pytest.raises(RateLimitedError) as caught:
        model.invoke("hi")
    assert 50 < caught.value.retry_after <= 60 and not isinstance(caught.value, AllProvidersFailedError)


async def test_a_model_is_made_in_one_loop_and_used_in_another():
    """Nothing of a model belongs to a loop: it is made here and used in `asyncio.run` elsewhere."""
    model = resilient(ScriptedChatModel())
    answered = await asyncio.to_thread(lambda: asyncio.run(model.ainvoke("hi")))
    assert answered.text == "Hello."
