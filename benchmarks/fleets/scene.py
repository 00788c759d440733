"""What happens, and when.

Rules of this file: values only; seconds from the beginning.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

Backend = Literal["redis", "killed", "stopped", "memory"]
BACKENDS: dict[Backend, str] = {
    "redis": "Redis",
    "killed": "Redis, killed",
    "stopped": "Redis, stopped",
    "memory": "memory://",
}
"""Where what is known is kept, and what is done to it."""


class Scene(NamedTuple):
    """One outage."""

    lead_in: float = 2.0
    """Seconds of health before it."""
    outage: float = 6.0
    afterwards: float = 6.0
    rate: float = 40.0
    """Requests a second, of the whole fleet, however many processes it has."""
    takes: float = 0.1
    """Seconds that a provider takes, for an answer and for a 503."""
    recovery: float = 2.0
    """Seconds that an open circuit leaves a provider alone: a third of the outage, as a minute is of a short real one."""

    @property
    def heals_at(self) -> float:
        """When the first provider answers again."""
        return self.lead_in + self.outage

    @property
    def hurt_at(self) -> float:
        """When Redis is killed or stopped: in the middle of the outage."""
        return self.lead_in + self.outage / 2

    @property
    def mended_at(self) -> float:
        """When it is back: after the provider is."""
        return self.heals_at + self.afterwards / 3

    @property
    def seconds(self) -> float:
        """How long requests come."""
        return self.heals_at + self.afterwards


class Fate(NamedTuple):
    """One request, as its caller saw it."""

    at: float
    seconds: float
    provider: str
    """Who answered; "": nobody did."""
    error: str = ""


class Call(NamedTuple):
    """One request at the first provider, as its server saw it."""

    at: float
    failed: bool


class Worker(NamedTuple):
    """What a process of the fleet tells."""

    fates: tuple[Fate, ...]
    probes: tuple[float, ...]
    """When the first provider was asked whether it is well again; known when the answer came."""
    degraded: tuple[tuple[float, bool], ...]
    """When it was told that Redis is away, or is back."""
    cpu: float
