"""The systems that are asked side by side.

Rules of this file: each is what its users would write, with the same limit for an attempt; none but the oracle is told of the outage.
A contender that can't be built here says why by `NotHereError`, and the benchmark goes on without it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any, NamedTuple, Protocol

from langchain_core.language_models import BaseChatModel
from langchain_core.runnables import Runnable

from langchain_resilient import Circuit, Hedge, Provider, ResilientChatModel, Timeouts
from outages.faults import Outage, Timeline
from outages.stage import HOUSES, Stage

KEY = "sk-of-a-fake-provider"


class NotHereError(Exception):
    """This contender can't take part here."""


class Setting(NamedTuple):
    """What a contender is built from."""

    stage: Stage
    outage: Outage
    timeline: Timeline


class Contender(Protocol):
    """A system that answers questions."""

    async def ask(self, prompt: str) -> str:
        """The whole answer."""

    def stream(self, prompt: str) -> AsyncIterator[str]:
        """The answer, piece by piece."""

    async def aclose(self) -> None:
        """Let go of what it holds."""


class LangChain:
    """Any of LangChain's runnables."""

    def __init__(self, model: Runnable[Any, Any], close: Callable[[], Any] | None = None) -> None:
        self._model = model
        self._close = close

    async def ask(self, prompt: str) -> str:
        """The whole answer."""
        return str((await self._model.ainvoke(prompt)).text)

    async def stream(self, prompt: str) -> AsyncIterator[str]:
        """The answer, piece by piece."""
        async for chunk in self._model.astream(prompt):
            yield str(chunk.text)

    async def aclose(self) -> None:
        """Let go of what it holds."""
        if self._close is not None:
            await self._close()


class Oracle:
    """Knows the schedule: asks the first provider that is healthy at that instant."""

    def __init__(self, setting: Setting) -> None:
        self._models = [LangChain(client(setting, provider, max_retries=0)) for provider in range(len(HOUSES))]
        self._sick = setting.outage.sick
        self.in_outage = False
        """Set by who runs the schedule."""

    def _best(self) -> LangChain:
        sick = self._sick if self.in_outage else {}
        return next(model for provider, model in enumerate(self._models) if provider not in sick)

    async def ask(self, prompt: str) -> str:
        """The whole answer."""
        return await self._best().ask(prompt)

    def stream(self, prompt: str) -> AsyncIterator[str]:
        """The answer, piece by piece."""
        return self._best().stream(prompt)

    async def aclose(self) -> None:
        """Nothing to let go of."""


def client(setting: Setting, provider: int, **settings: Any) -> BaseChatModel:
    """LangChain's client of one provider. `timeout` is the SDK's: connect, and any silence."""
    from langchain_anthropic import ChatAnthropic  # not installed where LiteLLM alone is measured
    from langchain_openai import ChatOpenAI

    house = HOUSES[provider]
    kind: Callable[..., BaseChatModel] = ChatAnthropic if house.wire == "anthropic" else ChatOpenAI
    account: dict[str, Any] = {"model": house.model, "base_url": setting.stage.base_url(provider), "api_key": KEY}
    return kind(**{**account, "timeout": setting.outage.limit, **settings})


def bare(setting: Setting) -> Contender:
    """The first provider's client alone, with the SDK's own two retries."""
    return LangChain(client(setting, 0))


def with_fallbacks(setting: Setting) -> Contender:
    """`with_fallbacks`, the clients' own retries off, as LangChain's documentation advises."""
    first, *others = [client(setting, provider, max_retries=0) for provider in range(len(HOUSES))]
    return LangChain(first.with_fallbacks(others))


def with_retry(setting: Setting) -> Contender:
    """`with_retry()` as it comes (3 attempts, exponential with jitter) on each, then `with_fallbacks`."""
    first, *others = [client(setting, provider, max_retries=0).with_retry() for provider in range(len(HOUSES))]
    return LangChain(first.with_fallbacks(others))


def resilient(setting: Setting, **settings: Any) -> Contender:
    """Ours. What differs from the defaults: the limits, the recovery time in the ratio of the play, `max_latency` in the brownout."""
    limit = setting.outage.limit
    providers = [
        Provider(
            f"{house.wire}:{house.model}",
            name=house.name,
            max_latency=setting.outage.max_latency,
            model_kwargs={"base_url": setting.stage.base_url(provider), "api_key": KEY},
        )
        for provider, house in enumerate(HOUSES)
    ]
    model = ResilientChatModel(
        providers=providers,
        circuit=Circuit(recovery_timeout=setting.timeline.recovery),
        timeouts=Timeouts(connect=limit, first_token=limit, idle=limit, response=limit),
        **settings,
    )
    return LangChain(model, model.aclose)


def hedged(setting: Setting) -> Contender:
    """Ours, with `hedge=Hedge()`."""
    return resilient(setting, hedge=Hedge())


def litellm_default(setting: Setting) -> Contender:
    """LiteLLM's Router: one model group a provider, `fallbacks`, everything else as it comes."""
    return _litellm(setting, tuned=False)


def litellm_tuned(setting: Setting) -> Contender:
    """LiteLLM's Router with what its documentation recommends for reliability."""
    return _litellm(setting, tuned=True)


def _litellm(setting: Setting, *, tuned: bool) -> Contender:
    try:
        from outages.litellm_router import (  # it takes seconds to import, and may not be installed
            LiteLLM,
            default,
            recommended,
        )
    except ImportError as error:
        msg = f"LiteLLM is not installed here ({error}): pip install 'litellm>=1.106,<2'"
        raise NotHereError(msg) from error
    return LiteLLM((recommended if tuned else default)(setting, KEY))


class System(NamedTuple):
    """A row of the table."""

    title: str
    build: Callable[[Setting], Contender]
    limits: str
    """How it is given the limit for an attempt."""


_SDK = "client's timeout (connect, and silence between bytes)"
SYSTEMS: dict[str, System] = {
    "oracle": System("oracle", Oracle, _SDK),
    "bare": System("bare client", bare, _SDK),
    "fallbacks": System("with_fallbacks", with_fallbacks, _SDK),
    "retry": System("with_retry + with_fallbacks", with_retry, _SDK),
    "litellm": System("LiteLLM Router, default", litellm_default, "Router(timeout=, stream_timeout=)"),
    "litellm-tuned": System("LiteLLM Router, tuned", litellm_tuned, "Router(timeout=, stream_timeout=)"),
    "ours": System("ours", resilient, "Timeouts(connect=, first_token=, idle=, response=)"),
    "hedged": System("ours, hedged", hedged, "Timeouts(connect=, first_token=, idle=, response=)"),
}
"""By the word that `--system` takes."""
