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

WRITTEN = ("litellm_metadata", "metadata")
"""What LiteLLM writes into while it serves a call."""


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

    async def nearest(self, group: str, request: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Who of a group may serve a request now, by LiteLLM's own filters (cooldowns, tags, budgets, teams, …); of the nearest `order`.

        Raises what LiteLLM raises: `RouterRateLimitError` where nobody may, `BadRequestError` for an unknown group.
        """
        found = await self._listed(group, request)
        return [found] if isinstance(found, dict) else list(found)

    async def at(self, group: str, request: Mapping[str, Any], order: int | None) -> list[dict[str, Any]]:
        """The same for one `order`; nobody where all of it are cooling down."""
        if order is not None:
            request = {**request, "_target_order": order}
        try:
            return await self.nearest(group, request)
        except RouterRateLimitError:
            return []

    def orders(self, group: str, request: Mapping[str, Any]) -> list[int]:
        """The orders of a group's deployments, nearest first."""
        return sorted({order for one in self._group(group, request) if (order := order_of(one)) is not None})

    def listed(self, group: str, request: Mapping[str, Any]) -> list[list[dict[str, Any]]]:
        """All of a group as they stand in the Router's list: no filter is asked. Empty: the list does not know it.

        The nearest `order` comes first, and whoever has none last: LiteLLM serves by those once none of the others is well.
        """
        listed = [dict(one) for one in self._group(group, request)]
        orders = sorted({order for one in listed if (order := order_of(one)) is not None})
        rungs = [[one for one in listed if order_of(one) == order] for order in (*orders, None)]
        return [rung for rung in rungs if rung]

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

    def _group(self, group: str, request: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
        team = team_of(request)
        if hasattr(self.router, "registry"):
            return self.router.registry().deployments(group, team_id=team) or ()
        return self.router.get_model_list(model_name=group, team_id=team) or ()

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


def core_of(router: Any) -> Any:
    """What a Router's members are set on: newer LiteLLM's Router is a face, of which there may be several to one core."""
    return vars(router).get("_core", router)


def rebound(method: Any, before: Any, router: Any) -> Any:
    """A method of one Router as that of its copy; what is no method of it is the copy's as it is."""
    return method.__func__.__get__(router) if getattr(method, "__self__", None) is before else method


def team_of(request: Mapping[str, Any]) -> str | None:
    """The team that a request of the Proxy's is of: it may have deployments of its own."""
    told = [told for name in WRITTEN if isinstance(told := request.get(name), Mapping)]
    return next((str(team) for one in told if (team := one.get("user_api_key_team_id"))), None)


def order_of(deployment: Mapping[str, Any]) -> int | None:
    """A deployment's `order`: the lowest are asked first."""
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
