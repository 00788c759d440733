"""Late streams: the tail, many at once, those that were outrun; time is a parameter, in seconds."""

import pytest

from langchain_resilient.engine.latency import Timings
from langchain_resilient.engine.lateness import Lateness

T0 = 1000.0
STALE = T0 + 60.0
"""When samples of `T0` are not fresh any more."""


def known(*samples, late=0, young=0):
    """A provider whose streams took so long to their first content, and those in flight at `T0`: begun 2 s ago, or 0.5 s."""
    streams = Timings()
    streams.silence.speaks = True
    for seconds in samples:
        streams.add(seconds, T0, None)
    for attempt in range(late + young):
        streams.silence.begin(attempt, T0 - (2.0 if attempt < late else 0.5))
    return Lateness(streams), streams


def usual(**in_flight):
    """A provider whose streams take 1 s: 200 answers, so that a few outrun ones do not move its p95."""
    return known(*[1.0] * 200, **in_flight)


def cancel(lateness, silent=2.0, times=1, now=T0, max_latency=None, limit=12.0):
    """So many streams were outrun; returns whether the provider had fallen silent at the last."""
    return [lateness.cancelled(silent, now, max_latency=max_latency, limit=limit) for _ in range(times)][-1]


def outrun_one():
    """A provider that is outrun again and again."""
    lateness, streams = usual(late=3)
    cancel(lateness, times=3)
    assert lateness.outrun
    return lateness, streams


def near(value):
    """Equal within the histogram's 1 %."""
    return pytest.approx(value, rel=0.01)


# ---------------------------------------------------------------------------------------------------------------- tail


def test_the_tail_is_a_quantile_of_the_first_tokens():
    """Of 1, 2 … 100 s half stay below 50, and 95 of 100 below 95."""
    lateness, _ = known(*range(1, 101))
    assert [lateness.tail(share, T0) for share in (0.5, 0.95)] == [near(50), near(95)]


@pytest.mark.parametrize(("samples", "tail"), [(0, None), (19, None), (20, near(1.0))])
def test_a_tail_takes_twenty_samples(samples, tail):
    """With fewer nobody knows what is late."""
    assert known(*[1.0] * samples)[0].tail(0.95, T0) == tail


def test_a_tail_takes_fresh_samples():
    """However many there were: those of more than a minute ago don't tell what is late now."""
    lateness, _ = usual()
    assert [lateness.tail(0.95, now) for now in (STALE - 0.1, STALE)] == [near(1.0), None]


# ---------------------------------------------------------------------------------------------------------------- many


@pytest.mark.parametrize(("late", "young", "many"), [(3, 0, True), (3, 6, True), (3, 7, False), (10, 21, False)])
def test_a_third_of_those_in_flight_is_many(late, young, many):
    """Three late ones of nine are a third, of ten they are not."""
    assert usual(late=late, young=young)[0].many(T0) is many


@pytest.mark.parametrize(("late", "many"), [(0, False), (1, False), (2, False), (3, True)])
def test_fewer_than_three_are_never_many(late, many):
    """One or two that are late may be the slowest few, though nobody else is in flight."""
    assert usual(late=late)[0].many(T0) is many


@pytest.mark.parametrize(("late", "heavy", "light"), [(3, False, False), (4, False, True), (5, True, True)])
def test_heavy_tails_are_no_sign(late, heavy, light):
    """Where 4 of 100 take 9 s a quarter of those in flight is always late: of ten it takes twice that, which is five, to be many."""
    # Of the 96 · 1 + 4 · 9 = 132 s that 100 streams are silent for, 4 · 8 = 32 lie beyond the p95 of 1 s: 24 %, twice that 48 %.
    in_flight = {"late": late, "young": 10 - late}
    assert known(*[1.0] * 96, *[9.0] * 4, **in_flight)[0].many(T0) is heavy
    assert usual(**in_flight)[0].many(T0) is light


def test_nobody_is_late_where_no_tail_is_known():
    """Twenty that wait for longer than 19 others did, or than those of a minute ago, are no sign."""
    assert not known(*[1.0] * 19, late=20)[0].many(T0)
    assert not usual(late=20)[0].many(STALE)


def test_streams_that_speak_are_neither_late_nor_in_time():
    """The share is one of those that are silent so far, as nobody waits for the others."""
    lateness, streams = usual(late=23)
    for attempt in range(20):
        streams.silence.end(attempt, T0, answered=True)
    assert (lateness.many(T0), len(streams.silence), streams.silence.in_flight) == (True, 3, 23)
    streams.silence.end(20, T0, answered=True)
    assert not lateness.many(T0)


# ----------------------------------------------------------------------------------------------------------- cancelled


def test_an_outrun_stream_is_a_sample_of_its_silence():
    """Or a provider that is often late would look fast: of 20 answers after 1 s and 30 streams outrun after 8 the median is 8."""
    lateness, streams = known(*[1.0] * 20)
    cancel(lateness, 8.0, times=30)
    assert streams.p50(T0 + 1) == near(8.0)
    assert streams.histogram.recent(T0) == 50


@pytest.mark.parametrize(("silent", "limit", "slow"), [(8.0, 5.0, True), (5.0, 5.0, False), (8.0, None, False)])
def test_an_outrun_stream_beyond_max_latency_was_slow(silent, limit, slow):
    """Twenty that were silent for longer than `max_latency` are as good as twenty slow answers."""
    lateness, streams = known()
    cancel(lateness, silent, times=20, max_latency=limit)
    assert streams.slowness.slow is slow


@pytest.mark.parametrize("silent", [1.0, 5.0])
def test_an_outrun_stream_within_max_latency_was_not_fast(silent):
    """Nobody knows how long it would have taken: thirty of these don't outweigh twenty slow answers."""
    lateness, streams = known()
    cancel(lateness, silent, times=30, max_latency=5.0)
    for _ in range(20):
        streams.add(8.0, T0, 5.0)
    assert streams.slowness.slow


@pytest.mark.parametrize(("late", "young", "silent"), [(2, 0, False), (3, 0, True), (3, 12, True), (3, 13, False)])
def test_a_provider_falls_silent(late, young, silent):
    """It has where three streams, and a fifth of those in flight, are late: the one that was outrun, and two others."""
    assert cancel(usual(late=late, young=young)[0]) is silent


@pytest.mark.parametrize(("answered", "silent"), [(0, True), (4, False)])
def test_whoever_answers_later_ones_has_not_fallen_silent(answered, silent):
    """An answer to a stream that began before the late ones proves nothing; one to a stream that began after them does."""
    lateness, streams = usual()
    for attempt, age in enumerate((3.0, 2.0, 2.0, 2.0, 1.5)):
        streams.silence.begin(attempt, T0 - age)
    streams.silence.end(answered, T0, answered=True)
    assert cancel(lateness) is silent


@pytest.mark.parametrize(("samples", "now"), [(19, T0), (200, STALE)])
def test_nobody_has_fallen_silent_where_no_tail_is_known(samples, now):
    """Without enough fresh samples nobody is late; the outrun stream itself counts only for the next."""
    lateness, _ = known(*[1.0] * samples, late=5)
    assert cancel(lateness, now=now) is False


@pytest.mark.parametrize(("age", "silent"), [(41.9, True), (42.1, False)])
def test_streams_that_are_lost_do_not_count_as_silent(age, silent):
    """30 s after their limit of 12 s those that made them are gone without a word."""
    lateness, streams = usual()
    for attempt in range(3):
        streams.silence.begin(attempt, T0 - age)
    assert cancel(lateness, limit=12.0) is silent


# -------------------------------------------------------------------------------------------------------------- outrun


def test_three_in_a_row_among_many_late_ones():
    """The third stream that is outrun while many are late shows that the provider is."""
    lateness, _ = usual(late=3)
    states = []
    for _ in range(4):
        cancel(lateness)
        states.append(lateness.outrun)
    assert states == [False, False, True, True]


def test_one_of_the_slowest_few_says_nothing():
    """However often a stream is outrun while few are late, the provider is not; nor do these interrupt the row."""
    lateness, streams = usual(late=3)
    cancel(lateness, times=2)
    for attempt in range(100, 107):
        streams.silence.begin(attempt, T0 - 0.5)
    cancel(lateness, times=7)  # three late ones of ten
    assert not lateness.outrun
    for attempt in range(100, 107):
        streams.silence.end(attempt, T0, answered=False)
    cancel(lateness)
    assert lateness.outrun


# ------------------------------------------------------------------------------------------------ not outrun any more


@pytest.mark.parametrize(("first_token", "outrun"), [(0.5, False), (1.1, True), (5.0, True)])
def test_a_first_content_in_time_ends_it(first_token, outrun):
    """One stream that speaks within the tail is enough; one that speaks late is not."""
    lateness, _ = outrun_one()
    lateness.spoke(first_token, T0)
    assert lateness.outrun is outrun


def test_as_late_as_the_tail_is_in_time():
    """What takes as long as 95 of 100 stay below is not late."""
    lateness, _ = outrun_one()
    lateness.spoke(lateness.tail(0.95, T0), T0)
    assert not lateness.outrun


def test_any_first_content_ends_it_where_no_tail_is_known():
    """Without fresh samples nobody knows what is late, and so whoever speaks is in time."""
    lateness, _ = outrun_one()
    lateness.spoke(5.0, STALE)
    assert not lateness.outrun


@pytest.mark.parametrize(("first_token", "outrun"), [(0.5, False), (5.0, True)])
def test_a_first_content_in_time_interrupts_the_row(first_token, outrun):
    """Two, a stream in time, and two more are not three in a row; a late one in between interrupts nothing."""
    lateness, _ = usual(late=3)
    cancel(lateness, times=2)
    lateness.spoke(first_token, T0)
    cancel(lateness, times=2)
    assert lateness.outrun is outrun


@pytest.mark.parametrize(("now", "outrun"), [(T0, True), (STALE - 0.1, True), (STALE, False)])
def test_an_unstreamed_answer_ends_it_where_nobody_streams_any_more(now, outrun):
    """As long as streams tell what is late an unstreamed answer says nothing of them."""
    lateness, _ = outrun_one()
    lateness.answered_whole(now)
    assert lateness.outrun is outrun
