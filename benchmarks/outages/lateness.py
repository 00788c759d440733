"""How late an event loop is: what a timer is late by.

Rules of this file: a look costs next to nothing, so that it may be taken all the time.
"""

from __future__ import annotations

import asyncio
import time

LOOK_EVERY = 0.02
"""Seconds between two looks."""


async def look(lags: list[float]) -> None:
    """Note the running loop's lateness, in seconds, until cancelled."""
    while True:
        due = time.monotonic() + LOOK_EVERY
        await asyncio.sleep(LOOK_EVERY)
        lags.append(time.monotonic() - due)
