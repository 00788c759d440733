"""A provider's published request schema, taken literally: the types of its SDK, with unknown keys refused.

Rules of this file: the SDKs' TypedDicts are used as they are shipped. Three things are made strict: a key that the type does not have is an
error, an iterable is read at once and not lazily, and the response models that some request unions allow for convenience are taken out, since
they ignore unknown keys.
"""

from __future__ import annotations

from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic_core import SchemaValidator


def closed(type_: Any) -> SchemaValidator:
    """A validator of one published type."""
    schema = TypeAdapter(type_).core_schema
    definitions = schema["definitions"] if schema["type"] == "definitions" else []
    models = {item["ref"] for item in definitions if _is_model(item, set())}
    return SchemaValidator(_closed(schema, models))


def complaints(schema: SchemaValidator, value: Any) -> list[str]:
    """What the schema has against a value, without the value."""
    try:
        schema.validate_python(value)
    except ValidationError as error:
        return [f"{'.'.join(map(str, item['loc'][:4]))}: {item['msg']}" for item in error.errors(include_input=False)][
            :6
        ]
    return []


def _closed(node: Any, models: set[str]) -> Any:
    if isinstance(node, list):
        return [_closed(item, models) for item in node]
    if isinstance(node, tuple):
        return tuple(_closed(item, models) for item in node)
    if not isinstance(node, dict):
        return node
    if node.get("type") == "union":
        choices = [choice for choice in node["choices"] if not _is_model(choice, models)]
        node = {**node, "choices": choices or node["choices"]}
    if node.get("type") == "generator":
        node = {"type": "list", "items_schema": node.get("items_schema")}
    new = {key: value if key in {"metadata", "cls"} else _closed(value, models) for key, value in node.items()}
    if new.get("type") == "typed-dict":
        new["extra_behavior"] = "forbid"
    return new


def _is_model(choice: Any, models: set[str]) -> bool:
    """Whether a schema is a response model, however wrapped."""
    if isinstance(choice, tuple):
        choice = choice[0]
    if choice.get("type") == "definition-ref":
        return choice["schema_ref"] in models
    if choice.get("type") in {"function-wrap", "function-before", "function-after", "default"}:
        return _is_model(choice["schema"], models)
    if choice.get("type") == "union":
        return all(_is_model(other, models) for other in choice["choices"])
    return choice.get("type") == "model"
