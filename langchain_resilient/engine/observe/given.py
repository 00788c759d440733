"""What users give as observers.

Rules of this file: a metrics system's module is imported only for those who ask for it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from langchain_resilient.engine.errors import SettingsError, require
from langchain_resilient.engine.events import Observer


def _prometheus() -> Callable[[], Observer]:
    from langchain_resilient.engine.observe.prometheus import PrometheusObserver  # an extra

    return PrometheusObserver


def _opentelemetry() -> Callable[[], Observer]:
    from langchain_resilient.engine.observe.opentelemetry import OpenTelemetryObserver  # an extra

    return OpenTelemetryObserver


WORDS = {"prometheus": _prometheus, "opentelemetry": _opentelemetry}
"""The words, and what imports the class that each stands for. An extra has the same name."""


def observer_of(given: Any) -> Observer:
    """An observer, or the one that a word stands for; raises `SettingsError` for anything else."""
    if isinstance(given, str) and given in WORDS:
        try:
            made = WORDS[given]()
        except ImportError as error:
            msg = f"observers: got {given!r}; its package is missing: pip install 'langchain-resilient[{given}]'"
            raise SettingsError(msg) from error
        return made()
    words = " or ".join(f'"{word}"' for word in WORDS)
    require(callable(given), "observers", given, f"give a function of an event, or the word {words}")
    observer: Observer = given
    return observer
