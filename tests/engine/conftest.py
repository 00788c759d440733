"""The fixture that runs every plan scenario under both drivers."""

import functools

import pytest

from tests.engine.harness import World


@pytest.fixture(params=["sync", "async"])
def world(request: pytest.FixtureRequest) -> functools.partial[World]:
    """Make a world: `world({"a": [...], "b": [...]}, targets, **settings)`; the test runs once under each driver."""
    return functools.partial(World, request.param)
