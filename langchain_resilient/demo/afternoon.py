"""What the providers do this afternoon, and when.

Rules of this file: values only; times are seconds of the play at speed 1. Only the servers are told.

A real afternoon's minutes are shortened to seconds: where users would wait for 30 seconds, they wait for 2.5 here, and what a circuit
waits for is shortened alike. All contenders have the same limit for an attempt.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from langchain_resilient.engine.errors import is_number, require
from langchain_resilient.testing.fault_server import Fault, WireName

SLOWEST, FASTEST = 0.2, 10.0
"""What `at_speed` takes: slower bores, and faster a round trip to a server counts for more than what it answers."""


class Condition(NamedTuple):
    """How one provider behaves."""

    word: str
    """For people."""
    fault: Fault = Fault.ok()
    slowdown: float = 1.0
    """Factor on the time that its answers take."""


HEALTHY = Condition("healthy")


class Phase(NamedTuple):
    """A part of the afternoon."""

    clock: str
    """The time of day in the story."""
    title: str
    seconds: float
    conditions: Mapping[WireName, Condition]
    """By provider; who is not named is healthy."""

    def of(self, wire: WireName) -> Condition:
        """How this provider behaves."""
        return self.conditions.get(wire, HEALTHY)


class House(NamedTuple):
    """One provider: how it is named, and how long it takes when all is well."""

    wire: WireName
    model: str
    seconds: float
    """From a request to the answer, or to a stream's first word."""
    between_words: float
    """Seconds between two words of a stream."""

    @property
    def spec(self) -> str:
        """As `Provider` and `init_chat_model` take it."""
        return f"{self.wire}:{self.model}"

    @property
    def name(self) -> str:
        """As metrics and records name it."""
        return f"{self.wire}/{self.model}"


class Afternoon(NamedTuple):
    """All that is fixed before the play begins."""

    phases: tuple[Phase, ...]
    houses: tuple[House, ...]
    """In the order in which they are asked."""
    rate: float = 8.0
    """Questions a second, whatever the speed: a play twice as fast has half as many."""
    limit: float = 2.5
    """Seconds for an attempt, for every contender: what 30 seconds are on a real afternoon."""
    slow: float = 1.0
    """Seconds above which an answer counts as slow (`max_latency`, `slow_first_token`)."""
    recovery: float = 2.5
    """Seconds that an open circuit waits before it probes."""
    window: float = 5.0
    """Seconds that a circuit looks back."""
    patience: float = 2.0
    """Seconds of a Retry-After that are waited for: the library's default."""

    @property
    def seconds(self) -> float:
        """How long questions arrive."""
        return sum(phase.seconds for phase in self.phases)

    def phase_at(self, elapsed: float) -> Phase:
        """The phase at this moment; the last one from its beginning on."""
        for phase, _, end in self.timetable():
            if elapsed < end:
                return phase
        return self.phases[-1]

    def timetable(self) -> tuple[tuple[Phase, float, float], ...]:
        """Each phase with its beginning and its end."""
        table, begins = [], 0.0
        for phase in self.phases:
            table.append((phase, begins, begins + phase.seconds))
            begins += phase.seconds
        return tuple(table)


def two_pm(speed: float = 1.0) -> Afternoon:
    """The afternoon that the demo plays: about a minute, divided by `speed`.

    Args:
        speed: How much faster everything goes that takes time (0.2 – 10): phases, answers, limits, waits. Default 1.

    Raises:
        SettingsError: For any other speed.
    """
    ok = is_number(speed, least=SLOWEST, most=FASTEST)
    require(ok, "speed", speed, f"use a number from {SLOWEST:g} to {FASTEST:g}")
    down = Condition("503", Fault.status(503))
    silent = Condition("hangs", Fault.hang())
    throttling = Condition("429, Retry-After", Fault.rate_limited("decimal", 4.0 / speed))
    phases = (
        Phase("1:59 PM", "all is well", 7.0, {}),
        Phase("2:00 PM", "openai answers 503", 9.0, {"openai": down}),
        Phase("2:01 PM", "openai accepts and never answers", 11.0, {"openai": silent}),
        Phase(
            "2:03 PM",
            "…and anthropic says 429, Retry-After",
            8.0,
            {"openai": silent, "anthropic": throttling},
        ),
        Phase("2:05 PM", "openai is back, eight times slower", 10.0, {"openai": Condition("8 × slower", slowdown=8.0)}),
        Phase("2:10 PM", "all is well again", 15.0, {}),
    )
    houses = (
        House("openai", "gpt-4.1", 0.25, 0.03),
        House("anthropic", "claude-sonnet-4-5", 0.35, 0.03),
        House("ollama", "llama3.1", 0.6, 0.02),
    )
    plain = Afternoon(phases, houses)
    return plain._replace(
        phases=tuple(phase._replace(seconds=phase.seconds / speed) for phase in phases),
        houses=tuple(
            house._replace(seconds=house.seconds / speed, between_words=house.between_words / speed) for house in houses
        ),
        **{name: getattr(plain, name) / speed for name in ("limit", "slow", "recovery", "window", "patience")},
    )
