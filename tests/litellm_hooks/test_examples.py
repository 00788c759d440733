"""The examples for LiteLLM's users, as they stand, with keys and addresses in the environment alone."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from langchain_resilient.testing import Fault, FaultServer
from litellm_hooks.settings import read
from tests.litellm_hooks.proxies import ROOT, Proxy, ask, is_clean

pytest.importorskip("fastapi", reason="needs litellm[proxy]")
pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]

EXAMPLES = ROOT / "examples"
TEXT = "To probe, not to hope."


@contextmanager
def providers() -> Iterator[tuple[FaultServer, FaultServer, dict[str, str]]]:
    """OpenAI, Anthropic, and the variables by which they are found."""
    with FaultServer() as openai, FaultServer() as anthropic:
        for server in (openai, anthropic):
            server.answer(TEXT)
        yield (
            openai,
            anthropic,
            {
                "OPENAI_API_KEY": "test-key",
                "OPENAI_BASE_URL": openai.base_url("openai"),
                "ANTHROPIC_API_KEY": "test-key",
                "ANTHROPIC_API_BASE": anthropic.base_url("anthropic"),
                "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            },
        )


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        (Fault.ok(), "{'provider': 'openai/gpt-4.1#chat', 'attempts': 1}"),
        (Fault.status(401), "{'provider': 'anthropic/claude-sonnet-4-5#chat-spare', 'attempts': 2}"),
    ],
)
def test_the_router_answers_whether_or_not_the_first_provider_does(fault: Fault, told: str):
    """It prints the answer as it comes, and who gave it after how many attempts."""
    with providers() as (openai, _, variables):
        openai.always(fault)
        path = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), str(ROOT)]))
        done = subprocess.run(
            [sys.executable, EXAMPLES / "litellm_router.py"], env=os.environ | variables | {"PYTHONPATH": path},
            capture_output=True, text=True, timeout=150, check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-2:] == [TEXT, told]


def test_the_proxy_answers_whether_or_not_the_first_provider_does(tmp_path: Path):
    """Its one config file is all that it needs; streams and answers come from the spare group in an outage, and `/metrics` tells."""
    with (
        providers() as (openai, _, variables),
        Proxy(EXAMPLES / "litellm_proxy" / "config.yaml", tmp_path, **variables) as proxy,
    ):
        assert (ask(proxy, "chat").text, openai.count) == (TEXT, 1)
        openai.always(Fault.status(401))
        answer = ask(proxy, "chat", stream=True)
        is_clean(answer)
        assert (answer.text, answer.provider, answer.attempts) == (TEXT, "anthropic", 2)
        spare = "anthropic/claude-sonnet-4-5#anthropic"
        assert proxy.metric("llm_resilient_requests_total", outcome="answered", provider=spare) == 1


def test_its_readme_has_four_lines():
    """The Proxy's README is four lines of text, and names settings that there are."""
    folder = EXAMPLES / "litellm_proxy"
    assert len((folder / "README.md").read_text("utf-8").splitlines()) == 4
    config = yaml.safe_load((folder / "config.yaml").read_text("utf-8"))
    read(config["litellm_settings"]["resilience"], "config.yaml")
