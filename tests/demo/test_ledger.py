"""What became of every question."""

import pytest

from langchain_resilient.demo.ledger import Fate, Figures, Ledger, figures_of, quantile


def test_every_question_is_answered_failed_or_waiting():
    """The three add up to what was asked, and each has its place."""
    ledger = Ledger()
    for number in range(4):
        ledger.ask(number, now=float(number))
    ledger.close(0, 3.0, provider="a")
    ledger.close(1, 2.0, error="timeout")
    assert ledger.figures() == Figures(asked=4, answered=1, failed=1, waiting=2, p50=1.0, p99=3.0)
    assert ledger.waiting == (2, 3)
    assert ledger.fates == [Fate(0, 0.0, 3.0, "a", None), Fate(1, 1.0, 1.0, None, "timeout")]


def test_the_first_word_on_a_question_counts():
    """A question that is over stays as it ended, and one that nobody asked is nobody's."""
    ledger = Ledger()
    ledger.ask(0, 0.0)
    ledger.close(0, 1.0, provider="a")
    ledger.close(0, 2.0, error="timeout")
    ledger.close(5, 2.0, error="timeout")
    assert ledger.fates == [Fate(0, 0.0, 1.0, "a", None)]


def test_percentiles_may_be_of_late_alone():
    """`since` leaves the counts as they are and takes only the waits that were over by then out of the percentiles."""
    fates = [Fate(0, 0.0, 9.0, "a", None), Fate(1, 5.0, 1.0, "a", None), Fate(2, 9.0, 2.0, "a", None)]
    assert figures_of(fates, since=8.0) == Figures(asked=3, answered=3, failed=0, waiting=0, p50=2.0, p99=9.0)


def test_nobody_waited_yet():
    """Without an end there is no percentile, rather than a zero."""
    assert figures_of([], waiting=2) == Figures(asked=2, answered=0, failed=0, waiting=2, p50=None, p99=None)


@pytest.mark.parametrize(
    ("share", "expected"), [(0.5, 5.0), (0.51, 6.0), (0.99, 10.0), (1.0, 10.0), (0.1, 1.0), (0.0, 1.0)]
)
def test_quantiles_are_values_that_occurred(share: float, expected: float):
    """The smallest value that the share does not exceed: of ten, the fifth is the median and the tenth the p99."""
    assert quantile([float(value) for value in range(1, 11)], share) == expected
