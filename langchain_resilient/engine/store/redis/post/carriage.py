"""The carrying: one batch out, its replies given out to who waits for them, and what becomes of both where that fails.

Rules of this file
------------------
* Whoever holds `wire.free` carries, for itself and all others. A reply is given out once: to who takes the letter out of `open`.
* A reply that nobody waits for any more is given back through `orphaned`.
* A wire on which anything failed is given up, save for an error of the script: that is an answer.
* A Ctrl-C may hit between any two steps: whoever was in that batch is answered, and the wire is given up.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

from langchain_resilient.engine.store.redis.post.breaker import Breaker
from langchain_resilient.engine.store.redis.post.callbacks import Callbacks
from langchain_resilient.engine.store.redis.post.letters import DOWN, UNSET, Desk, Letter, Sleepers
from langchain_resilient.engine.store.redis.post.line import Wire
from langchain_resilient.engine.store.redis.post.mailbag import Mailbag, Then
from langchain_resilient.engine.store.redis.post.troubles import Trouble
from langchain_resilient.engine.store.redis.wire import Operation

LOGGER = logging.getLogger("langchain_resilient")


class Carriage:
    """Carries what is in one mailbag over one wire after another.

    Args:
        bag: What is to be carried.
        breaker: Told how it went.
        callbacks: Who is told what.
        process: This process's id.
        clock: The script's time, µs; None: the server's.
    """

    def __init__(
        self, bag: Mailbag, breaker: Breaker, callbacks: Callbacks, process: str, clock: Callable[[], int] | None
    ) -> None:
        self.wire: Wire | None = None
        """The wire in use."""
        self.sleepers = Sleepers(bag.open)
        self.bag, self.breaker, self.callbacks = bag, breaker, callbacks
        self._process = process
        self._clock = clock

    def head(self) -> tuple[str, str]:
        """What every batch begins with."""
        return ("" if self._clock is None else str(self._clock()), self._process)

    def turn(self, wire: Wire, now: float, limit: float | None = None) -> None:
        """Carry one batch, for at most `limit` seconds (None: the budget); `wire.free` is held."""
        if wire is not self.wire:
            return
        if wire.stale(now):
            self.lose(wire, Trouble("lost", "the server closed the connection"), counts=False)
            return
        head = self.head()
        operations, receivers = self.bag.batch()
        if not operations:
            return
        try:
            for part in wire.parts(operations):
                if part is None:
                    self._run(wire, head, operations, receivers, limit)
                else:
                    its = [operations[place] for place in part]
                    self._run(wire, head, its, [receivers[place] for place in part], limit)
        except Trouble as why:
            self.lose(wire, why)
            self._answer_down(receivers)
        except Exception:
            LOGGER.exception("%s: the courier made a mistake", self.callbacks.shown)
            self.lose(wire, Trouble("lost", "a mistake of the courier's, see the log"))
            self._answer_down(receivers)
        except BaseException:
            # Ctrl-C: the reply is still to come, so this connection can't be used again.
            self.lose(wire, Trouble("lost", "the exchange was interrupted"), counts=False)
            self._answer_down(receivers)
            raise

    def _run(
        self,
        wire: Wire,
        head: Sequence[str],
        operations: list[Operation],
        receivers: list[Letter | Then],
        limit: float | None,
    ) -> None:
        now, epoch, replies = wire.run(operations, head, limit)
        self.breaker.worked()
        self.callbacks.tell(self.callbacks.adopt, now, epoch)
        self._answer(receivers, replies)

    def pass_on(self) -> None:
        """The wire was given back: see to it that somebody carries what has come meanwhile."""
        if self.bag.pressing and not self.sleepers.wake_one():
            self.bag.ring()

    # --------------------------------------------------------------------------------------------------------- the replies
    def _answer(self, receivers: Sequence[Letter | Then], replies: Sequence[Any]) -> None:
        opened, callbacks = self.bag.open, self.callbacks
        desks: set[Desk] = set()
        told: list[tuple[Callable[..., object], tuple[Any, ...]]] = []
        for receiver, reply in zip(receivers, map(self._sound, replies), strict=True):
            if isinstance(receiver, Letter):
                # First the reply, then out of `open`: whoever finds the letter gone finds the reply.
                receiver.reply = reply
                if opened.pop(receiver, receiver) is None:
                    receiver.wake(desks)
                elif reply is not DOWN:
                    told.append((callbacks.orphaned, (receiver.operation, reply)))
            elif receiver is not None and reply is not DOWN:
                told.append((receiver, (reply,)))
        for desk in desks:
            desk.call()
        for function, arguments in told:
            callbacks.tell(function, *arguments)

    def _sound(self, reply: Any) -> Any:
        """A reply, or DOWN where the script put an error in its place."""
        if isinstance(reply, Trouble):
            self.callbacks.complain(reply)
            return DOWN
        return reply

    def _answer_down(self, receivers: Sequence[Letter | Then]) -> None:
        # Open, with a reply: a Ctrl-C came in between.
        opened = self.bag.open
        left = [it for it in receivers if isinstance(it, Letter) and (it.reply is UNSET or it in opened)]
        self._answer(left, [DOWN if letter.reply is UNSET else letter.reply for letter in left])

    def dismiss(self) -> None:
        """Answer all who wait, and drop what was told."""
        self._answer_down(self.bag.emptied())

    # --------------------------------------------------------------------------------------------------------- the failures
    def lose(self, wire: Wire, why: Trouble, *, counts: bool = True) -> None:
        """An exchange failed."""
        if why.kind == "script":
            self.callbacks.complain(why)
            return
        wire.close()
        if wire is self.wire:
            self.wire = None
            self.fail(why, counts=counts)

    def fail(self, why: Trouble, *, counts: bool = True) -> None:
        """There is no wire. Whoever waits is answered if that means that there will be none for some time."""
        reason = self.breaker.failed(why, counts=counts)
        if reason is not None:
            self.dismiss()
            self.callbacks.tell(self.callbacks.changed, False, reason)  # noqa: FBT003  # the callback's own signature
        self.bag.ring()

    def take(self, wire: Wire) -> None:
        """Here is a wire that works."""
        self.wire = wire
        if self.breaker.connected():
            self.callbacks.tell(self.callbacks.changed, True, "")  # noqa: FBT003  # the callback's own signature
        self.callbacks.tell(self.callbacks.connected)
