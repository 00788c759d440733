"""Collects the decision records of the calls made inside a `with` block."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from langchain_resilient.engine.events import Decided, Decision, Event

_CAPTURING: ContextVar[tuple[list[Decision], ...]] = ContextVar("langchain_resilient_decisions", default=())


@contextmanager
def capture_decisions() -> Iterator[list[Decision]]:
    """Collect the decision record of every call made inside, in the order in which the calls ended.

    It follows the context: tasks and `batch` threads begun inside are seen, other callers' calls are not. Blocks may be nested.
    A stream's record comes with the stream's end.

    Yields:
        The list that fills up.
    """
    decisions: list[Decision] = []
    token = _CAPTURING.set((*_CAPTURING.get(), decisions))
    try:
        yield decisions
    finally:
        _CAPTURING.reset(token)


class CaptureObserver:
    """The observer behind `capture_decisions`."""

    events = frozenset({Decided})

    def __call__(self, event: Event) -> None:
        """Keep a decision record for whoever is capturing."""
        if isinstance(event, Decided):
            for decisions in _CAPTURING.get():
                decisions.append(event.decision)
