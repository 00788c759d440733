"""README's example of a stream runs as it stands there."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from langchain_resilient.testing import Fault, FaultServer
from tests.continued import SHOWN, TEXT

README = Path(__file__).parent.parent / "README.md"


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("faults", "told"),
    [
        ((Fault.ok(), Fault.ok()), [TEXT, "openai/gpt-4.1, continued: 0"]),
        ((Fault.reset_after(4), Fault.ok()), [TEXT, "anthropic/claude-sonnet-4-5, continued: 1"]),
        ((Fault.in_band_error(4, 400), Fault.ok()), [f"{SHOWN} [it ends here: openai/gpt-4.1: ", "None, continued: 0"]),
    ],
    ids=["well", "broken", "nobody can mend it"],
)
def test_the_example_of_a_stream(faults: tuple[Fault, Fault], told: list[str]):
    """It prints one text, whole or as far as it came, and who answered."""
    section = README.read_text("utf-8").partition("\n## Streams\n")[2]
    code = re.search(r"^```python\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    assert code is not None
    with FaultServer() as openai, FaultServer() as anthropic:
        for server, fault in zip((openai, anthropic), faults, strict=True):
            server.always(fault)
            server.answer(TEXT, prefill="continue")
        environment = os.environ | {
            "OPENAI_API_KEY": "test-key",
            "OPENAI_BASE_URL": openai.base_url("openai"),
            "ANTHROPIC_API_KEY": "test-key",
            "ANTHROPIC_BASE_URL": anthropic.base_url("anthropic"),
        }
        done = subprocess.run(
            [sys.executable, "-c", code[1]], env=environment, capture_output=True, text=True, timeout=50, check=False
        )
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if line]
    assert [line.startswith(start) for line, start in zip(lines, told, strict=True)] == [True, True], lines
