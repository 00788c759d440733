"""LiteLLM's Router and Proxy on the same engine: one line, and they survive hangs, broken streams and slow providers.

`install(router)` for who has a Router; `litellm_hooks.proxy.handler` for the Proxy's `config.yaml`. The public names are resolved when they
are first used: importing this imports neither LiteLLM nor LangChain.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from litellm_hooks.callbacks import ResilientCallbacks
    from litellm_hooks.installing import Installed, install
    from litellm_hooks.settings import ForDeployment, Settings
    from litellm_hooks.strategy import ResilientStrategy

_HOME = {
    "ForDeployment": "litellm_hooks.settings",
    "Installed": "litellm_hooks.installing",
    "ResilientCallbacks": "litellm_hooks.callbacks",
    "ResilientStrategy": "litellm_hooks.strategy",
    "Settings": "litellm_hooks.settings",
    "install": "litellm_hooks.installing",
}

__all__ = ["ForDeployment", "Installed", "ResilientCallbacks", "ResilientStrategy", "Settings", "install"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
