"""The sync driver."""

from __future__ import annotations

import math
import queue
import threading
from collections.abc import Callable, Generator
from typing import Any

from langchain_resilient.engine.drive.common import (
    AT_STORE,
    LEASE,
    RENEW_EVERY,
    Gone,
    Held,
    keep_lease,
    listen,
    not_known,
)
from langchain_resilient.engine.drive.threads import THREADS, PumpedStream, Running
from langchain_resilient.engine.effects import (
    Abandon,
    Answered,
    Call,
    Detach,
    Effect,
    End,
    Failed,
    Later,
    Plan,
    Pull,
    Race,
    Raced,
    Show,
    Sleep,
    Store,
    Upstream,
)
from langchain_resilient.engine.errors import AttemptTimeoutError, LocalFaultError
from langchain_resilient.engine.policy import Clock


def stream(plan: Plan, hands: Hands) -> Generator[Any, None, Any]:
    """Perform a plan in this thread; yields what it shows, returns what it returns."""
    reply: Any = None
    error: BaseException | None = None
    held = Held()
    while True:
        try:
            effect = plan.send(reply) if error is None else plan.throw(error)
        except StopIteration as done:
            return done.value
        except Gone:
            for opened in held.let_go(hands.store):
                opened.close()
            return None
        reply = error = None
        try:
            if isinstance(effect, Show):
                yield effect.chunk
            else:
                at_store = AT_STORE.get(type(effect))
                reply = hands.perform(effect) if at_store is None else at_store(hands.store, effect)
                if isinstance(reply, Later):
                    reply = reply.result()
                held.note(effect, reply)
        except GeneratorExit:
            error = Gone()
        except BaseException as raised:  # noqa: BLE001  # the plan decides what it means
            error = raised


def run(plan: Plan, hands: Hands) -> Any:
    """Perform a plan that shows nothing, in this thread."""
    reply: Any = None
    error: BaseException | None = None
    while True:
        try:
            effect = plan.send(reply) if error is None else plan.throw(error)
        except StopIteration as done:
            return done.value
        reply = error = None
        try:
            at_store = AT_STORE.get(type(effect))
            reply = hands.perform(effect) if at_store is None else at_store(hands.store, effect)
            if isinstance(reply, Later):
                reply = reply.result()
        except BaseException as raised:  # noqa: BLE001  # the plan decides what it means
            error = raised


def _decided(runners: list[Running], fates: dict[Running, Answered | Failed]) -> bool:
    """Whether a race is: one has answered, or any but the first has failed."""
    return any(isinstance(fate, Answered) or runner is not runners[0] for runner, fate in fates.items())


class Hands:
    """Performs effects in the caller's thread."""

    __slots__ = ("clock", "store", "upstream")

    def __init__(self, store: Store, upstream: Upstream, clock: Clock) -> None:
        self.store = store
        self.upstream = upstream
        self.clock = clock

    def perform(self, effect: Effect) -> Any:
        """Do what one effect says."""
        if isinstance(effect, Pull):
            return self._pull(effect)
        if isinstance(effect, Call):
            return self._call(effect)
        if isinstance(effect, Sleep):
            self._sleep(effect)
            return None
        if isinstance(effect, Race):
            return self._race(effect)
        if isinstance(effect, Detach):
            self._follow(effect)
            return None
        if isinstance(effect, Abandon):
            effect.running.abandon() if isinstance(effect.running, Running) else effect.running.close()
            return None
        raise not_known(effect)

    def _sleep(self, effect: Sleep) -> None:
        if effect.place is None:
            self.clock.sleep(effect.seconds)
            return
        event = threading.Event()
        listen(effect.place, event.set)
        self.clock.sleep(effect.seconds, event)

    def _call(self, call: Call) -> Answered | Failed:
        target = call.ticket.target
        if not call.ticket.stream and self.upstream.keeps_time(target, call.limit):
            if call.ticket.leased:
                self.store.renew(call.ticket, call.limit + LEASE)
            return self._attempt(call)
        running = self._begin(call)
        try:
            fate = self._await(running)
        except BaseException:
            running.abandon()
            raise
        if running.raised is not None:
            raise running.raised
        return fate

    def _begin(self, call: Call, done: Callable[[Running], None] | None = None) -> Running:
        running = Running(call, self._attempt, self.clock.now() + call.limit, done)
        running.begin()
        return running

    def _await(self, running: Running) -> Answered | Failed:
        while running.fate is None and (left := running.until - self.clock.now()) > 0:
            if not running.finished.wait(min(left, RENEW_EVERY)):
                self._renew(running)
        return running.fate or self._out_of_time(running)

    def _renew(self, running: Running) -> None:
        if running.call.ticket.leased:
            self.store.renew(running.call.ticket, LEASE)

    @staticmethod
    def _out_of_time(running: Running) -> Failed:
        running.abandon()
        call = running.call
        return Failed(AttemptTimeoutError(call.limited_by, call.limit), call.limit)

    def _follow(self, effect: Detach) -> None:
        """Let a losing probe run on to its answer or its limit, with its lease renewed."""
        running: Running = effect.running

        def to_its_end() -> None:
            run(effect.then(self._await(running)), self)

        try:
            THREADS.start(to_its_end, running.call.ticket.target.route)
        except LocalFaultError:  # too many hang already: then without a limit, and its lease lapses
            running.afterwards(lambda fate: run(effect.then(fate), self))

    def _attempt(self, call: Call) -> Answered | Failed:
        """One attempt, in this thread, for as long as it takes."""
        began = self.clock.now()
        try:
            target = call.ticket.target
            value = self._open(call) if call.ticket.stream else self.upstream.call(target)
        except Exception as error:  # noqa: BLE001  # a reply, like every failure of a provider
            return Failed(error, self.clock.now() - began)
        seconds = self.clock.now() - began
        return Failed(value.error, seconds) if isinstance(value, Failed) else Answered(value, seconds)

    def _open(self, call: Call) -> PumpedStream | Failed:
        target, upstream = call.ticket.target, self.upstream
        chunks = upstream.stream(target) if call.begun is None else upstream.stream(target, call.begun)
        opened = PumpedStream(chunks, target.route)
        opened.begin()
        while True:
            item = opened.pull(None)  # the limit is kept by whoever waits for this thread
            if isinstance(item, Failed):
                return item
            if isinstance(item, End):
                return opened
            opened.head.append(item)
            if self.upstream.has_content(item):
                return opened

    def _pull(self, effect: Pull) -> Any:
        keep_lease(self.store, self.clock, effect.stream, effect)
        try:
            return effect.stream.pull(effect.limit)
        except queue.Empty:
            return Failed(AttemptTimeoutError(effect.limited_by, effect.limit), effect.limit)

    def _race(self, race: Race) -> Raced:
        ends: queue.SimpleQueue[Running] = queue.SimpleQueue()
        earlier: Running | None = race.running
        if earlier is not None:
            earlier.afterwards(lambda _: ends.put(earlier))  # it was told to report to another race
        runners = [] if earlier is None else [earlier]
        runners += [self._begin(call, ends.put) for call in race.calls]
        # What ends after its limit has failed already, and its stream is closed: only the first fate counts.
        fates: dict[Running, Answered | Failed] = {runner: runner.fate for runner in runners if runner.fate is not None}
        patience = math.inf if race.patience is None else self.clock.now() + race.patience
        try:
            while len(fates) < len(runners) and not _decided(runners, fates):
                waiting = [runner for runner in runners if runner not in fates]
                if (end := self._next_end(ends, waiting, patience)) is None:
                    break
                ended, fate = end
                if ended not in fates and ended.raised is not None:
                    raise ended.raised
                fates.setdefault(ended, fate)
        except BaseException:
            for runner in runners:
                runner.abandon()
            raise
        running = next((runner for runner in runners if runner not in fates), None)
        return Raced(tuple([fates.get(runner) for runner in runners]), running)

    def _next_end(
        self, ends: queue.SimpleQueue[Running], waiting: list[Running], patience: float
    ) -> tuple[Running, Answered | Failed] | None:
        """Whoever answers, fails or is out of time next; None if nobody does before `patience` is over."""
        soonest = min(waiting, key=lambda running: running.until)
        while (left := min(soonest.until, patience) - self.clock.now()) > 0:
            try:
                ended = ends.get(timeout=min(left, RENEW_EVERY))
            except queue.Empty:
                for running in waiting:
                    self._renew(running)
            else:
                return ended, ended.fate or self._out_of_time(ended)
        if patience < soonest.until and soonest.fate is None:
            return None
        return soonest, soonest.fate or self._out_of_time(soonest)
