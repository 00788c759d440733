"""A failed call, told in one line: who was asked, what went wrong there, what the provider said.

Rules of this file: exceptions are read by their attributes, never by a provider's class, which may not be installed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from langchain_resilient.cli.decision import outcome
from langchain_resilient.cli.failures import CommandFailed
from langchain_resilient.cli.session import Session
from langchain_resilient.cli.wording import duration
from langchain_resilient.engine.errors import (
    AllProvidersFailedError,
    AttemptError,
    CircuitOpenError,
    DeadlineExceededError,
    OverloadedError,
    RateLimitedError,
    ResilienceError,
    StreamInterruptedError,
)
from langchain_resilient.engine.events import Decision

KINDS: dict[type[ResilienceError], str] = {
    AllProvidersFailedError: "all_providers_failed",
    StreamInterruptedError: "stream_interrupted",
    CircuitOpenError: "circuit_open",
    RateLimitedError: "rate_limited",
    DeadlineExceededError: "deadline",
    OverloadedError: "overloaded",
}
"""Our own refusals and failures, in one word; a provider's own exception goes by its `ErrorKind`."""
MOST_OF_EACH = 160
"""Characters of what each provider said."""


def failed_call(session: Session, error: Exception, decision: Decision, document: Mapping[str, Any]) -> CommandFailed:
    """The end of the command whose call ended in `error`."""
    ours = next((word for kind, word in KINDS.items() if isinstance(error, kind)), None)
    kind = ours or (str(decision.attempts[-1].kind) if decision.attempts else "refused")
    each = _each(session, error, decision)
    wait = getattr(error, "retry_after", None)
    later = f"; retry in {duration(wait)}" if isinstance(wait, int | float) and wait > 0 else ""
    details = {"retry_after": wait if later else None, "providers": each}
    return CommandFailed(_line(error, each, decision) + later, kind=kind, details=details, document=document)


def _line(error: Exception, each: list[dict[str, Any]], decision: Decision) -> str:
    if isinstance(error, AllProvidersFailedError):
        return "no provider answered: " + "; ".join(_one(item) for item in each)
    if not each or (isinstance(error, ResilienceError) and not isinstance(error, AttemptError)):
        cause = error.__cause__ if isinstance(error, StreamInterruptedError) else None
        if cause is None:
            return str(error)
        # The last word may be that of somebody else, who was to go on.
        failed = [attempt for attempt in decision.attempts if attempt.kind != "ok"]
        names = {attempt.provider for attempt in failed}
        who = f"{failed[-1].provider}: {outcome(failed[-1])}: " if len(names) > 1 else ""
        return f"{error}: {who}{said(cause)}"
    return _one(each[-1])


def _one(item: Mapping[str, Any]) -> str:
    return f"{item['provider']}: {item['outcome']}" + (f": {item['message']}" if item["message"] else "")


def _each(session: Session, error: Exception, decision: Decision) -> list[dict[str, Any]]:
    """The last attempt at each provider, and each refusal."""
    # A group holds one exception for each attempt, in their order, and then one for each refusal.
    members = list(error.exceptions) if isinstance(error, AllProvidersFailedError) else []
    found: dict[str, dict[str, Any]] = {}
    for index, attempt in enumerate(decision.attempts):
        if attempt.kind == "ok":
            continue
        own = members[index] if index < len(members) else error
        message = "" if isinstance(own, StreamInterruptedError) else session.redactor.line(said(own), MOST_OF_EACH)
        found[attempt.provider] = {
            "provider": attempt.provider, "kind": str(attempt.kind), "outcome": outcome(attempt), "message": message,
        }  # fmt: skip
    for refusal in decision.refusals:
        found.setdefault(
            refusal.provider,
            {
                "provider": refusal.provider,
                "kind": "refused",
                "outcome": f"not asked ({refusal.reason})",
                "message": "",
            },
        )
    return list(found.values())


def said(error: BaseException) -> str:
    """What went wrong in the provider's own words, without what its client wraps around them."""
    body = getattr(error, "body", None)
    inner = body.get("error", body) if isinstance(body, Mapping) else None
    message = inner.get("message") if isinstance(inner, Mapping) else None
    if isinstance(message, str) and message.strip():
        return message
    words, root = str(error) or type(error).__name__, _root(error)
    # An HTTP error says it all; "Connection error." alone helps nobody.
    reason = str(root) or type(root).__name__
    if hasattr(error, "status_code") or root is error or reason in words:
        return words
    return f"{words.rstrip('.')} ({reason})"


def _root(error: BaseException) -> BaseException:
    for _ in range(8):
        inner = error.__cause__ or error.__context__
        if inner is None:
            break
        error = inner
    return error
