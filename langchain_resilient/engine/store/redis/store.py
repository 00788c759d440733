"""Shared state in Redis: the store of many processes.

Rules of this file
------------------
* Circuits, blocks, limits, leases and lines are Redis's: one script decides over all candidates (`lua/`), in one round trip. Latency and
  retry budgets are this process's own, as in memory.
* This process is a warm memory store too: `mirror` follows what Redis says, for ranking, and decides alone while Redis is away. An attempt
  that it admitted alone ends in it alone.
* Only an admission is waited for. Reports are told and not awaited; what they change comes back as news, to every process alike.
* An admission is never asked twice: what was granted to somebody who is gone is handed back (`debts`).
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from functools import partial
from typing import Any

from langchain_resilient.engine import budget
from langchain_resilient.engine.effects import NOT_PLAIN, Admit, Later, Place, Queued, Refused, Report, Settled, Ticket
from langchain_resilient.engine.store.account import SECOND
from langchain_resilient.engine.store.memory import is_unruffled
from langchain_resilient.engine.store.redis import asking, wire
from langchain_resilient.engine.store.redis.asking import Asked
from langchain_resilient.engine.store.redis.debts import Debts
from langchain_resilient.engine.store.redis.lines import Lines
from langchain_resilient.engine.store.redis.mirror import Mirror
from langchain_resilient.engine.store.redis.post.courier import DOWN, Courier
from langchain_resilient.engine.store.state import (
    CALM_SETTLED,
    LEASE_US,
    Verdict,
    note_blocks,
    note_here,
    note_opened_here,
    note_settled,
    settled,
)


class RedisStore(Mirror):
    """The `Store` of many processes.

    Args:
        url: Of the server: `redis://`, `rediss://`, `unix://`, `redis+cluster://`, `redis+sentinel://`.
        namespace: Processes that share one share state.
        now: Seconds, monotonic.
        rand: Uniform in [0, 1): jitters open times.
        clock: µs, for tests: the script's time instead of the server's own.
        courier: Who carries the operations.

    Raises:
        SettingsError: For a URL or namespace that can't be meant, and for a server that refuses this user. A server that can't be reached
            raises nothing: this process decides alone until it can be.
    """

    def __init__(
        self,
        url: str,
        namespace: str,
        *,
        now: Callable[[], float],
        rand: Callable[[], float],
        clock: Callable[[], int] | None = None,
        courier: Callable[..., Courier] = Courier,
    ) -> None:
        carrying = partial(
            courier, url, wire.script(*wire.PARTS), clock=clock, orphaned=self._orphaned, connected=self._connected
        )
        super().__init__(wire.Keys(namespace), carrying, now=now, rand=rand)
        self._process = secrets.token_hex(4)
        self._own: set[int] = set()
        """Attempts that this process admitted alone."""
        self._lines = Lines()
        self._debts = Debts(self._keys, self._courier, self._named)

    def _named(self, attempt: int) -> str:
        return f"{self._process}:{attempt}"

    # --------------------------------------------------------------------------------------------------------- admit
    def admit(self, ask: Admit) -> Ticket | Queued | Refused | Later:  # type: ignore[override]  # who is given one goes by the protocol
        """A place at the first target that can take the request, or none and nothing written; a `Later` where Redis is asked."""
        if not self._courier.up:
            return self._admit_alone(ask)
        with self._turn:
            asked = self._asked(ask, self._now())
            if asked is None:
                return NOT_PLAIN
            operation = self._operation(asked)
        return self._courier.ask(operation).then(partial(self._answered, asked))

    def _asked(self, ask: Admit, now: int) -> Asked | None:
        """What this process knows of the candidates; None: a plain ask that needs more than one look."""
        if ask.plainly:
            target = ask.targets[0]
            route, account = self._route(target), self._account(target)
            if not is_unruffled(route, account, now) or route.unfit(target, ask, now):
                return None
            return Asked(ask, (asking.candidate(target, route, ask, now),), 0)
        targets, explore = asking.considered(ask)
        return Asked(
            ask, tuple([asking.candidate(target, self._route(target), ask, now) for target in targets]), explore
        )

    def _operation(self, asked: Asked) -> wire.Operation:
        attempt, explore = asked.ask.attempt, asked.explore
        interval = self._route(asked.candidates[explore - 1].target).look_interval if explore else 0
        return asking.operation(self._keys, self._named(attempt), asked, interval, self._lines.of(attempt))

    def _admit_alone(self, ask: Admit) -> Ticket | Queued | Refused:
        self._leave(ask.attempt)
        found = super().admit(ask)
        if isinstance(found, Ticket):
            self._own.add(found.attempt)
            self._hold(found)
        return found

    def _hold(self, ticket: Ticket) -> None:
        if ticket.target.limits.concurrency is not None:
            self._holding[ticket.attempt] = ticket

    def _answered(self, asked: Asked, reply: Any) -> Ticket | Queued | Refused:
        """What an admission came to."""
        if reply is DOWN:
            self._debts.unheard(asked)
            return self._admit_alone(asked.ask)
        found = wire.read_admit(reply)
        with self._turn:
            called = self._lines.was_called(asked.ask.attempt)
            if isinstance(found, wire.Booked):
                return self._lines.stand(asked.ask.attempt, found, asked.candidates[found.place].target, called=called)
            if isinstance(found, wire.Granted):
                return self._granted(asked, found)
        return NOT_PLAIN if found is None else wire.refused(found, asked.targets)

    def _granted(self, asked: Asked, granted: wire.Granted) -> Ticket:
        ask, now = asked.ask, self._now()
        route = self._route(asked.candidates[granted.place].target)
        ticket = asking.ticket(asked, granted, route)
        if ask.pays:
            route.budget = budget.spend(route.budget) or route.budget
        if asked.explore == granted.place + 1:
            route.explored_at = now
        if ticket.half_opens:
            route.circuit = route.circuit._replace(phase="half_open", generation=ticket.generation)
        route.latency.silence(stream=ask.stream).begin(ask.attempt, now / SECOND)
        self._live[ask.attempt] = False
        self._hold(ticket)
        self._lines.leave(ask.attempt)
        if ask.patience > 0:  # it may stand in a line of the time when this process was alone
            self._leave_lines(ask, now)
        return ticket

    def _orphaned(self, operation: wire.Operation, reply: Any) -> None:
        """Whoever asked is gone: what came for it is given back."""
        asked = operation.about
        if not isinstance(asked, Asked):
            return
        self._lines.was_called(asked.ask.attempt)
        found = wire.read_admit(reply)
        if isinstance(found, wire.Granted):
            ticket = asking.ticket(asked, found, self._route(asked.candidates[found.place].target))
            self._courier.tell(wire.give_back(self._keys, ticket, self._named(ticket.attempt), Report(never_sent=True)))
        elif isinstance(found, wire.Booked):
            self._courier.tell(wire.leave(self._keys, asked.candidates[found.place].target, found.entry))

    def leave(self, place: Place) -> None:
        """Give up a place in a line."""
        if not self._leave(place.attempt):
            super().leave(place)

    def _leave(self, attempt: int) -> bool:
        """Give up a place in one of Redis's lines; whether there was one."""
        standing = self._lines.leave(attempt)
        if standing is None:
            return False
        self._debts.owe(wire.leave(self._keys, standing.place.target, standing.entry))
        return True

    # ------------------------------------------------------------------------------------------------------- reports
    def renew(self, ticket: Ticket, seconds: float) -> None:
        """Keep an attempt's leases alive for so long."""
        if ticket.attempt in self._own or not self._courier.up:
            super().renew(ticket, seconds)
        if self._courier.up:
            self._courier.tell(wire.renew(self._keys, ticket, self._named(ticket.attempt), int(seconds * SECOND)))

    def opened(self, ticket: Ticket, first_token: float) -> Settled:
        """A stream's first content came. A second report of the same attempt changes nothing."""
        if ticket.attempt in self._own:
            return super().opened(ticket, first_token)
        with self._turn:
            route, account, now = self._route(ticket.target), self._account(ticket.target), self._now()
            if self._live.get(ticket.attempt, True):
                return CALM_SETTLED._replace(phase=route.circuit.phase)
            self._live[ticket.attempt] = True
            before = route.explored_at
            slow = note_opened_here(route, ticket, first_token, now)
            looks_again = route.explored_at != before
            proves = ticket.probe and not ticket.to_end
            self._exchange.sample(ticket.target, first_token, stream=True)
            found = settled(route, account, ticket.target, route.circuit, "", now)
        if proves or looks_again:
            verdict = Verdict("success", slow, "slow" if slow else "first_token") if proves else None
            told = wire.Told("opened", verdict, looks_again, spread=self._spread())
            self._courier.tell(wire.settle(self._keys, ticket, self._named(ticket.attempt), told), urgent=proves)
        return found

    def settle(self, ticket: Ticket, report: Report) -> Settled:
        """An attempt ended. A second report of the same attempt changes nothing."""
        if self._turn.postponed(lambda: self.settle(ticket, report)):
            return CALM_SETTLED
        held = self._holding.pop(ticket.attempt, None)
        if ticket.attempt in self._own:
            self._own.discard(ticket.attempt)
            if held is not None and self._courier.up:  # it was told of when Redis came back
                self._courier.tell(self._debts.free(held))
            return super().settle(ticket, report)
        with self._turn:
            now = self._now()
            route, account = self._route(ticket.target), self._account(ticket.target)
            if ticket.attempt not in self._live:
                return CALM_SETTLED._replace(phase=route.circuit.phase)
            del self._live[ticket.attempt]
            # The mirror counts by our own clock, and its limits were not charged.
            here = ticket._replace(granted=ticket.granted - self._ahead, charged=())
            if not self._courier.up:
                self._debts.owe(wire.give_back(self._keys, ticket, self._named(ticket.attempt), report))
                return note_settled(route, account, here, report, now, self._spread)
            before = route.explored_at
            verdict = note_here(route, ticket, report, now)
            blocked = note_blocks(account, here, report, now)
            if report.kind is None and report.seconds is not None and (report.whole or not ticket.stream):
                self._exchange.sample(ticket.target, report.seconds, stream=False)
            told = wire.Told(
                report.kind or "ok", verdict, route.explored_at != before,
                int(report.retry_after * SECOND) if report.retry_after else 0,
                0 if verdict.outcome == "success" and not verdict.slow else self._spread(),
            )  # fmt: skip
            # What it changes in the circuit comes back as news.
            found = settled(route, account, ticket.target, route.circuit, "", now, blocked)
        operation = wire.settle(self._keys, ticket, self._named(ticket.attempt), told, report)
        if ticket.leased:
            self._debts.release(ticket, operation)
        else:
            self._courier.tell(operation, urgent=report.kind is not None)
        return found

    # ---------------------------------------------------------------------------------------------------- what comes
    def _heard(self, message: bytes) -> None:
        """News of the fleet: something changed, or the first of a line may ask again."""
        kind, _, name = message.decode().partition(" ")
        if kind != "wake":
            super()._heard(message)
            if kind != "changed":  # the news was cut off, and a call may have been among what was lost
                self._call(None)
            return
        process, _, attempt = name.partition(":")
        if process == self._process:
            self._call(int(attempt))

    def _call(self, attempt: int | None) -> None:
        """Let somebody who stands in a line ask again, or (None) all of them."""
        with self._turn:
            places = self._lines.call(attempt)
        for place in places:
            if place.wake is not None:
                place.wake()

    def _changed(self, up: bool, reason: str) -> None:
        super()._changed(up, reason)
        if not up:  # nobody will call them to the front of a line that is out of reach
            self._call(None)

    def _come_back(self) -> None:
        self._debts.pay()
        super()._come_back()

    def _connected(self) -> None:
        """A new connection: first what gives places back, then what counts those who hold one. All of it does no harm if told twice."""
        self._debts.connected()
        for ticket in tuple(self._holding.values()):
            self._courier.tell(wire.hold(self._keys, ticket, self._named(ticket.attempt), LEASE_US))

    def forked(self) -> None:
        """In a new child process: it is a process of its own, and what runs or waits is the parent's."""
        super().forked()
        self._process = secrets.token_hex(4)
        self._own.clear()
        self._lines.forked()
        self._debts.forked()
