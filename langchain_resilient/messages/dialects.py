"""Who speaks how: the families of providers, and what each takes of a conversation that began elsewhere.

Rules of this file: facts as data, each with where it was read. "client" is the LangChain partner package, "API" the provider behind it.
A provider without a row is taken for one of the many that copy OpenAI's Chat Completions, by the least of what those share.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

DIALECTS = {
    "azure_openai": "openai", "azure": "openai", "openai-codex": "openai",
    "anthropic_bedrock": "anthropic", "google_anthropic_vertex": "anthropic",
    "amazon_bedrock": "bedrock", "bedrock_converse": "bedrock",
    "google_genai": "google", "google_vertexai": "google", "gemini": "google", "vertex_ai": "google",
    "mistralai": "mistral",
}  # fmt: skip
"""LangChain's words (`ls_provider`, `model_provider`, specs) for one and the same way of speaking; other words stand for themselves."""


def dialect(word: str) -> str:
    """The way of speaking behind one of LangChain's words for a provider."""
    return DIALECTS.get(word, word)


class Traits(NamedTuple):
    """What a provider takes."""

    ids: re.Pattern[str]
    """Form of a tool call's id."""
    media: frozenset[tuple[str, str]]
    """Kinds of content in a user's message, each with how it may come."""
    tool_media: frozenset[tuple[str, str]] = frozenset()
    """The same in a tool's result."""
    cache_key: str = ""
    """The key of a content block that asks for caching."""
    names: bool = False
    """Whether the name of a message is sent, and must be one word."""
    one_system: bool = False
    """Whether system messages must all stand first."""
    user_first: bool = False
    """Whether a user must speak first."""
    follows_tool: bool = True
    """Whether a user may speak right after a tool."""
    long_ids: bool = True
    """Whether an id may be as long as ours are by default."""


IMAGES = frozenset({("image", "base64"), ("image", "url")})
ANY_ID = re.compile(r"(?s).+")
"""Providers that read an id only to pair a call with its result."""

TRAITS: dict[str, Traits] = {
    "openai": Traits(
        # "Invalid 'messages[2].tool_calls[0].id': string too long. Expected a string with maximum length 40" (langmanus#119, camel#2215, …;
        # Responses: 64). In 2026 a longer one was also seen accepted (vercel/ai#17233), so this is the careful reading.
        ids=re.compile(r"(?s).{1,40}"),
        # The client raises for files by URL and for video in Chat Completions; the API has images, files and audio in user messages only.
        media=IMAGES | {("file", "base64"), ("audio", "base64")},
        cache_key="prompt_cache_breakpoint",
        names=True,  # API: "Expected a string that matches the pattern '^[^\\s<|\\\\/>]+$'"
    ),
    "anthropic": Traits(
        # "tool_use.id: String should match pattern '^[a-zA-Z0-9_-]+$'" (opencode#1279, bifrost#5097): no length. The client mends characters
        # but neither empty ids nor twins, which are refused with "`tool_use` ids must be unique" (opencode#1150, litellm#23510).
        ids=re.compile(r"[a-zA-Z0-9_-]+"),
        media=IMAGES
        | {("file", "base64"), ("file", "url"), ("text-plain", "text")},  # its `_format_data_content_block`
        tool_media=IMAGES | {("file", "base64"), ("file", "url"), ("text-plain", "text")},
        cache_key="cache_control",
        one_system=True,  # the client: "Received multiple non-consecutive system messages."
        user_first=True,  # API: "messages: first message must use the \"user\" role" (lobehub#1601, langchain4j#1197)
    ),
    "ollama": Traits(
        ids=ANY_ID,
        media=frozenset({("image", "base64")}),  # its `_get_image_from_data_content_block`; by URL the SDK refuses it
        tool_media=frozenset({("image", "base64")}),
    ),
    "google": Traits(
        ids=ANY_ID,  # calls are paired by name
        media=IMAGES
        | {(kind, how) for kind in ("audio", "video", "file") for how in ("base64", "url")}
        | {("text-plain", "text")},
        one_system=True,  # the API has one `system_instruction`
    ),
    "bedrock": Traits(
        ids=re.compile(r"[a-zA-Z0-9_-]{1,64}"),  # API reference, ToolUseBlock.toolUseId
        media=frozenset({("image", "base64"), ("file", "base64")}),
        tool_media=frozenset({("image", "base64")}),
        one_system=True,
        user_first=True,  # API: "A conversation must start with a user message."
    ),
    "mistral": Traits(
        # "Tool call id was … but must be a-z, A-Z, 0-9, with a length of 9." (langchain#24668); the client mends it too, but not twins.
        ids=re.compile(r"[a-zA-Z0-9]{9}"),
        media=IMAGES,
        follows_tool=False,  # API: "Unexpected role 'user' after role 'tool'" (avante.nvim#2695, hermes-agent#20154)
        long_ids=False,
    ),
}
OTHERS = Traits(ids=re.compile(r"(?s).{1,40}"), media=IMAGES, names=True)

NATIVE: dict[str, frozenset[tuple[str, str]]] = {
    "openai": frozenset({
        ("image_url", "image_url"), ("file", "file"), ("input_audio", "input_audio"), ("input_image", "image_url"), ("input_image", "file_id"),
        ("input_file", "file_id"), ("input_file", "file_data"), ("input_file", "file_url"),
    }),
    "anthropic": frozenset({
        ("image", "source"), ("document", "source"), ("search_result", "content"), ("container_upload", "file_id"),
        ("tool_result", "tool_use_id"), ("tool_reference", "tool_name"),
    }),
    "google": frozenset({("media", "data"), ("media", "file_uri")}),
    "bedrock": frozenset({("", key) for key in ("text", "image", "document", "video", "cachePoint", "guardContent", "json", "searchResult")}),
}  # fmt: skip
"""Blocks in a provider's own form, by type ("" for none) and a key that they have: written for it, whatever else the conversation holds."""

SIGNS = {
    "thinking": "anthropic", "redacted_thinking": "anthropic", "tool_use": "anthropic", "server_tool_use": "anthropic",
    "mcp_tool_use": "anthropic", "executable_code": "google", "code_execution_result": "google", "reasoning_content": "bedrock",
    "function_call": "openai", "custom_tool_call": "openai", "output_text": "openai", "web_search_call": "openai",
    "file_search_call": "openai", "code_interpreter_call": "openai", "computer_call": "openai", "image_generation_call": "openai",
    "mcp_call": "openai", "mcp_list_tools": "openai", "mcp_approval_request": "openai", "refusal": "openai",
}  # fmt: skip
"""Content blocks that give away who wrote a message which does not say it."""


MARK = "continued"
"""The key of `response_metadata` that says of an answer that more than one stream wrote it."""


def is_native(block: Mapping[str, Any], home: str) -> bool:
    """Whether a block of the caller's is in the provider's own form."""
    kind = block.get("type", "")
    return any(kind == type_ and key in block for type_, key in NATIVE.get(home, ()))


def traits_of(home: str) -> Traits:
    """What a dialect takes."""
    return TRAITS.get(home, OTHERS)


def home_of(message: Any) -> str:
    """The dialect of the provider that wrote an answer; "" if nothing tells."""
    metadata: Mapping[str, Any] = message.response_metadata
    if MARK in metadata:
        # Nobody takes it as its own: thinking that broke off lacks its signature, ids of what was never finished are unknown.
        return "elsewhere"
    if told := metadata.get("model_provider"):
        return dialect(str(told))
    if isinstance(message.content, list):
        for block in message.content:
            if isinstance(block, dict) and (sign := SIGNS.get(str(block.get("type")))):
                return sign
    extras = message.additional_kwargs
    if any(extras.get(key) for key in ("function_call", "tool_outputs", "audio", "__openai_function_call_ids__")):
        return "openai"
    return "elsewhere" if extras.get("reasoning_content") else ""
