"""Our refusals and failures as the exceptions that LiteLLM's users know.

Rules of this file: what a provider said is raised as LiteLLM mapped it. What we say ourselves is LiteLLM's exception of the same status, with
ours as its cause. Either tells LiteLLM's own retries to leave it alone (`num_retries`), wherever they are still on. One thing goes the other way:
a caller's own limit of time, which the engine is told of in its own words.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Any

import litellm

from langchain_resilient.engine.classify import classify
from langchain_resilient.engine.errors import (
    AllProvidersFailedError,
    AttemptTimeoutError,
    DeadlineExceededError,
    RateLimitedError,
    RefusedError,
    ResilienceError,
    StreamInterruptedError,
)
from langchain_resilient.engine.policy import SystemClock

PROVIDER = "resilience"
"""Who LiteLLM is told has said so, where it was us."""
THEIRS = (
    ((DeadlineExceededError, AttemptTimeoutError), litellm.Timeout),
    (RateLimitedError, litellm.RateLimitError),
    (RefusedError, litellm.ServiceUnavailableError),
    (ResilienceError, litellm.APIConnectionError),
)
"""What we say, in LiteLLM's terms; the first that fits."""
PATIENCE = ("stream_timeout", "timeout", "request_timeout")
"""A request's own limits of time; the first is of streams alone."""


class Translated:
    """Within this, what is raised is one of LiteLLM's exceptions.

    Args:
        group: What the user asked for.
        told: Told of what was raised, before it is translated.
    """

    def __init__(self, group: str, told: Callable[[Exception], None] = lambda _: None) -> None:
        self._group = group
        self._told = told

    def __enter__(self) -> None:
        """Nothing to do."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if not isinstance(error, Exception) or isinstance(error, StopIteration | StopAsyncIteration):
            return
        self._told(error)
        raised = as_litellm(error, self._group)
        if raised is not error:
            if raised is error.__cause__:
                error.__cause__ = None  # or each would be the other's cause, and whoever follows them never at an end
            raise raised from (raised.__cause__ or error)


def as_litellm(error: Exception, group: str) -> Exception:
    """The exception to raise instead, or the same."""
    told = _telling(error)
    raised = _mapped(told, group) if isinstance(told, ResilienceError) else told
    wait = soonest(error)
    if wait is not None and not getattr(raised, "litellm_response_headers", None):
        vars(raised)["litellm_response_headers"] = {"retry-after": str(math.ceil(wait))}
    vars(raised)["num_retries"] = 0
    return raised


def _telling(error: Exception) -> Exception:
    """Of a group, what LiteLLM would raise: the first provider's own failure, else the first refusal."""
    if isinstance(error, AllProvidersFailedError):
        members = list(_members(error))
        return _telling(next((one for one in members if not isinstance(one, RefusedError)), members[0]))
    if isinstance(error, StreamInterruptedError | AttemptTimeoutError) and isinstance(error.__cause__, Exception):
        return _telling(error.__cause__)
    return error


def soonest(error: Exception) -> float | None:
    """Seconds after which somebody may answer, by what we or the providers said; None: nobody said."""
    members = _members(error) if isinstance(error, AllProvidersFailedError) else [error]
    told = [_wait(member) for member in members]
    return min([wait for wait in told if wait is not None], default=None)


def _wait(error: Exception) -> float | None:
    if isinstance(error, ResilienceError):
        return error.retry_after
    return classify(error, wall=SystemClock().wall()).retry_after


def _members(group: AllProvidersFailedError) -> Iterator[Exception]:
    for member in group.exceptions:
        if isinstance(member, AllProvidersFailedError):
            yield from _members(member)
        else:
            yield member


def _mapped(error: ResilienceError, group: str) -> Exception:
    kind = next(theirs for ours, theirs in THEIRS if isinstance(error, ours))
    mapped: Exception = kind(message=str(error), llm_provider=PROVIDER, model=group)
    return mapped


@contextmanager
def callers_patience(asked: Mapping[str, Any]) -> Iterator[None]:
    """Within this, a timeout of an attempt whose request brings a limit of its own is the engine's "deadline", which tells nothing of the provider.

    A provider's own 408 is taken for that too: LiteLLM calls both the same.
    """
    try:
        yield
    except litellm.Timeout as error:
        names = PATIENCE if asked.get("stream") else PATIENCE[1:]
        told = next((limit for name in names if (limit := asked.get(name))), None)  # 0 is none, as for LiteLLM
        if told is None:
            raise
        seconds = getattr(told, "read", told)  # an `httpx.Timeout` has four
        raise AttemptTimeoutError("deadline", float(seconds) if isinstance(seconds, int | float) else 0.0) from error
