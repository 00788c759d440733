"""What the courier's owner is told, and what is logged.

Rules of this file: whoever carries tells, between two batches that all others wait for; so what the owner's functions raise is logged, and breaks
nothing. No log line holds more of a URL than its servers.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from langchain_resilient.engine.store.redis.post.troubles import Trouble
from langchain_resilient.engine.store.redis.wire import Operation

LOGGER = logging.getLogger("langchain_resilient")
MOST_COMPLAINTS = 100
"""Different errors of a script that are logged."""


class Callbacks:
    """The functions of one courier's owner, see `Courier`.

    Args:
        shown: The URL for people.
        adopt: Told time and epoch of a batch.
        orphaned: Told an operation and its reply.
        changed: Told whether Redis answers, and why not.
        connected: Told of every new wire.
    """

    def __init__(
        self,
        shown: str,
        adopt: Callable[[int, int], object],
        orphaned: Callable[[Operation, Any], object],
        changed: Callable[[bool, str], object],
        connected: Callable[[], object],
    ) -> None:
        self.shown = shown
        self.adopt, self.orphaned, self.changed, self.connected = adopt, orphaned, changed, connected
        self._complained: set[str] = set()

    def tell(self, function: Callable[..., object], *arguments: object) -> None:
        """Call one of them, or another function that was given; never raises."""
        try:
            function(*arguments)
        except Exception:
            LOGGER.exception("%s: the courier could not tell something", self.shown)

    def complain(self, why: Trouble) -> None:
        """A script's error, logged once each."""
        text = why.text[:200]
        if text not in self._complained and len(self._complained) < MOST_COMPLAINTS:
            self._complained.add(text)
            LOGGER.warning("%s: the script failed: %s", self.shown, text)
