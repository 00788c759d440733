"""Who answers is decided by the engine; this tells LiteLLM's Router so.

Rules of this file: an attempt that the engine makes carries its deployment in a context variable, and its own Router, asked to choose, is told
that one as long as the attempt is being made: LiteLLM's background tasks keep the variable longer. A call that is none of the engine's
(embeddings, images, health checks) is chosen for as if we were not here. A Router has one strategy, which stays while anybody holds it: what
is installed, and each attempt.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple, Self

from litellm.types.router import CustomRoutingStrategyBase

from langchain_resilient.engine.store.forks import ForkLock
from litellm_hooks.deployments import Candidate
from litellm_hooks.router import core_of, rebound, undeprecated

MARK = "_resilience_strategy"
"""Under which a Router's core knows its strategy."""
ASKED = "get_available_deployment"
"""What the members of a core end with that it asks."""
_LOCK = ForkLock()


class _Attempt:
    """An attempt, for as long as the Router may be asked for its deployment."""

    def __init__(self, core: Any, candidate: Candidate) -> None:
        self.core = core
        self.candidate = candidate
        self.open = True


_CHOSEN: ContextVar[_Attempt | None] = ContextVar("litellm_hooks_chosen", default=None)


@contextmanager
def chosen(router: Any, candidate: Candidate) -> Iterator[None]:
    """Within this, the Router is told this deployment."""
    # It may have lost its strategy since the request began: a change of its settings drops it without a word, and so does `remove`.
    strategy = ResilientStrategy.held(router)
    attempt = _Attempt(core_of(router), candidate)
    token = _CHOSEN.set(attempt)
    try:
        yield
    finally:
        _CHOSEN.reset(token)
        attempt.open = False
        strategy.release()


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
        self.core = core_of(router)
        """Whose strategy it is."""
        self._holders = 0
        self._placed: dict[str, Any] = {}
        """What the core was given when it was registered last."""
        with undeprecated():
            own = _Own(router.get_available_deployment, router.async_get_available_deployment)
        before = vars(self.core).get(MARK)
        if before is not None:  # the original's, of which this Router is a copy
            own = _Own(*[rebound(method, before.core, self.core) for method in before.own])
        self.own = own
        """The Router's own choice."""

    @classmethod
    def held(cls, router: Any) -> Self:
        """A Router's strategy, made if there is none, and registered whoever has been since; to be let go of by `release`."""
        with _LOCK.current:
            core = core_of(router)
            found: Self | None = vars(core).get(MARK)
            if found is None or found.core is not core:
                found = cls(router)
                vars(core)[MARK] = found
            found._holders += 1
            found._register(found)
            return found

    def release(self) -> None:
        """Let go of it; the last who does gives the choice back to whoever had it."""
        with _LOCK.current:
            self._holders -= 1
            if not self._holders:
                vars(self.core).pop(MARK, None)
                self._register(self.own)

    def _register(self, strategy: Any) -> None:
        members = vars(self.core)
        if strategy is self and self._placed and all(members.get(name) is one for name, one in self._placed.items()):
            return  # nobody has been registered since; LiteLLM would look at our signatures again, with every request
        if hasattr(self._router, "register_plugin"):
            self._router.register_plugin(strategy)
        else:
            self._router.set_custom_routing_strategy(strategy)
        self._placed = {name: one for name, one in vars(self.core).items() if name.endswith(ASKED)}

    def _chosen(self, model: str) -> Candidate | None:
        attempt = _CHOSEN.get()
        if attempt is None or not attempt.open or attempt.core is not self.core or attempt.candidate.group != model:
            return None
        return attempt.candidate

    def get_available_deployment(self, model: str, *args: Any, **kwargs: Any) -> Any:
        """The deployment that the engine chose, or whom the Router itself would choose."""
        candidate = self._chosen(model)
        if candidate is None:
            return self.own.get_available_deployment(model, *args, **kwargs)
        return candidate.deployment

    async def async_get_available_deployment(self, model: str, *args: Any, **kwargs: Any) -> Any:
        """The deployment that the engine chose, or whom the Router itself would choose."""
        candidate = self._chosen(model)
        if candidate is None:
            return await self.own.async_get_available_deployment(model, *args, **kwargs)
        return candidate.deployment
