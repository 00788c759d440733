"""What a limit for each user says to one request, and how HTTP says it.

Rules of this file: nothing here decides or counts; what is told is read off one decision, so it is exact for the moment of it. Starlette is
imported only where somebody asks for a dependency. HTTP wants whole seconds: they are rounded up, or a client that obeys would be refused.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Sequence
from importlib import import_module
from inspect import isawaitable
from typing import Any

from langchain_resilient.engine import quota
from langchain_resilient.engine.quota import Dimension
from langchain_resilient.engine.store.tenants import Booking

SECOND = 1_000_000


class Admission:
    """What the limiter said to one request. True if it may begin.

    `limit`, `remaining` and `reset` are those of the dimension that is nearest to its end; `headers` tells all of them.
    """

    __slots__ = ("_dimensions", "_open", "allowed", "booking", "retry_after", "tokens")

    def __init__(self, booking: Booking, dimensions: Sequence[Dimension], tokens: int, *, never: bool = False) -> None:
        self.booking = booking
        """The decision itself, which only the limiter reads."""
        self._dimensions = dimensions
        self.tokens = tokens
        """What the request was expected to take."""
        self._open = self.allowed = booking.granted
        """Whether the request may begin."""
        self.retry_after: float | None = None if never else 0.0 if booking.granted else booking.wait / SECOND
        """Seconds, exact to the microsecond, after which the same request would be allowed; 0.0: it is. None: never, as it costs more than
        the limit allows per period."""

    def __bool__(self) -> bool:
        return self.allowed

    def __repr__(self) -> str:
        told = f"allowed={self.allowed}, dimension={self.dimension!r}, limit={self.limit}, remaining={self.remaining}"
        return f"Admission({told}, reset={self.reset}, retry_after={self.retry_after}, waited={self.waited})"

    @property
    def waited(self) -> float:
        """Seconds for which it was made to wait, or would have been."""
        return self.booking.wait / SECOND if self.allowed else 0.0

    def _left(self, place: int) -> tuple[int, float]:
        """Units that are free in a dimension, and seconds until all are."""
        booking, dimension = self.booking, self._dimensions[place]
        ahead = max(0, booking.after[place] - booking.at)
        free = quota.capacity(dimension, booking.scale) - ahead
        return max(0, free // quota.increment(dimension, 1, booking.scale)), ahead / SECOND

    def _nearest(self) -> int:
        if self.booking.tightest >= 0:
            return self.booking.tightest
        places = range(len(self._dimensions))
        return min(places, key=lambda place: self._left(place)[0] / self._dimensions[place].burst)

    @property
    def dimension(self) -> str:
        """Which limit is nearest to its end: "rpm", "tpm", "rpd" or "tpd"."""
        return self._dimensions[self._nearest()].name

    @property
    def limit(self) -> int:
        """Requests or tokens per minute or day."""
        return self._dimensions[self._nearest()].limit

    @property
    def remaining(self) -> int:
        """Requests or tokens that could be taken at once."""
        return self._left(self._nearest())[0]

    @property
    def reset(self) -> float:
        """Seconds until the whole burst could be taken at once."""
        return self._left(self._nearest())[1]

    @property
    def headers(self) -> dict[str, str]:
        """What HTTP says of it, as draft-ietf-httpapi-ratelimit-headers (-10) has it.

        `RateLimit-Policy`: for each dimension the quota `q` in a window of `w` seconds (`qu`: its unit, where that is not requests).
        `RateLimit`: what remains of it now, `r`, and the seconds `t` until the whole burst is back. For one that was refused `Retry-After`,
        whole seconds rounded up as HTTP wants them, and `Retry-After-Ms`.
        """
        policies, states = [], []
        for place, dimension in enumerate(self._dimensions):
            unit = "" if dimension.unit == "requests" else f';qu="{dimension.unit}"'
            policies.append(f'"{dimension.name}";q={dimension.limit};w={dimension.period // SECOND}{unit}')
            remaining, reset = self._left(place)
            states.append(f'"{dimension.name}";r={remaining};t={math.ceil(reset)}')
        found = {"RateLimit-Policy": ", ".join(policies), "RateLimit": ", ".join(states)}
        if not self.allowed and self.retry_after is not None:
            found["Retry-After"] = str(math.ceil(self.retry_after))
            found["Retry-After-Ms"] = str(math.ceil(self.retry_after * 1000))
        return found

    def ends(self) -> bool:
        """Whether this is the first that is heard of its end."""
        was, self._open = self._open, False
        return was


Key = Callable[[Any], str | Awaitable[str]]
"""Who it is, by the request."""


def dependency(
    ask: Callable[[str, int], Awaitable[Admission]], key: Key, tokens: int | Callable[[Any], int]
) -> Callable[..., Awaitable[Admission]]:
    """A FastAPI dependency around a limiter's question; see `KeyedRateLimiter.dependency`."""
    # By name: FastAPI needs the real classes in the annotations, and neither it nor Starlette is needed for anything else.
    http_exception = import_module("starlette.exceptions").HTTPException

    async def limited(request: Any, response: Any) -> Admission:
        found = key(request)
        who = await found if isawaitable(found) else found
        admission = await ask(who, tokens(request) if callable(tokens) else tokens)
        if not admission:
            raise http_exception(413 if admission.retry_after is None else 429, _detail(admission), admission.headers)
        response.headers.update(admission.headers)
        return admission

    limited.__annotations__ = {
        "request": import_module("starlette.requests").Request,
        "response": import_module("starlette.responses").Response,
        "return": Admission,
    }
    return limited


def _detail(admission: Admission) -> dict[str, Any]:
    return {
        "error": "rate_limited",
        "limit": admission.dimension,
        "quota": admission.limit,
        "retry_after": admission.retry_after,
    }
