"""The rate limiter that an inner model was made with, waited for within bounds.

Rules of this file: LangChain waits for a limiter without a limit of its own, inside the attempt: then the wait would count as the provider's
silence, and what was given up on would be sent all the same. So it is waited for only if no other provider could answer instead, and for at
most half of the attempt's time, which leaves the other half for the answer. A limiter that never had a place is a `RateLimitedError`: the
provider has done nothing wrong.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple

from langchain_core.rate_limiters import BaseRateLimiter

from langchain_resilient.engine.errors import RateLimitedError
from langchain_resilient.engine.policy import Clock

POLL = 0.05
"""Seconds between two looks at a limiter: it can't be told to wait for less than for ever."""


class Patience(NamedTuple):
    """How long one attempt may wait."""

    clock: Clock
    until: float
    """The clock's seconds."""
    provider: str

    def over(self) -> bool:
        """Whether there is no time for one more look."""
        return self.clock.now() + POLL > self.until

    def refusal(self) -> RateLimitedError:
        """The error for an attempt that may not wait any longer."""
        return RateLimitedError(f"{self.provider}: the model's own rate limiter has no place", provider=self.provider)


_PATIENCE: ContextVar[Patience | None] = ContextVar("langchain_resilient_patience", default=None)


@contextmanager
def waiting(patience: Patience | None) -> Iterator[None]:
    """Makes it known to the limiter, which LangChain calls without arguments of ours."""
    token = _PATIENCE.set(patience)
    try:
        yield
    finally:
        _PATIENCE.reset(token)


class BoundedLimiter(BaseRateLimiter):
    """A limiter that is waited for no longer than the attempt's `Patience`.

    Args:
        inner: The model's own.
    """

    def __init__(self, inner: BaseRateLimiter) -> None:
        self._inner = inner

    def acquire(self, *, blocking: bool = True) -> bool:
        """Take a place; raises `RateLimitedError` when the time is over."""
        patience = _PATIENCE.get()
        if patience is None or not blocking:
            return self._inner.acquire(blocking=blocking)
        while not self._inner.acquire(blocking=False):
            if patience.over():
                raise patience.refusal()
            patience.clock.sleep(POLL)
        return True

    async def aacquire(self, *, blocking: bool = True) -> bool:
        """Take a place; raises `RateLimitedError` when the time is over."""
        patience = _PATIENCE.get()
        if patience is None or not blocking:
            return await self._inner.aacquire(blocking=blocking)
        while not await self._inner.aacquire(blocking=False):
            if patience.over():
                raise patience.refusal()
            await patience.clock.asleep(POLL)
        return True
