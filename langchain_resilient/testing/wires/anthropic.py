"""Anthropic's Messages: POST …/messages; streams are named SSE events from `message_start` to `message_stop`."""

from __future__ import annotations

from typing import Any

from langchain_resilient.testing.wires.base import (
    Ask,
    Frames,
    JsonObject,
    Problem,
    ProblemName,
    Problems,
    Reply,
    Tool,
    ToolUse,
    WireName,
    estimate_tokens,
    last_user_of,
    lookup,
    messages_of,
    new_id,
    pieces,
    prefill_of,
    text_of,
    to_json,
)

_INVALID = "invalid_request_error"
_RATE = (
    "This request would exceed the rate limit for your organization (test) of 50 requests per minute. "
    "Please reduce the prompt length or the maximum tokens requested, or try again later."
)
_SPEND = "This request would exceed your organization's enforced monthly spend limit."

PROBLEMS: Problems = {
    400: Problem(400, "max_tokens: Field required", _INVALID),
    401: Problem(401, "invalid x-api-key", "authentication_error"),
    402: Problem(402, "There is an issue with your billing or payment information.", "billing_error"),
    403: Problem(403, "Your API key does not have permission to use the specified resource.", "permission_error"),
    404: Problem(404, "model: {model}", "not_found_error"),
    408: Problem(408, "Request timed out", "timeout_error"),
    409: Problem(409, "The request conflicts with the current state of the resource.", "conflict_error"),
    413: Problem(413, "Request exceeds the maximum size", "request_too_large"),
    422: Problem(422, "The request was well-formed but could not be processed.", _INVALID),
    429: Problem(429, _RATE, "rate_limit_error"),
    500: Problem(500, "Internal server error", "api_error"),
    502: Problem(502, "Bad gateway", "api_error"),
    503: Problem(503, "Service temporarily unavailable", "api_error"),
    504: Problem(504, "Request timed out while processing", "timeout_error"),
    529: Problem(529, "Overloaded", "overloaded_error"),
    "quota_exhausted": Problem(
        429, _SPEND, "rate_limit_error", members={"details": {"error_code": "enforced_spend_limit_reached"}}
    ),
    "overloaded": Problem(529, "Overloaded", "overloaded_error"),
    "server_error": Problem(500, "Internal server error", "api_error"),
    "context_overflow": Problem(400, "prompt is too long: 208310 tokens > 200000 maximum", _INVALID),
    "content_filter": Problem(400, "Output blocked by content filtering policy", _INVALID),
}

# tailcallhq/forgecode #1872, langchain-ai/langchain #35071. ChatAnthropic cuts the white space off itself since then.
_TRAILING = Problem(400, "messages: final assistant content cannot end with trailing whitespace", _INVALID)
_WHITE = tuple(" \t\r\n")


def _forced(choice: Any, tools: tuple[Tool, ...]) -> tuple[Tool, ...]:
    kind = choice.get("type") if isinstance(choice, dict) else None
    if kind == "any":
        return tools
    return tuple(tool for tool in tools if tool.name == choice["name"]) if kind == "tool" else ()


def _schema(body: JsonObject) -> JsonObject | None:
    wanted = body.get("output_format") or (body.get("output_config") or {}).get("format") or {}
    schema: JsonObject | None = wanted.get("schema")
    return schema


def _tool_result(message: JsonObject) -> str | None:
    content = message.get("content")
    blocks = content if message.get("role") == "user" and isinstance(content, list) else []
    results = [b for b in blocks if isinstance(b, dict) and b.get("type") == "tool_result"]
    return " ".join(text_of(result.get("content")) for result in results) if results else None


class AnthropicWire:
    """Messages."""

    name: WireName = "anthropic"
    path = "/messages"
    base_path = ""
    stream_type = "text/event-stream; charset=utf-8"
    ping = b'event: ping\ndata: {"type": "ping"}\n\n'
    empty = (
        b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,'
        b'"delta":{"type":"text_delta","text":""}}\n\n'
    )
    garbage = b'event: content_block_delta\ndata: {"type":"content_block_del\n\n'

    def headers(self) -> dict[str, str]:
        """Name the request, as Anthropic does."""
        return {"request-id": new_id("req_")}

    def parse(self, body: JsonObject) -> Ask:
        """Read a request."""
        messages = messages_of(body)
        choice = body.get("tool_choice")
        offered = [t for t in body.get("tools") or [] if isinstance(t, dict) and "name" in t]
        tools = tuple(Tool(t["name"], t.get("input_schema") or {}) for t in offered)
        if isinstance(choice, dict) and choice.get("type") == "none":
            tools = ()
        prefill = prefill_of(messages)
        texts = (text_of(m.get("content")) for m in reversed(messages) if m.get("role") == "user")
        return Ask(
            model=str(body.get("model", "")),
            stream=bool(body.get("stream")),
            user_text=next((text for text in texts if text), ""),
            prompt_tokens=estimate_tokens(messages),
            tool_result=_tool_result(messages[-1]) if messages else None,
            tools=tools,
            forced=_forced(choice, tools),
            output_schema=_schema(body),
            prefill=prefill,
            last_user=last_user_of(messages),
            invalid=_TRAILING if prefill and prefill.endswith(_WHITE) else None,
        )

    def answer(self, ask: Ask, reply: Reply) -> JsonObject:
        """Write a message."""
        block = _tool_block(reply.tool, reply.tool.args) if reply.tool else {"type": "text", "text": reply.text}
        return _message(ask, reply, reply.output_tokens) | {
            "content": [block],
            "stop_reason": _stop_reason(reply),
        }

    def frames(self, ask: Ask, reply: Reply) -> Frames:
        """Write the events of one content block."""
        start = _event("message_start", message=_message(ask, reply, 1))
        if reply.tool:
            block = _event("content_block_start", index=0, content_block=_tool_block(reply.tool, {}))
            arguments = pieces(to_json(reply.tool.args).decode())
            deltas: list[JsonObject] = [{"type": "input_json_delta", "partial_json": a} for a in arguments]
            opening, content = [start, self.ping], [block]  # a begun tool call is content: it cannot be taken back
        else:
            block = _event("content_block_start", index=0, content_block={"type": "text", "text": ""})
            deltas = [{"type": "text_delta", "text": word} for word in reply.parts()]
            opening, content = [start, block, self.ping], []
        content += [_event("content_block_delta", index=0, delta=delta) for delta in deltas]
        stop = {"stop_reason": _stop_reason(reply), "stop_sequence": None}
        finish = [
            _event("content_block_stop", index=0),
            _event("message_delta", delta=stop, usage=_usage(reply, reply.output_tokens)),
        ]
        return Frames(tuple(opening), tuple(content), tuple(finish), (_event("message_stop"),))

    def problem(self, which: int | ProblemName, ask: Ask) -> Problem:
        """Look an error up."""
        return lookup(PROBLEMS, which, ask)

    def error_body(self, problem: Problem) -> JsonObject:
        """Write {"type": "error", "error": {type, message}, "request_id"}; a code, which Anthropic lacks, only if asked for."""
        error: JsonObject = {"type": problem.type, "message": problem.message}
        if problem.code is not None:
            error["code"] = problem.code
        return {"type": "error", "error": error | dict(problem.members), "request_id": new_id("req_")}

    def error_frame(self, problem: Problem) -> bytes:
        """Write an `error` event."""
        return b"event: error\ndata: " + to_json(self.error_body(problem)) + b"\n\n"


def _event(kind: str, **members: Any) -> bytes:
    return b"event: " + kind.encode() + b"\ndata: " + to_json({"type": kind} | members) + b"\n\n"


def _message(ask: Ask, reply: Reply, output_tokens: int) -> JsonObject:
    return {
        "id": new_id("msg_"),
        "type": "message",
        "role": "assistant",
        "model": ask.model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": _usage(reply, output_tokens) | {"service_tier": "standard"},
    }


def _usage(reply: Reply, output_tokens: int) -> JsonObject:
    return {
        "input_tokens": reply.input_tokens,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
        "output_tokens": output_tokens,
    }


def _tool_block(tool: ToolUse, args: JsonObject) -> JsonObject:
    return {"type": "tool_use", "id": new_id("toolu_"), "name": tool.name, "input": args}


def _stop_reason(reply: Reply) -> str:
    if reply.finish == "content_filter":
        return "refusal"
    return "tool_use" if reply.tool else "end_turn"
