"""What both drivers share: the store's steps, and how a waiter is woken."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from langchain_resilient.engine.classify import ErrorKind
from langchain_resilient.engine.effects import (
    Admit,
    Answered,
    Bury,
    Detach,
    Effect,
    Leave,
    Look,
    Opened,
    Place,
    Pull,
    Raced,
    Report,
    Settle,
    Store,
    Ticket,
)
from langchain_resilient.engine.policy import Clock


class Gone(BaseException):
    """Thrown into a plan whose caller closed the stream."""


RENEW_EVERY = 10.0
"""Seconds after which an attempt's leases are renewed."""
LEASE = 30.0
"""Seconds that a lease lives."""

AT_STORE: dict[type[Effect], Callable[[Store, Any], Any]] = {
    Look: lambda store, effect: store.look(effect),
    Admit: lambda store, effect: store.admit(effect),
    Leave: lambda store, effect: store.leave(effect.place),
    Opened: lambda store, effect: store.opened(effect.ticket, effect.first_token),
    Settle: lambda store, effect: store.settle(effect.ticket, effect.report),
    Bury: lambda _, effect: effect.writing,
}
"""The effects that are one step of the store, or of the box for dead letters."""


def not_known(effect: Effect) -> AssertionError:
    """The error of a driver that was given what it can't do."""
    return AssertionError(f"no driver performs {effect!r}")


def listen(place: Place, wake: Callable[[], object]) -> None:
    """Be woken when a place in a line may go on, even if that was before anybody listened."""
    place.wake = wake
    if place.woken:
        wake()


def keep_lease(store: Store, clock: Clock, stream: OpenStream, pull: Pull) -> None:
    """Renew the leases of a stream that is being read, every `RENEW_EVERY` seconds and for as long as this read may take."""
    if pull.ticket.leased and (now := clock.now()) >= stream.renew_at:
        store.renew(pull.ticket, pull.limit + LEASE)
        stream.renew_at = now + RENEW_EVERY


class Held:
    """What a plan holds: the garbage collector may close it before its driver, and then only the driver can give that back."""

    __slots__ = ("_streams", "_tickets")

    def __init__(self) -> None:
        self._tickets: dict[int, Ticket] = {}
        self._streams: list[Any] = []

    def note(self, effect: Effect, reply: Any) -> None:
        """Keep account of one effect."""
        if isinstance(effect, Pull):  # by far the most
            return
        if isinstance(reply, Ticket):
            self._tickets[reply.attempt] = reply
        elif isinstance(effect, Settle | Detach):  # a probe that runs on reports its own end
            self._tickets.pop(effect.ticket.attempt, None)
        elif isinstance(reply, Answered):
            self._streams.append(reply.value)
        elif isinstance(reply, Raced):
            self._streams += [fate.value for fate in reply.fates if isinstance(fate, Answered)]

    def let_go(self, store: Store) -> list[Any]:
        """Settle what is left, which is nothing if the plan was there to do it; returns the streams, to be closed."""
        for ticket in self._tickets.values():
            store.settle(ticket, Report(ErrorKind.CANCELLED))
        return self._streams


class OpenStream:
    """A provider's stream whose first content has come."""

    def __init__(self) -> None:
        self.head: list[Any] = []
        """The chunks up to the first content."""
        self.exhausted = False
        self.renew_at = 0.0
