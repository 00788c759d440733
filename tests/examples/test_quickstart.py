"""README's first example is a file that runs."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from langchain_resilient.testing import Fault, FaultServer

ROOT = Path(__file__).parent.parent.parent
QUICKSTART = ROOT / "examples" / "quickstart.py"


def test_the_readme_shows_it_word_for_word():
    """But for its docstring, the file is the README's first Python block."""
    block = re.search(r"^```python\n(.*?)^```$", (ROOT / "README.md").read_text("utf-8"), re.MULTILINE | re.DOTALL)
    code = QUICKSTART.read_text("utf-8").partition('"""\n\n')[2]
    assert code == block[1]


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("fault", "answered_by", "kinds"),
    [
        (Fault.ok(), "openai/gpt-4.1", "['ok']"),
        (Fault.status(503), "anthropic/claude-sonnet-4-5", "['overloaded', 'ok']"),
    ],
)
def test_it_answers_whether_or_not_the_first_provider_does(fault: Fault, answered_by: str, kinds: str):
    """With keys and addresses in the environment alone, it prints the answer, who gave it, and what was tried."""
    with FaultServer() as openai, FaultServer() as anthropic:
        openai.always(fault)
        for server in (openai, anthropic):
            server.answer("To probe, not to hope.")
        environment = os.environ | {
            "OPENAI_API_KEY": "test-key",
            "OPENAI_BASE_URL": openai.base_url("openai"),
            "ANTHROPIC_API_KEY": "test-key",
            "ANTHROPIC_BASE_URL": anthropic.base_url("anthropic"),
        }
        done = subprocess.run(
            [sys.executable, QUICKSTART], env=environment, capture_output=True, text=True, timeout=50, check=False
        )
    assert done.returncode == 0, done.stderr
    answer, decision = done.stdout.splitlines()
    assert answer == "To probe, not to hope."
    assert decision == f"{answered_by} {kinds}"
