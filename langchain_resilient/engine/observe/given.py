"""What users give as observers.

Rules of this file: Prometheus's module is imported only for those who ask for it.
"""

from __future__ import annotations

from typing import Any

from langchain_resilient.engine.errors import SettingsError, require
from langchain_resilient.engine.events import Observer


def observer_of(given: Any) -> Observer:
    """An observer, or the one that a word stands for; raises `SettingsError` for anything else."""
    if given == "prometheus":
        try:
            from langchain_resilient.engine.observe.prometheus import PrometheusObserver  # an extra
        except ImportError as error:
            msg = "observers: got 'prometheus'; its package is missing: pip install 'langchain-resilient[prometheus]'"
            raise SettingsError(msg) from error
        return PrometheusObserver()
    require(callable(given), "observers", given, 'give a function of an event, or the word "prometheus"')
    observer: Observer = given
    return observer
