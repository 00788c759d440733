"""Tools of a call, in the form that one provider takes, without those that only another provider can run.

Rules of this file: a function is a function everywhere, whatever it is wrapped in; what runs on, or is defined by, one provider's servers can't
be carried. Only dictionaries are looked at: other objects are tools that a client converts by itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from langchain_resilient.messages.notes import Notes, plain

ANTHROPIC_KEYS = frozenset({
    "cache_control", "defer_loading", "input_examples", "allowed_callers", "eager_input_streaming",
})  # fmt: skip
"""What a tool may say to Anthropic alone (langchain-anthropic's `_ANTHROPIC_EXTRA_FIELDS`)."""


def carried(tools: Sequence[Any], home: str, notes: Notes) -> list[Any]:
    """The tools that the target can be given, each in its form."""
    given = (_carried(tool, home, notes) for tool in tools)
    return [tool for tool in given if tool is not None]


def name_of(tool: Any) -> str:
    """A tool's name; "" if it has none that is written down."""
    if not isinstance(tool, Mapping):
        return str(getattr(tool, "name", None) or getattr(tool, "__name__", ""))
    function = tool.get("function")
    return str((function if isinstance(function, Mapping) else tool).get("name") or "")


def _carried(tool: Any, home: str, notes: Notes) -> Any:
    if not isinstance(tool, Mapping):
        return tool
    function = _function(tool)
    if function is None:
        notes.lost(f"server tool {_server_name(tool)}")
        return None
    if home == "anthropic":
        if "input_schema" in tool:
            return tool
        notes.say("tools converted")
        described = {"description": function["description"]} if function.get("description") else {}
        return {"name": function["name"], **described, "input_schema": function["parameters"]}
    for key in ANTHROPIC_KEYS & tool.keys():
        notes.lost(key if key == "cache_control" else f"{key} of a tool")
    if "input_schema" not in tool and not ANTHROPIC_KEYS & tool.keys():
        return tool
    notes.say("tools converted")
    return {"type": "function", "function": function}


def _function(tool: Mapping[str, Any]) -> dict[str, Any] | None:
    """The function that a tool describes, in OpenAI's words; None if it is a server's tool."""
    nested = tool.get("function")
    described = nested if isinstance(nested, Mapping) else tool
    if not described.get("name") or tool.get("type", "function") not in {"function", "custom"}:
        return None
    parameters = next(
        (described[key] for key in ("parameters", "input_schema") if isinstance(described.get(key), Mapping)), None
    )
    if parameters is None:
        if described is not nested:
            return None  # OpenAI's free-form `custom` tool, or something unknown
        parameters = {"type": "object", "properties": {}}
    function = {"name": described["name"], "parameters": dict(parameters)}
    for key in ("description", "strict"):
        if described.get(key) is not None:
            function[key] = described[key]
    return function


def _server_name(tool: Mapping[str, Any]) -> str:
    if isinstance(kind := tool.get("type"), str):
        return plain(kind)
    return plain(next(iter(tool), None))  # Google's: {"google_search": {}}
