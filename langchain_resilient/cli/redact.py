"""Keeps secrets, prompts and terminal controls out of what the command says.

Rules of this file: what is said passes through here, whatever it is made of: a provider quotes part of the key it refuses, a URL in an
error may carry one, a proxy may answer with escape sequences. Answers don't pass through here: they are what was asked for.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pydantic import SecretStr

HIDDEN = "[hidden]"
SECRET_NAME = re.compile(r"(KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS?)$", re.IGNORECASE)
"""Names of variables and settings that hold a secret; not "max_tokens"."""
_IN_FILE = re.compile(
    r"""[\w-]*(?:key|token|secret|password|authorization)["']?\s*:\s*["']?([^\s"',}#]{8,})""", re.IGNORECASE
)
_URL_PASSWORD = re.compile(r"(?<=://)[^\s/@]+(?=@)")
_KEY_LIKE = re.compile(
    r"(?<![\w-])(?:sk-|pk-|gsk_|xai-|pplx-|hf_|nvapi-|AIza|AKIA|ya29\.)[\w*.-]{7,}[\w*]"  # as providers issue them
    r"|[\w.-]*\*{3,}(?:[\w*.-]*[\w*])?"  # as providers quote them: sk-proj-****abcd
    r"|(?<=Bearer )[\w.~+/-]+=*",
)
_CONTROLS = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b[@-_]?|[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
LONG = 8
"""A secret of so many characters is hidden wherever it stands; a shorter one only as a word of its own."""


class Redactor:
    """Hides what it was told of, and what looks like a key.

    Args:
        environment: Whose secrets to hide.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._secrets: set[str] = set()
        self._prompts: set[str] = set()
        self.add(value for name, value in environment.items() if SECRET_NAME.search(name))

    def add(self, secrets: Iterable[str]) -> None:
        """Hide these as well."""
        self._secrets.update(secret for secret in secrets if len(secret.strip()) >= 4)

    def add_file(self, text: str) -> None:
        """Hide what a settings file writes as a key."""
        self.add(_IN_FILE.findall(text))

    def add_model(self, model: Any) -> None:
        """Hide every secret that a chat model holds."""
        held = (getattr(model, name, None) for name in type(model).model_fields)
        self.add(value.get_secret_value() for value in held if isinstance(value, SecretStr))

    def add_settings(self, settings: Mapping[str, Any]) -> None:
        """Hide the secrets among a client's arguments, headers included."""
        self.add(_secrets_in(settings, named=False))

    def add_prompt(self, *texts: str | None) -> None:
        """Hide what the user asks: an error may quote it."""
        self._prompts.update(text for text in texts if text and len(text) >= LONG)

    def clean(self, text: str) -> str:
        """The text without secrets, prompts and terminal controls; its lines are kept."""
        for secret in sorted(self._secrets, key=len, reverse=True):
            text = text.replace(secret, HIDDEN) if len(secret) >= LONG else _as_word(secret).sub(HIDDEN, text)
        for prompt in sorted(self._prompts, key=len, reverse=True):
            text = text.replace(prompt, "[your question]")
        text = _URL_PASSWORD.sub(HIDDEN, text)
        text = _CONTROLS.sub("", _KEY_LIKE.sub(HIDDEN, text))
        return re.sub(rf"(?:{re.escape(HIDDEN)})+", HIDDEN, text)

    def line(self, text: str, most: int = 600) -> str:
        """The same as one line of at most `most` characters."""
        line = " ".join(self.clean(text).split())
        return line if len(line) <= most else line[: most - 1].rstrip() + "…"


def _as_word(secret: str) -> re.Pattern[str]:
    return re.compile(rf"(?<![\w-]){re.escape(secret)}(?![\w-])")


def names_secret(name: str) -> bool:
    """Whether what stands under a name is a secret; any header may be one."""
    return SECRET_NAME.search(name) is not None or "header" in name.lower()


def _secrets_in(value: Any, *, named: bool) -> Iterator[str]:
    if isinstance(value, SecretStr):
        yield value.get_secret_value()
    elif isinstance(value, str) and named:
        yield value
        yield value.removeprefix("Bearer ")
    elif isinstance(value, Mapping):
        for name, item in value.items():
            yield from _secrets_in(item, named=named or names_secret(str(name)))


def printable(text: str) -> str:
    """An answer without terminal controls, for a terminal: a model may have read a web page that holds some.

    It works on each chunk by itself, as it drops characters one by one.
    """
    return _CONTROL.sub("", text)
