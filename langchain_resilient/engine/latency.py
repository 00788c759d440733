"""How long a provider takes: decayed histograms, what is typical now, slowness with hysteresis, and silence as a signal.

Rules of this file: no clock is read, every step takes `now` in seconds of the store's time; only answers are samples, as a failure must
never count as a fast answer; a caller that was cancelled says nothing.

Theory
------
*Prediction.* A histogram of the last minute turns too late to route by, so a `Trend` keeps the last answers' geometric mean (the median,
where times are lognormal) and the crowd in which it was measured: how many were in flight, on average, while those calls ran. Providers batch,
so beyond what was measured time grows in proportion to the crowd (processor sharing). That crowd is the concurrency nobody configures: it
rises only as far as answers prove it, so a new or recovered provider starts slowly, and one that stops answering fills up and is
left within seconds, long before its first slow answer. This is what keeps a shared favourite from being everybody's (herding).

*Slowness.* A provider is slow when half of its last answers took longer than `max_latency`; those that have waited longer already count
as such answers, or the slower a provider is, the fewer samples would say so. It is also slow when its last dozen answers all took longer: one that
turns slow all at once would else be outvoted, for half a minute of everybody's time, by the fast answers of before. It stays slow until the p50 *since then* is back at 0.8 of it:
judged on calls begun since, or the backlog would keep it out for as long as it had been in.

*Silence.* A call that hangs is no sample until its limit fires, so quantiles learn of a black hole one timeout too late. Its age is a
lower bound of its latency: where three calls, and a fifth of those in flight, are older than twice the p95, and none that began after
them was answered, the provider is *hot*, and is asked last until it answers. Answers to calls that began before them prove nothing: what was
on its way when a route broke may still arrive.
"""

from __future__ import annotations

import math
from collections import deque
from itertools import islice

from langchain_resilient.engine.histogram import ENOUGH_SAMPLES, RECENT, LogHistogram, Summary, Trend

RETURN_AT = 0.8
MOMENT = 0.001
"""Seconds that clocks may differ by in the last digits."""
RETURN_SAMPLES = 3
JUDGED = 60
"""The last answers by which a provider is found slow."""
IN_A_ROW = 12
"""Slow answers in a row that outvote all before them: of one with four slow answers in ten, one run in 60 000 is so long."""
HOT_CALLS = 3
HOT_SHARE = 5
"""One in so many."""
HOT_FLOOR = 0.5
HOT_FACTOR = 2.0
LOST = 30.0
"""Seconds after its own limit at which a silent call is no sign any more."""
FORGOTTEN = 3600.0
"""Seconds after which a call that never reported is taken for lost."""
UNSEEN_OUTPUT = 1024
OUTPUT_SHARE = 0.75
"""The quantile of the answers' lengths that a prediction goes by: long answers are where the seconds are."""
LATE_CALLS = 6
LATE_FACTOR = 1.5
STALE = 30.0
"""Seconds without an answer after which a trend says nothing any more, so that one request looks."""


class Slowness:
    """Whether the p50 exceeds a `max_latency`, with hysteresis."""

    __slots__ = ("_answers", "_judged", "_since", "_slow_at", "slow")

    def __init__(self) -> None:
        self.slow = False
        self._answers = 0
        self._judged: deque[tuple[float, bool]] = deque(maxlen=JUDGED)
        self._since = LogHistogram()
        self._slow_at = 0.0

    def sample(self, seconds: float, now: float, *, seen: Timings, max_latency: float) -> None:
        """Take one answer's latency; `seen` knows who waits beside it."""
        if self.slow:
            self._look(seconds, now, max_latency)
            return
        self._judged.append((now, seconds > max_latency))
        if seconds <= max_latency:
            return  # a fast answer makes nobody slow
        waiting = seen.silence.older(now, max_latency)
        recent = [over for when, over in self._judged if when > now - RECENT]
        if len(recent) + waiting < ENOUGH_SAMPLES:
            return
        if 2 * (sum(recent) + waiting) > len(recent) + waiting or all(recent[-IN_A_ROW:]):
            self.slow = True
            self._slow_at = now
            self._answers = 0
            self._since = LogHistogram()

    def _look(self, seconds: float, now: float, max_latency: float) -> None:
        """Take an answer of a slow provider: however long ago the one before it, as it may get no more than one request in 30 s."""
        if now - seconds < self._slow_at - MOMENT:
            return  # begun before it was found slow: that is known already
        self._since.add(seconds, now)
        self._answers += 1
        if seconds <= RETURN_AT * max_latency and self._answers >= RETURN_SAMPLES:
            self.slow = (self._since.quantile(0.5) or 0.0) > RETURN_AT * max_latency
            self._judged.clear()


class Timings:
    """One kind of answer's latencies at one provider: to first token for streams, in total for unstreamed answers."""

    __slots__ = ("silence", "slowness", "summary", "trend")

    def __init__(self) -> None:
        self.summary = Summary(LogHistogram())
        self.trend = Trend()
        self.slowness = Slowness()
        self.silence = Silence()

    @property
    def histogram(self) -> LogHistogram:
        """The samples."""
        return self.summary.histogram

    def add(self, seconds: float, now: float, max_latency: float | None) -> None:
        """Count one answer."""
        self.summary.add(seconds, now)
        if self.trend.wanted:
            self.trend.add(seconds, self.silence.crowd, now)
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
    """The calls of one kind in flight: those that have not answered yet, whether their silence is suspicious, and how many there are.

    Args:
        speaks: Whether an answer is only the beginning, as a stream's first content is: then a call is in flight until its second end.
    """

    __slots__ = ("_area", "_began", "_heard_from", "_seen", "_speaking", "_started", "crowd", "speaks")

    def __init__(self, *, speaks: bool = False) -> None:
        self.speaks = speaks
        self.crowd = 1.0
        """How many were in flight, on average, while the call ran (or the stream spoke) that ended last."""
        self._started: dict[int, float] = {}
        self._speaking: dict[int, float] = {}
        self._began: dict[int, float] = {}
        """Per call in flight, `_area` when it began or first spoke."""
        self._area = 0.0
        """Seconds spent in flight by all calls so far: its growth over a time, by that time, is the crowd."""
        self._seen = 0.0
        self._heard_from = -math.inf
        """When the call began that has begun last of those that were answered."""

    def __len__(self) -> int:
        """Calls without an answer so far."""
        return len(self._started)

    @property
    def in_flight(self) -> int:
        """Calls that have not ended: silent, or speaking."""
        return len(self._started) + len(self._speaking)

    @property
    def oldest(self) -> float:
        """When the longest silent call began."""
        return next(iter(self._started.values()), math.inf)

    def begin(self, attempt: int, now: float) -> None:
        """A call was sent."""
        area = self._count(now)
        if self._started:
            self._forget(self._started, now)
        if self._speaking:
            self._forget(self._speaking, now)
        self._started[attempt] = now
        self._began[attempt] = area

    def _forget(self, calls: dict[int, float], now: float) -> None:
        attempt, began = next(iter(calls.items()))
        if now - began > FORGOTTEN:
            del calls[attempt], self._began[attempt]

    def end(self, attempt: int, now: float, *, answered: bool, over: bool = False) -> None:
        """It spoke (`answered`), or is gone without an answer. `over`: nothing more will come, even of one that speaks."""
        area = self._count(now)
        began = self._started.pop(attempt, None)
        if answered and began is not None:
            self._heard_from = max(self._heard_from, began)
        speaks = began is not None and answered and self.speaks and not over
        if began is None:
            began = self._speaking.pop(attempt, None)
        before = self._began.pop(attempt, area)
        if began is not None and now > began:
            self.crowd = (area - before) / (now - began)
        if speaks:
            self._speaking[attempt] = now
            self._began[attempt] = area

    def _count(self, now: float) -> float:
        area = self._area = self._area + (now - self._seen) * (len(self._started) + len(self._speaking))
        self._seen = now
        return area

    def older(self, now: float, seconds: float) -> int:
        """How many silent calls are older than so many seconds."""
        count = 0
        for began in self._started.values():
            if now - began <= seconds:
                break
            count += 1
        return count

    def usual_wait(self, now: float) -> float:
        """What the silent calls' ages say of the seconds to an answer: twice their median, as each is met halfway on average; 0 if few."""
        count = len(self._started)
        if count < LATE_CALLS:
            return 0.0
        return 2.0 * (now - next(islice(self._started.values(), count // 2, None)))

    def hot(self, now: float, suspicious_after: float, lost_after: float = math.inf) -> bool:
        """Whether enough calls are older than `suspicious_after` seconds, all of them begun since the youngest that was answered.

        Older calls don't count, neither for nor against: one that takes minutes for good reasons must not hide a black hole that began
        after it. Nor do those older than `lost_after`: their limit is long over, so whoever made them is gone without a word.
        """
        if len(self._started) < HOT_CALLS or self._heard_from >= now - suspicious_after:
            return False
        enough = max(HOT_CALLS, math.ceil(len(self._started) / HOT_SHARE))
        suspects = 0
        for began in reversed(self._started.values()):
            if began <= self._heard_from or now - began > lost_after:
                break
            suspects += now - began > suspicious_after
            if suspects >= enough:
                return True
        return False


class Paces(Summary):
    """Seconds a token, of the streams that ended."""

    __slots__ = ("_streams", "trend")

    def __init__(self, streams: Timings) -> None:
        super().__init__(LogHistogram(lowest=0.00001))
        self._streams = streams
        self.trend = Trend()

    def add(self, value: float, now: float) -> None:
        """Count one sample."""
        super().add(value, now)
        if self.trend.wanted:
            self.trend.add(value, self._streams.silence.crowd, now)


class RouteLatency:
    """All that is known of one provider's speed.

    Args:
        predicts: Whether trends are kept from the beginning; else `predict` begins them.
    """

    __slots__ = ("calls", "inter_token", "output", "streams")

    def __init__(self, *, predicts: bool = True) -> None:
        self.calls = Timings()
        self.streams = Timings()
        self.streams.silence.speaks = True
        self.inter_token = Paces(self.streams)
        self.output = Summary(LogHistogram(lowest=1.0, highest=10_000_000.0))
        self._follow(predicts=predicts)

    def predict(self) -> None:
        """Keep trends from now on: somebody routes by them."""
        self._follow(predicts=True)

    def _follow(self, *, predicts: bool) -> None:
        for trend in (self.calls.trend, self.streams.trend, self.inter_token.trend):
            trend.wanted = predicts

    @property
    def silent_calls(self) -> Silence:
        """The unstreamed calls in flight."""
        return self.calls.silence

    @silent_calls.setter
    def silent_calls(self, fresh: Silence) -> None:
        self.calls.silence = fresh

    @property
    def silent_streams(self) -> Silence:
        """The streams in flight."""
        return self.streams.silence

    @silent_streams.setter
    def silent_streams(self, fresh: Silence) -> None:
        fresh.speaks = True
        self.streams.silence = fresh

    def timings(self, *, stream: bool) -> Timings:
        """The timings of streams (to first token) or of unstreamed answers (in total)."""
        return self.streams if stream else self.calls

    def silence(self, *, stream: bool) -> Silence:
        """The streams, or the unstreamed calls, that have not answered yet."""
        return self.silent_streams if stream else self.silent_calls

    @property
    def in_flight(self) -> int:
        """Calls without an answer so far, and streams that have not ended."""
        return self.calls.silence.in_flight + self.streams.silence.in_flight

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
        """Seconds to a whole answer if one more were asked for now: first token + n̂ · inter-token time, in the present crowd.

        n̂ is the answers' p75, or `max_output` if less. None before anything is known, and again after 30 s without an answer: then one
        request looks, and until it has answered, or forever if it does not, what was known before counts.
        """
        calls, streams = self.calls, self.streams
        waiting = len(calls.silence) + len(streams.silence)
        if not waiting and now - max(calls.trend.heard, streams.trend.heard) > STALE:
            return None
        crowd = self.in_flight + 1
        first, pace = streams.trend.at(crowd), self.inter_token.trend.at(crowd)
        if first is None or pace is None:
            return self.timings(stream=stream).trend.at(crowd) or first
        typical = self.output.quantile(OUTPUT_SHARE, now) or UNSEEN_OUTPUT
        late = streams.silence.usual_wait(now) / first
        # A first token that is late is a sign that the rest will be as well; the ages of a few vary by themselves.
        return (first + pace * min(typical, max_output or typical)) * (late if late > LATE_FACTOR else 1.0)
