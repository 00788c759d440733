"""LiteLLM's Router, as it comes and as its documentation recommends.

Rules of this file: every option beside `timeout` stands here with the page that recommends it; nothing is set that a page does not name.
LiteLLM is imported here and nowhere else: it may not be installed.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING, Any

import litellm  # type: ignore[import-not-found, unused-ignore]
from litellm import Router  # type: ignore[import-not-found, unused-ignore]

from outages.stage import HOUSES

if TYPE_CHECKING:
    from outages.contenders import Setting

GROUP = "main"


def default(setting: Setting, key: str) -> dict[str, Any]:
    """One group a provider, and `fallbacks`: https://docs.litellm.ai/docs/proxy/reliability, "Quick Start"."""
    groups = [GROUP, *(house.name for house in HOUSES[1:])]
    return {
        "model_list": [
            {"model_name": group, "litellm_params": _account(setting, provider, key)}
            for provider, group in enumerate(groups)
        ],
        "fallbacks": [{GROUP: groups[1:]}],
        # "timeout … for the entire length of the call", "stream_timeout": https://docs.litellm.ai/docs/proxy/timeout
        "timeout": setting.outage.limit,
        "stream_timeout": setting.outage.limit,
    }


def recommended(setting: Setting, key: str) -> dict[str, Any]:
    """One group whose deployments have an order, quick cooldowns, one retry, and continued streams."""
    return {
        "model_list": [
            {
                "model_name": GROUP,
                # "order: lower values = higher priority": https://docs.litellm.ai/docs/routing, "Deployment Ordering (Priority)"
                "litellm_params": {**_account(setting, provider, key), "order": provider + 1},
            }
            for provider in range(len(HOUSES))
        ],
        # "Required for 'order' to work": the same page.
        "enable_pre_call_checks": True,
        # "cooldown model if it fails > 1 call in a minute": the same page, "Cooldowns". The time is the play's, as ours' is; it happens
        # to be LiteLLM's default (5 s) at the standard length of the outage.
        "allowed_fails": 1,
        "cooldown_time": setting.timeline.recovery,
        # "num_retries": the same page, "Retries". One, as a retry that picks the same deployment again is a second timeout.
        "num_retries": 1,
        # "timeout … for the entire length of the call", "stream_timeout": https://docs.litellm.ai/docs/proxy/timeout
        "timeout": setting.outage.limit,
        "stream_timeout": setting.outage.limit,
        # A broken stream continues on a deployment that takes a prefill: https://docs.litellm.ai/docs/router/learn/reliability,
        # "stream recovery". Off by default, and unknown to older versions.
        **_if_known("enable_mid_stream_fallback_continuation", value=True),
    }


class LiteLLM:
    """A Router, asked in its own way.

    Args:
        settings: What it is made of.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        litellm.suppress_debug_info = True
        self.router = Router(**settings)

    async def ask(self, prompt: str) -> str:
        """The whole answer."""
        answer: Any = await self.router.acompletion(model=GROUP, messages=[{"role": "user", "content": prompt}])
        return answer.choices[0].message.content or ""

    async def stream(self, prompt: str) -> AsyncIterator[str]:
        """The answer, piece by piece."""
        chunks: Any = await self.router.acompletion(
            model=GROUP, messages=[{"role": "user", "content": prompt}], stream=True
        )
        async for chunk in chunks:
            if chunk is not None and chunk.choices:
                yield chunk.choices[0].delta.content or ""

    async def aclose(self) -> None:
        """The process ends: the Router's clients end with it."""


def _account(setting: Setting, provider: int, key: str) -> dict[str, Any]:
    house = HOUSES[provider]
    return {"model": f"{house.wire}/{house.model}", "api_base": setting.stage.base_url(provider), "api_key": key}


def _if_known(name: str, *, value: Any) -> dict[str, Any]:
    """The option, if this version's Router takes it: it refuses unknown ones."""
    try:
        Router(model_list=[], **{name: value})
    except TypeError:
        return {}
    return {name: value}
