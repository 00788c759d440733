"""Shared fakes of the engine's tests: a scripted provider, drivers on a clock that only moves when somebody waits, a world around them.

`World` holds a memory store, a policy and a `FakeClock`, and puts requests to it under one driver or the other. Its hands are the real ones
except where they would need real time: a call that takes longer than its limit, a race, and a chunk that comes late are played on the clock.
`Stepper` performs a plan by hand, one effect at a time, for the scenarios in which several requests are under way.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from langchain_resilient.engine.classify import ErrorKind
from langchain_resilient.engine.classify.headroom import Headroom
from langchain_resilient.engine.drive import AsyncHands, Hands, arun, astream, run, stream
from langchain_resilient.engine.drive.common import AT_STORE
from langchain_resilient.engine.effects import (
    Abandon,
    Admit,
    Answered,
    Begun,
    Call,
    Detach,
    Effect,
    Failed,
    Later,
    Plan,
    Pull,
    Queued,
    Race,
    Raced,
    Refused,
    Report,
    Request,
    Show,
    Ticket,
)
from langchain_resilient.engine.errors import AttemptTimeoutError, LocalFaultError, TruncatedStreamError
from langchain_resilient.engine.events import Admitted, Decided, Decision, Event, Usage
from langchain_resilient.engine.plan import answer
from langchain_resilient.engine.policy import Gate, Policy, Target
from langchain_resilient.engine.store.memory import MemoryStore
from langchain_resilient.engine.store.redis.store import RedisStore
from langchain_resilient.testing.clock import FakeClock


def target(name: str = "a", **settings: Any) -> Target:
    """A provider whose route is its name, with an account of its own unless `account` says otherwise."""
    return Target(name, settings.pop("route", name), settings.pop("account", f"{name}:key"), **settings)


# ----------------------------------------------------------------------------------------------------------- failures
class StatusError(Exception):
    """What an SDK raises for an HTTP error."""

    def __init__(self, status: int, code: str | None, headers: dict[str, str]) -> None:
        super().__init__(f"HTTP {status}")
        self.status_code = status
        self.code = code
        self.headers = headers


def status(code: int, name: str | None = None, *, retry_after: float | None = None, **headers: str) -> StatusError:
    """An HTTP error, with the provider's own code for it and a Retry-After in seconds."""
    hints = {} if retry_after is None else {"retry-after": str(retry_after)}
    return StatusError(code, name, hints | {key.replace("_", "-"): value for key, value in headers.items()})


FAILURES: dict[ErrorKind, Callable[[], Exception]] = {
    ErrorKind.RATE_LIMITED: lambda: status(429),
    ErrorKind.QUOTA_EXHAUSTED: lambda: status(429, "insufficient_quota"),
    ErrorKind.OVERLOADED: lambda: status(503),
    ErrorKind.SERVER_ERROR: lambda: status(500),
    ErrorKind.TIMEOUT: lambda: AttemptTimeoutError("response", 60.0),
    ErrorKind.STREAM_INTERRUPTED: lambda: TruncatedStreamError("cut"),
    ErrorKind.AUTH: lambda: status(401),
    ErrorKind.PERMISSION: lambda: status(403),
    ErrorKind.NOT_FOUND: lambda: status(404),
    ErrorKind.CONTEXT_OVERFLOW: lambda: status(400, "context_length_exceeded"),
    ErrorKind.CONTENT_POLICY: lambda: status(400, "content_filter"),
    ErrorKind.CLIENT_ERROR: lambda: status(400),
    ErrorKind.LOCAL: lambda: LocalFaultError("no thread left"),
    ErrorKind.UNKNOWN: lambda: Exception("something odd"),
}
"""One failure of each kind."""


class GraphBubbleUp(Exception):  # noqa: N818  # LangGraph's own name: `classify` goes by it
    """An interrupt of LangGraph's, on its way through the model to the graph."""


# ------------------------------------------------------------------------------------------------------------ upstream
class Chunk(NamedTuple):
    """One chunk of a stream, or all of an answer."""

    text: str = ""
    finish: str | None = None
    usage: Usage | None = None
    after: float = 0.0
    """Seconds waited for it."""
    headroom: tuple[Headroom, ...] = ()


class Step(NamedTuple):
    """What a provider does when it is asked: answer, stream or raise, after so many seconds."""

    outcome: str | Chunk | Exception | Iterable[Chunk | Exception]
    seconds: float = 0.0


NEVER = Step("too late", 1e9)
"""A provider that says nothing."""
STOP = Chunk(finish="stop")


class ScriptedUpstream:
    """Providers that follow their scripts, the last step for ever.

    Args:
        clock: Moved on by each step's seconds.
        scripts: Per provider the steps; a bare outcome takes no time.
    """

    def __init__(self, clock: FakeClock, scripts: dict[str, Sequence[Any]]) -> None:
        self.clock = clock
        self.scripts = {name: [_step(item) for item in script] for name, script in scripts.items()}
        self.asked: list[str] = []
        self.opened: list[str] = []
        self.closed: list[str] = []
        self.closing = threading.Condition()
        self.begun: list[Begun | None] = []
        """How each stream was asked to go on with a begun answer."""
        self.continues = True
        """Whether what it shows can be continued."""
        self.whole_only: set[str] = set()
        """Who does not stream."""
        self.reads: Callable[[str], object] | None = None
        """Reads whole answers; may raise `InvalidOutputError`."""
        self.skipped: dict[str, float] = {}
        """Seconds of a provider's present step that have passed already, in a race."""

    def peek(self, name: str) -> Step:
        """What the provider will do when it is asked next."""
        script = self.scripts[name]
        done = self.asked.count(name)
        step = script[min(done, len(script) - 1)]
        return step._replace(seconds=max(0.0, step.seconds - self.skipped.get(name, 0.0)))

    def take(self, name: str) -> Step:
        """Ask the provider."""
        step = self.peek(name)
        self.asked.append(name)
        self.skipped.pop(name, None)
        return step

    def call(self, target: Target) -> Any:
        step = self.take(target.name)
        self.clock.advance(step.seconds)
        if isinstance(step.outcome, BaseException):
            raise step.outcome
        return Chunk(step.outcome) if isinstance(step.outcome, str) else step.outcome

    async def acall(self, target: Target) -> Any:
        return self.call(target)

    def stream(self, target: Target, begun: Begun | None = None) -> Iterator[Any]:
        self.begun.append(begun)
        step = self.take(target.name)
        self.clock.advance(step.seconds)
        self.opened.append(target.name)
        try:
            yield from _chunks(step.outcome)
        finally:
            with self.closing:
                self.closed.append(target.name)
                self.closing.notify_all()

    async def astream(self, target: Target, begun: Begun | None = None) -> Any:
        chunks = self.stream(target, begun)
        try:
            for chunk in chunks:
                yield chunk
        finally:
            chunks.close()

    def all_closed(self) -> bool:
        """Whether all streams are closed, by the threads that read them, within a few seconds."""
        with self.closing:
            return self.closing.wait_for(lambda: len(self.closed) == len(self.opened), timeout=5.0)

    def streams(self, target: Target) -> bool:
        return target.name not in self.whole_only

    def keeps_time(self, target: Target, seconds: float) -> bool:
        return True

    def has_content(self, chunk: Chunk) -> bool:
        return bool(chunk.text)

    def finish_reason(self, chunk: Chunk) -> str | None:
        return chunk.finish

    def changes(self, target: Target) -> tuple[str, ...]:
        """Nothing is ever converted."""
        return ()

    def usage(self, answer: Chunk) -> Usage | None:
        return answer.usage

    def headroom(self, answer: Chunk) -> tuple[Headroom, ...]:
        return answer.headroom

    def text(self, chunk: Chunk) -> str:
        return chunk.text

    def continuation(self, shown: Sequence[Chunk]) -> ChunkContinuation | None:
        return ChunkContinuation("".join(chunk.text for chunk in shown)) if self.continues else None

    def whole(self, target: Target, chunks: Sequence[Chunk]) -> Any:
        text = "".join(chunk.text for chunk in chunks)
        if self.reads is not None:
            self.reads(text)
        usage = next((chunk.usage for chunk in chunks if chunk.usage), None)
        return Chunk(text, usage=usage)


class ChunkContinuation(NamedTuple):
    """What was shown, for another stream to go on with."""

    text: str

    def joined(self, chunk: Chunk, text: str) -> Chunk | None:
        joined = chunk._replace(text=text)
        return joined if text or chunk.finish or chunk.usage else None


def _step(item: Any) -> Step:
    return item if isinstance(item, Step) else Step(item)


def _chunks(outcome: Any) -> Iterator[Chunk]:
    if isinstance(outcome, str):
        outcome = (Chunk(outcome), STOP)
    elif isinstance(outcome, BaseException | Chunk):
        outcome = (outcome,)
    for item in outcome:
        if isinstance(item, BaseException):
            raise item
        yield item


# ------------------------------------------------------------------------------------------------------------- drivers
class Loser(NamedTuple):
    """A race's runner that is still under way."""

    call: Call


class TimedHands(Hands):
    """The sync hands, with limits and races played on the fake clock."""

    __slots__ = ("world",)

    def __init__(self, world: World) -> None:
        super().__init__(world.at_store, world.upstream, world.clock)
        self.world = world

    def perform(self, effect: Effect) -> Any:
        self.world.performing(effect)
        if isinstance(effect, Detach):
            self.world.detached.append((effect.running, effect.then))
            return None
        if self.world.abandons(effect):
            return None
        return super().perform(effect)

    def _call(self, call: Call) -> Answered | Failed:
        return self.world.out_of_time(call) or super()._call(call)

    def _pull(self, effect: Pull) -> Any:
        return self.world.pulled(effect, super()._pull(effect._replace(limit=5.0)))

    def _race(self, race: Race) -> Raced:
        calls = self.world.runners(race)
        if len(calls) == 1 and self.world.late(calls[0], race.patience):
            return Raced((None,), Loser(calls[0]))
        if len(calls) == 1:
            return Raced((self._call(calls[0]),), None)
        first, second = self.world.order(calls)
        began = self.clock.now()
        fate = self._call(calls[first])
        self.world.passed(calls[second], self.clock.now() - began)
        if isinstance(fate, Answered) or first == 1:
            return self.world.raced(first, fate, None, Loser(calls[second]))
        return self.world.raced(first, fate, self._call(calls[second]), None)


class AsyncTimedHands(AsyncHands):
    """The async hands, with limits and races played on the fake clock."""

    __slots__ = ("world",)

    def __init__(self, world: World) -> None:
        super().__init__(world.at_store, world.upstream, world.clock)
        self.world = world

    async def perform(self, effect: Effect) -> Any:
        self.world.performing(effect)
        if isinstance(effect, Detach):
            self.world.detached.append((effect.running, effect.then))
            return None
        if self.world.abandons(effect):
            return None
        return await super().perform(effect)

    async def _call(self, call: Call) -> Answered | Failed:
        return self.world.out_of_time(call) or await super()._call(call)

    async def _pull(self, effect: Pull) -> Any:
        return self.world.pulled(effect, await super()._pull(effect._replace(limit=5.0)))

    async def _race(self, race: Race) -> Raced:
        calls = self.world.runners(race)
        if len(calls) == 1 and self.world.late(calls[0], race.patience):
            return Raced((None,), Loser(calls[0]))
        if len(calls) == 1:
            return Raced((await self._call(calls[0]),), None)
        first, second = self.world.order(calls)
        began = self.clock.now()
        fate = await self._call(calls[first])
        self.world.passed(calls[second], self.clock.now() - began)
        if isinstance(fate, Answered) or first == 1:
            return self.world.raced(first, fate, None, Loser(calls[second]))
        return self.world.raced(first, fate, await self._call(calls[second]), None)


class WatchedStore:
    """The store, with a look at each effect before it is performed."""

    def __init__(self, world: World) -> None:
        self._world = world

    def __getattr__(self, name: str) -> Any:
        step = getattr(self._world.store, name)
        if name == "renew":
            return step

        def watched(*args: Any, **kwargs: Any) -> Any:
            self._world.performing(name)
            return step(*args, **kwargs)

        return watched


# --------------------------------------------------------------------------------------------------------------- world
class Outcome(NamedTuple):
    """What a request came to."""

    text: str | None
    """The answer's, or all that was shown of the stream."""
    error: BaseException | None
    shown: list[Chunk]
    decision: Decision


def memory(clock: FakeClock) -> MemoryStore:
    """A store in memory; spread 0: open times without jitter."""
    return MemoryStore(clock.now, lambda: 0.5)


class World:
    """Providers, a store and a clock, and one driver to reach them by.

    Args:
        colour: "sync" or "async": the driver.
        scripts: Per provider what it does; see `ScriptedUpstream`.
        targets: The providers; default: one for each script, without settings.
        store: Makes the store.
        unsure: Whether a provider may turn out to be no candidate.
        settings: Further fields of the policy.
    """

    def __init__(
        self,
        colour: str,
        scripts: dict[str, Sequence[Any]],
        targets: Sequence[Target] | None = None,
        *,
        rand: float = 0.5,
        gate: Gate | None = None,
        store: Callable[[FakeClock], MemoryStore] = memory,
        unsure: bool = False,
        **settings: Any,
    ) -> None:
        self.colour = colour
        self.clock = FakeClock()
        self.store = store(self.clock)
        self.at_store: Any = WatchedStore(self)
        self.upstream = ScriptedUpstream(self.clock, scripts)
        self.targets = tuple(targets or [target(name) for name in scripts])
        self.events: list[Event] = []
        self.gate = gate or Gate(1000)
        self.policy = Policy(
            self.targets, observe=self.events.append, heard={Admitted}, clock=self.clock, rand=lambda: rand,
            gate=self.gate, **settings,
        )  # fmt: skip
        if isinstance(self.store, RedisStore):
            self.store.listen(self.tell, self.targets)
        self.detached: list[tuple[Loser, Callable[[Any], Plan]]] = []
        self.abandoned: list[str] = []
        self.calls: list[Call] = []
        self.pulls: list[float] = []
        """The limits of the pulls of all streams."""
        self.seen: list[str] = []
        """The effects so far, by name."""
        self.interrupt: tuple[int, BaseException] | None = None
        """Which effect to interrupt (0: the first), and by what."""
        self.requests = 0
        self.unsure = unsure

    def tell(self, event: Event) -> None:
        """What a shared store has to say of the fleet."""
        self.policy.observe(event)

    def __getitem__(self, name: str) -> Target:
        """A provider by name."""
        return next(target for target in self.targets if target.name == name)

    # ---------------------------------------------------------------------------------------------------- what hands do
    def performing(self, effect: Effect | str) -> None:
        """Take note of an effect; raise what is to interrupt it."""
        self.seen.append(effect if isinstance(effect, str) else type(effect).__name__)
        if isinstance(effect, Call):
            self.calls.append(effect)
        elif isinstance(effect, Race):
            self.calls += effect.calls
        if self.interrupt is not None and len(self.seen) == self.interrupt[0] + 1:
            raise self.interrupt[1]

    def abandons(self, effect: Effect) -> bool:
        """Take note of a race's abandoned loser."""
        loser = effect.running if isinstance(effect, Abandon) else None
        if not isinstance(loser, Loser):
            return False
        name = loser.call.ticket.target.name
        self.upstream.take(name)
        self.abandoned.append(name)
        return True

    def out_of_time(self, call: Call) -> Failed | None:
        """The fate of a call that takes longer than it may."""
        name = call.ticket.target.name
        left = call.limit - self.upstream.skipped.get(name, 0.0)
        if self.upstream.peek(name).seconds < left:
            return None
        self.upstream.take(name)
        self.clock.advance(left)
        return Failed(AttemptTimeoutError(call.limited_by, call.limit), call.limit)

    def pulled(self, effect: Pull, item: Any) -> Any:
        """A stream's next item, once the time that it takes has passed."""
        self.pulls.append(effect.limit)
        after = getattr(item, "after", 0.0)
        self.clock.advance(min(after, effect.limit))
        return (
            item if after < effect.limit else Failed(AttemptTimeoutError(effect.limited_by, effect.limit), effect.limit)
        )

    @staticmethod
    def runners(race: Race) -> list[Call]:
        """The calls of a race, the one first that was under way before."""
        return [*([] if race.running is None else [race.running.call]), *race.calls]

    def order(self, calls: list[Call]) -> tuple[int, int]:
        """Which runner is through first."""
        left = [self._left(call) for call in calls]
        return (0, 1) if left[0] <= left[1] else (1, 0)

    def _left(self, call: Call) -> float:
        name = call.ticket.target.name
        return min(self.upstream.peek(name).seconds, call.limit - self.upstream.skipped.get(name, 0.0))

    def late(self, call: Call, patience: float | None) -> bool:
        """Whether a runner has said nothing when the patience with it is over; that time has passed then."""
        if patience is None or self._left(call) <= patience:
            return False
        self.clock.advance(patience)
        self.passed(call, patience)
        return True

    def passed(self, call: Call, seconds: float) -> None:
        """Count the time that a runner has had already."""
        name = call.ticket.target.name
        self.upstream.skipped[name] = self.upstream.skipped.get(name, 0.0) + seconds

    @staticmethod
    def raced(first: int, fate: Any, other: Any, running: Any) -> Raced:
        """A race's end."""
        return Raced((fate, other) if first == 0 else (other, fate), running)

    # -------------------------------------------------------------------------------------------------------- requests
    def request(self, **fields: Any) -> Request:
        """A request of this world."""
        self.requests += 1
        return Request(self.requests, self.upstream, unsure=self.unsure, **fields)

    def plan(self, **fields: Any) -> Plan:
        """The plan of a request."""
        return answer(self.request(**fields), self.policy)

    def ask(self, *, keep: int | None = None, pace: float = 0.0, **fields: Any) -> Outcome:
        """Put a request under the driver. `keep`: close the stream after so many chunks; `pace`: read one in so many seconds."""
        shown: list[Chunk] = []
        plan = self.plan(**fields)
        value = error = None
        shows = fields.get("stream", False) and not fields.get("whole", False)
        try:
            if self.colour == "sync":
                value = self._ask(plan, shown, keep, pace, stream_=shows)
            else:
                value = asyncio.run(self._aask(plan, shown, keep, pace, stream_=shows))
        except BaseException as raised:
            error = raised
        text = "".join(chunk.text for chunk in shown) if shows else getattr(value, "text", None)
        return Outcome(text, error, shown, self.decisions[-1])

    def _ask(self, plan: Plan, shown: list[Chunk], keep: int | None, pace: float, *, stream_: bool) -> Any:
        if not stream_:
            return run(plan, TimedHands(self))
        chunks = stream(plan, TimedHands(self))
        for chunk in chunks:
            shown.append(chunk)
            self.clock.advance(pace)
            if len(shown) == keep:
                chunks.close()
        return None

    async def _aask(self, plan: Plan, shown: list[Chunk], keep: int | None, pace: float, *, stream_: bool) -> Any:
        if not stream_:
            return await arun(plan, AsyncTimedHands(self))
        chunks = astream(plan, AsyncTimedHands(self))
        async for chunk in chunks:
            shown.append(chunk)
            self.clock.advance(pace)
            if len(shown) == keep:
                await chunks.aclose()
        return None

    def land(self) -> None:
        """Let the detached probes come to their ends."""
        while self.detached:
            loser, then = self.detached.pop(0)
            if self.colour == "sync":
                hands = TimedHands(self)
                run(then(hands._call(loser.call)), hands)
            else:
                asyncio.run(self._aland(loser, then))

    async def _aland(self, loser: Loser, then: Callable[[Any], Plan]) -> None:
        hands = AsyncTimedHands(self)
        await arun(then(await hands._call(loser.call)), hands)

    # ---------------------------------------------------------------------------------------------------------- looking
    @property
    def asked(self) -> list[str]:
        """Who was asked, in order."""
        return self.upstream.asked

    @property
    def decisions(self) -> list[Decision]:
        """The decision records so far."""
        return [event.decision for event in self.events if isinstance(event, Decided)]

    def told(self, kind: type) -> list[Any]:
        """The events of one type."""
        return [event for event in self.events if isinstance(event, kind)]

    def status(self, name: str) -> dict[str, Any]:
        """What the store says of a provider."""
        return self.store.status(self[name])

    def circuit(self, name: str) -> str:
        """A circuit's state."""
        return self.status(name)["circuit"]

    def open(self, name: str, *, seconds: float | None = None) -> None:
        """Open a circuit, as five failures in a row would; `seconds`: and let that much time pass."""
        for _ in range(self[name].circuit.failure_threshold):
            settle(self.store, admitted(self.store, self[name]), ErrorKind.SERVER_ERROR)
        assert self.circuit(name) == "open"
        self.clock.advance(seconds or 0.0)

    def left_over(self) -> dict[str, Any]:
        """What is still held: leases, permits, places in line, calls in flight, places in the gate."""
        return left_over(self.store, self.gate)


def left_over(store: MemoryStore, gate: Gate | None = None) -> dict[str, Any]:
    """What is still held in a store, by name; empty if all is given back."""
    held = {f"leases of {name}": account.leases for name, account in store._accounts.items()}
    held |= {f"line of {name}": account.line for name, account in store._accounts.items()}
    now = store._now()  # a probe that nobody let land lapses by itself
    held |= {
        f"permits of {name}": [permit for permit in route.circuit.permits if permit.lapses > now]
        for name, route in store._routes.items()
    }
    held |= {f"in flight at {name}": route.latency.in_flight for name, route in store._routes.items()}
    held |= {"live": store._live, "gate": gate.pending if gate else 0}
    return {name: thing for name, thing in held.items() if thing}


# ---------------------------------------------------------------------------------------------------- at the store itself
_ATTEMPTS = iter(range(1_000_000_000, 2_000_000_000))


def ask_for(*targets: Target, **fields: Any) -> Admit:
    """An `Admit` with an attempt id of its own."""
    lane, is_stream = fields.pop("lane", "interactive"), fields.pop("stream", False)
    return Admit(fields.pop("attempt", next(_ATTEMPTS)), targets, is_stream, lane, **fields)


def _reply(reply: Any) -> Any:
    return reply.result() if isinstance(reply, Later) else reply


def admitted(store: MemoryStore, *targets: Target, **fields: Any) -> Ticket:
    """A ticket; fails if there is none to be had."""
    reply = _reply(store.admit(ask_for(*targets, **fields)))
    assert isinstance(reply, Ticket), reply
    return reply


def refused(store: MemoryStore, *targets: Target, **fields: Any) -> list[tuple[str, float | None]]:
    """Why nobody takes a request, and when they might; fails if somebody does."""
    reply = _reply(store.admit(ask_for(*targets, **fields)))
    assert isinstance(reply, Refused), reply
    return [(refusal.reason, refusal.retry_after) for refusal in reply.refusals]


def queued(store: MemoryStore, *targets: Target, **fields: Any) -> Queued:
    """A place in line; fails if there is none to be had."""
    reply = _reply(store.admit(ask_for(*targets, **{"patience": 60.0} | fields)))
    assert isinstance(reply, Queued), reply
    return reply


def settle(store: MemoryStore, ticket: Ticket, kind: ErrorKind | None = None, **fields: Any) -> Any:
    """Report an attempt's end: an answer after a second, unless `kind` says otherwise."""
    return store.settle(ticket, Report(kind, **{"seconds": 1.0} | fields))


class Stepper:
    """A plan performed by hand: the store's steps by themselves, all else when the test says so."""

    def __init__(self, world: World, **fields: Any) -> None:
        self.store = world.store
        self.plan = world.plan(**fields)
        self.effect: Effect | None = None
        self.shown: list[Any] = []
        self.value: Any = None
        self._go(lambda: self.plan.send(None))

    def reply(self, value: Any = None) -> Stepper:
        """Send a reply to the effect it waits for, and go on to the next that is not the store's."""
        self._go(lambda: self.plan.send(value))
        return self

    def throw(self, error: BaseException) -> Stepper:
        """Interrupt the effect it waits for."""
        self._go(lambda: self.plan.throw(error))
        return self

    def answer(self, text: str = "hello", seconds: float = 1.0) -> Stepper:
        """Let the call it waits for answer."""
        assert isinstance(self.effect, Call), self.effect
        return self.reply(Answered(Chunk(text), seconds))

    def fail(self, error: Exception, seconds: float = 1.0) -> Stepper:
        """Let the call it waits for fail."""
        assert isinstance(self.effect, Call), self.effect
        return self.reply(Failed(error, seconds))

    def _go(self, step: Callable[[], Effect]) -> None:
        try:
            effect = step()
            while type(effect) in AT_STORE or isinstance(effect, Show):
                if isinstance(effect, Show):
                    self.shown.append(effect.chunk)
                    effect = self.plan.send(None)
                else:
                    effect = self.plan.send(_reply(AT_STORE[type(effect)](self.store, effect)))
            self.effect = effect
        except StopIteration as done:
            self.effect, self.value = None, done.value
