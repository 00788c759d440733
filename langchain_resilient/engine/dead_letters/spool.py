"""Letters on their way to a Redis that is away: append-only files of JSON lines, one for each process that has some.

Rules of this file
------------------
* `append` returns when the line is on the disk (fsync). A line without its newline was never promised: its process was killed in the middle.
* A file is its process's as long as that lives: it holds the file's flock, which ends with the process however it dies. Whoever gets the lock of a
  file may send its letters on: its own process that has closed it, or any other after its death. A file gets its name when it is locked.
* A file is removed when all of its letters were taken. Who is killed in between has them sent again, and a box keeps one letter for a key.
* What no box will ever take is set aside as `*.unreadable`, never removed.
"""

from __future__ import annotations

import fcntl
import logging
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from langchain_resilient.engine.dead_letters.box import BoxAwayError, BoxError
from langchain_resilient.engine.errors import require
from langchain_resilient.engine.store.forks import tell_of_forks

LOGGER = logging.getLogger("langchain_resilient")
MOST_BYTES = 64 * 1024 * 1024
END = ".jsonl"
UNREADABLE = ".unreadable"


class Spool:
    """The spool of one namespace in one directory, which all processes of this machine share.

    Args:
        folder: The directory; made, for its owner alone, when the first letter comes, if its parent is there.
        name: What the files' names begin with.
        most_bytes: Of all its files together.

    Raises:
        SettingsError: The directory can't be made or written to.
    """

    def __init__(self, folder: str | os.PathLike[str], name: str, most_bytes: int = MOST_BYTES) -> None:
        self.folder = Path(folder).absolute()
        self._name = name
        self._most_bytes = most_bytes
        self._own: int | None = None
        self._anew()
        there = self.folder if self.folder.exists() else self.folder.parent
        require(there.is_dir(), "DeadLetters.spool", str(self.folder), f"make the directory {there} first")
        fix = f"the directory {there} can't be written to; name another in DeadLetters(spool=…)"
        require(os.access(there, os.W_OK | os.X_OK), "DeadLetters.spool", str(self.folder), fix)
        tell_of_forks(self)

    def _anew(self) -> None:
        self._free = threading.Lock()
        self._sending = threading.Lock()

    # -------------------------------------------------------------------------------------------------------------- writing
    def append(self, line: bytes) -> None:
        """Keep a line; it is on the disk when this returns. Raises `BoxError`: it is not, as the spool is full or the disk fails."""
        with self._free:
            try:
                size = sum(path.stat().st_size for path in self._files())
                if size + len(line) + 1 > self._most_bytes:
                    raise BoxError(f"the spool {self.folder} is full: {size} bytes of at most {self._most_bytes}")
                self._write(self._opened(), line + b"\n")
            except OSError as error:
                raise BoxError(f"the spool {self.folder} can't be written to: {error.strerror}") from error

    def _write(self, file: int, line: bytes) -> None:
        start = os.fstat(file).st_size
        try:
            left = memoryview(line)
            while left:
                left = left[os.write(file, left) :]
            os.fsync(file)
        except BaseException:
            # Or the next line would be the rest of this one. What can't be taken back is read as no letter, and set aside.
            with suppress(OSError):
                os.ftruncate(file, start)
            raise

    def _opened(self) -> int:
        if self._own is None:
            self.folder.mkdir(mode=0o700, exist_ok=True)
            path = self.folder / f"{self._name}-{os.getpid()}-{os.urandom(6).hex()}{END}"
            nameless = path.with_suffix(".new")
            file = os.open(nameless, os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_WRONLY, 0o600)
            try:
                # Named before it is locked, somebody might take it for a dead process's, and remove it.
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                nameless.rename(path)
                self._sync_folder()
            except BaseException:
                os.close(file)
                raise
            self._own = file
        return self._own

    def _sync_folder(self) -> None:
        """A new name, or the end of one, is on the disk as well."""
        folder = os.open(self.folder, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    # -------------------------------------------------------------------------------------------------------------- sending
    def _files(self) -> list[Path]:
        """The oldest first, roughly: by when they were last written."""
        found = []
        for path in self.folder.glob(f"{self._name}-*{END}"):
            with suppress(FileNotFoundError):
                found.append((path.stat().st_mtime, path))
        return [path for _, path in sorted(found)]

    @property
    def empty(self) -> bool:
        """Whether nothing is on its way, from any process."""
        return not self._files()

    def count(self) -> int:
        """How many letters are on their way, from all processes."""
        found = 0
        for path in self._files():
            with suppress(FileNotFoundError):
                found += path.read_bytes().count(b"\n")
        return found

    def drain(self, send: Callable[[bytes], None]) -> int:
        """Send on what is ours, and what dead processes left; returns how many letters.

        `send` returns when a letter is taken. What it raises ends this, and all of that file is sent again later; but with `ValueError`, or
        a `BoxError` other than `BoxAwayError`, it says that it will never take this one.
        """
        sent = 0
        with self._sending:
            with self._free:
                self._let_go()
            for path in self._files():
                sent += self._drained(path, send)
        return sent

    def _drained(self, path: Path, send: Callable[[bytes], None]) -> int:
        try:
            file = os.open(path, os.O_RDWR)
        except FileNotFoundError:
            return 0
        try:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return 0
            if not os.fstat(file).st_nlink:
                return 0  # somebody was faster
            *lines, torn = path.read_bytes().split(b"\n")
            if torn:
                LOGGER.warning(
                    "dead letters: the last line of %s was never finished; whoever wrote it was told nothing", path
                )
            refused = [line for line in lines if not _taken(line, send)]
            if refused:
                self._set_aside(path, refused)
            path.unlink()
            self._sync_folder()
            return len(lines) - len(refused)
        finally:
            os.close(file)

    def _set_aside(self, path: Path, lines: list[bytes]) -> None:
        aside = path.with_suffix(UNREADABLE)
        LOGGER.error(
            "dead letters: %d of %s are none that can be kept; they are set aside in %s", len(lines), path.name, aside
        )
        file = os.open(aside, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600)
        try:
            self._write(file, b"".join(line + b"\n" for line in lines))
        finally:
            os.close(file)

    def _let_go(self) -> None:
        file, self._own = self._own, None
        if file is not None:
            os.close(file)

    def close(self) -> None:
        """Let go of the file: what is in it goes with the next drain, of whoever comes."""
        with self._free:
            self._let_go()

    def forked(self) -> None:
        """In a new child process: the file is the parent's, which keeps its lock."""
        self._anew()
        self._let_go()


def _taken(line: bytes, send: Callable[[bytes], None]) -> bool:
    try:
        send(line)
    except BoxAwayError:
        raise
    except (BoxError, ValueError):
        return False
    return True
