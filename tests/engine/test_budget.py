"""The retry budget: extra calls are paid for by successes."""

import pytest

from langchain_resilient.engine.budget import FLOOR, FULL, earn, spend


def drain(tokens, calls):
    """How many of so many extra calls in a row are afforded, and what is left."""
    granted = 0
    for _ in range(calls):
        if (left := spend(tokens)) is not None:
            tokens, granted = left, granted + 1
    return granted, tokens


def test_at_total_failure_extra_calls_stop_after_fifty():
    """A full budget pays for 50 extra calls (100 − 50 · 1 = 50) and, without a success, never for another."""
    assert drain(FULL, 1000) == (50, 50.0)


@pytest.mark.parametrize(
    ("tokens", "left"), [(100.0, 99.0), (51.0, 50.0), (50.5, 49.5), (50.0, None), (49.9, None), (0.0, None)]
)
def test_an_extra_call_costs_one_and_none_is_left_at_fifty(tokens, left):
    """An extra call takes 1 while more than 50 are left; at 50 or below it can't be afforded."""
    assert spend(tokens) == left


@pytest.mark.parametrize(("tokens", "after"), [(50.0, 50.1), (99.95, 100.0), (100.0, 100.0)])
def test_a_success_adds_a_tenth_up_to_full(tokens, after):
    """A success adds 0.1, and a full budget stays full: a quiet day saves up nothing for the storm."""
    assert earn(tokens) == pytest.approx(after)
    assert earn(tokens) <= 100.0


def test_in_the_long_run_ten_answers_earn_one_extra_call():
    """At the floor, 1000 answers with an extra call wanted after each pay for 100 of them (and one more for the last 1)."""
    tokens, granted = FLOOR, 0
    for _ in range(1000):
        tokens = earn(tokens)
        if (left := spend(tokens)) is not None:
            tokens, granted = left, granted + 1
    assert 100 <= granted <= 101


def test_extra_load_shrinks_with_successes():
    """One answer in twenty (a brownout) affords at most one extra call per 200 requests: load is not amplified."""
    _, tokens = drain(FULL, 50)
    granted = 0
    for number in range(2000):
        if number % 20 == 0:
            tokens = earn(tokens)
        if (left := spend(tokens)) is not None:
            tokens, granted = left, granted + 1
    # 100 successes earn 10 tokens; the first call may dip below the floor, which is repaid before the next.
    assert granted <= 11
