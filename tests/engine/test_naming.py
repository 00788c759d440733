"""The keys of a provider's state."""

import pytest

from langchain_resilient.engine.naming import (
    account_key,
    continues_its_own,
    credential_hash,
    plain_endpoint,
    route_key,
    thinks_first,
)


@pytest.mark.parametrize(
    ("given", "plain"),
    [
        ("https://user:secret@api.example.com:8443/v1/?key=secret#top", "api.example.com:8443/v1"),
        ("http://127.0.0.1:4000/v1/", "127.0.0.1:4000/v1"),
        ("eu-west-1", "eu-west-1"),
    ],
)
def test_an_endpoint_hides_what_a_url_may_hide(given, plain):
    """No scheme, user, password or query; what is no URL stays."""
    assert plain_endpoint(given) == plain


def test_home_is_the_same_whether_it_is_said_or_not():
    """One client fills in its default address, another does not: both mean one provider."""
    assert route_key("anthropic/claude-sonnet-4-5", ["https://api.anthropic.com"]) == route_key(
        "anthropic/claude-sonnet-4-5", []
    )
    assert route_key("openai/gpt-4.1", ["https://api.openai.com/v1/"]) == "openai/gpt-4.1@"
    assert route_key("openai/gpt-4.1", ["http://proxy:4000/v1", "eu"]) == "openai/gpt-4.1@proxy:4000/v1,eu"


def test_a_credential_is_hashed_by_its_values_alone():
    """What a library calls a key does not matter, nor does the order; the namespace keys the hash; nothing gives nothing."""
    assert credential_hash(["a", "b"], "ns") == credential_hash({"b", "a"}, "ns") != credential_hash(["a"], "ns")
    assert credential_hash(["a"], "ns") != credential_hash(["a"], "other")
    assert credential_hash([], "ns") == ""
    assert "secret" not in account_key("r@", credential_hash(["secret"], "ns"))


@pytest.mark.parametrize(
    ("model", "thinks"), [("o3", True), ("gpt-5-chat", False), ("gpt-4.1", False), ("deepseek-r1", True)]
)
def test_models_that_think_first_are_known_by_name(model, thinks):
    """Their default limits are longer."""
    assert thinks_first(model) is thinks


@pytest.mark.parametrize(
    ("model", "continues"),
    [("claude-sonnet-4-5", True), ("claude-3-5-haiku-20241022", True), ("claude-opus-4-6", False), ("gpt-4.1", False)],
)
def test_claudes_up_to_4_5_go_on_with_their_own_words(model, continues):
    """Later ones, and others, answer 400 or begin anew."""
    assert continues_its_own(model) is continues
