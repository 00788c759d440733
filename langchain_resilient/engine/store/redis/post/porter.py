"""The courier's own thread: it connects, probes, and carries for those who can't.

Rules of this file
------------------
* Nobody else connects: that may take longer than anybody may wait.
* It never ends by an error of its own, starts with the first that there is to carry, and is no `threading.Thread`: starting one takes locks that
  the thread of a finalizer may be holding.
* A wire that is held, and says nothing, is replaced: a Ctrl-C may hit between a lock and what is done with it.
"""

from __future__ import annotations

import _thread
import logging
import threading
import time

from langchain_resilient.engine.store.redis.post.carriage import Carriage
from langchain_resilient.engine.store.redis.post.dial import Dial
from langchain_resilient.engine.store.redis.post.line import Wire
from langchain_resilient.engine.store.redis.post.subscription import Subscription
from langchain_resilient.engine.store.redis.post.troubles import Trouble
from langchain_resilient.engine.store.redis.wire import Operation

LOGGER = logging.getLogger("langchain_resilient")

STUCK = 2.0
"""Seconds after which a wire that is held, and says nothing, is replaced: far more than an exchange can take."""
STUMBLE = 0.1
"""Seconds until it goes on after a mistake of its own."""


class Porter:
    """The thread "lr-courier" of one process.

    Args:
        carriage: What it carries, and hands its wires to.
        dial: Where Redis is.
        script: What it gives the server.
        probe: Run on every new connection.
        subscription: Started with the first connection; before, it is tried, so that a right that is missing is known.
    """

    def __init__(
        self, carriage: Carriage, dial: Dial, script: str, probe: Operation | None, subscription: Subscription | None
    ) -> None:
        self.unstarted = [True]
        """Empty once somebody has started the thread: taking it out is one atomic step."""
        self.tried = threading.Event()
        """Set when it is known whether this user is let in."""
        self.ended = threading.Event()
        self._carriage = carriage
        self._bag = carriage.bag
        self._breaker = carriage.breaker
        self._dial = dial
        self._script = script
        self._probe = probe
        self._subscription = subscription
        self._listening = self._stopped = False
        self._ident = 0
        self._mistake = ""
        self._seen: tuple[Wire | None, int, float] = (None, 0, 0.0)

    def start(self, whose: object) -> None:
        """Start the thread, if nobody has; `whose` lives for as long as it does."""
        try:
            self.unstarted.pop()
        except IndexError:  # somebody else does
            return
        try:
            _thread.start_new_thread(self._work, (whose,))
        except RuntimeError:
            # No thread is to be had now: whoever asks waits in vain once, decides without Redis, and the next one tries again.
            self.unstarted.append(True)
            self._carriage.fail(Trouble("outage", "no thread could be started for the connection"))

    def stop(self) -> None:
        """End the thread; waits for that for 0.5 s, unless this is the thread."""
        self._stopped = True
        self._bag.ring()
        if self._subscription is not None:
            self._subscription.stop()
        if not self.unstarted and _thread.get_ident() != self._ident:
            self.ended.wait(0.5)

    def leave(self) -> None:
        """In a new child process: the thread is the parent's."""
        if self._subscription is not None:
            self._subscription.leave()

    def _work(self, _: object) -> None:
        threading.current_thread().name = "lr-courier"
        self._ident = _thread.get_ident()
        while not self._stopped:
            rest: float | None = STUMBLE
            try:
                rest = self._attend()
            except Exception as mistake:
                if repr(mistake) != self._mistake:  # once, and not ten times a second
                    self._mistake = repr(mistake)
                    LOGGER.exception("%s: the courier stumbled, and goes on", self._dial.shown)
            self._bag.listen(rest)
        self.ended.set()

    def _attend(self) -> float | None:
        """Do what is due; returns the seconds until there is more to do, None: until somebody rings."""
        carriage = self._carriage
        wire = carriage.wire
        if wire is None:
            left = self._breaker.again_at - time.monotonic()
            if left > 0:
                return left
            self._connect()
            return 0
        while True:
            now = time.monotonic()
            rest = self._bag.rest(now)
            if rest != 0:
                return rest
            if not wire.free.acquire(blocking=False):
                return self._watch(wire, now)
            try:
                carriage.turn(wire, now)
            finally:
                wire.free.release()
            if wire is not carriage.wire:
                return 0
            carriage.sleepers.tidy()

    def _watch(self, wire: Wire, now: float) -> float:
        """Somebody else carries, and will ring; unless it lost the wire."""
        seen, turns, since = self._seen
        if seen is not wire or turns != wire.turns:
            self._seen = (wire, wire.turns, now)
        elif now - since >= STUCK:
            self._carriage.lose(wire, Trouble("lost", "the connection was not given back"), counts=False)
            return 0
        return STUCK

    def _connect(self) -> None:
        wire = Wire(self._dial, self._script)
        try:
            wire.open()
            if self._probe is not None:
                now, epoch, _ = wire.run([self._probe], self._carriage.head())
                self._carriage.callbacks.tell(self._carriage.callbacks.adopt, now, epoch)
            if self._subscription is not None and not self._listening:
                self._subscription.check()
        except Trouble as why:
            wire.close()
            self._carriage.fail(Trouble("outage", why.text) if why.kind in {"script", "noscript"} else why)
        else:
            if self._subscription is not None and not self._listening:
                self._listening = True
                self._subscription.start()
            self._carriage.take(wire)
        self.tried.set()
