"""One of LiteLLM's deployments as the engine's `Target`.

Rules of this file: it reads the dict that the Router hands out, and changes nothing in it. What LangChain's side would call the same provider
gets the same keys (`engine/naming`), so that both learn of an outage from one another. A number that makes no sense is none, and fails no
request: LiteLLM's own filters make of it what they make.
"""

from __future__ import annotations

import logging
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import litellm
from litellm.types.router import CredentialLiteLLMParams

from langchain_resilient.engine.naming import account_key, continues_its_own, credential_hash, route_key, thinks_first
from langchain_resilient.engine.policy import Price, Target
from langchain_resilient.engine.quota import RateLimits
from litellm_hooks.settings import Settings

ENDPOINTS = ("api_base", "base_url", "aws_region_name", "vertex_location", "region_name")
SECRETS = (
    "api_key", "aws_access_key_id", "aws_secret_access_key", "aws_session_token", "azure_ad_token", "client_secret", "vertex_credentials",
)  # fmt: skip
NOT_OWN = frozenset({"api_version"})
"""Azure's clients say theirs with each request."""
OWN = {
    *ENDPOINTS, *SECRETS, *CredentialLiteLLMParams.model_fields, "organization", "litellm_credential_name",
} - NOT_OWN  # fmt: skip
"""What a request may bring that makes the provider's account, or its place, another than the deployment's."""
HEADERS = ("headers", "extra_headers", "provider_specific_header")
CREDENTIAL_HEADERS = frozenset({"authorization", "x-api-key", "api-key", "x-goog-api-key"})
WEIGHTS = ("weight", "rpm", "tpm")
"""What LiteLLM's simple-shuffle weighs by: the first of them that any deployment of the group has."""
HASH = re.compile("[0-9a-f]{64}")
"""What LiteLLM makes for a deployment that is given no id: its beginning tells it from others."""
CLAUDES_HOSTS = frozenset({"anthropic", "bedrock", "vertex_ai"})
LOGGER = logging.getLogger("langchain_resilient")


class Candidate(NamedTuple):
    """A deployment that may answer, and how the Router is asked for it."""

    group: str
    """The model group under which it is asked: what logs, spend and access are told of."""
    deployment: dict[str, Any]
    """As the Router hands it out."""
    overrides: Mapping[str, Any]
    """What a fallback entry says beside its group."""
    sure: bool = True
    """Whether LiteLLM has said that it may answer; else that is asked once it is needed (`Lineup.deployment`)."""

    @property
    def id(self) -> str:
        """LiteLLM's own, `model_info.id`."""
        return id_of(self.deployment)


def id_of(deployment: Mapping[str, Any]) -> str:
    """LiteLLM's own, `model_info.id`."""
    return str((deployment.get("model_info") or {}).get("id") or "")


def weights_of(deployments: Sequence[Mapping[str, Any]]) -> list[float]:
    """Each one's share of its group's requests."""
    params = [deployment["litellm_params"] for deployment in deployments]
    by = next((name for name in WEIGHTS if any(one.get(name) is not None for one in params)), None)
    return [1.0 if by is None else max(0.0, _number(one.get(by)) or 0.0) for one in params]


def brings_its_own(asked: Mapping[str, Any]) -> bool:
    """Whether a request, or what a fallback entry says beside its group, brings a credential or an endpoint of its own."""
    return not OWN.isdisjoint(asked) or any(name.lower() in CREDENTIAL_HEADERS for name in _header_names(asked))


def _header_names(asked: Mapping[str, Any]) -> Iterator[str]:
    given = [asked.get(name) for name in HEADERS]
    for one in [one for told in given for one in (told if isinstance(told, list) else [told])]:
        if isinstance(one, Mapping):
            headers = one.get("extra_headers")
            yield from map(str, headers if isinstance(headers, Mapping) else one)


def target_of(candidate: Candidate, settings: Settings, *, rung: int, place: int, weight: float) -> Target:
    """A deployment as the engine sees it.

    Args:
        candidate: The deployment.
        settings: What the user set.
        rung: How far down the fallbacks it stands.
        place: Its place in the list.
        weight: Its share of its group.
    """
    params = candidate.deployment["litellm_params"]
    info = candidate.deployment.get("model_info") or {}
    own = settings.of(candidate.id, candidate.group)
    provider, model = spelled(params)
    name = f"{provider}/{model}" if provider else model
    known = _known_of(name)
    base_model = str(info.get("base_model") or params.get("base_model") or model)
    asked = {**params, **candidate.overrides}
    route = route_key(name, _told(asked, ENDPOINTS))
    credential = credential_hash(_secrets(asked, provider), settings.namespace)
    return Target(
        name=label(name, candidate.id), route=route, account=account_key(route, credential), client=candidate,
        priority=place, rung=rung, weight=weight, max_latency=own.max_latency,
        price=own.price or _price_of(candidate.id, params, info, known),
        limits=own.limits or _limits_of(candidate.id, params), circuit=own.circuit or settings.circuit, timeouts=own.timeouts or settings.timeouts,
        context_window=_whole(candidate.id, info, "max_input_tokens") or _whole(candidate.id, known, "max_input_tokens"), reasons=thinks_first(base_model),
        takes_prefill=provider in CLAUDES_HOSTS and not params.get("thinking") and continues_its_own(base_model),
    )  # fmt: skip


def label(name: str, deployment: str) -> str:
    """Its name in metrics and records: two deployments of one model are two."""
    if HASH.fullmatch(deployment):
        deployment = deployment[:12]
    return f"{name}#{deployment}" if deployment else name


def spelled(params: Mapping[str, Any]) -> tuple[str, str]:
    """A deployment's provider and model, as LiteLLM spells them; "" where it does not know the provider."""
    model, provider = str(params["model"]), params.get("custom_llm_provider")
    if provider:
        return str(provider), model.removeprefix(f"{provider}/")
    try:
        model, provider, _, _ = litellm.get_llm_provider(model, api_base=params.get("api_base"))
    except Exception:  # noqa: BLE001  # a model that LiteLLM can't place fails when it is asked, and not here
        provider, _, model = model.rpartition("/")
    return str(provider), model


def _told(params: Mapping[str, Any], names: Iterable[str]) -> list[str]:
    return [value for name in names if isinstance(value := params.get(name), str) and value]


def _secrets(params: Mapping[str, Any], provider: str) -> list[str]:
    # LiteLLM reads the variable of this name where no key is given.
    return _told(params, SECRETS) or _told(os.environ, [f"{provider.upper()}_API_KEY"])


def _known_of(name: str) -> Mapping[str, Any]:
    """What LiteLLM's table says of a model."""
    return litellm.model_cost.get(name) or litellm.model_cost.get(name.partition("/")[2]) or {}


def _limits_of(deployment: str, params: Mapping[str, Any]) -> RateLimits:
    rpm, tpm, most = [_whole(deployment, params, name) for name in ("rpm", "tpm", "max_parallel_requests")]
    return RateLimits(rpm=rpm, tpm=tpm, concurrency=most)


def _price_of(deployment: str, *told: Mapping[str, Any]) -> Price | None:
    for where in told:
        paid, got = [_cost(deployment, where, name) for name in ("input_cost_per_token", "output_cost_per_token")]
        if paid is not None and got is not None:
            return Price(paid * 1e6, got * 1e6)
    return None


def _whole(deployment: str, told: Mapping[str, Any], name: str) -> int | None:
    """A whole number ≥ 1; None: nothing, or nothing that makes sense, is told."""
    number = _number(told.get(name))
    if number is not None and number >= 1 and number.is_integer():
        return int(number)
    _note_nonsense(deployment, told, name, "a whole number ≥ 1")
    return None


def _cost(deployment: str, told: Mapping[str, Any], name: str) -> float | None:
    """US dollars ≥ 0; None: nothing, or nothing that makes sense, is told."""
    number = _number(told.get(name))
    if number is not None and number >= 0:
        return number
    _note_nonsense(deployment, told, name, "US dollars ≥ 0")
    return None


def _number(given: Any) -> float | None:
    """A finite number, also one that is written as text."""
    try:
        number = None if isinstance(given, bool) else float(given)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if number is not None and math.isfinite(number) else None


def _note_nonsense(deployment: str, told: Mapping[str, Any], name: str, fix: str) -> None:
    if told.get(name) is not None:
        _warn(deployment, name, repr(told[name]), fix)


@lru_cache(maxsize=4096)
def _warn(deployment: str, name: str, given: str, fix: str) -> None:
    """Once for each deployment and field, however often a target is made of it."""
    LOGGER.warning("deployment %s: %s: got %s, which counts as none; use %s", deployment, name, given, fix)
