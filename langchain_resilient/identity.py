"""Who a provider is: its name, where it is, whose credential it uses, what it can do.

Rules of this file: what partner packages call things is data, in the tables; a credential leaves this file only as a keyed hash, and a URL
without what it may hide.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from itertools import count
from typing import Any
from urllib.parse import urlsplit

from langchain_core.language_models import BaseChatModel
from pydantic import BaseModel, SecretStr

from langchain_resilient.config import Provider
from langchain_resilient.engine.policy import Target

LITELLM_NAMES = {
    "google_genai": "gemini", "google_vertexai": "vertex_ai", "google_anthropic_vertex": "vertex_ai", "azure_openai": "azure",
    "mistralai": "mistral", "amazon_bedrock": "bedrock", "bedrock_converse": "bedrock", "anthropic_bedrock": "bedrock",
    "together": "together_ai", "fireworks": "fireworks_ai", "nvidia": "nvidia_nim", "ibm": "watsonx", "meta": "meta_llama",
}  # fmt: skip
"""LangChain's word for a provider, in LiteLLM's spelling, where the two differ."""

REASONING = re.compile(
    r"(^|[/.:-])(o[1-9]\b|gpt-5(?!.*chat)|deepseek-(r\d|reasoner)|qwq|magistral|gemini-(2\.5|3)|.*(thinking|reasoner|reasoning))",
    re.IGNORECASE,
)
"""Names of models that think before they speak whether asked to or not."""

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
_CLAUDE = re.compile(r"claude-(?:[a-z]+-)?(\d+)(?:[-.](\d{1,2})(?!\d))?")
_UNNAMED = count(1)


def word_of(model: BaseChatModel) -> str:
    """LangChain's word for its provider; "" if it has none."""
    return str(model._get_ls_params().get("ls_provider") or "").lower()  # the one place where partner packages say it


def name_of(model: BaseChatModel, word: str, given: Any) -> str:
    """Its "provider/model" as LiteLLM spells it, from the spec it was given as or from what it says of itself; else its class."""
    named = given.partition(":")[2] if isinstance(given, str) else model._get_ls_params().get("ls_model_name")
    if not word or not named:
        return type(model).__name__
    return f"{LITELLM_NAMES.get(word, word)}/{named}"


def route_of(provider: Provider, model: BaseChatModel, name: str) -> str:
    """The key of what all credentials share; nobody else's where the name does not say which model it is."""
    return f"{name}@{endpoint_of(model)}" if is_named(provider, model) else f"{name}#{next(_UNNAMED)}"


def is_named(provider: Provider, model: BaseChatModel) -> bool:
    """Whether its name says which model it is; one that doesn't is never shared."""
    return (
        provider.name is not None
        or isinstance(provider.model, str)
        or bool(model._get_ls_params().get("ls_model_name"))
    )


def endpoint_of(model: BaseChatModel) -> str:
    """Where it is, without what a URL may hide: no user, no password, no query."""
    parts: list[str] = []
    for name in ENDPOINTS:
        value = getattr(model, name, None)
        if isinstance(value, str) and value:
            url = urlsplit(value)
            parts.append(
                f"{url.hostname}{f':{url.port}' if url.port else ''}{url.path.rstrip('/')}" if url.hostname else value
            )
    return ",".join(parts)


def credential_of(provider: Provider, model: BaseChatModel, namespace: str) -> str:
    """A short keyed hash of the account or of every secret the model holds; "" without any."""
    if provider.account is not None:
        secret = f"account={provider.account}"
    else:
        secrets = {
            name: value.get_secret_value()
            for name in type(model).model_fields
            if isinstance(value := getattr(model, name, None), SecretStr) and value.get_secret_value()
        }
        secret = "\n".join(f"{name}={value}" for name, value in sorted(secrets.items()))
    return blake2b(secret.encode(), key=namespace.encode()[:64], digest_size=6).hexdigest() if secret else ""


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
    name = str(model._get_ls_params().get("ls_model_name") or "")
    return REASONING.search(name) is not None


def takes_prefill(word: str, model: BaseChatModel) -> bool:
    """Whether a provider goes on with a begun answer: by its name, of those whose API promises it.

    Anthropic's do up to Claude 4.5, unless they think first; later ones answer 400
    (https://platform.claude.com/docs/en/about-claude/models/whats-new-claude-4-6, "Prefill removal").
    """
    thinking = getattr(model, "thinking", None) or {}
    version = _CLAUDE.search(str(model._get_ls_params().get("ls_model_name") or ""))
    if version is None or not word.startswith(CLAUDES_HOSTS) or thinking.get("type", "disabled") != "disabled":
        return False
    return (int(version[1]), int(version[2] or 0)) < (4, 6)


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
