"""Rules for the arithmetic of `benchmarks/redis_store.py` and for how a contender is made; numbers worked out by hand."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import pytest
from stores import contenders, decisions, figures, tables
from stores.figures import Admission, Bucket

WELL = Bucket(10.0, 100.0)


def came(*pairs, tokens=0):
    """Admissions, each by when it asked and when it came."""
    return [Admission(asked, at, tokens) for asked, at in pairs]


def test_neighbours_who_came_in_the_wrong_order_count():
    """Of four neighbours two pairs are inverted; who asked within 20 ms of another did so at the same time."""
    seen = came((0.0, 1.0), (3.0, 3.1), (1.0, 3.2), (4.0, 4.1), (3.99, 4.2))
    assert figures.out_of_order(seen) == pytest.approx(1 / 4)
    assert figures.out_of_order([]) == figures.out_of_order(seen[:1]) == 0


def test_one_who_is_left_behind_by_many_counts_for_each_of_them():
    """Three overtake one who waits long; neighbours tell of the last of them only."""
    seen = came((1.0, 1.1), (2.0, 2.1), (3.0, 3.1), (0.5, 4.0))
    assert figures.overtakers(seen) == pytest.approx(3 / 4)
    assert figures.out_of_order(seen) == pytest.approx(1 / 3)


def test_a_run_of_waiters():
    """What came after the end doesn't count; commands and processor time are shared among those that did."""
    processes = [came((0.0, 0.5), (0.5, 2.5)), came((0.0, 1.0), (1.0, 9.0), (9.0, 11.0))]
    row = figures.waiting(processes, 10.0, commands=6, cpu=0.4)
    assert row.admitted == 4
    assert row.per_process == (2, 2)
    assert row.commands == pytest.approx(1.5)
    assert row.cpu == pytest.approx(0.1)
    assert (row.median_wait, row.longest_wait) == (pytest.approx(1.5), 8.0)


def test_a_run_without_an_admission():
    """It has figures too."""
    row = figures.waiting([[], []], 10.0, commands=6, cpu=0.4)
    assert (row.admitted, row.commands, row.longest_wait) == (0, 6.0, 0.0)


def test_tokens_are_held_against_what_came_in_and_what_was_left():
    """At the lead 40 of 100 are missing: 60 are left, and 10 s bring 100; 80 of the 160 were used."""
    processes = [came((0.0, 0.0), tokens=60), came((5.0, 5.0), (11.0, 11.0), tokens=80)]
    row = figures.tokens([processes[0], processes[1][1:]], WELL, lead=2.0, seconds=12.0, commands=4, cpu=0.2)
    assert row.used == pytest.approx(80 / 160)
    assert (row.admitted, row.commands, row.cpu) == (2, 2.0, pytest.approx(0.1))
    assert row.excess == pytest.approx(-0.2)


def test_excess_is_that_of_the_worst_interval():
    """100 at once are the burst; 30 more a second later are 20 too many, whatever was not used before."""
    seen = [Admission(0.0, 0.0, 10), Admission(50.0, 50.0, 100), Admission(51.0, 51.0, 30)]
    assert figures.excess(seen, WELL) == pytest.approx(20.0)
    assert figures.excess([], WELL) == -100.0


def test_a_bucket_fills_up_again_but_not_beyond_full():
    """60 are missing at once, 10 after 5 s, none after 10."""
    seen = [Admission(0.0, 0.0, 60)]
    assert [figures.owed(seen, WELL, at) for at in (0.0, 5.0, 10.0)] == [60.0, 10.0, 0.0]


@pytest.mark.parametrize(
    ("value", "bounds", "reach", "word"),
    [
        (1.0, {"most": 1.2}, "≤ 1.20", "met"),
        (1.3, {"most": 1.2}, "≤ 1.20", "MISSED"),
        (107, {"least": 108, "most": 110, "shown": "{:.0f}"}, "≥ 108, ≤ 110", "MISSED"),
        (None, {"least": 4.0}, "≥ 4.00", "–"),
    ],
)
def test_a_gate(value, bounds, reach, word):
    """It tells its bounds, and whether they are kept."""
    found = figures.gate("it", value, **bounds)
    assert (found.reach, found.word) == (reach, word)


def test_ratios_are_those_of_one_round():
    """A round in which the machine was slow was slow for both: the ratio is the median of the rounds' ratios."""
    quick, slow = decisions.Round([1.0] * 4, 4.0, 4), decisions.Round([10.0] * 4, 40.0, 4)
    twice, slowly = decisions.Round([2.0] * 4, 8.0, 0), decisions.Round([20.0] * 4, 80.0, 0)
    bare, ours = decisions._table(
        {"bare": None, "ours": None}, {"bare": [quick, slow, slow], "ours": [twice, slowly, slowly]}, rate=False
    )
    assert (bare.ratio, ours.ratio) == (1.0, 2.0)
    assert (bare.evalsha, ours.evalsha) == (1.0, 0.0)
    _, ours = decisions._table(
        {"bare": None, "ours": None}, {"bare": [quick, slow], "ours": [twice, slowly]}, rate=True
    )
    assert ours.ratio == 0.5


def test_a_prompt_is_as_long_as_it_is_to_be():
    """Its estimate is the wanted one, to the token or the next."""
    from langchain_core.messages import HumanMessage
    from langchain_core.messages.utils import count_tokens_approximately

    estimate = 1.1 * count_tokens_approximately([HumanMessage(contenders._prompt_of(1999))])
    assert 1999 <= estimate < 2001.5


def test_a_plain_table_has_columns():
    """Cells stand below their titles."""
    assert tables.plain(("a", "long"), [("one", "x")]) == ["a    long", "one  x"]


def test_a_package_that_is_missing_is_known_before_anything_is_started():
    """A row says so; ours need nothing but the library."""
    missing = contenders.Kind("it", contenders.InMemory, "no_such_package_at_all")
    assert not missing.installed
    assert all(kind.installed for name, kind in contenders.WAITERS.items() if name in {"model", "keyed", "langchain"})
