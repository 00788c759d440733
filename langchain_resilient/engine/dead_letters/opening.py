"""From what a user says about dead letters to the box that keeps them.

Rules of this file: settings are checked when they are made, places when the box is opened. A key or a URL's password is in no error and no repr.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

from langchain_resilient.engine.dead_letters.box import Box
from langchain_resilient.engine.dead_letters.letter import KEEP_RESULTS
from langchain_resilient.engine.dead_letters.sealing import MOST_BYTES, Seal
from langchain_resilient.engine.dead_letters.sqlite import SqliteBox
from langchain_resilient.engine.errors import SettingsError, checked, is_number, require

FILE = "langchain-resilient-dead-letters.db"
"""The embedded box, in the working directory."""
_REDIS = frozenset({"redis", "rediss", "unix", "redis+cluster", "redis+sentinel", "rediss+cluster", "rediss+sentinel"})
_FIX = 'use True, the path of a file, "sqlite:///path", or a URL of Redis'


@checked
@dataclass(frozen=True, slots=True)
class DeadLetters:
    """Where requests that no provider could answer are kept, and how. Checked when made: raises `SettingsError`."""

    where: str | bool = True
    """True: the backend's Redis, else a file `langchain-resilient-dead-letters.db` in the working directory. Else the path of a file,
    "sqlite:///path", or a URL of Redis."""
    redact: Callable[[dict[str, Any]], dict[str, Any]] | None = None
    """Gets a copy of `{"messages": [...], "parameters": {...}}`, returns what is to be kept. If it raises, the letter is kept without it. Give
    one function, not a new lambda for each model: a process opens a place once for each."""
    keys: Sequence[str] = field(default=(), repr=False)
    """Fernet keys: the first encrypts, all decrypt, so that a new one is put in front. Default: none, not encrypted."""
    most_bytes: int = MOST_BYTES
    """Of messages and parameters as JSON (> 0); a larger letter is kept without them. Default: 256 KiB."""
    spool: str | None = None
    """Directory where letters lie while Redis is away. Default: `langchain-resilient-spool` in the working directory."""
    keep_results: float = KEEP_RESULTS
    """Seconds for which a late answer is kept (≥ 60). Default: 7 days."""

    def __post_init__(self) -> None:
        ok = self.where is True or (isinstance(self.where, str) and bool(self.where))
        require(ok, "DeadLetters.where", type(self.where).__name__ if isinstance(self.where, str) else self.where, _FIX)
        require(
            self.redact is None or callable(self.redact),
            "DeadLetters.redact",
            self.redact,
            "use a function of one dict",
        )
        keys: object = self.keys
        ok = (
            isinstance(keys, Sequence)
            and not isinstance(keys, str | bytes)
            and all(isinstance(key, str) for key in keys)
        )
        require(ok, "DeadLetters.keys", type(keys).__name__, "use a list of Fernet keys, each a text")
        object.__setattr__(self, "keys", tuple(self.keys))  # a list can be changed, and has no hash
        ok = isinstance(self.most_bytes, int) and is_number(self.most_bytes, least=1)
        require(ok, "DeadLetters.most_bytes", self.most_bytes, "use a whole number of bytes ≥ 1")
        ok = self.spool is None or (isinstance(self.spool, str) and bool(self.spool))
        require(ok, "DeadLetters.spool", self.spool, "use the path of a directory")
        ok = is_number(self.keep_results, least=60)
        require(ok, "DeadLetters.keep_results", self.keep_results, "use a number of seconds ≥ 60")


def open_box(
    where: str | bool | DeadLetters,
    *,
    backend: str = "memory://",
    namespace: str = "default",
    redact: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
    keys: Sequence[str] = (),
    most_bytes: int = MOST_BYTES,
    spool: str | None = None,
    keep_results: float = KEEP_RESULTS,
    wall: Callable[[], float] = time.time,
) -> Box:
    """The box that the settings name; the caller closes it.

    Args:
        where: See `DeadLetters.where`; or all settings as a `DeadLetters`, which the other arguments do not change then.
        backend: The model's; its Redis is used where `where` is True.
        namespace: The model's; in Redis, each has its own box.
        redact: See `DeadLetters`, as for those that follow.
        keys: See there.
        most_bytes: See there.
        spool: See there.
        keep_results: See there.
        wall: Seconds since the epoch, for SQLite; Redis takes its own.

    Raises:
        SettingsError: The settings make no sense, the place can't be written to, a package is missing, or Redis refuses this user.
    """
    it = where if isinstance(where, DeadLetters) else DeadLetters(where, redact, keys, most_bytes, spool, keep_results)
    seal = Seal(it.redact, it.keys, it.most_bytes)
    place = place_of(it.where, backend)
    if place.partition("://")[0] in _REDIS and "://" in place:
        from langchain_resilient.engine.dead_letters.redis import RedisBox  # and redis-py with it

        return RedisBox(place, namespace, seal, spool=it.spool, keep_results=it.keep_results)
    return SqliteBox(place, seal, keep_results=it.keep_results, wall=wall)


def place_of(where: str | bool, backend: str) -> str:
    """What `DeadLetters.where` means beside that backend: a URL of Redis, or the path of a file. Raises `SettingsError`."""
    if isinstance(where, bool):
        return backend if backend.partition("://")[0] in _REDIS else FILE
    scheme, separator, rest = where.partition("://")
    if not separator or scheme in _REDIS:
        return where
    if scheme == "sqlite" and rest.startswith("/") and len(rest) > 1:
        # As SQLAlchemy has it: three slashes and a relative path, four and an absolute one.
        return rest[1:]
    # Nothing of it is quoted: it may hold a password.
    raise SettingsError(f"DeadLetters.where: got a URL that is neither Redis's nor sqlite:///path; {_FIX}")


def place_named(where: str | bool, backend: str, namespace: str) -> str:
    """A name for where letters lie: the same for all settings that mean the same place. A URL's password can't be read from it."""
    place = place_of(where, backend)
    name = (place, namespace) if "://" in place else (os.path.realpath(place),)
    return blake2b(repr(name).encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
