"""A dead letter: one request that no provider could answer, and what became of each attempt.

Rules of this file: pure, no time and no randomness. What is written bears a schema version; fields that a newer version added are ignored, so
that two versions can share a box. What a claim changes (deliveries, not_before, parked) is the box's to keep, and overrides what is written.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from langchain_resilient.engine.errors import is_number, require

SCHEMA = 1
MOST_DELIVERIES = 5
"""How often a letter is handed out without an end; after that it is parked as poison."""
POISON = "poison"
KEEP_RESULTS = 604_800.0
"""Seconds for which a late answer is kept: 7 days."""


@dataclass(frozen=True, slots=True)
class Letter:
    """One request that waits to be asked again.

    Raises:
        SettingsError: `id` or `key` is no text that can be written, or `created` no number.
    """

    id: str
    """Never used twice; see `new_id`."""
    key: str
    """The idempotency key: what the same tenant asks under the same key is the same letter."""
    created: float
    """Seconds since the epoch."""
    kind: str
    """Why nobody answered: an `ErrorKind`, "refused" or "deadline"."""
    attempts: tuple[Mapping[str, Any], ...] = ()
    """What was tried: provider, kind, seconds, wait, limit, status."""
    content: Mapping[str, Any] | None = field(default=None, repr=False)  # a prompt is in no log
    """`{"messages": [...], "parameters": {...}}`, as JSON has it; None: it was left out (see `parked`), or no key at hand opens it."""
    tenant: str | None = None
    deliveries: int = 0
    """How often it was claimed, and that counted."""
    not_before: float = 0.0
    """Seconds since the epoch, before which nobody gets it."""
    parked: str | None = None
    """Why it is not handed out any more; None: it waits."""
    claim: int = 0
    """Which of its claims this is: what tells a claimant from the one after it. 0: none; never written."""

    def __post_init__(self) -> None:
        for name in ("id", "key"):
            value = getattr(self, name)
            ok = isinstance(value, str) and bool(value) and not any("\ud800" <= sign <= "\udfff" for sign in value)
            # Not the text itself: a caller may have made a key of the prompt.
            require(ok, f"Letter.{name}", type(value).__name__, "use text that is not empty and has no lone surrogates")
        for name in ("created", "not_before"):
            require(
                is_number(getattr(self, name)), f"Letter.{name}", getattr(self, name), "use seconds since the epoch"
            )


class Counts(NamedTuple):
    """How many letters lie where."""

    waiting: int
    claimed: int
    parked: int
    spooled: int
    """Of this machine, on their way to a Redis that was away; they are in none of the others."""
    oldest: float | None
    """When the oldest that waits or is claimed was created, seconds since the epoch."""


class Result(NamedTuple):
    """A late answer."""

    key: str
    letter: str
    """The id of the letter that it answers."""
    written: float
    """Seconds since the epoch."""
    value: Any
    """As JSON has it; None also where no key at hand opens it."""


def new_id(created: float, noise: bytes) -> str:
    """An id that sorts by creation: milliseconds in hexadecimal, then the noise (8 random bytes or more make it unique)."""
    return f"{int(created * 1000):012x}-{noise.hex()}"


def scoped(key: str, tenant: str | None) -> str:
    """What a key is known by in a box: two tenants may use the same key, and must not get one another's answers."""
    return hashlib.blake2b(repr((tenant, key)).encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def as_json(value: Any) -> bytes:
    """Compact JSON in UTF-8. Raises `TypeError` or `ValueError` for what JSON does not have."""
    # Not escaped: that makes six bytes of each Chinese character's three. A lone surrogate of a torn emoji is kept as it is.
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")


def encode(letter: Letter, sealed: str | None = None) -> bytes:
    """A letter as JSON, on one line; `sealed` stands for its content."""
    written: dict[str, Any] = {
        "v": SCHEMA, "id": letter.id, "key": letter.key, "created": letter.created, "kind": letter.kind, "tenant": letter.tenant,
        "attempts": [dict(attempt) for attempt in letter.attempts], "deliveries": letter.deliveries, "not_before": letter.not_before,
        "parked": letter.parked,
    }  # fmt: skip
    if sealed is not None:
        written["sealed"] = sealed
    else:
        written["content"] = None if letter.content is None else dict(letter.content)
    return as_json(written)


def decode(written: bytes) -> tuple[Letter, str | None]:
    """What `encode` wrote: the letter, and what stands for its content if that is sealed.

    Raises:
        ValueError: It is no letter.
    """
    found = json.loads(written)
    if not isinstance(found, dict) or not isinstance(found.get("v"), int):
        raise ValueError("no dead letter: it has no schema version")  # noqa: TRY004  # one error for all that is no letter
    try:
        letter = Letter(
            id=found["id"], key=found["key"], created=found["created"], kind=str(found["kind"]), attempts=tuple(found.get("attempts", ())),
            content=found.get("content"), tenant=found.get("tenant"), deliveries=int(found.get("deliveries", 0)),
            not_before=found.get("not_before", 0.0), parked=found.get("parked"),
        )  # fmt: skip
    except KeyError as error:
        raise ValueError(f"no dead letter: it has no {error.args[0]}") from None
    return letter, found.get("sealed")
