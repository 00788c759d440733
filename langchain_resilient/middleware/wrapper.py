"""The middleware itself: what it was given, and which engine a call of an agent runs on.

Rules of this file: it decides nothing of a call. A setting that means nothing inside an agent is an error that says why, at construction; a
`ResilientChatModel`, given or the agent's own, brings its engine, so that circuits, limits and observers are one with it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, cast

from langchain.agents.middleware.types import AgentMiddleware, ModelRequest, ModelResponse
from langchain_core.language_models import BaseChatModel

from langchain_resilient.call import Engine
from langchain_resilient.chat_model import ResilientChatModel
from langchain_resilient.config import Provider, check_settings
from langchain_resilient.engine.drive import AsyncHands, Hands, arun, run
from langchain_resilient.engine.effects import Upstream
from langchain_resilient.engine.errors import ResilienceError, SettingsError, require, unknown_name
from langchain_resilient.middleware.alone import alone
from langchain_resilient.middleware.asked import Result
from langchain_resilient.middleware.attempts import Attempts
from langchain_resilient.raised import widen

SETTINGS = (
    "backend", "namespace", "routing", "circuit", "retry", "timeouts", "max_pending", "observers", "classifier", "include_decision",
    "temperature", "max_tokens", "stop", "timeout", "max_retries",
)  # fmt: skip
"""`ResilientChatModel`'s settings that mean something here."""
NOT_HERE = {
    "hedge": "two models can't be asked at once inside an agent: their tokens would mix",
    "on_interruption": "an agent's stream can't be continued: it always raises StreamInterruptedError",
    "dead_letters": "an agent's call is a step of a graph, whose checkpointer keeps it",
    "streaming": "whether tokens are streamed is the agent's caller's choice",
}
"""Settings of `ResilientChatModel` that make no sense here, and why."""
MOST_KEPT = 8
"""Models of agents for which an engine is kept, where no models were given."""


class ResilientModelMiddleware(AgentMiddleware[Any, Any, Any]):
    """Circuits, limits, retries and fallback around the model calls of `create_agent` and `create_deep_agent`.

    Example:
        >>> agent = create_agent("openai:gpt-4.1", middleware=[  # doctest: +SKIP
        ...     ResilientModelMiddleware("openai:gpt-4.1", "anthropic:claude-sonnet-4-5")])

    Args:
        models: Chat models, specs or `Provider`s in order of priority; they replace the agent's own model. Or one `ResilientChatModel`
            alone: its providers are asked by its settings, save the four below, and circuits, limits and observers are shared with it. None:
            the agent's own model, which is unrolled likewise if it is a `ResilientChatModel`, and is the only provider if not.
        settings: `ResilientChatModel`'s keyword settings, save `hedge`, `on_interruption`, `dead_letters` and `streaming`; none beside a
            `ResilientChatModel`, which has its own.

    Per call, `config={"configurable": {...}}` takes `deadline` (seconds from the call on, > 0), `tenant` and `lane`, as the chat model does.
    Each model call of an agent counts for itself, and so does each deadline.

    An async attempt is bounded by `Timeouts.response`, and goes on beyond that while tokens come at least every `Timeouts.idle` seconds. A
    sync one runs in the caller's thread, with the graph's context, and only its client's own timeouts can end it.

    An explicit `ProviderStrategy` is put to every provider as it is; a plain schema becomes what each provider can do. Other middleware that
    retries or answers in a model's stead belongs before this one in the list: after it, it hides failures from the circuits. A deep agent's
    subagents and its summaries know nothing of its middleware: with a `ResilientChatModel` as the agent's model they are covered as well.

    Raises:
        SettingsError: At construction, for an unknown or nonsensical setting; at a call, for settings beside an agent's `ResilientChatModel`.
        StreamInterruptedError: From a call that failed after tokens were shown: nobody else is asked.
        AllProvidersFailedError: From a call, when every provider failed or was refused; and the rest of what `ResilientChatModel` raises.
    """

    def __init__(self, *models: str | BaseChatModel | Provider, **settings: Any) -> None:
        super().__init__()
        self.tools = []
        for name, value in settings.items():
            if name in NOT_HERE:
                raise SettingsError(f"ResilientModelMiddleware: {name}: got {value!r}; {NOT_HERE[name]}")
            if name not in SETTINGS:
                raise unknown_name("ResilientModelMiddleware: unknown keyword", name, SETTINGS)
        check_settings(settings)
        self._settings = settings
        self._kept: tuple[tuple[BaseChatModel, ResilientChatModel], ...] = ()
        given = [item.model if isinstance(item, Provider) else item for item in models]
        if any(isinstance(item, ResilientChatModel) for item in given):
            fix = "give a ResilientChatModel alone, as it is: it has its providers"
            require(
                len(models) == 1 and models[0] is given[0], "models", f"{len(models)} with a ResilientChatModel", fix
            )
        self._given = self._resilient(given[0], models) if models else None

    def _resilient(self, model: Any, models: tuple[Any, ...]) -> ResilientChatModel:
        """What holds the engine: the user's own `ResilientChatModel`, or one over these models."""
        if not isinstance(model, ResilientChatModel):
            return ResilientChatModel(providers=models, **self._settings)
        fix = "leave them out: the ResilientChatModel has its own"
        require(not self._settings, "ResilientModelMiddleware: settings", sorted(self._settings), fix)
        return model

    def _engine_for(self, model: BaseChatModel) -> Engine:
        """What a call of an agent with this model runs on."""
        resilient = self._given or next((kept for own, kept in self._kept if own is model), None)
        if resilient is None:
            resilient = self._resilient(model, (model,))
            # Few and replaced at once: an engine holds its model, so a weak key would never be let go of, and two threads may meet here.
            self._kept = ((model, resilient), *self._kept)[:MOST_KEPT]
        engine = resilient._engine  # noqa: SLF001  # one engine for both: circuits and limits are shared by it
        return engine._replace(policy=alone(engine.policy))

    def wrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], ModelResponse[Any]]
    ) -> Result:
        """Make one model call of an agent, with as many attempts as it takes."""
        engine = self._engine_for(request.model)
        attempts = Attempts(engine, request, handler)
        try:
            answer = run(
                attempts.plan(keeps_limit=False), Hands(engine.store, cast("Upstream", attempts), engine.clock)
            )
        except ResilienceError as error:
            widen(error)
            raise
        return attempts.result(answer)

    async def awrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], Awaitable[ModelResponse[Any]]]
    ) -> Result:
        """Make one model call of an agent, with as many attempts as it takes."""
        engine = self._engine_for(request.model)
        attempts = Attempts(engine, request, handler)
        try:
            answer = await arun(
                attempts.plan(keeps_limit=True), AsyncHands(engine.store, cast("Upstream", attempts), engine.clock)
            )
        except ResilienceError as error:
            widen(error)
            raise
        return attempts.result(answer)
