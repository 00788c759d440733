"""LiteLLM's Router alone, and the same with `litellm_hooks.install`.

Rules of this file: the Routers are those of `outages.litellm_router`, where each option stands with the page that recommends it. With ours
nothing of them is changed. LiteLLM is imported when a system is built: it may not be installed.
"""

from __future__ import annotations

from typing import Any

from outages.contenders import KEY, Contender, NotHereError, Setting, System

from routers.faults import MAX_LATENCY, recovery_of


def settings_of(setting: Setting, *, tuned: bool) -> dict[str, Any]:
    """What a Router is made of."""
    try:
        from outages.litellm_router import default, recommended
    except ImportError as error:
        msg = f"LiteLLM is not installed here ({error}): pip install 'litellm>=1.106,<2'"
        raise NotHereError(msg) from error
    if not tuned:
        return default(setting, KEY)
    return recommended(setting, KEY) | {"cooldown_time": recovery_of(setting.timeline)}


def alone(setting: Setting, *, tuned: bool) -> Contender:
    """LiteLLM's Router as it is."""
    settings = settings_of(setting, tuned=tuned)
    from outages.litellm_router import LiteLLM

    return LiteLLM(settings)


def resilient(setting: Setting, *, tuned: bool) -> Contender:
    """The same Router with ours on it. What differs from our defaults: the limits, the recovery time, `max_latency`."""
    settings = settings_of(setting, tuned=tuned)
    from outages.litellm_router import GROUP, LiteLLM

    from litellm_hooks import install

    contender, limit = LiteLLM(settings), setting.outage.limit
    install(
        contender.router,
        circuit={"recovery_timeout": recovery_of(setting.timeline)},
        timeouts={"connect": limit, "first_token": limit, "idle": limit, "response": limit},
        deployments={GROUP: {"max_latency": MAX_LATENCY}},
    )
    return contender


_THEIRS = "timeout=, stream_timeout="
_OURS = f"{_THEIRS}; install(timeouts={{connect, first_token, idle, response}})"
SYSTEMS: dict[str, System] = {
    "default": System("Router, default", lambda setting: alone(setting, tuned=False), _THEIRS),
    "tuned": System("Router, tuned", lambda setting: alone(setting, tuned=True), _THEIRS),
    "ours": System("Router, tuned, with ours", lambda setting: resilient(setting, tuned=True), _OURS),
    "ours-default": System("Router, default, with ours", lambda setting: resilient(setting, tuned=False), _OURS),
}
"""By the word that `--system` takes."""
OURS = ("ours", "ours-default")
"""Those of which something was promised."""
