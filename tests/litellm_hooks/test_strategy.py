"""The Router is told whom the engine chose; what is none of the engine's is chosen for as ever."""

import asyncio
import os
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from litellm_hooks import install
from litellm_hooks import strategy as strategy_module
from litellm_hooks.deployments import Candidate
from litellm_hooks.router import core_of, undeprecated
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


async def asks_us(router: Any) -> bool:
    """Whether the Router asks our strategy at all."""
    asked: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ResilientStrategy, "_chosen", lambda _, model: asked.append(model))
        await told(router)
    return bool(asked)


def candidate(router: Any, name: str, group: str = "main") -> Candidate:
    """One of its deployments."""
    found = next(one for one in router.get_model_list(model_name=group) if one["model_info"]["id"] == name)
    return Candidate(group, found, {})


@pytest.fixture
def router(world) -> Any:
    """One that itself would always take "a"."""
    return world.router(entry("a", weight=1), entry("b", weight=0), entry("c", "other"))


@pytest.fixture
def strategy(router) -> Iterator[ResilientStrategy]:
    """Its strategy, held as `install` does."""
    strategy = ResilientStrategy.held(router)
    yield strategy
    strategy.release()


@pytest.mark.usefixtures("strategy")
async def test_within_an_attempt_the_router_is_told(router):
    """An attempt's deployment is the one that the Router takes, whatever it would take itself."""
    with chosen(router, candidate(router, "b")):
        assert await told(router) == ["b", "b"]
    assert await told(router) == ["a", "a"]


@pytest.mark.usefixtures("strategy")
async def test_another_group_is_not_the_attempt_s(router):
    """A call for another group from within an attempt (a callback's, say) is chosen for as ever."""
    with chosen(router, candidate(router, "b")):
        assert await told(router, "other") == ["c", "c"]


@pytest.mark.usefixtures("strategy")
async def test_attempts_may_lie_in_one_another(router):
    """The inner attempt's deployment is told within it, and the outer one's behind it."""
    with chosen(router, candidate(router, "b")):
        with chosen(router, candidate(router, "a")):
            assert await told(router) == ["a", "a"]
        assert await told(router) == ["b", "b"]


@pytest.mark.usefixtures("strategy")
async def test_an_attempt_that_is_over_is_told_to_nobody(router):
    """What an attempt began and leaves behind (LiteLLM's logging, say) is chosen for as ever once the attempt is over."""
    with chosen(router, candidate(router, "b")):
        over = asyncio.Event()

        async def later() -> list[str]:
            await over.wait()
            return await told(router)

        left_behind = asyncio.create_task(later())
        await asyncio.sleep(0)
    over.set()
    assert await left_behind == ["a", "a"]


@pytest.mark.usefixtures("strategy")
async def test_another_router_is_not_the_attempt_s(router, world):
    """Another Router that is asked within an attempt chooses for itself, though it has a group of the same name."""
    other = world.router(entry("x"))
    strategy = ResilientStrategy.held(other)
    with chosen(router, candidate(router, "b")):
        assert await told(other) == ["x", "x"]
    strategy.release()


@pytest.mark.usefixtures("strategy")
async def test_a_strategy_that_was_dropped_is_there_for_the_next_attempt(router):
    """A change of the Router's settings takes no attempt from the engine."""
    with undeprecated():
        router.update_settings(routing_strategy="least-busy")
    with chosen(router, candidate(router, "b")):
        assert await told(router) == ["b", "b"]


@pytest.mark.usefixtures("strategy")
async def test_a_strategy_that_was_replaced_is_there_for_the_next_attempt(router):
    """Nor does another strategy that was registered behind ours, even if it replaced only half of it."""
    other = ResilientStrategy(router)
    other._register(other)
    with chosen(router, candidate(router, "b")):
        assert await told(router) == ["b", "b"]
    vars(core_of(router)).pop("get_available_deployment")
    with chosen(router, candidate(router, "b")):
        assert await told(router) == ["b", "b"]


@pytest.mark.usefixtures("strategy")
async def test_it_is_registered_once_as_long_as_nobody_else_is(router, monkeypatch):
    """Attempts do not register it again: newer LiteLLM reads its signatures each time."""
    with chosen(router, candidate(router, "b")):
        register = "register_plugin" if hasattr(router, "register_plugin") else "set_custom_routing_strategy"
        monkeypatch.setattr(router, register, lambda _: pytest.fail("registered again"))
        with chosen(router, candidate(router, "a")):
            assert await told(router) == ["a", "a"]


def test_a_fork_while_an_attempt_begins(router):
    """Who is forked while a thread takes up a strategy waits for nobody: that thread is not there."""
    with strategy_module._LOCK.current:
        child = os.fork()
        if not child:  # pragma: no cover  # another process
            threading.Timer(10, lambda: os._exit(2)).start()
            with chosen(router, candidate(router, "b")):
                os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


async def test_the_choice_is_given_back_when_nobody_holds_it(router):
    """What is let go of while an attempt is being made tells of it to its end, and then nothing."""
    strategy = ResilientStrategy.held(router)
    with chosen(router, candidate(router, "b")):
        strategy.release()
        assert await told(router) == ["b", "b"]
    assert await told(router) == ["a", "a"]
    assert not await asks_us(router)


async def test_an_attempt_needs_nobody_else_to_hold_it(router):
    """An attempt that begins when nothing is installed any more is told to the Router all the same, and leaves nothing behind."""
    with chosen(router, candidate(router, "b")):
        assert await told(router) == ["b", "b"]
    assert await told(router) == ["a", "a"]
    assert not await asks_us(router)


async def test_removed_with_the_rest_it_is_gone(router, namespace):
    """What `install` registered is taken off by `remove`, however often it was installed."""
    for _ in range(3):
        installed = install(router, namespace=namespace)
    assert await asks_us(router)
    installed.remove()
    assert not await asks_us(router)
