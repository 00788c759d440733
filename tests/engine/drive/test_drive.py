"""The two drivers: real threads, real tasks and real limits of some tens of milliseconds (everything else runs on a fake clock)."""

import asyncio
import contextvars
import gc
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import pytest

from langchain_resilient.engine.classify import ErrorKind
from langchain_resilient.engine.drive import (
    AsyncHands,
    Hands,
    arun,
    astream,
    awaiting,
    blocking,
    common,
    drain,
    run,
    stream,
    threads,
)
from langchain_resilient.engine.drive.threads import READ_AHEAD, THREADS
from langchain_resilient.engine.effects import Abandon, Call, Place, Race, Request, Sleep
from langchain_resilient.engine.errors import AttemptTimeoutError, LocalFaultError, StreamInterruptedError
from langchain_resilient.engine.events import Attempted, Decided
from langchain_resilient.engine.plan import answer
from langchain_resilient.engine.policy import Policy, SystemClock, Timeouts
from langchain_resilient.engine.quota import RateLimits
from langchain_resilient.engine.store.memory import MemoryStore
from tests.engine.harness import Chunk, admitted, left_over, settle, target

CLOCK = SystemClock()
SHORT = 0.05
"""A limit that fires."""
LONG = 5.0
"""A limit that doesn't."""


def renew_often(monkeypatch):
    """Renew leases every 10 ms."""
    for driver in (awaiting, blocking):
        monkeypatch.setattr(driver, "RENEW_EVERY", 0.01)


def until(true, seconds=5.0):
    """Wait for something that another thread is about to do."""
    end = time.monotonic() + seconds
    while not true() and time.monotonic() < end:
        time.sleep(0.002)
    return true()


async def auntil(true, seconds=5.0):
    """The same in a task."""
    end = time.monotonic() + seconds
    while not true() and time.monotonic() < end:  # noqa: ASYNC110  # what it waits for sets no event
        await asyncio.sleep(0.002)
    return true()


class Provider:
    """An upstream that takes real time: per provider a number of seconds, then a word, an exception or chunks."""

    keeps = False

    def __init__(self, **scripts):
        self.scripts = scripts
        self.threads = []
        self.closed = []
        self.cancelled = []
        self.release = threading.Event()
        """Ends every hanging call."""

    def _outcome(self, name):
        outcome = self.scripts[name][1]
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    def call(self, target):
        self.threads.append(threading.current_thread())
        self.release.wait(self.scripts[target.name][0])
        return self._outcome(target.name)

    async def acall(self, target):
        try:
            await asyncio.sleep(self.scripts[target.name][0])
        except asyncio.CancelledError:
            self.cancelled.append(target.name)
            raise
        return self._outcome(target.name)

    def stream(self, target):
        try:
            self.release.wait(self.scripts[target.name][0])
            for chunk in self._outcome(target.name):
                if isinstance(chunk, float):
                    self.release.wait(chunk)
                elif isinstance(chunk, BaseException):
                    raise chunk
                else:
                    yield chunk
        finally:
            self.closed.append(target.name)

    async def astream(self, target):
        try:
            await asyncio.sleep(self.scripts[target.name][0])
            for chunk in self._outcome(target.name):
                if isinstance(chunk, float):
                    await asyncio.sleep(chunk)
                elif isinstance(chunk, BaseException):
                    raise chunk
                else:
                    yield chunk
        finally:
            self.closed.append(target.name)

    def streams(self, target):
        return True

    def continuation(self, shown):
        return None

    def keeps_time(self, target, seconds):
        return self.keeps

    def has_content(self, chunk):
        return bool(chunk.text)

    def finish_reason(self, chunk):
        return chunk.finish

    def usage(self, answer):
        return None

    def changes(self, target):
        return ()

    def headroom(self, answer):
        return ()

    def text(self, chunk):
        return chunk.text


class Setting:
    """A store, providers and a policy on the machine's own clock."""

    def __init__(self, *, targets=None, response=LONG, first_token=LONG, idle=LONG, rand=0.5, **scripts):
        timeouts = Timeouts(response=response, first_token=first_token, idle=idle)
        self.upstream = Provider(**scripts)
        self.store = MemoryStore(CLOCK.now, lambda: 0.5)
        self.targets = targets or tuple(target(name, timeouts=timeouts) for name in scripts)
        self.events = []
        self.policy = Policy(self.targets, observe=self.events.append, rand=lambda: rand)

    def plan(self, **fields):
        return answer(Request(1, self.upstream, **fields), self.policy)

    def run(self, **fields):
        return run(self.plan(**fields), self.hands)

    async def arun(self, **fields):
        return await arun(self.plan(**fields), self.ahands)

    def stream(self, **fields):
        return stream(self.plan(stream=True, **fields), self.hands)

    def astream(self, **fields):
        return astream(self.plan(stream=True, **fields), self.ahands)

    @property
    def hands(self):
        return Hands(self.store, self.upstream, CLOCK)

    @property
    def ahands(self):
        return AsyncHands(self.store, self.upstream, CLOCK)

    def half_open(self, name="a"):
        """Let a circuit open and its time pass."""
        item = next(item for item in self.targets if item.name == name)
        for _ in range(5):
            settle(self.store, admitted(self.store, item), ErrorKind.SERVER_ERROR)
        route = self.store._route(item)
        route.circuit = route.circuit._replace(until=0)

    def state(self, name="a"):
        """A circuit's state and its good probes."""
        circuit = self.store._routes[name].circuit
        return circuit.phase, circuit.successes


@contextmanager
def abandoned(count, routes="a"):
    """Pretend that so many threads hang for each of these, and look that none is added for good."""
    before = {route: THREADS.abandoned(route) for route in routes}
    for route in routes:
        THREADS.count(route, count)
    try:
        yield
    finally:
        for route in routes:
            THREADS.count(route, -count)
            assert THREADS.abandoned(route) == before[route]


# ----------------------------------------------------------------------------------------------------------- sync calls
def test_a_client_that_keeps_time_is_called_in_the_callers_thread():
    """No thread for a call that ends by itself; its lease is stretched over the whole limit at once."""
    setting = Setting(a=(0.0, Chunk("hello")), targets=(target("a", limits=RateLimits(concurrency=1)),))
    setting.upstream.keeps = True
    assert setting.run().text == "hello"
    assert setting.upstream.threads == [threading.current_thread()]
    ticket = admitted(setting.store, setting.targets[0])
    setting.hands.perform(Call(ticket, 100.0, "response"))
    lapses = setting.store._accounts["a:key"].leases[ticket.attempt] / 1_000_000
    assert 129.0 < lapses - CLOCK.now() <= 130.0


def test_another_client_is_called_in_a_daemon_thread():
    """A thread that hangs must not keep the process from ending; threads are kept for the next call."""
    setting = Setting(a=(0.0, Chunk("hello")))
    assert [setting.run().text for _ in range(5)] == ["hello"] * 5
    threads = setting.upstream.threads
    assert threading.current_thread() not in threads
    assert all(thread.daemon for thread in threads)
    assert len({id(thread) for thread in threads}) <= 3


def test_a_call_is_abandoned_at_its_limit():
    """The client would hang for ever; the caller hears after the limit, and the thread counts as abandoned until it ends."""
    setting = Setting(a=(LONG, Chunk("late")), response=SHORT)
    began = time.monotonic()
    with pytest.raises(AttemptTimeoutError) as caught:
        setting.run()
    assert (caught.value.limit, caught.value.seconds) == ("response", SHORT)
    assert SHORT <= time.monotonic() - began < LONG / 2
    assert THREADS.abandoned("a") == 1
    setting.upstream.release.set()
    assert until(lambda: THREADS.abandoned("a") == 0)
    assert left_over(setting.store) == {}


def test_no_more_threads_than_64_may_hang():
    """Then an attempt fails as a fault of this process, which is no fault of the provider's."""
    setting = Setting(a=(0.0, Chunk("hello")))
    with abandoned(64), pytest.raises(LocalFaultError, match="64 abandoned threads"):
        setting.run()
    with abandoned(63):
        assert setting.run().text == "hello"
    assert setting.state() == ("closed", 0)
    assert setting.store.status(setting.targets[0])["failures_in_a_row"] == 0


def test_no_more_threads_for_streams_and_races_either():
    """A stream or a race that no thread can be found for fails in the same way, and leaves nothing behind."""
    setting = Setting(a=(0.0, (Chunk("hello"),)), b=(0.0, (Chunk("hello"),)))
    with abandoned(64, "ab"), pytest.raises(BaseException, match="every provider failed") as caught:
        list(setting.stream())
    assert {type(error) for error in caught.value.exceptions} == {LocalFaultError}
    setting.half_open()
    with abandoned(64, "ab"), pytest.raises(BaseException, match="every provider failed") as caught:
        setting.run()
    assert {type(error) for error in caught.value.exceptions} == {LocalFaultError}
    assert left_over(setting.store) == {}


def test_a_black_hole_takes_no_threads_from_the_others():
    """64 threads that wait for one provider are no reason to refuse another."""
    setting = Setting(a=(0.0, Chunk("from a")), b=(0.0, Chunk("from b")))
    with abandoned(64, "a"):
        assert setting.run().text == "from b"
    assert left_over(setting.store) == {}


def test_a_thread_that_cannot_be_started_is_a_local_fault(monkeypatch):
    """What the system refuses is told as ours."""

    def refuse(thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(THREADS, "_idle", [])
    monkeypatch.setattr(threading.Thread, "start", refuse)
    setting = Setting(a=(0.0, Chunk("hello")))
    with pytest.raises(LocalFaultError, match="no more threads"):
        setting.run()
    assert left_over(setting.store) == {}


def test_the_context_is_copied_into_threads():
    """What the caller set in its context, the provider's client reads (tracing, capture_decisions)."""
    variable = contextvars.ContextVar("variable", default="unset")
    setting = Setting(a=(0.0, Chunk("hello")))
    setting.upstream.call = lambda target: Chunk(variable.get())
    token = variable.set("the caller's")
    assert setting.run().text == "the caller's"
    variable.reset(token)
    assert setting.run().text == "unset"


@pytest.mark.parametrize("streamed", [False, True])
def test_what_is_no_failure_crosses_the_thread(streamed):
    """SystemExit inside a client's thread is raised in the caller's, and nothing is left behind."""
    setting = Setting(a=(0.0, SystemExit(3)))
    with pytest.raises(SystemExit):
        list(setting.stream()) if streamed else setting.run()
    setting = Setting(a=(0.0, (Chunk("one"), SystemExit(3))))
    with pytest.raises(SystemExit):
        list(setting.stream())
    assert left_over(setting.store) == {}
    assert Setting(a=(0.0, Chunk("hello"))).run().text == "hello"


def test_an_interrupted_caller_abandons_its_call(monkeypatch):
    """Ctrl-C while a thread waits for the provider: settled as neutral, the thread abandoned."""
    setting = Setting(a=(LONG, Chunk("late")))

    class Interrupting(threading.Event):
        def wait(self, timeout=None):
            raise KeyboardInterrupt

    setting.upstream.release = threading.Event()
    monkeypatch.setattr(threads.threading, "Event", Interrupting)
    with pytest.raises(KeyboardInterrupt):
        setting.run()
    monkeypatch.undo()
    assert left_over(setting.store) == {}
    assert THREADS.abandoned("a") == 1
    setting.upstream.release.set()
    assert until(lambda: THREADS.abandoned("a") == 0)


# ---------------------------------------------------------------------------------------------------------- async calls
async def test_an_async_call_is_cancelled_at_its_limit():
    """The provider's coroutine is cancelled, and the caller told which limit it was."""
    setting = Setting(a=(LONG, Chunk("late")), response=SHORT)
    with pytest.raises(AttemptTimeoutError) as caught:
        await setting.arun()
    assert (caught.value.limit, setting.upstream.cancelled) == ("response", ["a"])
    assert left_over(setting.store) == {}


async def test_a_providers_own_timeout_is_not_taken_for_ours():
    """A TimeoutError that the client raises before our limit stays what it is."""
    error = TimeoutError("the client's own")
    setting = Setting(a=(0.0, error))
    with pytest.raises(TimeoutError) as caught:
        await setting.arun()
    assert caught.value is error


async def test_a_cancelled_task_leaves_nothing_behind():
    """The call is cancelled, the lease returned, the circuit none the wiser."""
    setting = Setting(a=(LONG, Chunk("late")), targets=(target("a", limits=RateLimits(concurrency=1)),))
    task = asyncio.create_task(setting.arun())
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (setting.upstream.cancelled, left_over(setting.store)) == (["a"], {})
    assert setting.store.status(setting.targets[0])["failures_in_a_row"] == 0


# ---------------------------------------------------------------------------------------------------------------- leases
@pytest.mark.parametrize("colour", ["sync", "async"])
@pytest.mark.parametrize("race", [False, True])
def test_leases_are_renewed_during_a_long_call(monkeypatch, colour, race):
    """While the provider works, the lease is renewed again and again; alone and in a race."""
    renew_often(monkeypatch)
    limits = RateLimits(concurrency=5)
    setting = Setting(a=(0.1, Chunk("a")), b=(0.2, Chunk("b")), targets=(target("a", limits=limits), target("b")))
    renewed = []
    setting.store.renew = lambda ticket, seconds: renewed.append((ticket.target.name, seconds))
    if race:
        setting.half_open()
    counts = []

    async def call():
        await setting.arun()
        counts.append(len(renewed))
        await asyncio.sleep(0.04)

    if colour == "sync":
        setting.run()
        counts.append(len(renewed))
        time.sleep(0.04)
    else:
        asyncio.run(call())
    assert set(renewed) == {("a", 30.0)}
    assert (counts[0] >= 3, len(renewed)) == (True, counts[0])  # and none after the end


def test_a_call_without_a_lease_renews_nothing(monkeypatch):
    """Nothing lapses, so nothing is renewed."""
    renew_often(monkeypatch)
    setting = Setting(a=(0.05, Chunk("a")))
    setting.store.renew = lambda ticket, seconds: pytest.fail("renewed")
    assert setting.run().text == "a"


@pytest.mark.parametrize("colour", ["sync", "async"])
def test_a_detached_probe_keeps_its_lease(monkeypatch, colour):
    """A losing probe is renewed until its end, however long after its user has gone."""
    renew_often(monkeypatch)
    setting = Setting(a=(0.12, Chunk("a")), b=(0.0, Chunk("b")))
    renewed = []
    setting.store.renew = lambda ticket, seconds: renewed.append(ticket.target.name)
    setting.half_open()

    async def both():
        assert (await setting.arun()).text == "b"
        assert await auntil(lambda: setting.state()[1] == 1)

    if colour == "sync":
        assert setting.run().text == "b"
        assert until(lambda: setting.state()[1] == 1)
    else:
        asyncio.run(both())
    assert renewed.count("a") >= 3


# ----------------------------------------------------------------------------------------------------------------- races
def test_a_sync_race_is_won_by_the_first_answer():
    """The companion answers; the losing probe runs on in its thread and counts."""
    setting = Setting(a=(0.06, Chunk("from a")), b=(0.0, Chunk("from b")))
    setting.half_open()
    began = time.monotonic()
    assert setting.run().text == "from b"
    assert time.monotonic() - began < 0.05
    assert setting.state() == ("half_open", 0)
    assert until(lambda: setting.state() == ("half_open", 1))
    assert until(lambda: left_over(setting.store) == {})


def test_a_sync_race_of_a_failure_and_an_answer():
    """The first to end failed, so the race waits for the other one."""
    setting = Setting(a=(0.0, ConnectionError("reset")), b=(0.03, Chunk("from b")))
    setting.half_open()
    assert setting.run().text == "from b"
    assert setting.state()[0] == "open"


def test_a_sync_race_in_which_one_runs_out_of_time():
    """The probe's limit fires within the race; the companion's answer is the user's, and what comes late is dropped."""
    timeouts = Timeouts(response=SHORT)
    targets = (target("a", timeouts=timeouts), target("b", timeouts=Timeouts(response=LONG)))
    setting = Setting(a=(0.08, Chunk("late")), b=(0.14, Chunk("from b")), targets=targets)
    setting.half_open()
    for _ in range(3):
        setting.store._route(targets[0]).answers += 1
    assert setting.run().text == "from b"
    assert setting.state()[0] == "open"
    assert until(lambda: THREADS.abandoned("a") == 0)


def test_a_late_stream_does_not_win_a_race_that_it_lost_by_its_limit():
    """Its chunks are thrown away already: the user reads the other one's, whole."""
    first = tuple(Chunk(f"a{number} ") for number in range(20))
    timeouts = Timeouts(first_token=SHORT)
    targets = (target("a", timeouts=timeouts), target("b", timeouts=Timeouts(first_token=LONG)))
    setting = Setting(a=(0.08, first), b=(0.16, (Chunk("whole "), Chunk("text"))), targets=targets)
    setting.half_open()
    assert "".join(chunk.text for chunk in setting.stream()) == "whole text"
    assert until(lambda: sorted(setting.upstream.closed) == ["a", "b"])


def test_a_sync_races_abandoned_companion_is_closed():
    """The probe wins; the companion's stream is closed as soon as it brings something."""
    setting = Setting(a=(0.0, (Chunk("from a"),)), b=(0.05, [Chunk("from b")] * 500))
    setting.half_open()
    assert "".join(chunk.text for chunk in setting.stream()) == "from a"
    assert until(lambda: sorted(setting.upstream.closed) == ["a", "b"])
    assert until(lambda: THREADS.abandoned("a") == 0)
    assert left_over(setting.store) == {}


def test_a_detached_sync_probe_that_hangs_ends_at_its_limit():
    """Nobody waits for it, yet it settles as a timeout and its thread counts as abandoned."""
    targets = (target("a", timeouts=Timeouts(response=SHORT)), target("b"))
    setting = Setting(a=(LONG, Chunk("late")), b=(0.0, Chunk("from b")), targets=targets)
    setting.half_open()
    setting.store._route(targets[0]).answers = 3
    assert setting.run().text == "from b"
    assert until(lambda: setting.state()[0] == "open")
    assert until(lambda: left_over(setting.store) == {})
    assert THREADS.abandoned("a") == 1
    setting.upstream.release.set()
    assert until(lambda: THREADS.abandoned("a") == 0)


def test_a_detached_sync_probe_without_a_thread_to_watch_it_settles_too():
    """With 64 hanging it still tells how it ended, in its own thread."""
    setting = Setting(a=(0.05, Chunk("from a")), b=(0.0, Chunk("from b")))
    setting.half_open()
    hands, plan = setting.hands, setting.plan()
    perform = hands.perform

    class Full(Hands):
        def perform(self, effect):
            if type(effect).__name__ != "Detach":
                return perform(effect)
            with abandoned(64):
                return perform(effect)

    assert run(plan, Full(setting.store, setting.upstream, CLOCK)).text == "from b"
    assert until(lambda: setting.state() == ("half_open", 1))


async def test_an_async_race_is_won_by_the_first_answer():
    """The companion answers; the losing probe runs on as a task of its own and counts."""
    setting = Setting(a=(0.06, Chunk("from a")), b=(0.0, Chunk("from b")))
    setting.half_open()
    assert (await setting.arun()).text == "from b"
    assert setting.state() == ("half_open", 0)
    assert await auntil(lambda: setting.state() == ("half_open", 1))
    assert (setting.upstream.cancelled, left_over(setting.store)) == ([], {})


async def test_an_async_race_cancels_the_losing_companion():
    """The probe wins, and the companion's coroutine is cancelled before the answer is handed out."""
    setting = Setting(a=(0.0, Chunk("from a")), b=(LONG, Chunk("from b")))
    setting.half_open()
    assert (await setting.arun()).text == "from a"
    assert (setting.upstream.cancelled, left_over(setting.store)) == (["b"], {})


async def test_cancelling_a_task_inside_a_race_cancels_both():
    """Neither runner outlives its caller."""
    setting = Setting(a=(LONG, Chunk("from a")), b=(LONG, Chunk("from b")))
    setting.half_open()
    task = asyncio.create_task(setting.arun())
    await asyncio.sleep(0.02)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert sorted(setting.upstream.cancelled) == ["a", "b"]
    assert (setting.state(), left_over(setting.store)) == (("half_open", 0), {})


async def test_a_lost_async_stream_is_closed():
    """A companion whose first content came in the same moment is closed upstream."""
    setting = Setting(a=(0.0, [Chunk("from a")] * 9), b=(0.0, [Chunk("from b")] * 9))
    setting.half_open()
    text = "".join([chunk.text async for chunk in setting.astream()])
    assert text in {"from a" * 9, "from b" * 9}
    await drain()
    assert sorted(setting.upstream.closed) == ["a", "b"]
    assert left_over(setting.store) == {}


async def test_drain_ends_detached_probes_as_neutral():
    """On closing, a probe still under way is cancelled: its permit is back, and the circuit has learnt nothing."""
    setting = Setting(a=(LONG, Chunk("from a")), b=(0.0, Chunk("from b")))
    setting.half_open()
    assert (await setting.arun()).text == "from b"
    assert left_over(setting.store) != {}
    await drain()
    assert (setting.upstream.cancelled, setting.state(), left_over(setting.store)) == (["a"], ("half_open", 0), {})
    assert not awaiting._DETACHED


def test_drain_leaves_other_loops_alone():
    """A loop ends its own probes, not those of a loop in another thread."""
    setting = Setting(a=(0.1, Chunk("from a")), b=(0.0, Chunk("from b")))
    setting.half_open()
    detached = threading.Event()

    async def other():
        await setting.arun()
        detached.set()
        await auntil(lambda: setting.state()[1] == 1)

    thread = threading.Thread(target=lambda: asyncio.run(other()))
    thread.start()
    detached.wait(5.0)
    asyncio.run(drain())
    thread.join()
    assert (setting.state(), setting.upstream.cancelled) == (("half_open", 1), [])


def test_a_loop_that_closes_while_a_probe_runs_settles_it_as_neutral():
    """`asyncio.run` ends and cancels what is left: nothing is held, nothing is counted."""
    setting = Setting(a=(LONG, Chunk("from a")), b=(0.0, Chunk("from b")))
    setting.half_open()
    assert asyncio.run(setting.arun()).text == "from b"
    assert (setting.state(), left_over(setting.store)) == (("half_open", 0), {})


# --------------------------------------------------------------------------------------------------------------- streams
TEXT = tuple(Chunk(f"{number} ") for number in range(200))


def test_a_sync_stream_arrives_whole():
    """More chunks than are read ahead, in order."""
    setting = Setting(a=(0.0, TEXT))
    assert tuple(setting.stream()) == TEXT
    assert (setting.upstream.closed, left_over(setting.store)) == (["a"], {})


def test_a_sync_stream_reads_ahead_only_so_far():
    """A slow reader does not make the whole answer pile up in memory."""
    produced = []

    def chunks():
        for chunk in TEXT:
            produced.append(chunk)
            yield chunk

    setting = Setting(a=(0.0, chunks()))
    shown = setting.stream()
    next(shown)
    time.sleep(0.03)
    assert len(produced) <= READ_AHEAD + 3
    assert len(list(shown)) == 199


def test_a_sync_streams_limits():
    """Silence before the first content and silence after it are told apart."""
    setting = Setting(a=(LONG, TEXT), first_token=SHORT)
    with pytest.raises(AttemptTimeoutError) as caught:
        list(setting.stream())
    assert caught.value.limit == "first_token"
    setting.upstream.release.set()
    assert until(lambda: THREADS.abandoned("a") == 0)
    setting = Setting(a=(0.0, (Chunk("one"), LONG, Chunk("two"))), idle=SHORT)
    with pytest.raises(StreamInterruptedError) as caught:
        list(setting.stream())
    assert (caught.value.partial, caught.value.__cause__.limit) == ("one", "idle")
    setting.upstream.release.set()
    assert until(lambda: setting.upstream.closed == ["a"])
    assert left_over(setting.store) == {}


async def test_an_async_streams_limits():
    """The same for a task."""
    setting = Setting(a=(LONG, TEXT), first_token=SHORT)
    with pytest.raises(AttemptTimeoutError) as caught:
        [chunk async for chunk in setting.astream()]
    assert (caught.value.limit, setting.upstream.closed) == ("first_token", ["a"])
    setting = Setting(a=(0.0, (Chunk("one"), LONG, Chunk("two"))), idle=SHORT)
    with pytest.raises(StreamInterruptedError) as caught:
        [chunk async for chunk in setting.astream()]
    assert (caught.value.partial, caught.value.__cause__.limit) == ("one", "idle")
    assert (setting.upstream.closed, left_over(setting.store)) == (["a"], {})


def test_a_sync_stream_dropped_by_its_reader_is_closed():
    """Garbage collection is as good as `close`."""
    setting = Setting(a=(0.0, TEXT))
    shown = setting.stream()
    next(shown)
    del shown
    gc.collect()
    assert until(lambda: setting.upstream.closed == ["a"])
    assert left_over(setting.store) == {}


@pytest.mark.parametrize("colour", ["sync", "async"])
async def test_a_stream_dropped_within_a_cycle_is_told_and_given_back(colour):
    """The collector closes the plan before its driver: what is held is given back all the same, and the request has its record."""
    setting = Setting(a=(0.0, TEXT))
    cycle = {}
    cycle["self"] = cycle
    if colour == "sync":
        cycle["stream"] = setting.stream()
        next(cycle["stream"])
    else:
        cycle["stream"] = setting.astream()
        await anext(cycle["stream"])
    del cycle
    gc.collect()
    for _ in range(100):
        await asyncio.sleep(0.01)
        if setting.upstream.closed == ["a"] and left_over(setting.store) == {}:
            break
    assert (setting.upstream.closed, left_over(setting.store)) == (["a"], {})
    told = [event for event in setting.events if isinstance(event, Attempted | Decided)]
    assert [(type(event).__name__, getattr(event, "kind", None)) for event in told] == [
        ("Attempted", "cancelled"),
        ("Decided", None),
    ]
    assert told[1].decision.outcome == "cancelled"


async def test_a_cancelled_async_stream_is_closed():
    """A reader that is cancelled while it waits lets go of the connection."""
    setting = Setting(a=(0.0, (Chunk("one"), LONG, Chunk("two"))))

    async def read():
        return [chunk async for chunk in setting.astream()]

    task = asyncio.create_task(read())
    await asyncio.sleep(0.02)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (setting.upstream.closed, left_over(setting.store)) == (["a"], {})


def test_an_error_inside_a_sync_stream_reaches_the_reader():
    """It crosses the reading thread as a failure."""
    setting = Setting(a=(0.0, (Chunk("one"), ConnectionError("reset"))))
    with pytest.raises(StreamInterruptedError) as caught:
        list(setting.stream())
    assert isinstance(caught.value.__cause__, ConnectionError)


# ------------------------------------------------------------------------------------------------------- lines and the rest
def test_a_sync_waiter_is_woken_when_its_turn_comes():
    """It does not sleep out its time: the place that becomes free is taken at once."""
    limits = RateLimits(concurrency=1)
    setting = Setting(a=(0.05, Chunk("hello")), targets=(target("a", limits=limits),))
    first = threading.Thread(target=setting.run)
    first.start()
    assert until(lambda: setting.store._accounts["a:key"].leases)
    began = time.monotonic()
    assert setting.run().text == "hello"
    assert time.monotonic() - began < 1.0
    first.join()
    assert left_over(setting.store) == {}


async def test_async_waiters_are_woken_in_order():
    """Ten tasks and one place: each gets it in its turn, without polling."""
    setting = Setting(a=(0.002, Chunk("hello")), targets=(target("a", limits=RateLimits(concurrency=1)),))
    order = []

    async def one(number):
        await setting.arun()
        order.append(number)

    await asyncio.gather(*[one(number) for number in range(10)])
    assert order == list(range(10))
    assert left_over(setting.store) == {}


def test_a_waiter_that_was_woken_before_it_slept_does_not_sleep():
    """The wake-up between the store's reply and the sleep is not lost."""
    setting = Setting(a=(0.0, Chunk("hello")))
    place = Place(1, setting.targets[0], 0)
    place.woken = True
    began = time.monotonic()
    setting.hands.perform(Sleep(LONG, place))
    asyncio.run(setting.ahands.perform(Sleep(LONG, place)))
    assert time.monotonic() - began < LONG / 2


def test_waking_a_waiter_whose_loop_is_closed_harms_nobody():
    """It is gone; whoever wakes it has other things to do."""
    setting = Setting(a=(0.0, Chunk("hello")))
    place = Place(1, setting.targets[0], 0)
    asyncio.run(setting.ahands.perform(Sleep(0.001, place)))
    place.wake()


@pytest.mark.parametrize("colour", ["sync", "async"])
def test_an_unknown_effect_is_a_bug(colour):
    """A driver performs what it knows and says so of anything else."""
    setting = Setting(a=(0.0, Chunk("hello")))
    with pytest.raises(AssertionError, match="no driver performs"):
        if colour == "sync":
            setting.hands.perform("odd")
        else:
            asyncio.run(setting.ahands.perform("odd"))


def test_race_and_abandon_by_hand():
    """An abandoned runner is closed when it comes; one that is under way is the race's `running`."""
    setting = Setting(a=(0.0, Chunk("from a")), b=(0.05, Chunk("from b")))
    calls = tuple(Call(admitted(setting.store, item), LONG, "response") for item in setting.targets)
    raced = setting.hands.perform(Race(calls))
    assert (raced.fates[0].value.text, raced.fates[1]) == ("from a", None)
    setting.hands.perform(Abandon(raced.running))
    assert THREADS.abandoned("b") == 1
    assert until(lambda: THREADS.abandoned("b") == 0)


@pytest.mark.parametrize("colour", ["sync", "async"])
def test_a_race_goes_on_without_the_one_that_failed(colour):
    """A race ends when the second runner fails; another begins beside the first, which goes on and may be waited for alone."""
    setting = Setting(a=(0.2, Chunk("from a")), b=(0.0, ConnectionError("gone")), c=(0.0, ConnectionError("gone too")))
    first, second, third = (Call(admitted(setting.store, item), LONG, "response") for item in setting.targets)
    hands, ahands = setting.hands, setting.ahands

    async def races():
        async def race(*calls, running=None):
            effect = Race(calls, running)
            return hands.perform(effect) if colour == "sync" else await ahands.perform(effect)

        one = await race(first, second)
        two = await race(third, running=one.running)
        return one, two, await race(running=two.running)

    one, two, three = asyncio.run(races())
    assert (one.fates[0], str(one.fates[1].error)) == (None, "gone")
    assert (two.fates[0], str(two.fates[1].error)) == (None, "gone too")
    assert one.running is two.running is not None
    assert ([fate.value.text for fate in three.fates], three.running) == (["from a"], None)


@pytest.mark.parametrize("colour", ["sync", "async"])
def test_a_probe_that_hangs_costs_its_user_nothing_though_the_other_fails(colour):
    """The next provider answers while the probe still hangs; nothing is left held once the probe is let go."""
    setting = Setting(a=(0.3, Chunk("from a")), b=(0.0, ConnectionError("gone")), c=(0.0, Chunk("from c")))
    setting.half_open("a")

    async def ask():
        answer = setting.run() if colour == "sync" else await setting.arun()
        state = setting.state("a")
        await drain()
        return answer.text, state

    assert asyncio.run(ask()) == ("from c", ("half_open", 0))
    assert until(lambda: not setting.store._routes["a"].circuit.permits or setting.state("a")[1] == 1)


def test_many_threads_share_a_store():
    """24 threads, 20 requests each: all answered, nothing left over, the limit never exceeded."""
    limits = RateLimits(concurrency=7, on_limit="wait", max_wait=30.0)
    setting = Setting(a=(0.001, Chunk("hello")), targets=(target("a", limits=limits),))
    running, most, lock = [0], [0], threading.Lock()

    def call(item):
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        time.sleep(0.001)
        with lock:
            running[0] -= 1
        return Chunk("hello")

    setting.upstream.call = call
    answers = []
    threads = [
        threading.Thread(target=lambda: answers.extend(setting.run().text for _ in range(20))) for _ in range(24)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == ["hello"] * 480
    assert 2 <= most[0] <= 7
    assert left_over(setting.store) == {}


# ------------------------------------------------------------------------------------------------- ends that nobody chose
def test_a_loop_that_closes_under_a_call_leaks_nothing():
    """A coroutine that is closed while it waits can await nothing more, but gives back what it holds."""
    setting = Setting(a=(LONG, Chunk("late")), targets=(target("a", limits=RateLimits(concurrency=1)),))

    async def forsaken():
        task = setting.arun()
        task.send(None)
        task.close()

    asyncio.run(forsaken())
    assert left_over(setting.store) == {}


def test_a_stream_that_the_collector_closes_within_a_step_does_not_deadlock():
    """A dropped stream in a reference cycle is closed in the middle of a step of the store: its report waits for the step's end."""
    setting = Setting(a=(0.0, (Chunk("one"), Chunk("two"))), targets=(target("a", limits=RateLimits(concurrency=1)),))
    cycle = {}
    cycle["self"], cycle["stream"] = cycle, setting.stream()
    assert next(cycle["stream"]).text == "one"
    del cycle
    with setting.store._turn:
        gc.collect()
    until(lambda: left_over(setting.store) == {})


@pytest.mark.parametrize("colour", ["sync", "async"])
def test_the_lease_of_a_stream_lives_as_long_as_it_is_read(monkeypatch, colour):
    """A stream of a minute keeps its place: a second one is not let in beside it."""
    monkeypatch.setattr(common, "RENEW_EVERY", 0.0)
    chunks = [item for _ in range(4) for item in (Chunk("x"), 0.01)]
    limits = RateLimits(concurrency=1, max_wait=0.0)
    setting = Setting(a=(0.0, chunks), targets=(target("a", limits=limits, timeouts=Timeouts(idle=7.0)),))
    left = []

    def look():
        (lapses,) = setting.store._accounts["a:key"].leases.values()
        left.append(lapses / 1_000_000 - CLOCK.now())
        # As if half a minute had passed since the last chunk.
        setting.store._accounts["a:key"].leases = {
            attempt: int((CLOCK.now() + 0.5) * 1_000_000) for attempt in setting.store._accounts["a:key"].leases
        }

    if colour == "sync":
        for _ in setting.stream():
            look()
    else:

        async def read():
            async for _ in setting.astream():
                look()

        asyncio.run(read())
    assert [round(seconds) for seconds in left] == [30, 37, 37, 37]
    assert left_over(setting.store) == {}


def test_a_stream_that_stalls_after_its_beginning_counts_as_abandoned():
    """Its thread still waits for the provider, and such threads must not pile up uncounted."""
    setting = Setting(a=(0.0, [Chunk("one"), 30.0, Chunk("late")]), idle=SHORT)
    with pytest.raises(StreamInterruptedError):
        list(setting.stream())
    assert THREADS.abandoned("a") == 1
    setting.upstream.release.set()
    assert until(lambda: THREADS.abandoned("a") == 0)


FORK = """
import os, sys
from langchain_resilient import ResilientChatModel, Timeouts
from langchain_resilient.testing import ScriptedChatModel

one = ScriptedChatModel(total_timeout=None)
model = ResilientChatModel(providers=[one], timeouts=Timeouts(response=5.0))
model.invoke("in the parent, whose threads wait for more")
child = os.fork()
if child == 0:
    os._exit(0 if model.invoke("in the child").text == "Hello." else 1)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.e2e
def test_a_forked_child_has_threads_of_its_own():
    """A pre-forking server's workers answer, though the parent's idle threads did not come along."""
    done = subprocess.run([sys.executable, "-c", FORK], timeout=30, check=False)
    assert done.returncode == 0
