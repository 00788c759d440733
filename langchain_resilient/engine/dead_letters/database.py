"""The SQLite file that a box keeps its letters in: how it is opened, shared by threads and processes, and left by a child process.

Rules of this file
------------------
* WAL with `synchronous=FULL`: what was committed survives the machine, not just the process.
* Every change is one `BEGIN IMMEDIATE` transaction: it waits its turn at the start, and is never asked to begin anew half-way.
* No connection is open during a fork. SQLite keeps which locks a process holds in tables of its own, by file; a child would inherit the tables
  without the locks, also for connections that it opens itself: its parent could end the log under it. So a fork waits for the step that is
  under way, and closes; both processes open anew when they need to.
* A network file system is no place for it: WAL needs shared memory.
"""

from __future__ import annotations

import functools
import os
import sqlite3
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from langchain_resilient.engine.dead_letters.box import BoxError
from langchain_resilient.engine.errors import SettingsError, require

APPLICATION = 0x6C723164
"""What SQLite's header says the file is: "lr1d"."""
SCHEMA = 1
BUSY = 10.0
"""Seconds to wait for another process's transaction."""
TABLES = """
CREATE TABLE letters(
    id TEXT PRIMARY KEY, key TEXT NOT NULL UNIQUE, created REAL NOT NULL, deliveries INTEGER NOT NULL, claims INTEGER NOT NULL DEFAULT 0,
    not_before REAL NOT NULL, held_until REAL, parked TEXT, body BLOB NOT NULL
) WITHOUT ROWID;
CREATE INDEX by_age ON letters(created, id);
CREATE TABLE results(key TEXT PRIMARY KEY, letter TEXT NOT NULL, written REAL NOT NULL, value BLOB NOT NULL) WITHOUT ROWID;
CREATE INDEX results_by_age ON results(written);
"""


class Database:
    """One file, and this process's connection to it.

    Args:
        path: Of the file; it is made, for its owner alone, if its directory is there.

    Raises:
        SettingsError: The file can't be opened there, or is something else.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path).absolute()
        self._free = threading.RLock()
        self._connection: sqlite3.Connection | None = None
        self._closed = False
        folder, given = self.path.parent, str(self.path)
        require(folder.is_dir(), "DeadLetters.where", given, f"make the directory {folder} first")
        writable = os.access(folder, os.W_OK | os.X_OK)
        require(writable, "DeadLetters.where", given, f"the directory {folder} can't be written to; name another")
        require(not self.path.is_dir(), "DeadLetters.where", given, "name a file; that is a directory")
        try:
            self._opened()
        except (sqlite3.Error, OSError) as error:
            msg = f"DeadLetters.where: {self.path} can't be opened: {error}; name another file"
            raise SettingsError(msg) from error
        _ALL.add(self)

    def _opened(self) -> sqlite3.Connection:
        if self._closed:
            raise BoxError(f"{self.path}: the box is closed")
        if self._connection is None:
            # Only where it is new: closing any descriptor of a file ends all locks that this process's connections hold on it.
            with suppress(FileExistsError):
                os.close(os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
            made = sqlite3.connect(self.path, timeout=BUSY, isolation_level=None, check_same_thread=False)
            try:
                _write_ahead(made)
                with _transaction(made):
                    _lay_out(made, self.path)
            except BaseException:
                made.close()
                raise
            self._connection = made
        return self._connection

    @contextmanager
    def changing(self) -> Iterator[sqlite3.Connection]:
        """One transaction; all of it, or nothing. Raises `BoxError` for what SQLite says."""
        with self.reading() as connection, _transaction(connection):
            yield connection

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """The connection, for one statement that only reads. Raises `BoxError` for what SQLite says."""
        with self._free:
            try:
                yield self._opened()
            except (sqlite3.Error, OSError) as error:
                raise BoxError(f"{self.path}: {error}") from error

    def close(self) -> None:
        """Close the file."""
        with self._free:
            self._closed = True
            self._hang_up()

    def _hang_up(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    # -------------------------------------------------------------------------------------------------------------- forks
    def before_fork(self) -> None:
        """Wait for the step that is under way, and let nobody begin another."""
        self._free.acquire()
        self._hang_up()

    def after_fork(self, *, child: bool) -> None:
        """Go on; a child with a lock of its own."""
        if child:
            self._free = threading.RLock()
        else:
            self._free.release()


_ALL: weakref.WeakSet[Database] = weakref.WeakSet()
_FORKING = threading.Lock()
"""Held by the thread that forks."""
_HELD: list[Database] = []


def _before_fork() -> None:
    _FORKING.acquire()
    _HELD[:] = _ALL
    for database in _HELD:
        database.before_fork()


def _after_fork(*, child: bool) -> None:
    global _FORKING  # noqa: PLW0603  # the parent's is the parent's
    held, _HELD[:] = tuple(_HELD), ()
    for database in held:
        database.after_fork(child=child)
    if child:
        _FORKING = threading.Lock()
    else:
        _FORKING.release()


os.register_at_fork(
    before=_before_fork,
    after_in_parent=functools.partial(_after_fork, child=False),
    after_in_child=functools.partial(_after_fork, child=True),
)


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _write_ahead(connection: sqlite3.Connection) -> None:
    patience = threading.Event()
    for _ in range(int(BUSY / 0.02)):
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            break
        except sqlite3.OperationalError as error:
            # Another process is just changing to it: SQLite does not wait for that by itself.
            if "locked" not in str(error):
                raise
            patience.wait(0.02)
    # Whatever the journal: the file works in its old mode too, only slower.
    connection.execute("PRAGMA synchronous = FULL")


def _lay_out(connection: sqlite3.Connection, path: Path) -> None:
    """Make the tables in a file that has nothing; raise `SettingsError` for one that is not ours."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if not (version or application or tables):
        for statement in TABLES.split(";"):
            connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {APPLICATION}")
        connection.execute(f"PRAGMA user_version = {SCHEMA}")
    elif application != APPLICATION:
        raise SettingsError(f"DeadLetters.where: {path} is another program's database; name another file")
    elif version != SCHEMA:
        fix = "use the version of langchain-resilient that wrote it, or another file"
        raise SettingsError(f"DeadLetters.where: {path} has schema {version}, this version reads {SCHEMA}; {fix}")
