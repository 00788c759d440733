"""Who hears of what one model, Router or limiter does.

Rules of this file: what may be read at any time (`Watching`) holds stores and targets, never whose they are: a model that nobody uses any more
is let go of, and its gate tells observers that it is gone.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any

from langchain_resilient.engine.events import Watching
from langchain_resilient.engine.observe.capture import CaptureObserver
from langchain_resilient.engine.observe.fanout import Fanout
from langchain_resilient.engine.observe.given import observer_of
from langchain_resilient.engine.observe.log import LogObserver
from langchain_resilient.engine.policy import Clock, Gate, Target


class Audience(Fanout):
    """The log, `capture_decisions()`, and whom the user gave.

    Args:
        clock: Paces what the log tells of single decisions.
        given: The user's observers, or words for them.

    Raises:
        SettingsError: For what is no observer.
    """

    def __init__(self, clock: Clock, given: Sequence[Any]) -> None:
        super().__init__([LogObserver(clock.now), CaptureObserver(), *map(observer_of, given)])
        self._known: dict[str, Target] = {}

    def watch(self, store: Any, targets: Sequence[Target], gate: Gate) -> None:
        """From now on hear what the store learns of these targets elsewhere, and tell what may be read of them while the gate lives.

        Told once of each name, and read where it is now: a Router's deployment may move. Requests in the gate are told with the first, lest
        they be counted again with each that comes up later.
        """
        known = self._known
        fresh = {target.name: target for target in targets if _moved(known.get(target.name), target)}
        if not fresh:
            return
        store.listen(self, list(fresh.values()))
        first, names, living = not known, tuple(name for name in fresh if name not in known), weakref.ref(gate)
        known.update(fresh)
        if not names:
            return

        def pending() -> int | None:
            lives = living()
            if lives is None:
                return None
            return lives.pending if first else 0

        self(
            Watching(
                names, lambda name: store.budget(known[name]), pending, lambda name: store.mode(known[name]),
                lambda name: store.phase(known[name]), store.place, store.is_alone,
            )
        )  # fmt: skip


def _moved(before: Target | None, target: Target) -> bool:
    return before is None or (before.route, before.account) != (target.route, target.account)
