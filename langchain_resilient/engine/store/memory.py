"""Shared state in this process's memory: the default store.

Rules of this file
------------------
* One lock, held for arithmetic only: never over a call, a wait or an observer.
* The mechanisms decide (`circuit`, `quota`, `latency`, `budget`); this file keeps their state and asks them in one fixed order:
  override, blocked, circuit, line, limits, concurrency, budget. All are asked before anything is written, so a refusal costs nothing.
* What belongs to a provider is a `Route`; what belongs to one credential at it is an `Account`: a laptop's bad key, or its used-up
  quota, never blocks the fleet's.
* Time is monotonic, in integer microseconds.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence

from langchain_resilient.engine import budget, circuit, quota
from langchain_resilient.engine.effects import NOT_PLAIN, Admit, Look, Place, Queued, Refused, Report, Settled, Ticket
from langchain_resilient.engine.errors import unknown_name
from langchain_resilient.engine.events import CircuitChanged, Event, Refusal
from langchain_resilient.engine.histogram import ENOUGH_SAMPLES
from langchain_resilient.engine.latency import Silence
from langchain_resilient.engine.policy import Target
from langchain_resilient.engine.quota import LINE_LIMITS
from langchain_resilient.engine.routing import CALM, View
from langchain_resilient.engine.store.account import SECOND, Account
from langchain_resilient.engine.store.forks import tell_of_forks
from langchain_resilient.engine.store.state import (
    CALM_SETTLED,
    LEASE_US,
    ONE_REQUEST,
    OVERRIDES,
    PROVEN_STREAMS,
    Override,
    Route,
    note_opened,
    note_settled,
)
from langchain_resilient.engine.store.turn import Turn

OPEN = frozenset({"circuit_open", "half_open"})


_NOTHING: tuple[quota.Cost, tuple[quota.Taken, ...]] = (ONE_REQUEST, ())


def is_unruffled(route: Route, account: Account, now: int) -> bool:
    """Whether nothing but the limits can keep a request out."""
    return (
        route.circuit.phase == "closed" and route.override is None and account.blocked_until <= now and not account.line
    )


class MemoryStore:
    """The in-process `Store`.

    Args:
        now: Seconds, monotonic.
        rand: Uniform in [0, 1): jitters open times.
    """

    place = ""
    """Which shared store it is, without users and passwords: none."""

    def __init__(self, now: Callable[[], float], rand: Callable[[], float]) -> None:
        self._seconds = now
        self._rand = rand
        self._turn = Turn()
        self._routes: dict[str, Route] = {}
        self._accounts: dict[str, Account] = {}
        self._live: dict[int, bool] = {}
        """The attempts that have not ended, and whether their first content was reported."""
        self._settings: dict[str, object] = {}
        tell_of_forks(self)

    def _now(self) -> int:
        return int(self._seconds() * SECOND)

    def _route(self, target: Target) -> Route:
        route = self._routes.get(target.route)
        if route is None:
            route = self._routes[target.route] = Route()
        return route

    def _account(self, target: Target) -> Account:
        account = self._accounts.get(target.account)
        if account is None:
            account = self._accounts[target.account] = Account()
        return account

    def listen(self, observe: Callable[[Event], object], targets: Sequence[Target]) -> None:
        """Tell an observer what changes elsewhere about these: in this process's own store nothing does."""

    # ---------------------------------------------------------------------------------------------------------- look
    def look(self, ask: Look) -> tuple[View, ...]:
        """What is known of each target."""
        with self._turn:
            now = self._now()
            if ask.predicts:
                for target in ask.targets:
                    self._route(target).latency.predict()
            return tuple([self._view(target, ask, now) for target in ask.targets])

    def _view(self, target: Target, ask: Look, now: int) -> View:
        route = self._routes.get(target.route)
        if route is None:
            return CALM
        account = self._account(target)
        seconds = now / SECOND
        why = self._why_not(target, route, account, now)
        timings, lateness = route.latency.timings(stream=ask.stream), route.lateness
        slow = route.is_slow(target, stream=ask.stream)
        return View(
            not why,
            route.hot(target, seconds, ask.max_output),
            slow,
            slow and not why and route.look_due(now),
            timings.p50(seconds) if timings.histogram.recent(seconds) >= ENOUGH_SAMPLES else None,
            route.latency.predicted(seconds, stream=ask.stream, max_output=ask.max_output) if ask.predicts else None,
            route.latency.in_flight / (target.limits.concurrency or 100),
            None if ask.tail is None else lateness.tail(ask.tail, seconds),
            ask.tail is not None and lateness.many(seconds),
            why,
        )

    @staticmethod
    def _why_not(target: Target, route: Route, account: Account, now: int) -> str:
        """What keeps everyone out at the moment; "" if nothing does."""
        if route.override is not None:
            return "forced_open" if route.override == "forced_open" else ""
        if account.blocked_until > now:
            return account.blocked_reason
        state = route.circuit
        is_open = state.phase != "closed" and circuit.wait_for_place(state, target.circuit, now, raced=False) > 0
        return "circuit_open" if is_open else ""

    # --------------------------------------------------------------------------------------------------------- admit
    def admit(self, ask: Admit) -> Ticket | Queued | Refused:
        """A place at the first target that can take the request, or none and nothing written."""
        with self._turn:
            now = self._now()
            if ask.plainly:
                return self._try_plainly(ask, now)
            if ask.explore is not None and (looked := self._explore(ask.explore, ask, now)) is not None:
                return looked
            refusals: list[Refusal] = []
            for target in ask.targets:
                found = self._try(target, ask, now) if not ask.spare else self._try_spare(target, ask, now)
                if isinstance(found, Ticket):
                    self._leave_lines(ask, now)  # at the end of its patience it may be standing in one still
                    # `_replace` would cost as much as half a decision; `passed` is the last field.
                    return Ticket._make((*found[:-1], tuple(refusals))) if refusals else found
                refusals.append(found)
                if found.reason in LINE_LIMITS and target.limits.on_limit != "next":
                    if target.limits.on_limit == "reject":
                        return Refused(tuple(refusals), rejected=found)
                    if (queued := self._queue(target, found, ask, now)) is not None:
                        return queued
            return self._last_resort(ask, refusals, now)

    def _try_plainly(self, ask: Admit, now: int) -> Ticket | Refused:
        target = ask.targets[0]
        route = self._routes.get(target.route) or self._route(target)
        account = self._accounts.get(target.account) or self._account(target)
        if not is_unruffled(route, account, now) or route.unfit(target, ask, now):
            return NOT_PLAIN
        found = self._take(target, route, account, ask, now)
        return found if isinstance(found, Ticket) else NOT_PLAIN

    def _try_spare(self, target: Target, ask: Admit, now: int) -> Ticket | Refusal:
        """Take a place at a target that is all right: an extra call must not add to anybody's trouble."""
        route, account = self._route(target), self._account(target)
        if not is_unruffled(route, account, now) or route.circuit.failures_in_a_row:
            return Refusal(target.name, "unwell")
        if route.unfit(target, ask, now):
            return Refusal(target.name, "slow")
        return self._take(target, route, account, ask, now)

    def _explore(self, target: Target, ask: Admit, now: int) -> Ticket | None:
        """Look whether a slow target still is: one raced request in 30 s."""
        route = self._route(target)
        if not route.look_due(now):
            return None
        found = self._try(target, ask, now)
        if not isinstance(found, Ticket):
            return None
        route.explored_at = now
        self._leave_lines(ask, now)
        return found._replace(raced=True)

    def _last_resort(self, ask: Admit, refusals: list[Refusal], now: int) -> Ticket | Queued | Refused:
        if ask.spare:
            return Refused(tuple(refusals))
        pairs = list(zip(ask.targets, refusals, strict=True))
        if (slow := self._somebody_slow(pairs, ask, now)) is not None:
            return slow
        if ask.looks_early and all(refusal.reason in OPEN for refusal in refusals):
            # Every circuit is open: better to look early than to fail everybody. Whoever opens soonest is asked first.
            for target, _ in sorted(pairs, key=lambda pair: pair[1].retry_after or 0.0):
                found = self._try(target, ask, now, early=True)
                if isinstance(found, Ticket):
                    self._leave_lines(ask, now)
                    return found
        curable = [pair for pair in pairs if pair[1].reason in LINE_LIMITS and pair[1].retry_after is not None]
        for target, refusal in sorted(curable, key=lambda pair: pair[1].retry_after or 0.0):
            if (queued := self._queue(target, refusal, ask, now)) is not None:
                return queued
        return Refused(tuple(refusals))

    def _somebody_slow(self, pairs: list[tuple[Target, Refusal]], ask: Admit, now: int) -> Ticket | None:
        """A place where only slowness opened the circuit: that means "last", not "never", and its probes go on as they would."""
        for target, refusal in pairs:
            route, account = self._route(target), self._account(target)
            waiting = account.line.front(now) not in {None, ask.attempt}
            if refusal.reason not in OPEN or not route.circuit.for_slowness or waiting:
                continue
            found = self._take(target, route, account, ask, now, last=True)
            if isinstance(found, Ticket):
                self._leave_lines(ask, now)
                return found
        return None

    def _try(self, target: Target, ask: Admit, now: int, *, early: bool = False) -> Ticket | Refusal:
        """Take a place at one target if every mechanism allows it; else say which does not, and write nothing."""
        route = self._routes.get(target.route) or self._route(target)
        account = self._accounts.get(target.account) or self._account(target)
        if not is_unruffled(route, account, now):
            barred = self._barred(target, route, account, ask, now, early=early)
            if barred is not None:
                return barred
        return self._take(target, route, account, ask, now, early=early)

    def _take(
        self,
        target: Target,
        route: Route,
        account: Account,
        ask: Admit,
        now: int,
        *,
        early: bool = False,
        last: bool = False,
    ) -> Ticket | Refusal:
        """Take a place where nothing bars everyone, if the request fits the limits."""
        cost, taken = _NOTHING
        if target.dimensions:
            cost = route.cost(target, ask, now)
            measured = account.measure(target, ask, cost, now)
            if isinstance(measured, Refusal):
                return measured
            taken = measured
        if (full := account.full(target, ask, now)) is not None:
            return full
        if ask.pays:
            left = budget.spend(route.budget)
            if left is None:
                return Refusal(target.name, "budget")
            route.budget = left
        return self._grant(target, route, account, ask, now, cost, taken, early=early, last=last)

    def _barred(
        self, target: Target, route: Route, account: Account, ask: Admit, now: int, *, early: bool
    ) -> Refusal | None:
        """What keeps everyone out, whatever the request costs: an override, a block, the circuit, a line."""
        if route.override == "forced_open":
            return Refusal(target.name, "forced_open")
        if route.override is None:
            if account.blocked_until > now:
                return Refusal(target.name, account.blocked_reason, (account.blocked_until - now) / SECOND)
            state = route.circuit
            if state.phase != "closed":
                # When everybody is open there is nobody to race against.
                raced = ask.races and target.circuit.probe == "raced" and not early
                pause = circuit.wait_for_place(state, target.circuit, now, raced=raced, early=early)
                if pause:
                    return Refusal(
                        target.name, "half_open" if state.phase == "half_open" else "circuit_open", pause / SECOND
                    )
        if account.line and account.line.front(now) not in {None, ask.attempt}:
            return Refusal(target.name, "line", self._soonest(target, route, account, ask, now) / SECOND)
        return None

    def _soonest(self, target: Target, route: Route, account: Account, ask: Admit, now: int) -> int:
        """µs until the request would fit all of the target's dimensions, were nobody before it."""
        measured = account.measure(target, ask, route.cost(target, ask, now), now) if target.dimensions else ()
        return round((measured.retry_after or 0.0) * SECOND) if isinstance(measured, Refusal) else 0

    def _grant(
        self, target: Target, route: Route, account: Account, ask: Admit, now: int, cost: quota.Cost,
        taken: tuple[quota.Taken, ...], *, early: bool, last: bool,
    ) -> Ticket:  # fmt: skip
        if taken:
            account.charge(target, taken)
        leased = target.limits.concurrency is not None
        if leased:
            account.leases[ask.attempt] = now + LEASE_US
        probe = raced = was_open = False
        if route.circuit.phase != "closed" and not last:
            was_open = route.circuit.phase == "open"
            probe, raced = self._enter(target, route, ask, now, early=early)
        route.latency.silence(stream=ask.stream).begin(ask.attempt, now / SECOND)
        self._live[ask.attempt] = False
        return Ticket(
            ask.attempt, target, route.circuit.generation, probe, raced, probe or leased, cost,
            tuple([step.charged for step in taken]) if taken else (), ask.stream, now, route.finishes >= PROVEN_STREAMS,
            probe and was_open, probe and route.circuit.broke_midway,
        )  # fmt: skip

    def _enter(self, target: Target, route: Route, ask: Admit, now: int, *, early: bool) -> tuple[bool, bool]:
        """Take a probe's place in a circuit that is not closed; whether there is one, and whether to race it."""
        ruled = route.override is None
        raced = ruled and ask.races and target.circuit.probe == "raced"
        watched = route.override == "metrics_only"
        if not ruled and not (watched and circuit.wait_for_place(route.circuit, target.circuit, now, raced=False) == 0):
            return False, False
        route.circuit = circuit.enter(route.circuit, now, attempt=ask.attempt, lease=LEASE_US, spaced=raced or early)
        return True, raced

    # --------------------------------------------------------------------------------------------------------- lines
    def _queue(self, target: Target, refusal: Refusal, ask: Admit, now: int) -> Queued | None:
        """A place in the target's line, if the wait fits the request's patience; its own place if it stands in one already."""
        if ask.patience <= 0 or refusal.retry_after is None:
            return None
        line = self._account(target).line
        place = line.place_of(ask.attempt)
        if place is None:
            # Elsewhere in a line already: one place per request, or its own two places would race.
            if any(self._account(other).line.place_of(ask.attempt) for other in ask.targets):
                return None
            longest = min(ask.patience, target.longest_wait)
            if refusal.reason != "concurrency" and refusal.retry_after > longest:
                return None
            place = Place(ask.attempt, target, now + int(longest * SECOND))
            line.append(place)
        if place.lapses <= now:
            line.leave(place, now)
            return None
        place.woken = False
        return Queued(place, line.seconds(place, now, refusal.retry_after))

    def leave(self, place: Place) -> None:
        """Give up a place in a line."""
        if self._turn.postponed(lambda: self.leave(place)):
            return
        with self._turn:
            self._account(place.target).line.leave(place, self._now())

    def _leave_lines(self, ask: Admit, now: int) -> None:
        for target in ask.targets:
            line = self._account(target).line
            place = line.place_of(ask.attempt)
            if place is not None:
                line.leave(place, now)

    # ------------------------------------------------------------------------------------------------------- reports
    def renew(self, ticket: Ticket, seconds: float) -> None:
        """Keep an attempt's leases alive for so long."""
        with self._turn:
            now = self._now()
            lease = int(seconds * SECOND)
            leases = self._account(ticket.target).leases
            if leases.get(ticket.attempt, 0) > now:
                leases[ticket.attempt] = now + lease
            route = self._route(ticket.target)
            if ticket.probe and ticket.generation == route.circuit.generation:
                route.circuit = circuit.renew(route.circuit, now, attempt=ticket.attempt, lease=lease)

    def opened(self, ticket: Ticket, first_token: float) -> Settled:
        """A stream's first content came. A second report of the same attempt changes nothing."""
        with self._turn:
            route, account, now = self._route(ticket.target), self._account(ticket.target), self._now()
            if self._live.get(ticket.attempt, True):
                return CALM_SETTLED._replace(phase=route.circuit.phase)
            self._live[ticket.attempt] = True
            return note_opened(route, account, ticket, first_token, now, self._spread)

    def settle(self, ticket: Ticket, report: Report) -> Settled:
        """An attempt ended. A second report of the same attempt changes nothing."""
        if self._turn.postponed(lambda: self.settle(ticket, report)):
            return CALM_SETTLED
        with self._turn:
            route, account, now = self._route(ticket.target), self._account(ticket.target), self._now()
            if ticket.attempt not in self._live:
                return CALM_SETTLED._replace(phase=route.circuit.phase)
            del self._live[ticket.attempt]
            settled = note_settled(route, account, ticket, report, now, self._spread)
            account.line.wake(now)
            return settled

    def _spread(self) -> int:
        return int(self._rand() * 2001) - 1000

    def forked(self) -> None:
        """In a new child process: nobody holds the lock, and what runs or waits is the parent's."""
        self._turn = Turn()
        self._live.clear()
        for route in self._routes.values():
            route.latency.silent_calls, route.latency.silent_streams = Silence(), Silence()
        for account in self._accounts.values():
            account.leases.clear()
            account.line.clear()

    # -------------------------------------------------------------------------------------------------------- people
    def override(self, target: Target, mode: Override | None) -> None:
        """Set a circuit aside by hand, or (None) let it rule again; raises `SettingsError` for an unknown mode."""
        if mode is not None and mode not in OVERRIDES:
            raise unknown_name("override", mode, OVERRIDES)
        with self._turn:
            self._route(target).override = mode

    def reset(self, target: Target, *, blocks: bool = True) -> tuple[CircuitChanged, ...]:
        """Have a target asked again at once: a new circuit, no override and, if `blocks`, no block of the credential; returns what changed."""
        with self._turn:
            route, before = self._route(target), self._route(target).circuit.phase
            route.circuit, route.override = circuit.reset(route.circuit, self._now()), None
            if blocks:
                self._account(target).unblock()
        return () if before == "closed" else (CircuitChanged(target.name, before, "closed", "reset"),)

    def mode(self, target: Target) -> Override | None:
        """How its circuit is set aside by hand, as far as this process knows; None: it rules."""
        return self._route(target).override

    def phase(self, target: Target) -> circuit.Phase:
        """Its circuit, as far as this process knows: for whoever asks now and then, so without the turn."""
        route = self._routes.get(target.route)
        return "closed" if route is None else route.circuit.phase

    def is_alone(self) -> bool:
        """Whether others share it who can't be reached now."""
        return False

    def flush(self, seconds: float = 0.5) -> None:
        """Send what others have not been told yet: there is nobody to tell."""

    def budget(self, target: Target) -> float:
        """The retry budget's tokens."""
        return self._route(target).budget

    def conflicts(self, target: Target) -> bool:
        """Whether another model of this process names this provider with other settings; remembers the first one's."""
        settings = (target.circuit, target.limits, target.timeouts, target.max_latency, target.price)
        with self._turn:
            return self._settings.setdefault(target.account, settings) != settings

    def status(self, target: Target) -> dict[str, object]:
        """What is known of one target, for people: seconds, and no secrets."""
        with self._turn:
            now = self._now()
            route, account = self._route(target), self._account(target)
            return route.status(target, now) | account.status(target, now)


_STORES: dict[str, MemoryStore] = {}


def memory_store(namespace: str) -> MemoryStore:
    """The one memory store of this process and namespace."""
    store = _STORES.get(namespace)
    if store is None:
        store = _STORES.setdefault(namespace, MemoryStore(time.monotonic, random.random))
    return store
