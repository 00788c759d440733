"""The settings of one model, resolved: what the plan and the store read.

Rules of this file: frozen, checked when made, no behaviour beyond small derivations; the production clock and randomness are defaults
here, so that nothing else needs to know them.
"""

from __future__ import annotations

import asyncio
import math
import random
import threading
import time
from collections.abc import Callable, Container
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, Protocol

from langchain_resilient.engine.backoff import Retry
from langchain_resilient.engine.circuit import Circuit
from langchain_resilient.engine.classify import ErrorKind, Failure
from langchain_resilient.engine.errors import OverloadedError, checked, is_number, require, unknown_name
from langchain_resilient.engine.events import Observer, Usage
from langchain_resilient.engine.hedge import Allowance, Hedge
from langchain_resilient.engine.quota import Cost, Dimension, Lane, RateLimits, counts_tokens, dimensions, places
from langchain_resilient.engine.routing import ROUTINGS, Routing, Standing
from langchain_resilient.engine.store.forks import tell_of_forks

REASONING_FIRST_TOKEN = 180.0
REASONING_IDLE = 60.0
SLOWEST_OUTPUT = 20.0
"""Tokens a second that the default response limit allows for."""
LONGEST_RESPONSE = 600.0
DEFAULT_MAX_WAIT = 10.0


@checked
@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long to wait for what, in seconds (all > 0). Checked when made: raises `SettingsError`."""

    connect: float = 5.0
    """To a connection, where the client takes such a limit."""
    first_token: float = 12.0
    """To a stream's first content. The default becomes 180 for models that reason (12, 15 and 60 count as the default even if written)."""
    idle: float = 15.0
    """Between two contents of a stream; keep-alives don't count. The default becomes 60 for models that reason."""
    response: float = 60.0
    """For an unstreamed answer. The default grows by a second for every 20 tokens allowed, to at most 600."""
    total: float = 600.0
    """The deadline of a request, over all attempts and waits; a stream that delivers is not cut by it."""
    watch_calls: bool = False
    """Whether unstreamed answers are streamed inside where the provider can, so that a hang is seen at the first-token and idle limits
    instead of `response`. Default: False. One that breaks begins anew elsewhere, as nothing of it was shown."""

    def __post_init__(self) -> None:
        for name in ("connect", "first_token", "idle", "response", "total"):
            value = getattr(self, name)
            require(is_number(value, above=0), f"Timeouts.{name}", value, "use a number of seconds > 0")
        require(isinstance(self.watch_calls, bool), "Timeouts.watch_calls", self.watch_calls, "use True or False")


_DEFAULTS = Timeouts()


@checked
@dataclass(frozen=True, slots=True)
class Price:
    """US dollars per million tokens (≥ 0). Checked when made: raises `SettingsError`."""

    input: float
    output: float
    cached_input: float | None = None
    """For input read from the provider's cache; None: as `input`."""

    def __post_init__(self) -> None:
        for name in ("input", "output", "cached_input"):
            value = getattr(self, name)
            ok = is_number(value, least=0) or (value is None and name == "cached_input")
            require(ok, f"Price.{name}", value, "use US dollars per million tokens ≥ 0")

    def of(self, usage: Usage) -> float:
        """US dollars for what an answer used."""
        cached = self.input if self.cached_input is None else self.cached_input
        fresh = usage.input - usage.cached_input
        return (fresh * self.input + usage.cached_input * cached + usage.output * self.output) / 1_000_000


@dataclass(frozen=True, eq=False)
class Target:
    """One provider as the engine sees it."""

    name: str
    """The metric label, such as "openai/gpt-4.1"."""
    route: str
    """The key of what all credentials share: circuit, latency, budget."""
    account: str
    """The key of what belongs to one credential: limits, blocks."""
    client: Any = None
    """Opaque to the engine: what the caller's `Upstream` calls."""
    priority: int = 0
    rung: int = 0
    """Lower ones are asked earlier under any routing."""
    weight: float = 1.0
    max_latency: float | None = None
    price: Price | None = None
    limits: RateLimits = field(default_factory=RateLimits)
    circuit: Circuit = field(default_factory=Circuit)
    timeouts: Timeouts = _DEFAULTS
    context_window: int | None = None
    reasons: bool = False
    """Whether the model thinks before it speaks: then the default limits are longer."""
    takes_prefill: bool = False
    """Whether it goes on with a begun answer that it is given as the assistant's last message."""
    sends_finish_reason: bool = False
    """Whether its wire always ends a stream with a finish reason: then one without is truncated."""

    @cached_property
    def dimensions(self) -> tuple[Dimension, ...]:
        """Its limits, ready for arithmetic."""
        return dimensions(self.limits)

    @cached_property
    def longest_wait(self) -> float:
        """Seconds that a request may stand in its line: even where nothing is limited there is one, for those who wait for its circuit."""
        limited = self.dimensions or self.limits.concurrency
        return self.limits.max_wait if limited else DEFAULT_MAX_WAIT

    @cached_property
    def counts_tokens(self) -> bool:
        """Whether its limits need an estimate of tokens."""
        return counts_tokens(self.limits)

    @cached_property
    def standing(self) -> Standing:
        """What ranking needs of its settings."""
        price = self.price
        return Standing(
            self.priority, self.weight, math.inf if price is None else (price.input + price.output) / 2000, self.rung
        )

    @cached_property
    def first_token(self) -> float:
        """Seconds allowed to a stream's first content."""
        limit = self.timeouts.first_token
        return REASONING_FIRST_TOKEN if self.reasons and limit == _DEFAULTS.first_token else limit

    @cached_property
    def idle(self) -> float:
        """Seconds allowed between two contents."""
        limit = self.timeouts.idle
        return REASONING_IDLE if self.reasons and limit == _DEFAULTS.idle else limit

    @cached_property
    def usual_response(self) -> float:
        """Seconds allowed to an unstreamed answer of unknown length."""
        return self._response(None)

    def response(self, max_output: int | None) -> float:
        """Seconds allowed to an unstreamed answer of at most `max_output` tokens."""
        return self.usual_response if max_output is None else self._response(max_output)

    def _response(self, max_output: int | None) -> float:
        limit = self.timeouts.response
        if limit != _DEFAULTS.response:
            return limit
        longer = limit + (max_output or 0) / SLOWEST_OUTPUT
        return min(LONGEST_RESPONSE, max(longer, REASONING_FIRST_TOKEN if self.reasons else 0.0))

    def time_limit(self, max_output: int | None, *, stream: bool) -> float:
        """Seconds that one attempt may stay silent."""
        return self.first_token if stream else self.response(max_output)

    def cost(self, input_tokens: int, output_tokens: int) -> Cost:
        """What such a request takes from its limits."""
        if self.price is None:
            return Cost(1, input_tokens, output_tokens)
        dollars = self.price.of(Usage(input_tokens, output_tokens))
        return Cost(1, input_tokens, output_tokens, round(dollars * 1_000_000))


class Clock(Protocol):
    """Time, as a parameter. `testing.FakeClock` is the other one."""

    def now(self) -> float:
        """Seconds, monotonic."""

    def wall(self) -> float:
        """Seconds since the epoch."""

    def sleep(self, seconds: float, until: threading.Event | None = None) -> None:
        """Wait, at most until the event is set."""

    async def asleep(self, seconds: float, until: asyncio.Event | None = None) -> None:
        """Wait, at most until the event is set."""


class SystemClock:
    """The machine's own time."""

    now = staticmethod(time.monotonic)
    wall = staticmethod(time.time)

    def sleep(self, seconds: float, until: threading.Event | None = None) -> None:
        """Wait, at most until the event is set."""
        if until is None:
            time.sleep(seconds)
        else:
            until.wait(seconds)

    async def asleep(self, seconds: float, until: asyncio.Event | None = None) -> None:
        """Wait, at most until the event is set."""
        if until is None:
            await asyncio.sleep(seconds)
            return
        try:
            async with asyncio.timeout(seconds):
                await until.wait()
        except TimeoutError:
            pass


class Gate:
    """Bounds what waits or runs in this process.

    Args:
        most: Requests at a time (≥ 1), None: unbounded. The batch and replay lanes may fill 60 % and 50 % of it, so they are
            turned away first.
    """

    def __init__(self, most: int | None = None) -> None:
        ok = most is None or (isinstance(most, int) and is_number(most, least=1))
        require(ok, "max_pending", most, "use a whole number ≥ 1, or None for no bound")
        self._most = most
        self._lock = threading.Lock()
        self.pending = 0
        """Requests in it."""
        tell_of_forks(self)

    def forked(self) -> None:
        """In a new child process: those who were in it are the parent's."""
        self._lock = threading.Lock()
        self.pending = 0

    def enter(self, lane: Lane) -> None:
        """Take a place; raises `OverloadedError` at once when none is left."""
        allowed = math.inf if self._most is None else places(self._most, lane)
        # No call and no allocation under the lock: the garbage collector may close a stream, and so come here, at either.
        with self._lock:
            pending = self.pending
            if pending < allowed:
                self.pending = pending + 1
                return
        msg = f"{pending} requests are pending in this process (max_pending={self._most}, lane {lane!r})"
        raise OverloadedError(msg)

    def leave(self) -> None:
        """Give the place back."""
        with self._lock:
            self.pending = max(0, self.pending - 1)  # a child may leave what its parent entered


Interruption = Literal["continue", "restart", "raise"]
INTERRUPTIONS: tuple[Interruption, ...] = ("continue", "restart", "raise")

Classifier = Callable[[BaseException], ErrorKind | Failure | None]


@dataclass(frozen=True, eq=False)
class Policy:
    """Everything a plan knows before the request comes."""

    targets: tuple[Target, ...]
    """In order of priority."""
    routing: Routing = "priority"
    retry: Retry = field(default_factory=Retry)
    total: float = _DEFAULTS.total
    """Seconds a request may take unless it says otherwise."""
    classifier: Classifier | None = None
    """Asked before our own; None, or an answer of None, leaves it to ours."""
    observe: Observer = lambda _: None
    heard: Container[type] = frozenset()
    """The event types that any observer wants; those that only some want are not made for nobody."""
    gate: Gate = field(default_factory=Gate)
    clock: Clock = field(default_factory=SystemClock)
    rand: Callable[[], float] = random.random
    hedge: Hedge | None = None
    """When to ask a second provider beside a late one; None: never."""
    races: bool = True
    """Whether two providers may be asked at once (raced probes)."""
    on_interruption: Interruption = "continue"
    """What to do when a stream breaks after part of it was shown."""
    no_prefill: set[str] = field(default_factory=set)
    """The routes that turned a begun answer down: they are told in words from then on."""
    last_errors: dict[str, Exception] = field(default_factory=dict)
    """The last failure of each target since its last answer: the cause of a refusal."""
    first_choices: dict[bool, int] = field(default_factory=dict)
    """The last request's first choice, for calls and for streams: what "latency" sticks to."""
    allowance: Allowance | None = None
    """The hedges that may be sent; one is made where there is a `hedge`. Policies of one Router share it, as they do the gate."""

    def __post_init__(self) -> None:
        require(bool(self.targets), "providers", list(self.targets), "name at least one provider")
        if self.routing not in ROUTINGS:
            raise unknown_name("routing", self.routing, ROUTINGS)
        if self.on_interruption not in INTERRUPTIONS:
            raise unknown_name("on_interruption", self.on_interruption, INTERRUPTIONS)
        if self.hedge is not None and self.allowance is None:
            object.__setattr__(self, "allowance", Allowance(self.hedge))

    @cached_property
    def plain(self) -> bool:
        """Whether the first target can be asked without a look at the others: the list's order decides, and time is not short."""
        return self.routing == "priority" and self.total >= LONGEST_RESPONSE

    @cached_property
    def counts_tokens(self) -> bool:
        """Whether any target's limits need an estimate of tokens."""
        return any(target.counts_tokens for target in self.targets)

    @cached_property
    def standings(self) -> tuple[Standing, ...]:
        """What ranking needs of each target."""
        return tuple(target.standing for target in self.targets)
