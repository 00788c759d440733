"""The settings of an application, read by somebody who asks no provider: a key that is not in the environment is not needed.

Rules of this file: a missing key is stood in for only while the settings are read and the clients are made, and only where `providers` names
it. What belongs to a credential (blocks, limits) can't be seen without its key, and is said to be unknown.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from langchain_resilient.chat_model import ResilientChatModel
from langchain_resilient.cli import sources
from langchain_resilient.cli.failures import CommandFailed
from langchain_resilient.cli.redact import names_secret
from langchain_resilient.cli.session import Session
from langchain_resilient.config import Provider, parsed
from langchain_resilient.engine.errors import SettingsError
from langchain_resilient.engine.naming import account_key, credential_hash
from langchain_resilient.engine.policy import SystemClock
from langchain_resilient.engine.store.opening import MEMORY, shown

MORE_KEYS = ("AZURE_OPENAI_API_KEY", "COHERE_API_KEY", "FIREWORKS_API_KEY", "OPENROUTER_API_KEY", "TOGETHER_API_KEY")
"""What clients read beside the keys of `sources.KEYS`."""
LOOKS, PAUSE = 6, 0.4
"""How often a shared backend that does not answer is asked, and the seconds between: a busy machine's first connection may come late."""
EXCHANGES = 3
"""How many go by until a process that is new has heard of the others' latencies: it joins them, asks for theirs, and is told."""
_UNSET = re.compile(r"\$\{([A-Za-z_]\w*)\}")
ALONE = (
    'backend is "memory://": circuits and limits live in each process of your application, and this one has asked nobody; '
    "set backend to a URL of Redis to see and steer them from here, or call status() and override() in the process itself"
)


class Seen(NamedTuple):
    """What was found in a settings file and behind it."""

    source: str
    settings: dict[str, Any]
    model: ResilientChatModel
    """Without the letters, whose box is not to be made by who looks, and without observers."""
    shared: bool
    """Whether the backend is one of several processes."""
    reachable: bool | None
    """Whether it answered; None: there is nothing to reach."""
    providers: dict[str, dict[str, Any]]
    """As `status()`, and `known`: whether the credential is; empty rows where nothing can be known."""
    warnings: list[str]

    @property
    def backend(self) -> dict[str, Any]:
        """For `--json`."""
        return {"url": shown(self.model.backend), "shared": self.shared, "reachable": self.reachable}


def settings_of(session: Session, file: Path) -> dict[str, Any]:
    """The keyword arguments of the model, without the keys that are missing. Raises `SettingsError`."""
    with _stood_in(_missing(file)):
        return sources.settings_of(session, sources.Source(file=file))


def seen(session: Session, file: Path) -> Seen:
    """Read the settings, and what the backend knows. Raises `SettingsError`."""
    with session.holding_back(), _stood_in(_missing(file)):
        settings = sources.settings_of(session, sources.Source(file=file))
        model = sources.build(session, {**settings, "observers": (), "dead_letters": None})
        keyless = _unknown(model, settings["providers"])
        shared = model.backend != MEMORY
        rows = _looked(model) if shared else {}
    reachable = all(row["shared"] for row in rows.values()) if shared else None
    warnings = [
        f"{name}: no key was found for it, so that what is held against its credential (blocks, limits) is not known here"
        for name in keyless
        if reachable
    ]
    if not shared:
        warnings.append(ALONE)
    names = [target.name for target in sources.policy_of(model).targets]
    providers = {name: {**(rows[name] if reachable else {}), "known": name not in keyless} for name in names}
    told = [*warnings, *session.told()]
    return Seen(
        str(file), settings, model, shared, reachable, providers, [session.redactor.line(text) for text in told]
    )


def _looked(model: ResilientChatModel) -> dict[str, dict[str, Any]]:
    for look in range(LOOKS):
        if look:
            SystemClock().sleep(PAUSE)
        rows = model.status()
        if all(row["shared"] for row in rows.values()):
            for _ in range(EXCHANGES):
                model.close()  # sends what is to be sent, and waits for what comes back
                rows = model.status()
            break
    return rows


def away(of: Seen, document: dict[str, Any], so: str = "") -> CommandFailed:
    """The end of a command whose backend can't be reached; `so`: what comes of that."""
    message = f"the backend at {shown(of.model.backend)} can't be reached: each process decides alone{so}"
    return CommandFailed(message, kind="backend_away", document=document)


# ------------------------------------------------------------------------------------------------------------------ keys
def _missing(file: Path) -> set[str]:
    """The keys that clients and `providers` would read, and that nobody has set."""
    unset = {name for key in sources.KEYS if not any(map(os.environ.get, key.variables)) for name in key.variables[:1]}
    unset |= {name for name in MORE_KEYS if not os.environ.get(name)}
    try:
        content = parsed(file)
    except SettingsError:
        content = None  # who reads it next says what is wrong with it
    given = content if isinstance(content, dict) else {}
    elsewhere = {name for key, part in given.items() if key != "providers" for name in _UNSET.findall(str(part))}
    unset |= {name for name in _UNSET.findall(str(given.get("providers"))) if name not in os.environ}
    return {name for name in unset - elsewhere if names_secret(name)}


@contextmanager
def _stood_in(names: set[str]) -> Iterator[None]:
    """The environment as if these were set."""
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, sources.NO_KEY))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _unknown(model: ResilientChatModel, given: list[Any]) -> list[str]:
    """The providers whose credential is unknown: without a key, and not named by `account`."""
    named = {
        credential_hash([f"account={item.account}"], model.namespace)
        for item in given
        if isinstance(item, Provider) and item.account is not None
    }
    lacking = set(sources.keyless(model))
    return [
        target.name
        for target in sources.policy_of(model).targets
        if target.name in lacking and target.account not in {account_key(target.route, each) for each in named}
    ]
