"""Latencies that a fleet counts together."""

from langchain_resilient.engine.histogram import LogHistogram
from langchain_resilient.engine.store.redis.sketches import Sketch

SECOND = LogHistogram.bucket_of(1.0)


def test_what_is_given_is_given_once():
    """New samples are handed out by bucket and kind, and not again."""
    sketch = Sketch()
    for seconds in (1.0, 1.0, 2.0):
        sketch.sample(seconds, stream=False)
    sketch.sample(1.0, stream=True)
    assert sketch.give(7) == {f"c{SECOND}": 2, f"c{LogHistogram.bucket_of(2.0)}": 1, f"s{SECOND}": 1}
    assert sketch.give(7) == {}


def test_only_what_others_gave_is_taken():
    """Of a window that holds our samples too, the others' are taken, and each of them once."""
    sketch = Sketch()
    sketch.sample(1.0, stream=False)
    sketch.give(7)
    assert list(sketch.take(7, {f"c{SECOND}": 4, "s9": 1})) == [(False, SECOND, 3), (True, 9, 1)]
    assert list(sketch.take(7, {f"c{SECOND}": 5, "s9": 1})) == [(False, SECOND, 1)]


def test_what_is_given_between_two_looks_is_not_taken_back():
    """Samples that we add to a window that we have looked at are ours still."""
    sketch = Sketch()
    assert list(sketch.take(7, {"c5": 2})) == [(False, 5, 2)]
    sketch._fresh["c5"] = 3
    sketch.give(7)
    assert list(sketch.take(7, {"c5": 5})) == []


def test_windows_are_apart_and_forgotten():
    """Each window is counted by itself; those before the last are forgotten."""
    sketch = Sketch()
    sketch.sample(1.0, stream=False)
    sketch.give(7)
    assert list(sketch.take(8, {f"c{SECOND}": 1})) == [(False, SECOND, 1)]
    for window in range(9, 20):
        sketch.sample(1.0, stream=False)
        sketch.give(window)
    assert set(sketch._settled) == {18, 19}


def test_a_window_that_was_lost_takes_nothing():
    """A server that came back empty holds less than we know of: nothing is taken, and nothing breaks."""
    sketch = Sketch()
    assert list(sketch.take(7, {"c5": 4})) == [(False, 5, 4)]
    assert list(sketch.take(7, {"c5": 1})) == []
