"""Runs the command in this process, with a store and an environment of its own."""

import io
import os
from collections.abc import Callable, Iterator

import pytest

from langchain_resilient.cli.app import run
from langchain_resilient.cli.sources import KEYS
from langchain_resilient.engine.store import memory, opening
from langchain_resilient.testing import FaultServer
from tests.cli.running import Ran


@pytest.fixture
def server() -> Iterator[FaultServer]:
    """A provider on this machine."""
    with FaultServer() as made:
        yield made


@pytest.fixture(autouse=True)
def _closed_afterwards() -> Iterator[None]:
    """Shared stores that a test opened are closed with it: their servers go away."""
    before = set(opening._SHARED)
    yield
    for key in set(opening._SHARED) - before:
        opening._SHARED.pop(key).close()


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Ran]:
    """Type a command: `typed("chat", "Hi", "-c", path)`; `stdin` and variables of the environment by name."""
    for key in KEYS:
        for name in key.variables:
            monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(memory, "_STORES", {})

    def type_in(*arguments: object, stdin: str = "", **variables: str) -> Ran:
        for name, value in variables.items():
            monkeypatch.setitem(os.environ, name, value)
        monkeypatch.setattr("sys.stdin", io.StringIO(stdin))
        code = run([str(argument) for argument in arguments])
        return Ran(code, *capsys.readouterr())

    return type_in
