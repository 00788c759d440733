"""Who may answer a request: the deployments of its group, then those of its fallback groups.

Rules of this file: who is eligible is LiteLLM's to say (cooldowns, tags, budgets, teams, access); in which order and whether now is the
engine's. A request that LiteLLM would turn down for reasons of its own is left to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from litellm.types.router import RouterRateLimitError

from litellm_hooks.deployments import Candidate
from litellm_hooks.router import RouterFace

Rungs = tuple[tuple[Candidate, ...], ...]
"""Nearest first; those of one rung are equally near."""
UNTOUCHED = ("mock_response", "mock_testing_fallbacks", "mock_testing_rate_limit_error", "mock_timeout")
"""Requests that ask LiteLLM to play something."""


class Candidates:
    """Who may answer, on one Router.

    Args:
        face: The Router.
    """

    def __init__(self, face: RouterFace) -> None:
        self._face = face

    async def of(self, request: Mapping[str, Any]) -> Rungs | None:
        """Who may answer; None: that is for LiteLLM alone to say. Raises LiteLLM's own error where all of its deployments cool down."""
        if any(request.get(name) is not None for name in UNTOUCHED) or not isinstance(request.get("model"), str):
            return None
        nobody: RouterRateLimitError | None = None
        rungs: list[tuple[Candidate, ...]] = []
        try:
            rungs = await self._of_group(request["model"], {}, request)
        except RouterRateLimitError as error:  # all are cooling down, by LiteLLM's own rules
            nobody = error
        except Exception:  # noqa: BLE001  # an unknown group, say: LiteLLM tells it better
            return None
        rungs += await self._of_fallbacks("fallbacks", request)
        if nobody is not None and not rungs:
            vars(nobody)["num_retries"] = 0
            raise nobody
        return tuple(rungs) or None

    async def others(self, request: Mapping[str, Any], chain: str) -> Rungs | None:
        """Who may answer what the first could not, by LiteLLM's chain for that; None: nobody."""
        return tuple(await self._of_fallbacks(chain, request)) or None

    async def _of_fallbacks(self, chain: str, request: Mapping[str, Any]) -> list[tuple[Candidate, ...]]:
        rungs: list[tuple[Candidate, ...]] = []
        for group, overrides in self._face.fallbacks(chain, request["model"], request):
            if not await self._face.allows(group, request):
                continue
            try:
                rungs += await self._of_group(group, overrides, request)
            except Exception:  # noqa: BLE001, S112  # nobody of that group can be asked now, for reasons of LiteLLM's
                continue
        return rungs

    async def _of_group(
        self, group: str, overrides: Mapping[str, Any], request: Mapping[str, Any]
    ) -> list[tuple[Candidate, ...]]:
        rungs = await self._face.healthy(group, request)
        return [tuple([Candidate(group, one, overrides) for one in rung]) for rung in rungs if rung]
