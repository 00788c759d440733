"""Tells several observers; one that raises is logged once and never breaks a call."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from langchain_resilient.engine.events import Event, Observer

LOGGER = logging.getLogger("langchain_resilient")


class Fanout:
    """An observer that tells others, in order.

    Args:
        observers: Who is told. One with an attribute `events` (a collection of event types) is told of those alone.
    """

    def __init__(self, observers: Sequence[Observer]) -> None:
        self._observers = tuple(observers)
        self._listeners: dict[type, tuple[Observer, ...]] = {}
        self._broken: set[int] = set()

    def __contains__(self, kind: object) -> bool:
        """Whether anybody wants events of this type."""
        return isinstance(kind, type) and bool(self._listening(kind))

    def _listening(self, kind: type) -> tuple[Observer, ...]:
        listeners = self._listeners.get(kind)
        if listeners is None:
            listeners = tuple(item for item in self._observers if kind in getattr(item, "events", (kind,)))
            self._listeners[kind] = listeners
        return listeners

    def __call__(self, event: Event) -> None:
        """Tell everyone who wants it."""
        listeners = self._listeners.get(type(event))
        for observer in self._listening(type(event)) if listeners is None else listeners:
            try:
                observer(event)
            except Exception as error:  # noqa: BLE001  # an observer must never break a call
                self._log_once(observer, event, error)

    def _log_once(self, observer: Observer, event: Event, error: Exception) -> None:
        if id(observer) not in self._broken:
            self._broken.add(id(observer))
            message = "observer %r failed on %s; it stays in place, and this is logged once"
            LOGGER.error(message, observer, type(event).__name__, exc_info=error)
