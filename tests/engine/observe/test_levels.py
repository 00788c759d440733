"""What gauges say: read when asked, over all that live."""

import logging

import pytest

from langchain_resilient.engine.events import CircuitChanged, LettersWatched, StoreDegraded, Watching
from langchain_resilient.engine.observe.levels import Levels
from langchain_resilient.testing import FakeClock


@pytest.fixture
def clock():
    """At rest until it is told."""
    return FakeClock()


@pytest.fixture
def levels(clock):
    """Of no model yet."""
    return Levels(clock)


class Box:
    """A place for letters."""

    def __init__(self, *counts):
        self.now = counts
        self.reads = 0

    def counts(self):
        self.reads += 1
        if isinstance(self.now, Exception):
            raise self.now
        return self.now


def test_letters_are_read_at_most_once_in_five_seconds(levels, clock):
    """Counting may cost a round trip, and one scrape asks for five gauges."""
    box = Box(4, 3, 2, 1, clock.wall() - 60.0)
    levels.watch_letters(LettersWatched(box.counts))
    assert box.reads == 0, "not before somebody asks"
    assert [levels.depth(state) for state in ("waiting", "claimed", "parked", "spooled")] == [4, 3, 2, 1]
    assert levels.oldest() == 60.0
    assert box.reads == 1
    box.now = (9, 0, 0, 0, None)
    clock.advance(4.9)
    assert (levels.depth("waiting"), box.reads) == (4, 1)
    clock.advance(0.1)
    assert (levels.depth("waiting"), box.reads) == (9, 2)
    assert levels.oldest() == 0.0, "none waits or is claimed"


def test_a_place_that_cannot_be_read_keeps_its_count(levels, clock, caplog):
    """And says so once, at DEBUG, without the error's text; it is not asked more often for that."""
    box = Box(4, 0, 0, 0, None)
    levels.watch_letters(LettersWatched(box.counts))
    assert levels.depth("waiting") == 4
    box.now = ConnectionError("redis://user:secret@host")
    with caplog.at_level(logging.DEBUG, "langchain_resilient"):
        for _ in range(3):
            clock.advance(5.0)
            assert (levels.depth("waiting"), levels.depth("claimed")) == (4, 0)
    assert box.reads == 4
    (record,) = caplog.records
    assert (record.levelname, "secret" in caplog.text, "ConnectionError" in caplog.text) == ("DEBUG", False, True)


def test_places_add_up_and_one_place_counts_once(levels, clock):
    """Two models of one box tell of equal functions; two boxes hold what both hold."""
    one, two = Box(1, 0, 0, 0, clock.wall() - 10.0), Box(2, 0, 0, 0, clock.wall() - 30.0)
    for box in (one, one, two, one):
        levels.watch_letters(LettersWatched(box.counts))
    assert (levels.depth("waiting"), levels.oldest()) == (3, 30.0)


def test_a_place_that_is_gone_is_forgotten(levels, clock):
    """It counts no longer, is not asked again, and makes room when the next one comes."""
    box = Box(1, 0, 0, 0, None)
    levels.watch_letters(LettersWatched(box.counts))
    assert levels.depth("waiting") == 1
    box.now = None
    clock.advance(5.0)
    assert levels.depth("waiting") == 0
    clock.advance(5.0)
    assert (levels.depth("waiting"), box.reads) == (0, 2)
    levels.watch_letters(LettersWatched(Box(2, 0, 0, 0, None).counts))
    assert (levels.depth("waiting"), len(levels._letters)) == (2, 1)


def test_a_clock_that_was_set_back_makes_no_negative_age(levels, clock):
    """The oldest letter is never from the future."""
    levels.watch_letters(LettersWatched(lambda: (1, 0, 0, 0, clock.wall() + 100.0)))
    assert levels.oldest() == 0.0


def test_a_circuit_is_what_it_last_was_unless_it_is_forced_open(levels):
    """An override wins while it lasts, and what happened meanwhile shows afterwards."""
    modes = {}
    levels.watch(Watching(("a",), mode=modes.get))
    assert levels.state("a") == 0
    modes["a"] = "forced_open"
    assert (levels.state("a"), levels.mode("a")) == (2, 3)
    levels.changed(CircuitChanged("a", "closed", "half_open", "probe"))
    assert levels.state("a") == 2
    for mode, number in (("metrics_only", 1), ("disabled", 2), (None, 0), ("nonsense", 0)):
        modes["a"] = mode
        assert (levels.state("a"), levels.mode("a")) == (1, number)


def test_a_circuit_that_nobody_watches_has_a_state_too(levels):
    """An event may come before its model is told of, or without one."""
    levels.changed(CircuitChanged("b", "closed", "open", "timeout"))
    levels.watch(Watching(("a",)))
    assert levels.circuits == ("a", "b")
    assert levels.watched == ("a",)
    assert levels.state("b") == 2


def test_the_store_is_away_until_it_is_back(levels):
    """1, then 0."""
    assert levels.store_degraded() == 0
    levels.store_changed(StoreDegraded(True, "x"))
    assert levels.store_degraded() == 1
    levels.store_changed(StoreDegraded(False, "x"))
    assert levels.store_degraded() == 0
