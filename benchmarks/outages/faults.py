"""What goes wrong.

Rules of this file: values only. An outage says how the sick providers behave while it lasts; before and after it all are healthy.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from langchain_resilient.testing.fault_server import Fault

CUT_AFTER = 4
"""Words of a stream that are shown before it breaks."""
RETRY_AFTER = 5.0
"""Seconds that a 429 asks for."""
LIMIT = 2.0
"""Seconds that every contender allows an attempt, wherever it can be told."""


class Timeline(NamedTuple):
    """When the outage is, and how long requests come."""

    lead_in: float = 10.0
    """Seconds of health before it."""
    outage: float = 15.0
    """Seconds that it lasts."""
    afterwards: float = 20.0
    """Seconds of health after it."""

    @property
    def heals_at(self) -> float:
        """Seconds from the beginning."""
        return self.lead_in + self.outage

    @property
    def seconds(self) -> float:
        """How long requests come."""
        return self.heals_at + self.afterwards

    @property
    def recovery(self) -> float:
        """Seconds that a breaker or a cooldown leaves a provider alone: a third of the outage, as a minute is of a short real one."""
        return self.outage / 3


class Condition(NamedTuple):
    """How a sick provider behaves."""

    fault: Fault = Fault.ok()
    slowdown: float = 1.0
    """Factor on the time that its answers take."""
    later: float = 0.0
    """Seconds that its answers begin later."""
    refuses: bool = False
    """Its port accepts no connection."""


class Outage(NamedTuple):
    """One row of the comparison."""

    title: str
    sick: Mapping[int, Condition]
    """By the provider's place in the order of priority, from 0."""
    streamed: bool = False
    """Whether requests are streams."""
    limit: float = LIMIT
    """Seconds that an attempt may take."""
    max_latency: float | None = None
    """Seconds above which ours is told to prefer another provider; None: not told."""


def outages(seed: int) -> dict[str, Outage]:
    """All of them, by the word that `--fault` takes. Made anew for each run: a flaky provider's dice have a state."""
    flaky = Fault.flaky(0.5, Fault.status(503), seed)
    return {
        "503": Outage("503 storm", {0: Condition(Fault.status(503))}),
        "blackhole": Outage("black hole: accepts, never answers", {0: Condition(Fault.hang())}),
        "refused": Outage("connection refused", {0: Condition(refuses=True)}),
        "429": Outage(f"429, Retry-After: {RETRY_AFTER:g}", {0: Condition(Fault.rate_limited("seconds", RETRY_AFTER))}),
        # With a limit of 2 s most answers of a provider that takes 2.4 would be timeouts: that is the black hole's row.
        "brownout": Outage("brownout: 8 × slower", {0: Condition(slowdown=8.0)}, limit=10.0, max_latency=1.0),
        "flaky": Outage("flaky: every other call is a 503", {0: Condition(flaky)}),
        "two": Outage(
            "two down: first 503, second a black hole", {0: Condition(Fault.status(503)), 1: Condition(Fault.hang())}
        ),
        # The connection is closed in the middle of the body: what a crashed or restarted server leaves.
        "cut": Outage(
            f"stream cut after {CUT_AFTER} words",
            {0: Condition(Fault.hang_after(CUT_AFTER, seconds=0.0))},
            streamed=True,
        ),
        "stalled": Outage(
            f"stream stalled after {CUT_AFTER} words", {0: Condition(Fault.hang_after(CUT_AFTER))}, streamed=True
        ),
    }
