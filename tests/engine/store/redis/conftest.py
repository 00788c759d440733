"""A fleet of stores on one clock, for the tests of each part of them."""

import pytest

from langchain_resilient.engine.store.redis.store import RedisStore
from langchain_resilient.testing.clock import FakeClock
from tests.engine.store.redis.straight import Straight


class Kept(Straight):
    """Remembers the last operation that was asked."""

    def ask(self, operation, orphaned=None):
        """Send it, and keep it."""
        self.asked = operation
        return super().ask(operation)


@pytest.fixture
def stores(redis_url, namespace):
    """Makes stores of one fleet, on one clock."""
    made = []
    clock = FakeClock()

    def make():
        made.append(
            RedisStore(
                redis_url, namespace, now=clock.now, rand=lambda: 0.5, clock=lambda: int(clock.now() * 1e6), courier=Kept
            )
        )  # fmt: skip
        return made[-1]

    make.clock = clock
    yield make
    for store in made:
        store.close()
