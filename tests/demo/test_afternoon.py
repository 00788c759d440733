"""What the providers do, and when."""

from itertools import pairwise

import pytest

from langchain_resilient.demo.afternoon import HEALTHY, two_pm
from langchain_resilient.engine.errors import SettingsError


def test_the_afternoon_has_every_trouble_of_the_story():
    """In about a minute: healthy, 503, silence, 429 with Retry-After, slowness, and healthy again at the end."""
    afternoon = two_pm()
    words = [phase.of("openai").word for phase in afternoon.phases]
    assert words == ["healthy", "503", "hangs", "hangs", "8 × slower", "healthy"]
    assert [phase.of("anthropic").word for phase in afternoon.phases].index("429, Retry-After") == 3
    assert all(phase.of("ollama") is HEALTHY for phase in afternoon.phases)
    assert afternoon.seconds == 60.0


def test_the_clock_of_the_story_runs_forward():
    """From 1:59 to 2:10 PM, as the story is told."""
    clocks = [phase.clock for phase in two_pm().phases]
    assert clocks == ["1:59 PM", "2:00 PM", "2:01 PM", "2:03 PM", "2:05 PM", "2:10 PM"]


@pytest.mark.parametrize("speed", [0.2, 0.5, 2.0, 10.0])
def test_speed_divides_all_that_takes_time(speed: float):
    """Phases, answers, limits and waits alike, so a faster play is the same story; only the rate of questions stays."""
    usual, fast = two_pm(), two_pm(speed)
    for name in ("seconds", "limit", "slow", "recovery", "window", "patience"):
        assert getattr(fast, name) == pytest.approx(getattr(usual, name) / speed)
    for before, after in zip(usual.houses, fast.houses, strict=True):
        assert after.seconds == pytest.approx(before.seconds / speed)
        assert after.between_words == pytest.approx(before.between_words / speed)
    assert fast.rate == usual.rate
    throttling = fast.phases[3].of("anthropic").fault.refusal
    assert throttling.retry == ("decimal", pytest.approx(4.0 / speed))
    assert fast.patience < throttling.retry[1]  # else it would be waited for: another story


@pytest.mark.parametrize("speed", [0, -1, 0.1, 11, float("nan"), "fast"])
def test_a_nonsensical_speed_is_refused(speed: object):
    """The error names the field, what was given, and the range."""
    with pytest.raises(SettingsError, match=r"speed: got .*; use a number from 0\.2 to 10"):
        two_pm(speed)


def test_the_timetable_covers_the_afternoon_without_gaps():
    """Each phase begins where the one before ends, and every moment has a phase."""
    afternoon = two_pm()
    table = afternoon.timetable()
    assert table[0][1] == 0.0 and table[-1][2] == afternoon.seconds
    assert all(before[2] == after[1] for before, after in pairwise(table))
    assert afternoon.phase_at(0.0) is table[0][0]
    assert afternoon.phase_at(table[0][2]) is table[1][0]
    assert afternoon.phase_at(1e9) is table[-1][0]


def test_a_broken_provider_never_looks_like_a_slow_one():
    """Eight times slower than usual is still within the limit, so that a brownout is slowness and not a timeout."""
    for speed in (0.2, 1.0, 10.0):
        afternoon = two_pm(speed)
        slowest = afternoon.houses[0].seconds * 8.0 * 1.15
        assert afternoon.slow < slowest < afternoon.limit
        assert max(house.seconds for house in afternoon.houses) * 1.15 < afternoon.slow
