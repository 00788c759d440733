"""What the tests of `litellm_hooks` share: skipped where LiteLLM is not, no Router outlives its test, the first call of each way is made before.

LiteLLM holds the provider clients back, so it is not in `.venv`: `make test-litellm` runs these tests in an environment of its own.
"""

import logging
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # else LiteLLM's import asks the network for a price list


class WithoutLiteLLM(pytest.Module):
    """A file of tests that can't be run here."""

    def collect(self) -> Any:
        pytest.skip("needs LiteLLM: make test-litellm")


if find_spec("litellm") is None:

    def pytest_pycollect_makemodule(module_path: Path, parent: Any) -> WithoutLiteLLM:
        """Skip each file by name."""
        return WithoutLiteLLM.from_parent(parent, path=module_path)


@pytest.fixture(scope="session", autouse=True)
async def _warm() -> AsyncIterator[None]:
    """LiteLLM's first call of each way takes a second or more: no limit of a test may meet that."""
    import litellm

    from tests.litellm_hooks.world import WAYS, World

    litellm.suppress_debug_info = True
    logging.getLogger("LiteLLM").setLevel(logging.CRITICAL)
    logging.getLogger("LiteLLM Router").setLevel(logging.CRITICAL)
    with ExitStack() as stack:
        world = World(stack, "warm")
        router = world.router(world.deployment(world.server()))
        for way in WAYS:
            await world.ask(router, way)
        world.install(router)
        for way in WAYS:
            await world.ask(router, way)
    yield
    await litellm.close_litellm_async_clients()


@pytest.fixture
def world(namespace: str) -> Iterator[Any]:
    """Fake providers, Routers over them, and a look at what is held; see `World`."""
    from tests.litellm_hooks.world import World

    with ExitStack() as stack:
        yield World(stack, namespace)
