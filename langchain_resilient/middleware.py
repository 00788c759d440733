"""`ResilientModelMiddleware`: the engine around the model calls of a LangChain agent.

Rules of this file: the agent's own handler makes every attempt, with the provider's own model in the request, so that middleware further in
(prompt caching, say) sees what it would see without us; a request that needs no change goes on as it came. No races, no hedges, no
continuations: tokens reach the caller through callbacks while the handler runs, so nothing can be taken back, and once one was shown nobody
else is asked. What the graph says (`GraphBubbleUp`, cancellation) passes untouched, and says nothing of a provider.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple, cast
from weakref import WeakKeyDictionary

from langchain.agents.middleware.types import AgentMiddleware, ExtendedModelResponse, ModelRequest, ModelResponse
from langchain.agents.structured_output import StructuredOutputError
from langchain_core.callbacks import AsyncCallbackHandler, BaseCallbackHandler
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables.config import var_child_runnable_config
from langchain_core.tracers.base import BaseTracer
from langchain_core.tracers.context import register_configure_hook
from langgraph.errors import GraphBubbleUp

from langchain_resilient.call import Engine, options_of
from langchain_resilient.chat_model import ResilientChatModel
from langchain_resilient.config import Provider, check_settings
from langchain_resilient.engine.classify import ErrorKind, Failure, classify
from langchain_resilient.engine.drive import AsyncHands, Hands, arun, run
from langchain_resilient.engine.effects import Admit, Call, Look, Plan, Sleep, Upstream
from langchain_resilient.engine.errors import (
    AttemptTimeoutError,
    ResilienceError,
    SettingsError,
    StreamInterruptedError,
    TruncatedStreamError,
    require,
    unknown_name,
)
from langchain_resilient.engine.plan.relay import Seen
from langchain_resilient.engine.policy import Classifier, Policy, Target
from langchain_resilient.identity import word_of
from langchain_resilient.messages import fit, fit_arguments
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
NO_LIMIT = 86_400.0
"""Seconds; for the driver, where the attempt keeps its limit itself. Finite: not every event loop takes an infinite timer."""
NEXT_STEPS = (Look, Admit, Sleep)
"""What a plan asks for on the way to a further attempt."""
CUT = frozenset({ErrorKind.SERVER_ERROR, ErrorKind.OVERLOADED, ErrorKind.UNKNOWN, ErrorKind.TIMEOUT})
"""Failures that, after a shown token, are an interrupted stream. Others say more than that (a rate limit, say)."""

Result = ModelResponse[Any] | AIMessage | ExtendedModelResponse[Any]


class ResilientModelMiddleware(AgentMiddleware[Any, Any, Any]):
    """Circuits, limits, retries and fallback around the model calls of `create_agent` and `create_deep_agent`.

    Example:
        >>> agent = create_agent("openai:gpt-4.1", middleware=[  # doctest: +SKIP
        ...     ResilientModelMiddleware("openai:gpt-4.1", "anthropic:claude-sonnet-4-5")])

    Args:
        models: Chat models, specs or `Provider`s in order of priority; they replace the agent's own model. Or one `ResilientChatModel`
            alone: its providers are asked by its settings, and circuits, limits and observers are shared with it. None: the agent's own
            model, which is unrolled likewise if it is a `ResilientChatModel`, and is the only provider if not.
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
        engine = resilient._engine
        return engine._replace(policy=_alone(engine.policy))

    def wrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], ModelResponse[Any]]
    ) -> Result:
        """Make one model call of an agent, with as many attempts as it takes."""
        engine = self._engine_for(request.model)
        attempts = _Attempts(engine, request, handler)
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
        attempts = _Attempts(engine, request, handler)
        try:
            answer = await arun(
                attempts.plan(keeps_limit=True), AsyncHands(engine.store, cast("Upstream", attempts), engine.clock)
            )
        except ResilienceError as error:
            widen(error)
            raise
        return attempts.result(answer)


# ------------------------------------------------------------------------------------------------------------ the policy
_ALONE: WeakKeyDictionary[Policy, Policy] = WeakKeyDictionary()


def _alone(policy: Policy) -> Policy:
    """The same policy with one attempt at a time; what it remembers and counts is shared."""
    found = _ALONE.get(policy)
    if found is None:
        targets = tuple([replace(target, client=_as_given(target.client)) for target in policy.targets])
        judge = partial(_judged, policy.classifier, policy.clock.wall)
        found = _ALONE[policy] = replace(policy, targets=targets, races=False, classifier=judge)
    return found


def _as_given(client: Any) -> Any:
    """A model that was made with `streaming=True` streams here: the chat model takes that over, but an agent calls it itself."""
    return replace(client, model=client.model.model_copy(update={"streaming": True})) if client.forced else client


def _judged(own: Classifier | None, wall: Callable[[], float], error: BaseException) -> ErrorKind | Failure | None:
    """What only an agent raises; the rest is left to the user's classifier and ours."""
    if isinstance(error, GraphBubbleUp):
        return ErrorKind.CANCELLED
    if isinstance(error, StreamInterruptedError) and error.__cause__ is not None:
        told = own(error.__cause__) if own is not None else None
        failure = told if isinstance(told, Failure) else classify(error.__cause__, wall=wall())
        kind = ErrorKind(told) if isinstance(told, str) else failure.kind
        return failure._replace(kind=ErrorKind.STREAM_INTERRUPTED if kind in CUT else kind)
    told = own(error) if own is not None else None
    return ErrorKind.INVALID_OUTPUT if told is None and isinstance(error, StructuredOutputError) else told


# -------------------------------------------------------------------------------------------------------- what was shown
class _Shown(BaseCallbackHandler):
    """Listens, during one attempt, to the tokens that go out through callbacks."""

    run_inline = True  # before the failure that may follow is judged
    prolong: Callable[[], object] | None = None
    """Told of each content."""

    def __init__(self, seen: Seen, speaks: Callable[[ChatGenerationChunk], bool], *, heard: bool) -> None:
        self.seen = seen
        self._speaks = speaks
        self.streamed = False
        self.said = False
        self._heard = heard

    @property
    def shown(self) -> bool:
        """Whether the caller has seen some of it."""
        return self.said and self._heard

    def on_chat_model_start(self, *args: Any, **kwargs: Any) -> None:
        """Nothing to do; without it the prompt would be written out as a string for `on_llm_start`."""

    def on_llm_new_token(self, token: Any, *, chunk: Any = None, **kwargs: Any) -> None:
        """A chunk of a stream."""
        self.streamed = True
        if isinstance(chunk, ChatGenerationChunk):
            self.seen.add(chunk)
            self._say(says=self._speaks(chunk))
        else:
            self.seen.text.append(str(token))
            self._say(says=bool(token))

    def on_stream_event(self, event: Any, **kwargs: Any) -> None:
        """The same in LangChain's newer protocol."""
        if event.get("event") == "content-block-delta":
            self.seen.text.append(event["delta"].get("text") or "")
            self._say(says=True)

    def _say(self, *, says: bool) -> None:
        if says:
            self.said = True
            if self.prolong is not None:
                self.prolong()


_SHOWN: ContextVar[_Shown | None] = ContextVar("langchain_resilient_shown", default=None)
# Every run that begins during an attempt is listened to, whoever's callbacks it has; no run is added.
register_configure_hook(_SHOWN, inheritable=False)


# ------------------------------------------------------------------------------------------------------ one model call
class _Answer(ChatResult):
    """What a handler returned, as the engine's readers know answers."""

    result: Any


class _Limit(NamedTuple):
    seconds: float = NO_LIMIT
    limited_by: str = "response"


class _Attempts:
    """One model call of an agent: what the drivers ask for whole answers."""

    _limit = _Limit()
    _final: Exception | None = None
    """What reaches the caller, where a failure came after a shown token."""

    def __init__(self, engine: Engine, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], Any]) -> None:
        self._request = request
        self._handler = handler
        self._stop = engine.stop
        model = request.model
        self._origin: str = (
            model._engine.policy.targets[0].client.word if isinstance(model, ResilientChatModel) else word_of(model)
        )
        self._system = [] if request.system_message is None else [request.system_message]
        with options_of(None):  # an agent's configuration is known to whatever runs inside it
            self._call = engine.call([*self._system, *request.messages], None, None, request.model_settings)

    def plan(self, *, keeps_limit: bool) -> Plan:
        """The plan of the request, which ends at the first failure after a shown token.

        Args:
            keeps_limit: Whether attempts end at their limit by themselves, so that the driver need not end them.
        """
        plan = self._call.plan
        reply: Any = None
        error: BaseException | None = None
        while True:
            try:
                effect = plan.send(reply) if error is None else plan.throw(error)
            except StopIteration as done:
                return done.value
            except Exception:
                if self._final is not None:
                    raise self._final from self._final.__cause__
                raise
            reply = error = None
            if self._final is not None and isinstance(effect, NEXT_STEPS):
                error = self._final
                continue
            if keeps_limit and isinstance(effect, Call):
                self._limit = _Limit(effect.limit, effect.limited_by)
                effect = effect._replace(limit=NO_LIMIT)
            try:
                reply = yield effect
            except BaseException as raised:  # noqa: BLE001  # the plan decides what it means
                error = raised

    def result(self, answer: _Answer) -> Result:
        """What the handler returned, with its decision record if that was asked for."""
        self._call.stamped(answer)
        return cast("Result", answer.result)

    # --------------------------------------------------------------------------------------------------------- calling
    def keeps_time(self, target: Target, seconds: float) -> bool:
        """A graph's context, and what its nodes hold, belong to the caller's thread: no other may run it."""
        return True

    def call(self, target: Target) -> _Answer:
        """One attempt."""
        request = self._fitted(target)
        with self._attempt(target):
            return _as_answer(self._handler(request))

    async def acall(self, target: Target) -> _Answer:
        """One attempt, for as long as its limit allows or tokens keep coming."""
        request, loop, limit = self._fitted(target), asyncio.get_running_loop(), self._limit
        with self._attempt(target) as shown:
            try:
                async with asyncio.timeout(limit.seconds) as scope:
                    # By the loop: a model without async streaming tells its tokens from a thread.
                    shown.prolong = partial(loop.call_soon_threadsafe, _prolong, loop, scope, target.idle)
                    return _as_answer(await self._handler(request))
            except TimeoutError as error:
                if not scope.expired():
                    raise
                limited_by, seconds = ("idle", target.idle) if shown.said else (limit.limited_by, limit.seconds)
                raise AttemptTimeoutError(limited_by, seconds) from error

    @contextmanager
    def _attempt(self, target: Target) -> Iterator[_Shown]:
        reader = self._call.upstream
        shown = _Shown(Seen(reader, 0.0), reader.has_content, heard=_somebody_listens(target.client.model))
        token = _SHOWN.set(shown)
        try:
            with reader.waiting(target):
                yield shown
            if shown.streamed and target.sends_finish_reason and shown.seen.finish_reason is None:
                raise TruncatedStreamError("the stream ended without a finish reason")
        except GraphBubbleUp:
            raise
        except Exception as error:
            if not shown.shown:
                raise
            self._final = error
            # One that does not parse was whole: nothing broke, and its own exception says what is wrong with it.
            if isinstance(error, StructuredOutputError):
                raise
            self._final = _interrupted(target, shown, error)
            raise self._final from error
        finally:
            _SHOWN.reset(token)

    def _fitted(self, target: Target) -> ModelRequest[Any]:
        """The agent's request, for this provider's own model."""
        request, client = self._request, target.client
        given = {"tools": request.tools, "tool_choice": request.tool_choice, **request.model_settings}
        settings, changes = fit_arguments(given, client.word, self._origin)
        overrides: dict[str, Any] = {
            "tools": settings.pop("tools", []),
            "tool_choice": settings.pop("tool_choice", None),
        }
        if self._system:
            fitted = fit([*self._system], client.word, self._origin)
            overrides["system_message"] = fitted.messages[0]
            changes += fitted.changes
        fitted = fit([*request.messages], client.word, self._origin)
        overrides["messages"] = fitted.messages
        changes += fitted.changes
        self._call.upstream.note_changes(target, changes)
        model, settings = client.asked_with(settings)
        if self._stop is not None:
            settings = {"stop": self._stop, **settings}
        return request.override(**overrides, model=model, model_settings=settings)


def _prolong(loop: asyncio.AbstractEventLoop, scope: asyncio.Timeout, idle: float) -> None:
    with suppress(RuntimeError):  # it is over already
        scope.reschedule(max(scope.when() or 0.0, loop.time() + idle))


def _interrupted(target: Target, shown: _Shown, error: Exception) -> StreamInterruptedError:
    message = (
        f"{target.name}: the model call failed after {len(shown.seen.text)} chunks were shown ({type(error).__name__})"
    )
    return StreamInterruptedError(message, partial="".join(shown.seen.text), usage=shown.seen.usage)


def _as_answer(result: Any) -> _Answer:
    response = result.model_response if isinstance(result, ExtendedModelResponse) else result
    messages = response.result if isinstance(response, ModelResponse) else [response]
    # A forced tool's result follows the message that called it.
    message = next((item for item in reversed(messages) if isinstance(item, AIMessage)), AIMessage(""))
    return _Answer(generations=[ChatGeneration(message=message)], result=result)


def _somebody_listens(model: BaseChatModel) -> bool:
    """Whether anybody is told of tokens. Some clients (Ollama's) tell of them even when nobody asked for a stream."""
    config = var_child_runnable_config.get() or {}
    handlers = [*_handlers(config.get("callbacks")), *_handlers(model.callbacks)]
    return any(_listens(handler) for handler in handlers)


def _handlers(callbacks: Any) -> list[Any]:
    return list(getattr(callbacks, "handlers", callbacks) or ())


DEAF = (BaseCallbackHandler.on_llm_new_token, AsyncCallbackHandler.on_llm_new_token)


def _listens(handler: Any) -> bool:
    if hasattr(handler, "tap_output_aiter"):  # LangChain's mark of what shows a stream to somebody
        return True
    return not isinstance(handler, BaseTracer) and type(handler).on_llm_new_token not in DEAF
