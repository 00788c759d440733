"""How long a provider takes: decayed histograms, slowness with hysteresis, and silence as a signal.

Rules of this file: no clock is read, every step takes `now` in seconds of the store's time; only answers are samples, as a failure must
never count as a fast answer; a caller that was cancelled says nothing.

Theory
------
*Histogram.* Buckets grow by 2 %, so a quantile is right within 1 %, memory is bounded, and histograms add up across processes. Decay is
forward decay (Cormode et al., ICDE 2009): a sample weighs `2^(t / half-life)` when it is added, and nothing is touched later.

*Slowness.* A provider whose p50 exceeds `max_latency` is slow until its p50 *since then* is back at 0.8 of it: judged on new samples
only, or the backlog of old ones would keep it out for as long as it had been in.

*Silence.* A call that hangs is no sample until its limit fires, so quantiles learn of a black hole one timeout too late. Its age is a
lower bound of its latency: where three calls, and a fifth of those in flight, are older than three times the p95 with no answer since
the first of them began, the provider is *hot*, and is asked last until it answers.
"""

from __future__ import annotations

import math
from collections import deque

GROWTH = 1.02
HALF_LIFE = 60.0
RECENT = 60.0
ENOUGH_SAMPLES = 20
RETURN_AT = 0.8
RETURN_SAMPLES = 3
HOT_CALLS = 3
HOT_SHARE = 5
"""One in so many."""
HOT_FLOOR = 0.5
HOT_FACTOR = 3.0
LOST = 30.0
"""Seconds after its own limit at which a silent call is no sign any more."""
FORGOTTEN = 3600.0
"""Seconds after which a call that never reported is taken for lost."""
UNSEEN_OUTPUT = 1024
SUMMARY_AGE = 0.25

_LOG_GROWTH = math.log(GROWTH)
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

    def add(self, value: float, now: float) -> None:
        """Count one sample."""
        if not self._weights:
            self._origin = now
        age = (now - self._origin) / self._half_life
        if age > _RENORMALISE_AT:
            self._renormalise(now)
            age = 0.0
        weight = 2.0**age
        bucket = int(math.log(min(max(value, self._lowest), self._highest) / self._lowest) / _LOG_GROWTH)
        self._weights[bucket] = self._weights.get(bucket, 0.0) + weight
        self._total += weight
        current = int(now * _SLICES / RECENT)
        if self._recent and self._recent[-1][0] >= current:
            self._recent[-1][1] += 1
        else:
            self._recent.append([current, 1])

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


class Summary:
    """A histogram's quantiles, walked anew at most every `SUMMARY_AGE` seconds.

    Walking the buckets costs more than a whole decision, and a quarter of a second is far below what moves a 60 s half-life. The first
    `ENOUGH_SAMPLES` are seen at once, as each of them counts for much.

    Args:
        histogram: Where the samples go.
    """

    __slots__ = ("_known", "_until", "answers", "histogram")

    def __init__(self, histogram: LogHistogram) -> None:
        self.histogram = histogram
        self.answers = 0
        self._known: dict[float, float | None] = {}
        self._until = -math.inf

    def add(self, value: float, now: float) -> None:
        """Count one sample."""
        self.histogram.add(value, now)
        self.answers += 1
        if self.answers <= ENOUGH_SAMPLES:
            self._until = -math.inf

    def quantile(self, share: float, now: float) -> float | None:
        """As `LogHistogram.quantile`, at most `SUMMARY_AGE` old."""
        if now >= self._until:
            self._known.clear()
            self._until = now + SUMMARY_AGE
        if share not in self._known:
            self._known[share] = self.histogram.quantile(share)
        return self._known[share]


class Slowness:
    """Whether the p50 exceeds a `max_latency`, with hysteresis."""

    __slots__ = ("_answers", "_since", "slow")

    def __init__(self) -> None:
        self.slow = False
        self._answers = 0
        self._since = LogHistogram()

    def sample(self, seconds: float, now: float, *, seen: Timings, max_latency: float) -> None:
        """Take one answer's latency, which `seen` has counted already."""
        if self.slow:
            self._since.add(seconds, now)
            # However long ago: a slow provider may get no more than the one request in 30 s that explores it.
            self._answers += 1
            if seconds <= RETURN_AT * max_latency and self._answers >= RETURN_SAMPLES:
                self.slow = (self._since.quantile(0.5) or 0.0) > RETURN_AT * max_latency
            return
        if seconds <= max_latency:
            return  # a fast answer makes nobody slow, though a backlog from before its return may still say so
        p50 = seen.p50(now)
        if p50 is not None and p50 > max_latency and seen.histogram.recent(now) >= ENOUGH_SAMPLES:
            self.slow = True
            self._answers = 0
            self._since = LogHistogram()


class Timings:
    """One kind of answer's latencies at one provider: to first token for streams, in total for unstreamed answers."""

    __slots__ = ("slowness", "summary")

    def __init__(self) -> None:
        self.summary = Summary(LogHistogram())
        self.slowness = Slowness()

    @property
    def histogram(self) -> LogHistogram:
        """The samples."""
        return self.summary.histogram

    def add(self, seconds: float, now: float, max_latency: float | None) -> None:
        """Count one answer."""
        self.summary.add(seconds, now)
        if max_latency is not None:
            self.slowness.sample(seconds, now, seen=self, max_latency=max_latency)

    def p50(self, now: float) -> float | None:
        """Seconds; at most `SUMMARY_AGE` old."""
        return self.summary.quantile(0.5, now)

    def suspicious_after(self, now: float, limit: float) -> float:
        """The age in seconds at which a silent call of this kind becomes suspicious; `limit` is its own time limit."""
        if self.summary.answers < ENOUGH_SAMPLES:
            return limit / 2
        return max(HOT_FLOOR, HOT_FACTOR * (self.summary.quantile(0.95, now) or 0.0))


class Silence:
    """The calls of one kind in flight that have not answered yet, and whether their silence is suspicious."""

    __slots__ = ("_answered_at", "_started")

    def __init__(self) -> None:
        self._started: dict[int, float] = {}
        self._answered_at = -math.inf

    def __len__(self) -> int:
        """Calls without an answer so far."""
        return len(self._started)

    @property
    def oldest(self) -> float:
        """When the longest silent call began."""
        return next(iter(self._started.values()), math.inf)

    def begin(self, attempt: int, now: float) -> None:
        """A call was sent."""
        if self._started and now - self.oldest > FORGOTTEN:
            self._started.pop(next(iter(self._started)))
        self._started[attempt] = now

    def end(self, attempt: int, now: float, *, answered: bool) -> None:
        """It spoke (`answered`), or is gone without an answer."""
        self._started.pop(attempt, None)
        if answered:
            self._answered_at = now

    def hot(self, now: float, suspicious_after: float, lost_after: float = math.inf) -> bool:
        """Whether enough calls are older than `suspicious_after` seconds, all of them begun since the last answer.

        Older calls don't count, neither for nor against: one that takes minutes for good reasons must not hide a black hole that began
        after it. Nor do those older than `lost_after`: their limit is long over, so whoever made them is gone without a word.
        """
        if len(self._started) < HOT_CALLS or self._answered_at >= now - suspicious_after:
            return False
        enough = max(HOT_CALLS, math.ceil(len(self._started) / HOT_SHARE))
        suspects = 0
        for began in reversed(self._started.values()):
            if began <= self._answered_at or now - began > lost_after:
                break
            suspects += now - began > suspicious_after
            if suspects >= enough:
                return True
        return False


class RouteLatency:
    """All that is known of one provider's speed."""

    __slots__ = ("calls", "inter_token", "output", "silent_calls", "silent_streams", "streams")

    def __init__(self) -> None:
        self.calls = Timings()
        self.streams = Timings()
        self.inter_token = Summary(LogHistogram(lowest=0.00001))
        self.output = Summary(LogHistogram(lowest=1.0, highest=10_000_000.0))
        self.silent_calls = Silence()
        self.silent_streams = Silence()

    def timings(self, *, stream: bool) -> Timings:
        """The timings of streams (to first token) or of unstreamed answers (in total)."""
        return self.streams if stream else self.calls

    def silence(self, *, stream: bool) -> Silence:
        """The streams, or the unstreamed calls, that have not answered yet."""
        return self.silent_streams if stream else self.silent_calls

    @property
    def in_flight(self) -> int:
        """Calls and streams without an answer so far."""
        return len(self.silent_calls) + len(self.silent_streams)

    def hot(self, now: float, *, call_limit: float, first_token_limit: float) -> bool:
        """Whether the provider is suspiciously silent; the limits are those of its calls and streams, in seconds."""
        return (
            len(self.silent_calls) >= HOT_CALLS
            and self.silent_calls.hot(now, self.calls.suspicious_after(now, call_limit), call_limit + LOST)
        ) or (
            len(self.silent_streams) >= HOT_CALLS
            and self.silent_streams.hot(
                now, self.streams.suspicious_after(now, first_token_limit), first_token_limit + LOST
            )
        )

    def expected_output(self, now: float) -> int:
        """Output tokens that nine of ten answers stay below; 1024 before any is known."""
        p90 = self.output.quantile(0.9, now)
        return UNSEEN_OUTPUT if p90 is None else math.ceil(p90)

    def predicted(self, now: float, *, stream: bool, max_output: int | None) -> float | None:
        """Seconds to a whole answer: first token + n̂ · inter-token time; None before anything is known."""
        first = self.streams.p50(now)
        per_token = self.inter_token.quantile(0.5, now)
        if first is not None and per_token is not None:
            typical = self.output.quantile(0.5, now) or UNSEEN_OUTPUT
            return first + per_token * min(typical, max_output or typical)
        return self.timings(stream=stream).p50(now) or first
