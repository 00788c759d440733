"""A place for boxes of each kind: the same promises hold for both."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engine.dead_letters.post import Place


@pytest.fixture(params=["sqlite", "redis"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """Where boxes are opened: `place()` opens one, and again another at the same letters."""
    if request.param == "redis":
        made = Place("redis", tmp_path, request.getfixturevalue("redis_url"), request.getfixturevalue("namespace"))
    else:
        made = Place("sqlite", tmp_path)
    yield made
    made.close()


@pytest.fixture
def box(place: Place):
    """One box."""
    return place()
