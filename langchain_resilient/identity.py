"""Who a provider is: its name, where it is, whose credential it uses, what it can do.

Rules of this file: what partner packages call things is data, in the tables; the keys are made in `engine/naming`, of what is read here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from hashlib import blake2b
from itertools import count
from typing import Any

from langchain_core.language_models import BaseChatModel
from pydantic import BaseModel, SecretStr

from langchain_resilient.config import Provider
from langchain_resilient.engine.naming import (
    account_key,
    continues_its_own,
    credential_hash,
    plain_endpoint,
    route_key,
    thinks_first,
)
from langchain_resilient.engine.policy import Target

LITELLM_NAMES = {
    "google_genai": "gemini", "google_vertexai": "vertex_ai", "google_anthropic_vertex": "vertex_ai", "azure_openai": "azure",
    "mistralai": "mistral", "amazon_bedrock": "bedrock", "bedrock_converse": "bedrock", "anthropic_bedrock": "bedrock",
    "together": "together_ai", "fireworks": "fireworks_ai", "nvidia": "nvidia_nim", "ibm": "watsonx", "meta": "meta_llama",
}  # fmt: skip
"""LangChain's word for a provider, in LiteLLM's spelling, where the two differ."""

ENDPOINTS = (
    "openai_api_base",
    "azure_endpoint",
    "anthropic_api_url",
    "base_url",
    "endpoint_url",
    "region_name",
    "location",
)

CLAUDES_HOSTS = ("anthropic", "bedrock", "google_anthropic")
"""LangChain's words for who serves Claude by Anthropic's own API begin so."""
_UNNAMED = count(1)


def word_of(model: BaseChatModel) -> str:
    """LangChain's word for its provider; "" if it has none."""
    return str(model._get_ls_params().get("ls_provider") or "").lower()  # the one place where partner packages say it


def name_of(model: BaseChatModel, word: str, given: Any) -> str:
    """Its "provider/model" as LiteLLM spells it, from the spec it was given as or from what it says of itself; else its class."""
    named = given.partition(":")[2] if isinstance(given, str) else model._get_ls_params().get("ls_model_name")
    if not word or not named:
        return type(model).__name__
    return spelled(word, named)


def spelled(word: str, model: str) -> str:
    """A model's "provider/model" as LiteLLM spells it, by LangChain's word for its provider."""
    return f"{LITELLM_NAMES.get(word, word)}/{model}"


def route_of(provider: Provider, model: BaseChatModel, name: str) -> str:
    """The key of what all credentials share; nobody else's where the name does not say which model it is."""
    return route_key(name, _endpoints(model)) if is_named(provider, model) else f"{name}#{next(_UNNAMED)}"


def is_named(provider: Provider, model: BaseChatModel) -> bool:
    """Whether its name says which model it is; one that doesn't is never shared."""
    return (
        provider.name is not None
        or isinstance(provider.model, str)
        or bool(model._get_ls_params().get("ls_model_name"))
    )


def endpoint_of(model: BaseChatModel) -> str:
    """Where it is, without what a URL may hide; "" where it does not say."""
    return ",".join(map(plain_endpoint, _endpoints(model)))


def _endpoints(model: BaseChatModel) -> Iterator[str]:
    for name in ENDPOINTS:
        value = getattr(model, name, None)
        if isinstance(value, str) and value:
            yield value


def account_of(provider: Provider, model: BaseChatModel, route: str, namespace: str) -> str:
    """The key of what belongs to its credential."""
    return account_key(route, credential_of(provider, model, namespace))


def credential_of(provider: Provider, model: BaseChatModel, namespace: str) -> str:
    """A short keyed hash of the account or of every secret the model holds; "" without any."""
    if provider.account is not None:
        return credential_hash([f"account={provider.account}"], namespace)
    values = (getattr(model, name, None) for name in type(model).model_fields)
    told = {value.get_secret_value() for value in values if isinstance(value, SecretStr)}
    return credential_hash(told - {""}, namespace)


def profile_of(model: BaseChatModel) -> Mapping[str, Any]:
    """What LangChain knows of the model's abilities; empty where it knows nothing."""
    return getattr(model, "profile", None) or {}


def reasons(model: BaseChatModel) -> bool:
    """Whether it thinks before it speaks: because it was told to, or always does."""
    thinking = getattr(model, "thinking", None)
    if isinstance(thinking, Mapping) and thinking.get("type") not in {None, "disabled"}:
        return True
    effort = getattr(model, "reasoning_effort", None)
    if effort not in {None, "none"} or getattr(model, "reasoning", None):
        return True
    return thinks_first(str(model._get_ls_params().get("ls_model_name") or ""))


def takes_prefill(word: str, model: BaseChatModel) -> bool:
    """Whether a provider goes on with a begun answer: by its name, of those whose API promises it and that do not think first."""
    thinking = getattr(model, "thinking", None) or {}
    if not word.startswith(CLAUDES_HOSTS) or thinking.get("type", "disabled") != "disabled":
        return False
    return continues_its_own(str(model._get_ls_params().get("ls_model_name") or ""))


def common_profile(profiles: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What holds whoever answers: the least of each limit, and only what all can do."""
    shared = set(profiles[0]).intersection(*profiles[1:])
    common: dict[str, Any] = {}
    for key in shared:
        values = [profile[key] for profile in profiles]
        if all(isinstance(value, bool) for value in values):
            common[key] = all(values)
        elif all(isinstance(value, int) for value in values):
            common[key] = min(values)
        elif values.count(values[0]) == len(values):
            common[key] = values[0]
    return common


def digest(target: Target) -> str:
    """A short digest of a provider's configuration, credentials left out."""
    model = target.client.model
    simple = {
        name: value
        for name in sorted(type(model).model_fields)
        if not isinstance(value := getattr(model, name, None), SecretStr | BaseModel)
    }
    told = f"{target.name} {type(model).__module__}.{type(model).__name__} {_plain(simple)} {_plain(dict(target.client.call_kwargs))}"
    return blake2b(told.encode(), digest_size=8).hexdigest()


def _plain(value: Any) -> str:
    """A representation without addresses in memory."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_plain(value[key])}" for key in sorted(value, key=str)) + "}"
    if isinstance(value, list | tuple | set | frozenset):
        return "[" + ", ".join(_plain(item) for item in value) + "]"
    return repr(value) if isinstance(value, str | int | float | bool | bytes | None) else type(value).__qualname__
