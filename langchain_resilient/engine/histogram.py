"""What samples amount to: histograms that forget, quantiles of them, and trends.

Rules of this file: no clock is read, every step takes `now` in seconds of the store's time; what a sample means is its user's business.

Theory
------
*Histogram.* Buckets grow by 2 %, so a quantile is right within 1 %, memory is bounded, and histograms add up across processes. Decay is
forward decay (Cormode et al., ICDE 2009): a sample weighs `2^(t / half-life)` when it is added, and nothing is touched later.

*Trend.* A histogram of the last minute turns too late to route by; a trend keeps the last samples' geometric mean (the median, where they are
lognormal) and the crowd in which they were taken. Beyond that crowd time grows in proportion (providers batch: processor sharing).
"""

from __future__ import annotations

import math
from collections import deque

GROWTH = 1.02
HALF_LIFE = 60.0
RECENT = 60.0
ENOUGH_SAMPLES = 20
TREND_HALF_LIFE = 15.0
TREND_SAMPLES = 50
"""A trend turns within so many samples, or two half-lives, whichever is sooner."""
TREND_MOST = 0.75
"""What a single sample after a long pause may count for, against all that was known before."""
LESS_CROWDED = 0.5
"""The power by which a smaller crowd than the measured one shortens times: how much of them was the crowd's doing is not known, so half (in
logarithms)."""
SUMMARY_AGE = 0.25

_LOG_GROWTH = math.log(GROWTH)
_BRIEFLY = -TREND_HALF_LIFE * math.log2(1.0 - 1.0 / TREND_SAMPLES)
_RENORMALISE_AT = 64.0
_SLICES = 6


class LogHistogram:
    """A histogram with logarithmic buckets and exponential decay.

    Args:
        lowest: The smallest value told apart; smaller ones count as it (0.001: one millisecond).
        highest: The largest (3600: one hour).
        half_life: Seconds after which a sample weighs half.
    """

    __slots__ = ("_half_life", "_highest", "_lowest", "_origin", "_recent", "_total", "_weights")

    def __init__(self, *, lowest: float = 0.001, highest: float = 3600.0, half_life: float = HALF_LIFE) -> None:
        self._lowest = lowest
        self._highest = highest
        self._half_life = half_life
        self._weights: dict[int, float] = {}
        self._total = 0.0
        self._origin = 0.0
        self._recent: deque[list[int]] = deque(maxlen=_SLICES)

    @staticmethod
    def bucket_of(value: float, lowest: float = 0.001, highest: float = 3600.0) -> int:
        """Which bucket a value falls into."""
        return int(math.log(min(max(value, lowest), highest) / lowest) / _LOG_GROWTH)

    def add(self, value: float, now: float) -> None:
        """Count one sample."""
        self.count(self.bucket_of(value, self._lowest, self._highest), 1, now)

    def count(self, bucket: int, samples: int, now: float) -> None:
        """Count samples of one bucket."""
        if not self._weights:
            self._origin = now
        age = (now - self._origin) / self._half_life
        if age > _RENORMALISE_AT:
            self._renormalise(now)
            age = 0.0
        weight = samples * 2.0**age
        self._weights[bucket] = self._weights.get(bucket, 0.0) + weight
        self._total += weight
        current = int(now * _SLICES / RECENT)
        if self._recent and self._recent[-1][0] >= current:
            self._recent[-1][1] += samples
        else:
            self._recent.append([current, samples])

    def _renormalise(self, now: float) -> None:
        factor = 2.0 ** ((self._origin - now) / self._half_life)
        self._weights = {bucket: weight * factor for bucket, weight in self._weights.items() if weight * factor > 1e-9}
        self._total = sum(self._weights.values())
        self._origin = now

    def quantile(self, share: float) -> float | None:
        """The value below which `share` (0 … 1) of the decayed weight lies, within 1 %; None without samples."""
        if not self._weights:
            return None
        goal = share * self._total
        seen = 0.0
        bucket = 0
        for bucket in sorted(self._weights):
            seen += self._weights[bucket]
            if seen >= goal:
                break
        return float(self._lowest * GROWTH ** (bucket + 0.5))

    def beyond(self, value: float) -> float:
        """The share of all time spent that was spent beyond `value`: of those under way at any moment, how many are older; 0 without samples.

        E[(X − v)⁺] / E[X], by the inspection paradox: who looks at a random moment meets the long ones more often.
        """
        spent = over = 0.0
        for bucket, weight in self._weights.items():
            seconds = self._lowest * GROWTH ** (bucket + 0.5)
            spent += weight * seconds
            over += weight * max(0.0, seconds - value)
        return over / spent if spent else 0.0

    def recent(self, now: float) -> int:
        """How many samples came in the last `RECENT` seconds (to a sixth of that)."""
        oldest = int(now * _SLICES / RECENT) - _SLICES
        return sum(count for slice_, count in self._recent if slice_ > oldest)

    def merge(self, other: LogHistogram) -> None:
        """Add another histogram's samples to this one's."""
        if not other._weights:
            return
        if not self._weights:
            self._origin = other._origin
        elif other._origin > self._origin:
            self._renormalise(other._origin)  # or the factor overflows after 17 hours
        factor = 2.0 ** ((other._origin - self._origin) / self._half_life)
        for bucket, weight in other._weights.items():
            self._weights[bucket] = self._weights.get(bucket, 0.0) + weight * factor
        self._total = sum(self._weights.values())
        slices: dict[int, int] = {}
        for slice_, count in (*self._recent, *other._recent):
            slices[slice_] = slices.get(slice_, 0) + count
        self._recent = deque(([slice_, slices[slice_]] for slice_ in sorted(slices)), maxlen=_SLICES)


class Trend:
    """What is typical now, and in which crowd: both over the last `TREND_SAMPLES` answers or 2 · `TREND_HALF_LIFE`, whichever is sooner.

    A moving average of logarithms: as robust as a median, no buckets, and it turns within seconds where traffic is dense.
    """

    __slots__ = ("_count", "_crowd", "_log", "heard", "wanted")

    def __init__(self) -> None:
        self.wanted = True
        """Whether anybody goes by it: it costs as much as all else that is done with an answer's time."""
        self._log = 0.0
        self._crowd = 1.0
        self._count = 0
        self.heard = -math.inf
        """When the last sample came."""

    def add(self, value: float, crowd: float, now: float) -> None:
        """Take one answer's time, and how many were in flight meanwhile, itself included (≥ 1)."""
        if self._count < TREND_SAMPLES:
            self._count += 1
        gain = 1.0 / self._count
        if (
            now - self.heard > _BRIEFLY
        ):  # or the power below is less than 1 / TREND_SAMPLES, and costs as much as all the rest
            gain = max(gain, min(TREND_MOST, 1.0 - 2.0 ** ((self.heard - now) / TREND_HALF_LIFE)))
        self._log += gain * (math.log(max(value, 1e-6)) - self._log)
        self._crowd += gain * (max(crowd, 1.0) - self._crowd)
        self.heard = now

    def at(self, crowd: float) -> float | None:
        """The time to expect where so many are in flight, the new one included; None before anything is known."""
        if not self._count:
            return None
        ratio = crowd / self._crowd
        return math.exp(self._log) * (ratio if ratio > 1.0 else ratio**LESS_CROWDED)


class Summary:
    """A histogram's quantiles, walked anew at most every `SUMMARY_AGE` seconds.

    Walking the buckets costs more than a whole decision, and a quarter of a second is far below what moves a 60 s half-life. The first
    `ENOUGH_SAMPLES` are seen at once, as each of them counts for much.

    Args:
        histogram: Where the samples go.
    """

    __slots__ = ("_in_tail", "_known", "_until", "answers", "histogram")

    def __init__(self, histogram: LogHistogram) -> None:
        self.histogram = histogram
        self.answers = 0
        self._known: dict[float, float | None] = {}
        self._in_tail: dict[float, float] = {}
        self._until = -math.inf

    def add(self, value: float, now: float) -> None:
        """Count one sample."""
        self.histogram.add(value, now)
        self.answers += 1
        if self.answers <= ENOUGH_SAMPLES:
            self._until = -math.inf

    def count(self, bucket: int, samples: int, now: float) -> None:
        """Count samples of one bucket, from elsewhere."""
        self.histogram.count(bucket, samples, now)
        self.answers += samples

    def quantile(self, share: float, now: float) -> float | None:
        """As `LogHistogram.quantile`, at most `SUMMARY_AGE` old."""
        known = self._fresh(now)
        if share not in known:
            known[share] = self.histogram.quantile(share)
        return known[share]

    def in_tail(self, share: float, now: float) -> float:
        """How many of those under way at any moment are older than that quantile (0 … 1), at most `SUMMARY_AGE` old."""
        value = self.quantile(share, now)
        if share not in self._in_tail:
            self._in_tail[share] = 0.0 if value is None else self.histogram.beyond(value)
        return self._in_tail[share]

    def _fresh(self, now: float) -> dict[float, float | None]:
        if now >= self._until:
            self._known.clear()
            self._in_tail.clear()
            self._until = now + SUMMARY_AGE
        return self._known
