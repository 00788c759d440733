"""Latencies, counted together: what this process puts where all count, and takes from there.

Rules of this file: samples and histograms are touched in the store's turn only; nothing is awaited, and a reply is taken whenever it comes.
`sketches` has the counting.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from langchain_resilient.engine.policy import Target
from langchain_resilient.engine.store.account import SECOND
from langchain_resilient.engine.store.redis import wire
from langchain_resilient.engine.store.redis.post.courier import Courier
from langchain_resilient.engine.store.redis.sketches import WINDOW_US, Sketch
from langchain_resilient.engine.store.state import Route
from langchain_resilient.engine.store.turn import Turn


class Exchange:
    """One process's part in it.

    Args:
        keys: The namespace's.
        courier: Who carries the samples.
        turn: The store's.
        now: The store's time, µs.
    """

    def __init__(self, keys: wire.Keys, courier: Courier, turn: Turn, now: Callable[[], int]) -> None:
        self._keys = keys
        self._courier = courier
        self._turn = turn
        self._now = now
        self._sketches: dict[str, Sketch] = {}
        """By route."""
        self._window = -1

    def sample(self, target: Target, seconds: float, *, stream: bool) -> None:
        """Count an answer's seconds, or a stream's to its first token; whoever calls has the turn."""
        sketch = self._sketches.get(target.route)
        if sketch is None:
            sketch = self._sketches[target.route] = Sketch()
        sketch.sample(seconds, stream=stream)

    def compare(self, known: Iterable[tuple[Target, Route]], server: int) -> None:
        """Put new samples where all count them, and take the others'; of a new window also what came late into the one before it.

        Args:
            known: Each route once.
            server: The server's time, µs: its windows are everybody's.
        """
        window = server // WINDOW_US
        windows = (window,) if window == self._window else (window - 1, window)
        self._window = window
        for target, route in known:
            with self._turn:
                sketch = self._sketches.setdefault(target.route, Sketch())
                given = [(each, sketch.give(each) if each == window else {}) for each in windows]
            for each, counts in given:
                self._courier.tell(
                    wire.sketch(self._keys, target, each, counts), urgent=False,
                    then=partial(self._compared, route, sketch, each),
                )  # fmt: skip

    def _compared(self, route: Route, sketch: Sketch, window: int, reply: Any) -> None:
        with self._turn:
            now = self._now() / SECOND
            for stream, bucket, samples in sketch.take(window, wire.read_sketch(reply)):
                route.latency.timings(stream=stream).summary.count(bucket, samples, now)

    def forked(self, turn: Turn) -> None:
        """In a new child process: what was counted here is the parent's to give."""
        self._turn = turn
        self._sketches.clear()
