"""Keeps credentials out of what is written: by the names they have, by the types that hold them, and out of URLs.

Rules of this file: pure. A name is judged by its words, so that `max_tokens`, `prompt_cache_key` and `tokenizer` stay while `access_token` and
`apiKey` go. What a tool's schema calls its arguments is kept, or the model would be asked for something else; their defaults are not.
What people wrote in messages is theirs: the user's `redact` judges that.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
ALWAYS = frozenset({
    "apikey", "apikeys", "auth", "authentication", "authorization", "bearer", "cookie", "cookies", "cred", "creds", "credential", "credentials",
    "header", "headers", "jwt", "passphrase", "passwd", "password", "passwords", "pwd", "secret", "secrets", "signature",
})  # fmt: skip
"""Words that no harmless parameter has."""
LAST = frozenset({"key", "keys", "token"})
"""Words that tell by being a name's last; "tokens" are counted, "token" is held."""
HARMLESS = frozenset({"prompt_cache_key", "stop_token", "pad_token", "eos_token", "bos_token", "prompt_cache_keys"})
_GIVEN = ("default", "const", "example", "examples")
"""What a schema may hold of an argument's value."""
_NAMES = ("properties", "$defs", "definitions")
"""Where a JSON schema keeps names of arguments and types."""
_LOGIN = re.compile(r"(?<=://)[^\s/@]+@")
_QUERY = re.compile(r"([?&][^=&#\s]*(?:key|token|secret|sig|password|auth)[^=&#\s]*=)[^&#\s]+", re.IGNORECASE)


class _Gone:
    """Stands where something was dropped."""


_GONE = _Gone()


def smells(name: str) -> bool:
    """Whether what stands under a name is a credential."""
    words = [word.lower() for word in _WORDS.findall(name)]
    if not words or "_".join(words) in HARMLESS:
        return False
    return words[-1] in LAST or not ALWAYS.isdisjoint(words) or "".join(words).endswith(("apikey", "accesstoken"))


def scrubbed(content: Mapping[str, Any]) -> dict[str, Any]:
    """A request's content without credentials; a copy."""
    found: dict[str, Any] = {}
    for name, value in content.items():
        # Messages are what people wrote, so only what is typed as a secret goes.
        kept = _clean(value, named=name != "messages")
        if not isinstance(kept, _Gone) and (name in {"messages", "parameters"} or not smells(str(name))):
            found[str(name)] = kept
    return found


def scrubbed_record(record: Mapping[str, Any]) -> dict[str, Any]:
    """An attempt's record without credentials, and of plain values alone: nothing in it keeps the letter from being written."""
    kept = _clean_mapping(record, named=True, schema=False)
    return {name: value for name, value in kept.items() if value is None or isinstance(value, str | int | float)}


def _clean(value: Any, *, named: bool, schema: bool = False) -> Any:
    if callable(getattr(value, "get_secret_value", None)):
        return _GONE
    if isinstance(value, Mapping):
        return _clean_mapping(value, named=named, schema=schema)
    if isinstance(value, list | tuple | set | frozenset):
        kept = [_clean(item, named=named) for item in value]
        return [item for item in kept if not isinstance(item, _Gone)]
    if isinstance(value, str) and named:
        return _QUERY.sub(r"\1", _LOGIN.sub("", value)) if "://" in value else str(value)
    return value


def _clean_mapping(value: Mapping[Any, Any], *, named: bool, schema: bool) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, item in value.items():
        smelling = named and smells(str(name))
        if smelling and not (schema and isinstance(item, Mapping)):
            continue
        if smelling:
            item = {word: rest for word, rest in item.items() if word not in _GIVEN}  # noqa: PLW2901  # the rest of it
        kept = _clean(item, named=named, schema=name in _NAMES)
        if not isinstance(kept, _Gone):
            found[str(name)] = kept
    return found
