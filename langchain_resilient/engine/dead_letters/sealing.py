"""What a letter passes through before it is written, and on its way back: scrubbing, the user's hook, the size cap, encryption.

Rules of this file
------------------
* Nothing loses a letter: what can't be redacted, is too large or is no JSON is kept without its content, parked, and says so in the log; a text
  that no key opens is a letter whose content is None.
* Nothing unredacted is written, nor logged: an error's own text may quote the prompt, so its type alone is named.
* Encrypted are a letter's content and a result's value; the rest stays readable, for lists and for who has no key.
"""

from __future__ import annotations

import importlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from langchain_resilient.engine.dead_letters.letter import Letter, as_json, decode, encode
from langchain_resilient.engine.dead_letters.scrubbing import scrubbed, scrubbed_record
from langchain_resilient.engine.errors import SettingsError

LOGGER = logging.getLogger("langchain_resilient")
MOST_BYTES = 262_144
REDACTION_FAILED = "redaction failed"
TOO_LARGE = "too large"
NOT_JSON = "not JSON"
UNREADABLE = "unreadable"
"""The kind of a letter that is none of ours, or damaged."""

Redact = Callable[[dict[str, Any]], dict[str, Any]]


class _RefusedError(Exception):
    """The content can't be kept."""


def cipher_of(keys: Sequence[str]) -> Any:
    """A MultiFernet: the first key encrypts, each decrypts. None without keys.

    Raises:
        SettingsError: A key is none, or `cryptography` is not installed.
    """
    if not keys:
        return None
    try:
        fernet = importlib.import_module("cryptography.fernet")
    except ImportError as error:
        msg = "DeadLetters.keys: encryption needs cryptography; install it with: pip install 'langchain-resilient[encryption]'"
        raise SettingsError(msg) from error
    fernets = []
    for place, key in enumerate(keys):
        try:
            fernets.append(fernet.Fernet(key))
        except (ValueError, TypeError):
            # Not even as a cause: it may quote the key.
            msg = f"DeadLetters.keys[{place}]: is no Fernet key; make one with cryptography.fernet.Fernet.generate_key().decode()"
            raise SettingsError(msg) from None
    return fernet.MultiFernet(fernets)


class Seal:
    """From letters to what is written, and back.

    Args:
        redact: The user's hook: gets a copy of the content (`messages`, `parameters`), returns what is to be kept.
        keys: Fernet keys, see `cipher_of`.
        most_bytes: Of a content as JSON, before it is encrypted.

    Raises:
        SettingsError: As `cipher_of`.
    """

    def __init__(self, redact: Redact | None = None, keys: Sequence[str] = (), most_bytes: int = MOST_BYTES) -> None:
        self._redact = redact
        self._cipher = cipher_of(keys)
        self._most_bytes = most_bytes

    # -------------------------------------------------------------------------------------------------------------- letters
    def prepared(self, letter: Letter) -> Letter:
        """The letter as it may be written; without its content, and parked, if that may not."""
        attempts = tuple(scrubbed_record(attempt) for attempt in letter.attempts)
        if letter.content is None:
            return replace(letter, attempts=attempts)
        try:
            return replace(letter, attempts=attempts, content=self._kept(letter.content))
        except _RefusedError as refused:
            why = str(refused)
            LOGGER.warning("dead letter %s is kept without its content, and parked: %s", letter.id, why)
            return replace(letter, attempts=attempts, content=None, parked=why.partition(" (")[0])

    def _kept(self, content: Mapping[str, Any]) -> dict[str, Any]:
        try:
            # A copy of its own, of nothing but JSON's types: the hook may change what it gets, and must not meet the caller's.
            plain: dict[str, Any] = json.loads(as_json(scrubbed(content)))
        except (TypeError, ValueError, RecursionError) as error:
            raise _RefusedError(f"{NOT_JSON} ({type(error).__name__})") from None
        if self._redact is not None:
            plain = _redacted(self._redact, plain)
        size = len(as_json(plain))
        if size > self._most_bytes:
            raise _RefusedError(f"{TOO_LARGE} ({size} bytes of at most {self._most_bytes})")
        return plain

    def written(self, letter: Letter) -> bytes:
        """A prepared letter as it is written: one line."""
        if self._cipher is None or letter.content is None:
            return encode(letter)
        return encode(letter, sealed=self._cipher.encrypt(as_json(dict(letter.content))).decode())

    def read(self, written: bytes, letter_id: str) -> tuple[Letter, bool]:
        """A letter that was written, and whether its content is there but can't be read: no key at hand opens it, or it is of another making."""
        try:
            letter, sealed = decode(written)
        except ValueError as error:
            LOGGER.error("dead letter %s can't be read (%s)", letter_id, type(error).__name__)  # noqa: TRY400  # a decoder's frames hold the prompt
            return Letter(letter_id, letter_id, 0.0, UNREADABLE), True
        if sealed is None:
            return letter, False
        opened = self._opened(sealed)
        return (letter, True) if opened is None else (replace(letter, content=json.loads(opened)), False)

    # -------------------------------------------------------------------------------------------------------------- results
    def written_value(self, value: Any) -> bytes:
        """A result's value as it is written. Raises `TypeError` or `ValueError` for what JSON does not have."""
        plain = as_json(value)
        if self._cipher is None:
            return as_json({"value": value})
        return as_json({"sealed": self._cipher.encrypt(plain).decode()})

    def read_value(self, written: bytes) -> Any:
        """A value that was written; None where no key opens it."""
        found = json.loads(written)
        if "sealed" not in found:
            return found.get("value")
        opened = self._opened(found["sealed"])
        return None if opened is None else json.loads(opened)

    def _opened(self, sealed: str) -> bytes | None:
        if self._cipher is None:
            return None
        try:
            opened: bytes = self._cipher.decrypt(sealed)
        except importlib.import_module("cryptography.fernet").InvalidToken:
            return None
        return opened


def _redacted(redact: Redact, content: dict[str, Any]) -> dict[str, Any]:
    """What the user's hook makes of it, if that can be kept."""
    try:
        given: Any = redact(content)
        if not isinstance(given, Mapping) or not isinstance(given.get("messages"), list | tuple):
            raise TypeError
        found: dict[str, Any] = json.loads(as_json(scrubbed(given)))
    except Exception as error:  # noqa: BLE001  # the user's own code may raise anything, and the letter must not be lost for it
        raise _RefusedError(f"{REDACTION_FAILED} ({type(error).__name__})") from None
    return found
