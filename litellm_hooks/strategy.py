"""Who answers is decided by the engine; this tells LiteLLM's Router so.

Rules of this file: an attempt that the engine makes carries its deployment in a context variable, and the Router, asked to choose, is told
that one. A call that is none of the engine's (embeddings, images, health checks) is chosen for as if we were not here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

from litellm.types.router import CustomRoutingStrategyBase

from litellm_hooks.deployments import Candidate
from litellm_hooks.router import undeprecated

_CHOSEN: ContextVar[Candidate | None] = ContextVar("litellm_hooks_chosen", default=None)


@contextmanager
def chosen(candidate: Candidate) -> Iterator[None]:
    """Within this, the Router is told this deployment."""
    token = _CHOSEN.set(candidate)
    try:
        yield
    finally:
        _CHOSEN.reset(token)


class _Own(NamedTuple):
    """A Router's own choice, as a strategy."""

    get_available_deployment: Callable[..., Any]
    async_get_available_deployment: Callable[..., Any]


class ResilientStrategy(CustomRoutingStrategyBase):  # type: ignore[misc]  # LiteLLM's types are not read here
    """A routing strategy of a Router whose attempts the engine makes: see `install`, which registers it.

    Args:
        router: The Router, whose own strategy serves what is none of the engine's.
    """

    def __init__(self, router: Any) -> None:
        self._router = router
        with undeprecated():
            self._own = router.get_available_deployment
            self._aown = router.async_get_available_deployment
        self.register()

    def register(self) -> None:
        """Become the Router's strategy, if it has another."""
        self._register(self)

    def _register(self, strategy: Any) -> None:
        if hasattr(self._router, "register_plugin"):
            self._router.register_plugin(strategy)
        else:
            self._router.set_custom_routing_strategy(strategy)

    def remove(self) -> None:
        """Give the choice back to whoever had it."""
        self._register(_Own(self._own, self._aown))

    def get_available_deployment(self, model: str, *args: Any, **kwargs: Any) -> Any:
        """The deployment that the engine chose, or whom the Router itself would choose."""
        candidate = _CHOSEN.get()
        if candidate is None or candidate.group != model:
            return self._own(model, *args, **kwargs)
        return candidate.deployment

    async def async_get_available_deployment(self, model: str, *args: Any, **kwargs: Any) -> Any:
        """The deployment that the engine chose, or whom the Router itself would choose."""
        candidate = _CHOSEN.get()
        if candidate is None or candidate.group != model:
            return await self._aown(model, *args, **kwargs)
        return candidate.deployment
