"""What the Proxy calls us for, with real Routers and no Proxy."""

import sys
from types import SimpleNamespace
from typing import Any

import litellm
import pytest

from langchain_resilient.testing import Fault
from litellm_hooks.callbacks import ResilientCallbacks, proxys_router
from litellm_hooks.installing import installed_on
from litellm_hooks.proxy import handler
from litellm_hooks.router import undeprecated
from litellm_hooks.settings import read
from litellm_hooks.upstream import NOTE
from tests.litellm_hooks.world import MESSAGES, TEXT

pytestmark = pytest.mark.e2e


def callbacks_for(world: Any, place: SimpleNamespace, **settings: Any) -> ResilientCallbacks:
    """Callbacks for whatever Router is in a place."""
    told = read({"namespace": world.namespace, "retry": {"base_delay": 0.0}, **settings}, "test")
    return ResilientCallbacks(lambda: told, lambda: place.router)


async def come(callbacks: ResilientCallbacks, data: dict[str, Any] | None = None) -> None:
    """A request comes, as the Proxy tells of it."""
    await callbacks.async_pre_call_hook(None, None, {} if data is None else data, "acompletion")


async def headers_of(callbacks: ResilientCallbacks, data: dict[str, Any]) -> dict[str, str]:
    """The headers of a request's response, asked for as newer Proxies do."""
    return await callbacks.async_post_call_response_headers_hook(
        data=data, user_api_key_dict=None, response=None, request_headers={}, litellm_call_info={}
    )


async def test_installs_once(world):
    """The first request installs it on the Router, the next finds it there."""
    place = SimpleNamespace(router=world.router(world.deployment(world.server())))
    callbacks = callbacks_for(world, place)
    assert installed_on(place.router) is None
    await come(callbacks)
    installed = installed_on(place.router)
    assert installed is not None
    await come(callbacks)
    assert installed_on(place.router) is installed
    assert (await world.ask(place.router)).text == TEXT


async def test_a_new_router(world):
    """A Router that the Proxy makes later is resilient with the next request."""
    server = world.server()
    place = SimpleNamespace(router=world.router(world.deployment(server)))
    callbacks = callbacks_for(world, place)
    await come(callbacks)
    place.router = world.router(world.deployment(server))
    await come(callbacks)
    assert installed_on(place.router) is not None


async def test_without_a_router(world, monkeypatch: pytest.MonkeyPatch):
    """Before the Proxy has a Router, or where there is no Proxy, a request passes; the Proxy's present Router is found."""
    await come(callbacks_for(world, SimpleNamespace(router=None)))
    name = "litellm.proxy.proxy_server"
    monkeypatch.delitem(sys.modules, name, raising=False)
    assert proxys_router() is None
    await come(handler)
    server = SimpleNamespace()
    monkeypatch.setitem(sys.modules, name, server)
    assert proxys_router() is None
    server.llm_router = world.router(world.deployment(world.server()))
    assert proxys_router() is server.llm_router


async def test_a_change_of_settings_is_repaired(world):
    """A change of the Router's settings that drops our strategy is repaired with the next request: the engine's choice is kept."""
    first, second = world.server(), world.server()
    router = world.router(world.deployment(first, "a"), world.deployment(second, "b"))
    callbacks = callbacks_for(world, SimpleNamespace(router=router), routing="priority")
    await come(callbacks)
    strategy = installed_on(router).strategy
    with undeprecated():
        router.update_settings(routing_strategy="latency-based-routing")
    for count in range(1, 13):
        metadata: dict[str, Any] = {}
        await come(callbacks, {"metadata": metadata})
        await world.ask(router, metadata=metadata)
        assert (first.count, second.count) == (count, 0)
        assert metadata[NOTE]["provider"].endswith("#a")
    assert installed_on(router).strategy is strategy


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("name", ["metadata", "litellm_metadata"])
async def test_who_answered_is_told(world, name: str, stream: bool):
    """What the Router notes of a request is told in headers, whichever metadata its route has."""
    broken, well = world.server(), world.server()
    broken.always(Fault.status(503))
    router = world.router(world.deployment(broken, "a", order=1), world.deployment(well, "b", order=2))
    callbacks = callbacks_for(world, SimpleNamespace(router=router))
    data: dict[str, Any] = {name: {}}
    await come(callbacks, data)
    await world.ask(router, "async stream" if stream else "async", **data)
    attempts = broken.count + well.count
    assert await headers_of(callbacks, data) == {
        "x-resilience-provider": "openai/gpt-4.1#b",
        "x-resilience-attempts": str(attempts),
    }


async def test_when_to_come_again_is_told(world):
    """A refusal tells the attempts, and the soonest time that a provider, or we, named: in whole seconds, rounded up."""
    servers = [world.server(), world.server()]
    for server, seconds in zip(servers, (600.0, 500.0), strict=True):
        server.always(Fault.rate_limited("seconds", seconds))
    router = world.router(
        world.deployment(servers[0], "a"), world.deployment(servers[1], "b", "spare"), fallbacks=[{"main": ["spare"]}]
    )
    callbacks = callbacks_for(world, SimpleNamespace(router=router))
    for attempts in ("2", "0"):
        data: dict[str, Any] = {"metadata": {}}
        await come(callbacks, data)
        with pytest.raises(litellm.RateLimitError):
            await router.acompletion(model="main", messages=MESSAGES, **data)
        headers = await headers_of(callbacks, data)
        assert headers.keys() == {"x-resilience-attempts", "retry-after"}
        assert headers["x-resilience-attempts"] == attempts
        assert 480 < int(headers["retry-after"]) <= 500


@pytest.mark.parametrize(
    "data", [{}, {"metadata": None}, {"metadata": {}}, {"metadata": "text"}, {"metadata": {NOTE: "text"}}]
)
async def test_nothing_is_told_of_what_is_not_ours(world, data: dict[str, Any]):
    """A request that we have not served has no headers of ours, however its metadata look."""
    assert await headers_of(callbacks_for(world, SimpleNamespace(router=None)), data) == {}


@pytest.mark.parametrize("name", ["metadata", "litellm_metadata"])
async def test_a_client_says_nothing_in_our_name(world, name: str):
    """What a request's own metadata hold under our name is dropped before it is routed; the rest stays."""
    callbacks = callbacks_for(world, SimpleNamespace(router=None))
    data = {name: {NOTE: {"retry_after": "7\r\nset-cookie: a=b"}, "user": "me"}}
    await come(callbacks, data)
    assert data == {name: {"user": "me"}}
    assert await headers_of(callbacks, data) == {}
