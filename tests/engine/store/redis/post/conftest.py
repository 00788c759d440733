"""Servers, and couriers that are closed in the end."""

import signal
from collections.abc import Callable, Iterator

import pytest

from langchain_resilient.engine.store.redis.post.courier import Courier
from tests.engine.store.redis.post.office import SCRIPT, Box


@pytest.fixture(scope="module")
def box() -> Iterator[Box]:
    """A server that all tests of one file use."""
    running = Box().start()
    yield running
    running.kill()


@pytest.fixture
def hurt() -> Iterator[Box]:
    """One of one's own, not started."""
    victim = Box()
    victim.budget = 0.25
    yield victim
    if victim.server is not None:
        victim.signal(signal.SIGCONT)
        victim.kill()


@pytest.fixture
def made() -> Iterator[Callable[..., Courier]]:
    """Makes couriers that are closed in the end."""
    couriers: list[Courier] = []

    def make(box: Box, login: str = "", **settings: object) -> Courier:
        url = box.url.replace("://", f"://{login}")
        couriers.append(Courier(url, SCRIPT, **{"budget": box.budget} | settings))
        return couriers[-1]

    yield make
    for courier in couriers:
        courier.close()
