"""Prometheus's metrics of one registry, and of one process among many (needs `prometheus-client`: the extra `prometheus`).

Rules of this file: a registry's metrics are made once, as Prometheus refuses a second of the same name, and put there all or none.

With `PROMETHEUS_MULTIPROC_DIR` each process writes its metrics to files of its own, and whoever is scraped adds up all of them. That changes
two things here. The files know no registry: two metrics of one name in one process would overwrite one another, so there is one set for
all registries. And nobody asks a gauge for its value: a function given to it is never called, so a thread writes what the functions say
once a second, in each process that tells of events (a fork has no threads, and begins with files that are all 0).
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from functools import partial
from typing import Any, Literal
from weakref import WeakKeyDictionary

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, values
from prometheus_client.metrics import MetricWrapperBase

from langchain_resilient.engine.errors import SettingsError, require
from langchain_resilient.engine.events import Event, LettersWatched, Watching
from langchain_resilient.engine.observe.levels import DEPTHS, GAUGES, Levels
from langchain_resilient.engine.observe.rows import COUNTERS
from langchain_resilient.engine.store.forks import ForkLock

LOGGER = logging.getLogger("langchain_resilient")
PREFIX = "llm_resilient_"
SEEDS = {
    "circuit_state": "circuit_breaker_state",
    "fallback": "fallback",
    "latency": "llm_latency_seconds",
    "rate_limit_hits": "rate_limit_hits",
}
"""Metrics that keep the names of the seed design."""
SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2, 3, 5, 7.5, 10, 15, 20, 30, 60, 120, 300, 600)
OF_LETTERS = frozenset({"dead_letter_depth", "dead_letter_oldest_seconds"})
REFRESHED = 1.0
"""Seconds between two writes of what gauges say, in one process of many."""

Mode = Literal["livemax", "livemin", "livesum"]
LABELS: dict[str, tuple[tuple[str, ...], Mode]] = {
    "circuit_state": (("provider",), "livemax"),
    "circuit_mode": (("provider",), "livemax"),
    "retry_budget": (("provider",), "livemin"),
    "pending": ((), "livesum"),
    "store_degraded": ((), "livemax"),
    # Every process sees the same letters: their depth is nothing to add up.
    "dead_letter_depth": (("state",), "livemax"),
    "dead_letter_oldest_seconds": ((), "livemax"),
}
"""The gauges' labels, and what one scrape makes of many processes: the worst of those that live, and the sum of what waits."""


class Metrics:
    """The metrics of one registry; in one process of many, of all registries.

    Args:
        many: Whether this is one process of many (`PROMETHEUS_MULTIPROC_DIR`).
        levels: What the gauges say.
    """

    def __init__(self, *, many: bool = False, levels: Levels | None = None) -> None:
        self.levels = levels = levels or Levels()
        self.many = many
        self._followed: dict[tuple[str, ...], tuple[Gauge, Callable[[], float]]] = {}
        self._threads: dict[int, threading.Thread] = {}
        self._pid = -1
        self.counters = {
            key: Counter(SEEDS.get(key, PREFIX + key), text, labels, registry=None)
            for key, (text, labels) in COUNTERS.items()
        }
        self.gauges = {
            key: Gauge(
                SEEDS.get(key, PREFIX + key), text, LABELS[key][0], registry=None, multiprocess_mode=LABELS[key][1]
            )
            for key, text in GAUGES.items()
        }

        def histogram(name: str, text: str, *labels: str) -> Histogram:
            return Histogram(name, text, labels, registry=None, buckets=SECONDS)

        self.latency = histogram(SEEDS["latency"], "Seconds of answered attempts", "provider")
        self.request_seconds = histogram(
            f"{PREFIX}request_seconds", "Seconds of answered requests, over all attempts and waits", "provider"
        )
        self.user_wait = histogram(
            f"{PREFIX}user_wait_seconds",
            "Seconds of interactive requests to the first of a stream, or to the whole answer, over all attempts and waits",
            "provider",
        )
        self.first_token = histogram(
            f"{PREFIX}first_token_seconds", "Seconds of an attempt to its stream's first content", "provider"
        )
        self.waits = histogram(
            f"{PREFIX}wait_seconds", "Seconds that answered requests waited: backoff, Retry-After, limits"
        )
        self.follow(levels.pending, "pending")
        self.follow(levels.store_degraded, "store_degraded")

    def register(self, registry: CollectorRegistry) -> None:
        """Put all metrics there, or none; raises `SettingsError` if a name is taken."""
        done: list[MetricWrapperBase] = []
        histograms = (self.latency, self.request_seconds, self.user_wait, self.first_token, self.waits)
        for metric in (*self.counters.values(), *self.gauges.values(), *histograms):
            try:
                registry.register(metric)
            except ValueError as error:
                for one in done:
                    registry.unregister(one)
                name = next(iter(metric.describe())).name + ("_total" if isinstance(metric, Counter) else "")
                msg = (
                    f"observers: the metric {name!r} is on this registry already, made by somebody else; give ours another one,"
                    " PrometheusObserver(registry=CollectorRegistry()), and serve that too, or unregister the other metric"
                )
                raise SettingsError(msg) from error
            done.append(metric)

    # ---------------------------------------------------------------------------------------------------------- gauges
    def follow(self, read: Callable[[], float], key: str, *labels: str) -> None:
        """Let a gauge say what a function says. What is followed already goes on as it is."""
        if (key, *labels) in self._followed:
            return
        gauge = self.gauges[key].labels(*labels) if labels else self.gauges[key]
        self._followed[key, *labels] = (gauge, read)
        if not self.many:
            gauge.set_function(read)

    def heard(self, event: Event) -> Event:
        """Take note of what is so now, as `Levels.heard`, and show each provider and place for letters that is known."""
        levels = self.levels
        counted = levels.heard(event)
        if isinstance(event, Watching):
            for provider in levels.watched:
                self.follow(partial(levels.state, provider), "circuit_state", provider)
                self.follow(partial(levels.mode, provider), "circuit_mode", provider)
                self.follow(partial(levels.budget, provider), "retry_budget", provider)
        elif isinstance(event, LettersWatched):
            for state in DEPTHS:
                self.follow(partial(levels.depth, state), "dead_letter_depth", state)
            self.follow(levels.oldest, "dead_letter_oldest_seconds")
        return counted

    def refresh(self, *, letters: bool = True) -> None:
        """Write what the gauges say now; one that can't be read keeps what it said.

        Args:
            letters: Whether letters are counted too, which may take a quarter of a second: not where an event is told.
        """
        for key, (gauge, read) in tuple(self._followed.items()):
            if key[0] in OF_LETTERS and not letters:
                continue
            try:
                gauge.set(read())
            except Exception as error:  # noqa: BLE001  # nobody would see it: this is a thread's whole work
                LOGGER.debug("the gauge %s can't be read (%s)", "/".join(key), type(error).__name__)

    def join_in(self) -> None:
        """In one process of many: see that the gauges are kept up to date in this one too."""
        pid = os.getpid()
        if pid == self._pid:
            return
        self._pid = pid
        self.refresh(letters=False)
        thread = threading.Thread(target=self._keep_fresh, name="langchain-resilient-gauges", daemon=True)
        if self._threads.setdefault(pid, thread) is thread:  # two threads may have come at once
            thread.start()

    def _keep_fresh(self) -> None:
        pause = threading.Event()
        while not pause.wait(REFRESHED):
            self.refresh()


_LOCK = ForkLock()
_PER_REGISTRY: WeakKeyDictionary[CollectorRegistry, Metrics] = WeakKeyDictionary()
_ONE_OF_MANY: list[Metrics] = []


def metrics_of(registry: Any) -> Metrics:
    """The metrics of a registry, made when they are first asked for; raises `SettingsError` if a name is taken there."""
    require(isinstance(registry, CollectorRegistry), "registry", registry, "give a prometheus_client.CollectorRegistry")
    with _LOCK.current:
        metrics = _PER_REGISTRY.get(registry)
        if metrics is None:
            # Chosen by prometheus_client when it is imported, whatever the environment says later.
            many = values.ValueClass is not values.MutexValue
            metrics = _ONE_OF_MANY[0] if _ONE_OF_MANY else Metrics(many=many)
            if many and not _ONE_OF_MANY:
                _ONE_OF_MANY.append(metrics)
            metrics.register(registry)
            _PER_REGISTRY[registry] = metrics
        return metrics
