"""Looks at a play now and then, until it is over.

Rules of this file: a watcher changes nothing and plays nothing; who plays may stop it at any time.
"""

from __future__ import annotations

from collections.abc import Callable

from langchain_resilient.demo.play import Play
from langchain_resilient.engine.policy import Clock, SystemClock


async def watch(play: Play, see: Callable[[], None], *, every: float, clock: Clock | None = None) -> None:
    """Look until the play is over, and once more then.

    Args:
        play: Somebody else plays it, in this loop.
        see: Must be quick: the questions are asked in the same loop.
        every: Seconds between two looks.
        clock: Time.
    """
    clock = clock or SystemClock()
    while not play.over:
        see()
        await clock.asleep(every)
    see()
