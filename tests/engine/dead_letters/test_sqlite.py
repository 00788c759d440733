"""The embedded box: its file, who may read it, and what it is shared by."""

import os
import sqlite3
import stat
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

from langchain_resilient.engine.dead_letters import database
from langchain_resilient.engine.dead_letters.box import BoxError
from langchain_resilient.engine.dead_letters.database import APPLICATION
from langchain_resilient.engine.dead_letters.letter import scoped
from langchain_resilient.engine.dead_letters.sqlite import SqliteBox
from langchain_resilient.engine.errors import SettingsError
from tests.engine.dead_letters.post import EPOCH, TENANT, ids, letter

ROOT = Path(__file__).parents[3]


@pytest.fixture
def path(tmp_path):
    """Where the file is."""
    return tmp_path / "letters.db"


def look(path, statement):
    """What another program reads in the file."""
    with sqlite3.connect(path) as connection:
        return connection.execute(statement).fetchone()


def test_the_file_is_its_owners(path):
    """The file and its companions are for their owner alone, whatever the umask."""
    mask = os.umask(0)
    try:
        box = SqliteBox(path)
        box.put(letter())
        modes = {name.name: stat.S_IMODE(name.stat().st_mode) for name in path.parent.iterdir()}
    finally:
        os.umask(mask)
    assert modes == {"letters.db": 0o600, "letters.db-wal": 0o600, "letters.db-shm": 0o600}
    box.close()


def test_the_journal(path):
    """What is committed is synced, in a write-ahead log, and the file says what it is."""
    box = SqliteBox(path)
    assert box._file._connection.execute("PRAGMA synchronous").fetchone() == (2,)
    assert look(path, "PRAGMA journal_mode") == ("wal",)
    assert look(path, "PRAGMA user_version") == (1,)
    assert look(path, "PRAGMA application_id") == (APPLICATION,)
    box.close()


@pytest.mark.parametrize("where", ["missing/letters.db", ".", "file/letters.db"])
def test_a_place_that_can_not_be(tmp_path, where):
    """A directory that is not there, or is none, is named at opening."""
    (tmp_path / "file").touch()
    with pytest.raises(SettingsError, match=f"DeadLetters.where: .*{(tmp_path / where).parent}"):
        SqliteBox(tmp_path / where)


def test_a_directory_that_can_not_be_written_to(path, monkeypatch):
    """A directory without the right to write is named at opening."""
    monkeypatch.setattr(os, "access", lambda *_: False)  # a superuser may write anywhere
    with pytest.raises(SettingsError, match=f"{path.parent} can't be written to"):
        SqliteBox(path)


def test_a_file_that_is_something_else(path):
    """Neither a file that is no database, nor another program's, nor one of a newer version is touched."""
    path.write_bytes(
        b"a letter to Santa Claus, of more than a hundred bytes, so that it could be taken for a database's header..."
        * 9
    )
    with pytest.raises(SettingsError, match="not a database"):
        SqliteBox(path)
    path.unlink()
    look(path, "CREATE TABLE theirs(x)")
    with pytest.raises(SettingsError, match="another program's"):
        SqliteBox(path)
    path.unlink()
    SqliteBox(path).close()
    look(path, "PRAGMA user_version = 2")
    with pytest.raises(SettingsError, match="schema 2"):
        SqliteBox(path)
    assert look(path, "PRAGMA user_version") == (2,)


def test_a_letter_that_was_answered_elsewhere_is_ended(path):
    """A letter whose key has a result, however it came to that, is ended instead of handed out."""
    box = SqliteBox(path)
    box.put(letter(1))
    box.put(letter(2))
    with sqlite3.connect(path) as other:
        row = (scoped("key-1", TENANT), "id-9", 1e12, '{"value": 1}')
        other.execute("INSERT INTO results VALUES (?, ?, ?, ?)", row)
    assert ids(box.claim(10, 60.0)) == ["id-0002"]
    assert box.get("id-0001") is None
    box.close()


def test_a_step_that_fails_leaves_nothing(path):
    """Where the second half of a step fails, the first is undone, the error has no word of the letter, and the box goes on."""
    box = SqliteBox(path)
    box.put(letter(1))
    (held,) = box.claim(1, 60.0)
    with sqlite3.connect(path) as other:
        other.execute("CREATE TRIGGER broken BEFORE DELETE ON letters BEGIN SELECT RAISE(ABORT, 'disk on fire'); END")
    with pytest.raises(BoxError, match="disk on fire") as caught:
        box.finish(held, "answer")
    assert "answer" not in str(caught.value)
    assert box.result("key-1", TENANT) is None
    assert box.get("id-0001") == held
    with sqlite3.connect(path) as other:
        other.execute("DROP TRIGGER broken")
    assert box.finish(held, "answer")
    box.close()


def test_many_open_a_new_file_at_once(path):
    """Those who open a file that is just being made wait for one another, and all find the same tables."""
    failures, boxes = [], []
    barrier = threading.Barrier(8)

    def work(number):
        barrier.wait()
        try:
            boxes.append(SqliteBox(path))
            boxes[-1].put(letter(number))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert boxes[0].counts().waiting == 8
    for box in boxes:
        box.close()


@pytest.mark.e2e
def test_a_fork(path):
    """Forks in the midst of traffic: parent and children go on, each with its own connection, and no letter of any of them is lost."""
    program = textwrap.dedent(
        f"""
        import os, sys, threading
        from langchain_resilient.engine.dead_letters.sqlite import SqliteBox
        from tests.engine.dead_letters.post import letter
        box = SqliteBox({str(path)!r})
        failures = []
        def work(part):
            try:
                for number in range(40):
                    assert box.put(letter(1000 * part + number))
            except BaseException as error:
                failures.append(error)
        threads = [threading.Thread(target=work, args=(part,)) for part in range(3)]
        for thread in threads: thread.start()
        children = []
        for part in range(3, 7):
            pid = os.fork()
            if not pid:
                # The parent ends its connections meanwhile, and must not end the log under this one.
                work(part)
                os._exit(len(failures))
            children.append(pid)
        for thread in threads: thread.join()
        box.close()
        codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]
        print(codes, failures, SqliteBox({str(path)!r}).counts().waiting)
        """
    )
    command = [sys.executable, "-W", "ignore", "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False, cwd=ROOT)
    assert done.stdout.strip() == f"[0, 0, 0, 0] [] {7 * 40}", done.stderr


def test_nothing_is_open_during_a_fork(path):
    """A fork waits for the step that a thread is in, and finds no connection: a child would inherit SQLite's tables without the locks."""
    box = SqliteBox(path)
    inside, go_on, forked = threading.Event(), threading.Event(), threading.Event()

    def hold():
        with box._file.changing() as connection:
            inside.set()
            go_on.wait()
            assert not forked.is_set()
            connection.execute("DELETE FROM letters")

    def fork():
        database._before_fork()
        forked.set()

    threads = [threading.Thread(target=hold), threading.Thread(target=fork, daemon=True)]
    threads[0].start()
    inside.wait()
    threads[1].start()
    go_on.set()
    threads[0].join()
    assert forked.wait(10)
    assert box._file._connection is None
    database._after_fork(child=True)
    assert box.put(letter())
    box.close()


def test_what_it_prints(path):
    """A box names its file, and no letter."""
    box = SqliteBox(path)
    box.put(letter(created=EPOCH))
    assert repr(box) == f"SqliteBox({str(path)!r})"
    box.close()
