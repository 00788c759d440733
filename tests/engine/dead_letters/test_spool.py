"""The spool: what was promised is on the disk, whoever is killed when; and it goes on once, to whoever comes."""

import os
import signal
import stat
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from langchain_resilient.engine.dead_letters.box import BoxAwayError, BoxError
from langchain_resilient.engine.dead_letters.spool import Spool
from langchain_resilient.engine.errors import SettingsError

ROOT = Path(__file__).parents[3]


@pytest.fixture
def folder(tmp_path):
    """Where the spool is; not there yet."""
    return tmp_path / "spool"


def drained(spool):
    """What the spool sends on."""
    sent = []
    assert spool.drain(sent.append) == len(sent)
    return sent


def test_lines_follow_in_order_and_once(folder):
    """What was appended is sent on in its order, and then it is gone, file and all."""
    spool = Spool(folder, "a")
    assert spool.empty and spool.count() == 0 and not folder.exists()
    for line in (b"1", b"2", b"3"):
        spool.append(line)
    assert not spool.empty and spool.count() == 3
    assert drained(spool) == [b"1", b"2", b"3"]
    assert spool.empty and drained(spool) == [] and not list(folder.iterdir())
    spool.append(b"4")
    assert drained(spool) == [b"4"]


def test_files_are_their_owners(folder):
    """The directory and its files are for their owner alone."""
    spool = Spool(folder, "a")
    spool.append(b"1")
    (file,) = folder.iterdir()
    assert (stat.S_IMODE(folder.stat().st_mode), stat.S_IMODE(file.stat().st_mode)) == (0o700, 0o600)
    spool.close()


def test_a_line_is_synced_before_it_is_promised(folder, monkeypatch):
    """`append` returns when the line, and the file's name, were synced; where that fails it raises, and nothing of the line is left."""
    synced = []
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda file: (synced.append(os.fstat(file).st_size), real(file)))
    spool = Spool(folder, "a")
    spool.append(b"12345")
    assert synced[-1] == 6 and len(synced) == 2
    synced.clear()

    def fail(file):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(BoxError, match="Input/output error"):
        spool.append(b"lost")
    monkeypatch.setattr(os, "fsync", real)
    spool.append(b"next")
    assert drained(spool) == [b"12345", b"next"]


def test_a_torn_line_was_never_promised(folder, caplog):
    """A last line without its end is dropped, told in the log without a word of it; all before it follow."""
    spool = Spool(folder, "a")
    spool.append(b"1")
    spool.close()
    (file,) = folder.iterdir()
    with file.open("ab") as torn:
        torn.write(b'{"half')
    assert drained(spool) == [b"1"]
    assert "never finished" in caplog.text and "half" not in caplog.text


def test_what_is_under_way_is_sent_again(folder):
    """Where Redis goes away in the middle, the file stays, and all of it is sent again: a box keeps one letter for a key."""
    spool = Spool(folder, "a")
    for line in (b"1", b"2", b"3"):
        spool.append(line)

    def away(line):
        if line == b"2":
            raise BoxAwayError("away")

    with pytest.raises(BoxAwayError):
        spool.drain(away)
    assert spool.count() == 3
    spool.append(b"4")
    assert sorted(drained(spool)) == [b"1", b"2", b"3", b"4"]


@pytest.mark.parametrize("error", [ValueError("no letter"), BoxError("an id twice")])
def test_what_no_box_takes_is_set_aside(folder, error, caplog):
    """A line that will never be taken is kept beside, and the others follow."""
    spool = Spool(folder, "a")
    for line in (b"1", b"2", b"3"):
        spool.append(line)
    sent = []

    def send(line):
        if line == b"2":
            raise error
        sent.append(line)

    assert spool.drain(send) == 2
    assert sent == [b"1", b"3"] and spool.empty
    (aside,) = folder.iterdir()
    assert aside.suffix == ".unreadable" and aside.read_bytes() == b"2\n"
    assert "set aside" in caplog.text


def test_it_is_bounded(folder):
    """Beyond its size the spool takes no more, and says so; it counts what other processes have in it."""
    spool, other = Spool(folder, "a", most_bytes=8), Spool(folder, "a", most_bytes=8)
    spool.append(b"123")
    other.append(b"456")
    with pytest.raises(BoxError, match="full: 8 bytes of at most 8"):
        spool.append(b"")
    drained(other)
    spool.append(b"789")
    other.close()
    assert drained(spool) == [b"123", b"789"]


def test_a_live_processs_file_is_its_own(folder):
    """What another one still writes is left alone; when it has let go, it is anybody's. Names of others are not touched."""
    one, other = Spool(folder, "a"), Spool(folder, "a")
    stranger = Spool(folder, "b")
    one.append(b"1")
    other.append(b"2")
    stranger.append(b"3")
    assert drained(other) == [b"2"]
    assert not other.empty and other.count() == 1
    one.close()
    assert drained(other) == [b"1"]
    assert other.empty and stranger.count() == 1
    stranger.close()


def test_a_file_that_somebody_else_has_just_sent(folder, monkeypatch):
    """Who gets the lock of a file that was removed meanwhile sends nothing of it."""
    one, other = Spool(folder, "a"), Spool(folder, "a")
    one.append(b"1")
    one.close()
    sent = []
    real = os.open

    def slow(path, *flags, **more):
        file = real(path, *flags, **more)
        if str(path).endswith(".jsonl"):
            monkeypatch.setattr(os, "open", real)
            assert drained(one) == [b"1"]
        return file

    monkeypatch.setattr(os, "open", slow)
    assert other.drain(sent.append) == 0
    assert sent == []


def run(program):
    """A process that appends, until it is killed; what it was promised."""
    source = f"import os, sys, signal, time, warnings\nwarnings.simplefilter('ignore')\n{textwrap.dedent(program)}"
    return subprocess.run(
        [sys.executable, "-c", source], capture_output=True, text=True, timeout=50, check=False, cwd=ROOT
    )


@pytest.mark.e2e
def test_a_killed_processs_letters_are_adopted(folder):
    """What a process that was killed had been promised follows through the next one that comes."""
    done = run(
        f"""
        from langchain_resilient.engine.dead_letters.spool import Spool
        spool = Spool({str(folder)!r}, 'a')
        for number in range(20):
            spool.append(b'%d' % number)
        os.kill(os.getpid(), signal.SIGKILL)
        """
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert drained(Spool(folder, "a")) == [b"%d" % number for number in range(20)]


@pytest.mark.e2e
def test_a_fork(folder):
    """A child writes a file of its own; its parent's is not let go by it, and is free when the parent is dead though the child lives."""
    done = run(
        f"""
        from langchain_resilient.engine.dead_letters.spool import Spool
        spool = Spool({str(folder)!r}, 'a')
        spool.append(b'parent')
        ready, tell = os.pipe()
        wait, go_on = os.pipe()
        pid = os.fork()
        if not pid:
            os.close(go_on)
            spool.append(b'child')
            os.write(tell, b'x')
            os.read(wait, 1)  # until the parent is dead
            sent, until = [], time.monotonic() + 20
            while len(sent) < 2 and time.monotonic() < until:  # its end is not one instant: a pipe may close before a lock
                spool.drain(sent.append)
            print(sorted(sent), flush=True)
            os._exit(0)
        os.read(ready, 1)
        sent = []
        spool._free.acquire()  # drain() would let our own file go first
        other = Spool({str(folder)!r}, 'a')
        other.drain(sent.append)
        print(sent, len(os.listdir({str(folder)!r})), flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
        """
    )
    assert done.stdout.split("\n")[:2] == ["[] 2", "[b'child', b'parent']"], done.stderr


@pytest.mark.parametrize("where", ["missing/spool", "file"])
def test_a_place_that_can_not_be(tmp_path, where):
    """A directory that can't be made is named when the spool is opened, not when the first letter comes."""
    (tmp_path / "file").touch()
    with pytest.raises(SettingsError, match=f"DeadLetters.spool: .*{tmp_path / where}"):
        Spool(tmp_path / where, "a")


def test_a_directory_that_can_not_be_written_to(folder, monkeypatch):
    """A directory without the right to write is named as well."""
    monkeypatch.setattr(os, "access", lambda *_: False)  # a superuser may write anywhere
    with pytest.raises(SettingsError, match="can't be written to"):
        Spool(folder, "a")
