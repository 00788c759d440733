"""Whether Redis is thought to answer, and when it is tried again.

Rules of this file: whoever may not (a wrong password), whom the server can't serve, and the first timeout open the breaker; of connections that
are refused or break off it takes three in a row. Then it is tried after jittered pauses of 0.25 … 5 s, until an exchange succeeds. Of any number
of threads that find the same out at once one is told that it was the first.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable

from langchain_resilient.engine.store.redis.post.dial import Denied
from langchain_resilient.engine.store.redis.post.troubles import Trouble

PAUSES = (0.25, 5.0)
"""Seconds between probes: the first pause, and the longest."""
ERRORS = 3
"""Connection errors in a row that open the breaker."""
AGAIN = 0.01
"""Seconds between them."""


class Breaker:
    """Between one process and one Redis.

    Args:
        denial: A refusal as the error that names the setting and the fix.
    """

    def __init__(self, denial: Callable[[Trouble], Denied]) -> None:
        self.up = True
        """Whether Redis is thought to answer."""
        self.denied: Denied | None = None
        """How this user was refused, if that is what happened last."""
        self.again_at = 0.0
        """When to try next, monotonic seconds."""
        self._denial = denial
        self._failures = 0
        self._pause = PAUSES[0]
        self._turning = threading.Lock()

    def worked(self) -> None:
        """An exchange succeeded."""
        self._failures, self._pause = 0, PAUSES[0]

    def failed(self, why: Trouble, *, counts: bool = True) -> str | None:
        """An exchange failed; returns why the breaker opened, if this opened it. Unless it `counts` it is none of the errors in a row."""
        self._failures += counts
        self.denied = self._denial(why) if why.kind == "denied" else None
        if why.kind == "lost" and self._failures < ERRORS:
            self.again_at = time.monotonic() + AGAIN * self._failures
            return None
        with self._turning:
            was, self.up = self.up, False
            self.again_at = time.monotonic() + self._pause * random.uniform(0.75, 1.25)
            self._pause = min(2 * self._pause, PAUSES[1])
        if not was:
            return None
        return why.text if self.denied is None else str(self.denied)

    def connected(self) -> bool:
        """A probe succeeded; returns whether that closed the breaker."""
        self.denied = None
        with self._turning:
            was, self.up = self.up, True
        return not was
