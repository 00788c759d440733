"""A deployment as the engine's target: the keys that LangChain's side uses too, and what LiteLLM's own words for limits and weights mean."""

import copy
from typing import Any

import pytest

from langchain_resilient import Price, RateLimits, Timeouts
from langchain_resilient.engine.naming import account_key, credential_hash, route_key
from litellm_hooks.deployments import Candidate, label, spelled, target_of, weights_of
from litellm_hooks.settings import ForDeployment, Settings


def target(params: dict[str, Any], settings: Settings | None = None, overrides: Any = None, **info: Any) -> Any:
    """The target for a deployment of these parameters."""
    deployment = {
        "model_name": "main",
        "litellm_params": {"model": "openai/gpt-4.1", **params},
        "model_info": {"id": "a", **info},
    }
    return target_of(
        Candidate("main", deployment, overrides or {}), settings or Settings(), rung=1, place=2, weight=3.0
    )


def test_keys_are_those_of_the_same_provider_in_langchain():
    """Route and account are made of provider, model, endpoint and credential as `naming` makes them of LangChain's clients."""
    made = target({"api_base": "https://example.org/v1/", "api_key": "k"})
    route = route_key("openai/gpt-4.1", ["https://example.org/v1"])
    assert (made.route, made.account) == (route, account_key(route, credential_hash(["k"], "default")))


def test_where_a_provider_is_at_home_it_is_one_provider():
    """OpenAI with and without its own address said is one route."""
    assert (
        target({}).route
        == target({"api_base": "https://api.openai.com/v1"}).route
        != target({"api_base": "http://x/v1"}).route
    )


def test_a_key_from_the_environment_is_the_same_credential(monkeypatch):
    """A key that LiteLLM reads from the provider's variable counts as if it were given."""
    given = target({"api_key": "from outside"})
    monkeypatch.setenv("OPENAI_API_KEY", "from outside")
    assert target({}).account == given.account != target({"api_key": "another"}).account


def test_the_credential_is_in_no_key():
    """A key's text can't be read from the names under which state is kept."""
    made = target({"api_key": "hunter2-s3cret"})
    assert "hunter2" not in made.route + made.account + made.name


def test_a_namespace_keeps_credentials_apart():
    """One credential in two namespaces has two accounts, as its hash is keyed by the namespace."""
    assert target({"api_key": "k"}, Settings(namespace="x")).account != target({"api_key": "k"}).account


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({"model": "openai/gpt-4.1"}, ("openai", "gpt-4.1")),
        ({"model": "gpt-4.1"}, ("openai", "gpt-4.1")),
        ({"model": "claude-sonnet-4-5"}, ("anthropic", "claude-sonnet-4-5")),
        ({"model": "gpt-4.1", "custom_llm_provider": "azure"}, ("azure", "gpt-4.1")),
        ({"model": "azure/mine", "custom_llm_provider": "azure"}, ("azure", "mine")),
        ({"model": "unheard-of"}, ("", "unheard-of")),
    ],
)
def test_provider_and_model_are_as_litellm_spells_them(params: dict[str, str], expected: tuple[str, str]):
    """The provider is the one that LiteLLM would ask; a model that it can't place has none, and raises nothing."""
    assert spelled(params) == expected


def test_two_deployments_of_one_model_have_two_names():
    """The label holds the deployment's id, shortened, as LiteLLM makes ids of 64 letters."""
    assert label("openai/gpt-4.1", "a" * 64) == "openai/gpt-4.1#" + "a" * 12
    assert label("openai/gpt-4.1", "") == "openai/gpt-4.1"


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ([{}, {}], [1.0, 1.0]),
        ([{"weight": 3}, {"weight": 1}], [3.0, 1.0]),
        ([{"rpm": 30}, {"rpm": 10}], [30.0, 10.0]),
        ([{"tpm": 30}, {}], [30.0, 0.0]),
        ([{"rpm": 5, "tpm": 1}, {"tpm": 99}], [5.0, 0.0]),
        ([{"weight": 1, "rpm": 9}, {"rpm": 90}], [1.0, 0.0]),
    ],
)
def test_weights_are_simple_shuffle_s(params: list[dict[str, int]], expected: list[float]):
    """The first of weight, rpm and tpm that any of them has weighs all, and who lacks it weighs nothing."""
    assert weights_of([{"litellm_params": one} for one in params]) == expected


def test_limits_are_litellm_s_unless_ours_are_set():
    """`rpm`, `tpm` and `max_parallel_requests` are the limits; what is set for the deployment replaces all of them."""
    params = {"rpm": 5, "tpm": 700, "max_parallel_requests": 2}
    assert target(params).limits == RateLimits(rpm=5, tpm=700, concurrency=2)
    own = Settings(deployments={"a": ForDeployment(limits=RateLimits(rpm=9))})
    assert target(params, own).limits == RateLimits(rpm=9)


def test_the_nearest_price_counts():
    """Ours goes before the deployment's, that before `model_info`'s, and that before LiteLLM's table."""
    params, info = (
        {"input_cost_per_token": 1e-6, "output_cost_per_token": 2e-6},
        {"input_cost_per_token": 3e-6, "output_cost_per_token": 4e-6},
    )
    own = Settings(deployments={"main": ForDeployment(price=Price(input=9, output=9))})
    assert target(params, own, **info).price == Price(input=9, output=9)
    assert target(params, **info).price == Price(input=1, output=2)
    assert target({}, **info).price == Price(input=3, output=4)
    assert target({}).price == Price(input=2, output=8)
    assert target({"model": "openai/unheard-of"}).price is None


def test_the_context_window_is_known():
    """`model_info` goes before LiteLLM's table; a model that neither knows has none."""
    assert target({}, max_input_tokens=10).context_window == 10
    assert target({}).context_window > 1_000_000
    assert target({"model": "openai/unheard-of"}).context_window is None


def test_limits_of_time_are_the_deployment_s_own_else_all_s():
    """Timeouts set for a deployment replace those that are set for all."""
    settings = Settings(timeouts=Timeouts(idle=5.0), deployments={"b": ForDeployment(timeouts=Timeouts(idle=9.0))})
    assert target({}, settings).timeouts.idle == 5.0
    assert target({}, settings, id="b").timeouts.idle == 9.0


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({"model": "anthropic/claude-sonnet-4-5"}, True),
        ({"model": "bedrock/anthropic.claude-sonnet-4-5-20250929-v1:0"}, True),
        ({"model": "anthropic/claude-opus-4-6"}, False),
        ({"model": "anthropic/claude-sonnet-4-5", "thinking": {"type": "enabled"}}, False),
        ({"model": "openai/gpt-4.1"}, False),
    ],
)
def test_who_goes_on_with_its_own_words(params: dict[str, Any], expected: bool):
    """Only Claude up to 4.5, where it does not think, is given a begun answer as its own last message."""
    assert target(params).takes_prefill is expected


def test_a_model_behind_another_name_is_known_by_its_base():
    """`base_model` says whether a model thinks first, where the deployment's name does not."""
    assert target({"model": "azure/mine"}, base_model="o3").reasons
    assert not target({"model": "azure/mine"}).reasons


def test_the_deployment_is_left_as_it_is():
    """What the Router hands out is read and not written."""
    deployment = {"litellm_params": {"model": "gpt-4.1", "rpm": 5}, "model_info": {"id": "a"}}
    before = copy.deepcopy(deployment)
    made = target_of(Candidate("main", deployment, {}), Settings(), rung=1, place=2, weight=3.0)
    assert deployment == before
    assert made.client.deployment is deployment
    assert (made.rung, made.priority, made.weight) == (1, 2, 3.0)


def test_a_fallback_entry_s_own_account_is_another():
    """What a fallback entry says beside its group of endpoint and credential makes route and account, under the same name and without its text."""
    plain, keyed, moved = [
        target({"api_key": "k"}, overrides=own)
        for own in ({"temperature": 0.0}, {"api_key": "hunter2"}, {"api_base": "http://x/v1"})
    ]
    assert plain.account == target({"api_key": "k"}).account
    assert keyed.route == plain.route != moved.route
    assert keyed.account == target({"api_key": "hunter2"}).account != plain.account
    assert keyed.name == moved.name == plain.name
    assert "hunter2" not in keyed.account


@pytest.mark.parametrize("name", ["rpm", "tpm", "max_parallel_requests"])
@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("5", 5),
        (5.0, 5),
        ("1e3", 1000),
        (0, None),
        (-1, None),
        ("0", None),
        (2.5, None),
        ("many", None),
        (True, None),
        ([5], None),
        (float("inf"), None),
    ],
)
def test_a_limit_that_makes_no_sense_is_none(name: str, given: Any, expected: int | None):
    """Whole numbers count, as text too; all else is no limit of ours, and fails nothing."""
    field = {"max_parallel_requests": "concurrency"}.get(name, name)
    assert target({name: given}).limits == RateLimits(**{field: expected})


@pytest.mark.parametrize(
    ("paid", "got", "expected"),
    [
        ("1e-6", "2e-6", Price(input=1, output=2)),
        (0, 0, Price(input=0, output=0)),
        (-1, 0, None),
        ("free", 0, None),
        (float("nan"), 0, None),
    ],
)
def test_a_price_that_makes_no_sense_is_none(paid: Any, got: Any, expected: Price | None):
    """Numbers ≥ 0 count, as text too; all else is no price of ours."""
    params = {"model": "openai/unheard-of", "input_cost_per_token": paid, "output_cost_per_token": got}
    assert target(params).price == expected


@pytest.mark.parametrize(("given", "expected"), [("8192", 8192), (0, None), ("big", None), (-5, None)])
def test_a_window_that_makes_no_sense_is_none(given: Any, expected: int | None):
    """A context window may be written as text; nonsense is none."""
    assert target({"model": "openai/unheard-of"}, max_input_tokens=given).context_window == expected


@pytest.mark.parametrize("given", [["5", 10], ["many", 10], [-3, 10], [float("nan"), 10]])
def test_a_weight_that_makes_no_sense_weighs_nothing(given: list[Any]):
    """Weights may be written as text; nonsense weighs nothing."""
    first = 5.0 if given[0] == "5" else 0.0
    assert weights_of([{"litellm_params": {"rpm": one}} for one in given]) == [first, 10.0]


def test_nonsense_is_told_once(caplog, namespace):
    """The log names deployment, field and what was given, once, however often a target is made of it."""
    for _ in range(2):
        target({"rpm": 0, "tpm": "many"}, id=namespace)
    assert [record.getMessage() for record in caplog.records] == [
        f"deployment {namespace}: rpm: got 0, which counts as none; use a whole number ≥ 1",
        f"deployment {namespace}: tpm: got 'many', which counts as none; use a whole number ≥ 1",
    ]
    assert {record.name for record in caplog.records} == {"langchain_resilient"}
