"""Which headers are read, and how one wait or moment is written."""

from __future__ import annotations

import pytest

from langchain_resilient.engine.classify.hint_headers import Hints, seconds_from, select_hints

WALL = 1_700_000_000.0  # 2023-11-14 22:13:20 UTC


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("7", 7.0),
        (" 41.724 ", 41.724),
        ("-1", -1.0),
        ("1700000042", 42.0),
        ("1700000042000", 42.0),
        ("6m0s", 360.0),
        ("1h2m3.5s", 3723.5),
        ("2023-11-14T22:13:31Z", 11.0),
        ("2023-11-14T22:13:10Z", -10.0),
        ("Tue, 14 Nov 2023 22:13:50 GMT", 30.0),
        ("soon", None),
        ("", None),
        ("2023-99-99T99:99:99Z", None),
    ],
)
def test_shapes(written, seconds):
    """The shape of a text tells a delay from a moment, and seconds from milliseconds."""
    assert seconds_from(written, Hints(), WALL) == (None if seconds is None else pytest.approx(seconds))


def test_unit_is_of_bare_numbers():
    """A unit scales a bare number only: a duration has its own, and a moment has none."""
    assert seconds_from("1500", Hints(), WALL, 1e-3) == 1.5
    assert seconds_from("20s", Hints(), WALL, 1e-3) == 20.0
    assert seconds_from("1700000042", Hints(), WALL, 1e-3) == 42.0


def test_selection():
    """Hints are known whatever their case, separators and LiteLLM's prefix; the first of two spellings stays."""
    headers = {b"Retry-After": b" 7 ", "llm_provider-x-ratelimit-limit": 9, "x_ratelimit_limit": "8", "server": "x"}
    assert select_hints(headers) == {"retry-after": "7", "x-ratelimit-limit": "9"}
    assert select_hints(None) == select_hints([1]) == {}


def test_mapping_that_breaks():
    """Of headers that raise while they are read, those before are kept."""

    class Broken:
        def items(self):
            yield "retry-after", "7"
            raise OSError

    assert select_hints(Broken()) == {"retry-after": "7"}
