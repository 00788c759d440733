"""The closed vocabulary: every kind of failure, and what is known about one.

Rules of this file: values only. What leads to which kind is in `tables` and `judgement`; what each kind leads to
is DESIGN section 4.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final, NamedTuple

from langchain_resilient.engine.classify.headroom import Headroom

__all__ = ["ErrorKind", "Failure"]


class ErrorKind(StrEnum):
    """Everything that can go wrong with an attempt. DESIGN section 4 says what each kind leads to."""

    RATE_LIMITED = "rate_limited"
    QUOTA_EXHAUSTED = "quota_exhausted"
    OVERLOADED = "overloaded"
    SERVER_ERROR = "server_error"
    TIMEOUT = "timeout"
    STREAM_INTERRUPTED = "stream_interrupted"
    AUTH = "auth"
    PERMISSION = "permission"
    NOT_FOUND = "not_found"
    CONTEXT_OVERFLOW = "context_overflow"
    CONTENT_POLICY = "content_policy"
    CLIENT_ERROR = "client_error"
    INVALID_OUTPUT = "invalid_output"
    CANCELLED = "cancelled"
    LOCAL = "local"
    UNKNOWN = "unknown"

    @property
    def family(self) -> str:
        """One of five coarser words: "rate_limited", "transient", "fatal", "client_error", "unknown".

        `permission` and `not_found` are client errors: a request for what this key may not have; neither blocks the key, as
        `fatal` does. `cancelled` is the caller's act too. `local` is unknown: no provider's fault, neutral to circuits; so is `invalid_output`,
        which is a model's and not its provider's.
        """
        return _FAMILIES[self]


class Failure(NamedTuple):
    """What is known about one failed attempt."""

    kind: ErrorKind
    retry_after: float | None = None
    """Seconds that the provider asked for, > 0; may exceed a day. None where it gave no usable hint."""
    limit: str | None = None
    """For TIMEOUT: "connect", "first_token", "idle", "response", "deadline"; None where it is not known."""
    status: int | None = None
    code: str | None = None
    """The provider's own error code: one identifier, never message text, as it goes to logs."""
    bug: bool = False
    """UNKNOWN that is a programming error: never retried."""
    never_sent: bool = False
    """The request certainly did not reach the provider: its whole charge is refunded."""
    headroom: tuple[Headroom, ...] = ()


_FAMILIES: Final = {
    ErrorKind.RATE_LIMITED: "rate_limited",
    ErrorKind.QUOTA_EXHAUSTED: "rate_limited",
    ErrorKind.OVERLOADED: "transient",
    ErrorKind.SERVER_ERROR: "transient",
    ErrorKind.TIMEOUT: "transient",
    ErrorKind.STREAM_INTERRUPTED: "transient",
    ErrorKind.AUTH: "fatal",
    ErrorKind.PERMISSION: "client_error",
    ErrorKind.NOT_FOUND: "client_error",
    ErrorKind.CONTEXT_OVERFLOW: "client_error",
    ErrorKind.CONTENT_POLICY: "client_error",
    ErrorKind.CLIENT_ERROR: "client_error",
    ErrorKind.INVALID_OUTPUT: "unknown",
    ErrorKind.CANCELLED: "client_error",
    ErrorKind.LOCAL: "unknown",
    ErrorKind.UNKNOWN: "unknown",
}
