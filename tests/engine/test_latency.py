"""Slowness with hysteresis, and silence; time is a parameter, in seconds."""

import pytest

from langchain_resilient.engine.histogram import LogHistogram, Summary
from langchain_resilient.engine.latency import RouteLatency, Silence, Timings

T0 = 1000.0


def near(value):
    """Equal within the histogram's 1 %."""
    return pytest.approx(value, rel=0.01)


# ------------------------------------------------------------------------------------------------------------ slowness


def answers(timings, seconds, count, start, every=0.1, max_latency=5.0):
    """So many answers of one latency; returns the time after them."""
    for number in range(count):
        timings.add(seconds, start + number * every, max_latency)
    return start + count * every


def test_slow_above_max_latency_from_twenty_samples_on():
    """19 slow answers in a minute say nothing yet; the 20th does."""
    timings = Timings()
    now = answers(timings, 8.0, 19, T0)
    assert not timings.slowness.slow
    answers(timings, 8.0, 1, now)
    assert timings.slowness.slow


def test_twenty_samples_within_a_minute():
    """A slow answer each 10 s is too little to judge by: six in a minute."""
    timings = Timings()
    answers(timings, 8.0, 200, T0, every=10.0)
    assert not timings.slowness.slow


def test_a_median_below_max_latency_is_not_slow():
    """Four of ten answers above it are not half; nor does it matter where no `max_latency` is set."""
    timings, unset = Timings(), Timings()
    for number in range(100):
        timings.add(8.0 if number % 10 < 4 else 1.0, T0 + number, 5.0)
        unset.add(8.0, T0 + number, None)
    assert not timings.slowness.slow
    assert not unset.slowness.slow


@pytest.mark.parametrize(("slow", "found"), [(30, False), (31, True)])
def test_the_last_sixty_answers_decide(slow, found):
    """However fast the thousand before were: 31 slow answers of the last 60 are more than half, 30 are not."""
    timings = Timings()
    now = answers(timings, 1.0, 1000, T0, every=0.01)
    runs = [11, 11, slow - 22]  # a dozen in a row would be another reason
    for run in runs:
        now = answers(timings, 1.0, 10, now, every=0.01)
        now = answers(timings, 8.0, run, now, every=0.01)
    assert timings.slowness.slow is found


@pytest.mark.parametrize(("run", "found"), [(11, False), (12, True)])
def test_a_dozen_in_a_row_outvote_all_before(run, found):
    """A provider that turns slow all at once is found so by its twelfth slow answer, however many fast ones the minute has seen."""
    timings = Timings()
    now = answers(timings, 1.0, 100, T0)
    now = answers(timings, 8.0, 11, now)
    now = answers(timings, 1.0, 1, now)  # a fast one in between, and they count from the beginning
    answers(timings, 8.0, run, now)
    assert timings.slowness.slow is found


def test_a_dozen_alone_are_too_few():
    """Without eight more in the same minute a dozen slow answers say nothing yet."""
    timings = Timings()
    answers(timings, 1.0, 100, T0 - 1000.0)
    answers(timings, 8.0, 12, T0)
    assert not timings.slowness.slow


@pytest.mark.parametrize(("waiting", "found"), [(29, False), (30, True)])
def test_those_who_have_waited_longer_count_as_slow_answers(waiting, found):
    """Of 30 fast answers and a slow one, with 30 waiting beside them for more than 5 s: 31 of 61 are slow; with 29, 30 of 60 are not."""
    timings = Timings()
    answers(timings, 1.0, 30, T0)
    for attempt in range(waiting):
        timings.silence.begin(attempt, T0 + 4.0)
    for attempt in range(100, 200):
        timings.silence.begin(attempt, T0 + 5.0)  # these will have waited for 5 s, which is no more than allowed
    answers(timings, 8.0, 1, T0 + 10.0)
    assert timings.slowness.slow is found


@pytest.mark.parametrize(("answered", "found"), [(4, False), (5, True)])
def test_answers_and_those_who_wait_are_twenty_together(answered, found):
    """Fifteen that have waited for too long and five slow answers are enough to judge by."""
    timings = Timings()
    for attempt in range(15):
        timings.silence.begin(attempt, T0)
    answers(timings, 8.0, answered, T0 + 10.0)
    assert timings.slowness.slow is found


def test_as_long_as_allowed_is_not_too_long():
    """Sixty answers of exactly `max_latency` and a slower one are not slow."""
    timings = Timings()
    now = answers(timings, 5.0, 60, T0)
    answers(timings, 8.0, 1, now)
    assert not timings.slowness.slow


def test_a_fast_answer_makes_nobody_slow():
    """Whoever waits: one that answers fast is judged by its next slow answer."""
    timings = Timings()
    for attempt in range(100):
        timings.silence.begin(attempt, T0)
    answers(timings, 1.0, 30, T0 + 20.0)
    assert not timings.slowness.slow
    answers(timings, 8.0, 1, T0 + 30.0)
    assert timings.slowness.slow


def slow_one():
    """Twenty slow answers, the last of which shows it; returns the time from which on calls count that began since."""
    timings = Timings()
    now = answers(timings, 8.0, 20, T0)
    assert timings.slowness.slow
    return timings, now + 10.0


def looks(timings, *seconds, start, every=10.0):
    """So many answers, and after each whether it is slow; returns the time after them, too."""
    states = []
    for number, value in enumerate(seconds):
        timings.add(value, start + number * every, 5.0)
        states.append(timings.slowness.slow)
    return states, start + len(seconds) * every


def test_it_returns_at_four_fifths_judged_by_new_samples():
    """Between 0.8 and 1 of `max_latency` it stays slow; at 0.8 the third answer brings it back."""
    timings, now = slow_one()
    assert looks(timings, *[4.5] * 50, start=now)[0] == [True] * 50
    timings, now = slow_one()
    assert looks(timings, 4.0, 4.0, 3.9, start=now)[0] == [True, True, False]


def test_slow_answers_do_not_bring_it_back():
    """Three fast answers since are not enough by themselves: the median of all since counts."""
    timings, now = slow_one()
    assert all(looks(timings, *[8.0] * 10, 1.0, 1.0, 1.0, start=now, every=0.1)[0])


def test_a_slow_provider_is_not_skipped_for_ever():
    """One request in 30 s explores it: the third fast answer in a row brings it back, though never three in a minute."""
    timings, now = slow_one()
    assert looks(timings, 0.5, 0.5, 0.5, 0.5, start=now + 30, every=30.0)[0] == [True, True, False, False]


def test_explorations_of_the_slow_hour_are_outweighed():
    """After an hour of slow explorations the third fast one brings it back."""
    # Each 29 s all weights fall by 2^(−29/60) = 0.715: two fast ones weigh 1.715 against 1.795, three 2.227 against 1.284.
    timings, now = slow_one()
    states, _ = looks(timings, *[8.0] * 120, 0.5, 0.5, 0.5, start=now, every=29.0)
    assert states == [True] * 122 + [False]


def test_the_backlog_does_not_keep_it_out():
    """Answers to calls that began before it was found slow say nothing new: a hundred of them don't outweigh three fast looks."""
    timings = Timings()
    now = answers(timings, 8.0, 20, T0)
    now = answers(timings, 8.0, 100, now, every=0.05)  # begun up to 3 s before it
    assert looks(timings, 0.5, 0.5, 0.5, start=now + 4, every=0.5)[0] == [True, True, False]


def test_fast_answers_make_nobody_slow_again():
    """After its return, the backlog of old answers must not throw it out again while every new answer is fast."""
    timings, now = slow_one()
    states, now = looks(timings, 0.5, 0.5, 0.5, start=now)
    assert states[-1] is False
    assert not any(looks(timings, *[0.5] * 10, start=now, every=0.1)[0])
    assert timings.p50(now + 10) == near(8.0)


def test_a_second_brownout_is_judged_anew():
    """Having come back, it takes twenty answers to be slow again, and then three new ones to come back again."""
    timings, now = slow_one()
    now = looks(timings, 0.5, 0.5, 0.5, start=now)[1]
    states, now = looks(timings, *[8.0] * 20, start=now, every=0.1)
    assert states == [False] * 19 + [True]
    assert looks(timings, 0.5, 0.5, 0.5, start=now + 10)[0] == [True, True, False]


def test_what_brought_it_back_once_does_not_count_the_second_time():
    """The fast looks of the first slowdown are forgotten: of two slow and one fast since the second began, the median is slow."""
    timings, now = slow_one()
    now = looks(timings, *[0.5] * 3, start=now)[1]
    now = looks(timings, *[8.0] * 20, start=now, every=0.1)[1]
    assert looks(timings, 8.0, 8.0, 0.5, 0.5, start=now + 10, every=0.1)[0] == [True, True, True, False]


# ------------------------------------------------------------------------------------------------------------- timings


@pytest.mark.parametrize(
    ("samples", "age"),
    [
        ([], 6.0),  # half of the limit of 12 s
        ([1.0] * 19, 6.0),
        ([1.0] * 20, 2.0),  # 2 · p95
        ([0.05] * 20, 0.5),  # never below half a second
        ([1.0] * 18 + [2.0] * 2, 4.0),  # p95 is 2 s
    ],
)
def test_when_silence_becomes_suspicious(samples, age):
    """Older than `max(0.5 s, 2·p95)`; with under 20 samples, half of its own limit."""
    timings = Timings()
    for seconds in samples:
        timings.add(seconds, T0, None)
    assert timings.suspicious_after(T0, 12.0) == near(age)


# ------------------------------------------------------------------------------------------------------------- silence


def silent(*begun):
    """Calls that began at these times and have not answered."""
    silence = Silence()
    for attempt, when in enumerate(begun):
        silence.begin(attempt, when)
    return silence


def test_three_calls_that_stay_silent_make_it_hot():
    """Hot when three are older than the suspicious age; two never."""
    silence = silent(T0, T0, T0 + 0.5)
    assert [silence.hot(T0 + age, 1.0) for age in (0.9, 1.4, 1.5, 1.51, 60.0)] == [False, False, False, True, True]
    assert not silent(T0, T0).hot(T0 + 60, 1.0)
    assert not silent().hot(T0, 1.0)


@pytest.mark.parametrize(("young", "hot"), [(12, True), (13, False)])
def test_a_fifth_of_those_in_flight(young, hot):
    """Three suspicious calls of 15 are a fifth; of 16 they are not."""
    silence = silent(T0, T0, T0, *[T0 + 1] * young)
    assert silence.hot(T0 + 1.5, 1.0) is hot


def test_what_was_on_its_way_when_a_route_broke_proves_nothing():
    """An answer clears those that began before its own call, and not those that began after: they may have met a black hole."""
    silence = silent(T0, T0 + 0.5, T0 + 0.6, T0 + 0.7)
    silence.end(0, T0 + 1.6, answered=True)
    assert silence.hot(T0 + 1.8, 1.0)
    silence.end(1, T0 + 1.8, answered=True)
    assert not silence.hot(T0 + 60, 1.0)


def test_it_ends_at_the_first_answer():
    """One answer after the oldest began, and it is not hot any more."""
    silence = silent(T0, T0, T0, T0)
    assert silence.hot(T0 + 2, 1.0)
    silence.end(3, T0 + 2, answered=True)
    assert len(silence) == 3
    assert not silence.hot(T0 + 3, 1.0)


def test_an_answer_before_the_oldest_began_says_nothing():
    """The provider that answered a second before it fell silent is hot all the same."""
    silence = silent(T0)
    silence.end(0, T0 + 1, answered=True)
    for attempt in (1, 2, 3):
        silence.begin(attempt, T0 + 2)
    assert silence.oldest == T0 + 2
    assert silence.hot(T0 + 3.1, 1.0)


def test_a_call_that_failed_or_was_cancelled_is_no_answer():
    """Its end takes it out of the count, and proves nothing: the other three are still silent."""
    silence = silent(T0, T0, T0, T0)
    silence.end(0, T0 + 2, answered=False)
    assert silence.hot(T0 + 2, 1.0)
    silence.end(1, T0 + 2, answered=False)
    assert not silence.hot(T0 + 2, 1.0)
    assert len(silence) == 2


def test_ending_twice_or_unknown_is_harmless():
    """A stream's two reports, or one of a call that was forgotten, don't disturb the count."""
    silence = silent(T0, T0, T0)
    for attempt in (99, 0, 0):
        silence.end(attempt, T0, answered=False)
    assert len(silence) == 2


def test_calls_that_are_lost_do_not_make_it_hot_for_ever():
    """Three calls that never report are forgotten after an hour, one with each call that begins."""
    silence = silent(T0, T0, T0)
    assert silence.hot(T0 + 10, 5.0)
    later = T0 + 3601
    for attempt in (10, 11, 12):
        silence.begin(attempt, later)
    assert len(silence) == 3
    assert not silence.hot(later + 1, 5.0)
    assert silence.hot(later + 6, 5.0)


def test_nobody_is_forgotten_before_an_hour():
    """A call of an hour is still in flight."""
    silence = silent(T0)
    silence.begin(1, T0 + 3600)
    assert len(silence) == 2


# --------------------------------------------------------------------------------------------------------------- crowd


def test_the_crowd_is_a_mean_over_a_calls_life():
    """Alone for 5 s and with another for 5 s: 1.5; the other, with the first for 5 of its 15 s: 1.33."""
    silence = Silence()
    silence.begin(1, T0)
    silence.begin(2, T0 + 5)
    silence.end(1, T0 + 10, answered=True)
    assert silence.crowd == pytest.approx(1.5)
    silence.end(2, T0 + 20, answered=True)
    assert silence.crowd == pytest.approx(4 / 3)


def test_a_stream_is_in_flight_to_its_end():
    """Having spoken it is not silent any more, but counts until it ends; an unstreamed call ends with its answer."""
    streams, calls = Silence(speaks=True), Silence()
    for silence in (streams, calls):
        silence.begin(1, T0)
        silence.end(1, T0 + 1, answered=True)
        assert len(silence) == 0
    assert (streams.in_flight, calls.in_flight) == (1, 0)
    streams.begin(2, T0 + 1)
    streams.end(1, T0 + 5, answered=True)
    assert (streams.in_flight, streams.crowd) == (1, 2.0)
    assert not streams._began.keys() - {2}


@pytest.mark.parametrize("ending", [{"answered": False}, {"answered": True, "over": True}])
def test_a_stream_that_never_spoke_is_gone_at_once(ending):
    """A failure, or an end that is told without a first content, leaves nothing in flight."""
    streams = Silence(speaks=True)
    streams.begin(1, T0)
    streams.end(1, T0 + 1, **ending)
    assert (streams.in_flight, streams._began) == (0, {})


def test_streams_that_are_lost_are_forgotten():
    """One that spoke and never ended fills nobody for longer than an hour."""
    streams = Silence(speaks=True)
    streams.begin(1, T0)
    streams.end(1, T0 + 1, answered=True)
    streams.begin(2, T0 + 3601)
    assert streams.in_flight == 2
    streams.begin(3, T0 + 3602)
    assert (streams.in_flight, set(streams._began)) == (2, {2, 3})


def test_ages_tell_of_a_late_answer_before_it_comes():
    """Of six silent calls begun a second apart the fourth is 3 s old when the last is 1: 6 s, twice the median; five are too few."""
    silence = silent(T0, T0 + 1, T0 + 2, T0 + 3, T0 + 4, T0 + 5)
    assert silence.usual_wait(T0 + 6) == pytest.approx(6.0)
    silence.end(0, T0 + 6, answered=False)
    assert silence.usual_wait(T0 + 6) == 0.0


def test_how_many_are_older():
    """Only those that have waited for longer than so many seconds."""
    silence = silent(T0, T0 + 1, T0 + 2)
    assert [silence.older(T0 + 5, seconds) for seconds in (6.0, 5.0, 4.5, 3.5, 0.0)] == [0, 0, 1, 2, 3]


def silent_route(calls, streams, seconds):
    """A route whose calls (and first tokens) took so long, twenty of each, with some of each in flight since `T0`."""
    route = RouteLatency()
    for stream, number in ((False, calls), (True, streams)):
        for _ in range(20):
            route.timings(stream=stream).add(seconds, T0, None)
        for attempt in range(number):
            route.silence(stream=stream).begin(attempt, T0)
    return route


@pytest.mark.parametrize(("calls", "streams", "hot"), [(3, 0, True), (0, 3, True), (2, 2, False), (0, 0, False)])
def test_a_route_is_hot_by_its_calls_or_its_streams(calls, streams, hot):
    """Each kind is judged by its own, at 2 · p95 = 2 s; two of one and two of the other are not three."""
    route = silent_route(calls, streams, 1.0)
    assert route.in_flight == calls + streams
    assert route.hot(T0 + 2.1, call_limit=60.0, first_token_limit=12.0) is hot
    assert not route.hot(T0 + 1.9, call_limit=60.0, first_token_limit=12.0)


def test_before_twenty_answers_each_kind_has_half_of_its_own_limit():
    """A call is suspicious after 30 s, a stream after 6."""
    route = RouteLatency()
    for attempt in range(3):
        route.silence(stream=False).begin(attempt, T0)
    times = (5.0, 7.0, 29.0, 31.0)
    assert [route.hot(T0 + age, call_limit=60.0, first_token_limit=12.0) for age in times] == [
        False,
        False,
        False,
        True,
    ]
    for attempt in range(3):
        route.silence(stream=True).begin(attempt, T0)
    assert [route.hot(T0 + age, call_limit=60.0, first_token_limit=12.0) for age in times] == [False, True, True, True]


# -------------------------------------------------------------------------------------------------------------- route


def test_streams_and_calls_have_timings_of_their_own():
    """A total is no first token."""
    route = RouteLatency()
    route.timings(stream=True).add(0.3, T0, None)
    assert route.timings(stream=True) is route.streams
    assert route.timings(stream=False) is route.calls
    assert route.calls.p50(T0) is None


def test_a_long_call_does_not_hide_a_black_hole():
    """A call that takes minutes, begun before the last answer, says nothing: the three begun after it do."""
    silence = Silence()
    silence.begin(1, T0)
    silence.begin(2, T0 + 10)
    silence.end(2, T0 + 11, answered=True)
    for attempt in (3, 4, 5):
        silence.begin(attempt, T0 + 12)
    assert not silence.hot(T0 + 12.9, 1.0)
    assert silence.hot(T0 + 13.1, 1.0)


def test_calls_that_are_lost_are_no_sign():
    """Three calls whose callers are gone without a word make nobody hot once their limit and 30 s are over."""
    route = RouteLatency()
    for attempt in (1, 2, 3):
        route.silent_calls.begin(attempt, T0)
    assert [route.hot(T0 + age, call_limit=60.0, first_token_limit=12.0) for age in (31.0, 90.0, 90.1)] == [
        True,
        True,
        False,
    ]


def test_a_fifth_of_the_calls_in_flight_must_be_silent():
    """Of 35 calls in flight 7 are a fifth: six old ones are not enough, seven are."""
    silence = Silence()
    for attempt in range(35):
        silence.begin(attempt, T0 if attempt < 6 else T0 + (1 if attempt == 6 else 5))
    assert not silence.hot(T0 + 5.5, 5.0)
    assert silence.hot(T0 + 6.1, 5.0)


def test_expected_output():
    """1024 tokens before any answer; then what nine of ten stay below."""
    route = RouteLatency()
    assert route.expected_output(T0) == 1024
    for tokens in range(10, 110, 10):
        route.output.add(tokens, T0)
    assert route.expected_output(T0) in {90, 91}  # 90, in a bucket of 2 %


def test_prediction():
    """First token plus n̂ tokens at the pace between tokens: 0.5 + 100 · 0.02 = 2.5 s, or 0.5 + 10 · 0.02 where 10 are allowed."""
    route = RouteLatency()
    assert route.predicted(T0, stream=True, max_output=None) is None
    route.streams.add(0.5, T0, None)
    assert route.predicted(T0, stream=True, max_output=None) == near(0.5)
    route.inter_token.add(0.02, T0)
    assert route.predicted(T0, stream=True, max_output=None) == near(0.5 + 1024 * 0.02)
    route.output.add(100, T0)
    for stream in (True, False):
        assert route.predicted(T0, stream=stream, max_output=None) == pytest.approx(2.5, rel=0.02)
        assert route.predicted(T0, stream=stream, max_output=10) == near(0.7)
        assert route.predicted(T0, stream=stream, max_output=500) == pytest.approx(2.5, rel=0.02)


def test_prediction_without_streams():
    """Where only unstreamed answers are known, their median is the prediction, and a stream's is unknown."""
    route = RouteLatency()
    route.calls.add(3.0, T0, None)
    assert route.predicted(T0, stream=False, max_output=None) == near(3.0)
    assert route.predicted(T0, stream=True, max_output=None) is None


def test_prediction_by_first_token_alone():
    """Where only first tokens are known, they are a lower bound for an unstreamed call."""
    route = RouteLatency()
    route.streams.add(0.5, T0, None)
    assert route.predicted(T0, stream=False, max_output=None) == near(0.5)


def test_token_paces_below_a_millisecond_are_told_apart():
    """A fast provider sends thousands of tokens a second: 0.05 ms is not 1 ms."""
    route = RouteLatency()
    route.inter_token.add(0.00005, T0)
    assert route.inter_token.quantile(0.5, T0) == near(0.00005)


# ---------------------------------------------------------------------------------------------- prediction in the crowd


def known_route(at=T0):
    """A route whose only stream took 0.5 s to its first of 100 tokens, alone, and then 0.02 s a token: 2.5 s in all; heard at `at`."""
    route = RouteLatency()
    streams = route.silence(stream=True)
    streams.begin(0, at - 2.48)
    streams.end(0, at - 1.98, answered=True)
    route.streams.add(0.5, at - 1.98, None)
    streams.end(0, at, answered=True)
    route.output.add(100, at)
    route.inter_token.add(0.02, at)
    route.streams.add(0.5, at, None)
    return route


def predicted(route, now):
    """Seconds to a whole stream."""
    return route.predicted(now, stream=True, max_output=None)


def test_prediction_grows_with_those_in_flight():
    """Measured alone: with three in flight, silent or speaking, a fourth makes it four times 2.5 s."""
    route = known_route()
    assert predicted(route, T0) == pytest.approx(2.5, rel=0.02)
    for attempt in (1, 2, 3):
        route.silent_streams.begin(attempt, T0)
    assert predicted(route, T0) == pytest.approx(10.0, rel=0.02)
    route.silent_streams.end(1, T0, answered=True)
    route.silent_calls.begin(4, T0)
    route.silent_calls.end(4, T0, answered=True)
    assert predicted(route, T0) == pytest.approx(10.0, rel=0.02)


def test_concurrency_is_learned():
    """Streams that took as long among four of them as alone prove that four fit: prediction does not grow up to there."""
    route = known_route()
    for stream in range(200):
        streams = route.silence(stream=True)
        for attempt in range(4):
            streams.begin(attempt, T0 + stream)
        for attempt in range(4):
            streams.end(attempt, T0 + stream + 0.5, answered=True)
            route.streams.add(0.5, T0 + stream + 0.5, None)
        for attempt in range(4):
            streams.end(attempt, T0 + stream + 1.0, answered=True)
            route.inter_token.add(0.02, T0 + stream + 1.0)
    for attempt in range(3):
        route.silent_streams.begin(attempt, T0 + 201)
    assert predicted(route, T0 + 201) == pytest.approx(2.5, rel=0.03)
    for attempt in range(3, 7):
        route.silent_streams.begin(attempt, T0 + 201)
    assert predicted(route, T0 + 201) == pytest.approx(5.0, rel=0.03)


@pytest.mark.parametrize(("age", "seconds"), [(2.5, 17.5), (2.7, 27.0), (6.0, 60.0)])
def test_late_first_tokens_slow_the_whole_prediction(age, seconds):
    """Six silent streams and one more: 7 · 2.5 s. If they wait for 2 · age where 7 · 0.5 s is usual, that much longer, from half on."""
    route = known_route()
    for attempt in range(6):
        route.silent_streams.begin(attempt, T0)
    assert predicted(route, T0 + age) == pytest.approx(seconds, rel=0.03)


def test_what_was_not_heard_of_lately_is_unknown_to_one_request():
    """After 30 s without an answer the next request looks; while it waits, what was known before counts: 2.5 s, twice as many."""
    route = known_route()
    assert predicted(route, T0 + 30) == pytest.approx(2.5, rel=0.02)
    assert predicted(route, T0 + 30.1) is None
    route.silent_streams.begin(1, T0 + 31)
    assert predicted(route, T0 + 31.1) == pytest.approx(5.0, rel=0.02)
    route.silent_streams.end(1, T0 + 31.5, answered=True)
    route.streams.add(0.5, T0 + 31.5, None)
    assert predicted(route, T0 + 32) == pytest.approx(5.0, rel=0.02)


def test_a_new_count_of_what_is_in_flight():
    """A forked process begins with nothing in flight, and counts its own streams to their ends."""
    route = known_route()
    route.silent_streams.begin(1, T0)
    route.silent_calls, route.silent_streams = Silence(), Silence()
    assert (route.in_flight, route.silence(stream=True) is route.silent_streams) == (0, True)
    route.silent_streams.begin(2, T0)
    route.silent_streams.end(2, T0, answered=True)
    assert route.in_flight == 1


def test_long_answers_are_reckoned_with():
    """Of answers of 10, 20 … 100 tokens the p75 is 80: 0.5 + 80 · 0.02 = 2.1 s."""
    route = known_route()
    route.output = Summary(LogHistogram(lowest=1.0, highest=10_000_000.0))
    for tokens in range(10, 110, 10):
        route.output.add(tokens, T0)
    assert predicted(route, T0) == pytest.approx(2.1, rel=0.02)
