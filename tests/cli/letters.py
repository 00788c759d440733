"""Dead letters as an application leaves them behind: by a real model, over HTTP, in a file or in Redis."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pytest

from langchain_resilient import ResilientChatModel
from langchain_resilient.testing import Fault, FaultServer
from tests.cli.running import config

PROMPT = "a planted prompt about Ann's salary"
TENANT = "tenant-7"
SETTINGS = "retry: {{base_delay: 0, max_retries: 0}}\ncircuit: {{failure_threshold: 1000, minimum_calls: 1000}}\ndead_letters: {where}\n"


class Left(NamedTuple):
    """What there is after the outage."""

    path: Path
    """Of the settings."""
    model: ResilientChatModel
    ids: list[str]


def left_behind(server: FaultServer, directory: Path, *keys: str, where: object = None, more: str = "") -> Left:
    """An outage in which a request for each key ended as a letter; the server is well again."""
    settings = SETTINGS.format(where=where or directory / "letters.db") + more
    path = config(directory, server, "one", more=settings)
    model = ResilientChatModel.from_yaml(path)
    server.always(Fault.overloaded())
    for key in keys:
        with pytest.raises(Exception, match=r"503|overloaded"):
            model.invoke(PROMPT, {"configurable": {"idempotency_key": key, "tenant": TENANT}})
    server.always(Fault.ok())
    server.reset_log()
    return Left(path, model, [letter.id for _, letter in model.letters.letters()])
