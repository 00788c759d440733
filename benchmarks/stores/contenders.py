"""Who is compared: ours, and what a user would take instead.

Rules of this file: each is used as its documentation says, on redis-py, and waits in its own way; where a library leaves the waiting to its
user, both usual ways have a row. Libraries are imported where they are used: they may not be installed. A limit is a rate and a burst; those
that know windows only get a window of the burst's length.
"""

from __future__ import annotations

import asyncio
import importlib.util
import time
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any, NamedTuple, Protocol

from stores.figures import Bucket

PATIENCE = 120.0
"""Seconds that anybody would wait: longer than a run."""
POLL = 0.05
"""Seconds between two tries of those who are told nothing better."""

Work = Callable[[], Awaitable[int]]
"""What a request does once it has its place; returns the tokens that it used."""


class Setting(NamedTuple):
    """What a contender is told."""

    url: str
    namespace: str
    bucket: Bucket
    estimate: int | None = None
    """Tokens that each request is expected to take; None: requests are counted, not tokens."""


class Contender(Protocol):
    """One way to share a limit."""

    async def prepare(self) -> None:
        """Connect, and do what a first call alone costs, without taking a place."""

    async def use(self, work: Work) -> None:
        """Wait for a place, work, and report."""


class Kind(NamedTuple):
    """A row."""

    title: str
    build: Callable[[Setting], Contender]
    package: str | None = None
    """That it needs beside ours."""
    decides: Callable[[Setting], Decider] | None = None
    """How it decides at once, for the comparison of speed."""

    @property
    def installed(self) -> bool:
        """Whether it can take part."""
        return self.package is None or importlib.util.find_spec(self.package) is not None


class Decider(Protocol):
    """One decision that never waits."""

    async def prepare(self) -> None:
        """Connect."""

    async def decide(self) -> bool:
        """Whether there is a place now; takes it."""


# ------------------------------------------------------------------------------------------------------------------ ours
_WORK: ContextVar[Work] = ContextVar("work")


class Model:
    """`ResilientChatModel` over a provider that answers at once; the work stands for the call.

    Args:
        setting: The limit.
        learns: Whether it may learn how long answers are; else its estimate is held at the setting's: the prompt is said to be as long as
            that, and usage says what it really was.
    """

    def __init__(self, setting: Setting, *, learns: bool = True) -> None:
        from langchain_resilient import Provider, RateLimits, ResilientChatModel

        rate, burst = round(60 * setting.bucket.rate), int(setting.bucket.burst)
        if setting.estimate is None:
            limits = RateLimits(rpm=rate, burst=burst, on_limit="wait", max_wait=PATIENCE)
        else:
            limits = RateLimits(tpm=rate, on_limit="wait", max_wait=PATIENCE)  # its burst is what ten seconds bring
        most = setting.estimate if learns else 1
        self._prompt = "Hello" if learns or setting.estimate is None else _prompt_of(setting.estimate - 1)
        self._model = ResilientChatModel(
            providers=[Provider(_instant(as_input=not learns), limits=limits)], backend=setting.url,
            namespace=setting.namespace, max_tokens=most,
        )  # fmt: skip

    async def prepare(self) -> None:
        """Making it has connected it; a call in memory warms up the rest."""
        from langchain_resilient import ResilientChatModel

        async def nothing() -> int:
            return 1

        self._model.status()
        _WORK.set(nothing)
        await ResilientChatModel(providers=[_instant(as_input=True)], namespace="warm up").ainvoke("Hello")

    async def use(self, work: Work) -> None:
        """A call."""
        _WORK.set(work)
        await self._model.ainvoke(self._prompt)


def _prompt_of(tokens: int) -> str:
    """A prompt whose tokens are estimated so."""
    from langchain_core.messages import HumanMessage
    from langchain_core.messages.utils import count_tokens_approximately

    few, many = 1, 8 * tokens
    while few < many:
        middle = (few + many) // 2
        if 1.1 * count_tokens_approximately([HumanMessage("x" * middle)]) >= tokens:
            many = middle
        else:
            few = middle + 1
    return "x" * few


def _instant(*, as_input: bool) -> Any:
    from langchain_core.language_models import BaseChatModel
    from langchain_core.messages import AIMessage
    from langchain_core.outputs import ChatGeneration, ChatResult

    class Instant(BaseChatModel):
        """Does the work, and says what it used."""

        total_timeout: float | None = 30.0

        def _generate(self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> ChatResult:
            raise NotImplementedError

        async def _agenerate(
            self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any
        ) -> ChatResult:
            used = await _WORK.get()()
            given, made = (used, 0) if as_input else (0, used)
            usage = {"input_tokens": given, "output_tokens": made, "total_tokens": used}
            message = AIMessage("Hello.", usage_metadata=usage, response_metadata={"finish_reason": "stop"})
            return ChatResult(generations=[ChatGeneration(message=message)])

        @property
        def _llm_type(self) -> str:
            return "instant"

    return Instant()


class Keyed:
    """`KeyedRateLimiter`, one key."""

    def __init__(self, setting: Setting) -> None:
        from langchain_resilient import KeyedRateLimiter, RateLimits

        rate, burst = round(60 * setting.bucket.rate), int(setting.bucket.burst)
        limits = RateLimits(rpm=rate, burst=burst) if setting.estimate is None else RateLimits(tpm=rate)
        self._limiter = KeyedRateLimiter(
            setting.url, _patient(limits), namespace=setting.namespace, user_type="benchmark"
        )
        self._estimate = setting.estimate or 0

    async def prepare(self) -> None:
        """Ask about another user."""
        await self._limiter.atry_acquire("somebody else")

    async def use(self, work: Work) -> None:
        """Wait, work, settle."""
        admission = await self._limiter.aacquire("somebody", tokens=self._estimate)
        used = await work()
        if self._estimate:
            self._limiter.settle(admission, tokens=used)

    async def decide(self) -> bool:
        """Ask at once."""
        return (await self._limiter.atry_acquire("somebody")).allowed


def _patient(limits: Any) -> Any:
    from dataclasses import replace

    return replace(limits, on_limit="wait", max_wait=PATIENCE)


# ---------------------------------------------------------------------------------------------------------------- others
class Limits:
    """`limits`, whose users wait by themselves: until the window ends, or by asking again and again."""

    def __init__(self, setting: Setting, *, strategy: str, polls: bool) -> None:
        from limits import RateLimitItemPerSecond
        from limits.aio import strategies
        from limits.storage import storage_from_string

        # Its own choice, coredis, fails with the version of today.
        storage = storage_from_string(f"async+{setting.url}", implementation="redispy", key_prefix=setting.namespace)
        seconds = max(1, round(setting.bucket.burst / setting.bucket.rate))
        self._item = RateLimitItemPerSecond(int(setting.bucket.rate * seconds), seconds)
        self._limiter = getattr(strategies, strategy)(storage)
        self._polls, self._cost = polls, setting.estimate or 1

    async def prepare(self) -> None:
        """Ask about another user, with the script loaded."""
        await self._limiter.hit(self._item, "somebody else", cost=self._cost)
        await self._limiter.get_window_stats(self._item, "somebody else")

    async def use(self, work: Work) -> None:
        """Wait and work; it has no way to take back what was not used."""
        while not await self.decide():
            if self._polls:
                await asyncio.sleep(POLL)
                continue
            stats = await self._limiter.get_window_stats(self._item, "somebody")
            await asyncio.sleep(max(0.001, stats.reset_time - time.time()))
        await work()

    async def decide(self) -> bool:
        """Ask at once."""
        return bool(await self._limiter.hit(self._item, "somebody", cost=self._cost))


class Throttle:
    """`throttled-py`, which waits by itself."""

    def __init__(self, setting: Setting, *, using: str) -> None:
        from throttled.asyncio import RedisStore, Throttled, per_sec

        quota = per_sec(int(setting.bucket.rate), burst=int(setting.bucket.burst))
        self._throttle = Throttled(
            using=using, quota=quota, store=RedisStore(server=setting.url), key_prefix=setting.namespace
        )
        self._cost = setting.estimate or 1

    async def prepare(self) -> None:
        """Ask about another user."""
        await self._throttle.limit("somebody else", self._cost)

    async def use(self, work: Work) -> None:
        """Wait and work; it refuses to take anything back."""
        while (await self._throttle.limit("somebody", self._cost, timeout=PATIENCE)).limited:
            pass
        await work()

    async def decide(self) -> bool:
        """Ask at once."""
        return not (await self._throttle.limit("somebody", self._cost)).limited


class Pyrate:
    """`pyrate-limiter`, which waits by itself."""

    def __init__(self, setting: Setting, *, gcra: bool) -> None:
        self._setting, self._gcra = setting, gcra
        self._limiter: Any = None

    async def prepare(self) -> None:
        """Load the script, and ask about nobody."""
        from pyrate_limiter import GCRA, Limiter, Rate, RedisBucket, RedisStateStore, StateBucket
        from redis.asyncio import Redis

        seconds = max(1, round(self._setting.bucket.burst / self._setting.bucket.rate))
        rates = [Rate(int(self._setting.bucket.rate * seconds), 1000 * seconds)]
        client = Redis.from_url(self._setting.url)
        if self._gcra:
            bucket: Any = StateBucket(rates, GCRA(), RedisStateStore(client, self._setting.namespace))
        else:
            bucket = await RedisBucket.init(rates, client, self._setting.namespace)
        self._limiter = Limiter(bucket)

    async def use(self, work: Work) -> None:
        """Wait and work; it has no way to take back what was not used."""
        while not await self._limiter.try_acquire_async("somebody", weight=self._setting.estimate or 1):
            pass
        await work()

    async def decide(self) -> bool:
        """Ask at once."""
        return bool(await self._limiter.try_acquire_async("somebody", blocking=False))


class InMemory:
    """LangChain's own limiter: for one process, and for requests only."""

    def __init__(self, setting: Setting) -> None:
        from langchain_core.rate_limiters import InMemoryRateLimiter

        self._limiter = InMemoryRateLimiter(
            requests_per_second=setting.bucket.rate, max_bucket_size=setting.bucket.burst
        )

    async def prepare(self) -> None:
        """Nothing to connect to."""

    async def use(self, work: Work) -> None:
        """Wait and work."""
        await self._limiter.aacquire()
        await work()


class LiteLLM:
    """LiteLLM's Router with usage-based routing: a limit a minute, counted from the minute's beginning; refused, one asks again."""

    def __init__(self, setting: Setting) -> None:
        import litellm  # type: ignore[import-not-found, unused-ignore]

        litellm.suppress_debug_info = True
        # The minute's limit is what the others allow within the run.
        a_minute = {"rpm": LITELLM_RPM} if setting.estimate is None else {"tpm": int(60 * setting.bucket.rate)}
        parameters = {"model": "openai/gpt-4.1-mini", "api_key": "sk-none", **a_minute}
        self._router = litellm.Router(
            model_list=[{"model_name": setting.namespace, "litellm_params": parameters}],
            routing_strategy="usage-based-routing-v2", redis_url=setting.url, num_retries=0, disable_cooldowns=True,
        )  # fmt: skip
        self._namespace = setting.namespace

    async def prepare(self) -> None:
        """What a first call alone costs: imports, without the router."""
        import litellm  # type: ignore[import-not-found, unused-ignore]

        await litellm.acompletion("openai/gpt-4.1-mini", messages=MESSAGES, mock_response="Hello.", api_key="sk-none")

    async def use(self, work: Work) -> None:
        """Ask until it is let in."""
        while True:
            try:
                await self._router.acompletion(self._namespace, messages=MESSAGES, mock_response="Hello.")
            except Exception as error:
                if type(error).__name__ not in {"RateLimitError", "RouterRateLimitError", "RouterRateLimitErrorBasic"}:
                    raise
                await asyncio.sleep(5 * POLL)
                continue
            break
        await work()


MESSAGES = [{"role": "user", "content": "Hello"}]
LITELLM_RPM = 110
A_MINUTE = 60

WAITERS: dict[str, Kind] = {
    "model": Kind("ours: ResilientChatModel", Model),
    "keyed": Kind("ours: KeyedRateLimiter", Keyed),
    "pyrate-gcra": Kind("pyrate-limiter, GCRA", lambda setting: Pyrate(setting, gcra=True), "pyrate_limiter"),
    "pyrate-log": Kind("pyrate-limiter, log", lambda setting: Pyrate(setting, gcra=False), "pyrate_limiter"),
    "throttled-gcra": Kind("throttled-py, GCRA", lambda setting: Throttle(setting, using="gcra"), "throttled"),
    "throttled-bucket": Kind(
        "throttled-py, token bucket", lambda setting: Throttle(setting, using="token_bucket"), "throttled"
    ),
    "limits": Kind(
        "limits, moving window, until reset",
        lambda setting: Limits(setting, strategy="MovingWindowRateLimiter", polls=False),
        "limits",
    ),
    "limits-poll": Kind(
        "limits, moving window, 50 ms polls",
        lambda setting: Limits(setting, strategy="MovingWindowRateLimiter", polls=True),
        "limits",
    ),
    "langchain": Kind("LangChain InMemoryRateLimiter", InMemory),
    "litellm": Kind(f"LiteLLM Router, usage v2, rpm={LITELLM_RPM}", LiteLLM, "litellm"),
}
"""Those who wait for requests, in the table's order."""
COUNTERS: dict[str, Kind] = {
    "model": Kind("ours: ResilientChatModel, learns", Model),
    "model-held": Kind("ours: ResilientChatModel, estimate held", lambda setting: Model(setting, learns=False)),
    "keyed": Kind("ours: KeyedRateLimiter, settled", Keyed),
    "pyrate": Kind("pyrate-limiter, GCRA", lambda setting: Pyrate(setting, gcra=True), "pyrate_limiter"),
    "throttled": Kind(
        "throttled-py, token bucket", lambda setting: Throttle(setting, using="token_bucket"), "throttled"
    ),
    "limits": Kind(
        "limits, sliding window, 50 ms polls",
        lambda setting: Limits(setting, strategy="SlidingWindowCounterRateLimiter", polls=True),
        "limits",
    ),
}
"""Those who count tokens. LangChain's limiter knows none; LiteLLM's counts them by the minute, after the fact."""
DECIDERS: dict[str, Kind] = {
    "keyed": Kind("ours: KeyedRateLimiter.atry_acquire", Keyed, decides=Keyed),
    "pyrate": Kind(
        "pyrate-limiter, GCRA", WAITERS["pyrate-gcra"].build, "pyrate_limiter", lambda it: Pyrate(it, gcra=True)
    ),
    "throttled": Kind(
        "throttled-py, GCRA", WAITERS["throttled-gcra"].build, "throttled", lambda it: Throttle(it, using="gcra")
    ),
    "limits": Kind(
        "limits, moving window", WAITERS["limits"].build, "limits",
        lambda it: Limits(it, strategy="MovingWindowRateLimiter", polls=False),
    ),
}  # fmt: skip
"""Those whose decisions are timed."""
