"""Who may answer a request: the deployments of its group, then those of its fallback groups.

Rules of this file: who is eligible is LiteLLM's to say (cooldowns, tags, budgets, teams, access); in which order and whether now is the
engine's. A request that LiteLLM would turn down for reasons of its own is left to it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import litellm
from litellm.types.router import RouterRateLimitError

from litellm_hooks.deployments import Candidate, brings_its_own, id_of
from litellm_hooks.router import RouterFace, order_of

Rungs = tuple[tuple[Candidate, ...], ...]
"""Nearest first; those of one rung are equally near."""
UNTOUCHED = ("mock_response", "mock_testing_fallbacks", "mock_testing_rate_limit_error", "mock_timeout")
"""Requests that ask LiteLLM to play something."""
OTHER_CHAINS = {
    litellm.ContextWindowExceededError: "context_window_fallbacks",
    litellm.ContentPolicyViolationError: "content_policy_fallbacks",
}
"""Failures for which LiteLLM has fallback groups of their own."""
CHAINS = ("fallbacks", *OTHER_CHAINS.values())


class Lineup:
    """Who may answer one request.

    LiteLLM's filters cost a millisecond a group where they count tokens, and on a healthy day only the first rung is asked: further ones
    are looked at when one of them is about to be.

    Args:
        face: The Router.
        request: Its arguments.
        rungs: The candidates.
    """

    def __init__(self, face: RouterFace, request: Mapping[str, Any], rungs: Rungs) -> None:
        self.rungs = rungs
        self._face = face
        self._request = request
        self._found: dict[tuple[str, int | None], dict[str, dict[str, Any]]] = {}

    async def deployment(self, candidate: Candidate) -> dict[str, Any] | None:
        """A candidate's deployment as the Router hands it out for this request; None: it may not answer."""
        if candidate.sure:
            return candidate.deployment
        asked = candidate.group, order_of(candidate.deployment)
        if asked not in self._found:
            self._found[asked] = {id_of(one): one for one in await self._filtered(*asked)}
        return self._found[asked].get(candidate.id)

    async def _filtered(self, group: str, order: int | None) -> list[dict[str, Any]]:
        face, request = self._face, self._request
        try:
            if group != request["model"] and not await face.allows(group, request):
                return []
            return await face.at(group, request, order)
        except Exception:  # noqa: BLE001  # nobody of that group can be asked now, for reasons of LiteLLM's
            return []


class Candidates:
    """Who may answer, on one Router.

    Args:
        face: The Router.
    """

    def __init__(self, face: RouterFace) -> None:
        self._face = face

    async def of(self, request: Mapping[str, Any]) -> Lineup | None:
        """Who may answer; None: that is for LiteLLM alone to say. Raises LiteLLM's own error where all of its deployments cool down."""
        if any(request.get(name) is not None for name in UNTOUCHED) or not isinstance(request.get("model"), str):
            return None
        nobody: RouterRateLimitError | None = None
        rungs: list[tuple[Candidate, ...]] = []
        try:
            if self._is_on_its_own_account(request):
                return None
            try:
                rungs = await self._of_group(request["model"], {}, request)
            except RouterRateLimitError as error:  # all are cooling down, by LiteLLM's own rules
                nobody = error
            rungs += await self._of_fallbacks("fallbacks", request, sure=nobody is not None)
        except Exception:  # noqa: BLE001  # an unknown group, say, or fallbacks that are no groups: LiteLLM tells it better
            return None
        if nobody is not None and not rungs:
            vars(nobody)["num_retries"] = 0
            raise nobody
        return self._lineup(request, rungs)

    async def others(self, request: Mapping[str, Any], chain: str) -> Lineup | None:
        """Who may answer what the first could not, by LiteLLM's chain for that; None: nobody."""
        try:
            return self._lineup(request, await self._of_fallbacks(chain, request))
        except Exception:  # noqa: BLE001  # a chain of what are no groups: the failure says more
            return None

    def _is_on_its_own_account(self, request: Mapping[str, Any]) -> bool:
        """Whether its caller pays, or says where to: how that goes tells nothing of the deployments, and there are as many such accounts as callers.

        Overrides in the Router's own fallbacks are its operator's: they make a target with an account of its own.
        """
        chains = [chain for chain in CHAINS if request.get(chain) is not None]
        told = [own for chain in chains for _, own in self._face.fallbacks(chain, request["model"], request)]
        return any(map(brings_its_own, [request, *told]))

    def _lineup(self, request: Mapping[str, Any], rungs: list[tuple[Candidate, ...]]) -> Lineup | None:
        return Lineup(self._face, request, tuple(rungs)) if rungs else None

    async def _of_fallbacks(
        self, chain: str, request: Mapping[str, Any], *, sure: bool = False
    ) -> list[tuple[Candidate, ...]]:
        rungs: list[tuple[Candidate, ...]] = []
        for group, overrides in self._face.fallbacks(chain, request["model"], request):
            listed = [] if sure else self._face.listed(group, request)
            if listed:
                rungs += [_rung(group, rung, overrides, sure=False) for rung in listed]
            elif await self._face.allows(group, request):
                try:
                    rungs += await self._of_group(group, overrides, request, sure=sure)
                except Exception:  # noqa: BLE001, S112  # nobody of that group can be asked now, for reasons of LiteLLM's
                    continue
        return rungs

    async def _of_group(
        self, group: str, overrides: Mapping[str, Any], request: Mapping[str, Any], *, sure: bool = False
    ) -> list[tuple[Candidate, ...]]:
        """Those of the nearest order are asked for; of the others, unless it is to be `sure`, only once somebody is needed."""
        face = self._face
        nearest = await face.nearest(group, request)
        rungs = [_rung(group, nearest, overrides)]
        last = next((order for one in nearest if (order := order_of(one)) is not None), None)
        if last is None:
            return rungs
        listed = [] if sure else face.listed(group, request)
        if listed:
            further = [rung for rung in listed if (order := order_of(rung[0])) is None or order > last]
            return rungs + [_rung(group, rung, overrides, sure=False) for rung in further]
        found = [await face.at(group, request, order) for order in face.orders(group, request) if order > last]
        return rungs + [_rung(group, rung, overrides) for rung in found if rung]


def _rung(
    group: str, deployments: Sequence[dict[str, Any]], overrides: Mapping[str, Any], *, sure: bool = True
) -> tuple[Candidate, ...]:
    return tuple([Candidate(group, one, overrides, sure) for one in deployments])
