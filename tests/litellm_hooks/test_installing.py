"""A Router with the engine on it: it survives what the bare one does not, and is otherwise the Router that its users know."""

import asyncio
import copy
from collections import Counter
from collections.abc import Iterator
from typing import Any

import litellm
import pytest

from langchain_resilient import SettingsError, capture_decisions
from langchain_resilient.testing import Fault
from litellm_hooks import Installed, install
from litellm_hooks.installing import installed_on
from litellm_hooks.upstream import NOTE
from tests.litellm_hooks.test_router import entry
from tests.litellm_hooks.world import (
    MESSAGES,
    TEXT,
    WAYS,
    asked_of,
    force,
    is_clean,
    nothing_held,
    target_of,
)
from tests.servers import until

pytestmark = pytest.mark.e2e

DEAD = Fault.status(503)
TOOLS = [{"type": "function", "function": {"name": "rain", "parameters": {"type": "object", "properties": {}}}}]


# ----------------------------------------------------------------------------------------------------- putting it there
def test_what_is_no_router_is_refused():
    """`install` names what it was given, and what to give."""
    with pytest.raises(SettingsError, match=r"router: got 'str'; give a litellm\.Router"):
        install("main")


def test_a_mistake_leaves_the_router_as_it_was(world):
    """Settings that make no sense are refused before anything is replaced, and what was installed stays."""
    router = world.router(world.deployment(world.server()))
    with pytest.raises(SettingsError, match="timeouts"):
        install(router, timeout={})
    assert installed_on(router) is None and "acompletion" not in vars(router)
    installed = world.install(router)
    with pytest.raises(SettingsError):
        install(router, timeout={})
    assert installed_on(router) is installed


@pytest.mark.parametrize("way", WAYS)
async def test_removed_it_is_the_bare_router_again(world, way: str):
    """`remove` puts back what was there: calls, the choice of deployment, and no trace of us on the Router."""
    dead = world.server()
    dead.always(DEAD)
    router = world.router(world.deployment(dead), num_retries=0)
    before = router.completion, router.acompletion
    installed = world.install(router)
    assert (router.completion, router.acompletion) == (installed.completion, installed.acompletion)
    installed.remove()
    assert (router.completion, router.acompletion) == before and installed_on(router) is None
    with capture_decisions() as decisions, pytest.raises(litellm.ServiceUnavailableError):
        await world.ask(router, way)
    assert decisions == []


async def test_installed_again_the_new_settings_count(world):
    """A second `install` replaces the settings of the first, and one `remove` takes all off."""
    server = world.server()
    router = world.router(world.deployment(server))
    own = router.acompletion
    world.install(router, deployments={"a": {"limits": {"rpm": 1, "burst": 1, "max_wait": 0}}})
    second = world.install(router, namespace=world.namespace + "-2")
    for _ in range(3):
        assert (await world.ask(router)).text == TEXT
    assert server.count == 3
    second.remove()
    assert router.acompletion == own


async def test_a_change_of_the_router_s_settings_does_not_put_it_off(world):
    """A routing strategy that is set later, as the Proxy does from its database, takes no request from the engine."""
    dead, well = world.server(), world.server()
    dead.always(DEAD)
    router = world.resilient(world.deployment(dead, "a", order=1), world.deployment(well, "b", order=2), num_retries=0)
    router.update_settings(routing_strategy="least-busy")
    for way in WAYS:
        with capture_decisions() as decisions:
            assert (await world.ask(router, way)).text == TEXT
        assert len(decisions) == 1
    await nothing_held(router)


async def test_two_routers_do_not_disturb_one_another(world):
    """What is installed on one Router of a process, and removed from it, is none of the other's."""
    one, two = world.server("one"), world.server("two")
    first, second = world.router(world.deployment(one)), world.router(world.deployment(two))
    installed = world.install(first)
    bare = await world.ask(second)
    assert installed_on(second) is None and bare.text == "two"
    world.install(second, namespace=world.namespace + "-2")
    force(first, "a", "forced_open")
    assert (await world.ask(second)).text == "two"
    force(first, "a", None)
    installed.remove()
    with capture_decisions() as decisions:
        assert [(await world.ask(router)).text for router in (first, second)] == ["one", "two"]
    assert len(decisions) == 1


async def test_what_was_replaced_removes_nothing(world):
    """`remove` of what another `install` has replaced leaves the new one where it is, and so does a second `remove`."""
    router = world.router(world.deployment(world.server()))
    first, second = world.install(router), world.install(router)
    first.remove()
    assert installed_on(router) is second and router.acompletion == second.acompletion
    second.remove()
    third = world.install(router)
    second.remove()
    assert installed_on(router) is third and router.acompletion == third.acompletion


@pytest.mark.parametrize("way", WAYS)
async def test_a_copy_of_a_router_is_another(world, way: str):
    """What is installed on a copy of a Router is the copy's alone, and answers by itself: the original keeps its own."""
    router = world.router(world.deployment(world.server()))
    mine = world.install(router)
    other = copy.copy(router)
    assert installed_on(other) is None
    its = world.install(other, namespace=world.namespace + "-2")
    assert (installed_on(router), installed_on(other)) == (mine, its)
    assert (router.acompletion, other.acompletion) == (mine.acompletion, its.acompletion)
    for asked, counted in ((router, mine), (other, its)):
        before = [one.assembly.store.settled.total() for one in (mine, its)]
        with capture_decisions() as decisions:
            assert (await world.ask(asked, way)).text == TEXT
        assert len(decisions) == 1
        await nothing_held(asked)
        after = [one.assembly.store.settled.total() for one in (mine, its)]
        assert [a - b for a, b in zip(after, before, strict=True)] == [int(one is counted) for one in (mine, its)]
    its.remove()
    assert installed_on(router) is mine


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("change", ["removed", "installed anew", "other settings"])
async def test_a_request_under_way_keeps_its_choice(world, change: str, way: str):
    """Whatever happens to the Router while a provider is asked, the next attempt is made where it is booked."""
    first, second = world.server(), world.server("second")
    first.schedule(Fault.status(503, delay=0.2))
    router = world.router(world.deployment(first, "a", order=1), world.deployment(second, "b", order=2), num_retries=0)
    installed = world.install(router, retry={"max_retries": 0})
    with capture_decisions() as decisions:
        asking = asyncio.create_task(world.ask(router, way))
        await asyncio.to_thread(first.wait_for, 1)
        if change == "removed":
            installed.remove()
        elif change == "installed anew":
            world.install(router)
        else:
            router.update_settings(routing_strategy="least-busy")
        assert (await asking).text == "second"
    assert asked_of(decisions) == Counter(a=1, b=1)
    assert (first.count, second.count) == (1, 1)


# ------------------------------------------------------------------------------------------------------ whom it reaches
@pytest.mark.parametrize("way", WAYS)
async def test_one_dead_of_three_is_never_seen(world, way: str):
    """Three deployments, no fallbacks, one dead: every request is answered, and the dead one is soon left alone."""
    servers = [world.server() for _ in range(3)]
    servers[0].always(DEAD)
    router = world.resilient(*[world.deployment(server, name) for server, name in zip(servers, "abc", strict=True)])
    assert [(await world.ask(router, way)).text for _ in range(30)] == [TEXT] * 30
    assert servers[0].count <= 8
    await nothing_held(router)


@pytest.mark.parametrize("way", WAYS)
async def test_an_open_circuit_s_fallback_answers_at_once(world, way: str):
    """A group of one whose circuit is open, and a fallback group: the fallback is asked once, nobody else, and nobody waits."""
    first, second = world.server(), world.server()
    router = world.router(
        world.deployment(first), world.deployment(second, "b", "spare"), fallbacks=[{"main": ["spare"]}]
    )
    installed = world.install(router)
    slept: list[float] = []
    installed.assembly.clock.sleep = lambda seconds, *_: slept.append(seconds)
    force(router, "a", "forced_open")
    with capture_decisions() as decisions:
        assert (await world.ask(router, way)).text == TEXT
    assert (first.count, second.count, slept) == (0, 1, [])
    assert [attempt.wait for attempt in decisions[0].attempts] == [0.0]


@pytest.mark.parametrize("way", WAYS)
async def test_a_server_that_is_gone_is_survived(world, way: str):
    """Where nobody listens the next deployment answers."""
    gone, well = world.server(), world.server()
    gone.refuse()
    router = world.resilient(world.deployment(gone, "a", order=1), world.deployment(well, "b", order=2))
    assert (await world.ask(router, way)).text == TEXT
    await nothing_held(router)


@pytest.mark.parametrize("way", ["async", "sync"])
async def test_requests_follow_the_weights(world, way: str):
    """Of two siblings of weights 9 and 1 the first is asked nine times in ten, and one of weight 0 not at all."""
    servers = [world.server("x") for _ in range(3)]
    weights = (9, 1, 0)
    router = world.resilient(
        *[
            world.deployment(server, name, weight=weight)
            for server, name, weight in zip(servers, "abc", weights, strict=True)
        ]
    )
    for _ in range(100):
        await world.ask(router, way)
    counts = [server.count for server in servers]
    assert sum(counts) == 100 and counts[2] == 0
    assert 75 <= counts[0] <= 99  # five standard deviations


async def test_limits_hold(world):
    """`rpm` of a deployment is a limit: what is beyond goes to its sibling, or is refused with the time to wait."""
    first, second = world.server(), world.server()
    own = {"limits": {"rpm": 5, "burst": 5, "max_wait": 0}}
    router = world.router(world.deployment(first, "a", order=1), world.deployment(second, "b", order=2))
    world.install(router, deployments={"a": own, "b": own})
    await asyncio.gather(*[world.ask(router) for _ in range(10)])
    assert (first.count, second.count) == (5, 5)
    with pytest.raises(litellm.RateLimitError) as caught:
        await world.ask(router)
    assert 1 <= int(caught.value.litellm_response_headers["retry-after"]) <= 12
    assert first.count + second.count == 10


async def test_litellm_s_rpm_is_a_limit(world):
    """`rpm` of the `model_list` alone limits a deployment too, as the engine spreads it over the minute."""
    server = world.server()
    router = world.resilient(world.deployment(server, rpm=60))
    target, store = target_of(router, "a"), installed_on(router).assembly.store
    assert target.limits.rpm == 60
    await world.ask(router)
    assert store.status(target)["limits_free"]["rpm"] < 1.0


# --------------------------------------------------------------------------------------------------- how it ends badly
@pytest.mark.parametrize("way", WAYS)
async def test_the_caller_s_own_mistake_is_told_at_once(world, way: str):
    """A 400 is raised as LiteLLM's BadRequestError after one attempt, and nobody else is asked."""
    first, second = world.server(), world.server()
    first.always(Fault.status(400))
    router = world.resilient(
        world.deployment(first, "a", order=1), world.deployment(second, "b", order=2), num_retries=3
    )
    with pytest.raises(litellm.BadRequestError) as caught:
        await world.ask(router, way)
    assert type(caught.value) is litellm.BadRequestError
    assert (first.count, second.count) == (1, 0)
    await nothing_held(router)


@pytest.mark.parametrize("way", WAYS)
async def test_where_all_refuse_the_caller_is_told_when_to_come_again(world, way: str):
    """With every circuit open nothing is sent: LiteLLM's ServiceUnavailableError, with retry-after, that its retries leave alone."""
    servers = [world.server() for _ in range(2)]
    for server in servers:
        server.always(DEAD)
    router = world.router(
        *[world.deployment(server, name) for server, name in zip(servers, "ab", strict=True)], num_retries=2
    )
    world.install(
        router, circuit={"failure_threshold": 1, "recovery_timeout": 30.0}, retry={"base_delay": 0.0, "max_retries": 0}
    )
    before = None
    while before != (before := [server.count for server in servers]):  # the first who find all open may look early
        with pytest.raises(litellm.ServiceUnavailableError) as caught:
            await world.ask(router, way)
    assert sum(before) <= 6
    assert caught.value.num_retries == 0
    assert 20 <= int(caught.value.litellm_response_headers["retry-after"]) <= 33
    await nothing_held(router)


@pytest.mark.parametrize("way", WAYS)
async def test_a_tool_call_is_not_continued(world, way: str):
    """A stream that breaks within a tool call is an error, as nobody else can go on with it; an unstreamed one is asked for anew."""
    first, second = world.server(), world.server()
    for server in (first, second):
        server.answer_with_tool("rain", {"place": "the hills behind the town", "when": "by noon"})
    first.always(Fault.reset_after(2))
    router = world.resilient(world.deployment(first, "a", order=1), world.deployment(second, "b", order=2))
    if "stream" in way:
        with pytest.raises(litellm.APIConnectionError):
            await world.ask(router, way, tools=TOOLS)
        assert second.count == 0
    else:
        answer = await world.ask(router, way, tools=TOOLS)
        assert answer.response.choices[0].message.tool_calls[0].function.name == "rain"
    await nothing_held(router)


@pytest.mark.parametrize("way", WAYS)
async def test_a_caller_s_own_credential_blocks_nobody_else(world, way: str):
    """A 401 for a key that a request brought is its caller's alone: the deployment's own key goes on."""
    server = world.server()
    router = world.resilient(world.deployment(server), num_retries=0)
    server.schedule(Fault.status(401))
    with pytest.raises(litellm.AuthenticationError):
        await world.ask(router, way, api_key="the caller's own")
    assert server.requests[-1].headers["authorization"] == "Bearer the caller's own"
    assert (await world.ask(router, way)).text == TEXT


@pytest.mark.parametrize("way", WAYS)
async def test_a_fallback_entry_s_own_credential_has_its_own_account(world, way: str):
    """A 401 for a key that a fallback entry names blocks that entry, and not the deployment under its own key."""
    first, second = world.server(), world.server("second")
    first.always(DEAD)
    second.schedule(Fault.status(401))
    router = world.resilient(
        world.deployment(first), world.deployment(second, "b", "spare"), num_retries=0,
        fallbacks=[{"main": [{"model": "spare", "api_key": "the entry's own"}]}],
    )  # fmt: skip
    with capture_decisions() as decisions:
        with pytest.raises(litellm.ServiceUnavailableError):
            await world.ask(router, way)
        assert second.requests[-1].headers["authorization"] == "Bearer the entry's own"
        assert (await world.ask(router, way, model="spare")).text == "second"
    assert len(decisions) == 2
    await nothing_held(router)


LIMITS = {"async": "timeout", "sync": "request_timeout", "async stream": "stream_timeout", "sync stream": "timeout"}


@pytest.mark.parametrize("way", WAYS)
async def test_a_caller_s_own_limit_tells_nothing_of_the_provider(world, way: str):
    """A request that gives up sooner than all others gets LiteLLM's own timeout, and opens no circuit."""
    server = world.server()
    router = world.router(world.deployment(server))
    world.install(router, circuit={"failure_threshold": 1}, retry={"max_retries": 0})
    server.always(Fault.hang())
    for _ in range(2):  # of a model that nobody has seen answer yet each second timeout counts
        with pytest.raises(litellm.Timeout) as caught:
            await world.ask(router, way, **{LIMITS[way]: 0.1})
        assert caught.value.llm_provider == "openai"
    await nothing_held(router)
    assert installed_on(router).assembly.store.status(target_of(router, "a"))["circuit"] == "closed"


@pytest.mark.parametrize("way", WAYS)
async def test_a_caller_s_own_limit_is_each_attempt_s(world, way: str):
    """As with LiteLLM alone, who does not answer within it is followed by the next, who has as long."""
    first, second = world.server(), world.server("second")
    first.always(Fault.hang())
    router = world.router(world.deployment(first, "a", order=1), world.deployment(second, "b", order=2))
    world.install(router, retry={"max_retries": 0})
    with capture_decisions() as decisions:
        assert (await world.ask(router, way, **{LIMITS[way]: 0.5})).text == "second"
    assert [attempt.limit for attempt in decisions[0].attempts] == ["deadline", None]
    await nothing_held(router)


@pytest.mark.parametrize("way", WAYS)
async def test_a_deployment_s_own_limit_tells_of_the_provider(world, way: str):
    """The limit that the `model_list` sets is no caller's: who outlives it fails."""
    server = world.server()
    router = world.router(world.deployment(server, timeout=0.1))
    world.install(router, circuit={"failure_threshold": 1}, retry={"max_retries": 0})
    server.always(Fault.hang())
    for _ in range(2):
        with pytest.raises((litellm.Timeout, litellm.ServiceUnavailableError)):
            await world.ask(router, way)
    assert installed_on(router).assembly.store.status(target_of(router, "a"))["circuit"] == "open"


@pytest.mark.parametrize("way", WAYS)
async def test_numbers_that_make_no_sense_fail_nobody(world, way: str):
    """Limits, prices and windows that can't be meant are none, whether their deployment is asked or only stands in line."""
    server = world.server()
    odd = {"rpm": 0, "tpm": "0", "max_parallel_requests": 0, "input_cost_per_token": -1, "output_cost_per_token": 0}
    model = "openai/odd"  # LiteLLM's Router writes prices and windows into a table of all models
    spare = world.deployment(server, "b", "spare", model=model, **odd)
    spare["model_info"]["max_input_tokens"] = "8192"
    last = world.deployment(server, "c", "last", model=model, max_parallel_requests="5")
    router = world.resilient(world.deployment(server), spare, last, fallbacks=[{"main": ["spare", "last"]}])
    for model in ("main", "spare"):
        assert (await world.ask(router, way, model=model)).text == TEXT
    await nothing_held(router)


# -------------------------------------------------------------------------------------------- LiteLLM's other fallbacks
OTHERS = {
    "context_window_fallbacks": Fault.context_overflow(),
    "content_policy_fallbacks": Fault.status(400, code="content_policy_violation"),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("chain", OTHERS)
async def test_a_failure_with_a_chain_of_its_own_goes_there(world, chain: str, way: str):
    """A prompt that is too long, or filtered, is answered by the groups that LiteLLM's setting for that names."""
    first, second = world.server(), world.server()
    first.always(OTHERS[chain])
    router = world.resilient(
        world.deployment(first), world.deployment(second, "b", "other"), **{chain: [{"main": ["other"]}]}
    )
    metadata: dict[str, Any] = {}
    assert (await world.ask(router, way, metadata=metadata)).text == TEXT
    assert (first.count, second.count) == (1, 1)
    assert metadata[NOTE] == {"provider": "openai/gpt-4.1#b", "attempts": 2}
    await nothing_held(router)


async def test_a_chain_s_answer_is_logged_anew(world):
    """What LiteLLM logs with has told of the failure already: who answers instead is asked without it."""
    asked: list[dict[str, Any]] = []
    router = world.router(entry("a"), entry("b", "other"), context_window_fallbacks=[{"main": ["other"]}])

    async def answer(**kwargs: Any) -> Any:
        asked.append(kwargs)
        if len(asked) == 1:
            raise litellm.ContextWindowExceededError("too long", "m", "openai")
        return litellm.ModelResponse()

    router.acompletion = answer
    world.install(router)
    await router.acompletion(model="main", messages=MESSAGES, litellm_logging_obj="the request's")
    assert [(one["model"], one.get("litellm_logging_obj")) for one in asked] == [
        ("main", "the request's"),
        ("other", None),
    ]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("chain", OTHERS)
async def test_without_such_a_chain_the_failure_is_told(world, chain: str, way: str):
    """A prompt that is too long, or filtered, is LiteLLM's own error where no group is named for that."""
    server = world.server()
    server.always(OTHERS[chain])
    router = world.resilient(world.deployment(server))
    expected = {
        "context_window_fallbacks": litellm.ContextWindowExceededError,
        "content_policy_fallbacks": litellm.ContentPolicyViolationError,
    }
    with pytest.raises(expected[chain]):
        await world.ask(router, way)
    await nothing_held(router)


# -------------------------------------------------------------------------------------------------------------- streams
@pytest.mark.parametrize("way", ["async stream", "sync stream"])
async def test_a_takeover_reads_as_one_text(world, way: str):
    """A stream that breaks midway is gone on with by the next deployment, and reads as one answer of the first."""
    first, second = world.server(), world.server()
    first.always(Fault.reset_after(4))
    router = world.resilient(world.deployment(first, "a", order=1), world.deployment(second, "b", order=2))
    with capture_decisions() as decisions:
        answer = await world.ask(router, way)
    assert (answer.text, decisions[0].continued) == (TEXT, 1)
    assert asked_of(decisions) == Counter(a=1, b=1)
    is_clean(answer)
    await nothing_held(router)


async def test_a_caller_who_leaves_a_stream_hangs_up(world):
    """`aclose` after some chunks hangs up on the provider, and nothing is held."""
    server = world.server()
    server.always(Fault.ok(chunk_delay=0.02))
    router = world.resilient(world.deployment(server))
    stream = await router.acompletion(model="main", messages=MESSAGES, stream=True)
    for _ in range(3):
        await anext(stream)
    await stream.aclose()
    (record,) = server.requests
    assert await asyncio.to_thread(record.wait_ended) and record.disconnected
    await nothing_held(router)


async def test_a_sync_caller_who_leaves_a_stream_hangs_up(world):
    """`close` after some chunks hangs up on the provider, and nothing is held."""
    server = world.server()
    server.always(Fault.ok(chunk_delay=0.02))
    router = world.resilient(world.deployment(server))

    def leave() -> None:
        stream = router.completion(model="main", messages=MESSAGES, stream=True)
        for _ in range(3):
            next(stream)
        stream.close()

    await asyncio.to_thread(leave)
    (record,) = server.requests
    assert await asyncio.to_thread(record.wait_ended) and record.disconnected
    await nothing_held(router)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_caller_who_is_cancelled_hangs_up(world, stream: bool):
    """A task that is cancelled while a provider is silent hangs up on it, and nothing is held; it counts against nobody."""
    server = world.server()
    server.always(Fault.hang())
    router = world.resilient(world.deployment(server))
    with capture_decisions() as decisions:
        asking = asyncio.create_task(router.acompletion(model="main", messages=MESSAGES, stream=stream))
        await asyncio.to_thread(server.wait_for, 1)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
    assert [decision.outcome for decision in decisions] == ["cancelled"]
    await asyncio.to_thread(until, lambda: server.requests[0].disconnected, "it hung up", 5.0)
    await nothing_held(router)


# ------------------------------------------------------------------------------------------- LiteLLM's own keep working
class Heard(litellm.integrations.custom_logger.CustomLogger):
    """Another callback of the user's."""

    def __init__(self) -> None:
        super().__init__()
        self.events: list[tuple[str, str, str]] = []

    def note(self, what: str, kwargs: dict[str, Any]) -> None:
        told = kwargs["standard_logging_object"] or {}
        self.events.append((what, told.get("model_group"), told.get("model_id")))

    async def async_log_success_event(self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any) -> None:
        self.note("ok", kwargs)

    async def async_log_failure_event(self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any) -> None:
        self.note("failed", kwargs)


@pytest.fixture
def heard() -> Iterator[Heard]:
    """What it hears; LiteLLM keeps one callback of a class, so that it is taken off again."""
    mine = Heard()
    litellm.callbacks.append(mine)
    yield mine
    everywhere = (
        litellm._async_success_callback,
        litellm._async_failure_callback,
        litellm.success_callback,
        litellm.failure_callback,
    )
    for registered in (litellm.callbacks, litellm.input_callback, *everywhere):
        registered[:] = [one for one in registered if one is not mine]


@pytest.mark.parametrize("way", ["async", "async stream"])
async def test_other_callbacks_see_each_attempt(world, heard, way: str):
    """A callback of the user's hears of every attempt, as failed or answered, with its group and deployment."""
    first, second = world.server(), world.server()
    first.always(DEAD)
    router = world.router(
        world.deployment(first), world.deployment(second, "b", "spare"), fallbacks=[{"main": ["spare"]}]
    )
    world.install(router, retry={"max_retries": 0})
    await world.ask(router, way)
    await asyncio.to_thread(until, lambda: len(heard.events) >= 2, "both are told", 10.0)
    assert heard.events == [("failed", "main", "a"), ("ok", "spare", "b")]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "told",
    [
        {"num_retries": 5},
        {"retry_policy": litellm.RetryPolicy(InternalServerErrorRetries=5, TimeoutErrorRetries=5)},
        {"max_fallbacks": 9, "fallbacks": [{"main": ["main"]}], "num_retries": 5},
    ],
    ids="+".join,
)
async def test_litellm_s_retries_do_not_multiply_ours(world, told: dict[str, Any], way: str):
    """However often LiteLLM would try again by itself, requests are those of the engine."""
    server = world.server()
    server.always(Fault.status(500))
    router = world.router(world.deployment(server, max_retries=4), **told)
    world.install(router, retry={"max_retries": 1, "base_delay": 0.0})
    with capture_decisions() as decisions, pytest.raises(litellm.InternalServerError):
        await world.ask(router, way, num_retries=4)
    assert server.count == sum(asked_of(decisions).values()) == 2
    await nothing_held(router)


@pytest.mark.parametrize("way", WAYS)
async def test_tags_are_obeyed(world, way: str):
    """With tag filtering on, only deployments of the request's tags are asked, though one without would answer."""
    first, second = world.server("free"), world.server("paid")
    first.always(DEAD)
    router = world.resilient(
        world.deployment(first, "a", tags=["free"]),
        world.deployment(second, "b", tags=["paid"]),
        enable_tag_filtering=True,
    )
    assert (await world.ask(router, way, metadata={"tags": ["paid"]})).text == "paid"
    with pytest.raises(litellm.ServiceUnavailableError):
        await world.ask(router, way, metadata={"tags": ["free"]})
    assert second.count == 1
    await nothing_held(router)


@pytest.mark.parametrize("way", WAYS)
async def test_a_pinned_deployment_is_the_only_one(world, way: str):
    """A request whose model is a deployment's id is that deployment's alone, for better or worse."""
    first, second = world.server(), world.server("second")
    first.always(DEAD)
    router = world.resilient(world.deployment(first, "dep-a"), world.deployment(second, "dep-b"))
    assert (await world.ask(router, way, model="dep-b")).text == "second"
    with pytest.raises(litellm.ServiceUnavailableError):
        await world.ask(router, way, model="dep-a")
    assert second.count == 1
    await nothing_held(router)


@pytest.mark.parametrize("way", WAYS)
async def test_an_alias_is_its_group(world, way: str):
    """A group may be asked by an alias, and its fallbacks are those of the alias's own chain."""
    first, second = world.server(), world.server("second")
    first.always(DEAD)
    router = world.resilient(
        world.deployment(first, "a"), world.deployment(second, "b"), model_group_alias={"nick": "main"}
    )
    for _ in range(4):
        assert (await world.ask(router, way, model="nick")).text == "second"
    await nothing_held(router)


async def test_each_model_of_a_wildcard_has_its_own_circuit(world):
    """A deployment for all models of a provider is one target for each model that is asked for."""
    server = world.server()
    router = world.resilient(world.deployment(server, "w", "openai/*", model="openai/*"))
    with capture_decisions() as decisions:
        for name in ("gpt-4.1", "gpt-4o"):
            await world.ask(router, model=f"openai/{name}")
    assert [record.model for record in server.requests] == ["gpt-4.1", "gpt-4o"]
    assert [decision.provider for decision in decisions] == ["openai/gpt-4.1#w", "openai/gpt-4o#w"]


@pytest.mark.parametrize("way", WAYS)
async def test_order_is_obeyed(world, way: str):
    """The deployment of the lowest order is asked while it is well."""
    first, second = world.server("first"), world.server("second")
    router = world.resilient(world.deployment(second, "b", order=2), world.deployment(first, "a", order=1))
    assert [(await world.ask(router, way)).text for _ in range(5)] == ["first"] * 5


async def test_a_spent_budget_is_obeyed(world):
    """A deployment whose budget is spent is not asked, as LiteLLM's own filter says so."""
    first, second = world.server("first"), world.server("second")
    router = world.resilient(
        world.deployment(first, "a", max_budget=0.000000000001, budget_duration="1d", order=1),
        world.deployment(second, "b", order=2),
    )
    await asyncio.sleep(0)
    assert (await world.ask(router)).text == "first"

    async def moved_on() -> bool:
        return (await world.ask(router)).text == "second"

    for _ in range(100):
        if await moved_on():
            break
        await asyncio.sleep(0.05)
    else:
        pytest.fail("the budget's spending never counted")
    before = first.count
    assert [(await world.ask(router)).text for _ in range(3)] == ["second"] * 3
    assert first.count == before


@pytest.mark.parametrize("way", WAYS)
async def test_litellm_s_cooldowns_may_stay_on(world, way: str):
    """With LiteLLM's own cooldowns at their strictest every request is answered all the same."""
    first, second = world.server(), world.server()
    first.always(DEAD)
    router = world.resilient(
        world.deployment(first, "a"), world.deployment(second, "b"), allowed_fails=0, cooldown_time=60
    )
    assert [(await world.ask(router, way)).text for _ in range(10)] == [TEXT] * 10
    await nothing_held(router)


async def test_other_kinds_of_request_are_untouched(world):
    """Embeddings and images are LiteLLM's alone: answered as ever, whatever the circuits say, and no decision of ours."""
    server = world.server()
    router = world.resilient(
        world.deployment(server, "e", "vectors", model="openai/text-embedding-3-small", mock_response=[0.5]),
        world.deployment(server, "i", "images", model="openai/gpt-image-1", mock_response="https://127.0.0.1/x.png"),
    )
    with capture_decisions() as decisions:
        assert (await router.aembedding(model="vectors", input=["a"])).data[0]["embedding"]
        found = await asyncio.to_thread(router.embedding, model="vectors", input=["a"])
        assert found.data[0]["embedding"]
        assert (await router.aimage_generation(model="images", prompt="a")).data[0].url.endswith("x.png")
        assert (
            (await asyncio.to_thread(router.image_generation, model="images", prompt="a")).data[0].url.endswith("x.png")
        )
    assert decisions == []


@pytest.mark.parametrize("way", WAYS)
async def test_a_mock_answer_is_litellm_s(world, way: str):
    """A request for a mock answer is answered by LiteLLM, and sent to nobody."""
    server = world.server()
    router = world.resilient(world.deployment(server))
    with capture_decisions() as decisions:
        assert (await world.ask(router, way, mock_response="played")).text == "played"
    assert decisions == [] and server.count == 0


async def test_an_unknown_group_is_litellm_s_error(world):
    """A model that the Router does not have is refused in LiteLLM's own words."""
    router = world.resilient(world.deployment(world.server()))
    with pytest.raises(litellm.BadRequestError, match="nobody"):
        await world.ask(router, model="nobody")


@pytest.mark.parametrize("way", ["async", "sync"])
async def test_a_hang_is_seen_early_where_calls_are_watched(world, way: str):
    """With `watch_calls` an unstreamed call is streamed inside: its hang is seen at the first-token limit, and the answer is whole."""
    first, second = world.server(), world.server()
    first.always(Fault.hang())
    router = world.router(world.deployment(first, "a", order=1), world.deployment(second, "b", order=2))
    world.install(router, timeouts={"watch_calls": True, "first_token": 0.5, "response": 30.0})
    with capture_decisions() as decisions:
        answer = await world.ask(router, way)
    assert answer.text == TEXT
    assert [attempt.limit for attempt in decisions[0].attempts] == ["first_token", None]
    assert [record.stream for record in second.requests] == [True]
    is_clean(answer)
    await nothing_held(router)


@pytest.mark.parametrize("way", WAYS)
async def test_a_hedge_asks_another_beside_a_late_one(world, way: str):
    """Once a provider's usual time is known, one who is later is raced: the answer is whole, and is told once."""
    first, second = world.server("x"), world.server("x")
    router = world.router(world.deployment(first, "a", order=1), world.deployment(second, "b", order=2))
    world.install(router, hedge={"max_fraction": 1.0, "quantile": 0.99})
    force(router, "b", "forced_open")  # a busy machine may be late while the usual time is learnt
    for _ in range(25):
        await world.ask(router, way)
    force(router, "b", None)
    first.always(Fault.slow(3.0))
    with capture_decisions() as decisions:
        answer = await world.ask(router, way)
    assert answer.text == "x" and decisions[0].hedged and second.count == 1
    is_clean(answer)
    first.kill()
    await nothing_held(router)


async def test_the_streams_of_litellm_s_users_are_read_as_ever(world):
    """Options of a stream reach the provider: with `include_usage` the last chunk tells of the tokens."""
    router = world.resilient(world.deployment(world.server()))
    answer = await world.ask(router, "async stream", stream_options={"include_usage": True})
    assert answer.text == TEXT
    assert answer.chunks[-1].usage.completion_tokens > 0


def test_what_is_installed_can_be_looked_at(world):
    """`install` returns what it installed, with the settings as they were understood."""
    router = world.router(world.deployment(world.server()))
    installed = world.install(router, timeouts={"idle": 3.0})
    assert isinstance(installed, Installed)
    assert installed.settings.timeouts.idle == 3.0
