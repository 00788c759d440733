"""Redis refused, killed, hung and back again: a letter is kept within a bound, and follows by itself."""

import json
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from langchain_resilient.engine.dead_letters.box import BoxAwayError
from langchain_resilient.engine.dead_letters.channel import Channel
from langchain_resilient.engine.dead_letters.redis import HURRY, RedisBox
from langchain_resilient.engine.store.redis.post.dial import Dial
from langchain_resilient.engine.store.redis.post.troubles import Trouble
from langchain_resilient.engine.store.redis.wire import Operation
from tests.engine.dead_letters.post import TENANT, ids, letter
from tests.servers import Server, free_port, until

ROOT = Path(__file__).parents[3]
PERSISTENT = ("appendonly yes", "appendfsync always")
pytestmark = pytest.mark.e2e


@pytest.fixture
def server():
    """A Redis that remembers what it was told when it is killed."""
    with Server(config=PERSISTENT) as made:
        yield made


def followed(box, count):
    """Wait until the spool is empty, and so many letters are in Redis."""
    until(lambda: box._spool.empty, "the spool is empty", within=20)
    assert box.counts()[:3] == (count, 0, 0)


def test_killed_midway_and_back_again(server, namespace, tmp_path, caplog):
    """Letters that come while Redis is killed are spooled and follow when it is back, all of them once, in a box that goes on as before."""
    box = RedisBox(server.url, namespace, spool=tmp_path)
    for number in range(1, 11):
        assert box.put(letter(number))
    server.kill()
    for number in range(11, 31):
        assert box.put(letter(number)) == "spool"
    with pytest.raises(BoxAwayError):
        box.counts()
    assert not box._spool.empty
    assert box._spool.count() == 20
    server.restart()
    followed(box, 30)
    assert ids(box.letters()) == [f"id-{number:04}" for number in range(1, 31)]
    assert box.put(letter(31))
    assert box._spool.empty
    box.close()
    assert caplog.text.count("is away, so they are spooled") == 1 and "is back" in caplog.text
    assert "question" not in caplog.text


def test_what_is_in_both_is_kept_once(server, namespace, tmp_path):
    """A letter that reached Redis although its answer did not come is spooled as well, and is one letter all the same; so is one that was answered."""
    box = RedisBox(server.url, namespace, spool=tmp_path)
    for number in (1, 2, 3):
        box.put(letter(number))
    (first,) = box.claim(1, 60.0)
    box.finish(first, "answer")
    server.stop()
    for number in (1, 2, 3, 4):
        assert box.put(letter(number))
    server.cont()
    followed(box, 3)
    assert ids(box.letters()) == ["id-0002", "id-0003", "id-0004"]
    assert box.result("key-1", TENANT).value == "answer"
    box.close()


def test_a_put_is_bounded(server, namespace, tmp_path):
    """A hung Redis costs one put its bound, and those after it nothing while the breaker is open: the second asks nobody."""
    box = RedisBox(server.url, namespace, spool=tmp_path)
    server.stop()
    asked = []
    real = box._quick.run
    box._quick.run = lambda operations, within: (asked.append(within), real(operations, within))[1]
    box.put(letter(1))
    assert asked == [HURRY]
    assert not box._breaker.up
    assert box._quick._wire is None  # a late reply would be read as the next one's
    box._breaker.again_at = time.monotonic() + 60
    box.put(letter(2))
    assert asked == [HURRY]
    server.cont()
    box._breaker.again_at = 0.0
    box._follower.close()
    box._follower.forked()
    box._follower.wake()
    followed(box, 2)
    box.close()


def test_connecting_is_within_the_bound():
    """Where connecting hangs, which no socket's timeout bounds as a whole, whoever waits goes on; a connection that comes late serves the next."""
    dial = Dial(f"redis://127.0.0.1:{free_port()}", 0.25)
    go_on, asked = threading.Event(), []

    def hang(node=None):
        asked.append(node)
        go_on.wait()
        raise Trouble("lost", "refused at last")

    dial.connect = hang
    channel = Channel(dial, "return 1", Operation("x", ("k",)), None)
    for _ in range(3):
        with pytest.raises(Trouble, match="no connection within"):
            channel.run([], 0.01)
    assert asked == [None]
    go_on.set()
    with pytest.raises(Trouble, match="refused at last"):
        channel.run([], 10.0)
    channel.close()


def test_down_at_the_start(namespace, tmp_path):
    """A Redis that is not there yet when the box is opened gets its letters when it comes."""
    port = free_port()
    box = RedisBox(f"redis://127.0.0.1:{port}/0", namespace, spool=tmp_path)
    assert box.put(letter(1))
    with pytest.raises(BoxAwayError):
        box.claim(1, 60.0)
    with Server(port=port):
        followed(box, 1)
        box.close()


def test_what_a_dead_process_left_follows(server, namespace, tmp_path):
    """Letters of a process that was killed while Redis was away follow when the next box is opened there."""
    program = f"""
        import os, signal
        from langchain_resilient.engine.dead_letters.redis import RedisBox
        from tests.engine.dead_letters.post import letter
        box = RedisBox('redis://127.0.0.1:1/0', {namespace!r}, spool={str(tmp_path)!r})
        for number in range(10): box.put(letter(number))
        os.kill(os.getpid(), signal.SIGKILL)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], check=False, cwd=ROOT, timeout=50)
    assert done.returncode == -signal.SIGKILL
    box = RedisBox(server.url, namespace, spool=tmp_path)
    followed(box, 10)
    box.close()


def test_killed_while_letters_follow(server, namespace, tmp_path):
    """Who sends spooled letters on may be killed at any of them: the next one sends all of the file again, and each is there once."""
    away = RedisBox("redis://127.0.0.1:1/0", namespace, spool=tmp_path)
    for number in range(40):
        away.put(letter(number))
    away.close()
    program = f"""
        import os, signal, sys
        from langchain_resilient.engine.dead_letters.redis import RedisBox
        real, sent = RedisBox._forward, []
        def forward(box, line):
            if len(sent) == int(sys.argv[1]): os.kill(os.getpid(), signal.SIGKILL)
            sent.append(line)
            real(box, line)
        RedisBox._forward = forward
        box = RedisBox({server.url!r}, {namespace!r}, spool={str(tmp_path)!r})
        box._follower._thread.join()
    """
    for killed_at in (0, 7, 31):
        command = [sys.executable, "-c", textwrap.dedent(program), str(killed_at)]
        assert subprocess.run(command, check=False, cwd=ROOT, timeout=50).returncode == -signal.SIGKILL
    box = RedisBox(server.url, namespace, spool=tmp_path)
    followed(box, 40)
    box.close()


def test_a_spooled_letter_is_sealed(namespace, tmp_path):
    """What lies in the spool went through the same seal."""
    box = RedisBox("redis://127.0.0.1:1/0", namespace, spool=tmp_path)
    box.put(letter(1, content={"messages": [], "parameters": {"api_key": "planted", "stop": []}}))
    (file,) = tmp_path.iterdir()
    assert json.loads(file.read_bytes())["content"] == {"messages": [], "parameters": {"stop": []}}
    box.close()


def test_a_user_who_may_no_longer(namespace, tmp_path, monkeypatch):
    """Whom Redis refuses from now on (a password that was changed) it is away from: an error of the box; a spooled letter is kept for later."""
    box = RedisBox("redis://127.0.0.1:1/0", namespace, spool=tmp_path)
    box.put(letter(1))
    box._follower.close()

    def refused(*_):
        raise Trouble("denied", "WRONGPASS")

    monkeypatch.setattr(box._patient, "run", refused)
    with pytest.raises(BoxAwayError, match="refuses this user"):
        box.claim(1, 60.0)
    with pytest.raises(BoxAwayError, match="refuses this user"):
        box._spool.drain(box._forward)
    assert box._spool.count() == 1
    box.close()


def test_closed_while_letters_follow(namespace, tmp_path, monkeypatch):
    """A spooled letter that is under way when the box is closed stays in the spool, and follows when the next one is opened."""
    box = RedisBox("redis://127.0.0.1:1/0", namespace, spool=tmp_path)
    box.put(letter(1))
    box.put(letter(2))
    box._follower.close()

    def closing(*_):
        box.close()
        raise Trouble("lost", "hung up")

    monkeypatch.setattr(box._patient, "run", closing)
    for _ in range(2):  # in the middle of one, and before any
        with pytest.raises(BoxAwayError):
            box._spool.drain(box._forward)
    assert (box._spool.count(), {path.suffix for path in tmp_path.iterdir()}) == (2, {".jsonl"})
    assert box.spooled() == 2


def test_a_full_spool_says_so(namespace, tmp_path):
    """Where neither Redis nor the spool takes the letter, `put` raises: nothing is promised."""
    from langchain_resilient.engine.dead_letters.box import BoxError

    box = RedisBox("redis://127.0.0.1:1/0", namespace, spool=tmp_path)
    box._spool._most_bytes = 10
    with pytest.raises(BoxError, match="full"):
        box.put(letter(1))
    box.close()


def test_a_fork(server, namespace, tmp_path):
    """A child goes on with connections, a spool and a follower of its own."""
    program = f"""
        import os, sys, warnings
        warnings.simplefilter('ignore')
        from langchain_resilient.engine.dead_letters.redis import RedisBox
        from tests.engine.dead_letters.post import letter
        box = RedisBox({server.url!r}, {namespace!r}, spool={str(tmp_path)!r})
        box.put(letter(1)); box.counts()
        pid = os.fork()
        if not pid:
            assert box.put(letter(2)) and len(box.claim(1, 60.0)) == 1
            box.close()
            os._exit(0)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        print(code, box.put(letter(3)), *box.counts()[:3])
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        timeout=50,
    )
    assert done.stdout.split() == ["0", "redis", "2", "1", "0"], done.stderr
