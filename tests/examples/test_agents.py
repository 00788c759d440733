"""The examples run as they stand, whether or not their first provider does."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from langchain_resilient.testing import Fault, FaultServer

EXAMPLES = Path(__file__).parent.parent.parent / "examples"
OPENAI, ANTHROPIC = "openai/gpt-4.1", "anthropic/claude-sonnet-4-5"

pytestmark = pytest.mark.e2e


def printed(name: str, sick: str | None, text: str | None = None, stdin: str = "") -> str:
    """What an example printed; `sick` names the provider that answers 503."""
    with FaultServer() as openai, FaultServer() as anthropic:
        for server in (openai, anthropic):
            server.answer(text)
        if sick is not None:
            {"openai": openai, "anthropic": anthropic}[sick].always(Fault.status(503))
        environment = os.environ | {
            "OPENAI_API_KEY": "test-key",
            "OPENAI_BASE_URL": openai.base_url("openai"),
            "ANTHROPIC_API_KEY": "test-key",
            "ANTHROPIC_BASE_URL": anthropic.base_url("anthropic"),
        }
        command = [sys.executable, EXAMPLES / name]
        done = subprocess.run(
            command, env=environment, input=stdin, capture_output=True, text=True, timeout=50, check=False
        )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(("sick", "by"), [(None, OPENAI), ("openai", ANTHROPIC)])
def test_structured_output_reads_the_answer_of_whoever_gives_it(sick: str | None, by: str):
    """A schema's object is printed, and who gave it."""
    first, last = printed("structured_output.py", sick).splitlines()
    assert len(first.split()) == 2
    assert last.split()[0] == by


@pytest.mark.parametrize(("sick", "by"), [(None, OPENAI), ("openai", ANTHROPIC)])
def test_streaming_chat_answers_every_question(sick: str | None, by: str):
    """Each question gets its answer and who gave it; an empty line ends it."""
    said = printed("streaming_chat.py", sick, "It is fine.", "How is it?\nStill?\n\n")
    assert said.count("It is fine.") == 2
    assert said.count(f"({by}, first word after") == 2


@pytest.mark.parametrize(("sick", "by"), [(None, OPENAI), ("openai", ANTHROPIC)])
def test_langgraph_agent_calls_its_tool_and_answers(sick: str | None, by: str):
    """The tool is called and its result is in the answer, by the provider that is well."""
    lines = printed("langgraph_agent.py", sick).splitlines()
    assert "tool: It rains in Bath." in lines[2]
    assert "It rains in Bath." in lines[3]
    assert lines[-1] == repr([by, by])


@pytest.mark.parametrize(("sick", "by"), [(None, ANTHROPIC), ("anthropic", OPENAI)])
def test_deep_agent_calls_its_tool_and_answers(sick: str | None, by: str):
    """The same through deepagents, with the middleware."""
    pytest.importorskip("deepagents")
    lines = printed("deep_agent.py", sick).splitlines()
    assert "It rains in Bath." in lines[0]
    assert lines[-1] == repr([by, by])
