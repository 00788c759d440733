"""LangChain's side and LiteLLM's in one process, or on one store: an outage that one meets is known to the other."""

from typing import Any

import litellm
import pytest

from langchain_resilient import (
    AllProvidersFailedError,
    Circuit,
    RefusedError,
    ResilientChatModel,
    Retry,
)
from langchain_resilient.testing import Fault
from tests.litellm_hooks.world import target_of

ChatOpenAI = pytest.importorskip("langchain_openai").ChatOpenAI
pytestmark = pytest.mark.e2e

SETTINGS: dict[str, Any] = {
    "circuit": {"failure_threshold": 3, "recovery_timeout": 60.0},
    "retry": {"base_delay": 0.0, "max_retries": 0},
}


def model_over(server: Any, namespace: str) -> ResilientChatModel:
    """A LangChain model of the same provider and credential."""
    inner = ChatOpenAI(model="gpt-4.1", base_url=server.base_url("openai"), api_key="test", max_retries=0)
    circuit, retry = Circuit(**SETTINGS["circuit"]), Retry(**SETTINGS["retry"])
    return ResilientChatModel([inner], namespace=namespace, circuit=circuit, retry=retry)


async def test_one_provider_has_one_key(world):
    """A deployment and a LangChain client of the same endpoint and key have the same route and account."""
    server = world.server()
    router = world.router(world.deployment(server))
    world.install(router)
    model = model_over(server, world.namespace)
    (theirs,) = model._engine.policy.targets
    ours = target_of(router, "a")
    assert (ours.route, ours.account) == (theirs.route, theirs.account)


async def test_langchain_s_outage_is_the_router_s(world):
    """A circuit that LangChain's calls open refuses the Router's, without a request."""
    server = world.server()
    server.always(Fault.status(500))
    router = world.router(world.deployment(server))
    world.install(router, **SETTINGS)
    model = model_over(server, world.namespace)
    for _ in range(5):
        with pytest.raises(Exception, match=r"."):
            await model.ainvoke("hi")
    before = server.count
    with pytest.raises(litellm.ServiceUnavailableError):
        await world.ask(router)
    assert server.count == before


async def test_the_router_s_outage_is_langchain_s(world):
    """A circuit that the Router's calls open refuses LangChain's, without a request."""
    server = world.server()
    server.always(Fault.status(500))
    router = world.router(world.deployment(server))
    world.install(router, **SETTINGS)
    model = model_over(server, world.namespace)
    for _ in range(5):
        with pytest.raises((litellm.InternalServerError, litellm.ServiceUnavailableError)):
            await world.ask(router)
    before = server.count
    with pytest.raises((RefusedError, AllProvidersFailedError)):
        await model.ainvoke("hi")
    assert server.count == before
