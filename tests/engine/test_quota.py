"""Rate limits as GCRA on integers; the store's time is a parameter, in microseconds. `S` is a second."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langchain_resilient.engine.errors import SettingsError
from langchain_resilient.engine.quota import (
    LANES,
    Cost,
    Dimension,
    RateLimits,
    Scale,
    capacity,
    counts_tokens,
    cut,
    dimensions,
    increment,
    moved,
    places,
    reconcile,
    scale_at,
    take,
    tighten,
)

S = 1_000_000
MINUTE = 60 * S
DAY = 86_400 * S
T0 = 1000 * S


def settled(dimension, tat, charged, estimated, actual, now):
    """The state once the real cost is known."""
    return reconcile(tat, moved(dimension, charged, estimated, actual), now)


def only(**limits):
    """The one dimension that these limits set."""
    (dimension,) = dimensions(RateLimits(**limits))
    return dimension


RPM = only(rpm=60, burst=5)  # one request a second, five at once
TPM = only(tpm=6000)  # 100 tokens a second, 1000 at once


def spend(dimension, tat, cost, now, scale=1000, share=1000):
    """Take what must fit, and return the new state."""
    taken = take(dimension, tat, cost, now, scale, share)
    assert taken.wait == 0
    return taken.tat


def at_once(dimension, tat, now, scale=1000, share=1000, cost=1):
    """How many of these fit at one instant."""
    for count in range(1000):
        taken = take(dimension, tat, cost, now, scale, share)
        if taken.wait:
            return count
        tat = taken.tat
    raise AssertionError("no end of it")


# ---------------------------------------------------------------------------------------------------------- dimensions


def test_every_limit_becomes_a_dimension():
    """Each limit has its unit, period and burst: ten seconds' worth a minute, the whole day a day."""
    found = dimensions(
        RateLimits(rpm=500, tpm=200_000, itpm=90_000, otpm=30_000, rpd=10_000, tpd=5_000_000, usd_per_day=2.5)
    )
    assert [tuple(dimension[:5]) for dimension in found] == [
        ("rpm", "requests", 500, MINUTE, 83),
        ("tpm", "tokens", 200_000, MINUTE, 33_333),
        ("itpm", "input_tokens", 90_000, MINUTE, 15_000),
        ("otpm", "output_tokens", 30_000, MINUTE, 5000),
        ("rpd", "requests", 10_000, DAY, 10_000),
        ("tpd", "tokens", 5_000_000, DAY, 5_000_000),
        ("usd_per_day", "usd_micros", 2_500_000, DAY, 2_500_000),
    ]
    assert all(dimension.room == capacity(dimension) for dimension in found)


def test_no_limits_no_dimensions():
    """A provider without limits, or with `concurrency` alone, has nothing to ask here."""
    assert dimensions(RateLimits()) == ()
    assert dimensions(RateLimits(concurrency=4)) == ()


def test_a_burst_holds_at_least_one():
    """Five requests or tokens a minute still hold one; a configured burst is taken as it is."""
    assert only(rpm=5).burst == 1
    assert only(tpm=5).burst == 1
    assert only(rpm=5, burst=20).burst == 20


@pytest.mark.parametrize(
    ("unit", "amount"),
    [("requests", 1), ("tokens", 70), ("input_tokens", 50), ("output_tokens", 20), ("usd_micros", 900)],
)
def test_what_a_request_takes_from_each_unit(unit, amount):
    """Tokens are input and output together; the rest are themselves."""
    assert Cost(input_tokens=50, output_tokens=20, usd_micros=900).of(unit) == amount


@pytest.mark.parametrize(
    ("limits", "needed"),
    [
        ({}, False), ({"rpm": 5, "rpd": 9, "concurrency": 2, "burst": 2}, False),
        ({"tpm": 5}, True), ({"itpm": 5}, True), ({"otpm": 5}, True), ({"tpd": 5}, True), ({"usd_per_day": 5}, True),
    ],
)  # fmt: skip
def test_who_needs_an_estimate_of_tokens(limits, needed):
    """Only limits in tokens or dollars need one."""
    assert counts_tokens(RateLimits(**limits)) is needed


# ---------------------------------------------------------------------------------------------------------------- GCRA


@pytest.mark.parametrize(
    ("dimension", "cost", "scale", "moved"),
    [
        (RPM, 1, 1000, S),
        (RPM, 0, 1000, 0),
        (TPM, 250, 1000, 2_500_000),
        (only(rpm=7), 1, 1000, 8_571_429),  # 60 s / 7 = 8571428.57…, rounded up
        (only(rpm=7), 7, 1000, MINUTE),  # afresh from the limit: not seven times the rounded interval
        (RPM, 1, 800, 1_250_000),
        (RPM, 1, 200, 5 * S),
        (
            only(rpm=7),
            1,
            700,
            12_244_899,
        ),  # 8571429 / 0.7 = 12244898.57…: the rounded interval, stretched and rounded up
        (only(rpd=1000), 1, 1000, 86_400_000),
    ],
)
def test_increment_is_rounded_up_from_the_limit(dimension, cost, scale, moved):
    """`⌈cost · period / limit⌉`, computed afresh, with the limit in thousandths of itself: never less than exact."""
    assert increment(dimension, cost, scale) == moved


def test_a_burst_then_the_rate():
    """Five at once, then one a second: the wait of the sixth is exact to the microsecond."""
    assert at_once(RPM, 0, T0) == 5
    tat = T0 + 5 * S
    assert take(RPM, tat, 1, T0).wait == S
    assert take(RPM, tat, 1, T0 + S - 1).wait == 1
    assert take(RPM, tat, 1, T0 + S) == (0, T0 + 6 * S, S)


def test_an_idle_bucket_is_full_and_not_fuller():
    """A year without a request still allows five at once."""
    assert at_once(RPM, T0, T0 + 365 * DAY) == 5


@pytest.mark.parametrize("rpm", [7, 11, 13, 59, 61, 997])
def test_rounding_does_not_cost_the_last_request_of_a_burst(rpm):
    """A burst of ten is ten at once, though each interval is rounded up."""
    assert at_once(only(rpm=rpm, burst=10), 0, T0) == 10


def test_a_refusal_writes_nothing():
    """`take` returns a state; whoever was refused and asks a million times leaves the others' wait as it was."""
    tat = T0 + 5 * S
    assert {take(RPM, tat, 1, T0 + S // 2).wait for _ in range(1000)} == {S // 2}


@pytest.mark.parametrize("hertz", [2, 5, 10, 50, 1000])
def test_a_poller_is_not_starved(hertz):
    """120 s of polling grant 5 at once and one at 1 s, 2 s … 119 s: 124, however often it is asked in between."""
    tat, granted = 0, 0
    for poll in range(120 * hertz):
        taken = take(RPM, tat, 1, T0 + poll * S // hertz)
        if not taken.wait:
            tat, granted = taken.tat, granted + 1
    assert granted == 124


def test_a_cost_above_the_bucket_is_admitted_when_full_and_leaves_debt():
    """3000 tokens of a bucket of 1000 wait for a full bucket, not for ever; those after them wait for the debt."""
    tat = spend(TPM, 0, 1, T0)
    assert take(TPM, tat, 3000, T0).wait == 10_000  # one token is 10 ms
    tat = spend(TPM, tat, 3000, T0 + 10_000)
    assert tat == T0 + 10_000 + 30 * S
    # 1000 fit when the debt is down to nothing, 1 fits 999 tokens earlier.
    assert take(TPM, tat, 1000, T0 + 10_000).wait == 30 * S
    assert take(TPM, tat, 1, T0 + 10_000).wait == 20_010_000


def test_the_wait_does_not_jump_where_the_bucket_ends():
    """A cost of exactly the bucket and one a token larger wait for the same full bucket."""
    tat = spend(TPM, 0, 500, T0)
    assert take(TPM, tat, 1000, T0).wait == 5 * S
    assert take(TPM, tat, 1001, T0).wait == 5 * S
    assert take(TPM, tat, 999, T0).wait == 4_990_000


def test_a_request_that_costs_nothing_waits_only_for_debt():
    """No output tokens asked: fits an empty bucket, but not one in debt."""
    assert take(TPM, T0 + 10 * S, 0, T0) == (0, T0 + 10 * S, 0)
    assert take(TPM, T0 + 11 * S, 0, T0).wait == S


# ------------------------------------------------------------------------------------------------------- lanes and scale


def test_lanes():
    """Batch may use 60 % of a burst, replay half, interactive all of it."""
    assert LANES == {"interactive": 1000, "batch": 600, "replay": 500}
    ten = only(rpm=60, burst=10)
    assert [at_once(ten, 0, T0, share=LANES[lane]) for lane in ("interactive", "batch", "replay")] == [10, 6, 5]
    assert [at_once(TPM, 0, T0, share=LANES[lane], cost=10) for lane in ("interactive", "batch", "replay")] == [
        100,
        60,
        50,
    ]


def test_a_lane_leaves_the_rest_to_those_before_it():
    """After batch has used its share, four more interactive requests fit; after those, batch waits for five seconds."""
    ten = only(rpm=60, burst=10)
    tat = T0 + 6 * S
    assert take(ten, tat, 1, T0, share=600).wait == S
    assert at_once(ten, tat, T0) == 4
    assert take(ten, T0 + 10 * S, 1, T0, share=600).wait == 5 * S


def test_a_lane_may_always_use_one():
    """Half of a burst of one is one; half of a bucket of one token too."""
    assert at_once(only(rpm=6), 0, T0, share=500) == 1
    assert capacity(only(tpm=6), share=500) == 10 * S


@pytest.mark.parametrize(
    ("scale", "count", "seconds"), [(1000, 10, 1.0), (800, 8, 1.25), (640, 6, 1.5625), (500, 5, 2.0), (200, 2, 5.0)]
)
def test_a_cut_limit_cuts_rate_and_burst(scale, count, seconds):
    """At 80 % of 60 a minute with a burst of ten, eight fit at once, and then one each 1.25 s."""
    ten = only(rpm=60, burst=10)
    assert at_once(ten, 0, T0, scale=scale) == count
    assert increment(ten, 1, scale) == seconds * S


@pytest.mark.parametrize("used", range(11))
@pytest.mark.parametrize("scale", [999, 800, 640, 512, 333, 200])
def test_a_cut_never_lets_in_what_was_refused_before_it(used, scale):
    """A 429 tightens at once: after a cut no more fit than before, however much of the burst was used."""
    ten = only(rpm=60, burst=10)
    tat = T0 + used * S
    assert at_once(ten, tat, T0, scale=scale) <= 10 - used
    assert take(ten, tat, 1, T0, scale).wait >= take(ten, tat, 1, T0).wait
    tokens = spend(TPM, 0, used * 100, T0)
    assert take(TPM, tokens, 100, T0, scale).wait >= take(TPM, tokens, 100, T0).wait


def test_a_cut_burst_still_holds_one():
    """A burst of one, cut to a fifth, admits one and then one each 50 s."""
    one = only(rpm=6)
    assert at_once(one, 0, T0, scale=200) == 1
    tat = spend(one, 0, 1, T0, scale=200)
    assert take(one, tat, 1, T0, 200).wait == 50 * S
    assert capacity(one, 200) == 50 * S


# ------------------------------------------------------------------------------------------------- refunds and late charges


@pytest.mark.parametrize(
    ("estimated", "actual", "left"),
    [
        (1000, 1000, 10 * S),
        (1000, 400, 4 * S),
        (1000, 0, 0),  # never sent
        (1000, 1300, 13 * S),  # 300 more: debt
    ],
)
def test_the_real_cost_replaces_the_estimate(estimated, actual, left):
    """Reported usage moves the state to where the real cost would have left it."""
    taken = take(TPM, 0, estimated, T0)
    assert settled(TPM, taken.tat, taken.charged, estimated, actual, T0) == T0 + left


def test_a_refund_never_makes_a_bucket_fuller_than_full():
    """A refund that comes when the bucket has filled up by itself changes nothing; one midway fills it at most."""
    taken = take(TPM, 0, 1000, T0)
    assert settled(TPM, taken.tat, taken.charged, 1000, 0, T0 + 10 * S) == taken.tat
    assert settled(TPM, taken.tat, taken.charged, 1000, 0, T0 + 30 * S) == taken.tat
    assert settled(TPM, taken.tat, taken.charged, 1000, 0, T0 + 8 * S) == T0 + 8 * S


def test_a_refund_is_paid_at_the_price_of_its_charge():
    """What was charged under a cut limit (1.25 times as much) is refunded as much, though the limit has recovered."""
    taken = take(TPM, 0, 800, T0, 800)
    assert taken.charged == 10 * S
    assert settled(TPM, taken.tat, taken.charged, 800, 400, T0) == T0 + 5 * S


def test_a_late_charge_counts_from_now():
    """Debt of a call that used more than estimated begins now, even where the bucket has long been full."""
    assert settled(TPM, T0, 10 * S, 1000, 1100, T0 + 600 * S) == T0 + 601 * S


def test_what_was_estimated_at_nothing_can_be_charged_late():
    """An estimate of 0 tokens is charged what came, and refunded nothing."""
    assert settled(TPM, T0, 0, 0, 0, T0) == T0
    assert settled(TPM, T0, 0, 0, 100, T0) == T0 + S


@given(
    limit=st.integers(1, 5000),
    estimated=st.integers(1, 10_000),
    share=st.integers(0, 1000),
    scale=st.integers(200, 1000),
)
def test_a_refund_never_exceeds_its_charge(limit, estimated, share, scale):
    """I6: what stays charged after a refund is at least the exact price of the real cost, and at most the charge."""
    actual = estimated * share // 1000
    dimension = only(tpm=limit)
    taken = take(dimension, 0, estimated, T0, scale)
    kept = settled(dimension, taken.tat, taken.charged, estimated, actual, T0) - T0
    assert kept <= taken.charged
    assert kept * limit >= actual * MINUTE


# --------------------------------------------------------------------------------------------------------- the provider's word


@pytest.mark.parametrize("remaining", [0, 1, 2, 3, 4, 5])
@pytest.mark.parametrize("rpm", [60, 7, 11, 997])
def test_what_the_provider_says_remains_is_what_fits(rpm, remaining):
    """After "2 requests remain" two fit at once, and not a third; rounding costs none."""
    five = only(rpm=rpm, burst=5)
    assert at_once(five, tighten(five, 0, remaining, T0), T0) == remaining


def test_the_provider_can_only_tighten():
    """A provider that still sees more than we do loosens nothing."""
    assert tighten(RPM, T0 + 4 * S, 5, T0) == T0 + 4 * S
    assert tighten(RPM, T0 + 4 * S, 500, T0) == T0 + 4 * S
    assert tighten(RPM, T0 + 4 * S, 0, T0) == T0 + 5 * S
    assert tighten(RPM, T0 + 40 * S, 0, T0) == T0 + 40 * S


def test_remaining_tokens():
    """400 of a bucket of 1000 remain: 600 are spent. A negative remainder is none, not debt."""
    assert tighten(TPM, 0, 400, T0) == T0 + 6 * S
    assert tighten(TPM, 0, -50, T0) == T0 + 10 * S


def test_remaining_under_a_cut_limit():
    """At 80 % the bucket holds 800, each token 12.5 ms: with 400 remaining 400 are spent, 5 s."""
    assert tighten(TPM, 0, 400, T0, 800) == T0 + 5 * S
    assert at_once(TPM, tighten(TPM, 0, 400, T0, 800), T0, scale=800, cost=100) == 4


# ---------------------------------------------------------------------------------------------------------------- AIMD


def test_a_429_cuts_to_four_fifths_at_most_once_a_minute():
    """1000 → 800; another 429 within the minute changes nothing; at the minute 80 % of 850 = 680."""
    once = cut(Scale(), T0)
    assert once == Scale(800, T0)
    assert cut(once, T0 + MINUTE - 1) == once
    assert cut(once, T0 + MINUTE) == Scale(680, T0 + MINUTE)


def test_the_very_first_429_counts_at_any_time():
    """A store whose clock begins at 0 cuts once there, not twice."""
    assert cut(Scale(), 0) == Scale(800, 0)
    assert cut(cut(Scale(), 0), 1) == Scale(800, 0)


def test_cuts_end_at_a_fifth():
    """429s every minute lead to the floor, 20 % of the limit, and never below it: a provider is never cut off."""
    scale, seen = Scale(), []
    for minute in range(30):
        scale = cut(scale, T0 + minute * MINUTE)
        seen.append(scale.permille)
    # 800, then 0.8 · (800 + 50) = 680, 0.8 · 730 = 584, 0.8 · 634 = 507, 0.8 · 557 = 445, …
    assert seen[:5] == [800, 680, 584, 507, 445]
    assert seen == sorted(seen, reverse=True)
    assert cut(Scale(210, T0), T0 + MINUTE).permille == 208  # 0.8 · 260
    assert cut(Scale(200, T0 - 1), T0 + MINUTE - 1).permille == 200  # 0.8 · 250
    assert cut(Scale(190, T0), T0 + MINUTE).permille == 200  # 0.8 · 240 = 192: the floor


@pytest.mark.parametrize(("minutes", "permille"), [(0, 800), (0.5, 825), (1, 850), (3, 950), (4, 1000), (400, 1000)])
def test_five_percent_of_the_limit_come_back_each_minute(minutes, permille):
    """From 80 % it is 85 % after a minute and all of it after four, and no more than all."""
    assert scale_at(Scale(800, T0), T0 + int(minutes * MINUTE)) == permille


def test_without_a_429_the_limit_is_whole():
    """No cut, no scale, whatever the time."""
    assert scale_at(Scale(), 0) == scale_at(Scale(), T0) == 1000


# ------------------------------------------------------------------------------------------------------------ settings


WHOLE = "use a whole number ≥ 1, or None for no limit"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        *[({name: value, **({"rpm": 5} if name == "burst" else {})}, f"RateLimits.{name}: got {value!r}; {WHOLE}")
          for name in ("rpm", "tpm", "itpm", "otpm", "rpd", "tpd", "concurrency", "burst") for value in (0, -5, 1.5, True, "10")],
        ({"usd_per_day": 0}, "RateLimits.usd_per_day: got 0; use US dollars > 0, or None for no limit"),
        ({"usd_per_day": 1e-7}, "RateLimits.usd_per_day: got 1e-07; use US dollars > 0, or None for no limit"),
        ({"usd_per_day": "5$"}, "RateLimits.usd_per_day: got '5$'; use US dollars > 0, or None for no limit"),
        ({"max_wait": -1}, "RateLimits.max_wait: got -1; use a number of seconds ≥ 0"),
        ({"max_wait": None}, "RateLimits.max_wait: got None; use a number of seconds ≥ 0"),
        ({"burst": 5}, "RateLimits.burst: got 5; set rpm as well: burst is counted in requests"),
        ({"burst": 5, "rpd": 9}, "RateLimits.burst: got 5; set rpm as well: burst is counted in requests"),
        ({"on_limit": "waits"}, "RateLimits.on_limit: got 'waits'; did you mean 'wait'?"),
        ({"on_limit": 3}, "RateLimits.on_limit: got 3; one of: next, reject, wait"),
        ({"on_limit": ["wait"]}, "RateLimits.on_limit: got ['wait']; did you mean 'wait'?"),
    ],
)  # fmt: skip
def test_bad_settings(settings, message):
    """A limit that makes no sense is refused when made: the field, what was given, the fix."""
    with pytest.raises(SettingsError) as raised:
        RateLimits(**settings)
    assert str(raised.value) == message


def test_settings_at_their_bounds():
    """The least that a field's doc allows is allowed, and works: a millionth of a dollar a day is one micro-dollar."""
    RateLimits(rpm=1, tpm=1, itpm=1, otpm=1, rpd=1, tpd=1, concurrency=1, burst=1, max_wait=0, on_limit="reject")
    assert only(usd_per_day=1e-6).limit == 1
    assert RateLimits().on_limit == "next"
    assert RateLimits().max_wait == 10.0


def test_a_dimension_made_by_hand_has_its_room():
    """`room` is only a shortcut: `capacity` says the same for the whole burst."""
    assert (RPM.room, TPM.room) == (5 * S, 10 * S)
    assert capacity(Dimension("rpm", "requests", 60, MINUTE, 5)) == 5 * S


@pytest.mark.parametrize(
    ("most", "lane", "share", "found"),
    [(10, "interactive", 1000, 10), (10, "batch", 1000, 6), (5, "replay", 1000, 2), (1, "replay", 1000, 1), (5, "replay", 800, 2)],
)  # fmt: skip
def test_places_of_a_lane(most, lane, share, found):
    """Its part of those that this process may use, rounded down once, and at least one."""
    assert places(most, lane, share) == found
