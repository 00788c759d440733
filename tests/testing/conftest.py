"""A FaultServer of one's own, and the real client of each wire to ask it with."""

from collections.abc import Iterator

import pytest
from langchain_core.language_models import BaseChatModel

from langchain_resilient.testing import FaultServer
from tests.clients import WIRES, instance


@pytest.fixture
def server() -> Iterator[FaultServer]:
    """A server of one's own."""
    with FaultServer() as running:
        yield running


@pytest.fixture(params=WIRES)
def wire(request: pytest.FixtureRequest) -> str:
    """Each wire in turn."""
    return request.param


@pytest.fixture
def model(server: FaultServer, wire: str) -> BaseChatModel:
    """The real client of the wire."""
    return instance(server, wire)
