"""What goes wrong behind LiteLLM's Router.

Rules of this file: values only, those of `outages` with the times at which LiteLLM's own weaknesses were measured.
"""

from __future__ import annotations

from outages.faults import Condition, Outage, Timeline, outages

LIMIT = 5.0
"""Seconds that an attempt may take, or a stream be silent for, in every system."""
SLOWER = 4.0
"""Seconds that a slow provider's answers begin later."""
MAX_LATENCY = 1.0
"""Seconds at the median above which ours is told, in every row, to prefer another deployment: healthy ones take a tenth of that."""
RATE = 20.0
"""Requests a second."""
MEDIAN = 0.1
"""Seconds that half of the healthy answers take at most, or their first words: that of the measurements that the gates were set by."""
SECONDS = 20.0
"""Seconds that an outage lasts."""


def timeline_of(seconds: float) -> Timeline:
    """The play of an outage that lasts so many seconds."""
    return Timeline(lead_in=8.0, outage=seconds, afterwards=max(10.0, seconds))


def recovery_of(timeline: Timeline) -> float:
    """Seconds that a cooldown, or a circuit, leaves a deployment alone: 5 (LiteLLM's default) of an outage of 20."""
    return timeline.outage / 4


def faults(seed: int) -> dict[str, Outage]:
    """All of them, by the word that `--only` takes."""
    known = outages(seed)
    played = {name: known[name] for name in ("503", "blackhole", "429", "cut", "stalled")}
    played["slow"] = Outage(f"slow primary: begins {SLOWER:g} s later", {0: Condition(later=SLOWER)})
    return {name: outage._replace(limit=LIMIT) for name, outage in played.items()}
