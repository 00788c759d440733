"""From a `Provider` to a target: its name, what it shares with whom, and what is asked of its client."""

import threading
from typing import Any

import pytest
from langchain_anthropic import ChatAnthropic
from langchain_core.language_models import BaseChatModel
from langchain_core.language_models.base import LangSmithParams
from langchain_core.language_models.fake_chat_models import FakeListChatModel
from langchain_ollama import ChatOllama
from langchain_openai import AzureChatOpenAI, ChatOpenAI

from langchain_resilient import Circuit, Provider, RateLimits, ResilientChatModel, Retry, Timeouts, capture_decisions
from langchain_resilient.engine.policy import Target
from langchain_resilient.testing import Fault, FaultServer, ScriptedChatModel
from tests.clients import ask, failure, fresh, instance

KEY = "sk-very-secret-0123456789"


class Sold(ScriptedChatModel):
    """A model that says which provider it is of."""

    word: str = "scripted"

    def _get_ls_params(self, stop: Any = None, **kwargs: Any) -> LangSmithParams:
        return LangSmithParams(ls_provider=self.word, ls_model_name=self.model_name, ls_model_type="chat")


def targets(*providers: Any, **settings: Any) -> tuple[Target, ...]:
    """The targets of a model over these."""
    model = ResilientChatModel(providers=list(providers), **({"namespace": fresh()} | settings))
    return model._engine.policy.targets


def openai(key: str = KEY, **settings: Any) -> ChatOpenAI:
    """A real client that is never called."""
    return ChatOpenAI(**({"model": "gpt-4.1", "api_key": key, "max_retries": 0} | settings))


# ── Names ────────────────────────────────────────────────────────────────────────────────────────────────────────────

SPELLINGS = [
    ("openai", "openai"),
    ("anthropic", "anthropic"),
    ("ollama", "ollama"),
    ("google_genai", "gemini"),
    ("google_vertexai", "vertex_ai"),
    ("azure_openai", "azure"),
    ("mistralai", "mistral"),
    ("amazon_bedrock", "bedrock"),
    ("together", "together_ai"),
    ("fireworks", "fireworks_ai"),
    ("nvidia", "nvidia_nim"),
    ("ibm", "watsonx"),
    ("deepseek", "deepseek"),
]


@pytest.mark.parametrize(("word", "spelled"), SPELLINGS)
def test_names_are_in_litellms_spelling(word: str, spelled: str):
    """LangChain's word for a provider becomes LiteLLM's, so that both packages speak of one provider."""
    assert targets(Sold(word=word, model_name="m"))[0].name == f"{spelled}/m"


def test_names_from_specs_and_instances_agree():
    """A spec and the instance that it stands for have one name, and one circuit."""
    [spec] = targets(Provider("openai:gpt-4.1", model_kwargs={"api_key": KEY}))
    [made] = targets(openai())
    assert spec.name == made.name == "openai/gpt-4.1"
    assert spec.route == made.route


def test_names_of_real_clients():
    """Each partner package's client says who it is."""
    azure = AzureChatOpenAI(
        azure_deployment="prod", model="gpt-4.1", azure_endpoint="https://x.test", api_version="1", api_key=KEY, max_retries=0
    )  # fmt: skip
    claude = ChatAnthropic(model="claude-x", api_key=KEY, max_retries=0)
    found = targets(openai(), claude, ChatOllama(model="llama3.1"), azure)
    assert [target.name for target in found] == [
        "openai/gpt-4.1",
        "anthropic/claude-x",
        "ollama/llama3.1",
        "azure/gpt-4.1",
    ]


def test_an_explicit_name_wins():
    """`name=` is the label, and tells two of one model apart."""
    found = targets(Provider(openai(), name="east"), Provider(openai(), name="west"))
    assert [target.name for target in found] == ["east", "west"] and found[0].route != found[1].route


def test_a_nameless_model_is_never_shared():
    """A model that doesn't say which it is goes by its class, and shares its state with nobody."""
    [one], [two] = targets(FakeListChatModel(responses=["x"])), targets(FakeListChatModel(responses=["x"]))
    assert one.name.startswith("FakeListChatModel") and two.name.startswith("FakeListChatModel")
    assert one.route != two.route and one.account != two.account


# ── What is shared ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_state_goes_by_endpoint_and_credential():
    """Circuits are kept by name and endpoint, blocks and limits by the credential as well; `account=` overrides it."""
    [one] = targets(openai(base_url="https://a.test/v1"), namespace="n")
    [same] = targets(openai(base_url="https://a.test/v1/"), namespace="n")
    [elsewhere] = targets(openai(base_url="https://b.test/v1"), namespace="n")
    [other] = targets(openai("sk-other", base_url="https://a.test/v1"), namespace="n")
    assert (one.route, one.account) == (same.route, same.account)
    assert one.route != elsewhere.route and one.account != elsewhere.account
    assert one.route == other.route and one.account != other.account
    [mine] = targets(Provider(openai("sk-1"), account="team"), namespace="n")
    [yours] = targets(Provider(openai("sk-2"), account="team"), namespace="n")
    assert mine.account == yours.account


def test_keys_hold_no_credential():
    """Neither a key nor what a URL hides (user, password, query) is in a name, a route or an account."""
    url = f"https://user:{KEY}@a.test:8443/v1?token={KEY}"
    [target] = targets(openai(base_url=url))
    for text in (target.name, target.route, target.account):
        assert KEY not in text and "user" not in text and "token" not in text
    assert target.route == "openai/gpt-4.1@a.test:8443/v1"
    [in_team] = targets(Provider(openai(), account=KEY))
    assert KEY not in in_team.account


async def test_another_endpoint_has_its_own_circuit():
    """One model at two endpoints: an outage of one says nothing of the other, even under one name."""
    with FaultServer() as dead, FaultServer() as alive:
        dead.always(Fault.status(503))
        namespace = fresh()
        settings = {"namespace": namespace, "circuit": Circuit(failure_threshold=2), "max_retries": 0}
        down = ResilientChatModel(providers=[instance(dead, "openai")], **settings)
        up = ResilientChatModel(providers=[instance(alive, "openai")], **settings)
        for _ in range(2):
            assert await failure(down, "ainvoke") is not None
        assert down.status()["openai/one"]["circuit"] == "open"
        assert up.status()["openai/one"]["circuit"] == "closed"
        assert await ask(up, "ainvoke") == "Hello from the fault server."


@pytest.mark.parametrize("wire", ["openai", "anthropic"])
async def test_a_bad_key_leaves_a_good_key_alone(wire: str):
    """At one endpoint, a refused key is left alone, and a model with a good key goes on: nothing of it is shared but the circuit."""
    with FaultServer() as server:
        namespace = fresh()

        def model(key: str) -> ResilientChatModel:
            return ResilientChatModel(
                providers=[instance(server, wire, api_key=key)], namespace=namespace, retry=Retry(base_delay=0.0)
            )

        bad, good = model("sk-bad"), model("sk-good")
        name = f"{wire}/one"
        assert await ask(good, "ainvoke") == "Hello from the fault server."
        server.schedule(Fault.status(401))
        assert await failure(bad, "ainvoke") is not None
        assert bad.status()[name]["blocked"] == "auth" and good.status()[name]["blocked"] is None
        before = server.count
        refused = await failure(bad, "invoke")
        assert type(refused).__name__ == "CircuitOpenError" and server.count == before
        assert await ask(good, "invoke") == "Hello from the fault server."
        sent = [request.headers.get("authorization") or request.headers["x-api-key"] for request in server.requests]
        assert [key.removeprefix("Bearer ") for key in sent] == ["sk-good", "sk-bad", "sk-good"]
        server.schedule(Fault.quota_exhausted())
        assert await failure(good, "ainvoke") is not None
        assert good.status()[name]["blocked"] == "quota_exhausted" and bad.status()[name]["blocked"] == "auth"


# ── Settings and clients ─────────────────────────────────────────────────────────────────────────────────────────────


def test_priority_orders_and_the_list_is_the_default():
    """Lower priorities come first; without any, the place in the list is the priority."""
    names = [
        target.name
        for target in targets(
            Provider(ScriptedChatModel(model_name="a")),
            Provider(ScriptedChatModel(model_name="b"), priority=-1),
            ScriptedChatModel(model_name="c"),
        )
    ]
    assert names == ["scripted/b", "scripted/a", "scripted/c"]


def test_a_providers_own_settings_win():
    """A provider's circuit, timeouts, limits and price are its own; the rest is the model's."""
    own = Provider(
        ScriptedChatModel(model_name="a"),
        circuit=Circuit(failure_threshold=3),
        timeouts=Timeouts(idle=3.0),
        limits=RateLimits(rpm=7),
        cost_per_1k=0.03,
    )
    first, second = targets(own, ScriptedChatModel(model_name="b"), circuit=Circuit(failure_threshold=9))
    assert (first.circuit.failure_threshold, first.timeouts.idle, first.limits.rpm) == (3, 3.0, 7)
    assert (first.price.input, first.price.output) == (30.0, 30.0)  # dollars a million
    assert (second.circuit.failure_threshold, second.timeouts.idle, second.limits.rpm) == (9, 15.0, None)


@pytest.mark.parametrize(
    ("spec", "field", "limit"),
    [("openai:gpt-4.1", "request_timeout", (5.0, 42.0)), ("anthropic:claude-x", "default_request_timeout", 42.0)],
)
def test_specs_get_our_limits_and_no_retries(spec: str, field: str, limit: Any):
    """What is made from a spec has its client's retries off and our limits, so that an abandoned thread ends some day."""
    [target] = targets(Provider(spec, model_kwargs={"api_key": KEY}), timeouts=Timeouts(response=42.0))
    assert getattr(target.client.model, field) == limit and target.client.model.max_retries == 0
    assert target.client.gives_up_after is None  # each byte starts its limit anew: it is no limit on the whole


def test_an_ollama_spec_gets_our_limits():
    """Ollama's client takes them through `client_kwargs`, and has no retries; further ones of the user stay."""
    given = {"client_kwargs": {"headers": {"x": "1"}}}
    [target] = targets(Provider("ollama:llama3.1", model_kwargs=given), timeouts=Timeouts(response=42.0))
    assert target.client.model.client_kwargs == {"timeout": (5.0, 42.0), "headers": {"x": "1"}}
    assert target.client.streams_inside


def test_what_the_user_sets_on_a_spec_stays():
    """An explicit `timeout` or `max_retries` in `model_kwargs` is the user's word."""
    kwargs = {"api_key": KEY, "timeout": 3.0, "max_retries": 1}
    [target] = targets(Provider("openai:gpt-4.1", model_kwargs=kwargs))
    assert (target.client.model.request_timeout, target.client.model.max_retries) == (3.0, 1)


REASONING = [
    ("o3", True),
    ("o4-mini", True),
    ("gpt-5", True),
    ("gpt-5-chat-latest", False),
    ("gpt-4.1", False),
    ("gpt-4o", False),
    ("deepseek-r1:7b", True),
    ("deepseek-reasoner", True),
    ("deepseek-chat", False),
    ("qwq:32b", True),
    ("gemini-2.5-pro", True),
    ("gemini-2.0-flash", False),
    ("kimi-k2-thinking", True),
    ("llama3.1", False),
    ("openai/o3-mini", True),
]


@pytest.mark.parametrize(("name", "reasons"), REASONING)
def test_models_that_reason_get_longer_limits(name: str, reasons: bool):
    """A model that thinks before it speaks, by its name, has 180 s to its first token; others have 12."""
    [target] = targets(ScriptedChatModel(model_name=name))
    assert target.reasons == reasons and target.first_token == (180.0 if reasons else 12.0)


def test_models_that_are_told_to_reason():
    """Thinking that was switched on counts, whatever the name."""
    thinking = {"type": "enabled", "budget_tokens": 1024}
    claude = ChatAnthropic(model="claude-x", api_key=KEY, max_retries=0, thinking=thinking, max_tokens=2048)
    plain = ChatAnthropic(model="claude-y", api_key=KEY, max_retries=0)
    effort = openai(reasoning_effort="high")
    none = openai(model="gpt-4.2", reasoning_effort="none")
    assert [target.reasons for target in targets(claude, plain, effort, none)] == [True, False, True, False]


def test_the_wires_that_always_finish():
    """Streams of the known wires end with a finish reason; of others that has to be seen first."""
    known = targets(openai(), ChatOllama(model="x"), Sold(word="google_genai", model_name="g"))
    assert all(target.sends_finish_reason for target in known)
    assert not targets(ScriptedChatModel())[0].sends_finish_reason


def test_context_windows_come_from_the_profile():
    """The window that a provider names wins over its profile's."""
    model = ScriptedChatModel(profile={"max_input_tokens": 1000})
    assert targets(model)[0].context_window == 1000
    assert targets(Provider(model, context_window=500))[0].context_window == 500


class Minimal(BaseChatModel):
    """The least that a chat model may be: without a run manager in either method."""

    def _generate(self, messages: Any, stop: Any = None, **kwargs: Any) -> Any:
        return FakeListChatModel(responses=[f"least {sorted(kwargs)}"])._generate(messages)

    async def _agenerate(self, messages: Any, stop: Any = None, **kwargs: Any) -> Any:
        return self._generate(messages, stop, **kwargs)

    @property
    def _llm_type(self) -> str:
        return "minimal"


async def test_the_least_model_works():
    """A model without streams, run manager or parameters is called as it wants to be, standard parameters with each call."""
    model = ResilientChatModel(providers=[Minimal()], namespace=fresh(), temperature=0.5)
    [target] = model._engine.policy.targets
    assert not target.client.streams
    assert [await ask(model, way) for way in ("invoke", "ainvoke", "stream", "astream")] == [
        "least ['temperature']"
    ] * 4


@pytest.mark.parametrize("limit", [None, 30.0])
def test_a_client_that_keeps_no_time_is_given_up_on(limit: float | None):
    """A sync call to a client without a limit of its own, or with a longer one than ours, ends at our limit all the same."""
    release = threading.Event()

    def hang(messages: list) -> str:
        release.wait(10)
        return "late"

    silent = ScriptedChatModel(script=[hang], model_name="one", total_timeout=limit)
    model = ResilientChatModel(
        providers=[silent, ScriptedChatModel(model_name="two")], namespace=fresh(), timeouts=Timeouts(response=0.1)
    )
    with capture_decisions() as decisions:
        assert model.invoke("hi").text == "Hello."
    release.set()
    assert [(item.kind, item.limit) for item in decisions[0].attempts] == [("timeout", "response"), ("ok", None)]
