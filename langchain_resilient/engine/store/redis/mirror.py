"""What this process knows of the fleet, and what it makes of it while Redis is away.

Rules of this file
------------------
* A mirror is a memory store that follows what Redis last said. Nothing is asked for it on a request's way: every batch comes back with the
  number of changes so far, and a new number, or news, has all known providers read again.
* Times come in µs of the server's clock, and are kept in ours.
* Alone it decides as a memory store does, on a fair share of the limits; back, it tells the fleet what it found out meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from langchain_resilient.engine.effects import Ticket
from langchain_resilient.engine.events import CircuitChanged, CredentialBlocked, Event
from langchain_resilient.engine.policy import Target
from langchain_resilient.engine.quota import FULL, capacity
from langchain_resilient.engine.store.account import SECOND, Account
from langchain_resilient.engine.store.memory import MemoryStore
from langchain_resilient.engine.store.redis import wire
from langchain_resilient.engine.store.redis.exchange import Exchange
from langchain_resilient.engine.store.redis.fleet import BEAT_LIVES_US, share_alone
from langchain_resilient.engine.store.redis.hearers import Hearers
from langchain_resilient.engine.store.redis.post.courier import DOWN, Courier
from langchain_resilient.engine.store.state import LEASE_US, Override, Route

BEAT_EVERY_US = 3 * SECOND
MOST_KNOWN = 256
"""Providers that are read again with each change, before those without a living model are forgotten."""
AT_ONCE = 64
"""Providers that one operation reads: the server does nothing else meanwhile."""

News = CircuitChanged | CredentialBlocked


class Mirror(MemoryStore):
    """A memory store that follows what Redis says.

    Args:
        keys: The namespace's.
        courier: Makes who carries the operations, given what is to be told of them.
        now: Seconds, monotonic.
        rand: Uniform in [0, 1): jitters open times.
    """

    def __init__(
        self, keys: wire.Keys, courier: Callable[..., Courier], *, now: Callable[[], float], rand: Callable[[], float]
    ) -> None:
        super().__init__(now, rand)
        self._keys = keys
        self._known: dict[tuple[str, str], Target] = {}
        self._holding: dict[int, Ticket] = {}
        """Attempts under way that hold one of a provider's places, whoever granted it."""
        self._epoch = -1
        self._ahead = 0
        """µs that the server's clock is ahead of ours."""
        self._processes = 1
        self._beat_at = -BEAT_EVERY_US
        self._alone = False
        self._due: dict[tuple[str, str], Override | None] = {}
        """Overrides that the fleet has not been told of."""
        self._courier = courier(
            channel=keys.channel, probe=wire.probe(keys), adopt=self._dated, heard=self._heard, changed=self._changed
        )
        self.place = f"{self._courier.shown} {keys.prefix}"
        self._hearers = Hearers(self._courier.aside, self.place)
        self._exchange = Exchange(keys, self._courier, self._turn, self._now)

    def check(self) -> None:
        """Raise `SettingsError` if the server is there and refuses this user."""
        self._courier.check()

    def listen(self, observe: Callable[[Event], object], targets: Sequence[Target]) -> None:
        """Tell an observer, for as long as it lives, what changes in the fleet about these."""
        self._hearers.add(observe, targets)
        with self._turn:
            if len(self._known) >= MOST_KNOWN:  # a model for each customer: those that are gone need no news
                heard = self._hearers.providers()
                self._known = {pair: target for pair, target in self._known.items() if pair in heard}
            self._known.update({(target.route, target.account): target for target in targets})
        self._read(targets)

    # ---------------------------------------------------------------------------------------------------- what comes
    def _dated(self, now: int, epoch: int) -> None:
        """Every batch comes back with the server's time and the number of changes so far."""
        ours = self._now()
        self._ahead = now - ours
        changed = epoch != self._epoch
        if changed or ours - self._beat_at >= BEAT_EVERY_US:
            self._beat_at = ours
            self._courier.tell(wire.beat(self._keys, BEAT_LIVES_US), then=self._counted)
            routes = {target.route: (target, self._route(target)) for target in tuple(self._known.values())}
            self._exchange.compare(routes.values(), now)
            if not self._alone:
                self._hearers.alone(None)  # after a fork, a child's own
        if changed:
            self._epoch = epoch
            self._read_again()

    def _counted(self, reply: Any) -> None:
        self._processes = max(1, int(wire.text(reply)))

    def _heard(self, message: bytes) -> None:
        """News of the fleet: whatever it says, something may have changed."""
        self._read_again()

    def _read_again(self) -> None:
        self._read(tuple(self._known.values()))

    def _read(self, targets: Sequence[Target]) -> None:
        for part in (targets[at : at + AT_ONCE] for at in range(0, len(targets), AT_ONCE)):
            self._courier.tell(
                wire.view(self._keys, part), urgent=len(targets) <= AT_ONCE, then=partial(self._seen, part)
            )

    def _seen(self, targets: Sequence[Target], reply: Any) -> None:
        self._follow(targets, wire.read_view(reply))

    def _follow(self, targets: Sequence[Target], views: Sequence[wire.Seen]) -> None:
        events: list[tuple[str, News]] = []
        with self._turn:
            now = self._now()
            for target, seen in zip(targets, views, strict=True):
                news = mirrored(target, self._route(target), self._account(target), seen, self._ahead, now)
                events += [(target.route, event) for event in news]
        for route, event in events:
            self._hearers.changed(route, event)

    # ---------------------------------------------------------------------------------------------------- on our own
    def is_alone(self) -> bool:
        """Whether Redis can't be reached now, as far as this process knows."""
        return self._alone

    def _changed(self, up: bool, reason: str) -> None:  # a callback's only words
        """Redis went away, or is back."""
        with self._turn:
            self._alone = not up
            self._ration_all()
        if up:
            self._come_back()
        self._hearers.alone(None if up else reason)

    def _account(self, target: Target) -> Account:
        account = self._accounts.get(target.account)
        if account is None:
            account = super()._account(target)
            self._known.setdefault((target.route, target.account), target)
            if self._alone:
                self._ration(target, account)
        return account

    def _ration_all(self) -> None:
        for target in self._known.values():
            self._ration(target, self._account(target))

    def _ration(self, target: Target, account: Account) -> None:
        """Alone: a fair share of the limits, from empty buckets, as nobody knows what the others took. Together: Redis counts."""
        now = self._now()
        account.share = share_alone(self._processes) if self._alone else FULL
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

    def _come_back(self) -> None:
        now = self._now()
        self._beat_at = now - BEAT_EVERY_US
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

    def forked(self) -> None:
        """In a new child process: it is a process of its own, and what runs or waits is the parent's."""
        super().forked()
        self._holding.clear()
        self._exchange.forked(self._turn)
        self._hearers.forked()
        self._beat_at = self._now() - BEAT_EVERY_US
        if self._alone:
            # The child asks for itself; its observers are told when it has an answer.
            self._alone = False
            self._ration_all()

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

    def reset(self, target: Target, *, blocks: bool = True) -> tuple[CircuitChanged, ...]:
        """As in memory, for the whole fleet, whose observers hear of it as of any change.

        While Redis is away it holds in this process; of all that the fleet is told later that nothing is set by hand any more.
        """
        pair = (target.route, target.account)
        self._known[pair] = target
        reply = self._courier.ask(wire.reset(self._keys, target, blocks=blocks)).result()
        if reply is DOWN:
            self._due[pair] = None
            return super().reset(target, blocks=blocks)
        self.status(target)  # which follows the fleet: the next request of this process knows
        return ()

    def status(self, target: Target) -> dict[str, object]:
        """What the fleet knows of one target, for people: seconds, and no secrets. `shared` is False while Redis is away."""
        self._known[(target.route, target.account)] = target
        reply = self._courier.ask(wire.view(self._keys, (target,))).result()
        if reply is DOWN:
            return super().status(target) | {"shared": False}
        seen = wire.read_view(reply)[0]
        self._follow((target,), (seen,))
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


def mirrored(target: Target, route: Route, account: Account, seen: wire.Seen, ahead: int, now: int) -> list[News]:
    """Take over what Redis keeps of a provider; what is new in it.

    Args:
        target: The provider.
        route: What is kept here of it.
        account: What is kept here of the credential.
        seen: What Redis keeps of both.
        ahead: µs that the server's clock is ahead of ours.
        now: µs of ours.
    """
    state, before = seen.circuit, route.circuit.phase
    route.circuit = state._replace(until=state.until - ahead, raced_at=state.raced_at - ahead)
    route.override = seen.override
    route.explored_at = seen.explored_at - ahead
    account.scale = seen.scale._replace(since=seen.scale.since - ahead)
    until, was_blocked = seen.blocked_until - ahead, account.blocked_until > now
    account.blocked_until, account.blocked_reason = until, seen.blocked_reason
    news: list[News] = []
    if until > now and not was_blocked and seen.blocked_reason in {"auth", "quota_exhausted"}:
        news.append(CredentialBlocked(target.name, seen.blocked_reason, (until - now) / SECOND))
    if state.phase != before:
        news.append(CircuitChanged(target.name, before, state.phase, seen.reason))
    return news
