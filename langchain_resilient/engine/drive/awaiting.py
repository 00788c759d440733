"""The async driver."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import suppress
from typing import Any

from langchain_resilient.engine.drive.cancelling import Limit, cancel
from langchain_resilient.engine.drive.common import (
    AT_STORE,
    LEASE,
    RENEW_EVERY,
    Gone,
    Held,
    OpenStream,
    keep_lease,
    listen,
    not_known,
)
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
    Ticket,
    Upstream,
)
from langchain_resilient.engine.errors import AttemptTimeoutError, LocalFaultError
from langchain_resilient.engine.policy import Clock


async def astream(plan: Plan, hands: AsyncHands) -> AsyncGenerator[Any, None]:
    """Perform a plan in this task; yields what it shows."""
    reply: Any = None
    error: BaseException | None = None
    held = Held()
    while True:
        try:
            effect = plan.send(reply) if error is None else plan.throw(error)
        except StopIteration:
            return
        except Gone:
            await _close(held.let_go(hands.store))
            return
        reply = error = None
        if isinstance(effect, Show):
            try:
                yield effect.chunk
            except GeneratorExit:
                error = Gone()
            except BaseException as raised:  # noqa: BLE001  # the plan decides what it means
                error = raised
            continue
        try:
            at_store = AT_STORE.get(type(effect))
            reply = await hands.perform(effect) if at_store is None else at_store(hands.store, effect)
            if isinstance(reply, Later):
                reply = await reply
            held.note(effect, reply)
        except GeneratorExit:
            _let_go(plan, hands.store)
            raise
        except BaseException as raised:  # noqa: BLE001  # the plan decides what it means
            error = raised


async def _close(streams: list[AwaitedStream]) -> None:
    for opened in streams:
        await opened.close()


async def arun(plan: Plan, hands: AsyncHands) -> Any:
    """Perform a plan that shows nothing, in this task."""
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
            reply = await hands.perform(effect) if at_store is None else at_store(hands.store, effect)
            if isinstance(reply, Later):
                reply = await reply
        except GeneratorExit:
            _let_go(plan, hands.store)
            raise
        except BaseException as raised:  # noqa: BLE001  # the plan decides what it means
            error = raised


def _let_go(plan: Plan, store: Store) -> None:
    """The loop is closed under a waiting task: nothing can be awaited any more, but what is held can be given back."""
    error: BaseException | None = Gone()
    reply: Any = None
    with suppress(StopIteration, Gone):
        while True:
            effect = plan.send(reply) if error is None else plan.throw(error)
            at_store = AT_STORE.get(type(effect))
            reply, error = (None if at_store is None else at_store(store, effect)), None


_DETACHED: set[asyncio.Task[None]] = set()


async def drain() -> None:
    """End the detached probes of this event loop: each is cancelled, and settled as neutral."""
    loop = asyncio.get_running_loop()
    await asyncio.sleep(0)  # a task that is cancelled before it has begun would settle nothing
    tasks = [task for task in tuple(_DETACHED) if task.get_loop() is loop]
    await asyncio.gather(*map(cancel, tasks))


class AwaitedStream(OpenStream):
    """A provider's async stream."""

    def __init__(self, chunks: AsyncIterator[Any]) -> None:
        super().__init__()
        self.chunks = chunks

    async def close(self) -> None:
        """Stop reading, and let go of the connection."""
        close = getattr(self.chunks, "aclose", None)
        if close is not None:
            await close()


class AsyncHands:
    """Performs effects in the caller's task."""

    __slots__ = ("clock", "store", "upstream")

    def __init__(self, store: Store, upstream: Upstream, clock: Clock) -> None:
        self.store = store
        self.upstream = upstream
        self.clock = clock

    async def perform(self, effect: Effect) -> Any:
        """Do what one effect says."""
        if isinstance(effect, Pull):
            return await self._pull(effect)
        if isinstance(effect, Call):
            return await self._call(effect)
        if isinstance(effect, Sleep):
            await self._sleep(effect)
            return None
        if isinstance(effect, Race):
            return await self._race(effect)
        if isinstance(effect, Detach):
            task = asyncio.create_task(self._follow(effect))
            _DETACHED.add(task)
            task.add_done_callback(_DETACHED.discard)
            return None
        if isinstance(effect, Abandon):
            await self._abandon(effect.running)
            return None
        raise not_known(effect)

    async def _sleep(self, effect: Sleep) -> None:
        if effect.place is None:
            await self.clock.asleep(effect.seconds)
            return
        event, loop = asyncio.Event(), asyncio.get_running_loop()

        def wake() -> None:
            with suppress(RuntimeError):  # its loop is closed, so the waiter is gone: no matter for whoever wakes it
                loop.call_soon_threadsafe(event.set)

        listen(effect.place, wake)
        await self.clock.asleep(effect.seconds, event)

    async def _call(self, call: Call) -> Answered | Failed:
        began = self.clock.now()
        renewal = _Renewal(self.store, call.ticket) if call.ticket.leased else None
        target = call.ticket.target
        try:
            with Limit(call.limit) as limit:
                value = await (self._open(call, limit) if call.ticket.stream else self.upstream.acall(target))
        except Exception as error:  # noqa: BLE001  # a reply, like every failure of a provider
            if isinstance(error, TimeoutError) and limit.expired:
                error = AttemptTimeoutError(call.limited_by, call.limit)
            return Failed(error, self.clock.now() - began)
        finally:
            if renewal is not None:
                renewal.stop()
        return Answered(value, self.clock.now() - began)

    async def _open(self, call: Call, limit: Limit) -> AwaitedStream:
        target = call.ticket.target
        opened = AwaitedStream(
            self.upstream.astream(target) if call.begun is None else self.upstream.astream(target, call.begun)
        )
        try:
            async for chunk in opened.chunks:
                limit.check()
                opened.head.append(chunk)
                if self.upstream.has_content(chunk):
                    return opened
        except BaseException:
            await opened.close()  # it has ended by itself, unless it swallowed the cancellation
            raise
        opened.exhausted = True
        return opened

    async def _pull(self, effect: Pull) -> Any:
        opened = effect.stream
        keep_lease(self.store, self.clock, opened, effect)
        try:
            with Limit(effect.limit) as limit:
                chunk = await anext(opened.chunks)
                limit.check(others=True)  # a chunk that came in the limit's own instant has come
                return chunk
        except StopAsyncIteration:
            opened.exhausted = True
            return End()
        except Exception as error:  # noqa: BLE001  # a reply, like every failure of a provider
            opened.exhausted = True
            if isinstance(error, TimeoutError) and limit.expired:
                error = AttemptTimeoutError(effect.limited_by, effect.limit)
            return Failed(error, 0.0)

    async def _race(self, race: Race) -> Raced:
        tasks = [] if race.running is None else [race.running]
        tasks += [asyncio.create_task(self._call(call)) for call in race.calls]
        pending = set(tasks)
        try:
            while pending:
                done, pending = await asyncio.wait(pending, timeout=race.patience, return_when=asyncio.FIRST_COMPLETED)
                if not done:
                    break
                if any(isinstance(task.result(), Answered) or task is not tasks[0] for task in done):
                    break
        except BaseException:
            for task in tasks:
                task.cancel()
            for task in tasks:
                await self._abandon(task)
            raise
        fates = tuple([task.result() if task.done() else None for task in tasks])
        return Raced(fates, next((task for task in tasks if not task.done()), None))

    async def _follow(self, effect: Detach) -> None:
        try:
            fate = await effect.running
        except asyncio.CancelledError:
            gone = not effect.running.done() or effect.running.cancelled()  # it may have ended in this very moment
            late = Failed(LocalFaultError("the event loop closed before the probe ended"), 0.0)
            fate = late if gone else effect.running.result()
        await arun(effect.then(fate), self)

    @staticmethod
    async def _abandon(running: Any) -> None:
        if isinstance(running, AwaitedStream):
            await running.close()
            return
        await cancel(running)
        fate = None if running.cancelled() or running.exception() else running.result()
        if isinstance(fate, Answered) and isinstance(fate.value, AwaitedStream):
            await fate.value.close()


class _Renewal:
    """Keeps an attempt's leases alive while its task waits."""

    def __init__(self, store: Store, ticket: Ticket) -> None:
        self._store = store
        self._ticket = ticket
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(RENEW_EVERY, self._renew)

    def _renew(self) -> None:
        self._store.renew(self._ticket, LEASE)
        self._timer = self._loop.call_later(RENEW_EVERY, self._renew)

    def stop(self) -> None:
        self._timer.cancel()
