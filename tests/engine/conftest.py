"""The fixture that runs every plan scenario under both drivers, and once more on a real server."""

import functools
from collections.abc import Iterator

import pytest

from langchain_resilient.engine.store.redis.store import RedisStore
from langchain_resilient.testing.clock import FakeClock
from tests.engine.harness import World
from tests.engine.store.redis.straight import Straight


@pytest.fixture(params=["sync", "async", "redis"])
def world(request: pytest.FixtureRequest) -> Iterator[functools.partial[World]]:
    """Make a world: `world({"a": [...], "b": [...]}, targets, **settings)`.

    The test runs once under each driver, and (async) with its state in Redis, unless it is marked `memory`: it looks into the memory store.
    """
    if request.param != "redis":
        yield functools.partial(World, request.param)
        return
    if request.node.get_closest_marker("memory"):
        pytest.skip("looks into the memory store")
    url, namespace = request.getfixturevalue("redis_url"), request.getfixturevalue("namespace")
    stores: list[RedisStore] = []

    def make(clock: FakeClock) -> RedisStore:
        stores.append(
            RedisStore(
                url, f"{namespace}-{len(stores)}", now=clock.now, rand=lambda: 0.5, clock=lambda: int(clock.now() * 1e6),
                courier=Straight,
            )
        )  # fmt: skip
        return stores[-1]

    yield functools.partial(World, "async", store=make)
    for store in stores:
        store.close()
