"""Which providers are asked."""

import re

import pytest

from langchain_resilient.cli import sources
from langchain_resilient.cli.failures import CommandFailed
from langchain_resilient.cli.session import Session
from langchain_resilient.cli.sources import KEYS, source

EVERY = {name: "a-key" for key in KEYS for name in key.variables}


@pytest.fixture
def installed(monkeypatch):
    """Say which packages are installed."""

    def say(*modules):
        monkeypatch.setattr(sources, "find_spec", lambda name: object() if name in modules else None)

    return say


@pytest.fixture(autouse=True)
def _nowhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_keys_are_asked_in_the_order_of_the_table(installed):
    """With every key and every package all are asked, paid ones before the local machine."""
    installed(*(key.module for key in KEYS))
    chosen = source(Session(), [], None, EVERY)
    assert chosen.providers == tuple(key.spec for key in KEYS)
    assert chosen.providers[:2] == ("openai:gpt-4.1", "anthropic:claude-sonnet-4-5")
    assert chosen.providers[-1] == "ollama:llama3.1"


@pytest.mark.parametrize("variable", ["GOOGLE_API_KEY", "GEMINI_API_KEY"])
def test_either_variable_counts_and_an_empty_one_does_not(installed, variable):
    """Any of a provider's variables is enough; one that is set to nothing is not set."""
    installed(*(key.module for key in KEYS))
    assert source(Session(), [], None, {variable: "x", "OPENAI_API_KEY": ""}).providers == (
        "google_genai:gemini-2.5-flash",
    )


def test_a_missing_package_is_named_with_its_command(installed, capsys):
    """A key whose package is missing is left out, in one line that says what to install."""
    installed("langchain_anthropic")
    chosen = source(Session(), [], None, {"OPENAI_API_KEY": "x", "GROQ_API_KEY": "x", "ANTHROPIC_API_KEY": "x"})
    assert chosen.providers == ("anthropic:claude-sonnet-4-5",)
    assert capsys.readouterr().err == (
        "note: there is a key for openai, groq, but its package is missing: "
        "pip install 'langchain-resilient[openai]' langchain-groq\n"
    )


def test_only_missing_packages_are_an_error(installed):
    """With keys and no package at all the error says what to install."""
    installed()
    with pytest.raises(CommandFailed, match=re.escape("pip install 'langchain-resilient[openai]'")) as failed:
        source(Session(), [], None, {"OPENAI_API_KEY": "x"})
    assert failed.value.code == 2


def test_a_file_in_the_directory_is_pointed_at_and_not_read(installed, tmp_path, capsys):
    """`resilience.yaml` is read only where it is named: it could send keys to an address of its own."""
    installed("langchain_openai")
    (tmp_path / "resilience.yaml").write_text("providers: [ollama:elsewhere]")
    assert source(Session(), [], None, {"OPENAI_API_KEY": "x"}).providers == ("openai:gpt-4.1",)
    assert capsys.readouterr().err == (
        "note: resilience.yaml in this directory is not read unless you say so: --config resilience.yaml\n"
    )
    assert source(Session(), ["ollama:one"], None, {}).providers == ("ollama:one",)
    assert capsys.readouterr().err == ""


def test_every_spec_of_the_table_is_one_that_langchain_knows():
    """`init_chat_model` knows each provider, by the package that the table names."""
    from langchain.chat_models import base

    for key in KEYS:
        assert base._BUILTIN_PROVIDERS[key.spec.partition(":")[0]][0].partition(".")[0] == key.module


def test_a_table_entry_installs_by_the_extra_where_there_is_one():
    """The pip command names this distribution's extra for the providers that have one."""
    from langchain_resilient.providers import EXTRAS

    for key in KEYS:
        word = key.spec.partition(":")[0]
        assert key.install == (
            f"'langchain-resilient[{EXTRAS[word]}]'" if word in EXTRAS else f"langchain-{word.replace('_', '-')}"
        )


def test_secrets_of_a_file_are_known_before_anything_is_built(tmp_path, monkeypatch):
    """What a file takes from the environment under any name is hidden if it is a header or a key."""
    monkeypatch.setenv("ODDLY_NAMED", "an-odd-secret")
    path = tmp_path / "x.yaml"
    path.write_text('providers:\n  - model: openai:m\n    model_kwargs: {default_headers: {x-any: "${ODDLY_NAMED}"}}\n')
    session = Session()
    sources.settings_of(session, sources.Source(file=path))
    assert session.redactor.line("got an-odd-secret") == "got [hidden]"
