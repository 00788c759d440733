"""Events as log lines on the logger `langchain_resilient`.

Rules of this file: never a prompt, an answer or a credential (events hold none); WARNING where somebody may have to act, INFO where a
user was served by somebody else, DEBUG for each decision; a line that an outage would repeat with every request is written at most once
in five seconds and provider, and says how many it stands for.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from langchain_resilient.engine.events import (
    CircuitChanged,
    Continued,
    CredentialBlocked,
    Decided,
    Event,
    FellBack,
    Hedged,
    RateLimited,
    StoreDegraded,
    StreamInterrupted,
)

LOGGER = logging.getLogger("langchain_resilient")
QUIET_FOR = 5.0
PACED: dict[type, tuple[int, str, tuple[str, ...]]] = {
    FellBack: (logging.INFO, "%s -> %s after %s", ("from_provider", "to_provider", "kind")),
    StreamInterrupted: (logging.WARNING, "%s: stream interrupted (%s)", ("provider", "kind")),
    Continued: (logging.INFO, "the answer that broke at %s goes on at %s", ("from_provider", "to_provider")),
    Hedged: (logging.INFO, "%s answered before %s, hedged", ("provider", "beside")),
    RateLimited: (logging.INFO, "%s: rate limited by %s (%s)", ("provider", "source", "dimension")),
}
"""Events that an outage repeats: level, line, and the fields that fill it and give it a pace of its own."""


class LogObserver:
    """Writes events to the log.

    Args:
        now: Seconds, monotonic: paces repeated lines.
    """

    events = frozenset({Decided, CircuitChanged, CredentialBlocked, StoreDegraded, *PACED})

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._written: dict[tuple[str, ...], tuple[float, int]] = {}

    def __call__(self, event: Event) -> None:
        """Write one event, if its level is on."""
        if isinstance(event, Decided):
            if LOGGER.isEnabledFor(logging.DEBUG):
                LOGGER.debug("%s", _told(event))
        elif isinstance(event, CircuitChanged):
            level = logging.INFO if event.after == "half_open" else logging.WARNING
            LOGGER.log(level, "%s: circuit %s -> %s (%s)", event.provider, event.before, event.after, event.reason)
        elif isinstance(event, CredentialBlocked):
            LOGGER.error("%s: credential left alone for %.0f s (%s)", event.provider, event.seconds, event.reason)
        elif isinstance(event, StoreDegraded):
            LOGGER.warning("shared store %s: %s", "degraded" if event.degraded else "back", event.reason)
        elif (how := PACED.get(type(event))) and getattr(event, "won", True):  # a hedge that lost has changed nothing
            self._paced(event, *how)

    def _paced(self, event: Event, level: int, line: str, fields: tuple[str, ...]) -> None:
        if not LOGGER.isEnabledFor(level):
            return
        key = (line, *(getattr(event, field) for field in fields))
        now = self._now()
        last, unwritten = self._written.get(key, (-QUIET_FOR, 0))
        if now - last < QUIET_FOR:
            self._written[key] = (last, unwritten + 1)
            return
        self._written[key] = (now, 0)
        LOGGER.log(level, f"{line}%s", *key[1:], f", and {unwritten} more like it" if unwritten else "")  # noqa: G004  # a literal


def _told(event: Decided) -> str:
    decision = event.decision
    tried = (
        ", ".join(f"{attempt.provider} {attempt.kind} {attempt.seconds:.2f}s" for attempt in decision.attempts)
        or "nothing"
    )
    refused = ", ".join(f"{refusal.provider} {refusal.reason}" for refusal in decision.refusals)
    skipped = f"; refused: {refused}" if refused else ""
    return f"request {decision.request_id} {decision.outcome} by {decision.provider} in {decision.seconds:.2f}s; tried: {tried}{skipped}"
