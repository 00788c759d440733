"""Who may answer a request: the deployments of its group, then those of its fallback groups; or that is for LiteLLM alone to say."""

from typing import Any

import pytest
from litellm.types.router import RouterRateLimitError

from litellm_hooks.candidates import CHAINS, UNTOUCHED, Candidates
from litellm_hooks.router import RouterFace
from tests.litellm_hooks.test_router import entry
from tests.litellm_hooks.world import MESSAGES


def request(model: Any = "main", **more: Any) -> dict[str, Any]:
    """A request's arguments."""
    return {"model": model, "messages": MESSAGES, **more}


def asked(lineup: Any) -> list[list[tuple[str, str]]]:
    """By rung, under which group whom."""
    return [[(one.group, one.id) for one in rung] for rung in lineup.rungs]


def unsure(lineup: Any) -> list[str]:
    """Of whom LiteLLM has not said yet that they may answer."""
    return [one.id for rung in lineup.rungs for one in rung if not one.sure]


async def granted(lineup: Any) -> list[str]:
    """Who may answer after all."""
    found = [await lineup.deployment(one) for rung in lineup.rungs for one in rung]
    return [one["model_info"]["id"] for one in found if one is not None]


def counted(router: Any) -> list[str]:
    """The groups for which the Router's filters are run from now on."""
    groups: list[str] = []
    name = "select" if hasattr(router, "select") else "async_get_healthy_deployments"
    own = getattr(router, name)

    async def counting(*args: Any, **kwargs: Any) -> Any:
        groups.append(args[0] if args else kwargs["model"])
        return await own(*args, **kwargs)

    setattr(router, name, counting)
    return groups


async def test_a_group_s_own_come_first(world):
    """The group's deployments, then those of each fallback group in turn, each asked under its own group."""
    router = world.router(
        entry("a"),
        entry("b", "next", order=1),
        entry("c", "next", order=2),
        entry("d", "last"),
        fallbacks=[{"main": ["next", "last"]}],
    )
    lineup = await Candidates(RouterFace(router)).of(request())
    assert asked(lineup) == [[("main", "a")], [("next", "b")], [("next", "c")], [("last", "d")]]


async def test_a_fallback_s_own_words_go_with_it(world):
    """What a fallback entry says beside its group is what its deployments are asked."""
    router = world.router(entry("a"), entry("b", "next"))
    lineup = await Candidates(RouterFace(router)).of(request(fallbacks=[{"model": "next", "temperature": 0.0}]))
    assert [rung[0].overrides for rung in lineup.rungs] == [{}, {"temperature": 0.0}]


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
    lineup = await Candidates(RouterFace(router)).of(request(fallbacks=["nobody", "next"]))
    assert asked(lineup) == [[("main", "a")], [("next", "b")]]


async def test_a_fallback_group_that_a_caller_may_not_use_is_left_out(world):
    """Where the Router's checks keep a caller from a fallback group, nobody of it answers."""
    face = RouterFace(world.router(entry("a"), entry("b", "next"), entry("c", "last")))

    async def allows(group: str, request: Any) -> bool:
        return group != "next"

    face.allows = allows
    lineup = await Candidates(face).of(request(fallbacks=["next", "last"]))
    assert await granted(lineup) == ["a", "c"]


async def test_only_the_nearest_are_filtered_before_somebody_else_is_needed(world):
    """LiteLLM's filters run once for a healthy request, and once for each further rung when one of it is about to be asked."""
    router = world.router(entry("a", order=1), entry("b", order=2), entry("c", "next"), entry("d", "next"))
    groups = counted(router)
    lineup = await Candidates(RouterFace(router)).of(request(fallbacks=["next"]))
    assert (groups, unsure(lineup)) == (["main"], ["b", "c", "d"])
    assert await granted(lineup) == ["a", "b", "c", "d"]
    assert groups == ["main", "main", "next"]


@pytest.mark.parametrize("cool", ["", "b", "bc"])
@pytest.mark.parametrize("group", ["main", "next"])
async def test_who_has_no_order_answers_as_in_litellm(world, group: str, cool: str):
    """A deployment without an `order` is the last of its group, first or fallback, and may answer once LiteLLM cools down all that have one."""
    router = world.router(
        entry("a", order=1), entry("b", group, order=2), entry("c", group, order=3), entry("d", group), fallbacks=[{"main": ["next"]}]
    )  # fmt: skip
    lineup = await Candidates(RouterFace(router)).of(request())
    assert [one.id for rung in lineup.rungs for one in rung] == ["a", "b", "c", "d"]
    for name in cool + ("a" if cool == "bc" and group == "main" else ""):
        router.cooldown_cache.add_deployment_to_cooldown(name, ValueError("x"), 500, 60.0)
    assert await granted(lineup) == ["a", *(name for name in "bc" if name not in cool), *("d" if cool == "bc" else "")]


async def test_who_cools_down_is_found_out_when_needed(world):
    """A further one that LiteLLM cools down, or all of its rung, may not answer; one that is well may."""
    router = world.router(entry("a", order=1), entry("b", order=2), entry("c", "next"), entry("d", "next"))
    lineup = await Candidates(RouterFace(router)).of(request(fallbacks=["next"]))
    for name in "bc":
        router.cooldown_cache.add_deployment_to_cooldown(name, ValueError("x"), 500, 60.0)
    assert await granted(lineup) == ["a", "d"]


async def test_tags_are_asked_of_further_ones_too(world):
    """A deployment whose tags a request does not bear may not answer it, on whatever rung it stands."""
    router = world.router(
        entry("a", order=1, tags=["free"]),
        entry("b", order=2, tags=["paid"]),
        entry("c", order=3, tags=["free"]),
        enable_tag_filtering=True,
    )
    lineup = await Candidates(RouterFace(router)).of(request(metadata={"tags": ["free"]}))
    assert await granted(lineup) == ["a", "c"]


async def test_what_a_wildcard_serves(world):
    """A fallback group that a wildcard serves is answered by a deployment of the model that was asked for."""
    router = world.router(entry("a"), entry("w", "openai/*", model="openai/*"))
    lineup = await Candidates(RouterFace(router)).of(request(fallbacks=["openai/gpt-4.1"]))
    assert (asked(lineup), await granted(lineup)) == ([[("main", "a")], [("openai/gpt-4.1", "w")]], ["a", "w"])
    told = [lineup.rungs[1][0].deployment, await lineup.deployment(lineup.rungs[1][0])]
    assert [one["litellm_params"]["model"] for one in told] == ["openai/gpt-4.1"] * 2


async def test_a_team_s_own_deployments_stand_for_a_group(world):
    """A fallback group of which a team has deployments of its own is, for that team, those; for others it is the others."""
    mine = entry("mine", "spare_team_red_1")
    mine["model_info"] |= {"team_id": "red", "team_public_model_name": "spare"}
    router = world.router(entry("a"), entry("b", "spare"), mine)
    lineup = await Candidates(RouterFace(router)).of(
        request(fallbacks=["spare"], metadata={"user_api_key_team_id": "red"})
    )
    assert "mine" in await granted(lineup)
    assert await granted(await Candidates(RouterFace(router)).of(request(fallbacks=["spare"]))) == ["a", "b"]


async def test_another_chain_has_no_first(world):
    """The candidates of a chain for a failure of its own are that chain's alone; without a chain there are none."""
    router = world.router(entry("a"), entry("b", "big"), context_window_fallbacks=[{"main": ["big"]}])
    candidates = Candidates(RouterFace(router))
    assert asked(await candidates.others(request(), "context_window_fallbacks")) == [[("big", "b")]]
    assert await candidates.others(request(), "content_policy_fallbacks") is None


OWN_KEY = {"model": "next", "api_key": "k"}


@pytest.mark.parametrize(
    "own",
    [
        {"api_key": "k"},
        {"api_key": None},
        {"api_base": "http://x"},
        {"base_url": "http://x"},
        {"organization": "o"},
        {"litellm_credential_name": "mine"},
        {"aws_session_token": "t"},
        {"extra_headers": {"Authorization": "Bearer k"}},
        {"provider_specific_header": {"custom_llm_provider": "anthropic", "extra_headers": {"x-api-key": "k"}}},
        {"provider_specific_header": [{"custom_llm_provider": "openai", "extra_headers": {"authorization": "k"}}]},
        {"fallbacks": [OWN_KEY]},
        {"fallbacks": [{"main": [OWN_KEY]}]},
        {"context_window_fallbacks": [{"main": [OWN_KEY]}]},
    ],
)
async def test_a_caller_s_own_account_is_litellm_s_alone(world, own: dict[str, Any]):
    """A request that brings a credential or an endpoint of its own, itself or in its own fallbacks, is nobody's to learn from."""
    router = world.router(entry("a"), entry("b", "next"))
    assert await Candidates(RouterFace(router)).of(request(**own)) is None


@pytest.mark.parametrize(
    "told",
    [
        {"extra_headers": {"x-trace": "1"}},
        {"provider_specific_header": {"extra_headers": {"anthropic-beta": "x"}}},
        {"headers": None},
        {"api_version": "2025-01-01"},
        {"fallbacks": [{"model": "next", "temperature": 0.0}]},
    ],
)
async def test_what_is_no_account_stays_ours(world, told: dict[str, Any]):
    """Headers, versions and overrides that name no account and no endpoint leave a request to the engine, and so does an operator's own chain."""
    router = world.router(entry("a"), entry("b", "next"), fallbacks=[{"main": [OWN_KEY]}])
    assert await Candidates(RouterFace(router)).of(request(**told)) is not None


@pytest.mark.parametrize("chain", CHAINS)
@pytest.mark.parametrize("told", [[None], [{"main": [None]}], 7])
async def test_fallbacks_that_are_no_groups_are_litellm_s_to_tell(world, chain: str, told: Any):
    """A request whose fallbacks make no sense is left to LiteLLM."""
    router = world.router(entry("a"))
    assert await Candidates(RouterFace(router)).of(request(**{chain: told})) is None


async def test_a_router_s_fallbacks_that_are_no_groups_fail_nothing(world):
    """A Router whose own fallbacks make no sense serves by itself, and its chain for a failure has nobody."""
    router = world.router(entry("a"), **{chain: [{"main": [None]}] for chain in CHAINS})
    candidates = Candidates(RouterFace(router))
    assert await candidates.of(request()) is None
    assert await candidates.others(request(), "context_window_fallbacks") is None
