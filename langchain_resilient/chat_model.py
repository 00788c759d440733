"""`ResilientChatModel`: LangChain messages in, messages out, and the engine in between.

Rules of this file: thin. It turns a call into a `Request`, hands it to a plan and a driver, and turns what the engine raises into what
LangChain's own middleware understands. One run per call, never a child run. The names, the profile and the token counts it shows are the
first provider's, as that is the model a caller believes to talk to.
"""

from __future__ import annotations

import asyncio
import inspect
import os
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from types import TracebackType
from typing import Any, Literal, Self, cast

from langchain_core.callbacks import (
    AsyncCallbackManager,
    AsyncCallbackManagerForLLMRun,
    CallbackManager,
    CallbackManagerForLLMRun,
)
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.language_models.base import LangSmithParams
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.tools import BaseTool
from pydantic import BaseModel, ConfigDict, Field, InstanceOf, SkipValidation, ValidationError, field_serializer

from langchain_resilient.binding import HIDDEN, Binding, unread
from langchain_resilient.binding import structured as structured_binding
from langchain_resilient.binding import tools as tools_binding
from langchain_resilient.call import Engine, configurable_of, options_of
from langchain_resilient.config import Provider, check_settings, read_yaml
from langchain_resilient.engine.backoff import Retry
from langchain_resilient.engine.circuit import Circuit
from langchain_resilient.engine.dead_letters.box import Box
from langchain_resilient.engine.dead_letters.keeping import Keeper, keeper_of
from langchain_resilient.engine.dead_letters.opening import DeadLetters
from langchain_resilient.engine.dead_letters.replaying import ReplayReport
from langchain_resilient.engine.drive import AsyncHands, Hands, arun, astream, drain, run, stream
from langchain_resilient.engine.errors import (
    InvalidOutputError,
    ResilienceError,
    SettingsConflict,
    SettingsError,
    require,
    unknown_name,
    warn_user,
)
from langchain_resilient.engine.events import LettersWatched, Observer
from langchain_resilient.engine.hedge import Hedge
from langchain_resilient.engine.observe.audience import Audience
from langchain_resilient.engine.policy import Classifier, Gate, Interruption, Policy, SystemClock, Target, Timeouts
from langchain_resilient.engine.routing import Routing
from langchain_resilient.engine.store.opening import MEMORY, open_store, shown
from langchain_resilient.engine.store.state import OVERRIDES, Override
from langchain_resilient.identity import common_profile, digest, profile_of
from langchain_resilient.letters import replayed, replayer
from langchain_resilient.providers import Client, build
from langchain_resilient.raised import widen
from langchain_resilient.structured import StructuredOutput
from langchain_resilient.tracing import run_of, streamed

STANDARD = ("temperature", "max_tokens")


class ResilientChatModel(BaseChatModel):
    """A chat model that keeps answering while its providers fail.

    Example:
        >>> model = ResilientChatModel(providers=["openai:gpt-4.1", "anthropic:claude-sonnet-4-5"])  # doctest: +SKIP
        >>> model.invoke("Hello")  # doctest: +SKIP

    Per call, `config={"configurable": {...}}` takes `deadline` (seconds from now, > 0), `tenant` (a name for your records), `lane`
    ("interactive", "batch" or "replay") and `idempotency_key` (of its tenant's dead letter and late answer; default: made of the question).

    Raises:
        SettingsError: At construction, for anything unknown or nonsensical; it names the field, what was given and the fix.
        AllProvidersFailedError: From a call, when every provider failed or was refused. With one provider its own exception comes.
        RefusedError: From a call that our own rules stopped: `CircuitOpenError`, `RateLimitedError`, `DeadlineExceededError`,
            `OverloadedError`.
        StreamInterruptedError: From a stream that broke after part of it had been shown.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    providers: SkipValidation[Sequence[str | BaseChatModel | Provider]]
    """Chat models, specs such as "openai:gpt-4.1", or `Provider`s; their order is their priority."""
    backend: str = Field(MEMORY, repr=False)
    """Where circuits and limits live: "memory://", this process only, or a URL of Redis (≥ 6.2) or Valkey (≥ 7.2) for all processes that
    share it: "redis://host:6379/0", "rediss://…" (TLS), "unix:///path", "redis+cluster://host:port,…",
    "redis+sentinel://host:port,…/service". While it can't be reached this process decides alone, on a fair share of the limits."""
    namespace: str = "default"
    """Models of one namespace share what they know of a provider: in this process, or in all that share the backend."""
    routing: Routing = "priority"
    """"priority", "latency", "cost" or "weighted"."""
    circuit: InstanceOf[Circuit] = Field(default_factory=Circuit)
    retry: InstanceOf[Retry] = Field(default_factory=Retry)
    timeouts: InstanceOf[Timeouts] = Field(default_factory=Timeouts)
    hedge: InstanceOf[Hedge] | None = None
    """`Hedge()`: ask a second provider beside one that is late to begin; None: never. Unstreamed answers are then streamed inside."""
    on_interruption: Interruption = "continue"
    """What to do when a stream breaks after part of it was shown. "continue": another provider (or the same again, where there is no other)
    goes on behind the last word; never inside a tool call, JSON or structured output, where the error tells what was shown. "restart":
    nothing is shown before the stream has ended well, so anybody may begin anew. "raise": the error at once."""
    max_pending: int | None = None
    """Requests that may wait or run in this process at a time (≥ 1); None: unbounded."""
    dead_letters: InstanceOf[DeadLetters] | bool | str | None = None
    """Where requests are kept that nobody answered and somebody may later; None: nowhere. True: the backend's Redis, else a file in the
    working directory; a path, "sqlite:///path" or a URL of Redis; or a `DeadLetters` for more. Prompts are written there, credentials
    never. See `replay`."""
    observers: SkipValidation[Sequence[Observer | Literal["prometheus", "opentelemetry"]]] = ()
    """Who is told of every event; "prometheus" stands for a `PrometheusObserver` on the default registry, "opentelemetry" for an
    `OpenTelemetryObserver` on the global meter provider."""
    classifier: SkipValidation[Classifier | None] = None
    """Asked of every provider's exception before our own; answers an `ErrorKind`, or None to leave it to ours."""
    include_decision: bool = False
    """Whether answers carry their decision record in `response_metadata["resilience"]`."""
    temperature: float | None = None
    """LangChain's standard parameter, for every provider."""
    max_tokens: int | None = None
    """LangChain's standard parameter, for every provider."""
    stop: list[str] | None = None
    """LangChain's standard parameter, for every provider."""
    timeout: float | None = None
    """LangChain's standard parameter: sets `timeouts.total`, seconds."""
    max_retries: int | None = None
    """LangChain's standard parameter: sets `retry.max_retries`."""
    streaming: bool = False
    """As LangChain's own models take it: True puts the answers of `invoke` together from a stream. Default: as the first provider's."""

    def __init__(self, providers: Sequence[str | BaseChatModel | Provider] = (), **settings: Any) -> None:
        known = sorted({name for name in type(self).model_fields if name != "providers"} | {"callback_manager"})
        for name in settings:
            if name not in known:
                raise unknown_name("ResilientChatModel: unknown keyword", name, known)
        check_settings(settings)
        try:
            super().__init__(**{"providers": providers, **settings})
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(str(step) for step in first["loc"])
            raise SettingsError(f"{where}: got {first['input']!r}; {first['msg'].lower()}") from None
        targets = self._engine.policy.targets
        primary: Client = targets[0].client
        self.disable_streaming = self.disable_streaming or not any(target.client.streams for target in targets)
        if not self.disable_streaming and primary.off_for_tools:
            self.disable_streaming = "tool_calling"
        if "streaming" not in settings and primary.forced:
            self.streaming = True
        for told in ("callbacks", "tags", "metadata"):
            # Not by what is there: newer langchain-core puts its version into every model's metadata.
            if told not in settings and getattr(primary.model, told) is not None:
                setattr(self, told, getattr(primary.model, told))
        versions = {target.client.model.output_version for target in targets}
        if self.output_version is None and len(versions) == 1:
            self.output_version = versions.pop()
        profiles = [profile_of(target.client.model) for target in targets]
        # Older langchain-core has no profiles.
        if "profile" in type(self).model_fields and self.profile is None and all(profiles):
            self.profile = cast("Any", common_profile(profiles))

    def __setattr__(self, name: str, value: Any) -> None:
        """Set a field; a changed setting holds from the next call on."""
        if name in _SETTINGS:
            check_settings({name: value})
        super().__setattr__(name, value)
        if name in _SETTINGS:
            self.__dict__.pop("_engine", None)

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """As pydantic's, and what is updated is checked and holds in the copy."""
        if update:
            check_settings(update)
        copy = super().model_copy(update=update, deep=deep)
        if update:
            copy.__dict__.pop("_engine", None)
        return copy

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        """A copy that shares nothing but the process's store."""
        shallow = self.__copy__()
        shallow.__dict__.pop("_engine", None)
        return super(ResilientChatModel, shallow).__deepcopy__(memo)

    @field_serializer("backend")
    def _shown_backend(self, backend: str) -> str:
        # Its URL may hold a password.
        return shown(backend)

    @field_serializer("providers")
    def _names_of(self, _given: Any) -> list[str]:
        # By name alone: the rest of a provider may hold keys.
        return [target.name for target in self._engine.policy.targets]

    # A cached property, not a private attribute: pydantic looks the latter up through `__getattr__`, at a microsecond and a half.
    @cached_property
    def _engine(self) -> Engine:
        """Clients, policy and store, built from the settings."""
        standard = {name: value for name in STANDARD if (value := getattr(self, name)) is not None}
        targets = build(
            self.providers, namespace=self.namespace, circuit=self.circuit, timeouts=self.timeouts, standard=standard
        )
        clock = SystemClock()
        audience = Audience(clock, self.observers)
        policy = Policy(
            targets=targets, routing=self.routing, total=self.timeout or self.timeouts.total, classifier=self.classifier,
            retry=self.retry if self.max_retries is None else replace(self.retry, max_retries=self.max_retries),
            observe=audience, heard=audience, gate=Gate(self.max_pending), clock=clock, on_interruption=self.on_interruption,
            hedge=self.hedge,
        )  # fmt: skip
        store = open_store(self.backend, self.namespace)
        audience.watch(store, targets, policy.gate)
        for target in targets:
            if store.conflicts(target):
                _warn_of_conflict(target)
        allowed = self.max_tokens or getattr(targets[0].client.model, "max_tokens", None)
        digests = {target.name: digest(target) for target in targets}
        keeper = self._keeper()
        if keeper is not None:
            audience(LettersWatched(keeper.counts, keeper.place))
        return Engine(
            policy,
            store,
            clock,
            allowed if isinstance(allowed, int) else None,
            self.stop,
            self.include_decision,
            digests,
            whole=self.hedge is not None or self.timeouts.watch_calls,
            keeper=keeper,
        )

    def _keeper(self) -> Keeper | None:
        given = self.dead_letters
        if given is None or given is False:
            return None
        settings = given if isinstance(given, DeadLetters) else DeadLetters(given)
        return keeper_of(settings, self.backend, self.namespace)

    @classmethod
    def from_yaml(cls, path: str | os.PathLike[str], **settings: Any) -> ResilientChatModel:
        """Make a model from a YAML file; `settings` given here win over the file's.

        The file has the keyword arguments' names; `${NAME}` and `${NAME:-default}` in it are read from the environment.

        Raises:
            SettingsError: Names the field by its path, what was given and the fix.
        """
        return cls(**{**read_yaml(path, frozenset(cls.model_fields)), **settings})

    # ---------------------------------------------------------------------------------------------------------- calling
    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        engine = self._engine
        call = engine.call(messages, stop, run_manager, kwargs)
        try:
            result: ChatResult = run(call.plan, Hands(engine.store, call.upstream, engine.clock))
        except InvalidOutputError as error:
            result = unread(error)
        except ResilienceError as error:
            widen(error)
            raise
        return call.stamped(result)

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        engine = self._engine
        call = engine.call(messages, stop, run_manager, kwargs)
        try:
            result: ChatResult = await arun(call.plan, AsyncHands(engine.store, call.upstream, engine.clock))
        except InvalidOutputError as error:
            result = unread(error)
        except ResilienceError as error:
            widen(error)
            raise
        return call.stamped(result)

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        engine = self._engine
        call = engine.call(messages, stop, run_manager, kwargs, streams=True)
        try:
            yield from stream(call.plan, Hands(engine.store, call.upstream, engine.clock))
        except ResilienceError as error:
            widen(error)
            raise
        yield from call.last_chunk()

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        engine = self._engine
        call = engine.call(messages, stop, run_manager, kwargs, streams=True)
        chunks = astream(call.plan, AsyncHands(engine.store, call.upstream, engine.clock))
        try:
            async for chunk in chunks:
                yield chunk
        except ResilienceError as error:
            widen(error)
            raise
        finally:
            await chunks.aclose()
        for chunk in call.last_chunk():
            yield chunk

    # Each of the four ways in reads the caller's options before LangChain drops them: `_generate` is not given the config.
    def invoke(
        self,
        input: LanguageModelInput,
        config: RunnableConfig | None = None,
        *,
        stop: list[str] | None = None,
        **kwargs: Any,
    ) -> AIMessage:
        """Ask for an answer."""
        if not configurable_of(config):
            return super().invoke(input, config, stop=stop, **kwargs)
        with options_of(config):
            return super().invoke(input, config, stop=stop, **kwargs)

    async def ainvoke(
        self,
        input: LanguageModelInput,
        config: RunnableConfig | None = None,
        *,
        stop: list[str] | None = None,
        **kwargs: Any,
    ) -> AIMessage:
        """Ask for an answer."""
        if not configurable_of(config):
            return await super().ainvoke(input, config, stop=stop, **kwargs)
        with options_of(config):
            return await super().ainvoke(input, config, stop=stop, **kwargs)

    def stream(
        self,
        input: LanguageModelInput,
        config: RunnableConfig | None = None,
        *,
        stop: list[str] | None = None,
        **kwargs: Any,
    ) -> Iterator[AIMessageChunk]:
        """Ask for a stream of chunks. Callbacks hear of retries (`on_retry`) from `invoke` alone: LangChain keeps them from `_stream`."""
        run = run_of(config, CallbackManager)
        chunks = super().stream(input, config if run is None else run.config, stop=stop, **kwargs)
        # Only until the first chunk: by then the request is made, and a context must not stay changed while the caller has the word.
        with options_of(config), streamed(run):
            first = next(chunks, None)
        if first is not None:
            yield first
            yield from chunks

    async def astream(
        self,
        input: LanguageModelInput,
        config: RunnableConfig | None = None,
        *,
        stop: list[str] | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[AIMessageChunk]:
        """Ask for a stream of chunks. Callbacks hear of retries (`on_retry`) from `invoke` alone: LangChain keeps them from `_stream`."""
        run = run_of(config, AsyncCallbackManager)
        chunks = super().astream(input, config if run is None else run.config, stop=stop, **kwargs)
        try:
            with options_of(config), streamed(run):
                first = await anext(chunks, None)
            if first is not None:
                yield first
                async for chunk in chunks:
                    yield chunk
        finally:
            await chunks.aclose()  # type: ignore[attr-defined]  # an async generator, though LangChain declares less

    # ---------------------------------------------------------------------------------------------------------- binding
    def bind_tools(
        self,
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool],
        *,
        tool_choice: str | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Offer tools, to each provider in its own format.

        Args:
            tools: As the first provider's own `bind_tools` takes them.
            tool_choice: None, "auto", "any", "none" or a tool's name; also as OpenAI or Anthropic spell them.
            kwargs: Further settings, as the first provider takes them.

        Raises:
            Exception: Whatever the first provider's own `bind_tools` raises. The others' are asked when they are needed.
        """
        return self._bound(tools_binding(self._engine.policy.targets[0].client, tools, tool_choice, kwargs))

    def with_structured_output(
        self, schema: dict[str, Any] | type, *, include_raw: bool = False, **kwargs: Any
    ) -> Runnable[LanguageModelInput, dict[str, Any] | BaseModel]:
        """Ask for answers of a schema, each provider in its native way.

        An answer that does not parse or validate is a failure: another provider is asked, or the same one once more if there is none.
        If all answer so, the caller sees what the bare model would give: its parser's exception, or the raw answer with its
        `parsing_error`. Of a stream the parts are shown as they come.

        Args:
            schema: As the first provider's own `with_structured_output` takes it.
            include_raw: Whether the result is `{"raw": …, "parsed": …, "parsing_error": …}`.
            kwargs: Further settings (`method`, `strict`, …), as the first provider takes them.

        Raises:
            Exception: Whatever the first provider's own `with_structured_output` raises.
        """
        # What was not given is not handed on: some models' method knows the schema alone.
        settings = {**({"include_raw": True} if include_raw else {}), **kwargs}
        binding = structured_binding(self._engine.policy.targets[0].client, schema, settings)
        return self._bound(binding) | StructuredOutput(binding=binding)

    def _bound(self, binding: Binding) -> Runnable[LanguageModelInput, AIMessage]:
        return self.bind(**binding.visible, **{HIDDEN: binding})

    def _get_invocation_params(self, stop: list[str] | None = None, **kwargs: Any) -> dict[str, Any]:
        # Traces show these: what is bound is seen as the first provider's arguments.
        return super()._get_invocation_params(stop, **{key: value for key, value in kwargs.items() if key != HIDDEN})

    # ----------------------------------------------------------------------------------------------------------- people
    def status(self) -> dict[str, dict[str, object]]:
        """What is known of each provider: circuit, blocks, p50 and p99 in seconds, free limits. No secrets."""
        return {target.name: self._engine.store.status(target) for target in self._engine.policy.targets}

    def override(self, provider: str, mode: Override) -> None:
        """Set a provider's circuit aside by hand.

        Args:
            provider: Its name.
            mode: "forced_open" refuses every call, "disabled" neither refuses nor records, "metrics_only" records but never refuses.

        Raises:
            SettingsError: For an unknown provider or mode.
        """
        if mode is None:
            raise unknown_name("override", mode, OVERRIDES)
        self._engine.store.override(self._named(provider), mode)

    def clear_override(self, provider: str) -> None:
        """Let a provider's circuit rule again."""
        self._engine.store.override(self._named(provider), None)

    def reset(self, provider: str, *, blocks: bool = True) -> None:
        """Have a provider asked again at once: its circuit is as new, and nothing that was set by hand holds.

        Args:
            provider: Its name.
            blocks: Whether its credential is left alone no longer either, whatever a 429, a refused key or a used-up quota said.

        Raises:
            SettingsError: For an unknown provider.
        """
        for change in self._engine.store.reset(self._named(provider), blocks=blocks):
            self._engine.policy.observe(change)

    def _named(self, provider: str) -> Target:
        for target in self._engine.policy.targets:
            if target.name == provider:
                return target
        raise unknown_name("provider", provider, [target.name for target in self._engine.policy.targets])

    @property
    def letters(self) -> Box:
        """The dead letters: what waits, what is parked, and late answers by their idempotency key and tenant (`result`).

        Raises:
            SettingsError: The model keeps none.
        """
        keeper = self._engine.keeper
        require(keeper is not None, "dead_letters", None, "set it, say to True")
        return cast("Keeper", keeper).box

    def replay(self, *, through: Runnable[Any, Any] | None = None, **settings: Any) -> ReplayReport:
        """Ask the dead letters that are due again, in the lane "replay", and keep their answers for `letters.result(key, tenant)`.

        Args:
            through: Who is given a letter's messages instead of this model: a chain around it, say, with its own parser behind it.
            settings: `concurrency` (letters at a time, ≥ 1, default 4), `most` (how many at all), `wait` (True: go on until interrupted;
                default: until none is due or nobody may be asked) and `lease` (seconds for which a letter is held, default 120).

        Raises:
            SettingsError: The model keeps no letters, or a setting makes no sense.
            BoxError: The letters can't be reached.
        """
        return replayed(self, self.letters, self._engine.policy, through, settings)

    async def areplay(self, *, through: Runnable[Any, Any] | None = None, **settings: Any) -> ReplayReport:
        """As `replay`, in this task; cancelled, it gives back what it has not asked to the end."""
        return await replayer(self, self.letters, self._engine.policy, through, settings).run()

    def close(self) -> None:
        """Send what a shared backend has not been told yet (for at most 0.5 s). The store itself belongs to the process, and stays."""
        self._engine.store.flush()

    async def aclose(self) -> None:
        """End probes that still run beside answered requests, which counts as neutral; then as `close`."""
        await drain()
        await asyncio.to_thread(self.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    # ------------------------------------------------------------------------------------------- what LangChain asks of a model
    @property
    def _primary(self) -> BaseChatModel:
        model: BaseChatModel = self._engine.policy.targets[0].client.model
        return model

    @property
    def _llm_type(self) -> str:
        return "resilient-chat-model"

    @property
    def _identifying_params(self) -> Mapping[str, Any]:
        """Part of LangChain's cache keys: every provider's configuration counts, or two models would share wrong answers."""
        return {"providers": self._engine.digests, "default_stop": self.stop}

    @property
    def model_name(self) -> str | None:
        """The first provider's model: agents and harness profiles read it."""
        return self._get_ls_params().get("ls_model_name")

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        # Traces, summarization triggers and harness profiles go by the provider's name; ours would switch them off.
        return self._primary._get_ls_params(stop=self.stop if stop is None else stop, **kwargs)

    def get_num_tokens(self, text: str) -> int:
        """As the first provider counts."""
        return self._primary.get_num_tokens(text)

    def get_num_tokens_from_messages(self, messages: list[BaseMessage], tools: Sequence[Any] | None = None) -> int:
        """As the first provider counts."""
        return self._primary.get_num_tokens_from_messages(messages, tools)

    def get_token_ids(self, text: str) -> list[int]:
        """As the first provider counts."""
        return self._primary.get_token_ids(text)


_SETTINGS = frozenset(ResilientChatModel.model_fields) - frozenset(BaseChatModel.model_fields) - {"streaming"}
"""The fields that the engine is built from."""


# LangChain inspects the signature of `_generate` on every call, which is a tenth of what a call costs; an explicit one is found at once.
for _method in (ResilientChatModel._generate, ResilientChatModel._agenerate):
    _method.__signature__ = inspect.signature(_method)  # type: ignore[union-attr]  # PEP 362, unknown to mypy


def _warn_of_conflict(target: Target) -> None:
    message = f"{target.name}: another model of this process names this provider with other settings; each call goes by its own model's"
    warn_user(message, SettingsConflict)
