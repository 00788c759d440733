"""Who may answer a request: the deployments of its group, then those of its fallback groups; or that is for LiteLLM alone to say."""

from typing import Any

import pytest
from litellm.types.router import RouterRateLimitError

from litellm_hooks.candidates import UNTOUCHED, Candidates
from litellm_hooks.router import RouterFace
from tests.litellm_hooks.test_router import entry
from tests.litellm_hooks.world import MESSAGES


def request(model: Any = "main", **more: Any) -> dict[str, Any]:
    """A request's arguments."""
    return {"model": model, "messages": MESSAGES, **more}


def asked(rungs: Any) -> list[list[tuple[str, str]]]:
    """By rung, under which group whom."""
    return [[(one.group, one.id) for one in rung] for rung in rungs]


async def test_a_group_s_own_come_first(world):
    """The group's deployments, then those of each fallback group in turn, each asked under its own group."""
    router = world.router(
        entry("a"),
        entry("b", "next", order=1),
        entry("c", "next", order=2),
        entry("d", "last"),
        fallbacks=[{"main": ["next", "last"]}],
    )
    rungs = await Candidates(RouterFace(router)).of(request())
    assert asked(rungs) == [[("main", "a")], [("next", "b")], [("next", "c")], [("last", "d")]]


async def test_a_fallback_s_own_words_go_with_it(world):
    """What a fallback entry says beside its group is what its deployments are asked."""
    router = world.router(entry("a"), entry("b", "next"))
    rungs = await Candidates(RouterFace(router)).of(request(fallbacks=[{"model": "next", "temperature": 0.0}]))
    assert [rung[0].overrides for rung in rungs] == [{}, {"temperature": 0.0}]


@pytest.mark.parametrize("name", UNTOUCHED)
async def test_what_litellm_is_to_play_is_left_to_it(world, name: str):
    """A request for a mock answer, or for a played failure, is none of ours."""
    candidates = Candidates(RouterFace(world.router(entry("a"))))
    assert await candidates.of(request(**{name: "x"})) is None
    assert await candidates.of(request(**{name: None})) is not None


async def test_what_litellm_turns_down_is_left_to_it(world):
    """An unknown group, and what is no group at all, are LiteLLM's to tell of."""
    candidates = Candidates(RouterFace(world.router(entry("a"))))
    assert await candidates.of(request("nobody")) is None
    assert await candidates.of(request(["main"])) is None


async def test_a_group_that_cools_down_leaves_its_fallbacks(world):
    """Where LiteLLM cools down all of a group its fallback groups may answer; without any its own error is raised, which no retry repeats."""
    router = world.router(entry("a"), entry("b", "next"))
    router.cooldown_cache.add_deployment_to_cooldown("a", ValueError("x"), 500, 60.0)
    candidates = Candidates(RouterFace(router))
    assert asked(await candidates.of(request(fallbacks=["next"]))) == [[("next", "b")]]
    with pytest.raises(RouterRateLimitError) as caught:
        await candidates.of(request())
    assert caught.value.num_retries == 0


async def test_a_fallback_group_that_nobody_knows_is_left_out(world):
    """A fallback group without deployments does not keep the others from answering."""
    router = world.router(entry("a"), entry("b", "next"))
    rungs = await Candidates(RouterFace(router)).of(request(fallbacks=["nobody", "next"]))
    assert asked(rungs) == [[("main", "a")], [("next", "b")]]


async def test_a_fallback_group_that_a_caller_may_not_use_is_left_out(world):
    """Where the Router's checks keep a caller from a fallback group, nobody of it answers."""
    face = RouterFace(world.router(entry("a"), entry("b", "next"), entry("c", "last")))

    async def allows(group: str, request: Any) -> bool:
        return group != "next"

    face.allows = allows
    rungs = await Candidates(face).of(request(fallbacks=["next", "last"]))
    assert asked(rungs) == [[("main", "a")], [("last", "c")]]


async def test_another_chain_has_no_first(world):
    """The candidates of a chain for a failure of its own are that chain's alone; without a chain there are none."""
    router = world.router(entry("a"), entry("b", "big"), context_window_fallbacks=[{"main": ["big"]}])
    candidates = Candidates(RouterFace(router))
    assert asked(await candidates.others(request(), "context_window_fallbacks")) == [[("big", "b")]]
    assert await candidates.others(request(), "content_policy_fallbacks") is None
