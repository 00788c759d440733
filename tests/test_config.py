"""Settings from YAML: the file says what the constructor says, and every mistake in it is named by its path."""

import subprocess
import sys
from pathlib import Path

import pytest

from langchain_resilient import (
    Circuit,
    Hedge,
    Price,
    Provider,
    RateLimits,
    ResilientChatModel,
    Retry,
    SettingsError,
    Timeouts,
)
from langchain_resilient.config import read_yaml
from langchain_resilient.testing import FaultServer
from tests.clients import fresh

FULL = """
providers:
  - model: openai:gpt-4.1
    name: first
    account: team-a
    model_kwargs:
      api_key: ${TEST_KEY}
      base_url: ${TEST_URL}
      temperature: 0.5
    priority: 2
    weight: 2.5
    max_latency: 5
    cost_per_1k: 0.03
    limits: {rpm: 500, tpm: 200000, usd_per_day: 20, on_limit: wait, max_wait: 3}
    circuit: {failure_threshold: 3, recovery_timeout: 30}
    timeouts: {first_token: 8}
    context_window: 128000
  - model: anthropic:claude-sonnet-4-5
    model_kwargs: {api_key: "${TEST_KEY}", base_url: "${TEST_URL:-http://localhost}"}
    price: {input: 3, output: 15, cached_input: 0.3}
  - ollama:llama3.1
namespace: ${TEST_NAMESPACE}
routing: cost
circuit: {failure_rate: 0.4, minimum_calls: 20}
retry: {max_retries: 2, max_retry_after: 1.5}
timeouts: {response: 90, total: 120}
max_pending: 50
include_decision: true
temperature: 0.1
"""


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """What the full example reads."""
    values = {"TEST_KEY": "sk-secret", "TEST_URL": "http://127.0.0.1:9/v1", "TEST_NAMESPACE": fresh()}
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    return values


def written(directory: Path, text: str) -> Path:
    """A file with this text."""
    path = directory / "resilience.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_full_example_equals_the_python_construction(tmp_path: Path, environment: dict[str, str]):
    """Each key of the file is the keyword argument of the same name, with the same checks and types."""
    settings = read_yaml(written(tmp_path, FULL), frozenset(ResilientChatModel.model_fields))
    key, url = environment["TEST_KEY"], environment["TEST_URL"]
    assert settings == {
        "providers": [
            Provider(
                "openai:gpt-4.1",
                name="first",
                account="team-a",
                model_kwargs={"api_key": key, "base_url": url, "temperature": 0.5},
                priority=2,
                weight=2.5,
                max_latency=5.0,
                cost_per_1k=0.03,
                limits=RateLimits(rpm=500, tpm=200_000, usd_per_day=20.0, on_limit="wait", max_wait=3.0),
                circuit=Circuit(failure_threshold=3, recovery_timeout=30.0),
                timeouts=Timeouts(first_token=8.0),
                context_window=128_000,
            ),
            Provider(
                "anthropic:claude-sonnet-4-5",
                model_kwargs={"api_key": key, "base_url": url},
                price=Price(3.0, 15.0, 0.3),
            ),
            "ollama:llama3.1",
        ],
        "namespace": environment["TEST_NAMESPACE"],
        "routing": "cost",
        "circuit": Circuit(failure_rate=0.4, minimum_calls=20),
        "retry": Retry(max_retries=2, max_retry_after=1.5),
        "timeouts": Timeouts(response=90.0, total=120.0),
        "max_pending": 50,
        "include_decision": True,
        "temperature": 0.1,
    }
    model, same = ResilientChatModel.from_yaml(tmp_path / "resilience.yaml"), ResilientChatModel(**settings)
    assert model._get_llm_string() == same._get_llm_string()
    assert [target.name for target in model._engine.policy.targets] == [
        "anthropic/claude-sonnet-4-5",
        "first",
        "ollama/llama3.1",
    ]
    for ours, theirs in zip(model._engine.policy.targets, same._engine.policy.targets, strict=True):
        assert (ours.route, ours.account, ours.limits, ours.circuit, ours.timeouts, ours.price) == (
            theirs.route, theirs.account, theirs.limits, theirs.circuit, theirs.timeouts, theirs.price,
        )  # fmt: skip


def test_a_model_from_a_file_answers(tmp_path: Path):
    """A file with addresses and keys is all that a working model needs, and settings given beside it win."""
    with FaultServer() as server:
        text = (
            "providers:\n  - model: openai:one\n    model_kwargs: "
            f"{{api_key: x, base_url: '{server.base_url('openai')}'}}\ntemperature: 0.5\n"
        )
        model = ResilientChatModel.from_yaml(written(tmp_path, text), namespace=fresh(), temperature=0.75)
        assert model.invoke("hi").text == "Hello from the fault server."
        assert server.requests[0].body["temperature"] == 0.75


BAD = {  # text: what the error says, PATH standing for the file's
    "an unknown key": ("providers: [openai:x]\nretires: {}", "PATH: unknown key: got 'retires'; did you mean 'retry'?"),
    "an unknown key of a section": (
        "providers: [openai:x]\nretry: {max_retires: 1}",
        "retry: unknown key: got 'max_retires'; did you mean 'max_retries'?",
    ),
    "an unknown key of a provider": (
        "providers:\n  - openai:x\n  - {model: openai:y, prority: 1}",
        "providers[1]: unknown key: got 'prority'; did you mean 'priority'?",
    ),
    "an unknown key deep inside": (
        "providers:\n  - {model: openai:x, limits: {rmp: 5}}",
        "providers[0].limits: unknown key: got 'rmp'; did you mean 'rpm'?",
    ),
    "a wrong type": ("providers: [openai:x]\nretry: {max_retries: many}", "retry.max_retries: got 'many'; "),
    "a nonsensical value": ("providers: [openai:x]\nretry: {max_retries: -1}", "retry: Retry.max_retries: got -1"),
    "a nonsensical value deep inside": (
        "providers:\n  - {model: openai:x, circuit: {failure_rate: 2}}",
        "providers[0].circuit: Circuit.failure_rate: got 2.0",
    ),
    "dollars without a price": (
        "providers:\n  - {model: openai:x, limits: {usd_per_day: 5}}",
        "providers[0]: RateLimits.usd_per_day: got 5.0; set the provider's price",
    ),
    "two prices": (
        "providers:\n  - {model: openai:x, cost_per_1k: 1, price: {input: 1, output: 1}}",
        "providers[0]: Provider.cost_per_1k: got 1.0; give either",
    ),
    "a section that is no mapping": ("providers: [openai:x]\nretry: 3", "retry: got 3; write the settings of Retry as a mapping"),
    "a provider that is none": ("providers: [7]", "providers[0]: got 7; write a spec such as"),
    "a provider without a model": ("providers: [{name: x}]", "providers[0].model: got None; name the model"),
    "no providers": ("retry: {}", "providers: got None; list at least one provider"),
    "an empty list": ("providers: []", "providers: got []; list at least one provider"),
    "providers that are a word": ("providers: openai:x", "providers: got 'openai:x'; list at least one provider"),
    "an empty file": ("", "PATH: got 'NoneType'; write settings as `key: value` lines"),
    "a list": ("- a", "PATH: got 'list'; write settings as"),
    "no YAML": ("providers: [openai:x", "PATH: got text that is no YAML at line 1, column 21"),
    "a tab": ("retry:\n\tmax_retries: 1", "PATH: got text that is no YAML at line 2, column 1"),
    "an unset variable": (
        "providers:\n  - {model: openai:x, model_kwargs: {api_key: '${NO_SUCH_KEY}'}}",
        "providers[0].model_kwargs.api_key: got '${NO_SUCH_KEY}'; set the environment variable NO_SUCH_KEY, or write ${NO_SUCH_KEY:-default}",
    ),
    "an unknown backend": ("providers: [ollama:x]\nbackend: postgres://x", "backend: got 'postgres://'; did you mean 'redis://'?"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_files(tmp_path: Path, name: str):
    """Every mistake is an error that names the place by its path, what was given and the fix."""
    text, message = BAD[name]
    path = written(tmp_path, text)
    with pytest.raises(SettingsError) as caught:
        ResilientChatModel.from_yaml(path)
    assert message.replace("PATH", str(path)) in str(caught.value)


def test_a_missing_file(tmp_path: Path):
    """A file that is not there, or is a folder, is named."""
    with pytest.raises(SettingsError, match=r"nowhere.yaml: got a file that can't be read \(No such file"):
        ResilientChatModel.from_yaml(tmp_path / "nowhere.yaml")
    with pytest.raises(SettingsError, match="can't be read"):
        ResilientChatModel.from_yaml(tmp_path)


def test_a_file_that_is_no_text(tmp_path: Path):
    """A file of bytes that are no UTF-8 is named as such."""
    path = tmp_path / "resilience.yaml"
    path.write_bytes(b"providers: \xff\xfe")
    with pytest.raises(SettingsError, match=r"resilience.yaml: got"):
        ResilientChatModel.from_yaml(path)


def test_defaults_of_variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """`${NAME:-default}` gives the default where NAME is unset, several may stand in one text, and a set one wins."""
    monkeypatch.setenv("TEST_HOST", "example.test")
    monkeypatch.delenv("TEST_PORT", raising=False)
    text = "providers: [ollama:x]\nnamespace: '${TEST_HOST}:${TEST_PORT:-80}${TEST_PORT:-}'"
    assert read_yaml(written(tmp_path, text), frozenset({"providers", "namespace"}))["namespace"] == "example.test:80"
    monkeypatch.setenv("TEST_PORT", "81")
    assert read_yaml(written(tmp_path, text), frozenset({"providers", "namespace"}))["namespace"] == "example.test:8181"


def test_secrets_are_in_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A mistake beside a secret, or in its own place, does not repeat the secret."""
    monkeypatch.setenv("TEST_KEY", "sk-secret")
    texts = [
        "providers:\n  - {model: openai:x, model_kwargs: {api_key: '${TEST_KEY}'}, prority: 1}",
        "providers:\n  - {model: openai:x, model_kwargs: '${TEST_KEY}'}",
        "providers:\n  - {model: openai:x, account: ['${TEST_KEY}']}",
        "providers:\n  - {model: openai:x, model_kwargs: {api_key: ['${TEST_KEY}']}}",
        "providers:\n  - {model: openai:x, model_kwargs: {api_key: '${TEST_KEY}', temperature: hot}}",
        "providers:\n  - {model: openai:x, model_kwargs: {api_key: '${TEST_KEY}', max_retries: many}}",
        "providers:\n  - [openai:x, '${TEST_KEY}']",
    ]
    for text in texts:
        with pytest.raises(SettingsError) as caught:
            ResilientChatModel.from_yaml(written(tmp_path, text))
        assert "sk-secret" not in str(caught.value), text


def test_it_imports_no_langchain():
    """Reading settings imports neither LangChain nor LiteLLM, so that LiteLLM's users can share the file."""
    code = (
        "import sys, langchain_resilient.config\n"
        "heavy = [m for m in sys.modules if m.split('.')[0] in ('langchain', 'langchain_core', 'litellm', 'openai')]\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=50)


def test_hedges_and_watched_calls_from_a_file(tmp_path: Path):
    """`hedge: {}` stands for the defaults, and a mapping for a Hedge's fields; wrong ones are named by their path."""
    text = "providers: [ollama:one]\nhedge: %s\ntimeouts: {watch_calls: true}\n"
    model = ResilientChatModel.from_yaml(written(tmp_path, text % "{}"), namespace=fresh())
    assert (model.hedge, model.timeouts.watch_calls) == (Hedge(), True)
    model = ResilientChatModel.from_yaml(written(tmp_path, text % "{quantile: 0.9}"), namespace=fresh())
    assert model.hedge == Hedge(quantile=0.9)
    with pytest.raises(SettingsError, match=r"Hedge\.max_fraction"):
        ResilientChatModel.from_yaml(written(tmp_path, text % "{max_fraction: 2}"))
    with pytest.raises(SettingsError, match="hedge"):
        ResilientChatModel.from_yaml(written(tmp_path, text % "true"))
