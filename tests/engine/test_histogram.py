"""Histograms that forget, trends, and summaries; time is a parameter, in seconds."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langchain_resilient.engine.histogram import LogHistogram, Summary, Trend
from langchain_resilient.engine.latency import Timings

T0 = 1000.0


def filled(*samples, now=T0, **settings):
    """A histogram with these samples, all at one time."""
    histogram = LogHistogram(**settings)
    for value in samples:
        histogram.add(value, now)
    return histogram


def near(value):
    """Equal within the histogram's 1 %."""
    return pytest.approx(value, rel=0.01)


# ----------------------------------------------------------------------------------------------------------- histogram


def test_without_samples_nothing_is_known():
    """An empty histogram has no quantile, rather than a fast one."""
    assert LogHistogram().quantile(0.5) is None
    assert LogHistogram().recent(T0) == 0


@given(st.floats(0.001, 3600.0))
def test_a_value_is_kept_within_one_percent(value):
    """Buckets grow by 2 %, and a quantile is the middle of one."""
    assert filled(value).quantile(0.5) == pytest.approx(value, rel=0.01)


def test_quantiles():
    """Of 1, 2 … 100 s the median is 50, the p95 95 and the p99 99; 0 and 1 are the ends."""
    histogram = filled(*range(1, 101))
    assert [histogram.quantile(share) for share in (0.0, 0.5, 0.95, 0.99, 1.0)] == [
        near(1), near(50), near(95), near(99), near(100),
    ]  # fmt: skip


@pytest.mark.parametrize(("value", "counted"), [(0.0, 0.001), (-1.0, 0.001), (0.0005, 0.001), (86_400.0, 3600.0)])
def test_what_lies_beyond_the_ends_counts_as_the_end(value, counted):
    """Nothing is lost, and memory is bounded: at most 763 buckets from a millisecond to an hour."""
    assert filled(value).quantile(0.5) == near(counted)
    many = filled(*[0.0005 * 1.01**step for step in range(2000)])
    assert len(many._weights) <= 763  # ln(3.6 million) / ln 1.02 = 762.3


def test_a_sample_weighs_half_after_a_half_life():
    """10 slow answers a minute ago weigh 5: six fast ones now outweigh them, four don't."""
    for fast, median in ((4, 8.0), (6, 0.5)):
        histogram = filled(*[8.0] * 10)
        for _ in range(fast):
            histogram.add(0.5, T0 + 60)
        assert histogram.quantile(0.5) == near(median)


def test_decay_needs_no_touching():
    """A quantile does not change while nothing comes: all weights fall together."""
    histogram = filled(1.0, 2.0, 2.0)
    assert histogram.quantile(0.5) == near(2.0)


@pytest.mark.parametrize("hours", [1, 2, 24, 24 * 365])
def test_long_times_do_not_overflow(hours):
    """Weights grow with time and are scaled back before they overflow: after hours only the new samples count."""
    histogram = filled(*[8.0] * 100)
    histogram.add(0.5, T0 + hours * 3600)
    assert histogram.quantile(0.5) == near(0.5)
    assert histogram.quantile(0.99) == near(0.5)
    assert max(histogram._weights.values()) <= 2.0**64


def test_scaling_back_keeps_the_proportions():
    """An hour and five minutes after the first sample the weights are scaled back; of the last two minutes nothing is lost."""
    histogram = filled(9.0)
    for _ in range(30):
        histogram.add(4.0, T0 + 3839)  # 63.98 half-lives
    for _ in range(10):
        histogram.add(1.0, T0 + 3901)  # 65.02: scaled back; the 30 weigh half, 14.6 against 10
    assert histogram.quantile(0.5) == near(4.0)
    for _ in range(5):
        histogram.add(1.0, T0 + 3901)
    assert histogram.quantile(0.5) == near(1.0)


def test_recent_counts_the_last_minute():
    """Samples of the last 60 s count, to a sixth of that: one leaves after 50 to 60 s."""
    histogram = filled(1.0, 1.0, now=1200.0)
    histogram.add(1.0, 1230.0)
    assert [histogram.recent(now) for now in (1230.0, 1259.9, 1260.0, 1289.9, 1290.0)] == [3, 3, 1, 1, 0]


def test_recent_is_bounded():
    """An hour of samples each second keeps six counts, and the last minute's worth is 60."""
    histogram = LogHistogram()
    for second in range(3600):
        histogram.add(1.0, float(second))
    assert len(histogram._recent) == 6
    assert histogram.recent(3599.0) == 60


def test_merging_is_adding():
    """Two processes' histograms together are the histogram of all samples, recent counts included."""
    one, two = filled(*[1.0] * 3, now=T0), filled(*[4.0] * 2, now=T0 + 30)
    one.merge(two)
    # at T0 + 30 the three weigh 3 · 2^(−1/2) = 2.12 against 2
    assert one.quantile(0.5) == near(1.0)
    one.add(4.0, T0 + 30)
    assert one.quantile(0.5) == near(4.0)
    assert one.recent(T0 + 30) == 6
    assert (two.quantile(0.5), two.recent(T0 + 30)) == (near(4.0), 2)


def test_merging_the_older_one_weighs_it_by_its_age():
    """It does not matter which of the two is merged into the other."""
    one, two = filled(*[1.0] * 3, now=T0 + 60), filled(*[4.0] * 5, now=T0)
    one.merge(two)  # 3 against 5 / 2
    assert one.quantile(0.5) == near(1.0)
    one.merge(filled(4.0, now=T0 + 60))
    assert one.quantile(0.5) == near(4.0)


def test_merging_with_nothing():
    """An empty histogram adds nothing, and takes over what it is given."""
    one = filled(2.0)
    one.merge(LogHistogram())
    assert (one.quantile(0.5), one.recent(T0)) == (near(2.0), 1)
    empty = LogHistogram()
    empty.merge(one)
    assert (empty.quantile(0.5), empty.recent(T0)) == (near(2.0), 1)


@pytest.mark.parametrize("days", [1, 365])
def test_merging_across_days_does_not_overflow(days):
    """A process that was idle since yesterday merges with one that is not, either way round; the new samples decide."""
    for turn in (1, -1):
        pair = [filled(*[8.0] * 9), filled(0.5, now=T0 + days * 86_400)][::turn]
        pair[0].merge(pair[1])
        assert pair[0].quantile(0.5) == near(0.5)


# --------------------------------------------------------------------------------------------------------------- trend


def trend(*samples, now=T0, crowd=1.0):
    """A trend with these samples, all at one time and in one crowd."""
    made = Trend()
    for value in samples:
        made.add(value, crowd, now)
    return made


def test_without_samples_there_is_no_trend():
    """None before anything is known, in whatever crowd."""
    assert Trend().at(1) is None


def test_a_trend_is_a_geometric_mean():
    """Of 1 and 4 s it is 2 s: a straggler ten times as long moves it as little as a fast one moves it back."""
    assert trend(1.0, 4.0).at(1) == pytest.approx(2.0)
    assert trend(0.1, 1.0, 10.0).at(1) == pytest.approx(1.0)


def test_a_trend_forgets_by_count():
    """From the 50th on each sample counts for 1/50: after 50 of 8 s it is 8^(1 − 0.98^50) = 8^0.636 = 3.75 s."""
    made = trend(*[1.0] * 50)
    for _ in range(50):
        made.add(8.0, 1.0, T0)
    assert made.at(1) == pytest.approx(3.75, rel=0.005)


@pytest.mark.parametrize(("pause", "seconds"), [(0.0, 1.028), (15.0, 2.0), (30.0, 2.828), (3600.0, 2.828)])
def test_a_trend_forgets_by_time(pause, seconds):
    """After 50 of 1 s one of 4 s counts 1/50 at once, half after 15 s, and three quarters from 30 s on: 4^0.02, 4^0.5, 4^0.75."""
    made = trend(*[1.0] * 50)
    made.add(4.0, 1.0, T0 + pause)
    assert made.at(1) == pytest.approx(seconds, rel=0.001)


@pytest.mark.parametrize(("crowd", "seconds"), [(10, 2.0), (20, 4.0), (40, 8.0), (2.5, 1.0)])
def test_a_trend_grows_with_the_crowd(crowd, seconds):
    """Measured at 2 s among 10: in proportion beyond that, and by the root below, as nobody knows how much was the crowd's doing."""
    assert trend(2.0, 2.0, crowd=10.0).at(crowd) == pytest.approx(seconds)


def test_nobody_is_less_than_one():
    """A call is always in flight itself, and takes more than nothing."""
    assert trend(2.0, crowd=0.0).at(2) == pytest.approx(4.0)
    assert trend(0.0).at(1) == pytest.approx(1e-6)


# ------------------------------------------------------------------------------------------------------------- summary


def test_the_summary_is_at_most_a_quarter_second_old():
    """From 21 answers on the median is worked out four times a second; before, at each answer."""
    timings = Timings()
    for _ in range(20):
        timings.add(1.0, T0, None)
        assert timings.p50(T0) == near(1.0)
    for _ in range(50):
        timings.add(8.0, T0, None)
    assert timings.p50(T0 + 0.24) == near(1.0)
    assert timings.p50(T0 + 0.25) == near(8.0)


def test_early_answers_are_seen_at_once():
    """The second answer moves the median in the same instant."""
    timings = Timings()
    timings.add(1.0, T0, None)
    assert timings.p50(T0) == near(1.0)
    timings.add(0.5, T0, None)
    timings.add(0.5, T0, None)
    assert timings.p50(T0) == near(0.5)


def test_summaries_are_walked_anew_every_quarter_of_a_second():
    """After the first 20 samples a quantile is at most 0.25 s old; before, each sample is seen at once."""
    summary = Summary(LogHistogram())
    for _ in range(20):
        summary.add(1.0, T0)
        assert summary.quantile(0.5, T0) == near(1.0)
    for _ in range(30):
        summary.add(4.0, T0)
    assert summary.quantile(0.5, T0 + 0.24) == near(1.0)
    assert summary.quantile(0.5, T0 + 0.25) == near(4.0)
