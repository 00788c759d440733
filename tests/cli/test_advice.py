"""What is valid and makes little sense is told, and what makes sense is not."""

import pytest

from langchain_resilient import Circuit, Provider, RateLimits, ResilientChatModel, Retry, Timeouts
from langchain_resilient.cli.advice import advice
from langchain_resilient.cli.sources import policy_of
from langchain_resilient.testing import ScriptedChatModel
from tests.clients import fresh, scripted


def said(*providers: Provider, **settings) -> list[str]:
    """The advice on two providers, the first with these settings."""
    return advice(policy_of(ResilientChatModel(providers=list(providers), namespace=fresh(), **settings)))


def two(first: dict | None = None, **settings) -> list[str]:
    """The advice on two providers, the first with settings of its own."""
    return said(Provider(scripted("a"), name="a", **(first or {})), Provider(scripted("b"), name="b"), **settings)


def test_sensible_settings_need_no_advice():
    """The defaults, and settings that fit together, are silent."""
    assert two() == []
    assert (
        two(
            {"limits": RateLimits(rpm=60, burst=10, on_limit="wait"), "max_latency": 5.0, "weight": 2.0},
            routing="weighted",
        )
        == []
    )


CASES = {
    "a: silence may last 12 s (timeouts.first_token)": ({}, {"timeouts": Timeouts(total=10.0)}),
    "a: an unstreamed answer may take 60 s": ({}, {"timeouts": Timeouts(total=30.0)}),
    "a: max_latency 70 s is never reached": ({"max_latency": 70.0}, {}),
    "a: circuit.slow_first_token 90 s is never reached": ({"circuit": Circuit(slow_first_token=90.0)}, {}),
    "a: a burst of 100 is more than its 60 requests a minute": ({"limits": RateLimits(rpm=60, burst=100)}, {}),
    'a: on_limit "wait" has no limit to act on': ({"limits": RateLimits(on_limit="wait")}, {}),
    "a: max_wait 20 min is longer than a request may take": ({"limits": RateLimits(rpm=1, max_wait=1200.0)}, {}),
    "a: circuit.recovery_growth has no room to grow": (
        {"circuit": Circuit(recovery_growth=2.0, recovery_cap=30.0)},
        {},
    ),
    "a: circuit.window 5 s is shorter than a silent call": ({"circuit": Circuit(window=5.0)}, {}),
    "retry.base_delay 90 s is cut to max_delay 60 s": ({}, {"retry": Retry(base_delay=90.0)}),
    "retry.max_retry_after 90 s is above max_delay": ({}, {"retry": Retry(max_retry_after=90.0)}),
    'routing "cost" takes b for free': ({"cost_per_1k": 0.1}, {"routing": "cost"}),
    'routing "weighted" spreads evenly': ({}, {"routing": "weighted"}),
    "weights are not looked at": ({"weight": 3.0}, {}),
}


@pytest.mark.parametrize("begins", CASES)
def test_settings_that_cancel_each_other_out_are_told(begins: str):
    """Each rule speaks of its own settings, names the provider and nothing else."""
    first, settings = CASES[begins]
    (sentence,) = two(first, **settings)
    assert sentence.startswith(begins)


def test_a_single_provider_has_nobody_behind_it():
    """One provider is valid, and pointed out."""
    assert said(Provider(scripted("a"), name="a")) == ["a is the only provider: when it fails, nobody else answers"]


def test_providers_on_one_machine_fail_together():
    """When all are at one address its outage is everybody's."""

    class Placed(ScriptedChatModel):
        base_url: str

    def placed(*hosts: str) -> list[str]:
        models = [
            Provider(Placed(base_url=f"https://{host}/v1"), name=host + str(place)) for place, host in enumerate(hosts)
        ]
        return said(*models)

    assert placed("x.test", "x.test") == ["x.test0 and x.test1 are all at x.test: an outage there is everybody's"]
    assert placed("x.test", "y.test") == []


@pytest.mark.parametrize(("retries", "warned"), [(0, False), (2, True), (None, False)])
def test_inner_retries_multiply(retries, warned: bool):
    """A client that retries by itself is told about, even one that was made from a spec."""

    class Retrying(ScriptedChatModel):
        max_retries: int | None = None

    providers = [Provider(Retrying(max_retries=0), name="a"), Provider(scripted("b"), name="b")]
    policy = policy_of(ResilientChatModel(providers=providers, namespace=fresh()))
    policy.targets[0].client.model.max_retries = retries
    assert [sentence.startswith("a: its client retries 2 times") for sentence in advice(policy)] == [True] * warned
