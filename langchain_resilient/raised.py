"""What leaves the chat model also inherits LangChain's own matching exception, so that its middleware judges it rightly.

Rules of this file: the engine's classes stay free of LangChain; a provider's own exception passes as it is. Older langchain-core has no
`Model…Error`: then nothing is added.
"""

from __future__ import annotations

from typing import Any, cast

from langchain_core import exceptions as langchain

from langchain_resilient.engine.errors import (
    AllProvidersFailedError,
    AttemptTimeoutError,
    CircuitOpenError,
    DeadlineExceededError,
    InvalidOutputError,
    LocalFaultError,
    NewAnswerError,
    OverloadedError,
    RateLimitedError,
    RefusedError,
    ResilienceError,
    StreamInterruptedError,
    TruncatedStreamError,
)

MATCHES: dict[type[ResilienceError], str] = {
    RateLimitedError: "ModelRateLimitError",
    CircuitOpenError: "ModelAPIError",
    OverloadedError: "ModelAPIError",
    DeadlineExceededError: "ModelTimeoutError",
    RefusedError: "ModelAPIError",
    AllProvidersFailedError: "ModelAPIError",
    StreamInterruptedError: "ModelConnectionError",
    AttemptTimeoutError: "ModelTimeoutError",
    TruncatedStreamError: "ModelAPIError",
    NewAnswerError: "ModelAPIError",
    InvalidOutputError: "ModelAPIError",
    LocalFaultError: "ModelConnectionError",
}


def _wider(ours: type[ResilienceError], theirs: type[Exception] | None) -> type[ResilienceError]:
    if theirs is None:
        return ours

    def reduce(error: ResilienceError) -> tuple[Any, ...]:
        # Pickle finds a class by its name, and under this one's it finds the narrow class: make that, and widen it again.
        _, arguments, *state = cast("tuple[Any, ...]", ours.__reduce__(error))
        return (_restored, (ours, arguments), *state)

    return type(
        ours.__name__, (ours, theirs), {"__module__": ours.__module__, "__doc__": ours.__doc__, "__reduce__": reduce}
    )


def _restored(ours: type[ResilienceError], arguments: tuple[Any, ...]) -> ResilienceError:
    error = ours(*arguments)
    widen(error)
    return error


WIDER = {ours: _wider(ours, getattr(langchain, theirs, None)) for ours, theirs in MATCHES.items()}


OVERFLOW: type[Exception] | None = getattr(langchain, "ContextOverflowError", None)
TOO_LONG = cast("type[AllProvidersFailedError]", _wider(AllProvidersFailedError, OVERFLOW))


def widen(error: ResilienceError) -> None:
    """Make an exception of ours LangChain's as well: the same object with a wider class, so its traceback, cause and notes stay."""
    if type(error) in WIDER:
        error.__class__ = WIDER[type(error)]
        # Summarization reacts to this class alone, and with one provider down the overflow of the other would stand behind a group.
        if isinstance(error, AllProvidersFailedError) and OVERFLOW is not None and _holds(error, OVERFLOW):
            error.__class__ = TOO_LONG


def _holds(group: AllProvidersFailedError, kind: type[Exception]) -> bool:
    return any(isinstance(error, kind) for error in group.exceptions)
