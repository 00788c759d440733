"""OpenAI's Chat Completions: POST …/chat/completions; streams are SSE `data:` lines that end with `[DONE]`.

Error texts are the provider's own, or those of services that share its wire (402 DeepSeek, 413 Groq, content_filter Azure).
"""

from __future__ import annotations

import time
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
_TOO_LARGE = (
    "Request too large for model `{model}` in organization `org-test` on tokens per minute (TPM): Limit 6000, "
    "Requested 7200, please reduce your message size and try again."
)
_CONTEXT = (
    "This model's maximum context length is 128000 tokens. However, your messages resulted in 130012 tokens. "
    "Please reduce the length of the messages."
)
_QUOTA = (
    "You exceeded your current quota, please check your plan and billing details. For more information on this error, "
    "read the docs: https://platform.openai.com/docs/guides/error-codes/api-errors."
)
_FILTERED = (
    "The response was filtered due to the prompt triggering Azure OpenAI's content management policy. "
    "Please modify your prompt and retry."
)
_RATE = "Rate limit reached for {model} in organization org-test on requests per min (RPM): Limit 500, Used 500, Requested 1."
_SERVER = "The server had an error while processing your request. Sorry about that!"
_BUSY = "Our servers are currently overloaded. Please try again later."

PROBLEMS: Problems = {
    400: Problem(400, "Invalid value for 'messages'.", _INVALID, "invalid_value", "messages"),
    401: Problem(401, "Incorrect API key provided: test.", _INVALID, "invalid_api_key"),
    402: Problem(402, "Insufficient Balance", "unknown_error", "invalid_request_error"),
    403: Problem(
        403,
        "Country, region, or territory not supported",
        "request_forbidden",
        "unsupported_country_region_territory",
    ),
    404: Problem(
        404, "The model `{model}` does not exist or you do not have access to it.", _INVALID, "model_not_found"
    ),
    408: Problem(408, "Request timeout.", "server_error", "request_timeout"),
    409: Problem(409, "The resource was updated by another request.", _INVALID, "conflict"),
    413: Problem(413, _TOO_LARGE, "tokens", "rate_limit_exceeded"),
    422: Problem(422, "The request was well-formed but could not be processed.", _INVALID),
    429: Problem(429, _RATE, "requests", "rate_limit_exceeded"),
    500: Problem(500, _SERVER, "server_error"),
    502: Problem(502, "Bad gateway.", "server_error"),
    503: Problem(503, "The engine is currently overloaded, please try again later.", "server_error"),
    504: Problem(504, "Gateway timeout.", "server_error"),
    529: Problem(529, "Overloaded", "server_error"),
    "quota_exhausted": Problem(429, _QUOTA, "insufficient_quota", "insufficient_quota"),
    "overloaded": Problem(503, _BUSY, "service_unavailable_error", "server_is_overloaded"),
    "server_error": Problem(500, _SERVER, "server_error"),
    "context_overflow": Problem(400, _CONTEXT, _INVALID, "context_length_exceeded", "messages"),
    "content_filter": Problem(400, _FILTERED, None, "content_filter", "prompt", {"status": 400}),
}


def offered_tools(body: JsonObject) -> tuple[Tool, ...]:
    """List the tools of a request in OpenAI's form, which Ollama shares."""
    functions = [t.get("function") or {} for t in body.get("tools") or [] if isinstance(t, dict)]
    return tuple(Tool(str(f.get("name")), f.get("parameters") or {}) for f in functions)


def _schema(body: JsonObject) -> JsonObject | None:
    wanted = body.get("response_format") or {}
    if wanted.get("type") == "json_object":
        return {}
    if wanted.get("type") == "json_schema":
        schema: JsonObject = wanted.get("json_schema", {}).get("schema") or {}
        return schema
    return None


def _forced(choice: Any, tools: tuple[Tool, ...]) -> tuple[Tool, ...]:
    if choice == "required":
        return tools
    if isinstance(choice, dict):
        name = (choice.get("function") or {}).get("name")
        return tuple(tool for tool in tools if tool.name == name)
    return ()


class OpenAIWire:
    """Chat Completions."""

    name: WireName = "openai"
    path = "/chat/completions"
    base_path = "/v1"
    stream_type = "text/event-stream; charset=utf-8"
    ping = b": keep-alive\n\n"
    empty = (
        b'data: {"id":"chatcmpl-0","object":"chat.completion.chunk","created":0,"model":"",'
        b'"choices":[{"index":0,"delta":{"content":""},"finish_reason":null}]}\n\n'
    )
    garbage = b'data: {"id":"chatcmpl-\n\n'

    def headers(self) -> dict[str, str]:
        """Name the request, as OpenAI does."""
        return {"x-request-id": new_id("req_"), "openai-processing-ms": "1"}

    def parse(self, body: JsonObject) -> Ask:
        """Read a request."""
        messages = messages_of(body)
        last: JsonObject = messages[-1] if messages else {}
        tools = () if body.get("tool_choice") == "none" else offered_tools(body)
        return Ask(
            model=str(body.get("model", "")),
            stream=bool(body.get("stream")),
            user_text=next((text_of(m.get("content")) for m in reversed(messages) if m.get("role") == "user"), ""),
            prompt_tokens=estimate_tokens(messages),
            tool_result=text_of(last.get("content")) if last.get("role") == "tool" else None,
            tools=tools,
            forced=_forced(body.get("tool_choice"), tools),
            output_schema=_schema(body),
            include_usage=bool((body.get("stream_options") or {}).get("include_usage")),
            prefill=prefill_of(messages),
            last_user=last_user_of(messages),
        )

    def answer(self, ask: Ask, reply: Reply) -> JsonObject:
        """Write a chat.completion."""
        message: JsonObject = {"role": "assistant", "content": reply.text, "refusal": None, "annotations": []}
        if reply.tool:
            message |= {"content": None, "tool_calls": [_tool_call(reply.tool, to_json(reply.tool.args).decode())]}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": _finish(reply)}
        return _envelope("chat.completion", ask) | {"choices": [choice], "usage": _usage(reply)}

    def frames(self, ask: Ask, reply: Reply) -> Frames:
        """Write chat.completion.chunk events: the role, the content, the finish reason, the usage, `[DONE]`."""
        base = _envelope("chat.completion.chunk", ask)
        usage: JsonObject = {"usage": None} if ask.include_usage else {}

        def chunk(delta: JsonObject, finish: str | None = None) -> bytes:
            choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
            return _sse(base | {"choices": [choice]} | usage)

        opening: JsonObject = {"role": "assistant", "content": None if reply.tool else "", "refusal": None}
        if reply.tool:
            deltas: list[JsonObject] = [{"tool_calls": [{"index": 0} | _tool_call(reply.tool, "")]}]
            arguments = pieces(to_json(reply.tool.args).decode())
            deltas += [{"tool_calls": [{"index": 0, "function": {"arguments": a}}]} for a in arguments]
        else:
            deltas = [{"content": word} for word in reply.parts()]
        finish = [chunk({}, _finish(reply))]
        if ask.include_usage:
            finish.append(_sse(base | {"choices": [], "usage": _usage(reply)}))
        return Frames((chunk(opening),), tuple(map(chunk, deltas)), tuple(finish), (b"data: [DONE]\n\n",))

    def problem(self, which: int | ProblemName, ask: Ask) -> Problem:
        """Look an error up."""
        return lookup(PROBLEMS, which, ask)

    def error_body(self, problem: Problem) -> JsonObject:
        """Write {"error": {message, type, param, code}}, or only what is in it."""
        own = {"message": problem.message, "type": problem.type, "param": problem.param, "code": problem.code}
        error = own | dict(problem.members)
        return error if problem.flat else {"error": error}

    def error_frame(self, problem: Problem) -> bytes:
        """Write the error as one more event."""
        return _sse(self.error_body(problem))


def _sse(event: JsonObject) -> bytes:
    return b"data: " + to_json(event) + b"\n\n"


def _envelope(kind: str, ask: Ask) -> JsonObject:
    return {
        "id": new_id("chatcmpl-"),
        "object": kind,
        "created": int(time.time()),
        "model": ask.model,
        "service_tier": "default",
        "system_fingerprint": "fp_faultserver",
    }


def _tool_call(tool: ToolUse, arguments: str) -> JsonObject:
    return {"id": new_id("call_"), "type": "function", "function": {"name": tool.name, "arguments": arguments}}


def _finish(reply: Reply) -> str:
    if reply.finish == "content_filter":
        return "content_filter"
    return "tool_calls" if reply.tool else "stop"


def _usage(reply: Reply) -> JsonObject:
    return {
        "prompt_tokens": reply.input_tokens,
        "completion_tokens": reply.output_tokens,
        "total_tokens": reply.input_tokens + reply.output_tokens,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
    }
