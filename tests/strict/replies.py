"""Responses of each wire, as whole bodies: text, two parallel calls, and what only that provider says."""

from __future__ import annotations

from typing import Any

from tests.strict.anthropic_messages import redacted, signature

CALLS = (("weather", {"city": "Oslo"}), ("clock", {"city": "Rome"}))


def openai(turn: int, text: str | None = None) -> dict[str, Any]:
    """A completion."""
    calls = [
        {
            "id": f"call_{turn}{name}",
            "type": "function",
            "function": {"name": name, "arguments": f'{{"city": "{args["city"]}"}}'},
        }
        for name, args in CALLS
    ]
    message = {"role": "assistant", "content": text, "tool_calls": calls, "refusal": None, "annotations": []}
    choice = {"index": 0, "message": message, "finish_reason": "tool_calls", "logprobs": None}
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
    return {
        "id": f"chatcmpl-{turn}",
        "object": "chat.completion",
        "created": 1,
        "model": "one",
        "choices": [choice],
        "usage": usage,
    }


def anthropic(turn: int, text: str = "Let me look.") -> dict[str, Any]:
    """A message with thoughts, a server's search with citations, and calls."""
    thought = f"thought {turn}"
    page = {
        "type": "web_search_result",
        "url": "https://x.test",
        "title": "X",
        "encrypted_content": "e",
        "page_age": None,
    }
    cited = {
        "type": "web_search_result_location", "url": "https://x.test", "title": "X", "encrypted_index": "i", "cited_text": "c",
    }  # fmt: skip
    content = [
        {"type": "thinking", "thinking": thought, "signature": signature(thought)},
        {"type": "redacted_thinking", "data": redacted(f"secret{turn}")},
        {"type": "server_tool_use", "id": f"srvtoolu_{turn}", "name": "web_search", "input": {"query": "q"}},
        {"type": "web_search_tool_result", "tool_use_id": f"srvtoolu_{turn}", "content": [page]},
        {"type": "text", "text": text, "citations": [cited]},
        *({"type": "tool_use", "id": f"toolu_{turn}{name}", "name": name, "input": args} for name, args in CALLS),
    ]
    usage = {"input_tokens": 1, "output_tokens": 1}
    return {
        "id": f"msg_{turn}", "type": "message", "role": "assistant", "model": "one", "content": content, "stop_reason": "tool_use",
        "stop_sequence": None, "usage": usage,
    }  # fmt: skip


def ollama(turn: int, text: str = " \n") -> dict[str, Any]:
    """A chunk that is all of an answer: thoughts, blank text, calls without ids."""
    calls = [{"function": {"name": name, "arguments": args}} for name, args in CALLS]
    return {
        "model": "one", "created_at": "2026-01-01T00:00:00Z", "done": True, "done_reason": "stop",
        "message": {"role": "assistant", "content": text, "thinking": f"thought {turn}", "tool_calls": calls},
    }  # fmt: skip


REPLIES = {"openai": openai, "anthropic": anthropic, "ollama": ollama}
