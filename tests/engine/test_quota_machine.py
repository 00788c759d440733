"""The limits against an exact model: leaking buckets in fractions, several dimensions, all or nothing.

The model shares no code with `quota`: each bucket holds water, measured in exact microseconds, that leaks as time passes; a
request pours its cost in and must not overflow. The real arithmetic rounds each charge up to a whole microsecond, so its
bucket may be fuller than the model's by one microsecond for each charge since it was last empty, and a burst of n requests is
n rounded intervals, so its rim may be higher by n microseconds: `slack`. Where all intervals are whole (`even`), it is 0 and
both agree to the microsecond. The invariants are I4 and I6 of DESIGN §10, and that a refusal writes nothing.
"""

from __future__ import annotations

from collections import Counter
from fractions import Fraction
from math import floor
from typing import ClassVar, NamedTuple

from hypothesis import event, settings, target
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from langchain_resilient.engine import quota
from langchain_resilient.engine.quota import Cost, RateLimits

S = 1_000_000
MINUTE, DAY = 60 * S, 86_400 * S
SHARES = {"interactive": Fraction(1), "batch": Fraction(6, 10), "replay": Fraction(1, 2)}
EVEN = [
    RateLimits(rpm=60, burst=5, tpm=6000, itpm=3000, otpm=1200),
    RateLimits(rpm=30, tpm=1200, rpd=100, tpd=8640),
    RateLimits(rpm=6, burst=1, usd_per_day=0.0864),
]
ODD = [
    RateLimits(rpm=77, burst=9, tpm=7001, itpm=3333, otpm=997),
    RateLimits(rpm=7, burst=7, tpm=1303, rpd=97, tpd=8641),
    RateLimits(rpm=499, tpm=77, usd_per_day=0.077),
]


class Bucket:
    """One dimension, exactly."""

    def __init__(self, name: str, limit: int, period: int, burst: int, start: int) -> None:
        self.name, self.limit, self.period, self.burst = name, limit, period, burst
        self.water = Fraction(0)
        self.seen = start
        self.charges = 0

    def at(self, now: int) -> Fraction:
        self.water = max(Fraction(0), self.water - (now - self.seen))
        self.seen = now
        if not self.water:
            self.charges = 0
        return self.water

    def volume(self, units: int, scale: Fraction) -> Fraction:
        return Fraction(units * self.period) / (self.limit * scale)

    def rim(self, scale: Fraction, share: Fraction = Fraction(1)) -> Fraction:
        """As wide as the lane's burst at the whole limit, and wide enough for one at the limit in force."""
        return max(self.volume(max(1, floor(self.burst * share)), Fraction(1)), self.volume(1, scale))

    def wait(self, units: int, now: int, scale: Fraction, share: Fraction) -> Fraction:
        volume, rim = self.volume(units, scale), self.rim(scale, share)
        overflow = self.at(now) if volume > rim else self.at(now) + volume - rim
        return max(Fraction(0), overflow)


class Charge(NamedTuple):
    """What a request that was let in is held to."""

    cost: Cost
    taken: tuple[quota.Taken, ...]
    volumes: tuple[Fraction, ...]


class Entry(NamedTuple):
    """A movement of one dimension, for I4."""

    when: int
    admitted: int
    given_back: Fraction


class QuotaMachine(RuleBasedStateMachine):
    """One account with several limits; requests come, are refused, end, and the provider talks back."""

    reached: ClassVar[Counter[str]] = Counter()

    @initialize(even=st.booleans(), which=st.integers(0, 2), start=st.sampled_from([0, 1, 1000 * S]))
    def begin(self, even, which, start):
        self.even = even
        self.dimensions = quota.dimensions((EVEN if even else ODD)[which])
        self.buckets = [Bucket(d.name, d.limit, d.period, d.burst, start) for d in self.dimensions]
        self.tats = [0] * len(self.dimensions)
        self.now = start
        self.scale = quota.Scale()
        self.cuts: list[tuple[int, int]] = []
        self.live: list[Charge] = []
        self.log: list[list[Entry]] = [[] for _ in self.dimensions]
        self.largest = [0] * len(self.dimensions)
        self.seen: Counter[str] = Counter()

    # ------------------------------------------------------------------------------------------------- the naive parts
    def thousandths(self) -> int:
        """The limit in force, from the list of cuts: 80 % of what it was then, and 50 more each minute since."""
        if not self.cuts:
            return 1000
        when, left = self.cuts[-1]
        return min(1000, left + floor(Fraction(50 * (self.now - when), MINUTE)))

    def slack(self, bucket: Bucket) -> int:
        if self.even and not self.cuts:
            return 0
        return (6 if self.cuts else 1) * (bucket.charges + bucket.burst + 2)

    # ------------------------------------------------------------------------------------------------------ what happens
    @rule(step=st.one_of(st.integers(0, 9), st.integers(0, 20 * S), st.sampled_from([S, 10 * S, MINUTE, DAY])))
    def time_passes(self, step):
        """The clock goes forward, or stands still."""
        self.now += step

    @rule(
        calls=st.integers(1, 4),
        tokens=st.tuples(st.integers(0, 400), st.sampled_from([0, 7, 50, 199, 1500])),
        micros=st.integers(0, 20_000),
        lane=st.sampled_from(["interactive", "interactive", "batch", "replay"]),
    )
    def requests(self, calls, tokens, micros, lane):
        """Requests come; each takes from all dimensions or from none."""
        for _ in range(calls):
            self._request(Cost(1, *tokens, micros), lane)

    @rule(size=st.integers(1, 5))
    def a_request_beyond_the_burst(self, size):
        """One larger than some bucket, within the limit a period: admitted when that is full, and leaves debt."""
        tokens = max((d.burst for d in self.dimensions if "tokens" in d.unit), default=1)
        self._request(Cost(1, tokens, tokens * size // 5, 0), "interactive")

    @rule(tokens=st.integers(0, 300), lane=st.sampled_from(["interactive", "batch", "replay"]))
    def a_patient_request(self, tokens, lane):
        """One that waits exactly as long as it is told, and is let in then."""
        cost = Cost(1, tokens, 0, 0)
        wait, _, _ = self._ask(cost, lane)
        if wait:
            self.now += wait
            assert self._request(cost, lane)
            self.seen["waited exactly"] += 1

    def _ask(self, cost, lane):
        scale = quota.scale_at(self.scale, self.now)
        assert scale == self.thousandths()
        share = quota.LANES[lane]
        taken = [
            quota.take(d, tat, cost.of(d.unit), self.now, scale, share)
            for d, tat in zip(self.dimensions, self.tats, strict=True)
        ]
        volumes = []
        for d, tat, bucket, step in zip(self.dimensions, self.tats, self.buckets, taken, strict=True):
            units = cost.of(d.unit)
            exact = bucket.wait(units, self.now, Fraction(scale, 1000), SHARES[lane])
            assert abs(step.wait - exact) <= self.slack(bucket), (d.name, step.wait, float(exact))
            volumes.append(bucket.volume(units, Fraction(scale, 1000)))
            # Rounded up twice under a cut limit, and the first rounding is stretched with the rest.
            assert volumes[-1] <= step.charged < volumes[-1] + 1 + (scale < quota.FULL) * Fraction(1000, scale)
            if step.wait:
                # The stated wait is exact: integers throughout, so not a microsecond of tolerance.
                assert quota.take(d, tat, units, self.now + step.wait, scale, share).wait == 0
                assert quota.take(d, tat, units, self.now + step.wait - 1, scale, share).wait == 1
        return max(step.wait for step in taken), taken, volumes

    def _request(self, cost, lane) -> bool:
        before = list(self.tats)
        wait, taken, volumes = self._ask(cost, lane)
        if wait:
            self.seen["refused"] += 1
            assert self.tats == before, "a refusal writes nothing"
            return False
        self.seen["admitted"] += 1
        for place, (bucket, step, volume) in enumerate(zip(self.buckets, taken, volumes, strict=True)):
            self.tats[place] = step.tat
            bucket.water += volume
            bucket.charges += 1
            units = cost.of(self.dimensions[place].unit)
            if units > bucket.burst:
                self.seen["oversize"] += 1
            self.largest[place] = max(self.largest[place], units)
            self.log[place].append(Entry(self.now, units, Fraction(0)))
            self._check_rate(place)
        self.live.append(Charge(cost, tuple(taken), tuple(volumes)))
        return True

    def _check_rate(self, place):
        """I4: admitted, less what was given back, in any interval that ends now ≤ max(burst, largest) + rate · t."""
        bucket = self.buckets[place]
        rate = Fraction(bucket.limit, bucket.period)
        total = Fraction(0)
        for entry in reversed(self.log[place]):
            total += entry.admitted - entry.given_back
            # A burst of n requests is n intervals, each rounded up: n microseconds' worth of the rate at most.
            most = max(bucket.burst, self.largest[place]) + rate * (self.now - entry.when + bucket.burst)
            assert total <= most, "I4"

    @rule(which=st.integers(0, 9), permille=st.sampled_from([0, 100, 500, 900, 1000, 1000, 1200, 3000]))
    def ends(self, which, permille):
        """A request ends: it used less, as much, or more than estimated; nothing at all if it was never sent."""
        if not self.live:
            return
        charge = self.live.pop(which % len(self.live))
        for place, (d, bucket) in enumerate(zip(self.dimensions, self.buckets, strict=True)):
            estimated = charge.cost.of(d.unit)
            actual = estimated * permille // 1000
            if d.unit == "requests":
                actual = min(actual, 1) if permille else 0
            before, tat = max(self.tats[place], self.now), self.tats[place]
            after = quota.reconcile(tat, quota.moved(d, charge.taken[place].charged, estimated, actual), self.now)
            self.tats[place] = after
            assert before - max(after, self.now) <= charge.taken[place].charged, "I6"
            water = bucket.at(self.now)
            if actual < estimated:
                back = charge.volumes[place] * (estimated - actual) / estimated
                bucket.water = max(Fraction(0), water - back)
                bucket.charges += 1
                self.seen["refunded"] += 1
                # In units at the whole limit: what was charged under a cut one was dearer, and comes back as dear.
                worth = Fraction(charge.taken[place].charged * (estimated - actual) * d.limit, estimated * d.period)
                self.log[place].append(Entry(self.now, 0, worth))
            elif actual > estimated:
                bucket.water = water + bucket.volume(actual - estimated, Fraction(1))
                bucket.charges += 1
                self.seen["charged late"] += 1

    @rule(which=st.integers(0, 9), remaining=st.one_of(st.integers(0, 9), st.integers(0, 5000)))
    def the_provider_says(self, which, remaining):
        """A header tells how much remains: never looser than what is known here."""
        place = which % len(self.dimensions)
        d, bucket = self.dimensions[place], self.buckets[place]
        scale = self.thousandths()
        before = self.tats[place]
        self.tats[place] = quota.tighten(d, before, remaining, self.now, scale)
        assert self.tats[place] >= before
        exact = Fraction(scale, 1000)
        spent = bucket.rim(exact) - bucket.volume(remaining, exact)
        if spent > bucket.at(self.now):
            bucket.water = spent
            bucket.charges += bucket.burst
            self.seen["tightened"] += 1

    @rule(times=st.integers(1, 2))
    def the_provider_throttles(self, times):
        """429s: the limit is cut to 80 % of what is in force, at most once a minute, never below a fifth."""
        for _ in range(times):
            left = self.thousandths()
            if not self.cuts or self.now - self.cuts[-1][0] >= MINUTE:
                before, _, _ = self._ask(Cost(1, 50, 0, 0), "interactive")
                self.cuts.append((self.now, max(200, left * 4 // 5)))
                self.seen["cut"] += 1
                self.scale = quota.cut(self.scale, self.now)
                assert self._ask(Cost(1, 50, 0, 0), "interactive")[0] >= before, "a 429 lets nobody in"
            else:
                self.scale = quota.cut(self.scale, self.now)
            assert self.scale.permille == self.cuts[-1][1]

    # ------------------------------------------------------------------------------------------------- what always holds
    @invariant()
    def agrees_with_the_model(self):
        """The water of each bucket is the exact one, up to the rounding of each charge; never less than it."""
        for tat, bucket in zip(self.tats, self.buckets, strict=True):
            exact, real = bucket.at(self.now), max(0, tat - self.now)
            assert exact <= real + (0 if self.even and not self.cuts else bucket.burst)
            assert real - exact <= self.slack(bucket) + (bucket.charges if self.cuts else 0)

    def teardown(self):
        """Count what was reached."""
        if hasattr(self, "seen"):
            for name in self.seen:
                event(name)
            self.reached.update(self.seen.keys())
            target(float(min(self.seen["refused"], self.seen["admitted"])), label="refused and admitted")


TestQuotaMachine = QuotaMachine.TestCase
TestQuotaMachine.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


def test_the_machine_reaches_every_case():
    """The property would be empty if nothing were ever refused: a fixed run meets every case."""

    class Counted(QuotaMachine):
        reached: ClassVar[Counter[str]] = Counter()

    run_state_machine_as_test(
        Counted,
        settings=settings(max_examples=300, stateful_step_count=40, deadline=None, derandomize=True, database=None),
    )
    cases = ("admitted", "refused", "oversize", "refunded", "charged late", "tightened", "cut", "waited exactly")
    assert {case: Counted.reached[case] for case in cases if not Counted.reached[case]} == {}
