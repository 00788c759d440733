"""Our rules: the real plan, the real memory store and the real async driver, on simulated providers and simulated time.

Rules of this file: nothing of the engine is replaced but its three seams: the upstream, the clock and the randomness. Its time limits are set
so wide that they never bite: the others here have none, and what is compared is who is asked, not who is given up.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Sequence
from typing import Any, NamedTuple

from langchain_resilient.engine.drive.awaiting import AsyncHands, arun, astream
from langchain_resilient.engine.effects import Request
from langchain_resilient.engine.events import Usage
from langchain_resilient.engine.hedge import Hedge
from langchain_resilient.engine.plan import answer
from langchain_resilient.engine.policy import Policy, Target, Timeouts
from langchain_resilient.engine.quota import RateLimits
from langchain_resilient.engine.store.memory import MemoryStore
from routings.providers import Ask, Server
from routings.timeline import LoopClock

UNSTREAMED = 3.0
"""How many times longer a whole answer may take than a first token."""
PATIENT = Timeouts(first_token=3600.0, idle=3600.0, response=3600.0, total=7200.0)
TOO_SLOW = 2.0
"""`max_latency` in seconds: nearly twice the slowest provider's median first token."""


class Piece(NamedTuple):
    """A chunk of a stream, or a whole answer."""

    text: str
    finish: str | None = None
    tokens: int | None = None


class SimulatedUpstream:
    """Puts one request to the simulated providers."""

    def __init__(self, ask: Ask, servers: dict[str, Server]) -> None:
        self.ask = ask
        self.servers = servers
        self.asked: list[str] = []

    def call(self, target: Target) -> Any:
        """Not asked for: the loop is async."""
        raise NotImplementedError

    def stream(self, target: Target, begun: object = None) -> Any:
        """Not asked for: the loop is async."""
        raise NotImplementedError

    def streams(self, target: Target) -> bool:
        """In chunks."""
        return True

    def continuation(self, shown: Sequence[Any]) -> None:
        """No stream breaks here."""

    def whole(self, target: Target, chunks: Sequence[Any]) -> Any:
        """The last one tells the tokens."""
        return chunks[-1]

    async def acall(self, target: Target) -> Piece:
        """A whole answer."""
        return [piece async for piece in self.astream(target)][-1]

    async def astream(self, target: Target, begun: object = None) -> AsyncIterator[Piece]:
        """The first token, and the end."""
        server, ask = self.servers[target.name], self.ask
        self.asked.append(target.name)
        await server.begin()
        try:
            await server.work(server.model.first * ask.luck[0])
            yield Piece("x")
            await server.work(ask.tokens * server.model.pace * ask.luck[1])
        finally:
            server.end()
        yield Piece("y", "stop", ask.tokens)

    def keeps_time(self, target: Target, seconds: float) -> bool:
        """Whether the client gives up by itself."""
        return True

    def changes(self, target: Target) -> tuple[str, ...]:
        """Nothing is converted."""
        return ()

    def has_content(self, chunk: Piece) -> bool:
        """Every piece has."""
        return True

    def finish_reason(self, chunk: Piece) -> str | None:
        """The last one's."""
        return chunk.finish

    def usage(self, answer: Piece) -> Usage | None:
        """The last piece's."""
        return None if answer.tokens is None else Usage(100, answer.tokens)

    def headroom(self, answer: Piece) -> tuple[()]:
        """No headers."""
        return ()

    def text(self, chunk: Piece) -> str:
        """Its text."""
        return chunk.text


class Ours:
    """The engine under one routing.

    Args:
        servers: The providers, best first.
        loop: The simulated loop.
        rng: All chance comes from here.
        options: Fields of the policy; `max_latency` is the targets', and `bounded` limits each target's concurrency to its knee.
    """

    def __init__(self, servers: Sequence[Server], clock: LoopClock, rng: random.Random, **options: Any) -> None:
        self._servers = {server.model.name: server for server in servers}
        self._names = list(self._servers)
        self._clock = clock
        self._store = MemoryStore(clock.now, rng.random)
        limit, bounded = options.pop("max_latency", None), options.pop("bounded", False)
        targets = [
            Target(
                server.model.name, server.model.name, server.model.name, priority=number, max_latency=limit,
                timeouts=PATIENT, sends_finish_reason=True,
                limits=RateLimits(concurrency=server.model.knee, max_wait=PATIENT.total) if bounded else RateLimits(),
            )
            for number, server in enumerate(servers)
        ]  # fmt: skip
        self._policy = Policy(tuple(targets), clock=clock, rand=rng.random, total=PATIENT.total, **options)

    async def ask(self, ask: Ask, *, stream: bool) -> tuple[int, float | None, int]:
        """Put one request; returns who was asked last, when the first content came, and how many calls were made beside that one."""
        upstream = SimulatedUpstream(ask, self._servers)
        request = Request(ask.number, upstream, stream=stream, max_output=ask.allowed)
        plan, hands = answer(request, self._policy), AsyncHands(self._store, upstream, self._clock)
        first = None
        if stream:
            async for _ in astream(plan, hands):
                first = self._clock.now() if first is None else first
        else:
            await arun(plan, hands)
        return self._names.index(upstream.asked[-1]), first, len(upstream.asked) - 1


def variants(*, stream: bool) -> dict[str, dict[str, Any]]:
    """Our rows, and the policy's fields of each."""
    limit = TOO_SLOW * (1.0 if stream else UNSTREAMED)
    return {
        "ours: latency": {"routing": "latency"},
        "ours: priority, max_latency": {"routing": "priority", "max_latency": limit},
        "ours: the same, concurrency": {"routing": "priority", "max_latency": limit, "bounded": True},
        "ours: latency, hedged": {"routing": "latency", "hedge": Hedge()},
    }
