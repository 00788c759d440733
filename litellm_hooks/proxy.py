"""What the Proxy's `config.yaml` names: `litellm_settings.callbacks: ["litellm_hooks.proxy.handler"]`.

Rules of this file: settings stand under `litellm_settings.resilience`, before or after `callbacks`, and are read when the Proxy reads its
file: what can't be meant stops its start with an error that names it. `LITELLM_RESILIENCE_<NAME>` in the environment goes before the file
(`LITELLM_RESILIENCE_TIMEOUTS__FIRST_TOKEN=5` for a section's).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import replace
from types import ModuleType
from typing import Any

import litellm
import yaml

from langchain_resilient.engine.errors import require
from litellm_hooks.callbacks import ResilientCallbacks
from litellm_hooks.settings import Settings, read

WHERE = "litellm_settings.resilience"
PREFIX = "LITELLM_RESILIENCE_"
_state: dict[str, Settings] = {}


def settings() -> Settings:
    """What the file and the environment say; with Prometheus among the Proxy's callbacks our metrics are beside LiteLLM's."""
    found = _state["read"]
    if not found.observers and any(map(_is_prometheus, litellm.callbacks)):
        found = replace(found, observers=("prometheus",))
    return found


def _is_prometheus(callback: Any) -> bool:
    # The word, or what LiteLLM has made of it by now.
    return callback == "prometheus" or "prometheus" in type(callback).__module__.lower()


def take(given: Any) -> None:
    """Read what stands under `resilience`, if it is anything, and the environment; raises `SettingsError`."""
    given = {} if given is None else given
    require(isinstance(given, Mapping), WHERE, given, "write settings as `key: value` lines")
    _state["read"] = read(merged(given, from_environment(os.environ)), WHERE)


def from_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    """The settings that the environment has: values are YAML's, and `__` stands before a section's own setting."""
    found: dict[str, Any] = {}
    for name, value in sorted(environment.items()):
        if not name.startswith(PREFIX):
            continue
        *sections, last = name.removeprefix(PREFIX).lower().split("__")
        place = found
        for section in sections:
            place = place.setdefault(section, {})
            require(isinstance(place, dict), name, value, "a section and one value for all of it can't both be set")
        try:
            place[last] = yaml.safe_load(value)
        except yaml.YAMLError:
            place[last] = value
    return found


def merged(first: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of both; `over` wins, section by section."""
    both = dict(first)
    for name, value in over.items():
        mine = both.get(name)
        both[name] = merged(mine, value) if isinstance(mine, Mapping) and isinstance(value, Mapping) else value
    return both


class _Watched(ModuleType):
    """LiteLLM's module, while we are loaded: the Proxy sets what its file says as an attribute of it, whenever it comes to it."""

    @property
    def resilience(self) -> Any:
        """What stands under `litellm_settings.resilience`."""
        return vars(self).get("resilience")

    @resilience.setter
    def resilience(self, given: Any) -> None:
        take(given)
        vars(self)["resilience"] = given


def _watch() -> None:
    module = sys.modules["litellm"]
    kind = type(module)
    take(vars(module).get("resilience"))
    if not isinstance(module, _Watched):
        module.__class__ = _Watched if kind is ModuleType else type("_Watched", (_Watched, kind), {})


_watch()
handler = ResilientCallbacks(settings)
"""The one that `config.yaml` names."""
