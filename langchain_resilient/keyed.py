"""Limits for each user of yours: so many requests and tokens for each key, in one process or in all.

Rules of this file: a key is a user, and appears in no log, metric, error or repr. Whoever waits has a place already and sleeps once; whoever
is cancelled hands it back, in so far as nobody booked behind it counts on it. `engine/store/tenants.py` keeps the books; `admission.py` says
what was decided. LangChain is imported only where somebody asks for one of its limiters.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

from langchain_resilient.admission import Admission, Key, dependency
from langchain_resilient.engine import quota
from langchain_resilient.engine.effects import Later
from langchain_resilient.engine.errors import RateLimitedError, SettingsError, checked, is_number, require
from langchain_resilient.engine.events import Event, Observer, RateLimited
from langchain_resilient.engine.observe.audience import Audience
from langchain_resilient.engine.policy import Clock, SystemClock
from langchain_resilient.engine.quota import RateLimits
from langchain_resilient.engine.store.opening import check_backend, open_ledger
from langchain_resilient.engine.store.tenants import NEVER, Booking, Ledger, MemoryLedger, memory_ledger

if TYPE_CHECKING:
    from langchain_core.rate_limiters import BaseRateLimiter

SECOND = 1_000_000
YEARS = 10**15
"""µs, some thirty years: what one report may charge at most, so that Redis's numbers hold it."""
UNMEANT = {
    "itpm": "tokens are one number here; set tpm",
    "otpm": "tokens are one number here; set tpm",
    "usd_per_day": "a user's tokens have no price here; set tpd",
    "concurrency": "a key's requests have no end that is known here; set it on the Provider",
}
"""The limits that belong to a provider's account, and what to do instead."""


@checked
class KeyedRateLimiter:
    """Limits for each key: a user, a tenant, an API key.

    Args:
        backend: "memory://" (default): this process only. A Redis URL: all processes that share it; while Redis is away each process decides
            alone, with 0.8/N of the limits for N processes, and lets each key's first request in. Connecting takes at most 0.25 s.
        limits: For each key: `rpm`, `tpm`, `rpd`, `tpd` (at least one) and `burst`. `on_limit="reject"` never waits; otherwise `acquire`
            waits for up to `max_wait` seconds.
        user_type: What kind of users these are, e.g. "free": keys of different kinds are different keys. A metric's label, so one of few.
        namespace: Limiters of one namespace and kind share what keys have taken.
        observers: Told of `RateLimited` and `StoreDegraded`; "prometheus" stands for a `PrometheusObserver` on the default registry.
        clock: Time; None: the machine's, and Redis's own. A `testing.FakeClock` in tests.

    Raises:
        SettingsError: For settings that can't be meant, and for a Redis that refuses the password. One that can't be reached raises nothing.
    """

    def __init__(
        self,
        backend: str = "memory://",
        limits: RateLimits = RateLimits(),  # noqa: B008  # frozen, and refused below
        *,
        user_type: str = "default",
        namespace: str = "default",
        observers: Sequence[Observer | Literal["prometheus", "opentelemetry"]] = (),
        clock: Clock | None = None,
    ) -> None:
        _check(backend, limits, user_type, namespace)
        self._limits = limits
        self._user_type = user_type
        self._dimensions = quota.dimensions(limits)
        self._of_requests = [item.unit == "requests" for item in self._dimensions]
        self._most_tokens = min((item.limit for item in self._dimensions if item.unit == "tokens"), default=math.inf)
        self._patience = 0 if limits.on_limit == "reject" else int(limits.max_wait * SECOND)
        self._clock = clock or SystemClock()
        self._audience = Audience(self._clock, observers)
        self._ledger = self._opened(backend, namespace, clock)

    def _opened(self, backend: str, namespace: str, clock: Clock | None) -> Ledger:
        if backend == "memory://":
            return memory_ledger(namespace, self._dimensions) if clock is None else MemoryLedger(clock.now)
        if clock is None:
            ledger = open_ledger(backend, namespace)
        else:
            from langchain_resilient.engine.store.redis.tenants import RedisLedger  # redis-py is an extra

            ledger = RedisLedger(backend, namespace, now=clock.now, clock=lambda: int(clock.now() * SECOND))
        ledger.listen(self._store_changed)
        return ledger

    def __repr__(self) -> str:
        return f"KeyedRateLimiter({self._limits}, user_type={self._user_type!r})"

    def _store_changed(self, event: Event) -> None:
        self._audience(event)

    # ------------------------------------------------------------------------------------------------------- decisions
    def _ask(self, key: str, tokens: int, patience: int) -> Booking | Later:
        if not isinstance(key, str) or not key:
            raise SettingsError(f"key: got {type(key).__name__!r}; use a string that is not empty, such as a user's id")
        if type(tokens) is not int or tokens < 0:
            _check_tokens(tokens)
        # What costs too much is only looked at, for the headers: no waiting would help.
        patience = patience if tokens <= self._most_tokens else NEVER
        cost = tokens if patience != NEVER else 0
        costs = [1 if one else cost for one in self._of_requests]
        return self._ledger.take(f"{self._user_type}:{key}", self._dimensions, costs, patience)

    def _told(self, booking: Booking, tokens: int) -> Admission:
        if booking.granted and not booking.wait:
            return Admission(booking, self._dimensions, tokens)
        too_much = tokens > self._most_tokens
        if too_much:
            limits = [math.inf if item.unit == "requests" else item.limit for item in self._dimensions]
            booking = booking._replace(tightest=limits.index(self._most_tokens))
        self._audience(RateLimited("none", "client", self._dimensions[booking.tightest].name, self._user_type))
        return Admission(booking, self._dimensions, tokens, never=too_much)

    def _take(self, key: str, tokens: int, patience: int) -> Admission:
        reply = self._ask(key, tokens, patience)
        admission = self._told(reply.result() if isinstance(reply, Later) else reply, tokens)
        if admission.waited:
            try:
                self._clock.sleep(admission.waited)
            except BaseException:
                self.refund(admission)
                raise
        return admission

    async def _atake(self, key: str, tokens: int, patience: int) -> Admission:
        reply = self._ask(key, tokens, patience)
        admission = self._told(await reply if isinstance(reply, Later) else reply, tokens)
        if admission.waited:
            try:
                await self._clock.asleep(admission.waited)
            except BaseException:
                self.refund(admission)
                raise
        return admission

    def try_acquire(self, key: str, *, tokens: int = 0) -> Admission:
        """Take a place now, or be told when there will be one; never waits, and raises nothing for a limit.

        Args:
            key: Who: a string that is not empty.
            tokens: What the request is expected to take of `tpm` and `tpd` (≥ 0, default 0); see `settle`.
        """
        return self._take(key, tokens, 0)

    async def atry_acquire(self, key: str, *, tokens: int = 0) -> Admission:
        """As `try_acquire`, without blocking the event loop."""
        return await self._atake(key, tokens, 0)

    def acquire(self, key: str, *, tokens: int = 0) -> Admission:
        """Take a place, waiting for it where need be: in order, and for `max_wait` seconds at most.

        Args:
            key: Who: a string that is not empty.
            tokens: What the request is expected to take of `tpm` and `tpd` (≥ 0, default 0); see `settle`.

        Raises:
            RateLimitedError: The wait would be longer; nothing was taken. `retry_after` says when there will be a place.
        """
        return self._allowed(self._take(key, tokens, self._patience), tokens)

    async def aacquire(self, key: str, *, tokens: int = 0) -> Admission:
        """As `acquire`, without blocking the event loop. A cancelled wait gives its place back, unless others wait behind it for whom there is no room beside."""
        return self._allowed(await self._atake(key, tokens, self._patience), tokens)

    async def aadmit(self, key: str, *, tokens: int = 0, wait: bool = False) -> Admission:
        """Take a place, and raise nothing for a limit: as `atry_acquire`, but with `wait` as patient as `aacquire`."""
        return await self._atake(key, tokens, self._patience if wait else 0)

    def _allowed(self, admission: Admission, tokens: int) -> Admission:
        if admission.allowed:
            return admission
        who = f"{admission.dimension} = {admission.limit} for each user of type {self._user_type!r}"
        if admission.retry_after is None:
            raise RateLimitedError(f"{who}: this request alone takes {tokens}", never=True)
        raise RateLimitedError(f"{who}: used up for {admission.retry_after:.3f} s", retry_after=admission.retry_after)

    # ----------------------------------------------------------------------------------------------------- afterwards
    def settle(self, admission: Admission, *, tokens: int) -> None:
        """Say how many tokens a request really took: the rest of its estimate comes back, or what it took beyond it is charged.

        Never waits; a second report, and one of a request that was refused, change nothing. All comes back that was still owed when the last
        request behind this one began, or is booked to begin: what had flowed back by then was theirs to take.
        """
        _check_tokens(tokens)
        if not admission.ends() or all(self._of_requests):
            return
        booking = admission.booking
        moves = [
            min(quota.stretched(by, booking.scale), YEARS) if by > 0 else by
            for by in (
                0 if item.unit == "requests" else quota.moved(item, step, admission.tokens, tokens)
                for item, step in zip(self._dimensions, booking.steps, strict=True)
            )
        ]
        if any(moves):
            booking.ledger.settle(booking, self._dimensions, moves)

    def refund(self, admission: Admission) -> None:
        """Give all of it back, the request too: it was never made. Never waits; a second report changes nothing. See `settle`."""
        if admission.ends():
            admission.booking.ledger.hand_back(admission.booking, self._dimensions)

    def close(self) -> None:
        """Send what is under way (at most 0.5 s). Needed at no place: the end of the process does it."""
        self._ledger.close()

    # ----------------------------------------------------------------------------------------------------- for others
    def for_key(self, key: str, *, tokens: int = 0) -> BaseRateLimiter:
        """A LangChain rate limiter, as chat models take it (`ChatOpenAI(rate_limiter=…)`), for one key.

        Its `acquire` raises `RateLimitedError` where the wait would be longer than `max_wait`.
        """
        from langchain_resilient.one_key import OneKey  # LangChain, which limits alone don't need

        return OneKey(
            lambda blocking: (self.acquire if blocking else self.try_acquire)(key, tokens=tokens),
            lambda blocking: (self.aacquire if blocking else self.atry_acquire)(key, tokens=tokens),
        )

    def dependency(
        self, key: Key, *, tokens: int | Callable[[Any], int] = 0, wait: bool = False
    ) -> Callable[..., Awaitable[Admission]]:
        """A FastAPI dependency: `Annotated[Admission, Depends(limiter.dependency(key=user_of))]`.

        It answers 429 with `Retry-After` where the key's limit is used up (413 where the request alone exceeds it), and sets the
        `RateLimit` headers. A response that you make yourself has headers of its own: give it `admission.headers`.

        Args:
            key: Who it is, by the (Starlette) request; it may be async, and raise an `HTTPException` of its own.
            tokens: What the request is expected to take (≥ 0, default 0), or a function of the request.
            wait: Whether it may wait for a place, for up to `max_wait`; default False.
        """
        return dependency(lambda who, cost: self.aadmit(who, tokens=cost, wait=wait), key, tokens)


def check_limits(limits: object, path: str) -> None:
    """Raise `SettingsError` for what can't be the limits of each user; `path` is their place in the settings."""
    if not isinstance(limits, RateLimits):
        raise SettingsError(f"{path}: got {limits!r}; use RateLimits(rpm=…, tpm=…)")
    for name, instead in UNMEANT.items():
        require(getattr(limits, name) is None, f"{path}.{name}", getattr(limits, name), instead)
    require(bool(quota.dimensions(limits)), path, limits, "set at least one of rpm, tpm, rpd, tpd")


def _check(backend: object, limits: object, user_type: object, namespace: object) -> None:
    check_backend(backend)
    check_limits(limits, "limits")
    plain = isinstance(user_type, str) and user_type != "" and not set(":{}") & set(user_type)
    require(plain, "user_type", user_type, 'use a word such as "free", without ":", "{" and "}"')
    require(isinstance(namespace, str), "namespace", namespace, "use a string")


def _check_tokens(tokens: object) -> None:
    require(isinstance(tokens, int) and is_number(tokens, least=0), "tokens", tokens, "use a whole number ≥ 0")
