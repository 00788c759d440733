"""Full jitter, the provider's own Retry-After, and the settings of `Retry`; randomness is a parameter."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langchain_resilient.engine.backoff import THROTTLED_BASE, Retry, after_hint, full_jitter
from langchain_resilient.engine.errors import SettingsError


@pytest.mark.parametrize(
    ("retry", "rand", "seconds"),
    [
        (0, 0.0, 0.0),
        (0, 0.5, 0.25),  # 0.5 · 0.5·2⁰
        (0, 1.0, 0.5),
        (1, 0.5, 0.5),  # 0.5 · 0.5·2¹
        (3, 0.25, 1.0),  # 0.25 · 0.5·2³
        (6, 1.0, 32.0),  # 0.5·2⁶, just below the cap
        (7, 1.0, 60.0),  # 0.5·2⁷ = 64: capped
    ],
)
def test_full_jitter_is_uniform_below_a_doubling_bound(retry, rand, seconds):
    """The wait before retry n is a uniform share of `min(cap, base · 2ⁿ)`, from nothing on."""
    assert full_jitter(retry, base=0.5, cap=60.0, rand=rand) == seconds


def test_jitter_comes_after_the_clamp():
    """Capped clients are spread over the whole cap; clamping a jittered delay would wake them all together at the cap."""
    waits = [full_jitter(20, base=0.5, cap=60.0, rand=rand) for rand in (0.1, 0.5, 0.9)]
    assert waits == [6.0, 30.0, 54.0]


@pytest.mark.parametrize("retry", [64, 1024, 10**9])
def test_a_retry_of_any_number_stays_at_the_cap(retry):
    """A retry counter that ran for days neither overflows nor exceeds the cap."""
    assert full_jitter(retry, base=0.5, cap=60.0, rand=1.0) == 60.0


def test_a_base_above_the_cap_is_capped_at_once():
    """The cap holds for the first retry too, and a base of nothing never waits."""
    assert full_jitter(0, base=10.0, cap=4.0, rand=0.5) == 2.0
    assert full_jitter(9, base=0.0, cap=60.0, rand=0.9) == 0.0


@pytest.mark.parametrize(
    ("retry_after", "rand", "seconds"),
    [
        (2.0, 0.0, 2.0),
        (2.0, 0.5, 2.1),  # + 0.5 · 0.1·2
        (10.0, 1.0, 11.0),  # + min(1, 0.1·10)
        (60.0, 0.5, 60.5),  # the spread is at most a second: 0.1·60 = 6 is not added
    ],
)
def test_a_hint_is_a_minimum_with_a_spread(retry_after, rand, seconds):
    """A stated Retry-After is waited for in full, plus up to a tenth of it and at most a second."""
    assert after_hint(retry_after, rand) == pytest.approx(seconds, abs=1e-12)


@given(st.floats(0, 1e6), st.floats(0, 1, exclude_max=True))
def test_a_hint_is_never_undercut(retry_after, rand):
    """No randomness makes a client come back before the provider said, nor more than a second after it."""
    assert retry_after <= after_hint(retry_after, rand) <= retry_after + 1.0


def test_those_refused_together_do_not_come_back_together():
    """The same Retry-After given to everyone leads to different waits."""
    assert len({after_hint(20.0, rand / 10) for rand in range(10)}) == 10


def test_defaults():
    """The defaults are those of DESIGN §5, and all may be turned down to nothing."""
    assert Retry() == Retry(max_retries=3, base_delay=0.5, max_delay=60.0, max_retry_after=2.0, budget=True)
    assert THROTTLED_BASE == 1.0
    Retry(max_retries=0, base_delay=0, max_delay=0, max_retry_after=0, budget=False)


@pytest.mark.parametrize(
    ("field", "given_value", "fix"),
    [
        ("max_retries", -1, "use a whole number ≥ 0 (0: never retry)"),
        ("max_retries", 2.0, "use a whole number ≥ 0 (0: never retry)"),
        ("max_retries", True, "use a whole number ≥ 0 (0: never retry)"),
        ("max_retries", None, "use a whole number ≥ 0 (0: never retry)"),
        ("base_delay", -0.1, "use a number of seconds ≥ 0"),
        ("base_delay", "1s", "use a number of seconds ≥ 0"),
        ("max_delay", float("nan"), "use a number of seconds ≥ 0"),
        ("max_delay", -1, "use a number of seconds ≥ 0"),
        ("max_retry_after", float("inf"), "use a number of seconds ≥ 0"),
        ("max_retry_after", -2, "use a number of seconds ≥ 0"),
        ("budget", 1, "use True or False"),
        ("budget", "yes", "use True or False"),
    ],
)
def test_bad_settings(field, given_value, fix):
    """A setting that makes no sense is refused when made: the field, what was given, the fix."""
    with pytest.raises(SettingsError) as raised:
        Retry(**{field: given_value})
    assert str(raised.value) == f"Retry.{field}: got {given_value!r}; {fix}"
