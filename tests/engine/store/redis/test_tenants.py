"""What users have taken, on Redis: a twin of memory on generated histories, and what only a server has: keys, rights, outages, processes."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from langchain_resilient.engine import quota
from langchain_resilient.engine.errors import SettingsError
from langchain_resilient.engine.events import Event, StoreDegraded
from langchain_resilient.engine.quota import RateLimits
from langchain_resilient.engine.store.redis.post.courier import Courier
from langchain_resilient.engine.store.redis.tenants import BEAT_EVERY_US, RedisLedger
from langchain_resilient.engine.store.tenants import Booking, MemoryLedger
from langchain_resilient.testing import FakeClock
from tests.servers import Server, binary_or_skip, rights, until, valkey_binary

S = 1_000_000
LONG = 3600 * S


def costs(limits: RateLimits, tokens: int) -> list[int]:
    """What a request takes of each dimension."""
    return [1 if item.unit == "requests" else tokens for item in quota.dimensions(limits)]


# ---------------------------------------------------------------------------------------------------------------- twins

LIMITS = (
    RateLimits(rpm=60, burst=3, tpm=6000),
    RateLimits(rpm=77, burst=9, tpm=7001, rpd=97, tpd=8641),
    RateLimits(tpm=77),
    RateLimits(rpm=6, burst=1, rpd=10),
)
STEP = st.one_of(
    st.tuples(
        st.just("take"),
        st.integers(0, 1),
        st.sampled_from([0, 1, 10, 77, 500, 1500, 6000]),
        st.sampled_from([0, 0, S, 10 * S, LONG, -1]),
    ),
    st.tuples(st.just("take"), st.just(0), st.integers(0, 400), st.just(LONG)),
    st.tuples(st.just("hand back"), st.integers(0, 9)),
    st.tuples(st.just("settle"), st.integers(0, 9), st.integers(0, 3000)),
    st.tuples(st.just("time"), st.sampled_from([1, 333, S, 10 * S, 60 * S, -1, -5 * S, -3600 * S])),
    st.tuples(st.just("expire"), st.integers(0, 1)),
    st.tuples(st.just("script flush")),
)
HISTORY = st.tuples(st.sampled_from(LIMITS), st.lists(STEP, min_size=10, max_size=45))


class Twins:
    """A memory ledger and one on Redis, under one clock; a history is played on both, and every answer is compared."""

    def __init__(self, url: str, namespace: str, breaks: tuple[str, str] | None = None) -> None:
        self.clock = FakeClock(1_000_000.0)
        self.client = redis.Redis.from_url(url)
        self.memory = MemoryLedger(self.clock.now)
        self.memory._forget_the_full = lambda now: None  # Redis forgets by its own clock: `expire` does it for both
        self.redis = RedisLedger(
            url, namespace, now=self.clock.now, clock=lambda: int(self.clock.now() * S), courier=self.courier(breaks)
        )
        self.histories = 0

    @staticmethod
    def courier(breaks: tuple[str, str] | None) -> Callable[..., Courier]:
        def make(url: str, script: str, **options: Any) -> Courier:
            if breaks is not None:
                assert breaks[0] in script
                script = script.replace(*breaks, 1)
            return Courier(url, script, budget=10.0, **options)

        return make

    def close(self) -> None:
        self.redis.close()
        self.client.close()

    def play(self, history: tuple[RateLimits, list[tuple[Any, ...]]]) -> None:
        limits, steps = history
        self.histories += 1
        self.clock.advance(1_000_000.0 - self.clock.now())  # steps back would add up to a time before all time
        self.live: list[tuple[Booking, Booking]] = []
        self.limits, self.dimensions = limits, quota.dimensions(limits)
        for step in steps:
            getattr(self, step[0].replace(" ", "_"))(*step[1:])
        for user in (0, 1):
            self.take(user, 0, -1)

    def key(self, user: int) -> str:
        return f"default:{self.histories}-{user}"

    def take(self, user: int, tokens: int, patience: int) -> None:
        args = (self.key(user), self.dimensions, costs(self.limits, tokens), patience)
        here, there = self.memory.take(*args), self.redis.take(*args).result()
        if there.ledger is not self.redis:
            raise RuntimeError("Redis did not answer")
        assert there == here._replace(ledger=there.ledger)
        if here.granted:
            self.live.append((here, there))

    def hand_back(self, which: int) -> None:
        if self.live:
            here, there = self.live.pop(which % len(self.live))
            self.memory.hand_back(here, self.dimensions)
            self.redis.hand_back(there, self.dimensions)
            self.carried()

    def settle(self, which: int, tokens: int) -> None:
        if self.live:
            here, there = self.live.pop(which % len(self.live))
            moves = [
                0 if item.unit == "requests" else quota.moved(item, step, max(1, tokens // 2), tokens)
                for item, step in zip(self.dimensions, here.steps, strict=True)
            ]
            self.memory.settle(here, self.dimensions, moves)
            self.redis.settle(there, self.dimensions, moves)
            self.carried()

    def carried(self) -> None:
        """What was told is done, at this moment of the clock: operations go in order, so whoever asks now is answered after it."""
        self.redis.take("default:nobody", self.dimensions, costs(self.limits, 0), -1).result()

    def time(self, micros: int) -> None:
        self.clock.advance(micros / S)

    def expire(self, user: int) -> None:
        self.memory.forget(self.key(user))
        self.client.delete(self.redis.key_of(self.key(user)))

    def script_flush(self) -> None:
        self.client.script_flush()


@pytest.fixture
def twins(redis_url: str, namespace: str) -> Iterator[Twins]:
    """A pair on the server of the tests."""
    pair = Twins(redis_url, namespace)
    yield pair
    pair.close()


def test_memory_and_redis_are_twins(twins: Twins):
    """Whatever happens, in whatever order, both give the same answer to the microsecond."""
    settings(max_examples=500, deadline=None, suppress_health_check=list(HealthCheck))(given(HISTORY)(twins.play))()


@pytest.mark.parametrize(
    "breaks",
    [
        ("math.max(before, moment + wait) + dimension.step", "math.max(before, moment) + dimension.step"),
        ("local undone = book.born == born", "local undone = false"),
        ("written = math.max(now, tonumber(got[1] or now))", "written = now"),
        ("wait <= patience", "wait < patience"),
        ("math.min(-by, math.max(0, owed))", "(-by)"),
        ("- it.last - it.held", "- it.last"),
        ("if wait < last - moment then", "if false then"),
        ("book.born == born and -math", "-math"),
    ],
    ids=[
        "charged too early",
        "a trace is left",
        "the clock steps back",
        "refused when due",
        "all comes back",
        "what came back is not counted",
        "those who wait are overtaken",
        "it comes back to another book",
    ],
)
def test_a_broken_script_is_found(redis_url: str, namespace: str, breaks: tuple[str, str]):
    """A script that differs in one thing is no twin, and the histories say so."""
    pair = Twins(redis_url, namespace, breaks)
    # Some are found in one history of a few hundred, and which ones are tried depends on the modules that are loaded.
    quietly = settings(
        max_examples=10_000, deadline=None, database=None, derandomize=True, print_blob=False, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck), report_multiple_bugs=False,
    )  # fmt: skip
    try:
        with pytest.raises(AssertionError):
            quietly(given(HISTORY)(pair.play))()
    finally:
        pair.close()


# ---------------------------------------------------------------------------------------------------------------- Redis
@pytest.fixture
def ledger(redis_url: str, namespace: str) -> Iterator[RedisLedger]:
    """One on the server of the tests, with the server's own clock."""
    made = RedisLedger(redis_url, namespace, now=FakeClock().now, courier=Twins.courier(None))
    yield made
    made.close()


RPM = RateLimits(rpm=60, burst=5)
ONE = (quota.dimensions(RPM), [1])


def test_no_users_name_is_in_redis_and_every_key_ends(ledger: RedisLedger, redis_url: str, namespace: str):
    """Keys bear the kind of user and a hash that is another in each namespace; each expires soon after its buckets are full."""
    booking = ledger.take("free:ann@example.com", *ONE, 0).result()
    ledger.take("pro:ann@example.com", *ONE, 0).result()
    ledger.hand_back(booking, ONE[0])
    ledger._courier.flush()
    client = redis.Redis.from_url(redis_url)
    keys = [key.decode() for key in client.keys(f"*{namespace}*")]
    assert len([key for key in keys if key.startswith(f"{{lr1:{namespace}:u}}:free:")]) == 1
    assert len([key for key in keys if key.startswith(f"{{lr1:{namespace}:u}}:pro:")]) == 1
    for key in keys:
        assert "ann" not in key
        value = client.hgetall(key) if client.type(key) == b"hash" else client.zrange(key, 0, -1)
        assert b"ann" not in repr(value).encode()
        assert 0 < client.pttl(key) <= 3_600_000
    assert ledger.key_of("free:ann") != ledger.key_of("pro:ann")
    assert ledger.key_of("free:ann").rpartition(":")[2] == ledger.key_of("pro:ann").rpartition(":")[2]
    other = RedisLedger(redis_url, f"{namespace}-2", now=FakeClock().now)
    assert other.key_of("free:ann").rpartition(":")[2] != ledger.key_of("free:ann").rpartition(":")[2]
    other.close()
    client.close()


def test_one_command_is_one_decision(ledger: RedisLedger, redis_url: str):
    """A hundred decisions are a hundred EVALSHA, and nothing else but a beat now and then."""
    client = redis.Redis.from_url(redis_url)
    ledger.take("default:x", *ONE, 0).result()
    ledger._courier.flush()
    before = client.info("commandstats")["cmdstat_evalsha"]["calls"]
    for n in range(100):
        ledger.take(f"default:{n}", *ONE, 0).result()
    assert client.info("commandstats")["cmdstat_evalsha"]["calls"] - before <= 102
    client.close()


def test_decisions_that_are_asked_together_go_together(ledger: RedisLedger, redis_url: str):
    """Fifty that wait for an answer at the same time are one command."""
    client = redis.Redis.from_url(redis_url)
    ledger.take("default:x", *ONE, 0).result()
    before = client.info("commandstats")["cmdstat_evalsha"]["calls"]
    asked = [ledger.take(f"default:{n}", *ONE, 0) for n in range(50)]
    assert all(later.result().granted for later in asked)
    assert client.info("commandstats")["cmdstat_evalsha"]["calls"] - before <= 3
    client.close()


def test_processes_are_counted(redis_url: str, namespace: str):
    """Each that decides counts until it ends, or was not heard of for minutes; its share of the limits follows from it."""
    clock = FakeClock()
    made = [
        RedisLedger(
            redis_url, namespace, now=clock.now, clock=lambda: int(clock.now() * S), courier=Twins.courier(None)
        )
        for _ in range(4)
    ]
    clock.advance(BEAT_EVERY_US / S)
    for each in made:
        each.take("default:x", *ONE, 0).result()
        each.take("default:x", *ONE, 0).result()  # behind the beat that the first one's reply led to
    each = made[0]
    clock.advance(BEAT_EVERY_US / S)
    each.take("default:x", *ONE, 0).result()
    each.take("default:x", *ONE, 0).result()
    assert each._processes == 4
    assert each._on_our_own(ONE[0]).take("default:y", *ONE, 0).scale == 200
    for other in made[1:]:
        other.close()
    clock.advance(BEAT_EVERY_US / S)
    each.take("default:x", *ONE, 0).result()
    each.take("default:x", *ONE, 0).result()
    assert each._processes == 1
    each.close()


def test_what_was_granted_to_one_who_left_is_handed_back(ledger: RedisLedger):
    """Its reply comes and nobody waits for it: the place is free again."""
    asked = ledger.take("default:x", *ONE, 0)
    assert asked.result().granted
    operation = asked._later.operation
    later = ledger._courier.ask(operation)
    reply = later.result()
    ledger._orphaned(operation, reply)
    ledger._courier.flush()
    after = ledger.take("default:x", *ONE, -1).result()
    assert after.before == (int(reply[5]),)


def test_without_redis_it_decides_alone(namespace: str):
    """A server that can't be reached raises nothing; the share of one process is 0.8, and its first request is let in."""
    clock = FakeClock()
    alone = RedisLedger("redis://127.0.0.1:1/0", namespace, now=clock.now)
    try:
        assert alone.take("default:x", *ONE, 0).result().granted
        refused = alone.take("default:x", *ONE, 0).result()
        assert (refused.granted, refused.wait, refused.scale) == (False, 1_250_000, 800)
        alone.hand_back(refused, ONE[0])
    finally:
        alone.close()


def test_alone_limiters_of_other_dimensions_do_not_mix(namespace: str):
    """Each set of dimensions has arrival times of its own for the same user, and none is taken for another's."""
    clock = FakeClock()
    alone = RedisLedger("redis://127.0.0.1:1/0", namespace, now=clock.now)
    sets = [
        quota.dimensions(limits)
        for limits in (RPM, RateLimits(rpm=60, burst=5, tpm=600), RateLimits(tpm=600), RateLimits(rpd=1))
    ]
    try:
        for wanted in (True, False):
            for dimensions in sets:
                taken = [1 if item.unit == "requests" else 50 for item in dimensions]
                booking = alone.take("default:x", dimensions, taken, 0).result()
                assert booking.granted is wanted
                assert len(booking.after) == len(dimensions)
    finally:
        alone.close()


class Listener:
    """One that takes its time in the process that made it, until it may go on."""

    def __init__(self) -> None:
        self.heard: list[Event] = []
        self.began, self.go_on = threading.Event(), threading.Event()
        self._process = os.getpid()

    def observe(self, event: Event) -> None:
        self.began.set()
        if os.getpid() == self._process:
            self.go_on.wait(5)
        self.heard.append(event)

    def degraded(self) -> list[bool]:
        return [event.degraded for event in self.heard if isinstance(event, StoreDegraded)]


@pytest.fixture
def away(namespace: str) -> Iterator[RedisLedger]:
    """One whose server can't be reached."""
    made = RedisLedger("redis://127.0.0.1:1/0", namespace, now=FakeClock().now)
    until(lambda: made._hearers._alone, "it knows so")
    yield made
    made.close()


def test_who_comes_while_redis_is_away_is_told_so_and_holds_nobody_up(away: RedisLedger):
    """A limiter made meanwhile hears of it, aside: neither who makes it nor the courier waits for a slow observer."""
    listener = Listener()
    away.listen(listener.observe)
    away._changed(True, "for the test")
    assert listener.heard == []
    listener.go_on.set()
    until(lambda: len(listener.heard) == 2, "both changes are told")
    assert listener.degraded() == [True, False]
    assert {event.store for event in listener.heard} == {f"redis://127.0.0.1:1 {away._prefix}"}


def test_a_child_process_tells_for_itself(away: RedisLedger):
    """Whoever was telling when it was forked is the parent's: what changes in the child is told by the child."""
    listener = Listener()
    away.listen(listener.observe)
    assert listener.began.wait(5)
    if (child := os.fork()) == 0:
        try:
            away._changed(True, "for the test")
            until(listener.degraded, "it is told")
            os._exit(0 if listener.degraded() == [False] else 1)
        finally:
            os._exit(2)
    assert os.waitpid(child, 0)[1] == 0
    listener.go_on.set()


def test_an_answer_ends_what_a_child_was_told_before_it_was_one(ledger: RedisLedger):
    """A child's courier begins anew and sees no change: its first answer tells that Redis is there."""
    listener = Listener()
    listener.go_on.set()
    ledger._hearers.alone("the parent's")
    ledger.listen(listener.observe)
    ledger.take("default:x", *ONE, 0).result()
    until(lambda: len(listener.heard) == 2, "both are told")
    assert listener.degraded() == [True, False]


@pytest.fixture
def server() -> Iterator[Server]:
    """A server of the test's own, to be hurt; it knows a user who may do what the README says, and one who may not."""
    users = {"app": ("secret-1", rights("{lr1:*")), "poor": ("secret-2", rights("{lr1:*") + " -zadd")}
    with Server(binary_or_skip(valkey_binary), password="right-one", users=users) as made:
        yield made


def test_a_refused_user_is_an_error_at_once_and_the_minimum_of_rights_is_enough(server: Server):
    """A wrong password, and a missing right: `SettingsError` at construction, without the password; with the rights it decides."""
    for url in (server.url_of(None, "wrong-one"), server.url_of("poor")):
        with pytest.raises(SettingsError, match="backend") as caught:
            RedisLedger(url, "ns", now=FakeClock().now)
        assert not {"wrong-one", "secret-2"} & set(str(caught.value).replace("/", " ").split())
    made = RedisLedger(server.url_of("app"), "ns", now=FakeClock().now)
    booking = made.take("default:x", *ONE, 0).result()
    assert booking.ledger is made
    made.hand_back(booking, ONE[0])
    made.close()


@pytest.mark.e2e
def test_killed_midway_and_back(server: Server):
    """Nobody gets an error: alone while it is away, told once for each change, and together again when it is back."""
    changes: list[StoreDegraded] = []

    class Hearer:
        def hear(self, event: StoreDegraded) -> None:
            changes.append(event)

    hearer = Hearer()  # by a method, as a limiter does: it is held weakly
    made = RedisLedger(server.url, "ns", now=FakeClock().now)
    made.listen(hearer.hear)
    assert made.take("default:x", *ONE, 0).result().ledger is made
    server.kill()
    assert [made.take("default:x", *ONE, 0).result().granted for _ in range(3)] == [True, False, False]
    assert made.take("default:y", *ONE, 0).result().granted
    server.restart()
    until(lambda: made.take("default:z", *ONE, -1).result().ledger is made, "it asks Redis again")
    assert made.take("default:x", *ONE, 0).result().granted
    until(lambda: len(changes) == 2, "both are told")
    assert [event.degraded for event in changes] == [True, False]
    made.close()


@pytest.mark.e2e
def test_a_hung_server_costs_one_budget(server: Server):
    """Stopped, not dead: the first decision waits for at most a quarter of a second, and none after it."""
    made = RedisLedger(server.url, "ns", now=FakeClock().now)
    made.take("default:x", *ONE, 0).result()
    server.stop()
    assert made.take("default:x", *ONE, 0).result().granted
    assert not made._courier.up
    booking = made.take("default:x", *ONE, 0).result()
    assert booking.ledger is not made
    server.cont()
    made.close()


@pytest.mark.e2e
async def test_a_task_that_is_cancelled_on_its_way_leaves_no_booking(server: Server):
    """Redis decides after the task is gone: what it granted is handed back as soon as its reply comes."""
    made = RedisLedger(server.url, "ns", now=FakeClock().now, courier=Twins.courier(None))
    made.take("default:y", *ONE, 0).result()
    server.stop()

    async def ask() -> Booking:
        return await made.take("default:x", *ONE, 0)

    task = asyncio.create_task(ask())
    await asyncio.sleep(0.1)  # it is sent
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    server.cont()
    look = made.take("default:x", *ONE, -1).result()
    until(made._courier.flush, "what was told is sent")
    look = made.take("default:x", *ONE, -1).result()
    assert max(look.before[0] - look.at, 0) == 0
    assert server.info("commandstats")["cmdstat_hset"]["calls"] >= 3  # the probe's, y's, x's, and x's again
    made.close()


@pytest.mark.e2e
def test_a_child_process_is_one_of_its_own(ledger: RedisLedger):
    """After a fork both decide, on the same limits, and count as two."""
    assert ledger.take("default:x", *ONE, 0).result().granted
    if (child := os.fork()) == 0:
        try:
            booking = ledger.take("default:x", *ONE, 0).result()
            os._exit(0 if booking.granted and booking.ledger is ledger else 1)
        finally:
            os._exit(2)
    assert os.waitpid(child, 0)[1] == 0
    after = ledger.take("default:x", *ONE, 0).result()
    assert after.before[0] - after.at > 1_500_000  # two requests of a second each, less the moment since


def test_a_namespace_with_braces_is_refused(redis_url: str):
    """Braces mark the hash slot."""
    with pytest.raises(SettingsError, match="namespace"):
        RedisLedger(redis_url, "a{b}", now=FakeClock().now)
