"""One connection: words arrive unharmed, a lost script is sent again, no further right is needed, and redis-py's own reader will do."""

import asyncio
import signal

import pytest
import redis

from langchain_resilient.engine.store.redis.post.courier import DOWN, Courier, Operation
from langchain_resilient.engine.store.redis.post.line import Line
from langchain_resilient.engine.store.redis.post.troubles import Trouble
from tests.engine.store.redis.post.office import SLACK, Box, await_it, incr, key, limited, timed, until


def test_words_come_back_as_they_were_sent(box: Box, made):
    """Line breaks, non-ASCII text, empty words, lone surrogates and numbers go over the wire unharmed."""
    words = ("a\r\nb", "é", "", "\r\n", "\ud800", -5, 2**53, "x" * 70_000)
    reply = made(box).ask(Operation("echo", (), words)).result()
    assert reply == [b"a\r\nb", "é".encode(), b"", b"\r\n", b"\xed\xa0\x80", b"-5", b"9007199254740992", b"x" * 70_000]


def test_a_connection_that_the_server_closed_is_not_used(box: Box, made):
    """A connection that was closed while nobody asked is noticed before it is used: the next asker gets a reply."""
    courier, name = made(box), key()
    assert courier.ask(incr(name)).result() == 1
    with box.client() as client:
        client.client_kill_filter(_type="normal", skipme=True)
    courier._carriage.wire._lines[None]._used -= 1
    assert courier.ask(incr(name)).result() == 2 and courier.up


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


def test_a_lost_script_needs_no_further_right(hurt: Box, made):
    """A user who may not EVAL is answered after a SCRIPT FLUSH too."""
    hurt.budget = 10.0
    with hurt.start().client() as client:
        limited(client)
        courier = made(hurt, login="lr:sesame@")
        assert courier.ask(incr("{t}:x")).result() == 1
        client.script_flush()
        assert courier.ask(incr("{t}:x")).result() == 2 and courier.up


def test_nothing_is_sent_that_needs_another_right(hurt: Box, made):
    """A user with few rights leaves no line in the server's ACL LOG: not by connecting, nor by anything after it."""
    hurt.budget = 10.0
    with hurt.start().client() as client:
        limited(client)
        courier = made(hurt, login="lr:sesame@", channel="{t}:news")
        assert courier.ask(incr("{t}:x")).result() == 1
        assert client.execute_command("ACL", "LOG") == []


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
