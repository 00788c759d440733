"""Shared state in Redis: the store of many processes.

Rules of this file
------------------
* Circuits, blocks, limits, leases and lines are Redis's: one script decides over all candidates (`lua/`), in one round trip. Latency and
  retry budgets are this process's own, as in memory.
* This process is a warm memory store too: it keeps a mirror of what Redis last said, for ranking, and decides alone with it, on a fair share
  of the limits, while Redis is away. An attempt that it admitted alone ends in it alone.
* Only an admission is waited for. Reports are told and not awaited; what they change comes back as news, to every process alike.
* An admission is never asked twice: what was granted to somebody who is gone is handed back.
"""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import Callable, Generator, Sequence
from functools import partial
from typing import Any, NamedTuple

from langchain_resilient.engine import budget
from langchain_resilient.engine.classify import ErrorKind
from langchain_resilient.engine.effects import (
    NOT_PLAIN,
    Admit,
    Later,
    Place,
    Queued,
    Refused,
    Report,
    Settled,
    Ticket,
)
from langchain_resilient.engine.events import CircuitChanged, CredentialBlocked, Event
from langchain_resilient.engine.policy import Target
from langchain_resilient.engine.quota import FULL, capacity
from langchain_resilient.engine.store.account import SECOND, Account
from langchain_resilient.engine.store.memory import MemoryStore, is_unruffled
from langchain_resilient.engine.store.redis import wire
from langchain_resilient.engine.store.redis.hearers import Hearers
from langchain_resilient.engine.store.redis.post.courier import DOWN, Courier
from langchain_resilient.engine.store.redis.sketches import WINDOW_US, Sketch
from langchain_resilient.engine.store.state import (
    CALM_SETTLED,
    EXPLORE_INTERVAL_US,
    LEASE_US,
    OUTRUN_INTERVAL_US,
    PROVEN_STREAMS,
    Override,
    Route,
    Verdict,
    note_blocks,
    note_here,
    note_opened_here,
    note_settled,
)

BEAT_EVERY_US = 3 * SECOND
BEAT_LIVES_US = 300 * SECOND
"""How long a process counts after it was last heard of: a worker without a request for minutes is still there when Redis goes away."""
MOST_OWED = 10_000
MOST_CALLED = 1000
MOST_KNOWN = 256
"""Providers that are read again with each change, before those without a living model are forgotten."""
AT_ONCE = 64
"""Providers that one operation reads: the server does nothing else meanwhile."""
ALONE_SHARE = 800
"""Thousandths of the limits that all processes may use together while none can ask the others."""


_NEUTRAL = Verdict("neutral", slow=False, reason="")


class _Standing(NamedTuple):
    """A place in a line that Redis keeps."""

    place: Place
    entry: str


class _Asked(NamedTuple):
    """An admission under way."""

    ask: Admit
    candidates: tuple[wire.Candidate, ...]
    explore: int


class RedisStore(MemoryStore):
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
        super().__init__(now, rand)
        self._keys = wire.Keys(namespace)
        self._process = secrets.token_hex(4)
        self._known: dict[tuple[str, str], Target] = {}
        self._own: set[int] = set()
        """Attempts that this process admitted alone."""
        self._holding: dict[int, Ticket] = {}
        """Attempts under way that hold one of a provider's places, whoever granted it."""
        self._called: set[int] = set()
        """Attempts that were called to the front of their line before they knew of their place."""
        self._standing: dict[int, _Standing] = {}
        self._epoch = -1
        self._ahead = 0
        """µs that the server's clock is ahead of ours."""
        self._processes = 1
        self._beat_at = -BEAT_EVERY_US
        self._alone = False
        self._sketches: dict[str, Sketch] = {}
        """By route."""
        self._window = -1
        self._due: dict[tuple[str, str], Override | None] = {}
        """Overrides that the fleet has not been told of."""
        self._ghosts: dict[int, _Asked] = {}
        """Admissions whose answer never came: the server may have granted them all the same."""
        self._unsure: dict[int, Ticket] = {}
        """Attempts that ended and held a place, until Redis says that it was told."""
        self._owed: deque[wire.Operation] = deque(maxlen=MOST_OWED)
        """What gives back places that Redis granted before it went away."""
        self._courier = courier(
            url, wire.script(*wire.PARTS), channel=self._keys.channel, clock=clock, probe=wire.probe(self._keys), adopt=self._dated,
            heard=self._heard, orphaned=self._orphaned, changed=self._changed,
            connected=self._connected,
        )  # fmt: skip
        self._hearers = Hearers(self._courier.aside)

    def check(self) -> None:
        """Raise `SettingsError` if the server is there and refuses this user."""
        self._courier.check()

    def listen(self, observe: Callable[[Event], object], targets: Sequence[Target]) -> None:
        """Tell an observer, for as long as it lives, what changes in the fleet about these."""
        with self._turn:
            self._hearers.add(observe, targets)
            if len(self._known) >= MOST_KNOWN:  # a model for each customer: those that are gone need no news
                heard = self._hearers.providers()
                self._known = {pair: target for pair, target in self._known.items() if pair in heard}
            self._known.update({(target.route, target.account): target for target in targets})
        self._read(targets)

    # --------------------------------------------------------------------------------------------------------- admit
    def admit(self, ask: Admit) -> Ticket | Queued | Refused | Later:  # type: ignore[override]  # who is given one goes by the protocol
        """A place at the first target that can take the request, or none and nothing written; a `Later` where Redis is asked."""
        if not self._courier.up:
            return self._admit_alone(ask)
        with self._turn:
            asked = self._asked(ask, self._now())
            if asked is None:
                return NOT_PLAIN
            operation = self._operation(asked)._replace(about=asked)
        return _Answer(self, asked, self._courier.ask(operation))

    def _asked(self, ask: Admit, now: int) -> _Asked | None:
        """What this process knows of the candidates; None: a plain ask that needs more than one look."""
        if ask.plainly:
            target = ask.targets[0]
            route, account = self._route(target), self._account(target)
            if not is_unruffled(route, account, now) or self._unfit(target, route, ask, now):
                return None
            return _Asked(ask, (self._candidate(target, ask, now),), 0)
        targets, explore = ask.targets, 0
        if ask.explore is not None:
            if ask.explore not in targets:
                targets = (*targets, ask.explore)
            explore = targets.index(ask.explore) + 1
        return _Asked(ask, tuple([self._candidate(target, ask, now) for target in targets]), explore)

    def _candidate(self, target: Target, ask: Admit, now: int) -> wire.Candidate:
        route = self._route(target)
        affords = not ask.pays or budget.spend(route.budget) is not None
        unfit = ask.spare and self._unfit(target, route, ask, now)
        return wire.Candidate(target, self._cost(target, route, ask, now), affords, unfit)

    @staticmethod
    def _unfit(target: Target, route: Route, ask: Admit, now: int) -> bool:
        slow = route.is_slow(target, stream=ask.stream and not ask.whole)
        return slow or route.hot(target, now / SECOND, ask.max_output)

    def _operation(self, asked: _Asked) -> wire.Operation:
        ask, explore = asked.ask, asked.explore
        interval = 0
        if explore:
            outrun = self._route(asked.candidates[explore - 1].target).lateness.outrun
            interval = OUTRUN_INTERVAL_US if outrun else EXPLORE_INTERVAL_US
        standing = self._standing.get(ask.attempt)
        placed = 0
        if standing is not None:
            accounts = [target.account for target in ask.targets]
            placed = (
                accounts.index(standing.place.target.account) + 1 if standing.place.target.account in accounts else 0
            )
        return wire.admit(
            self._keys, ask, self._named(ask.attempt), asked.candidates, explore=explore, interval=interval, placed=placed,
            entry="" if standing is None else standing.entry,
        )  # fmt: skip

    def _named(self, attempt: int) -> str:
        return f"{self._process}:{attempt}"

    def _admit_alone(self, ask: Admit) -> Ticket | Queued | Refused:
        standing = self._standing.pop(ask.attempt, None)
        if standing is not None:
            self._owe(wire.leave(self._keys, standing.place.target, standing.entry))
        found = super().admit(ask)
        if isinstance(found, Ticket):
            self._own.add(found.attempt)
            self._hold(found)
        return found

    def _hold(self, ticket: Ticket) -> None:
        if ticket.target.limits.concurrency is not None:
            self._holding[ticket.attempt] = ticket

    def answered(self, asked: _Asked, reply: Any) -> Ticket | Queued | Refused:
        """What an admission came to."""
        if reply is DOWN:
            if len(self._ghosts) >= MOST_OWED:
                self._ghosts.clear()
            self._ghosts[asked.ask.attempt] = asked
            return self._admit_alone(asked.ask)
        found = wire.read_admit(reply)
        targets = [candidate.target for candidate in asked.candidates]
        with self._turn:
            called = asked.ask.attempt in self._called
            self._called.discard(asked.ask.attempt)
            if isinstance(found, wire.Booked):
                return self._queued(asked.ask, found, targets[found.place], called=called)
            if isinstance(found, wire.Granted):
                return self._granted(asked, found)
        return NOT_PLAIN if found is None else wire.refused(found, targets)

    def _granted(self, asked: _Asked, granted: wire.Granted) -> Ticket:
        ask, now = asked.ask, self._now()
        ticket = self._ticket(asked, granted)
        route = self._route(ticket.target)
        if ask.pays:
            route.budget = budget.spend(route.budget) or route.budget
        if asked.explore == granted.place + 1:
            route.explored_at = now
        if ticket.half_opens:
            route.circuit = route.circuit._replace(phase="half_open", generation=ticket.generation)
        route.latency.silence(stream=ask.stream).begin(ask.attempt, now / SECOND)
        self._live[ask.attempt] = False
        self._hold(ticket)
        self._standing.pop(ask.attempt, None)
        if ask.patience > 0:  # it may stand in a line of the time when this process was alone
            self._leave_lines(ask, now)
        return ticket

    def _ticket(self, asked: _Asked, granted: wire.Granted) -> Ticket:
        ask, candidate = asked.ask, asked.candidates[granted.place]
        target = candidate.target
        return Ticket(
            ask.attempt, target, granted.generation, granted.probe, granted.raced,
            granted.probe or target.limits.concurrency is not None, candidate.cost, granted.charged, ask.stream, granted.now,
            self._route(target).finishes >= PROVEN_STREAMS, granted.half_opens, granted.to_end,
            wire.refusals(granted.passed, ask.targets),
        )  # fmt: skip

    def _queued(self, ask: Admit, booked: wire.Booked, target: Target, *, called: bool) -> Queued:
        standing = self._standing.get(ask.attempt)
        place = Place(ask.attempt, target, 0) if standing is None or standing.entry != booked.entry else standing.place
        place.woken = called
        self._standing[ask.attempt] = _Standing(place, booked.entry)
        return Queued(place, booked.pause / SECOND)

    def _orphaned(self, operation: wire.Operation, reply: Any) -> None:
        """Whoever asked is gone: what came for it is given back."""
        asked = operation.about
        if not isinstance(asked, _Asked):
            return
        self._called.discard(asked.ask.attempt)
        found = wire.read_admit(reply)
        if isinstance(found, wire.Granted):
            told = wire.Told(ErrorKind.CANCELLED, _NEUTRAL, looks_again=False)
            ticket = self._ticket(asked, found)
            operation = wire.settle(self._keys, ticket, self._named(ticket.attempt), told, Report(never_sent=True))
            self._courier.tell(operation)
        elif isinstance(found, wire.Booked):
            self._courier.tell(wire.leave(self._keys, asked.candidates[found.place].target, found.entry))

    def leave(self, place: Place) -> None:
        """Give up a place in a line."""
        standing = self._standing.pop(place.attempt, None)
        if standing is None:
            super().leave(place)
        else:
            self._owe(wire.leave(self._keys, place.target, standing.entry))

    def _owe(self, operation: wire.Operation) -> None:
        """Tell Redis what it would otherwise keep a place for: now, or when it is back."""
        if self._courier.up:
            self._courier.tell(operation)
        else:
            self._owed.append(operation)

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
            route, now = self._route(ticket.target), self._now()
            if self._live.get(ticket.attempt, True):
                return CALM_SETTLED._replace(phase=route.circuit.phase)
            self._live[ticket.attempt] = True
            before = route.explored_at
            slow = note_opened_here(route, ticket, first_token, now)
            looks_again = route.explored_at != before
            proves = ticket.probe and not ticket.to_end
            self._sample(ticket.target, first_token, stream=True)
        if proves or looks_again:
            verdict = Verdict("success", slow, "slow" if slow else "first_token") if proves else None
            told = wire.Told("opened", verdict, looks_again, spread=self._spread())
            self._courier.tell(wire.settle(self._keys, ticket, self._named(ticket.attempt), told), urgent=proves)
        return self._settled(ticket)

    def settle(self, ticket: Ticket, report: Report) -> Settled:
        """An attempt ended. A second report of the same attempt changes nothing."""
        if self._turn.postponed(lambda: self.settle(ticket, report)):
            return CALM_SETTLED
        held = self._holding.pop(ticket.attempt, None)
        if ticket.attempt in self._own:
            self._own.discard(ticket.attempt)
            if held is not None and self._courier.up:  # it was told of when Redis came back
                self._courier.tell(self._release(held))
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
                told = wire.Told(ErrorKind.CANCELLED, _NEUTRAL, looks_again=False)
                self._owe(wire.settle(self._keys, ticket, self._named(ticket.attempt), told, report))
                return note_settled(route, account, here, report, now, self._spread)
            before = route.explored_at
            verdict = note_here(route, ticket, report, now)
            blocked = note_blocks(account, here, report, now)
            if report.kind is None and report.seconds is not None and (report.whole or not ticket.stream):
                self._sample(ticket.target, report.seconds, stream=False)
            told = wire.Told(
                report.kind or "ok", verdict, route.explored_at != before,
                int(report.retry_after * SECOND) if report.retry_after else 0,
                0 if verdict.outcome == "success" and not verdict.slow else self._spread(),
            )  # fmt: skip
        operation = wire.settle(self._keys, ticket, self._named(ticket.attempt), told, report)
        if not ticket.leased:
            self._courier.tell(operation, urgent=report.kind is not None)
        else:
            self._unsure[ticket.attempt] = ticket
            self._courier.tell(operation, then=partial(self._told, ticket.attempt))
        return self._settled(ticket, blocked)

    def _settled(self, ticket: Ticket, blocked: CredentialBlocked | None = None) -> Settled:
        with self._turn:
            route, account = self._route(ticket.target), self._account(ticket.target)
            left = max(0, account.blocked_until - self._now()) / SECOND
            return Settled(
                route.circuit.phase, () if blocked is None else (blocked,), left, route.budget > budget.FLOOR
            )

    # ---------------------------------------------------------------------------------------------------- what comes
    def _dated(self, now: int, epoch: int) -> None:
        """Every batch comes back with the server's time and the number of changes so far."""
        ours = self._now()
        self._ahead = now - ours
        changed = epoch != self._epoch
        if changed or ours - self._beat_at >= BEAT_EVERY_US:
            self._beat_at = ours
            self._courier.tell(wire.beat(self._keys, BEAT_LIVES_US), then=self._counted)
            self._compare(now // WINDOW_US)
            if not self._alone:
                self._hearers.alone(None)  # after a fork, a child's own
        if changed:
            self._epoch = epoch
            self._read_again()

    def _compare(self, window: int) -> None:
        """Put the new latencies where all count them, and take the others'; of a new window also what came late into the one before it."""
        windows = (window,) if window == self._window else (window - 1, window)
        self._window = window
        for target in {target.route: target for target in tuple(self._known.values())}.values():
            with self._turn:
                sketch = self._sketches.setdefault(target.route, Sketch())
                given = [(each, sketch.give(each) if each == window else {}) for each in windows]
            for each, counts in given:
                self._courier.tell(
                    wire.sketch(self._keys, target, each, counts), urgent=False,
                    then=partial(self._compared, self._route(target), sketch, each),
                )  # fmt: skip

    def _compared(self, route: Route, sketch: Sketch, window: int, reply: Any) -> None:
        with self._turn:
            now = self._now() / SECOND
            for stream, bucket, samples in sketch.take(window, wire.read_sketch(reply)):
                route.latency.timings(stream=stream).summary.count(bucket, samples, now)

    def _sample(self, target: Target, seconds: float, *, stream: bool) -> None:
        sketch = self._sketches.get(target.route)
        if sketch is None:
            sketch = self._sketches[target.route] = Sketch()
        sketch.sample(seconds, stream=stream)

    def _counted(self, reply: Any) -> None:
        self._processes = max(1, int(wire.text(reply)))

    def _heard(self, message: bytes) -> None:
        """News of the fleet: something changed, or the first of a line may ask again."""
        kind, _, name = message.decode().partition(" ")
        if kind != "wake":
            self._read_again()
            if kind != "changed":  # the news was cut off, and a call may have been among what was lost
                self._call(None)
            return
        process, _, attempt = name.partition(":")
        if process == self._process:
            self._call(int(attempt))

    def _call(self, attempt: int | None) -> None:
        """Let somebody who stands in a line ask again, or (None) all of them."""
        with self._turn:
            if attempt is None:
                found = list(self._standing.values())
            elif (standing := self._standing.get(attempt)) is not None:
                found = [standing]
            else:
                found = []
                if len(self._called) >= MOST_CALLED:
                    self._called.clear()
                self._called.add(attempt)
            for standing in found:
                standing.place.woken = True
        for standing in found:
            if standing.place.wake is not None:
                standing.place.wake()

    def _read_again(self) -> None:
        self._read(tuple(self._known.values()))

    def _read(self, targets: Sequence[Target]) -> None:
        for part in (targets[at : at + AT_ONCE] for at in range(0, len(targets), AT_ONCE)):
            self._courier.tell(
                wire.view(self._keys, part), urgent=len(targets) <= AT_ONCE, then=partial(self._seen, part)
            )

    def _seen(self, targets: Sequence[Target], reply: Any) -> None:
        self._mirror(targets, wire.read_view(reply))

    def _mirror(self, targets: Sequence[Target], views: Sequence[wire.Seen]) -> None:
        events: list[tuple[str, CircuitChanged | CredentialBlocked]] = []
        with self._turn:
            for target, seen in zip(targets, views, strict=True):
                events += [(target.route, event) for event in self._mirror_one(target, seen)]
        for route, event in events:
            self._hearers.changed(route, event)

    def _mirror_one(self, target: Target, seen: wire.Seen) -> list[CircuitChanged | CredentialBlocked]:
        route, account, ahead, now = self._route(target), self._account(target), self._ahead, self._now()
        state, before = seen.circuit, route.circuit.phase
        route.circuit = state._replace(until=state.until - ahead, raced_at=state.raced_at - ahead)
        route.override = seen.override
        route.explored_at = seen.explored_at - ahead
        account.scale = seen.scale._replace(since=seen.scale.since - ahead)
        news: list[CircuitChanged | CredentialBlocked] = []
        until, known = seen.blocked_until - ahead, account.blocked_until > now
        account.blocked_until, account.blocked_reason = until, seen.blocked_reason
        if until > now and not known and seen.blocked_reason in {"auth", "quota_exhausted"}:
            news.append(CredentialBlocked(target.name, seen.blocked_reason, (until - now) / SECOND))
        if state.phase != before:
            news.append(CircuitChanged(target.name, before, state.phase, seen.reason))
        return news

    # ---------------------------------------------------------------------------------------------------- on our own
    def _changed(self, up: bool, reason: str) -> None:
        """Redis went away, or is back."""
        with self._turn:
            self._alone = not up
            for target in self._known.values():
                self._ration(target, self._account(target))
        if up:
            self._come_back()
        self._hearers.alone(None if up else reason)
        if not up:  # nobody will call them to the front of a line that is out of reach
            self._call(None)

    def _account(self, target: Target) -> Account:
        account = self._accounts.get(target.account)
        if account is None:
            account = super()._account(target)
            self._known.setdefault((target.route, target.account), target)
            if self._alone:
                self._ration(target, account)
        return account

    def _ration(self, target: Target, account: Account) -> None:
        """Alone: a fair share of the limits, from empty buckets, as nobody knows what the others took. Together: Redis counts."""
        now = self._now()
        account.share = max(1, ALONE_SHARE // self._processes) if self._alone else FULL
        account.tats.clear()
        account.leases.clear()
        if self._alone:
            account.leases.update(
                {
                    attempt: now + LEASE_US
                    for attempt, it in self._holding.items()
                    if it.target.account == target.account
                }
            )
            scale = account.scale_at(now)
            account.tats.update({item.name: now + capacity(item, scale) for item in target.dimensions})
        else:
            account.line.wake_all()

    def _connected(self) -> None:
        """What was asked or told when the last connection broke did perhaps come, or not: so again, what does no harm twice.

        First what gives places back, then what counts those who hold one.
        """
        for attempt, asked in tuple(self._ghosts.items()):
            targets = [candidate.target for candidate in asked.candidates]
            self._courier.tell(wire.cancel(self._keys, targets, self._named(attempt)))
            self._ghosts.pop(attempt, None)
        for attempt, ticket in tuple(self._unsure.items()):
            self._courier.tell(self._release(ticket), then=partial(self._told, attempt))
        for ticket in tuple(self._holding.values()):
            self._courier.tell(wire.hold(self._keys, ticket, self._named(ticket.attempt), LEASE_US))

    def _told(self, attempt: int, _: Any) -> None:
        self._unsure.pop(attempt, None)

    def _come_back(self) -> None:
        now = self._now()
        self._beat_at = now - BEAT_EVERY_US
        while self._owed:
            self._courier.tell(self._owed.popleft())
        for pair, target in tuple(self._known.items()):
            if pair in self._due:
                self._courier.tell(wire.override(self._keys, target, self._due.pop(pair)))
            route, account = self._route(target), self._account(target)
            open_for = max(0, route.circuit.until - now) if route.circuit.phase == "open" else 0
            blocked_for = max(0, account.blocked_until - now)
            if open_for or blocked_for:
                self._courier.tell(
                    wire.carry(
                        self._keys, target, route.circuit.generation, open_for, blocked_for, account.blocked_reason
                    )
                )
        self._read_again()

    def _release(self, ticket: Ticket) -> wire.Operation:
        """Give back what an attempt holds, and nothing else: no harm if it is told twice."""
        told = wire.Told(ErrorKind.CANCELLED, _NEUTRAL, looks_again=False)
        return wire.settle(self._keys, ticket._replace(charged=()), self._named(ticket.attempt), told)

    def forked(self) -> None:
        """In a new child process: it is a process of its own, and what runs or waits is the parent's."""
        super().forked()
        self._process = secrets.token_hex(4)
        self._own.clear()
        self._holding.clear()
        self._ghosts.clear()
        self._called.clear()
        self._standing.clear()
        self._owed.clear()
        self._unsure.clear()
        self._sketches.clear()
        self._hearers.forked()
        self._beat_at = self._now() - BEAT_EVERY_US
        if self._alone:
            # The child asks for itself; its observers are told when it has an answer.
            self._alone = False
            for target in self._known.values():
                self._ration(target, self._account(target))

    # -------------------------------------------------------------------------------------------------------- people
    def override(self, target: Target, mode: Override | None) -> None:
        """Set a circuit aside by hand for the whole fleet, or (None) let it rule again; raises `SettingsError` for an unknown mode.

        While Redis is away it holds in this process, and the fleet is told when Redis is back.
        """
        super().override(target, mode)
        pair = (target.route, target.account)
        self._known[pair] = target
        reply = self._courier.ask(wire.override(self._keys, target, mode)).result()
        if reply is DOWN:
            self._due[pair] = mode

    def status(self, target: Target) -> dict[str, object]:
        """What the fleet knows of one target, for people: seconds, and no secrets. `shared` is False while Redis is away."""
        self._known[(target.route, target.account)] = target
        reply = self._courier.ask(wire.view(self._keys, (target,))).result()
        if reply is DOWN:
            return super().status(target) | {"shared": False}
        seen = wire.read_view(reply)[0]
        self._mirror((target,), (seen,))
        tats = dict(zip(wire.DIMENSIONS, (tat - self._ahead for tat in seen.tats), strict=True))
        with self._turn:
            now = self._now()
            shown = Account()
            shown.tats, shown.scale = tats, self._account(target).scale
            shown.blocked_until, shown.blocked_reason = self._account(target).blocked_until, seen.blocked_reason
            known = self._route(target).status(target, now) | shown.status(target, now)
        return known | {"running": seen.running, "waiting": seen.waiting, "shared": True}

    def flush(self, seconds: float = 0.5) -> None:
        """Send what was told and not sent yet, for at most so long."""
        self._courier.flush(seconds)

    def close(self) -> None:
        """Send what is left, let go of the connection, and count as a process no longer."""
        self._courier.tell(wire.beat(self._keys, 0))
        self._courier.close()


class _Answer(Later):
    """An admission that Redis decides."""

    __slots__ = ("_asked", "_later", "_store")

    def __init__(self, store: RedisStore, asked: _Asked, later: Later) -> None:
        self._store = store
        self._asked = asked
        self._later = later

    def result(self) -> Ticket | Queued | Refused:
        """Wait for it in this thread."""
        return self._store.answered(self._asked, self._later.result())

    def __await__(self) -> Generator[Any, None, Ticket | Queued | Refused]:
        """Wait for it in this task."""
        return self._store.answered(self._asked, (yield from self._later.__await__()))
