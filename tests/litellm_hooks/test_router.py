"""What LiteLLM's Router is asked, whatever its version: who may serve, in which order, and whom a request falls back to."""

import warnings
from typing import Any

import pytest
from litellm.types.router import RouterRateLimitError

from litellm_hooks.router import RouterFace, order_of, undeprecated
from tests.litellm_hooks.world import MESSAGES


def entry(name: str, group: str = "main", **params: Any) -> dict[str, Any]:
    """A deployment that nobody asks."""
    told = {"model": "openai/gpt-4.1", "api_key": "k", **params}
    return {"model_name": group, "litellm_params": told, "model_info": {"id": name}}


async def ids(face: RouterFace, group: str = "main", **request: Any) -> list[list[str]]:
    """Who may serve a request, rung by rung."""
    asked = {"model": group, "messages": MESSAGES, **request}
    nearest = await face.nearest(group, asked)
    orders = [order for order in face.orders(group, asked) if order > (order_of(nearest[0]) or 0)]
    rungs = [nearest, *[await face.at(group, asked, order) for order in orders]]
    return [sorted(one["model_info"]["id"] for one in rung) for rung in rungs]


async def test_siblings_are_equally_near(world):
    """Deployments of one group without an order stand on one rung."""
    assert await ids(RouterFace(world.router(entry("a"), entry("b")))) == [["a", "b"]]


async def test_an_order_makes_rungs(world):
    """Those of the lowest order come first, and those of higher ones behind them, each order a rung."""
    face = RouterFace(world.router(entry("a", order=2), entry("b", order=1), entry("c", order=3), entry("d", order=1)))
    assert await ids(face) == [["b", "d"], ["a"], ["c"]]


def test_the_list_is_told_unfiltered(world):
    """A group as it stands in the Router's list, by order, cooling down or not; a wildcard's deployments are of the model that is asked for."""
    router = world.router(
        entry("b", order=2), entry("a", order=1), entry("c", "next"), entry("w", "openai/*", model="openai/*")
    )
    router.cooldown_cache.add_deployment_to_cooldown("a", ValueError("x"), 500, 60.0)
    face = RouterFace(router)
    told = {group: face.listed(group, {}) for group in ("main", "next", "openai/gpt-4.1", "nobody")}
    assert told["openai/gpt-4.1"][0][0]["litellm_params"]["model"] == "openai/gpt-4.1"
    listed = {group: [[one["model_info"]["id"] for one in rung] for rung in rungs] for group, rungs in told.items()}
    assert listed == {"main": [["a"], ["b"]], "next": [["c"]], "openai/gpt-4.1": [["w"]], "nobody": []}


def test_who_has_no_order_stands_last(world):
    """Deployments without an `order` beside ones that have one are the last rung: LiteLLM serves by them once none of the others is well."""
    router = world.router(entry("c"), entry("b", order=2), entry("a", order=1), entry("d"))
    told = [[one["model_info"]["id"] for one in rung] for rung in RouterFace(router).listed("main", {})]
    assert told == [["a"], ["b"], ["c", "d"]]


async def test_a_pinned_deployment_is_alone(world):
    """A request that names a deployment's id is served by that one."""
    face = RouterFace(world.router(entry("a"), entry("b")))
    assert await ids(face, "b") == [["b"]]


async def test_an_unknown_group_is_litellm_s_to_refuse(world):
    """What LiteLLM raises for a group that it does not know is raised."""
    with pytest.raises(Exception, match="nobody"):
        await ids(RouterFace(world.router(entry("a"))), "nobody")


async def test_who_cools_down_is_left_out(world):
    """A deployment that LiteLLM cools down may not serve, and where all do nobody may."""
    router = world.router(entry("a"), entry("b"))
    router.cooldown_cache.add_deployment_to_cooldown("a", ValueError("x"), 500, 60.0)
    assert await ids(RouterFace(router)) == [["b"]]
    router.cooldown_cache.add_deployment_to_cooldown("b", ValueError("x"), 500, 60.0)
    with pytest.raises(RouterRateLimitError):
        await ids(RouterFace(router))


def test_fallbacks_are_the_router_s_unless_the_request_has_its_own(world):
    """A group's chain, else that of "*", else none; a request's own list goes before all, and none at all is asked for by `disable_fallbacks`."""
    face = RouterFace(
        world.router(entry("a"), fallbacks=[{"main": ["x", {"model": "y", "temperature": 0}]}, {"*": ["z"]}])
    )
    assert face.fallbacks("fallbacks", "main", {}) == [("x", {}), ("y", {"temperature": 0})]
    assert face.fallbacks("fallbacks", "other", {}) == [("z", {})]
    assert face.fallbacks("fallbacks", "main", {"fallbacks": ["q", {"model": "r", "seed": 1}]}) == [
        ("q", {}),
        ("r", {"seed": 1}),
    ]
    assert face.fallbacks("fallbacks", "main", {"fallbacks": [{"main": ["s"]}]}) == [("s", {})]
    assert face.fallbacks("fallbacks", "main", {"fallbacks": []}) == []
    assert face.fallbacks("fallbacks", "main", {"disable_fallbacks": True}) == []
    assert face.fallbacks("context_window_fallbacks", "main", {}) == []


def test_default_fallbacks_serve_every_group(world):
    """`default_fallbacks` are the chain of a group that has none of its own, which is not among them twice."""
    face = RouterFace(world.router(entry("a"), entry("b", "spare"), default_fallbacks=["spare"]))
    assert face.fallbacks("fallbacks", "main", {}) == [("spare", {})]
    assert face.fallbacks("fallbacks", "spare", {}) == []


def test_a_changed_setting_counts_at_once(world):
    """Fallbacks that are set on a Router later are the ones that count."""
    router = world.router(entry("a"))
    face = RouterFace(router)
    router.update_settings(fallbacks=[{"main": ["x"]}])
    assert face.fallbacks("fallbacks", "main", {}) == [("x", {})]


async def test_a_caller_may_be_kept_from_a_group(world):
    """A fallback group is open to a caller only if each of the Router's checks, where it has any, says so."""
    router = world.router(entry("a"))
    face = RouterFace(router)
    assert await face.allows("spare", {})
    seen = []

    async def check(model: str, request_kwargs: Any, llm_router: Any) -> bool:
        seen.append((model, request_kwargs, llm_router is router))
        return model != "spare"

    face.setting = {"fallback_access_check": check, "fallback_budget_check": None}.get
    assert not await face.allows("spare", {"user": "ann"})
    assert await face.allows("other", {})
    assert seen == [("spare", {"user": "ann"}, True), ("other", {}, True)]


def test_deprecations_are_silenced_within_only():
    """A deprecation warning is swallowed within `undeprecated`, and any other warning is not."""
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        with undeprecated():
            warnings.warn("old", DeprecationWarning, stacklevel=1)
            warnings.warn("other", UserWarning, stacklevel=1)
        warnings.warn("old again", DeprecationWarning, stacklevel=1)
    assert [str(one.message) for one in heard] == ["other", "old again"]
