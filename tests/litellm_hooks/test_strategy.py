"""The Router is told whom the engine chose; what is none of the engine's is chosen for as ever."""

from typing import Any

import pytest

from litellm_hooks import install
from litellm_hooks.deployments import Candidate
from litellm_hooks.router import undeprecated
from litellm_hooks.strategy import ResilientStrategy, chosen
from tests.litellm_hooks.test_router import entry
from tests.litellm_hooks.world import MESSAGES


async def told(router: Any, group: str = "main") -> list[str]:
    """Whom the Router takes, sync and async."""
    with undeprecated():
        picked = [
            router.get_available_deployment(model=group, messages=MESSAGES, request_kwargs={}),
            await router.async_get_available_deployment(model=group, messages=MESSAGES, request_kwargs={}),
        ]
    return [one["model_info"]["id"] for one in picked]


def candidate(router: Any, name: str, group: str = "main") -> Candidate:
    """One of its deployments."""
    found = next(one for one in router.get_model_list(model_name=group) if one["model_info"]["id"] == name)
    return Candidate(group, found, {})


@pytest.fixture
def router(world) -> Any:
    """One that itself would always take "a"."""
    return world.router(entry("a", weight=1), entry("b", weight=0), entry("c", "other"))


async def test_within_an_attempt_the_router_is_told(router):
    """An attempt's deployment is the one that the Router takes, whatever it would take itself."""
    ResilientStrategy(router)
    with chosen(candidate(router, "b")):
        assert await told(router) == ["b", "b"]
    assert await told(router) == ["a", "a"]


async def test_another_group_is_not_the_attempt_s(router):
    """A call for another group from within an attempt (a callback's, say) is chosen for as ever."""
    ResilientStrategy(router)
    with chosen(candidate(router, "b")):
        assert await told(router, "other") == ["c", "c"]


async def test_attempts_may_lie_in_one_another(router):
    """The inner attempt's deployment is told within it, and the outer one's behind it."""
    ResilientStrategy(router)
    with chosen(candidate(router, "b")):
        with chosen(candidate(router, "a")):
            assert await told(router) == ["a", "a"]
        assert await told(router) == ["b", "b"]


async def test_the_choice_is_given_back(router):
    """Once removed it tells nothing."""
    ResilientStrategy(router).remove()
    with chosen(candidate(router, "b")):
        assert await told(router) == ["a", "a"]


async def test_removed_with_the_rest_it_tells_nothing(router, namespace):
    """What `install` registered is taken off by `remove`."""
    install(router, namespace=namespace).remove()
    with chosen(candidate(router, "b")):
        assert await told(router) == ["a", "a"]
