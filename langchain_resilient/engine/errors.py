"""Every exception the library raises. The tree is drawn once, here.

Rules of this file: "we refused" and "they failed" are different branches; a provider's own exception is never wrapped where one
attempt alone explains the outcome; nothing here names LangChain.

    ResilienceError
    ├── RefusedError                       we refused: no request was sent for this reason
    │   ├── CircuitOpenError               the provider's circuit is open
    │   ├── RateLimitedError               a limit (ours or the provider's) is used up
    │   ├── DeadlineExceededError          too little time is left (also a TimeoutError)
    │   └── OverloadedError                `max_pending` requests are in this process already
    ├── AllProvidersFailedError            they failed: an ExceptionGroup, one exception per attempt and per refusal
    ├── StreamInterruptedError             a stream broke after something of it was shown
    ├── AttemptError                       what the drivers themselves see go wrong in an attempt
    │   ├── AttemptTimeoutError            a time limit fired (also a TimeoutError)
    │   ├── TruncatedStreamError           a stream ended without its finish reason
    │   ├── InvalidOutputError             a structured answer does not parse or validate
    │   └── LocalFaultError                this process could not make the attempt
    └── SettingsError                      a setting makes no sense (also a ValueError)
"""

from __future__ import annotations

import functools
import inspect
import math
import sys
import warnings
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any, TypeVar

_T = TypeVar("_T")


class ResilienceError(Exception):
    """Base of all exceptions of this library."""

    retry_after: float | None = None
    """Seconds after which a new try may succeed; None where nothing is known."""

    is_retryable: bool = False
    """Whether the same request may succeed later."""


class RefusedError(ResilienceError):
    """No request was sent: our own rules said so.

    Args:
        message: What was refused and why.
        provider: The provider's name, None where no single one is meant.
        retry_after: Seconds after which it may be admitted; None where that is unknown.
    """

    is_retryable = True

    def __init__(self, message: str, *, provider: str | None = None, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.provider = provider
        self.retry_after = retry_after


class CircuitOpenError(RefusedError):
    """The provider's circuit is open: it failed repeatedly and is given time to recover."""

    error_kind = "overloaded"


class RateLimitedError(RefusedError):
    """A rate limit, ours or one that the provider stated, is used up.

    Args:
        message: Which limit, and of whom.
        provider: The provider's name, None where no single one is meant.
        retry_after: Seconds after which it may be admitted; None where that is unknown.
        never: True where the request alone costs more than the limit allows per period: waiting can't help.
    """

    error_kind = "rate_limited"

    def __init__(
        self, message: str, *, provider: str | None = None, retry_after: float | None = None, never: bool = False
    ) -> None:
        super().__init__(message, provider=provider, retry_after=retry_after)
        self.is_retryable = not never


class DeadlineExceededError(RefusedError, TimeoutError):
    """Too little time is left before the deadline to start an attempt or a wait."""

    error_kind = "timeout"
    limit = "deadline"
    is_retryable = False


class OverloadedError(RefusedError):
    """`max_pending` requests already wait or run in this process; more would only grow the queue."""

    error_kind = "overloaded"


class AllProvidersFailedError(ResilienceError, ExceptionGroup[Exception]):
    """Every candidate failed or was refused: one exception per attempt, and one refusal per candidate not tried.

    `except*` reaches the members; `retry_after` is the soonest time (seconds) after which any of them may answer.
    """

    def __init__(self, message: str, exceptions: Sequence[Exception]) -> None:
        super().__init__(message, exceptions)
        waits = [wait for error in exceptions if (wait := getattr(error, "retry_after", None)) is not None]
        self.retry_after = min(waits, default=None)
        self.is_retryable = any(getattr(error, "is_retryable", True) for error in exceptions)

    def derive(self, excs: Sequence[Exception]) -> AllProvidersFailedError:  # type: ignore[override]  # narrowed
        """The same for some of the members: what `split` and `except*` make."""
        return type(self)(self.message, excs)


class StreamInterruptedError(ResilienceError):
    """A stream broke after part of it had been shown. Not to be retried blindly: what was shown would be shown again.

    Args:
        message: What broke it.
        partial: The text shown so far.
        usage: The tokens reported so far, None where the provider had not reported any.
    """

    is_retryable = False

    def __init__(self, message: str, *, partial: str = "", usage: Any = None) -> None:
        super().__init__(message)
        self.partial = partial
        self.usage = usage


class AttemptError(ResilienceError):
    """What a driver sees go wrong in an attempt; `classify` reads `error_kind`."""

    error_kind = "unknown"
    is_retryable = True


class AttemptTimeoutError(AttemptError, TimeoutError):
    """An attempt outlived one of its time limits.

    Args:
        limit: Which one: "connect", "first_token", "idle", "response", or "deadline" where the caller's own deadline
            left less time than the provider's limit.
        seconds: How long that limit was.
    """

    error_kind = "timeout"

    def __init__(self, limit: str, seconds: float) -> None:
        super().__init__(f"no answer within the {limit} limit of {seconds:.3g} s")
        self.limit = limit
        self.seconds = seconds

    def __reduce__(self) -> tuple[type[AttemptTimeoutError], tuple[str, float]]:
        # An exception is pickled by its message alone, and process pools hang on one that can't be restored.
        return type(self), (self.limit, self.seconds)


class TruncatedStreamError(AttemptError):
    """A stream ended without a finish reason on a wire that always sends one."""

    error_kind = "stream_interrupted"


class NewAnswerError(AttemptError):
    """A stream that was to go on with a begun answer began another one, which can't be joined to it."""

    error_kind = "invalid_output"


class InvalidOutputError(AttemptError):
    """An answer came, and does not parse or validate as what was asked for. Its cause is the parser's own exception.

    Args:
        message: What is wrong with it, without a word of it.
        answer: The answer all the same, for callers who asked for it raw.
        usage: The tokens that it used, None where that is unknown.
    """

    error_kind = "invalid_output"

    def __init__(self, message: str, *, answer: Any = None, usage: Any = None) -> None:
        super().__init__(message)
        self.answer = answer
        self.usage = usage


class LocalFaultError(AttemptError):
    """The attempt could not be made for a reason of this process's own, such as too many abandoned threads."""

    error_kind = "local"


class IneligibleError(AttemptError):
    """A candidate that may not answer this request, which was found out only when it was about to be asked: nothing was sent."""

    error_kind = "local"


class SettingsError(ResilienceError, ValueError):
    """A setting makes no sense; the message names the field, what was given, and the fix."""


class SettingsConflict(UserWarning):  # a warning category, not an exception to catch
    """Two models of one process name the same provider with different settings."""


def require(ok: bool, field: str, given: object, fix: str) -> None:
    """Raise a `SettingsError` that names the field, what was given and the fix, unless `ok`."""
    if not ok:
        msg = f"{field}: got {given!r}; {fix}"
        raise SettingsError(msg)


def is_number(value: object, *, above: float = -math.inf, least: float = -math.inf, most: float = math.inf) -> bool:
    """Whether `value` is a finite number (bool excluded) with `above < value`, `least <= value <= most`."""
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and abs(value) <= sys.float_info.max  # not isfinite: it raises for an integer beyond the floats
        and value > above
        and least <= value <= most
    )


def checked(kind: type[_T]) -> type[_T]:
    """Class decorator of settings: an unknown keyword, or a missing argument, is a `SettingsError` like every other mistake."""
    plain = kind.__init__
    signature = inspect.signature(plain)
    known = list(signature.parameters)[1:]

    @functools.wraps(plain)
    def init(self: _T, *args: Any, **kwargs: Any) -> None:
        for name in kwargs:
            if name not in known:
                raise unknown_name(f"{kind.__name__}: unknown keyword", name, known)
        try:
            signature.bind(self, *args, **kwargs)
        except TypeError as error:
            msg = f"{kind.__name__}: {error}; it takes {', '.join(known)}"
            raise SettingsError(msg) from None
        plain(self, *args, **kwargs)

    kind.__init__ = init  # type: ignore[method-assign, assignment]  # what a decorator of a class is for
    return kind


OURS = frozenset({"langchain_resilient", "langchain_core", "pydantic", "functools"})
"""Packages whose lines lie between a user's and the one that warns."""


def warn_user(message: str, category: type[Warning]) -> None:
    """Warn at the line of the user's that led here."""
    frame, level = inspect.currentframe(), 1
    while frame is not None and str(frame.f_globals.get("__name__")).partition(".")[0] in OURS:
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)


def unknown_name(field: str, given: object, known: Sequence[str]) -> SettingsError:
    """The error for a word that is not in a closed list: names the nearest right one."""
    near = get_close_matches(str(given), known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"one of: {', '.join(sorted(known))}"
    return SettingsError(f"{field}: got {given!r}; {hint}")
