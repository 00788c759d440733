"""The command as a process: exit codes, streams, signals, pipes, terminals."""

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from langchain_resilient.testing import Fault, FaultServer
from tests.cli.running import ANTHROPIC_KEY, COMMAND, INTERRUPTIBLE, OPENAI_KEY, ROOT, command, config, environment

pytestmark = pytest.mark.e2e
REFUSED = (
    "Incorrect API key provided: {key}. You can find your API key at https://platform.openai.com/account/api-keys."
)


def test_the_answer_alone_goes_to_stdout_and_the_decision_to_stderr(server: FaultServer):
    """With keys in the environment the first provider's failure is answered by the second, and a file would hold the answer only."""
    server.schedule(Fault.overloaded())
    ran = command("chat", "Hi there", env=environment(server, "openai", "anthropic"))
    assert (ran.code, ran.out) == (0, "Hello from the fault server.\n")
    assert "anthropic/claude-sonnet-4-5 answered" in ran.err
    assert re.search(r"openai/gpt-4.1 +overloaded 503", ran.err)
    assert [request.wire for request in server.requests] == ["openai", "anthropic"]
    assert "\x1b" not in ran.out + ran.err


@pytest.mark.parametrize("as_json", [False, True])
def test_a_refused_key_is_one_line_without_the_key(server: FaultServer, as_json: bool):
    """What the real clients say of a 401, key or masked key included, is one line on stderr, exit 1, and holds nothing of the key."""
    masked = "planted-*********4711"
    server.schedule(
        Fault.status(401, message=REFUSED.format(key=masked)),
        Fault.status(401, message=REFUSED.format(key=ANTHROPIC_KEY)),
    )
    ran = command("chat", "Hi", *(["--json"] if as_json else []), env=environment(server, "openai", "anthropic"))
    assert ran.code == 1
    shown = ran.out + ran.err
    assert not any(secret in shown for secret in (OPENAI_KEY, ANTHROPIC_KEY, masked, "4711", "0815"))
    assert "Traceback" not in shown
    (line,) = [line for line in ran.err.splitlines() if line.startswith("error: ")]
    assert line.startswith(
        "error: no provider answered: openai/gpt-4.1: auth 401: Incorrect API key provided: [hidden]."
    )
    assert "anthropic/claude-sonnet-4-5: auth 401" in line
    if as_json:
        error = json.loads(ran.out)["error"]
        assert (error["kind"], error["exit_code"]) == ("all_providers_failed", 1)
        assert [item["kind"] for item in error["providers"]] == ["auth", "auth"]
    else:
        assert ran.out == ""


@pytest.mark.parametrize("arguments", [[], ["--no-stream"], ["--json"]])
def test_ctrl_c_ends_at_once_with_130(server: FaultServer, arguments: list[str]):
    """A provider that hangs does not keep Ctrl-C waiting: one line, exit 130, and with --json a document."""
    server.always(Fault.hang())
    process = subprocess.Popen(
        [*INTERRUPTIBLE, "chat", "Hi", "-p", "openai:gpt-4.1", *arguments],
        env=environment(server, "openai"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    server.wait_for(1, timeout=40)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert err.splitlines()[-1] == "error: interrupted"
    assert "Traceback" not in err
    assert (json.loads(out)["error"]["kind"] if out else None) == ("interrupted" if arguments == ["--json"] else None)


def test_ctrl_c_keeps_what_was_shown(server: FaultServer):
    """Ctrl-C in the middle of an answer ends its line; what had come stays on stdout."""
    server.always(Fault.hang_after(2))
    process = subprocess.Popen(
        [*INTERRUPTIBLE, "chat", "Hi", "-p", "openai:gpt-4.1"],
        env=environment(server, "openai"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    first = process.stdout.read(10)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert (first + out).endswith("\n") and "Hello from the fault server.".startswith((first + out).strip())
    assert err.splitlines()[-1] == "error: interrupted"


@pytest.mark.parametrize("arguments", [["chat", "Hi"], ["check"], ["--help"]])
def test_a_reader_that_goes_away_is_no_error(server: FaultServer, arguments: list[str]):
    """Where the output's reader has closed it, the command ends without a word."""
    server.answer("one word after another " * 5000)
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [*COMMAND, *arguments],
        env=environment(server, "ollama"),
        stdout=writer,
        stderr=subprocess.PIPE,
        timeout=50,
        check=False,
    )
    os.close(writer)
    assert done.returncode == 141
    assert done.stderr == b""


def on_terminal(*arguments: str, env: dict[str, str]) -> str:
    """What a terminal is shown, stdout and stderr together."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen([*COMMAND, *arguments], env=env, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    shown = b""
    until = time.monotonic() + 50
    while time.monotonic() < until:
        if not select.select([ours], [], [], 1)[0]:
            continue
        try:
            more = os.read(ours, 4096)
        except OSError:  # its end, on Linux
            break
        if not more:
            break
        shown += more
    process.wait(timeout=20)
    os.close(ours)
    return shown.decode().replace("\r\n", "\n")


def test_colours_only_on_a_terminal_that_wants_them(server: FaultServer):
    """A terminal gets colours, NO_COLOR takes them away; an answer's own escape sequences never reach it."""
    server.answer("fine \x1b[31mred\x1b[0m")
    env = environment(server, "ollama", TERM="xterm-256color")
    coloured = on_terminal("chat", "Hi", env=env)
    assert "fine [31mred[0m\n" in coloured
    assert "\x1b[32m" in coloured
    plain = on_terminal("chat", "Hi", env=env | {"NO_COLOR": "1"})
    assert re.search(r"\x1b\[[0-9;]*3[0-9]", plain) is None
    assert "ollama/llama3.1 answered" in plain


def test_forty_columns_are_enough(server: FaultServer, tmp_path: Path):
    """At 40 columns no line of the page is longer, and nothing is left out."""
    path = config(tmp_path, server, "a-model-with-a-rather-long-name", "two")
    ran = command("check", str(path), env=environment(COLUMNS="40"))
    assert ran.code == 0
    assert max(map(len, ran.out.splitlines())) <= 40
    assert "a-model-with-a-rather-long-name" in ran.out.replace("\n", "").replace(" ", "")
    assert "stream_interrupted (after content)" in ran.out


def test_without_typer_one_line_says_what_to_install(tmp_path: Path):
    """A missing extra is one line with the pip command and exit 2."""
    program = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "typer":
            raise ModuleNotFoundError("No module named 'typer'", name="typer")
sys.meta_path.insert(0, Block())
from langchain_resilient.cli import main
main()
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=50, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: the command needs typer and rich: pip install 'langchain-resilient[cli]'\n"


def test_help_costs_no_langchain():
    """`--help` and `--version` import neither LangChain nor pydantic's clients, so that they come at once."""
    program = """
import sys
from langchain_resilient.cli.app import run
run(["chat", "--help"]); run(["--version"])
print(sorted({name.partition(".")[0] for name in sys.modules} & {"langchain_core", "langchain", "openai", "httpx"}), file=sys.stderr)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=50, check=False
    )
    assert done.stderr == "[]\n"
    assert "Exit codes:" in done.stdout


def test_any_encoding_will_do(server: FaultServer):
    """Where the output can't show a character it is a "?", never a crash; a JSON document keeps it."""
    server.answer("caf\u00e9 \U0001f642")
    env = environment(server, "ollama", PYTHONIOENCODING="ascii")
    ran = command("chat", "Hi", env=env)
    assert (ran.code, ran.out) == (0, "caf? ?\n")
    assert json.loads(command("chat", "Hi", "--json", env=env).out)["answer"] == "caf\u00e9 \U0001f642"


def test_ctrl_c_while_the_question_is_read():
    """Ctrl-C at the prompt of `chat -` is exit 130 and one line, as at any other time."""
    process = subprocess.Popen(
        [*INTERRUPTIBLE, "chat", "-", "-p", "ollama:one"],
        env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(timeout=4)  # it waits for its question; nothing tells from outside that it does
    process.send_signal(signal.SIGINT)
    process.wait(timeout=20)
    assert (process.returncode, process.stdout.read(), process.stderr.read()) == (130, "", "error: interrupted\n")


def test_ctrl_c_does_not_wait_for_a_name_that_does_not_resolve(tmp_path: Path):
    """A look-up blocks a thread that nothing can interrupt; Ctrl-C does not wait for it."""
    (tmp_path / "sitecustomize.py").write_text(
        "import socket, sys, time\n"
        "def stuck(*_args, **_kwargs):\n"
        "    print('looking up', file=sys.stderr, flush=True)\n"
        "    time.sleep(600)\n"
        "socket.getaddrinfo = stuck\n"
    )
    env = environment(
        PYTHONPATH=f"{tmp_path}:{ROOT}", OPENAI_API_KEY=OPENAI_KEY, OPENAI_BASE_URL="http://nowhere.test/v1"
    )
    process = subprocess.Popen(
        [*INTERRUPTIBLE, "chat", "Hi", "-p", "openai:gpt-4.1"],
        env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stderr.readline() == "looking up\n"
    process.send_signal(signal.SIGINT)
    try:
        out, err = process.communicate(timeout=20)
    finally:
        process.kill()
    assert (process.returncode, out, err) == (130, "", "error: interrupted\n")
