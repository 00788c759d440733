"""Several observers: each is told what it wants, and one that raises harms nobody."""

import functools
import logging

from langchain_resilient.engine.events import Admitted, FellBack, Hedged
from langchain_resilient.engine.observe.fanout import Fanout

EVENT = FellBack("a", "b", "timeout")


class Choosy:
    """Wants fallbacks alone."""

    events = frozenset({FellBack})

    def __init__(self):
        self.told = []

    def __call__(self, event):
        self.told.append(event)


def broken(event):
    """Raises whatever it is told."""
    raise RuntimeError("observer")


def test_everybody_is_told_in_order():
    """One after the other, in the order in which they were given."""
    told = []
    Fanout([lambda event: told.append(("first", event)), lambda event: told.append(("second", event))])(EVENT)
    assert told == [("first", EVENT), ("second", EVENT)]


def test_an_observer_is_told_only_what_it_wants():
    """`events` names the types; without it all are wanted."""
    choosy, all_ = Choosy(), []
    fanout = Fanout([choosy, all_.append])
    for event in (EVENT, Hedged("a", "b", won=True), EVENT):
        fanout(event)
    assert (len(choosy.told), len(all_)) == (2, 3)


def test_whether_anybody_wants_a_type():
    """A plan need not make what nobody listens to."""
    fanout = Fanout([Choosy()])
    assert (FellBack in fanout, Admitted in fanout, "FellBack" in fanout) == (True, False, False)
    assert Admitted in Fanout([lambda event: None])
    assert Admitted not in Fanout([])


def test_one_that_raises_is_logged_once_and_stays(caplog):
    """The others are told each time; the log has one line, with the traceback."""
    told = []
    fanout = Fanout([broken, told.append])
    with caplog.at_level(logging.DEBUG, "langchain_resilient"):
        for _ in range(3):
            fanout(EVENT)
    assert told == [EVENT] * 3
    (record,) = caplog.records
    assert (record.levelname, record.exc_info[0]) == ("ERROR", RuntimeError)
    assert "failed on FellBack; it stays in place, and this is logged once" in record.getMessage()


def test_each_broken_observer_is_logged(caplog):
    """Once each."""
    fanout = Fanout([broken, functools.partial(broken)])
    for _ in range(2):
        fanout(EVENT)
    assert len(caplog.records) == 2
