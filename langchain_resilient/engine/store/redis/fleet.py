"""What one process is to the others that share a namespace.

Rules of this file: these hold for circuits and for users' limits alike, so that a process counts, and limits itself, in one way.
"""

from __future__ import annotations

from langchain_resilient.engine.quota import FULL

BEAT_LIVES_US = 300_000_000
"""How long a process counts after it was last heard of: a worker without a request for minutes is still there when Redis goes away."""
ALONE_SHARE = 800
"""Thousandths of the limits that all processes may use together while none can ask the others."""


def share_alone(processes: int) -> int:
    """Thousandths of the limits for one of so many processes while it decides alone; never nothing."""
    return max(1, min(FULL, ALONE_SHARE // max(1, processes)))
