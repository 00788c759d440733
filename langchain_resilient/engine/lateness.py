"""Late: streams that have said nothing for longer than most do, and providers that are outrun again and again.

Rules of this file: no clock is read, every step takes `now` in seconds of the store's time; it judges one provider by the timings of its
streams, and takes note of those that were *outrun*: cancelled as another one, asked later, had spoken first.

Theory
------
One late stream is one of the slowest few, and a hedge helps it. Where many are late at once, lateness is the provider's: none of them is worth
waiting for. How many of those in flight are late at any time depends on the tail: by the inspection paradox it is the share of all time that is
spent beyond it, a few per cent for most providers and a quarter where tails are heavy; so many is no sign.

A stream that was outrun is a sample of at least the time it was silent for. Without these samples a provider that is often late would look
fast, as only its fast answers would be known.
"""

from __future__ import annotations

from langchain_resilient.engine.histogram import ENOUGH_SAMPLES
from langchain_resilient.engine.latency import HOT_CALLS, LOST, Timings

TAIL = 0.95
MANY_SHARE = 1 / 3
"""Of those in flight."""
MANY_TIMES = 2.0
"""Times the usual share."""
OUTRUN = 3
"""Streams in a row that were outrun among many late ones: then the provider is asked last."""


class Lateness:
    """How late one provider's streams are.

    Args:
        streams: Their timings.
    """

    __slots__ = ("_outruns", "_streams")

    def __init__(self, streams: Timings) -> None:
        self._streams = streams
        self._outruns = 0

    @property
    def outrun(self) -> bool:
        """Whether it is outrun again and again."""
        return self._outruns >= OUTRUN

    def tail(self, quantile: float, now: float) -> float | None:
        """Seconds to first token that so many streams stay below; None without enough fresh samples."""
        enough = self._streams.histogram.recent(now) >= ENOUGH_SAMPLES
        return self._streams.summary.quantile(quantile, now) if enough else None

    def many(self, now: float) -> bool:
        """Whether far more of the streams in flight are late than usual."""
        tail, silence = self.tail(TAIL, now), self._streams.silence
        if tail is None or (late := silence.older(now, tail)) < HOT_CALLS:
            return False
        return late >= len(silence) * max(MANY_SHARE, MANY_TIMES * self._streams.summary.in_tail(TAIL, now))

    def cancelled(self, silent: float, now: float, *, max_latency: float | None, limit: float) -> bool:
        """A stream was outrun; returns whether the provider had fallen silent: many late, and none that began after them was answered.

        Args:
            silent: Seconds it had said nothing for.
            now: The store's time.
            max_latency: The provider's, if it has one.
            limit: Seconds that its streams may say nothing for.
        """
        tail = self.tail(TAIL, now)
        fell_silent = tail is not None and self._streams.silence.hot(now, tail, limit + LOST)
        self._outruns += self.many(now)
        # Whether it would have exceeded a `max_latency` that it has not yet, nobody knows.
        exceeds = max_latency is not None and silent > max_latency
        self._streams.add(silent, now, max_latency if exceeds else None)
        return fell_silent

    def spoke(self, first_token: float, now: float) -> None:
        """A stream's first content came: in time, and the provider is not outrun any more."""
        if self._outruns and ((tail := self.tail(TAIL, now)) is None or first_token <= tail):
            self._outruns = 0

    def answered_whole(self, now: float) -> None:
        """An unstreamed answer came: that is enough where nobody streams any more, who could outrun it."""
        if self._outruns and self.tail(TAIL, now) is None:
            self._outruns = 0
