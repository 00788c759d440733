"""Who is told what changes in the fleet."""

import contextlib
import gc
import threading

from langchain_resilient.engine.events import CircuitChanged, StoreDegraded
from langchain_resilient.engine.store.redis.hearers import Hearers
from tests.engine.harness import target

OPENED = CircuitChanged("a", "closed", "open", "timeout")


class Observer:
    """Keeps what it hears."""

    def __init__(self):
        self.heard = []

    def __call__(self, event):
        self.heard.append(event)

    def observe(self, event):
        """The same, as a method."""
        self.heard.append(event)


def at_once(step):
    """Aside, but now."""
    step()


def test_those_who_know_a_provider_hear_of_it():
    """A change goes to the observers of that provider, functions and methods alike, and to nobody else."""
    hearers, knows, also, other = Hearers(at_once), Observer(), Observer(), Observer()
    hearers.add(knows, [target("a"), target("b")])
    hearers.add(also.observe, [target("a")])
    hearers.add(other, [target("b")])
    hearers.changed("a", OPENED)
    assert (knows.heard, also.heard, other.heard) == ([OPENED], [OPENED], [])


def test_the_dead_hear_nothing_and_are_forgotten():
    """An observer is held weakly: models come and go."""
    hearers = Hearers(at_once)
    for _ in range(100):
        hearers.add(Observer(), [target("a")])
    gc.collect()
    hearers.changed("a", OPENED)
    hearers.add(alive := Observer(), [target("a")])
    assert len(hearers._who) == 1
    hearers.changed("a", OPENED)
    assert alive.heard == [OPENED]


def test_being_alone_is_told_once_for_each_change():
    """Alone and back are told once each; who comes meanwhile is told at once, who comes afterwards nothing."""
    hearers, early, late, after = Hearers(at_once), Observer(), Observer(), Observer()
    hearers.alone(None)
    hearers.add(early, [])
    hearers.alone("refused")
    hearers.alone("still")
    hearers.add(late, [])
    hearers.alone(None)
    hearers.alone(None)
    hearers.add(after, [])
    told = [StoreDegraded(degraded=True, reason="refused"), StoreDegraded(degraded=False, reason="it answers again")]
    assert (early.heard, late.heard, after.heard) == (told, told, [])


def test_it_is_said_which_store_is_alone():
    """Who uses two stores can tell them apart: in each change, and when it is told late."""
    hearers, early, late = Hearers(at_once, "redis://one"), Observer(), Observer()
    hearers.add(early, [])
    hearers.alone("refused")
    hearers.add(late, [])
    hearers.alone(None)
    assert [(event.degraded, event.store) for event in early.heard] == [(True, "redis://one"), (False, "redis://one")]
    assert late.heard == early.heard


def test_who_comes_again_with_more_providers_hears_of_all_once():
    """A Router's deployments come up one after the other: its observer is one for all of them."""
    hearers, one = Hearers(at_once), Observer()
    hearers.add(one, [target("a")])
    hearers.alone("refused")
    hearers.add(one, [target("a"), target("b")])
    hearers.alone(None)
    hearers.changed("a", OPENED)
    hearers.changed("b", OPENED)
    told = [StoreDegraded(degraded=True, reason="refused"), StoreDegraded(degraded=False, reason="it answers again")]
    assert one.heard == [*told, OPENED, OPENED]


def test_whoever_carries_is_not_held_up():
    """Telling is done aside, in order, by one at a time, however slow an observer is."""
    steps, go_on, heard = [], threading.Event(), []

    def slow(event):
        go_on.wait(5)
        heard.append(event)

    hearers = Hearers(steps.append)
    hearers.add(slow, [target("a")])
    news = [OPENED._replace(reason=str(number)) for number in range(5)]
    for event in news:
        hearers.changed("a", event)
    assert heard == []
    threads = [threading.Thread(target=step) for step in steps]
    for thread in threads:
        thread.start()
    go_on.set()
    for thread in threads:
        thread.join(5)
    assert heard == news


def test_an_observer_that_raises_leaves_the_rest_to_the_next_news():
    """What one observer raises does not stop the telling for good."""
    hearers, heard = Hearers(_quietly), []

    def odd(event):
        if not heard:
            heard.append("raised")
            raise ValueError
        heard.append(event)

    hearers.add(odd, [target("a")])
    hearers.changed("a", OPENED)
    hearers.changed("a", OPENED)
    assert heard == ["raised", OPENED]


def _quietly(step):
    with contextlib.suppress(ValueError):
        step()


def test_a_child_tells_for_itself():
    """After a fork nobody tells, whoever was in the middle of it; old news is the parent's."""
    steps, hearers, observer = [], None, Observer()
    hearers = Hearers(steps.append)
    hearers.add(observer, [target("a")])
    hearers.changed("a", OPENED)
    hearers._telling.clear()  # a thread of the parent's was telling
    hearers.forked()
    hearers.changed("a", OPENED._replace(reason="child"))
    steps[-1]()
    assert [event.reason for event in observer.heard] == ["child"]
