"""What users of LiteLLM may set, from keyword arguments or from `litellm_settings.resilience` of a `config.yaml`.

Rules of this file: a setting is defined once, in the engine's own dataclass; here stands only what LiteLLM's users may name. Errors name
the field by its path.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from langchain_resilient.config import check_own, check_settings, read_sections
from langchain_resilient.engine.backoff import Retry
from langchain_resilient.engine.circuit import Circuit
from langchain_resilient.engine.errors import SettingsError, checked, require, unknown_name
from langchain_resilient.engine.events import Observer
from langchain_resilient.engine.hedge import Hedge
from langchain_resilient.engine.policy import Classifier, Interruption, Price, Timeouts
from langchain_resilient.engine.quota import RateLimits
from langchain_resilient.engine.routing import Routing
from langchain_resilient.engine.store.opening import MEMORY
from langchain_resilient.keyed import check_limits

KINDS = ("key", "user", "team", "end_user")
"""Kinds of the Proxy's users, each with limits of its own."""


@checked
@dataclass(frozen=True)
class ForDeployment:
    """What may be set for one deployment; None: as for all, or as LiteLLM's `model_list` says. Checked when made: raises `SettingsError`."""

    limits: RateLimits | None = None
    """Replaces what its `rpm`, `tpm` and `max_parallel_requests` say."""
    price: Price | None = None
    """Replaces what LiteLLM knows of its price."""
    circuit: Circuit | None = None
    timeouts: Timeouts | None = None
    max_latency: float | None = None
    """Seconds (> 0): above this p50 it ranks behind faster ones."""

    def __post_init__(self) -> None:
        check_own(self)


@dataclass(frozen=True)
class Settings:
    """The settings of one Router; the same names and defaults as `ResilientChatModel`'s, but for `routing`."""

    backend: str = field(default=MEMORY, repr=False)
    namespace: str = "default"
    routing: Routing = "weighted"
    """Among the deployments of a group that are equally near: "weighted" (by `weight`, else `rpm`, else `tpm`, as LiteLLM's own
    simple-shuffle), "latency", "cost" or "priority" (their order in the list). LiteLLM's `order`, and its fallback groups, come first."""
    circuit: Circuit = field(default_factory=Circuit)
    retry: Retry = field(default_factory=Retry)
    timeouts: Timeouts = field(default_factory=Timeouts)
    hedge: Hedge | None = None
    on_interruption: Interruption = "continue"
    max_pending: int | None = None
    observers: Sequence[Observer | Literal["prometheus", "opentelemetry"]] = ()
    classifier: Classifier | None = None
    deployments: Mapping[str, ForDeployment] = field(default_factory=dict)
    """By a deployment's `model_info.id`, or a group's `model_name`."""
    tenants: Mapping[str, RateLimits] = field(default_factory=dict)
    """In the Proxy, the limits of each virtual key ("key"), "user", "team" and "end_user" (whom the request's `user` names): `rpm`, `tpm`,
    `rpd`, `tpd` and `burst`. `on_limit="wait"` waits for up to `max_wait`; else who is over a limit is refused at once."""

    def of(self, deployment: str, group: str) -> ForDeployment:
        """What is set for a deployment."""
        return self.deployments.get(deployment) or self.deployments.get(group) or _NOTHING


_NOTHING = ForDeployment()
_KNOWN = frozenset(item.name for item in fields(Settings))
_KNOWN_OF_ONE = frozenset(item.name for item in fields(ForDeployment))


def read(given: Mapping[str, Any], path: str) -> Settings:
    """Settings from keyword arguments, or from a file's mapping, whose sections may be mappings too.

    Raises:
        SettingsError: Names the field, what was given and the fix.
    """
    require(isinstance(given, Mapping), path, given, "write settings as `key: value` lines")
    settings = read_sections(given, _KNOWN, path)
    check_settings({name: value for name, value in settings.items() if name not in {"deployments", "tenants"}})
    told = settings.get("deployments", {})
    require(
        isinstance(told, Mapping), "deployments", told, "give a mapping from deployments' ids, or groups, to settings"
    )
    settings["deployments"] = {str(name): _of_one(item, f"deployments.{name}") for name, item in told.items()}
    settings["tenants"] = _tenants(settings.get("tenants"))
    return Settings(**settings)


def _of_one(given: Any, path: str) -> ForDeployment:
    if isinstance(given, ForDeployment):
        return given
    require(isinstance(given, Mapping), path, given, f"give a mapping of {', '.join(sorted(_KNOWN_OF_ONE))}")
    return ForDeployment(**read_sections(given, _KNOWN_OF_ONE, path, f"{path}."))


def _tenants(given: Any) -> dict[str, RateLimits]:
    given = {} if given is None else given
    require(isinstance(given, Mapping), "tenants", given, f"give a mapping from {', '.join(KINDS)} to limits")
    for kind in given:
        if kind not in KINDS:
            raise unknown_name("tenants", kind, KINDS)
    return {kind: _of_each(kind, limits) for kind, limits in given.items() if limits is not None}


def _of_each(kind: str, given: Any) -> RateLimits:
    path = f"tenants.{kind}"
    require(isinstance(given, Mapping | RateLimits), path, given, "give a mapping of limits such as rpm and tpm")
    try:
        limits: RateLimits = read_sections({"limits": given}, frozenset({"limits"}), path, f"{path}.")["limits"]
    except SettingsError as error:
        # That names sections by their own name, and here the kind stands in its place.
        raise SettingsError(str(error).replace(f"{path}.limits", path, 1)) from None
    check_limits(limits, path)
    return limits
