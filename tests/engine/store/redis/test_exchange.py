"""Latencies that a fleet counts together, over a server."""

from langchain_resilient.engine.effects import Report
from tests.engine.harness import admitted, target


def served(store, item, seconds):
    """One answer, after so long."""
    store.settle(admitted(store, item), Report(seconds=seconds))


def answers(store, item):
    """How many answers its summary counts, everybody's."""
    return store._route(item).latency.calls.summary.answers


def test_each_takes_what_the_others_gave(stores):
    """Both count all answers, their own and the other's, each once however often they compare."""
    here, there, item = stores(), stores(), target("a")
    for store in (here, there):
        store.listen(print, [item])
    for _ in range(3):
        served(here, item, 1.0)
    served(there, item, 2.0)
    for _ in range(4):
        stores.clock.advance(4.0)
        for store in (here, there):
            store._read_again()
    assert (answers(here, item), answers(there, item)) == (4, 4)


def test_what_came_late_into_a_window_is_taken(stores):
    """Of a new window the one before it is looked at once more."""
    here, there, item = stores(), stores(), target("a")
    for store in (here, there):
        store.listen(print, [item])
    stores.clock.advance(18.0)  # 1018 s: two seconds before a window's end
    for store in (here, there):
        store._read_again()
    served(there, item, 2.0)
    there._exchange.compare([(item, there._route(item))], 1_019_000_000)
    stores.clock.advance(4.0)
    here._read_again()
    assert answers(here, item) == 1


def test_a_child_gives_nothing_of_its_parent_s(stores):
    """What was counted and not given before a fork is the parent's to give."""
    here, there, item = stores(), stores(), target("a")
    for store in (here, there):
        store.listen(print, [item])
    served(here, item, 1.0)
    here.forked()
    for _ in range(2):
        stores.clock.advance(4.0)
        for store in (here, there):
            store._read_again()
    assert answers(there, item) == 0
