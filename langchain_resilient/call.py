"""One call on its way: what the caller says of it, and what it runs on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from itertools import count
from typing import Any, NamedTuple, cast

from langchain_core.messages import AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import var_child_runnable_config

from langchain_resilient.binding import HIDDEN
from langchain_resilient.engine.dead_letters.keeping import Keeper
from langchain_resilient.engine.effects import Later, Plan, Request
from langchain_resilient.engine.errors import is_number, require, unknown_name
from langchain_resilient.engine.events import Attempt, Decision
from langchain_resilient.engine.plan import answer
from langchain_resilient.engine.policy import Policy, SystemClock, Target
from langchain_resilient.engine.quota import LANES, Lane
from langchain_resilient.engine.store.memory import MemoryStore
from langchain_resilient.letters import content_of, key_of
from langchain_resilient.limiter import Patience
from langchain_resilient.tracing import listener
from langchain_resilient.upstream import ChatUpstream

_REQUESTS = count(1)
MOST_TOKENS_NAMES = ("max_tokens", "max_completion_tokens")


class Engine(NamedTuple):
    """What a model's calls run on."""

    policy: Policy
    store: MemoryStore
    clock: SystemClock
    max_output: int | None
    """Tokens that an answer may have, unless the call says otherwise."""
    stop: list[str] | None
    records: bool
    """Whether answers carry their decision record."""
    digests: dict[str, str]
    """Of each provider's configuration."""
    whole: bool
    """Whether unstreamed answers are streamed inside."""
    keeper: Keeper | None = None
    """Who keeps what nobody could answer."""

    def call(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None,
        run_manager: Any,
        kwargs: Mapping[str, Any],
        *,
        streams: bool = False,
    ) -> _Call:
        """Begin a call."""
        options = _OPTIONS.get()
        allowed = _most_tokens(kwargs, self.max_output) if kwargs else self.max_output
        until = self.clock.now() + (self.policy.total if options.deadline is None else options.deadline)

        def patience(target: Target) -> Patience:
            now = self.clock.now()
            alone = len(self.policy.targets) == 1
            longest = min(until - now, target.time_limit(allowed, stream=streams)) / 2 if alone else 0.0
            return Patience(self.clock, now + longest, target.name)

        binding = None
        if HIDDEN in kwargs:
            binding = kwargs[HIDDEN]
            kwargs = {key: value for key, value in kwargs.items() if key != HIDDEN}
        stop = self.stop if stop is None else stop
        upstream = ChatUpstream(
            messages, stop, run_manager, kwargs, self.clock.wall, patience,
            first=self.policy.targets[0].client, binding=binding,
        )  # fmt: skip
        decisions: list[Decision] | None = [] if self.records else None
        whole = self.whole and not streams
        request = Request(
            next(_REQUESTS), upstream, streams or whole, options.lane, options.tenant, options.deadline, allowed, upstream.input_tokens,
            listener(run_manager, None if decisions is None else decisions.append), whole,
            None if self.keeper is None else kept_by(self.keeper, options.key, options.tenant, partial(content_of, messages, stop, kwargs, binding)),
        )  # fmt: skip
        return _Call(answer(request, self.policy), upstream, decisions)


def _most_tokens(kwargs: Mapping[str, Any], otherwise: int | None) -> int | None:
    """Tokens that the call allows its answer. What is no number is for the provider to judge."""
    for name in MOST_TOKENS_NAMES:
        value = kwargs.get(name)
        if isinstance(value, int) and is_number(value, least=1):
            return value
    return otherwise


def kept_by(
    keeper: Keeper, key: str | None, tenant: str | None, content: Callable[[], dict[str, Any]]
) -> Callable[[str, tuple[Attempt, ...]], Later]:
    """How a call is put away, if nobody answers it: only then is anything made of it."""

    def keyed() -> tuple[str, dict[str, Any]]:
        asked = content()
        return key_of(asked) if key is None else key, asked

    return keeper.keeping(tenant, keyed)


class _Call(NamedTuple):
    """One call on its way."""

    plan: Plan
    upstream: ChatUpstream
    decisions: list[Decision] | None
    """Filled when the request is over; None unless `include_decision`."""

    def stamped(self, result: ChatResult) -> ChatResult:
        """The answer, with its decision record if that was asked for."""
        if self.decisions:
            for generation in result.generations:
                generation.message.response_metadata["resilience"] = _as_dict(self.decisions[0])
        return result

    def last_chunk(self) -> Iterator[ChatGenerationChunk]:
        """One empty chunk more that carries a stream's decision record, if that was asked for."""
        if self.decisions:
            yield ChatGenerationChunk(
                message=AIMessageChunk(content="", response_metadata={"resilience": _as_dict(self.decisions[0])})
            )


def _as_dict(decision: Decision) -> dict[str, Any]:
    return {
        **decision._asdict(),
        "attempts": [attempt._asdict() for attempt in decision.attempts],
        "refusals": [refusal._asdict() for refusal in decision.refusals],
        "usage": None if decision.usage is None else decision.usage._asdict(),
    }


class _Options(NamedTuple):
    """What a caller says of one call, through `config={"configurable": {...}}`."""

    deadline: float | None = None
    tenant: str | None = None
    lane: Lane = "interactive"
    key: str | None = None


_NO_OPTIONS = _Options()
_OPTIONS: ContextVar[_Options] = ContextVar("langchain_resilient_call", default=_NO_OPTIONS)


def configurable_of(config: RunnableConfig | None) -> Mapping[str, Any] | None:
    """What the caller, or the chain around the call, says of it."""
    configurable = config.get("configurable") if config else None
    if configurable:
        return configurable
    parent = var_child_runnable_config.get()
    return parent.get("configurable") if parent else None


@contextmanager
def options_of(config: RunnableConfig | None) -> Iterator[None]:
    """Makes a call's options known to `_generate` and `_stream`, which LangChain does not give the config."""
    token = _OPTIONS.set(_read_options(configurable_of(config) or {}))
    try:
        yield
    finally:
        _OPTIONS.reset(token)


def _read_options(configurable: Mapping[str, Any]) -> _Options:
    require(
        isinstance(configurable, Mapping), "configurable", configurable, "give a mapping, such as {'deadline': 5.0}"
    )
    deadline, tenant, lane = (
        configurable.get("deadline"),
        configurable.get("tenant"),
        configurable.get("lane", "interactive"),
    )
    require(deadline is None or is_number(deadline), "configurable.deadline", deadline, "give seconds from now > 0")
    require(tenant is None or isinstance(tenant, str), "configurable.tenant", tenant, "give a name, or leave it out")
    key = configurable.get("idempotency_key")
    ok = key is None or (isinstance(key, str) and bool(key))
    require(ok, "configurable.idempotency_key", type(key).__name__, "give a text that is not empty, or leave it out")
    if not isinstance(lane, str) or lane not in LANES:
        raise unknown_name("configurable.lane", lane, list(LANES))
    return _Options(deadline, tenant, cast("Lane", lane), key)
