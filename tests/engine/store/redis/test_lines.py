"""Places in lines that Redis keeps."""

from langchain_resilient.engine.store.redis import lines
from langchain_resilient.engine.store.redis.lines import Lines
from langchain_resilient.engine.store.redis.wire import Booked
from tests.engine.harness import target

ITEM = target("a")


def stand(at, attempt, entry="p:1|9"):
    """Redis says that it stands in the line, for 1.5 s."""
    return at.stand(attempt, Booked(0, 1_500_000, entry), ITEM, called=at.was_called(attempt))


def test_a_place_stays_the_same_while_its_entry_does():
    """Who asks again and is told of the same entry keeps its place; a new entry is a new place."""
    at = Lines()
    first = stand(at, 1)
    assert (first.seconds, first.place.attempt, first.place.target, first.place.woken) == (1.5, 1, ITEM, False)
    assert stand(at, 1).place is first.place
    assert stand(at, 1, "p:1|10").place is not first.place
    assert at.of(1).entry == "p:1|10"


def test_who_stands_in_a_line_is_called():
    """Whom to wake is returned, and its place says so until it has asked again."""
    at = Lines()
    place = stand(at, 1).place
    assert at.call(1) == [place] and place.woken
    assert not stand(at, 1).place.woken


def test_who_is_called_before_its_answer_comes_knows_it_then():
    """The call to the front may be faster than the answer that says which place it is; it counts once."""
    at = Lines()
    assert at.call(1) == []
    assert stand(at, 1).place.woken
    assert not stand(at, 1).place.woken


def test_all_are_called():
    """When the news was cut off everybody in a line is, and nobody else."""
    at = Lines()
    places = [stand(at, attempt).place for attempt in (1, 2)]
    assert at.call(None) == places and all(place.woken for place in places)
    assert not at.was_called(3)


def test_who_leaves_is_forgotten():
    """It is said where the place was, once."""
    at = Lines()
    stand(at, 1)
    assert at.leave(1).entry == "p:1|9"
    assert at.leave(1) is None and at.of(1) is None and at.call(1) == []


def test_calls_are_bounded(monkeypatch):
    """Calls for those who never come for their answer are forgotten."""
    monkeypatch.setattr(lines, "MOST_CALLED", 3)
    at = Lines()
    for attempt in range(4):
        at.call(attempt)
    assert [at.was_called(attempt) for attempt in range(4)] == [False, False, False, True]


def test_a_child_stands_nowhere():
    """After a fork the places are the parent's."""
    at = Lines()
    stand(at, 1)
    at.call(2)
    at.forked()
    assert at.of(1) is None and not at.was_called(2)
