"""One key's limit as LangChain's chat models take it.

Rules of this file: nothing is decided here. It stands apart because only whoever asks for it needs LangChain: limits alone work without.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from langchain_core.rate_limiters import BaseRateLimiter

from langchain_resilient.admission import Admission


class OneKey(BaseRateLimiter):
    """A rate limiter of LangChain's; see `KeyedRateLimiter.for_key`.

    Args:
        take: Takes a place, waiting for it if it is told to.
        atake: As `take`, without blocking the event loop.
    """

    def __init__(self, take: Callable[[bool], Admission], atake: Callable[[bool], Awaitable[Admission]]) -> None:
        self._take, self._atake = take, atake

    def acquire(self, *, blocking: bool = True) -> bool:
        """Take a place; not `blocking`: only if there is one now."""
        return self._take(blocking).allowed

    async def aacquire(self, *, blocking: bool = True) -> bool:
        """Take a place; not `blocking`: only if there is one now."""
        return (await self._atake(blocking)).allowed
