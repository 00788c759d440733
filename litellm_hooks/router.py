"""What is asked of LiteLLM's Router, whatever its version.

Rules of this file: everything that differs between LiteLLM's versions stands here, and is probed by what the Router has, never by its version
number. One thing is LiteLLM's own: the request key by which it asks itself for a further `order`.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from inspect import signature
from typing import Any

from litellm.router_utils.fallback_event_handlers import get_fallback_model_group
from litellm.types.router import RouterRateLimitError


class RouterFace:
    """A Router, asked in the way that its version wants.

    Args:
        router: LiteLLM's.
    """

    def __init__(self, router: Any) -> None:
        self.router = router

    def setting(self, name: str) -> Any:
        """One of its constructor's arguments, as it stands now."""
        settings = getattr(self.router, "settings", None)
        return getattr(settings() if callable(settings) else self.router, name, None)

    async def healthy(self, group: str, request: Mapping[str, Any]) -> list[list[dict[str, Any]]]:
        """Who of a group may serve a request, by LiteLLM's own filters (cooldowns, tags, budgets, teams, …): nearest `order` first.

        Raises what LiteLLM raises: `RouterRateLimitError` where nobody may, `BadRequestError` for an unknown group.
        """
        first = await self._listed(group, request)
        if isinstance(first, dict):
            return [[first]]
        orders = sorted({order for one in self._group(group) if (order := _order_of(one)) is not None})
        nearest = next((order for one in first if (order := _order_of(one)) is not None), None)
        rungs = [list(first)]
        for order in orders:
            if nearest is not None and order > nearest:
                rungs += [found] if (found := await self._further(group, request, order)) else []
        return rungs

    async def _further(self, group: str, request: Mapping[str, Any], order: int) -> list[dict[str, Any]]:
        try:
            return list(await self._listed(group, {**request, "_target_order": order}))
        except RouterRateLimitError:
            return []  # all of that order are cooling down

    async def _listed(self, group: str, request: Mapping[str, Any]) -> Any:
        asked = {
            key: value
            for key, value in request.items()
            if key not in {"model", "messages", "input", "specific_deployment"}
        }
        said = {name: request.get(name) for name in ("messages", "input")}
        pinned = request.get("specific_deployment") or False
        if hasattr(self.router, "select"):
            return await self.router.select(group, asked, kind="healthy", specific_deployment=pinned, **said)
        return await self.router.async_get_healthy_deployments(
            model=group, request_kwargs=asked, specific_deployment=pinned, **said
        )

    def _group(self, group: str) -> Sequence[Mapping[str, Any]]:
        if hasattr(self.router, "registry"):
            return self.router.registry().deployments(group) or ()
        return self.router.get_model_list(model_name=group) or ()

    def fallbacks(self, name: str, group: str, request: Mapping[str, Any]) -> list[tuple[str, dict[str, Any]]]:
        """The groups that a request may fall back to, and what each is asked beside.

        Args:
            name: "fallbacks", "context_window_fallbacks" or "content_policy_fallbacks".
            group: Whose.
            request: Its own list goes before the Router's.
        """
        told = request.get(name)
        told = self.setting(name) if told is None else told
        if not told or request.get("disable_fallbacks"):
            return []
        if all(isinstance(entry, str) or "model" in entry for entry in told):
            entries = told  # a request's own chain, which needs no group before it
        else:
            entries = get_fallback_model_group(fallbacks=told, model_group=group)[0] or ()
        return [entry for entry in map(_entry, entries) if entry[0] != group]

    async def allows(self, group: str, request: Mapping[str, Any]) -> bool:
        """Whether this caller may be answered by a fallback group: the Proxy asks its keys and budgets."""
        for name in ("fallback_access_check", "fallback_budget_check"):
            check = self.setting(name)
            if check is None:
                continue
            # Newer LiteLLM's are given a context, of which the Router has all that they read.
            router = "ctx" if "ctx" in signature(check).parameters else "llm_router"
            if not await check(model=group, request_kwargs=request, **{router: self.router}):
                return False
        return True


def _order_of(deployment: Mapping[str, Any]) -> int | None:
    params, info = deployment.get("litellm_params") or {}, deployment.get("model_info") or {}
    order = params.get("order")
    order = info.get("order") if order is None else order
    return order if isinstance(order, int) else None


def _entry(entry: Any) -> tuple[str, dict[str, Any]]:
    if isinstance(entry, str):
        return entry, {}
    return str(entry["model"]), {key: value for key, value in entry.items() if key != "model"}


@contextmanager
def undeprecated() -> Iterator[None]:
    """Newer LiteLLM warns of members that older LiteLLM has no other name for."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        yield
