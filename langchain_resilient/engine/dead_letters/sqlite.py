"""Dead letters in one SQLite file: the embedded box, for all threads and processes of one machine.

Rules of this file
------------------
* Every change is one transaction of `database`, so it is one atomic step for all threads and processes; and it is on the disk when it returns.
* `claims` counts every claim of a letter and never goes back: it is the fencing token. `deliveries` may go back.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from langchain_resilient.engine.dead_letters.box import (
    UNREADABLE_PAUSE,
    BoxError,
    State,
    Where,
    check_claim,
    check_purge,
    check_state,
)
from langchain_resilient.engine.dead_letters.database import Database
from langchain_resilient.engine.dead_letters.letter import (
    KEEP_RESULTS,
    MOST_DELIVERIES,
    POISON,
    Counts,
    Letter,
    Result,
    scoped,
)
from langchain_resilient.engine.dead_letters.sealing import Seal
from langchain_resilient.engine.errors import is_number, require

FIELDS = "id, deliveries, claims, not_before, held_until, parked, body"
CLAIMED = "parked IS NULL AND held_until > :now"
WHERE = {
    None: "TRUE",
    "waiting": "parked IS NULL AND (held_until IS NULL OR held_until <= :now)",
    "claimed": CLAIMED,
    "parked": "parked IS NOT NULL",
}
MINE = "id = :id AND claims = :claim AND held_until IS NOT NULL"
"""The fence: nobody has claimed it since, given it back or parked it. A claim that lapsed and that nobody took is still mine."""


class SqliteBox:
    """A box in a file.

    Args:
        path: Of the file; it is made, for its owner alone, if its directory is there.
        seal: What letters pass through.
        keep_results: Seconds for which a result is kept.
        wall: Seconds since the epoch.

    Raises:
        SettingsError: The file can't be opened there, or is something else.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        seal: Seal | None = None,
        *,
        keep_results: float = KEEP_RESULTS,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._seal = seal or Seal()
        self._keep = keep_results
        self._wall = wall
        self._file = Database(path)

    def __repr__(self) -> str:
        return f"SqliteBox({str(self._file.path)!r})"

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    # -------------------------------------------------------------------------------------------------------------- letters
    def put(self, letter: Letter) -> Where | None:
        """See `Box.put`."""
        letter = self._seal.prepared(letter)
        key = scoped(letter.key, letter.tenant)
        row = (
            letter.id, key, float(letter.created), letter.deliveries, float(letter.not_before), letter.parked, self._seal.written(letter),
        )  # fmt: skip
        with self._file.changing() as connection:
            known = connection.execute(
                "SELECT 1 FROM letters WHERE key = :key UNION ALL SELECT 1 FROM results WHERE key = :key AND written > :since",
                {"key": key, "since": self._wall() - self._keep},
            ).fetchone()
            if known:
                return None
            if connection.execute("SELECT 1 FROM letters WHERE id = ?", (letter.id,)).fetchone():
                raise BoxError(f"letter {letter.id}: another letter has this id; make a new one for each letter")
            connection.execute(
                "INSERT INTO letters(id, key, created, deliveries, not_before, parked, body) VALUES (?, ?, ?, ?, ?, ?, ?)",
                row,
            )
        return "sqlite"

    def claim(self, most: int, lease: float) -> list[Letter]:
        """See `Box.claim`."""
        check_claim(most, lease)
        taken: list[Letter] = []
        with self._file.changing() as connection:
            now = self._wall()
            self._forget(connection, now)
            while len(taken) < most:
                rows = connection.execute(
                    f"SELECT {FIELDS}, EXISTS (SELECT 1 FROM results WHERE results.key = letters.key) FROM letters WHERE {WHERE['waiting']}"  # noqa: S608  # constants
                    " AND not_before <= :now ORDER BY created, id LIMIT :most",
                    {"now": now, "most": most - len(taken)},
                ).fetchall()
                if not rows:
                    break
                taken += [letter for row in rows if (letter := self._claimed(connection, row, now, lease)) is not None]
        return taken

    def _claimed(self, connection: sqlite3.Connection, row: tuple[Any, ...], now: float, lease: float) -> Letter | None:
        """What becomes of a due letter: it is taken, or it ended, is poison, or can't be read."""
        *fields, answered = row
        letter, locked = self._read(tuple(fields))
        if answered:
            connection.execute("DELETE FROM letters WHERE id = ?", (letter.id,))
        elif letter.deliveries >= MOST_DELIVERIES:
            connection.execute("UPDATE letters SET parked = ?, held_until = NULL WHERE id = ?", (POISON, letter.id))
        elif locked:
            connection.execute(
                "UPDATE letters SET not_before = ?, held_until = NULL WHERE id = ?", (now + UNREADABLE_PAUSE, letter.id)
            )
        else:
            connection.execute(
                "UPDATE letters SET deliveries = deliveries + 1, claims = claims + 1, held_until = ? WHERE id = ?",
                (now + lease, letter.id),
            )
            return replace(letter, deliveries=letter.deliveries + 1, claim=fields[2] + 1)
        return None

    def _read(self, row: tuple[Any, ...]) -> tuple[Letter, bool]:
        name, deliveries, claims, not_before, held_until, parked, body = row
        letter, locked = self._seal.read(body, name)
        claim = claims if held_until is not None else 0
        return replace(letter, deliveries=deliveries, not_before=not_before, parked=parked, claim=claim), locked

    def renew(self, letters: Sequence[Letter], lease: float) -> None:
        """See `Box.renew`."""
        check_claim(1, lease)
        with self._file.changing() as connection:
            until = self._wall() + lease
            connection.executemany(
                f"UPDATE letters SET held_until = :until WHERE {MINE}",  # noqa: S608  # constants
                [{"until": until, "id": letter.id, "claim": letter.claim} for letter in letters],
            )

    def release(self, letter: Letter, not_before: float, *, counted: bool) -> None:
        """See `Box.release`."""
        require(is_number(not_before), "release(not_before=…)", not_before, "use seconds since the epoch")
        with self._file.changing() as connection:
            connection.execute(
                "UPDATE letters SET held_until = NULL, not_before = :not_before, deliveries = max(0, deliveries - :back)"  # noqa: S608  # constants
                f" WHERE {MINE}",
                {"not_before": float(not_before), "back": int(not counted), "id": letter.id, "claim": letter.claim},
            )

    def park(self, letter: Letter, why: str) -> None:
        """See `Box.park`."""
        with self._file.changing() as connection:
            connection.execute(
                f"UPDATE letters SET held_until = NULL, parked = :why WHERE {MINE}",  # noqa: S608  # constants
                {"why": why, "id": letter.id, "claim": letter.claim},
            )

    def unpark(self, letter_id: str) -> bool:
        """See `Box.unpark`."""
        with self._file.changing() as connection:
            row = connection.execute(
                f"SELECT {FIELDS} FROM letters WHERE id = ? AND parked IS NOT NULL",  # noqa: S608  # constants
                (letter_id,),
            ).fetchone()
            if row is None:
                return False
            letter, locked = self._read(row)
            if letter.content is None and not locked:
                return False
            connection.execute(
                "UPDATE letters SET parked = NULL, deliveries = 0, not_before = 0 WHERE id = ?", (letter_id,)
            )
        return True

    # -------------------------------------------------------------------------------------------------------------- results
    def finish(self, letter: Letter, value: object) -> bool:
        """See `Box.finish`."""
        written, key = self._seal.written_value(value), scoped(letter.key, letter.tenant)
        with self._file.changing() as connection:
            now = self._wall()
            self._forget(connection, now)
            new = connection.execute(
                "INSERT OR IGNORE INTO results(key, letter, written, value) VALUES (?, ?, ?, ?)",
                (key, letter.id, now, written),
            ).rowcount
            connection.execute("DELETE FROM letters WHERE key = ?", (key,))
        return bool(new)

    def result(self, key: str, tenant: str | None = None) -> Result | None:
        """See `Box.result`."""
        with self._file.reading() as connection:
            row = connection.execute(
                "SELECT letter, written, value FROM results WHERE key = ? AND written > ?",
                (scoped(key, tenant), self._wall() - self._keep),
            ).fetchone()
        return None if row is None else Result(key, row[0], row[1], self._seal.read_value(row[2]))

    def _forget(self, connection: sqlite3.Connection, now: float) -> None:
        connection.execute("DELETE FROM results WHERE written <= ?", (now - self._keep,))

    # -------------------------------------------------------------------------------------------------------- looking in
    def get(self, letter_id: str) -> Letter | None:
        """See `Box.get`."""
        with self._file.reading() as connection:
            row = connection.execute(f"SELECT {FIELDS} FROM letters WHERE id = ?", (letter_id,)).fetchone()  # noqa: S608  # constants
        return None if row is None else self._read(row)[0]

    def letters(
        self, state: State | None = None, most: int = 100, after: str | None = None
    ) -> list[tuple[State, Letter]]:
        """See `Box.letters`."""
        check_state(state)
        now = self._wall()
        with self._file.reading() as connection:
            words = {"now": now, "most": most, "after": after, "created": None}
            behind = "TRUE"
            if after is not None:
                row = connection.execute("SELECT created FROM letters WHERE id = ?", (after,)).fetchone()
                # It may have ended since: then its id, which sorts by creation, has to do.
                behind = "id > :after" if row is None else "(created, id) > (:created, :after)"
                words["created"] = None if row is None else row[0]
            rows = connection.execute(
                f"SELECT {FIELDS} FROM letters WHERE {WHERE[state]} AND {behind} ORDER BY created, id LIMIT :most",  # noqa: S608  # constants
                words,
            ).fetchall()
        return [(_state(row, now), self._read(row)[0]) for row in rows]

    def purge(self, *, ids: Sequence[str] = (), state: State | None = None, before: float | None = None) -> int:
        """See `Box.purge`."""
        check_purge(ids, state, before)
        removal = f"DELETE FROM letters WHERE {WHERE[state]} AND (:before IS NULL OR created < :before)"  # noqa: S608  # constants
        with self._file.changing() as connection:
            words = {"now": self._wall(), "before": before}
            if not ids:
                return connection.execute(removal, words).rowcount
            each = dict.fromkeys(ids)
            return sum(connection.execute(f"{removal} AND id = :id", {**words, "id": one}).rowcount for one in each)

    def counts(self) -> Counts:
        """See `Box.counts`."""
        with self._file.reading() as connection:
            parked, claimed, alive, oldest = connection.execute(
                "SELECT count(parked), count(*) FILTER (WHERE " + CLAIMED + "), count(*) FILTER (WHERE parked IS NULL),"  # noqa: S608  # constants
                " min(created) FILTER (WHERE parked IS NULL) FROM letters",
                {"now": self._wall()},
            ).fetchone()
        return Counts(waiting=alive - claimed, claimed=claimed, parked=parked, spooled=0, oldest=oldest)

    def spooled(self) -> int:
        """See `Box.spooled`."""
        return 0


def _state(row: tuple[Any, ...], now: float) -> State:
    held_until, parked = row[4], row[5]
    if parked is not None:
        return "parked"
    return "claimed" if held_until is not None and held_until > now else "waiting"
