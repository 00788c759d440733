"""`langchain-resilient demo` as a user runs it: a play, its summary, its files, and how it ends."""

import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from langchain_resilient.demo.contenders import NAMES
from langchain_resilient.testing import FaultServer
from tests.cli.running import COMMAND, command, environment

pytestmark = pytest.mark.e2e
FAST = ("demo", "--speed", "10", "--seed", "3")


def test_plain_tells_the_afternoon_in_lines_and_ends_with_the_summary(tmp_path: Path):
    """Every phase and the three contenders are told without a control character, nothing goes to stderr but where the chart is."""
    ran = command(*FAST, "--plain", "--chart", str(tmp_path / "made"), env=environment(), cwd=tmp_path)
    assert ran.code == 0, ran.err
    assert "\x1b" not in ran.out + ran.err
    for clock in ("1:59 PM", "2:00 PM", "2:01 PM", "2:03 PM", "2:05 PM", "2:10 PM"):
        assert clock in ran.out
    assert all(name in ran.out for name in NAMES)
    assert "questions answered" in ran.out
    drawn = sorted((tmp_path / "made").iterdir())
    assert [path.suffix for path in drawn] == [".png", ".svg"]
    assert ran.err.splitlines() == [f"note: chart: {path}" for path in drawn]
    assert list(tmp_path.iterdir()) == [tmp_path / "made"]


def test_json_is_one_document_whose_counts_add_up(tmp_path: Path):
    """Stdout is the document, and its counts add up; keys, addresses, proxies and tracing of the user's own environment take no part in it."""
    with FaultServer() as elsewhere:
        mine = {
            "HTTP_PROXY": elsewhere.url, "http_proxy": elsewhere.url, "ALL_PROXY": elsewhere.url,
            "OPENAI_PROXY": elsewhere.url, "ANTHROPIC_PROXY": elsewhere.url,
            "OPENAI_BASE_URL": elsewhere.base_url("openai"), "OLLAMA_HOST": elsewhere.url, "OPENAI_API_KEY": "planted-key",
            "LANGSMITH_TRACING": "true", "LANGSMITH_ENDPOINT": elsewhere.url, "LANGSMITH_API_KEY": "planted-trace-key",
        }  # fmt: skip
        env = {name: value for name, value in environment().items() if name.lower() != "no_proxy"} | mine
        ran = command(*FAST, "--json", "--no-chart", env=env, cwd=tmp_path)
        assert elsewhere.count == 0
    assert ran.code == 0, ran.err
    assert "planted" not in ran.out + ran.err
    document = json.loads(ran.out)
    assert document["complete"] is True
    assert document["seed"] == 3
    assert document["charts"] == []
    assert [each["name"] for each in document["contenders"]] == list(NAMES)
    for each in document["contenders"]:
        # Each answered or failed; and wasted are the calls without an answer.
        assert each["asked"] == each["answered"] + each["failed"] == len(each["questions"])
        assert each["wasted"] == sum(each["calls"].values()) - each["answered"]
        assert each["answered"] > 0
    assert "2:10 PM" in ran.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.timeout(120)
def test_ctrl_c_ends_it_with_a_summary_of_what_was_played(tmp_path: Path):
    """Exit code 130, the numbers so far, one line of error and no traceback; no process is left."""
    words = [*COMMAND, "demo", "--plain", "--no-chart"]
    with subprocess.Popen(
        words, env=environment(), cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as running:
        first = [running.stdout.readline() for _ in range(3)]
        assert "1:59 PM" in first[0]
        running.send_signal(signal.SIGINT)
        out, err = running.communicate(timeout=90)  # longer than the whole play: one that was not stopped ends with 0
    assert running.returncode == 130, err
    assert "Stopped after" in out
    assert err == "error: interrupted\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--speed", "0"), "speed: got 0.0; use a number from 0.2 to 10"),
        (("--speed", "soon"), "Invalid value for '--speed'"),
        (("--chart", "/proc/nowhere"), "--chart: got '/proc/nowhere', which can't be made"),
        (("--pace", "2"), "No such option"),
    ],
)
def test_nonsense_is_refused_in_one_line_before_anything_is_played(arguments: tuple[str, ...], said: str):
    """Exit code 2, no traceback, nothing on stdout."""
    ran = command("demo", *arguments, env=environment())
    assert ran.code == 2
    assert ran.out == ""
    assert said in ran.err and ran.err.count("\n") == 1


MISSING = """
import sys
def without(finder):
    return lambda name, *rest: None if name.partition(".")[0] in {gone!r} else finder(name, *rest)
for finder in sys.meta_path:
    finder.find_spec = without(finder.find_spec)
sys.argv = ["langchain-resilient", *{arguments!r}]
from langchain_resilient.cli import main
main()
"""


@pytest.mark.parametrize(
    ("gone", "arguments"),
    [(["matplotlib"], ["demo"]), (["langchain_ollama", "langchain_anthropic"], ["demo", "--no-chart"])],
)
def test_missing_packages_are_named_with_the_way_to_get_them(gone: list[str], arguments: list[str]):
    """Before anything is played."""
    program = MISSING.format(gone=gone, arguments=arguments)
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment(), capture_output=True, text=True, timeout=50, check=False
    )
    assert done.returncode == 2, done.stderr
    assert all(name in done.stderr for name in gone)
    assert "pip install 'langchain-resilient[demo]'" in done.stderr and done.stderr.count("\n") == 1


def in_a_terminal(columns: int, rows: int, *words: str, **more: str) -> tuple[int, str]:
    """Run a command in a terminal of this size; its exit code and all that it wrote."""
    parent, child = pty.openpty()
    size = f"import fcntl, struct, termios; fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack('HHHH', {rows}, {columns}, 0, 0))"
    subprocess.run([sys.executable, "-c", size], stdin=child, check=True)
    env = (
        {name: value for name, value in environment().items() if name != "COLUMNS"} | {"TERM": "xterm-256color"} | more
    )
    with subprocess.Popen(words, stdin=child, stdout=child, stderr=child, env=env) as running:
        os.close(child)
        written = b""
        until = time.monotonic() + 50
        while time.monotonic() < until:
            ready, _, _ = select.select([parent], [], [], 1.0)
            if not ready:
                continue
            try:
                part = os.read(parent, 65536)
            except OSError:  # the other end is closed
                break
            if not part:
                break
            written += part
    os.close(parent)
    return running.returncode, written.decode()


@pytest.mark.parametrize(("columns", "rows", "more"), [(100, 30, {}), (42, 16, {"NO_COLOR": "1"})])
def test_on_a_terminal_it_is_a_picture_that_leaves_no_trace(columns: int, rows: int, more: dict[str, str]):
    """On the terminal's other screen, wide or narrow, coloured or not; then the cursor is back and the summary stands."""
    code, written = in_a_terminal(columns, rows, *COMMAND, *FAST, "--no-chart", **more)
    assert code == 0, written[-2000:]
    picture, _, after = written.rpartition("\x1b[?1049l")
    assert "\x1b[?1049h" in picture
    assert "1:59 PM" in picture and "2:05 PM" in picture
    assert written.rindex("\x1b[?25h") > written.rindex("\x1b[?25l")
    assert "questions answered" in after.replace("\r\n", " ")
    if more:
        assert "\x1b[3" not in after and "\x1b[9" not in after


def test_a_dumb_terminal_gets_lines():
    """Where the cursor can't be moved, nothing tries to; and without a chart nothing asks for what draws one."""
    program = MISSING.format(gone=["matplotlib"], arguments=[*FAST, "--no-chart"])
    code, written = in_a_terminal(80, 24, sys.executable, "-c", program, TERM="dumb")
    assert code == 0
    assert "\x1b" not in written
    assert "2:10 PM" in written
