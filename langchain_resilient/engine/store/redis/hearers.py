"""Who is told what changes in the fleet.

Rules of this file: news comes in whichever thread carries for all others, and an observer may be slow, so nobody is told there: one thread at
a time, made when there is news, tells all of it in order. What is told is settled in one turn with who listens: nobody hears of a change
twice, or not at all, because it came while he was added. Nobody calls here within a store's turn: the collector may ask for that turn in the
middle of ours, and each would wait for the other.
"""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Callable, Sequence
from types import MethodType
from typing import Any

from langchain_resilient.engine.events import CircuitChanged, CredentialBlocked, Event, StoreDegraded
from langchain_resilient.engine.policy import Target
from langchain_resilient.engine.store.turn import Turn

Observe = Callable[[Event], object]


class Hearers:
    """The observers of one store, for as long as they live.

    Args:
        aside: Does a step in a thread of its own.
        place: Which store it is, without users and passwords.
    """

    def __init__(self, aside: Callable[[Callable[[], object]], object], place: str = "") -> None:
        self._aside = aside
        self._place = place
        self._turn = Turn()
        self._who: list[tuple[weakref.ref[Any], frozenset[tuple[str, str]]]] = []
        self._news: deque[tuple[Observe, Event]] = deque()
        self._telling = deque([True], maxlen=1)
        """Empty while somebody tells: taking it out is one atomic step."""
        self._alone: str | None = None
        """Why the store is alone, if that is what they were last told."""

    def add(self, observe: Observe, targets: Sequence[Target]) -> None:
        """Tell an observer of these, too."""
        weak: weakref.ref[Any] = (
            weakref.WeakMethod(observe) if isinstance(observe, MethodType) else weakref.ref(observe)
        )
        with self._turn:
            alive = [pair for pair in self._who if pair[0]() is not None]
            before = [providers for hearer, providers in alive if hearer == weak]
            told = frozenset((target.route, target.account) for target in targets).union(*before)
            self._who = [*[pair for pair in alive if pair[0] != weak], (weak, told)]
            if self._alone is not None and not before:
                event = StoreDegraded(degraded=True, reason=self._alone, store=self._place)
                self._news.append((observe, event))
        self._tell()

    def providers(self) -> set[tuple[str, str]]:
        """The routes and accounts that a living observer wants to hear of."""
        return {provider for hearer, providers in self._who if hearer() is not None for provider in providers}

    def changed(self, route: str, event: CircuitChanged | CredentialBlocked) -> None:
        """A provider's circuit, or a credential of it."""
        with self._turn:
            self._news += [
                (observe, event)
                for hearer, providers in self._who
                if any(route == its for its, _ in providers) and (observe := hearer()) is not None
            ]
        self._tell()

    def alone(self, reason: str | None) -> None:
        """Whether the store is alone (then why): told once for each change; who listens later is told then."""
        if (reason is None) == (self._alone is None):  # asked at every beat: mostly without a turn
            return
        with self._turn:
            if (reason is None) == (self._alone is None):
                return
            event = StoreDegraded(reason is not None, reason or "it answers again", self._place)
            self._alone = reason
            self._news += [(observe, event) for hearer, _ in self._who if (observe := hearer()) is not None]
        self._tell()

    def forked(self) -> None:
        """In a new child process: whoever was telling is the parent's."""
        self._turn = Turn()
        self._news.clear()
        self._telling.append(True)

    def _tell(self) -> None:
        if self._news:
            self._aside(self._tell_all)

    def _tell_all(self) -> None:
        while self._news:
            try:
                self._telling.pop()
            except IndexError:  # somebody does already, and looks again before it ends
                return
            try:
                while self._news:
                    observe, event = self._news.popleft()
                    observe(event)
            finally:
                self._telling.append(True)
