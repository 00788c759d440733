"""Prometheus's metrics: once per registry, and one process among many."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from langchain_resilient.engine.errors import SettingsError
from langchain_resilient.engine.events import Attempted, LettersWatched, Watching
from langchain_resilient.engine.observe.instruments import LABELS, Metrics, metrics_of
from langchain_resilient.engine.observe.levels import GAUGES, Levels
from langchain_resilient.engine.observe.prometheus import PrometheusObserver
from langchain_resilient.testing import FakeClock

P = "llm_resilient_"
ANSWER = Attempted("a", "ok", 1.0, None, None, False)
WORKER = Path(__file__).with_name("workers.py")


def test_each_registry_has_its_own_metrics():
    """Observers of one registry count together, those of two apart."""
    one, two = CollectorRegistry(), CollectorRegistry()
    for registry in (one, one, two):
        PrometheusObserver(registry)(ANSWER)
    counted = [
        registry.get_sample_value(f"{P}attempts_total", {"provider": "a", "kind": "ok"}) for registry in (one, two)
    ]
    assert counted == [2, 1]


def test_threads_that_make_observers_at_once_share_the_metrics():
    """Whoever comes second finds what the first has made, instead of Prometheus's refusal."""

    class Slow(CollectorRegistry):
        def register(self, collector):
            time.sleep(0.001)  # so that all are inside at once
            super().register(collector)

    registry, made = Slow(), []
    barrier = threading.Barrier(8)

    def make():
        barrier.wait()
        made.append(metrics_of(registry))

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 8
    assert len({id(metrics) for metrics in made}) == 1


@pytest.mark.parametrize(
    ("kind", "name", "said"),
    [
        (Gauge, "circuit_breaker_state", "circuit_breaker_state"),
        (Counter, "fallback", "fallback_total"),
        (Histogram, "llm_latency_seconds", "llm_latency_seconds"),
        (Gauge, f"{P}pending", f"{P}pending"),
    ],
)
def test_a_name_that_is_taken_is_a_clear_error(kind, name, said):
    """The metric and the way out are named, and nothing of ours is left behind: once the name is free it works."""
    registry = CollectorRegistry()
    theirs = kind(name, "somebody else's", registry=registry)
    for _ in range(2):
        with pytest.raises(SettingsError, match=f"'{said}' is on this registry already.*registry=CollectorRegistry()"):
            PrometheusObserver(registry)
    assert P.encode() + b"requests" not in generate_latest(registry)
    registry.unregister(theirs)
    PrometheusObserver(registry)(ANSWER)
    assert registry.get_sample_value("llm_latency_seconds_count", {"provider": "a"}) == 1


def test_what_is_no_registry_is_refused():
    """By its name, and not by an error from within."""
    with pytest.raises(SettingsError, match="registry: got 'default'"):
        PrometheusObserver("default")


def test_every_gauge_says_what_many_processes_make_of_it():
    """What waits adds up, a budget is the lowest, the rest the worst; and only of processes that live."""
    modes = {key: mode for key, (_, mode) in LABELS.items()}
    assert set(modes) == set(GAUGES)
    sums, lowest = modes.pop("pending"), modes.pop("retry_budget")
    assert (sums, lowest, set(modes.values())) == ("livesum", "livemin", {"livemax"})


def test_in_one_of_many_gauges_are_written_instead_of_asked():
    """Letters only by the thread that may wait for them; a gauge that can't be read keeps its value and harms no other."""
    metrics = Metrics(many=True, levels=Levels(FakeClock()))
    registry = CollectorRegistry()
    metrics.register(registry)
    numbers = {"budget": 80.0, "pending": 3, "phase": "open"}

    def budget(_):
        if numbers["budget"] is None:
            raise RuntimeError("gone")
        return numbers["budget"]

    metrics.heard(Watching(("a",), budget, lambda: numbers["pending"], phase=lambda _: numbers["phase"]))
    metrics.heard(LettersWatched(lambda: (5, 0, 0, 0, None)))

    def shown():
        return (
            registry.get_sample_value("circuit_breaker_state", {"provider": "a"}),
            registry.get_sample_value(f"{P}retry_budget", {"provider": "a"}),
            registry.get_sample_value(f"{P}pending"),
            registry.get_sample_value(f"{P}dead_letter_depth", {"state": "waiting"}),
        )

    assert shown() == (0, 0, 0, 0)
    metrics.refresh(letters=False)
    assert shown() == (2, 80, 3, 0)
    numbers.update(budget=None, pending=4, phase="half_open")
    metrics.refresh()
    assert shown() == (1, 80, 4, 5)


# ------------------------------------------------------------------------------------------------------------ processes
class Worker:
    """A process of `workers.py` that has counted, and waits."""

    def __init__(self, folder, *arguments):
        self.process = subprocess.Popen(
            [sys.executable, WORKER, *map(str, arguments)],
            env={**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(folder)},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.pid = int(self.process.stdout.readline())

    def say(self, pending):
        self.process.stdin.write(f"{pending}\n")
        self.process.stdin.flush()

    def end(self):
        self.process.stdin.close()
        self.process.wait(10)
        self.process.stdout.close()


@pytest.fixture
def hire(tmp_path):
    """Starts workers on one folder."""
    workers = []

    def start(*arguments):
        workers.append(Worker(tmp_path, *arguments))
        return workers[-1]

    yield start
    for worker in workers:
        if worker.process.poll() is None:
            worker.end()


@pytest.fixture
def scrape(tmp_path):
    """Reads all workers' files at once, as a `/metrics` endpoint does."""
    registry = CollectorRegistry()
    MultiProcessCollector(registry, str(tmp_path))

    def read(name, **labels):
        return registry.get_sample_value(name, labels)

    return read


def soon(read, value):
    """What is read, once it is the value, or after 20 s."""
    until = time.monotonic() + 20.0
    while read() != value and time.monotonic() < until:
        time.sleep(0.05)
    return read()


@pytest.mark.e2e
def test_one_scrape_of_many_workers(hire, scrape, tmp_path):
    """Counters and what waits add up, other gauges are the worst; a worker that is dead counts in counters alone."""
    one, two = hire("a", "closed", 3, 90, 7), hire("a", "open", 4, 60, 7)
    assert scrape(f"{P}attempts_total", provider="a", kind="ok") == 8, "of two registries in each of two workers"
    assert scrape(f"{P}retries_total", provider="a", kind="timeout") == 2
    assert scrape("llm_latency_seconds_count", provider="a") == 8
    assert scrape("circuit_breaker_state", provider="a") == 2
    assert scrape(f"{P}circuit_mode", provider="a") == 0
    assert scrape(f"{P}retry_budget", provider="a") == 60
    assert scrape(f"{P}store_degraded") == 1
    assert scrape(f"{P}pending") == 7
    assert soon(lambda: scrape(f"{P}dead_letter_depth", state="waiting"), 7) == 7, "the same letters, seen twice"
    one.say(10)
    assert soon(lambda: scrape(f"{P}pending"), 14) == 14, "nothing happened but that somebody waits"
    two.end()
    mark_process_dead(two.pid, str(tmp_path))
    assert scrape(f"{P}attempts_total", provider="a", kind="ok") == 8
    assert scrape("circuit_breaker_state", provider="a") == 0
    assert scrape(f"{P}retry_budget", provider="a") == 90
    assert scrape(f"{P}store_degraded") == 0
    assert scrape(f"{P}pending") == 10


@pytest.mark.e2e
def test_models_that_were_made_before_a_fork(hire, scrape):
    """A fork's files begin with zeros, which must not be taken for an empty budget, and its gauges go on."""
    worker = hire("a", "half_open", 3, 90, 7, "fork")
    assert scrape(f"{P}retry_budget", provider="a") == 90
    assert scrape("circuit_breaker_state", provider="a") == 1
    hire("b", "closed", 0, 80, 0, "fork")
    assert scrape(f"{P}retry_budget", provider="b") == 80, "nothing moved it since the fork"
    worker.say(5)
    assert soon(lambda: scrape(f"{P}pending"), 8) == 8, "3 of the parent, which has stopped, and 5 of the child"
