"""What the runbook tells somebody to type at 2 PM: each command is one that the real parser takes as it is written."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from typer import BadParameter
from typer.main import get_command

from langchain_resilient.cli.app import app
from langchain_resilient.cli.session import Session

RUNBOOK = Path(__file__).parent.parent.parent / "docs" / "runbook.md"
PROGRAM = "langchain-resilient"
SPANS: list[str] = re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", RUNBOOK.read_text(), flags=re.DOTALL))
COMMANDS = sorted({span for span in SPANS if span.startswith(f"{PROGRAM} ")})


def without_bodies(command: Any) -> Any:
    """The same words, and nothing is done."""
    for inner in getattr(command, "commands", {}).values():
        without_bodies(inner)
    if not hasattr(command, "commands"):
        command.callback = lambda **_: None
    return command


def typed(text: str) -> object:
    """The exit code of a command as it is written, with words for what is in angle brackets; raises what the parser says of nonsense."""
    words = shlex.split(re.sub(r"<\w+>(…?)", "word", text))
    parser = without_bodies(get_command(app))
    return parser(words[1:], prog_name=PROGRAM, standalone_mode=False, obj=Session())


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_can_be_typed_as_it_is_written(command: str):
    """Exit code 2 helps nobody."""
    assert typed(command) in (None, 0)


def test_every_command_is_written_out():
    """Part of one, such as `circuits list`, can't be copied."""
    words = {*get_command(app).commands, "unpark", "replay", "purge", "export", "show"}  # type: ignore[attr-defined]
    assert len(COMMANDS) > 5
    assert [span for span in SPANS if span.split()[0] in words and " " in span] == []


@pytest.mark.parametrize("wrong", ["status", "circuits reset <provider>", "dead-letters replay <id>… -c x.yaml"])
def test_nonsense_is_found(wrong: str):
    """The parser that the tests above rely on is the real one."""
    with pytest.raises(BadParameter.__mro__[2]) as caught:  # its package is no dependency of ours
        typed(f"{PROGRAM} {wrong}")
    assert caught.value.exit_code == 2
