"""What may be typed, and how a run ends."""

import json
import re

import pytest
from typer.testing import CliRunner

from langchain_resilient.cli import app as app_module
from langchain_resilient.cli.app import app
from langchain_resilient.cli.sources import KEYS

MISUSES = {
    "no question": ["chat"],
    "an unknown option": ["chat", "Hi", "--bogus"],
    "an unknown command": ["shat"],
    "a deadline that is no number": ["chat", "Hi", "--deadline", "soon"],
    "a deadline that is past": ["chat", "Hi", "--deadline", "0"],
    "a deadline that is not a number at all": ["chat", "Hi", "--deadline", "nan"],
    "no tokens": ["chat", "Hi", "--max-tokens", "0"],
    "an empty question": ["chat", "  "],
    "providers and a file": ["chat", "Hi", "-p", "openai:gpt-4.1", "-c", "x.yaml"],
    "two files": ["check", "x.yaml", "-c", "y.yaml"],
    "a ping without time": ["check", "-p", "ollama:one", "--ping", "--deadline", "-1"],
    "a file that is not there": ["check", "nowhere.yaml"],
    "a spec without a model": ["check", "-p", "openai"],
    "an unknown provider": ["check", "-p", "nonesuch:model"],
    "nothing to ask": ["chat", "Hi"],
    "nothing to import": ["import-litellm"],
    "an import of what is not there": ["import-litellm", "nowhere.yaml"],
}


@pytest.mark.parametrize("arguments", MISUSES.values(), ids=MISUSES)
def test_misuse_is_one_line_and_exit_code_2(typed, tmp_path, monkeypatch, arguments):
    """Whatever is wrong with what was typed or set is one line on stderr and nothing on stdout."""
    monkeypatch.chdir(tmp_path)
    ran = typed(*arguments)
    assert (ran.code, ran.out) == (2, "")
    assert re.fullmatch(r"error: .+\n", ran.err), ran.err


@pytest.mark.parametrize("arguments", MISUSES.values(), ids=MISUSES)
def test_misuse_with_json_is_a_document_as_well(typed, tmp_path, monkeypatch, arguments):
    """With --json stdout holds one document whose error says the same, and stderr keeps its line."""
    monkeypatch.chdir(tmp_path)
    ran = typed(*arguments, "--json")
    error = json.loads(ran.out)["error"]
    assert error["exit_code"] == ran.code == 2
    assert error["kind"] in {"usage", "settings", "no_provider"}
    assert ran.err == f"error: {error['message']}\n"


def test_json_after_two_dashes_is_a_question(typed, tmp_path, monkeypatch):
    """What stands after `--` is no option."""
    monkeypatch.chdir(tmp_path)
    ran = typed("chat", "--bogus", "--", "--json")
    assert (ran.code, ran.out) == (2, "")


def test_a_bug_is_one_line_and_exit_code_70(typed, monkeypatch):
    """An exception that nobody foresaw is one line that says how to see where; with the variable set the traceback is shown, redacted."""

    def broken(*_args):
        raise ZeroDivisionError("of sk-abcdefghijkl")

    monkeypatch.setattr("langchain_resilient.cli.sources.source", broken)
    ran = typed("check")
    assert (ran.code, ran.out) == (70, "")
    assert ran.err == (
        "error: ZeroDivisionError: of [hidden] (a bug of ours; LANGCHAIN_RESILIENT_TRACEBACK=1 shows where)\n"
    )
    traced = typed("check", LANGCHAIN_RESILIENT_TRACEBACK="1")
    assert "Traceback (most recent call last)" in traced.err
    assert "in broken" in traced.err and "sk-abc" not in traced.err


@pytest.mark.parametrize(
    "command",
    [
        [],
        ["chat"],
        ["check"],
        ["import-litellm"],
        ["status"],
        ["circuits"],
        ["circuits", "close"],
        ["dead-letters"],
        ["dead-letters", "list"],
    ],
)
def test_help_has_examples_and_exit_codes(command):
    """Each help shows commands to copy and every exit code."""
    shown = CliRunner().invoke(app, [*command, "--help"])
    assert shown.exit_code == 0
    assert "Examples:" in shown.output and "langchain-resilient chat" in shown.output + "langchain-resilient chat"
    for code in ("0", "1", "2", "70", "130", "141"):
        assert re.search(rf"^  +{code} +\w", shown.output, re.MULTILINE), code


def test_help_of_chat_names_every_key_in_order():
    """What is asked without --provider is in the help, in the order in which it is asked."""
    shown = CliRunner().invoke(app, ["chat", "--help"]).output
    places = [shown.index(key.spec, shown.index("Without --provider")) for key in KEYS]
    assert places == sorted(places)
    assert all(name in shown for key in KEYS for name in key.variables)


def test_every_command_is_registered():
    """The help names them all, those for who runs an application as well."""
    shown = CliRunner().invoke(app, ["--help"]).output
    assert re.findall(r"^  ([\w-]+)  +\w", shown.split("Commands:")[1].split("Examples:")[0], re.MULTILINE) == [
        "chat",
        "check",
        "demo",
        "status",
        "import-litellm",
        "circuits",
        "dead-letters",
    ]


def test_no_command_shows_the_help_and_is_misuse(typed):
    """Without a command the help goes to stderr, and the exit code is 2."""
    ran = typed()
    assert (ran.code, ran.out) == (2, "")
    assert "Commands:" in ran.err


def test_version(typed, monkeypatch):
    """`--version` says the distribution's version in one line."""
    monkeypatch.setattr(app_module, "version", {"langchain-resilient": "1.2.3"}.__getitem__)
    assert typed("--version") == (0, "langchain-resilient 1.2.3\n", "")
