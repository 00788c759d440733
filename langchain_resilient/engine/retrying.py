"""`exponential_backoff`, the decorator: retries for a function of any kind, without providers, circuits or fallbacks.

Rules of this file: which delay follows which failure is decided once, in `_Schedule`; the sync and the async wrapper only wait. A function
that returns an awaitable is awaited inside the retry, as a coroutine that nobody awaited is no success.
"""

from __future__ import annotations

import functools
import inspect
import logging
import random
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple, TypeVar, cast

from langchain_resilient.engine.backoff import Retry, after_hint, full_jitter
from langchain_resilient.engine.classify import ErrorKind, classify
from langchain_resilient.engine.errors import require
from langchain_resilient.engine.policy import Clock, SystemClock

LOGGER = logging.getLogger("langchain_resilient")
NEVER = frozenset({
    ErrorKind.AUTH, ErrorKind.CLIENT_ERROR, ErrorKind.CONTENT_POLICY, ErrorKind.CONTEXT_OVERFLOW, ErrorKind.PERMISSION,
    ErrorKind.NOT_FOUND, ErrorKind.QUOTA_EXHAUSTED, ErrorKind.CANCELLED,
})  # fmt: skip
THROTTLED_FACTOR = 2.0
_F = TypeVar("_F", bound=Callable[..., Any])


def exponential_backoff(
    max_retries: int = 3,
    base_delay: float = 1.0,
    max_delay: float = 60.0,
    exceptions: tuple[type[Exception], ...] = (Exception,),
    *,
    clock: Clock | None = None,
    rand: Callable[[], float] = random.random,
) -> Callable[[_F], _F]:
    """Retry a sync or async function with full jitter: `delay = uniform(0, min(base_delay · 2ⁿ, max_delay))`.

    A provider's Retry-After is waited for instead (up to `max_delay`; longer: the error is raised), and a 429 without one doubles
    the base. What can't succeed by trying again (401, 400 and their kin, a used-up quota) is raised at once, as is a bug
    (`TypeError`, …) unless `exceptions` names it.

    Args:
        max_retries: Tries after the first (≥ 0).
        base_delay: Seconds, the upper bound of the first delay (≥ 0).
        max_delay: Seconds, the longest delay (≥ 0).
        exceptions: What is retried at all.
        clock: Time; default: the machine's.
        rand: Uniform in [0, 1).

    Raises:
        SettingsError: For a nonsensical setting, and for a generator function, which can't be retried. The function's own last exception is raised as it is.
    """
    retry = Retry(max_retries=max_retries, base_delay=base_delay, max_delay=max_delay)
    classes = exceptions if isinstance(exceptions, tuple) else (exceptions,)
    ok = bool(classes) and all(isinstance(item, type) and issubclass(item, Exception) for item in classes)
    require(ok, "exponential_backoff.exceptions", exceptions, "use a tuple of exception classes")
    schedule = _Schedule(retry, classes, clock or SystemClock(), rand)

    def decorate(function: _F) -> _F:
        inner = _unwrapped(function)
        ok = callable(function) and not (inspect.isgeneratorfunction(inner) or inspect.isasyncgenfunction(inner))
        fix = "decorate a function that returns: one that yields has given its first results away before it can fail"
        require(ok, "exponential_backoff", getattr(function, "__qualname__", function), fix)

        if _is_async(function):

            @functools.wraps(function)
            async def retried(*args: Any, **kwargs: Any) -> Any:
                return await _awaited(functools.partial(function, *args, **kwargs), schedule)
        else:

            @functools.wraps(function)
            def retried(*args: Any, **kwargs: Any) -> Any:
                return _called(functools.partial(function, *args, **kwargs), schedule)

        return cast("_F", retried)

    return decorate


def _unwrapped(function: Any) -> Any:
    while isinstance(function, functools.partial):
        function = function.func
    return function


def _is_async(function: Any) -> bool:
    function = _unwrapped(function)
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__)


class _Schedule(NamedTuple):
    """When to try again."""

    retry: Retry
    exceptions: tuple[type[Exception], ...]
    clock: Clock
    rand: Callable[[], float]

    def delay(self, error: Exception, tries: int) -> float:
        """Seconds before the next try; raises `error` where there is to be none."""
        failure = classify(error, wall=self.clock.wall())
        is_plain_bug = failure.bug and self.exceptions == (Exception,)
        hint = failure.retry_after
        if (
            tries >= self.retry.max_retries
            or failure.kind in NEVER
            or is_plain_bug
            or (hint or 0.0) > self.retry.max_delay
        ):
            raise error
        factor = THROTTLED_FACTOR if failure.kind is ErrorKind.RATE_LIMITED else 1.0
        base, cap = self.retry.base_delay * factor, self.retry.max_delay
        delay = (
            full_jitter(tries, base=base, cap=cap, rand=self.rand()) if hint is None else after_hint(hint, self.rand())
        )
        LOGGER.info("retry %d of %d in %.2f s after %s", tries + 1, self.retry.max_retries, delay, failure.kind)
        return delay


def _called(call: Callable[[], Any], schedule: _Schedule) -> Any:
    tries = 0
    while True:
        try:
            result = call()
        except schedule.exceptions as error:
            schedule.clock.sleep(schedule.delay(error, tries))
            tries += 1
        else:
            return _awaited(call, schedule, result) if inspect.isawaitable(result) else result


async def _awaited(call: Callable[[], Any], schedule: _Schedule, begun: Awaitable[Any] | None = None) -> Any:
    tries = 0
    while True:
        try:
            return await (call() if begun is None else begun)
        except schedule.exceptions as error:
            await schedule.clock.asleep(schedule.delay(error, tries))
            begun = None
            tries += 1
