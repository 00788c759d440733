"""`fit_arguments`: a call's keyword arguments, said to the next provider.

Rules of this file: an argument goes on only if the target's client takes it and it means the same there; all else is left out and noted,
since the clients of OpenAI, Anthropic and Ollama raise TypeError on an argument that their SDK does not know (read in their `create`/`chat`
signatures, which the tests compare with these tables), and a model's name or a cache key means nothing to others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from langchain_resilient.messages.dialects import dialect
from langchain_resilient.messages.notes import Notes, plain
from langchain_resilient.messages.tools import carried, name_of

LENGTH = frozenset({"max_tokens", "max_completion_tokens", "num_predict", "max_output_tokens"})
"""Names for the most tokens of an answer: providers.py gives each client its own."""
SAMPLING = frozenset({"temperature", "top_p"})
TOOLS = frozenset({"tools", "tool_choice"})
TAKEN: dict[str, frozenset[str]] = {
    "openai": LENGTH | SAMPLING | TOOLS | {
        "frequency_penalty", "logit_bias", "logprobs", "n", "parallel_tool_calls", "presence_penalty", "response_format", "seed",
        "stream", "stream_usage", "strict", "timeout", "top_logprobs",
    },
    "anthropic": LENGTH | SAMPLING | TOOLS | {"response_format", "stop_sequences", "stream", "stream_usage", "timeout", "top_k"},
    "ollama": LENGTH | SAMPLING | TOOLS | {
        "format", "keep_alive", "logprobs", "mirostat", "options", "mirostat_eta", "mirostat_tau", "num_ctx", "num_gpu", "num_thread", "repeat_last_n",
        "repeat_penalty", "response_format", "seed", "stream", "strict", "tfs_z", "top_k", "top_logprobs",
    },
}  # fmt: skip
"""What means the same to a client, whoever it was first said to. Not in it, though a client takes it, because it is one provider's own matter:
model, service_tier, store, metadata, user, prompt_cache_*, safety_identifier, reasoning*, thinking, verbosity, extra_*, betas, context_management,
container, mcp_servers, modalities, audio, prediction, web_search_options, previous_response_id, include, stream_options, think. `options` is Ollama's own word: nobody else could have been meant."""

ONE_PROVIDERS = frozenset({
    "model", "service_tier", "store", "metadata", "user", "prompt_cache_key", "prompt_cache_options", "prompt_cache_retention",
    "safety_identifier", "safety_settings", "reasoning", "reasoning_effort", "effort", "thinking", "thinking_budget", "thinking_level",
    "think", "verbosity", "extra_body", "extra_headers", "extra_query", "betas", "cache_control", "cached_content", "context_management",
    "container", "mcp_servers", "modalities", "audio", "prediction", "web_search_options", "previous_response_id", "include", "text",
    "truncation", "stream_options", "options", "output_config", "inference_geo", "keep_alive", "format", "generation_config",
    "functions", "function_call", "moderation", "background", "conversation", "instructions", "prompt", "speed", "user_profile_id",
    "parallel_tool_calls",
})  # fmt: skip
"""One provider's own matters, for targets whose client is not in `TAKEN`: all else goes on to them."""


class _Said(NamedTuple):
    """One call's arguments on their way."""

    given: Mapping[str, Any]
    arguments: dict[str, Any]
    home: str
    notes: Notes


def fit_arguments(arguments: Mapping[str, Any], word: str, origin: str) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Give a call's keyword arguments the form that a provider accepts.

    Args:
        arguments: As they were given for `origin`. Never changed.
        word: LangChain's name of the provider that they go to.
        origin: The same of the provider that they were meant for.

    Returns:
        The arguments and what was changed.
    """
    home = dialect(word)
    if not arguments or home == dialect(origin):
        return dict(arguments), ()
    notes = Notes()
    taken = TAKEN.get(home)
    kept: dict[str, Any] = {}
    for name, value in arguments.items():
        if value is None or name in kept:
            continue
        if (name in taken) if taken is not None else (name not in ONE_PROVIDERS):
            kept[name] = value
        elif name not in FOLDED:
            notes.lost("cache_control" if name == "cache_control" else f"argument {plain(name)}")
    said = _Said(arguments, kept, home, notes)
    for change in CHANGES:
        change(said)
    return kept, notes.told()


# ------------------------------------------------------------------------------------------------------ what is translated
FOLDED = frozenset({"parallel_tool_calls"})
"""Arguments that become part of others where they have no name of their own."""


def _tools(said: _Said) -> None:
    tools = said.arguments.get("tools")
    if not isinstance(tools, list | tuple):
        return
    kept = carried(tools, said.home, said.notes)
    if kept:
        said.arguments["tools"] = kept
    else:
        del said.arguments["tools"]


def _tool_choice(said: _Said) -> None:
    """A choice goes in the target's form, or not at all if the tool that it names stays behind."""
    choice = said.arguments.get("tool_choice")
    if choice is None:
        return
    names = {name_of(tool) for tool in said.arguments.get("tools") or ()}
    chosen = _chosen(choice)
    if "tools" not in said.arguments or (chosen not in {"auto", "any", "none"} and chosen not in names):
        del said.arguments["tool_choice"]
        said.notes.lost("argument tool_choice")
        return
    write = CHOICES.get(said.home, _openai_choice)
    written = write(chosen)
    if written is None:
        del said.arguments["tool_choice"]
        said.notes.lost("argument tool_choice")
    elif written != choice:
        said.arguments["tool_choice"] = written
        said.notes.say("tool_choice converted")


def _chosen(choice: Any) -> str:
    """What a choice of either form asks for: auto, any, none or a tool's name."""
    if isinstance(choice, Mapping):
        function = choice.get("function")
        named = (function if isinstance(function, Mapping) else choice).get("name")
        choice = named or choice.get("type")
    return {"required": "any", "True": "any"}.get(str(choice), str(choice))


def _openai_choice(chosen: str) -> Any:
    if chosen in {"auto", "none", "any"}:
        return "required" if chosen == "any" else chosen
    return {"type": "function", "function": {"name": chosen}}


def _anthropic_choice(chosen: str) -> Any:
    return {"type": chosen} if chosen in {"auto", "none", "any"} else {"type": "tool", "name": chosen}


def _no_choice(chosen: str) -> None:
    """Ollama has none: its SDK's `chat` raises TypeError."""


CHOICES: dict[str, Callable[[str], Any]] = {"anthropic": _anthropic_choice, "ollama": _no_choice}


def _parallel(said: _Said) -> None:
    """OpenAI's `parallel_tool_calls=False` is Anthropic's `disable_parallel_tool_use` in the choice, and the other way."""
    asked = said.given.get("parallel_tool_calls")
    choice = said.given.get("tool_choice")
    if isinstance(choice, Mapping) and "disable_parallel_tool_use" in choice:
        asked = not choice["disable_parallel_tool_use"]
    if asked is None or "tools" not in said.arguments:
        return
    if said.home == "openai":
        if said.arguments.get("parallel_tool_calls") != asked:
            said.arguments["parallel_tool_calls"] = asked
            said.notes.say("parallel_tool_calls converted")
    elif said.home == "anthropic":
        if not asked:
            choice = said.arguments.get("tool_choice") or {"type": "auto"}
            said.arguments["tool_choice"] = {**choice, "disable_parallel_tool_use": True}
        said.notes.say("parallel_tool_calls converted")
    else:
        said.notes.lost("argument parallel_tool_calls")


def _response_format(said: _Said) -> None:
    """Anthropic's client reads a JSON schema in it, and would take OpenAI's bare JSON mode for a schema."""
    wanted = said.arguments.get("response_format")
    if said.home == "anthropic" and isinstance(wanted, Mapping) and wanted.get("type") in {"json_object", "text"}:
        del said.arguments["response_format"]
        said.notes.lost("argument response_format")


def _temperature(said: _Said) -> None:
    """Anthropic's ends at 1 (its API reference), the others' at 2."""
    value = said.arguments.get("temperature")
    if said.home == "anthropic" and isinstance(value, int | float) and value > 1:
        said.arguments["temperature"] = 1.0
        said.notes.say("temperature lowered to 1")


CHANGES: tuple[Callable[[_Said], None], ...] = (
    _tools, _tool_choice, _parallel, _response_format, _temperature,
)  # fmt: skip
