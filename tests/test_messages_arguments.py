"""What `fit_arguments` carries to another provider, in which form, and what it says of the rest."""

from __future__ import annotations

import inspect
from copy import deepcopy
from typing import Any

import anthropic
import ollama
import openai
import pytest
from langchain_core.messages import HumanMessage
from langchain_core.tools import tool

from langchain_resilient.messages import fit_arguments
from langchain_resilient.messages.arguments import ONE_PROVIDERS, TAKEN
from langchain_resilient.testing import FaultServer
from tests import clients
from tests.strict import wire

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
OPENAI_TOOL = {"type": "function", "function": {"name": "weather", "description": "Looks.", "parameters": SCHEMA}}
ANTHROPIC_TOOL = {"name": "weather", "description": "Looks.", "input_schema": SCHEMA}
MARK = {"type": "ephemeral"}
JSON = {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA | {"additionalProperties": False}}}

OF_OPENAI: dict[str, Any] = {
    "model": "gpt-4.1", "prompt_cache_key": "k", "service_tier": "flex", "store": True, "metadata": {"a": "b"}, "user": "u",
    "reasoning_effort": "minimal", "verbosity": "low", "parallel_tool_calls": False, "stream_options": {"include_usage": True},
    "extra_body": {"a": 1}, "logit_bias": {"1": 1}, "seed": 1, "n": 1, "temperature": 1.5, "top_p": 0.5, "my_own": 1,
    "tools": [OPENAI_TOOL, {"type": "web_search_preview"}, {"type": "mcp", "server_label": "x"}, {"type": "code_interpreter"}],
    "tool_choice": "required", "response_format": {"type": "json_object"}, "stop": None,
}  # fmt: skip
OF_ANTHROPIC: dict[str, Any] = {
    "model": "claude", "cache_control": MARK, "thinking": {"type": "enabled", "budget_tokens": 1024}, "betas": ["x"], "effort": "high",
    "mcp_servers": [], "container": "c", "context_management": {}, "metadata": {"user_id": "u"}, "top_k": 5, "stop_sequences": ["END"],
    "tools": [ANTHROPIC_TOOL | {"cache_control": MARK}, {"type": "web_search_20250305", "name": "web_search"}],
    "tool_choice": {"type": "tool", "name": "weather", "disable_parallel_tool_use": True},
}  # fmt: skip


@pytest.fixture(scope="module")
def server():
    """A server of all three wires."""
    with FaultServer() as running:
        yield running


def parameters(function: Any) -> set[str]:
    """The names that a function takes."""
    return set(inspect.signature(function).parameters)


LANGCHAIN = {"num_predict", "max_output_tokens", "stream_usage", "max_tokens", "max_completion_tokens"}
"""What LangChain's client, or providers.py, turns into the SDK's own words."""


def test_the_tables_hold_nothing_that_a_client_raises_at():
    """Every argument that goes on to OpenAI, Anthropic or Ollama is one that its SDK, or LangChain's client before it, takes."""
    known = {
        "openai": parameters(openai.OpenAI(api_key="x").chat.completions.create) | {"strict"},
        "anthropic": parameters(anthropic.Anthropic(api_key="x").messages.create) | {"temperature", "top_p", "top_k", "response_format"},
        "ollama": parameters(ollama.Client().chat) | set(ollama.Options.model_fields) | {"response_format", "strict", "tool_choice"}
        | {"mirostat", "mirostat_eta", "mirostat_tau", "tfs_z"},
    }  # fmt: skip
    assert {home: TAKEN[home] - known[home] - LANGCHAIN for home in TAKEN} == {
        "openai": set(),
        "anthropic": set(),
        "ollama": set(),
    }


@pytest.mark.parametrize(
    ("word", "origin"),
    [("anthropic", "openai"), ("ollama", "openai"), ("openai", "anthropic"), ("ollama", "anthropic")],
)
def test_a_call_full_of_one_providers_arguments_is_accepted_by_another(server, word, origin):
    """Arguments that the other's client raises at, or that its provider refuses, are accepted once fitted."""
    given = OF_OPENAI if origin == "openai" else OF_ANTHROPIC
    before = deepcopy(given)
    assert wire.refusal(server, word, [HumanMessage("hi")], **given)
    fitted, changes = fit_arguments(given, word, origin)
    if word == "ollama":  # as providers.py does: sampling is an option of the model there
        fitted = {key: value for key, value in fitted.items() if key not in {"temperature", "top_p", "top_k", "seed"}}
    assert wire.refusal(server, word, [HumanMessage("hi")], **fitted) == []
    assert server.requests[-1].body["model"] == "one"
    assert changes and given == before


def test_what_openais_call_says_to_anthropic():
    """Of OpenAI's arguments, Anthropic is told the tools, the choice, that calls come singly, and a temperature that it has."""
    fitted, changes = fit_arguments(OF_OPENAI, "anthropic", "openai")
    assert fitted == {
        "temperature": 1.0, "top_p": 0.5, "tools": [ANTHROPIC_TOOL], "tool_choice": {"type": "any", "disable_parallel_tool_use": True},
    }  # fmt: skip
    assert {
        "argument model left out", "argument prompt_cache_key left out", "argument my_own left out", "server tool web_search left out",
        "server tool mcp left out", "server tool code_interpreter left out", "tools converted", "tool_choice converted",
        "parallel_tool_calls converted", "temperature lowered to 1", "argument response_format left out",
    } <= set(changes)  # fmt: skip


def test_what_anthropics_call_says_to_openai():
    """Of Anthropic's arguments, OpenAI is told the tools, the choice, and that calls come singly."""
    fitted, changes = fit_arguments(OF_ANTHROPIC, "openai", "anthropic")
    assert fitted == {
        "tools": [OPENAI_TOOL], "tool_choice": {"type": "function", "function": {"name": "weather"}}, "parallel_tool_calls": False,
    }  # fmt: skip
    assert {"cache_control left out", "argument thinking left out", "server tool web_search left out"} <= set(changes)


@pytest.mark.parametrize("word", [*TAKEN, "azure_openai", "mistralai", "google_genai", "elsewhere"])
def test_arguments_go_to_their_own_provider_as_they_are(word):
    """Meant for this provider, nothing is touched."""
    for given in (OF_OPENAI, OF_ANTHROPIC, {}):
        assert fit_arguments(given, word, word) == (given, ())
        assert fit_arguments(given, word, word)[0] is not given


def test_a_schema_for_the_answer_goes_to_all_three():
    """`response_format` with a schema is read by all three clients."""
    for word in TAKEN:
        assert fit_arguments({"response_format": JSON}, word, "elsewhere") == ({"response_format": JSON}, ())


def test_a_provider_without_a_table_is_told_all_but_others_own_matters():
    """Of an unknown client nobody knows what it takes: only what is one provider's own matter stays behind."""
    fitted, changes = fit_arguments({"seed": 1, "my_own": 2, "service_tier": "flex"}, "groq", "openai")
    assert (fitted, changes) == ({"seed": 1, "my_own": 2}, ("argument service_tier left out",))
    assert not ONE_PROVIDERS & {"temperature", "tools", "tool_choice", "response_format", "seed", "stop"}


@pytest.mark.parametrize("word", TAKEN)
def test_tools_go_with_their_choice_or_not_at_all(word):
    """If every tool stays behind, so does the list and the choice; a choice of one that stays behind, too."""
    only = {"tools": [{"type": "web_search_preview"}], "tool_choice": "auto", "parallel_tool_calls": False}
    fitted, changes = fit_arguments(only, word, "elsewhere")
    assert fitted == {} if word != "openai" else not {"tools", "tool_choice"} & fitted.keys()
    assert {"server tool web_search left out", "argument tool_choice left out"} <= set(changes)
    named = {"tools": [OPENAI_TOOL], "tool_choice": {"type": "function", "function": {"name": "clock"}}}
    assert "tool_choice" not in fit_arguments(named, word, "elsewhere")[0]


def test_googles_tools_have_no_type_and_stay_behind():
    """`{"google_search": {}}` is a server's tool."""
    assert fit_arguments({"tools": [{"google_search": {}}]}, "openai", "google_genai") == (
        {},
        ("server tool google_search left out",),
    )


def test_tools_that_are_no_dictionaries_are_left_to_the_client():
    """A BaseTool is converted by the client's own `bind_tools`, and may be chosen by its name."""

    @tool
    def weather(city: str) -> str:
        """Look."""
        return city

    fitted, changes = fit_arguments({"tools": [weather], "tool_choice": "weather"}, "anthropic", "openai")
    assert fitted == {"tools": [weather], "tool_choice": {"type": "tool", "name": "weather"}}
    assert changes == ("tool_choice converted",)


def test_changes_repeat_no_strange_names():
    """A keyword that is no plain word is not repeated."""
    assert fit_arguments({"Secret Name": 1}, "openai", "anthropic")[1] == ("argument unknown left out",)


def test_the_standard_client_refuses_what_is_not_in_its_table(server):
    """The control: each client does raise at an argument that it does not know."""
    for word in TAKEN:
        model: Any = clients.instance(server, word)
        with pytest.raises(TypeError):
            model._generate([HumanMessage("hi")], None, None, my_own=1)


def test_a_tool_in_the_targets_own_form_stays_as_it_is():
    """A tool that is in Anthropic's form already keeps its mark for caching, and nothing is noted."""
    given = {"tools": [ANTHROPIC_TOOL | {"cache_control": MARK}]}
    assert fit_arguments(given, "anthropic", "openai") == (given, ())
