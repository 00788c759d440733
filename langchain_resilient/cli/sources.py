"""Which providers are asked: those named, those of a file, or those whose keys are found.

Rules of this file: nothing is read that was not named, but the keys of the environment; a `resilience.yaml` in the working directory is
only pointed at, because a file of somebody else's checkout could send those keys to an address of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import SecretStr

from langchain_resilient.cli.failures import CommandFailed, usage_error
from langchain_resilient.cli.session import Session

if TYPE_CHECKING:
    from langchain_resilient.chat_model import ResilientChatModel  # heavy: `--help` reads this file's table
    from langchain_resilient.engine.policy import Policy

DEFAULT_FILE = "resilience.yaml"
NO_KEY = "langchain-resilient-no-key"
"""Stands for a key that a command does not need, and the environment does not have; see `unasked`."""


class Key(NamedTuple):
    """A provider that the environment may hold the key (or the address) of."""

    variables: tuple[str, ...]
    spec: str
    """What is asked if one of them is set."""
    module: str
    """The package it needs."""
    install: str
    """What to install for it."""

    @property
    def names(self) -> str:
        """Its variables, for people."""
        return " or ".join(self.variables)


KEYS = (
    Key(("OPENAI_API_KEY",), "openai:gpt-4.1", "langchain_openai", "'langchain-resilient[openai]'"),
    Key(
        ("ANTHROPIC_API_KEY",), "anthropic:claude-sonnet-4-5", "langchain_anthropic", "'langchain-resilient[anthropic]'"
    ),
    Key(
        ("GOOGLE_API_KEY", "GEMINI_API_KEY"),
        "google_genai:gemini-2.5-flash",
        "langchain_google_genai",
        "langchain-google-genai",
    ),
    Key(("MISTRAL_API_KEY",), "mistralai:mistral-large-latest", "langchain_mistralai", "langchain-mistralai"),
    Key(("GROQ_API_KEY",), "groq:llama-3.3-70b-versatile", "langchain_groq", "langchain-groq"),
    Key(("DEEPSEEK_API_KEY",), "deepseek:deepseek-chat", "langchain_deepseek", "langchain-deepseek"),
    Key(("XAI_API_KEY",), "xai:grok-4", "langchain_xai", "langchain-xai"),
    Key(("OLLAMA_HOST",), "ollama:llama3.1", "langchain_ollama", "'langchain-resilient[ollama]'"),
)
"""In the order in which they are asked: what most people pay for first, the local machine last."""


class Source(NamedTuple):
    """Where the settings come from."""

    providers: tuple[str, ...] = ()
    file: Path | None = None

    def __str__(self) -> str:
        """What to call it."""
        return str(self.file) if self.file is not None else ", ".join(self.providers)


def source(session: Session, providers: Sequence[str], file: Path | None, environment: Mapping[str, str]) -> Source:
    """What was given, or what the environment has.

    Raises:
        CommandFailed: Both were given, or there is nothing to ask.
    """
    if providers and file is not None:
        raise usage_error("give either --provider or a configuration file: the file names its providers itself")
    if providers or file is not None:
        return Source(tuple(providers), file)
    unread = Path(DEFAULT_FILE).is_file()
    if unread:
        session.note(f"{DEFAULT_FILE} in this directory is not read unless you say so: --config {DEFAULT_FILE}")
    return Source(_with_keys(session, environment))


def _with_keys(session: Session, environment: Mapping[str, str]) -> tuple[str, ...]:
    found = [key for key in KEYS if any(environment.get(name) for name in key.variables)]
    missing = [key for key in found if not _installed(key.module)]
    ready = tuple(key.spec for key in found if key not in missing)
    names = ", ".join(key.spec.partition(":")[0] for key in missing)
    command = f"pip install {' '.join(key.install for key in missing)}"
    if ready and missing:
        session.note(f"there is a key for {names}, but its package is missing: {command}")
    if ready:
        return ready
    if missing:
        raise _nothing(f"there is a key for {names}, but its package is missing: {command}")
    raise _nothing(
        "no provider to ask: give --provider openai:gpt-4.1 or --config FILE, or set a key, such as OPENAI_API_KEY or ANTHROPIC_API_KEY"
    )


def _nothing(message: str) -> CommandFailed:
    return CommandFailed(message, kind="no_provider", code=2)


def _installed(module: str) -> bool:
    return find_spec(module) is not None


def settings_of(session: Session, chosen: Source) -> dict[str, Any]:
    """The keyword arguments of the model; what is secret among them is known to the session before anything is said of them.

    Raises:
        SettingsError: The file makes no sense.
    """
    from langchain_resilient.chat_model import ResilientChatModel
    from langchain_resilient.config import read_yaml

    if chosen.file is None:
        return {"providers": list(chosen.providers)}
    with suppress(OSError, UnicodeDecodeError):  # `read_yaml` says what is wrong with the file
        session.redactor.add_file(chosen.file.read_text(encoding="utf-8"))
    settings = read_yaml(chosen.file, frozenset(ResilientChatModel.model_fields))
    for provider in settings["providers"]:
        session.redactor.add_settings(getattr(provider, "model_kwargs", {}))
    return settings


def build(session: Session, settings: Mapping[str, Any]) -> ResilientChatModel:
    """The model; its secrets are known to the session.

    Raises:
        SettingsError: The settings make no sense.
    """
    from langchain_resilient.chat_model import ResilientChatModel

    model = ResilientChatModel(**settings)
    for target in policy_of(model).targets:
        session.redactor.add_model(target.client.model)
    return model


def policy_of(model: ResilientChatModel) -> Policy:
    """What a model goes by."""
    return model._engine.policy  # noqa: SLF001  # the command shows what calls really go by, and that has no public name


def keyless(model: ResilientChatModel) -> list[str]:
    """The providers whose client was made without its key: some only notice when they are asked."""
    return [target.name for target in policy_of(model).targets if _lacks_key(target.client.model)]


def _lacks_key(client: Any) -> bool:
    keys = [getattr(client, name, None) for name in type(client).model_fields if name.endswith("api_key")]
    return any(isinstance(key, SecretStr) and key.get_secret_value() in {"", NO_KEY} for key in keys)
