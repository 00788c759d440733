"""Numbers in words."""

import pytest

from langchain_resilient.cli.wording import ago, duration, listed, number


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 s"), (0.0004, "1 ms"), (0.012, "12 ms"), (0.0996, "0.1 s"), (1.44, "1.4 s"), (9.96, "10 s"), (65.99, "66 s"), (119, "119 s"),
        (120, "2 min"), (300, "5 min"), (301, "301 s"), (3599.5, "60 min"), (3600, "1 h"), (7200, "2 h"), (86400, "24 h"),
    ],
)  # fmt: skip
def test_durations_are_short_and_true(seconds: float, words: str):
    """A duration has the unit that people would use, and no more digits than matter."""
    assert duration(seconds) == words


def test_lists_and_numbers():
    """Words in a row, and thousands apart."""
    assert [listed(["a"]), listed(["a", "b"]), listed(["a", "b", "c"])] == ["a", "a and b", "a, b and c"]
    assert number(200_000) == "200\u202f000"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-5, "now"),
        (0.4, "now"),
        (30, "30 s ago"),
        (200, "200 s ago"),
        (900, "15 min ago"),
        (172_799, "48 h ago"),
        (604_800, "7 days ago"),
    ],
)
def test_ages_are_told_as_people_do(seconds: float, words: str):
    """Up to two days in hours, then in days; what another clock puts into the future is now."""
    assert ago(seconds) == words
