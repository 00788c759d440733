"""What gauges say: read when asked, over all that live."""

import gc
import logging
import os
import sys
import threading
import weakref

import pytest

from langchain_resilient.engine.events import LettersWatched, StoreDegraded, Watching
from langchain_resilient.engine.observe import levels as module
from langchain_resilient.engine.observe.levels import LEFT_BEHIND, PATIENCE, Letters, Levels
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


def test_a_place_counts_once_whoever_tells_of_it(levels):
    """Two settings of one place have a box each, and hold the same letters; a place without a name counts beside all others."""
    one, again, other, nameless = (
        Box(1, 0, 0, 0, None),
        Box(1, 0, 0, 0, None),
        Box(2, 0, 0, 0, None),
        Box(4, 0, 0, 0, None),
    )
    for box, place in ((one, "a"), (again, "a"), (other, "b"), (nameless, ""), (nameless, "")):
        levels.watch_letters(LettersWatched(box.counts, place))
    levels.watch_letters(LettersWatched(Box(8, 0, 0, 0, None).counts))
    assert levels.depth("waiting") == 1 + 2 + 4 + 8
    assert (one.reads, again.reads) == (0, 1), "whoever came last is asked: the others may have closed theirs"


def test_a_new_place_asks_no_other(levels, clock):
    """A model is made while a Redis hangs: its constructor waits for no box."""
    box = Box(1, 0, 0, 0, None)
    levels.watch_letters(LettersWatched(box.counts))
    clock.advance(60.0)
    levels.watch_letters(LettersWatched(Box(2, 0, 0, 0, None).counts))
    assert box.reads == 0


class Hanging:
    """A place whose server does not answer, until it does."""

    def __init__(self):
        self.answers = threading.Event()
        self.reads = 0

    def counts(self):
        self.reads += 1
        assert self.answers.wait(20.0)
        return (7, 0, 0, 0, None)


@pytest.fixture
def hanging():
    """It answers at the end of the test at the latest."""
    place = Hanging()
    yield place
    place.answers.set()


def counted():
    """Wait until no place is being counted."""
    for thread in threading.enumerate():
        if thread.name == module.COUNTER:
            thread.join(20.0)


def test_a_place_that_hangs_stops_no_scrape(levels, clock, hanging, monkeypatch):
    """What was counted last is shown, nobody counts beside who hangs already, and the next count begins five seconds after its end."""
    monkeypatch.setattr(module, "PATIENCE", 0.0)
    levels.watch_letters(LettersWatched(hanging.counts))
    for _ in range(3):
        assert [levels.depth("waiting"), levels.depth("parked"), levels.oldest()] == [0, 0, 0.0]
        clock.advance(5.0)
    hanging.answers.set()
    counted()
    assert (levels.depth("waiting"), hanging.reads) == (7, 1)
    clock.advance(4.9)
    assert (levels.depth("waiting"), hanging.reads) == (7, 1)
    clock.advance(0.1)
    levels.depth("waiting")
    counted()
    assert hanging.reads == 2


def test_places_that_hang_are_waited_for_together(levels, clock, monkeypatch):
    """A scrape with many places waits for a quarter of a second at most."""
    waited = []

    class Late:
        """A count that does not end while it is waited for."""

        def wait(self, seconds):
            waited.append(seconds)
            clock.advance(seconds)

    monkeypatch.setattr(module, "PATIENCE", PATIENCE)
    monkeypatch.setattr(Letters, "begin", lambda _: Late())
    for _ in range(3):
        levels.watch_letters(LettersWatched(Box(1, 0, 0, 0, None).counts))
    levels.depth("waiting")
    assert waited == [PATIENCE, 0.0, 0.0]
    assert PATIENCE <= 0.25


def test_a_process_that_ends_starts_no_thread(levels, monkeypatch):
    """The last count stays: metrics are written a last time when Python starts no thread any more."""
    levels.watch_letters(LettersWatched(Box(3, 0, 0, 0, None).counts))

    def refuse(_thread):
        raise RuntimeError("can't create new thread at interpreter shutdown")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        assert levels.depth("waiting") == 0
    assert levels.depth("waiting") == 3, "none is under way"


def test_a_fork_counts_by_itself(levels, clock, hanging, monkeypatch):
    """The thread that was counting is the parent's alone: the child waits for none that will never end."""
    monkeypatch.setattr(module, "PATIENCE", 0.0)
    levels.watch_letters(LettersWatched(hanging.counts))
    levels.depth("waiting")
    monkeypatch.setattr(module, "PATIENCE", 20.0)
    child = os.fork()
    if not child:
        try:
            hanging.answers.set()
            os._exit(0 if levels.depth("waiting") == 7 else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_clock_that_was_set_back_makes_no_negative_age(levels, clock):
    """The oldest letter is never from the future."""
    levels.watch_letters(LettersWatched(lambda: (1, 0, 0, 0, clock.wall() + 100.0)))
    assert levels.oldest() == 0.0


def test_a_circuit_is_what_its_store_says_unless_it_is_set_aside(levels):
    """Forced open refuses and disabled refuses nobody, whatever state it is in; any other mode shows the state."""
    modes, phases = {}, {"a": "closed"}
    levels.watch(Watching(("a",), mode=modes.get, phase=phases.get))
    assert levels.state("a") == 0
    modes["a"] = "forced_open"
    assert (levels.state("a"), levels.mode("a")) == (2, 3)
    phases["a"] = "half_open"
    assert levels.state("a") == 2
    for mode, number, state in (("metrics_only", 1, 1), ("disabled", 2, 0), (None, 0, 1), ("nonsense", 0, 1)):
        modes["a"] = mode
        assert (levels.state("a"), levels.mode("a")) == (state, number)
    phases["a"] = "open"
    assert levels.state("a") == 2
    phases["a"] = "nonsense"
    assert levels.state("a") == 0, "an unknown state shows as closed"


class Model:
    """What is read of a model, as long as it lives."""

    def __init__(self, levels, providers, budget=100.0, mode=None, phase="closed", store="", alone=False):
        self.lives, self.phase, self.alone = True, phase, alone
        levels.watch(
            Watching(
                providers, lambda _: budget, lambda: 1 if self.lives else None, lambda _: mode, lambda _: self.phase,
                store, lambda: self.alone,
            )
        )  # fmt: skip


def test_of_several_models_the_worst_is_shown(levels):
    """Models of different namespaces have circuits, budgets and overrides of their own for one provider; those of the dead count no more."""
    first = Model(levels, ("a", "b"), 55.0, "metrics_only", "open")
    second = Model(levels, ("a",), 90.0, phase="half_open")
    third = Model(levels, ("a",), 95.0)
    assert (levels.budget("a"), levels.mode("a"), levels.state("a")) == (55.0, 1, 2)
    assert (levels.budget("b"), levels.mode("b"), levels.state("b")) == (55.0, 1, 2)
    first.lives = False
    assert (levels.budget("a"), levels.mode("a"), levels.state("a")) == (90.0, 0, 1)
    second.phase = "closed"
    assert levels.state("a") == 0, "nobody told of it: it is read"
    third.lives = False
    assert levels.budget("a") == 90.0


def test_what_a_model_leaves_behind_counts_for_a_while(levels, clock):
    """Where each request makes a model none may live when somebody asks; a provider that is in no settings any more is as if it were well."""
    for phase in ("closed", "open"):
        clock.advance(LEFT_BEHIND - 1.0)
        Model(levels, ("a", "b"), 55.0, "metrics_only", phase).lives = False
        assert (levels.budget("a"), levels.mode("a"), levels.state("a")) == (55.0, 1, 2 * (phase == "open"))
    Model(levels, ("b",), 60.0, phase="half_open")
    clock.advance(LEFT_BEHIND)
    assert (levels.budget("a"), levels.mode("a"), levels.state("a")) == (100.0, 0, 0)
    assert (levels.budget("b"), levels.mode("b"), levels.state("b")) == (60.0, 0, 1), "the living always count"


def test_dead_models_are_let_go(levels):
    """All but the last of a provider: what is read of a model holds its clients."""
    made = []
    for number in range(10):
        model = Model(levels, ("a",), float(number))
        model.lives = False
        made.append(weakref.ref(model))
    last = Model(levels, ("a",), 10.0)
    del model
    gc.collect()
    assert (levels.models, levels.budget("a"), last.lives) == (1, 10.0, True)
    assert [one() for one in made if one() is not None] == []


def test_models_made_in_several_threads_at_once_are_all_read(clock):
    """None is lost because another one came meanwhile."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(40):
            levels, start = Levels(clock), threading.Barrier(4)

            def make(levels=levels, start=start):
                start.wait()
                for _ in range(20):
                    levels.watch(Watching(("a",), pending=lambda: 1))

            threads = [threading.Thread(target=make) for _ in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert levels.pending() == 80
    finally:
        sys.setswitchinterval(interval)


def test_a_fork_reads_a_model_whoever_was_being_told_of_one(levels):
    """The thread that was at it is the parent's: the child waits for none that will never end."""
    held, go_on = threading.Event(), threading.Event()

    def hold():
        with levels._adding:
            held.set()
            go_on.wait(20.0)

    thread = threading.Thread(target=hold)
    thread.start()
    assert held.wait(20.0)
    child = os.fork()
    if not child:
        try:
            threading.Timer(10.0, os._exit, (1,)).start()
            levels.watch(Watching(("a",), pending=lambda: 3))
            os._exit(0 if levels.pending() == 3 else 1)
        finally:
            os._exit(2)
    go_on.set()
    thread.join()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_store_is_away_until_it_is_back(levels):
    """1 while any is, each by its name; then 0."""
    seen = [levels.store_degraded()]
    for degraded, store in ((True, "x"), (True, "y"), (False, "x"), (True, "y"), (False, "y")):
        levels.store_changed(StoreDegraded(degraded, "why", store))
        seen.append(levels.store_degraded())
    assert seen == [0, 1, 1, 1, 1, 0]


def test_a_models_store_is_asked(levels, clock):
    """Nobody tells of its recovery once its models are gone, and it is none of the models' any more."""
    model = Model(levels, ("a",), store="x", alone=True)
    levels.store_changed(StoreDegraded(True, "why", "x"))
    assert levels.store_degraded() == 1
    model.alone = False
    assert levels.store_degraded() == 0
    model.alone, model.lives = True, False
    assert levels.store_degraded() == 1, "the next request may make another one"
    Model(levels, ("a",))
    assert levels.store_degraded() == 0, "its model keeps what it knows in memory now"
    Model(levels, ("b",), store="x", alone=True).lives = False
    clock.advance(LEFT_BEHIND)
    assert levels.store_degraded() == 0
