"""What one decision costs: locally, on Redis one at a time, and on Redis with many at once.

Rules of this file: everything that is compared takes turns, round by round, in one process and on one server; a ratio is of one round's
figures, and the median of the rounds is told. Limits are never reached.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import random
import statistics
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from langchain_core.rate_limiters import InMemoryRateLimiter

from langchain_resilient.engine.effects import Admit, Later, Report, Ticket
from langchain_resilient.engine.policy import Target
from langchain_resilient.engine.quota import RateLimits
from langchain_resilient.engine.store.memory import MemoryStore
from langchain_resilient.engine.store.redis.store import RedisStore
from stores.contenders import DECIDERS, Decider, Setting
from stores.figures import Bucket, quantile
from stores.server import calls, client_of

TRIVIAL = "return 1"
"""What the bare EVALSHA runs: a redis-py client's own cost, and the way there and back."""
ROOMY = RateLimits(rpm=100_000_000, tpm=2_000_000_000)
ALL_LIMITS = RateLimits(rpm=100_000_000, tpm=2_000_000_000, concurrency=1000)
FAR = Bucket(1_000_000, 1_000_000)
"""A limit that nobody reaches, for those who take a rate and a burst."""
PROVIDERS = 3
ATTEMPTS = itertools.count(1)
ANSWERED = Report(None, 0.01)

BARE = "bare redis-py EVALSHA"
PLAIN, FULL = "ours, plain ask: admit + settle", "ours, 3 candidates: admit + settle"
ADMIT = "ours, 3 candidates: admit"

Step = Callable[[], object]
"""Takes one decision; may return what is to be done after it, beyond the measured time."""
AsyncStep = Callable[[], Awaitable[object]]


class Sizes(NamedTuple):
    """How much is measured."""

    rounds: int = 9
    alone: int = 300
    """Decisions of a round, one at a time."""
    crowd: int = 3000
    """Decisions of a round, many at once."""
    tasks: int = 64
    threads: int = 16


class Row(NamedTuple):
    """One line of a table."""

    what: str
    median_us: float
    """Of one decision, as whoever asks waits for it."""
    p99_us: float
    per_second: float
    ratio: float
    """To the bare EVALSHA of the same rounds: of the medians one at a time, of the rates at once."""
    evalsha: float
    """EVALSHAs a decision."""


class Round(NamedTuple):
    """One turn of one of them."""

    times: list[float]
    seconds: float
    evalsha: int


def targets(limits: RateLimits, many: int = PROVIDERS) -> tuple[Target, ...]:
    """Providers that nobody calls."""
    names = [f"provider-{index}" for index in range(many)]
    return tuple(Target(name, name, name, limits=limits) for name in names)


def ask(candidates: tuple[Target, ...], *, plainly: bool = False) -> Admit:
    """A request of 200 tokens."""
    return Admit(
        next(ATTEMPTS), candidates, stream=False, lane="interactive", input_tokens=100, max_output=100, plainly=plainly
    )


@contextmanager
def unhindered() -> Iterator[None]:
    """Without garbage collection."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


# ----------------------------------------------------------------------------------------------------------------- local
def local(sizes: Sizes) -> list[Row]:
    """One process's own decisions."""
    store = MemoryStore(time.monotonic, random.random)
    candidates = targets(ALL_LIMITS)
    limiter = InMemoryRateLimiter(requests_per_second=FAR.rate, max_bucket_size=FAR.burst)

    def ours() -> None:
        ticket = store.admit(ask(candidates))
        store.settle(ticket, ANSWERED)  # type: ignore[arg-type]

    def plainly() -> None:
        ticket = store.admit(ask(candidates, plainly=True))
        store.settle(ticket, ANSWERED)  # type: ignore[arg-type]

    wanted = [ask(candidates)]

    def alone() -> Callable[[], object]:
        ticket = store.admit(wanted.pop())

        def afterwards() -> None:
            store.settle(ticket, ANSWERED)  # type: ignore[arg-type]
            wanted.append(ask(candidates))

        return afterwards

    def theirs() -> None:
        limiter.acquire(blocking=False)

    steps: dict[str, Step] = {
        "LangChain InMemoryRateLimiter": theirs,
        ADMIT: alone,
        PLAIN: plainly,
        FULL: ours,
    }
    return _table(steps, _rounds_alone(steps, sizes, lambda: 0), rate=False)


# ------------------------------------------------------------------------------------------------------------- one by one
def one_at_a_time(url: str, namespace: str, sizes: Sizes) -> list[Row]:
    """Redis, in the caller's thread."""
    client = client_of(url)
    steps = _blocking(client, _opened(url, namespace))
    return _table(steps, _rounds_alone(steps, sizes, lambda: calls(client, "evalsha")), rate=False)


def one_task(url: str, namespace: str, sizes: Sizes) -> list[Row]:
    """Redis, in one task of an event loop."""
    client = client_of(url)

    async def main() -> list[Row]:
        steps = await _awaiting(url, namespace)
        found: dict[str, list[Round]] = {name: [] for name in steps}
        for _ in range(2):
            await _some(steps, 20)
        with unhindered():
            for _ in range(sizes.rounds):
                for name, step in _shuffled(steps):
                    found[name].append(await _crowded(step, 1, sizes.alone, client))
        return _table(steps, found, rate=False)

    return asyncio.run(main())


# -------------------------------------------------------------------------------------------------------------- at once
def many_tasks(url: str, namespace: str, sizes: Sizes) -> list[Row]:
    """Redis, from many tasks of an event loop."""
    client = client_of(url)

    async def main() -> list[Row]:
        steps = await _awaiting(url, namespace)
        found: dict[str, list[Round]] = {name: [] for name in steps}
        for step in steps.values():
            await _crowded(step, sizes.tasks, 4 * sizes.tasks, client)
        with unhindered():
            for _ in range(sizes.rounds):
                for name, step in _shuffled(steps):
                    found[name].append(await _crowded(step, sizes.tasks, sizes.crowd, client))
        return _table(steps, found, rate=True)

    return asyncio.run(main())


def many_threads(url: str, namespace: str, sizes: Sizes) -> list[Row]:
    """Redis, from many threads."""
    client = client_of(url)
    steps = _blocking(client, _opened(url, namespace))
    found: dict[str, list[Round]] = {name: [] for name in steps}
    for step in steps.values():
        _threaded(step, sizes.threads, 4 * sizes.threads, client)
    with unhindered():
        for _ in range(sizes.rounds):
            for name, step in _shuffled(steps):
                found[name].append(_threaded(step, sizes.threads, sizes.crowd, client))
    return _table(steps, found, rate=True)


# ------------------------------------------------------------------------------------------------------------ who decides
def _opened(url: str, namespace: str) -> RedisStore:
    store = RedisStore(url, namespace, now=time.monotonic, rand=random.random)
    store.check()
    return store


def _granted(reply: Any) -> Ticket:
    if not isinstance(reply, Ticket):
        raise TypeError(f"a decision that was to be granted was {reply!r}")
    return reply


def _blocking(client: Any, store: RedisStore) -> dict[str, Step]:
    """Steps for a thread; the first is what the others are compared with."""
    candidates, sha = targets(ROOMY), client.script_load(TRIVIAL)

    def decide(*, plainly: bool) -> None:
        reply = store.admit(ask(candidates, plainly=plainly))
        store.settle(_granted(reply.result() if isinstance(reply, Later) else reply), ANSWERED)

    return {
        BARE: lambda: client.evalsha(sha, 1, "bare", "1"),
        PLAIN: lambda: decide(plainly=True),
        FULL: lambda: decide(plainly=False),
    }


async def _awaiting(url: str, namespace: str) -> dict[str, AsyncStep]:
    """Steps for tasks; the first is what the others are compared with."""
    from redis.asyncio import Redis

    client = Redis.from_url(url)
    candidates, sha = targets(ROOMY), await client.script_load(TRIVIAL)
    store = _opened(url, namespace)

    async def decide(*, plainly: bool) -> None:
        reply = store.admit(ask(candidates, plainly=plainly))
        store.settle(_granted(await reply if isinstance(reply, Later) else reply), ANSWERED)

    steps: dict[str, AsyncStep] = {
        BARE: lambda: client.evalsha(sha, 1, "bare", "1"),
        PLAIN: lambda: decide(plainly=True),
        FULL: lambda: decide(plainly=False),
    }
    for name, kind in DECIDERS.items():
        if kind.installed and kind.decides is not None:
            decider: Decider = kind.decides(Setting(url, f"{namespace}-{name}", FAR))
            await decider.prepare()
            steps[kind.title] = decider.decide
    return steps


# -------------------------------------------------------------------------------------------------------------- measuring
def _shuffled(steps: dict[str, Any]) -> list[tuple[str, Any]]:
    return random.sample(list(steps.items()), len(steps))


async def _some(steps: dict[str, AsyncStep], times: int) -> None:
    for step in steps.values():
        for _ in range(times):
            await step()


def _rounds_alone(steps: dict[str, Step], sizes: Sizes, evalshas: Callable[[], int]) -> dict[str, list[Round]]:
    found: dict[str, list[Round]] = {name: [] for name in steps}
    for step in steps.values():
        for _ in range(50):
            if callable(after := step()):
                after()
    with unhindered():
        for _ in range(sizes.rounds):
            for name, step in _shuffled(steps):
                before, times = evalshas(), []
                began = time.perf_counter()
                for _ in range(sizes.alone):
                    asked = time.perf_counter()
                    after = step()
                    times.append(time.perf_counter() - asked)
                    if callable(after):
                        after()
                seconds = time.perf_counter() - began
                found[name].append(Round(times, seconds, evalshas() - before))
    return found


async def _crowded(step: AsyncStep, tasks: int, decisions: int, client: Any) -> Round:
    times: list[float] = []

    async def one() -> None:
        for _ in range(decisions // tasks):
            asked = time.perf_counter()
            await step()
            times.append(time.perf_counter() - asked)

    before = calls(client, "evalsha")
    began = time.perf_counter()
    asking: list[Coroutine[Any, Any, None]] = [one() for _ in range(tasks)]
    await asyncio.gather(*asking)
    return Round(times, time.perf_counter() - began, calls(client, "evalsha") - before)


def _threaded(step: Step, threads: int, decisions: int, client: Any) -> Round:
    times: list[float] = []

    def one() -> None:
        for _ in range(decisions // threads):
            asked = time.perf_counter()
            step()
            times.append(time.perf_counter() - asked)

    asking = [threading.Thread(target=one) for _ in range(threads)]
    before = calls(client, "evalsha")
    began = time.perf_counter()
    for thread in asking:
        thread.start()
    for thread in asking:
        thread.join()
    return Round(times, time.perf_counter() - began, calls(client, "evalsha") - before)


def _table(steps: dict[str, Any], found: dict[str, list[Round]], *, rate: bool) -> list[Row]:
    """Medians of the rounds; ratios to the first, which took its turn in the same round."""
    base = next(iter(steps))
    rows = []
    for name in steps:
        rounds = found[name]
        medians = [statistics.median(each.times) for each in rounds]
        rates = [len(each.times) / each.seconds for each in rounds]
        pairs = zip(rounds, found[base], strict=True)
        ratios = [
            (len(one.times) / one.seconds) / (len(bare.times) / bare.seconds)
            if rate
            else statistics.median(one.times) / statistics.median(bare.times)
            for one, bare in pairs
        ]
        times = [seconds for each in rounds for seconds in each.times]
        row = Row(
            name, statistics.median(medians) * 1e6, quantile(times, 0.99) * 1e6, statistics.median(rates),
            statistics.median(ratios), sum(each.evalsha for each in rounds) / max(1, len(times)),
        )  # fmt: skip
        rows.append(row)
    return rows
