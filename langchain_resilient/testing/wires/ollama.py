"""Ollama's chat: POST …/api/chat; streams are JSON lines, the last with `done: true`. A request streams unless it says not to."""

from __future__ import annotations

from datetime import UTC, datetime

from langchain_resilient.testing.wires.base import (
    Ask,
    Frames,
    JsonObject,
    Problem,
    ProblemName,
    Problems,
    Reply,
    ToolUse,
    WireName,
    estimate_tokens,
    last_user_of,
    lookup,
    messages_of,
    prefill_of,
    text_of,
    to_json,
)
from langchain_resilient.testing.wires.openai import offered_tools

_BUSY = "server busy, please try again.  maximum pending requests exceeded"
_CRASHED = "llama runner process has terminated: signal: killed"

PROBLEMS: Problems = {
    400: Problem(400, "invalid options: num_ctx"),
    401: Problem(401, "unauthorized"),
    402: Problem(402, "this model requires a subscription, upgrade for access: https://ollama.com/upgrade"),
    403: Problem(403, "forbidden"),
    404: Problem(404, "model '{model}' not found"),
    408: Problem(408, "request timed out"),
    409: Problem(409, "conflict"),
    413: Problem(413, "request body too large"),
    422: Problem(422, "unprocessable entity"),
    429: Problem(429, "too many concurrent requests"),
    500: Problem(500, _CRASHED),
    502: Problem(502, "bad gateway"),
    503: Problem(503, _BUSY),
    504: Problem(504, "gateway timeout"),
    529: Problem(529, "overloaded"),
    "quota_exhausted": Problem(429, "you have reached your weekly usage limit, please upgrade to continue"),
    "overloaded": Problem(503, _BUSY),
    "server_error": Problem(500, _CRASHED),
    "context_overflow": Problem(400, "the input length exceeds the context length"),
    "content_filter": Problem(400, "the request was blocked by the content policy"),
}


class OllamaWire:
    """Chat."""

    name: WireName = "ollama"
    path = "/api/chat"
    base_path = ""
    stream_type = "application/x-ndjson"
    ping = b'{"model":"","created_at":"","message":{"role":"assistant","content":""},"done":false}\n'
    empty = ping
    garbage = b'{"model":"llama3","created_at":"20\n'

    def headers(self) -> dict[str, str]:
        """Add nothing: Ollama doesn't."""
        return {}

    def parse(self, body: JsonObject) -> Ask:
        """Read a request."""
        messages = messages_of(body)
        last: JsonObject = messages[-1] if messages else {}
        wanted = body.get("format") or None
        return Ask(
            model=str(body.get("model", "")),
            stream=bool(body.get("stream", True)),
            user_text=next((text_of(m.get("content")) for m in reversed(messages) if m.get("role") == "user"), ""),
            prompt_tokens=estimate_tokens(messages),
            tool_result=text_of(last.get("content")) if last.get("role") == "tool" else None,
            tools=offered_tools(body),
            output_schema={} if wanted == "json" else wanted,
            prefill=prefill_of(messages),
            last_user=last_user_of(messages),
        )

    def answer(self, ask: Ask, reply: Reply) -> JsonObject:
        """Write the one object."""
        message = _tool_message(reply.tool) if reply.tool else {"role": "assistant", "content": reply.text}
        return _line(ask, message) | _end(reply)

    def frames(self, ask: Ask, reply: Reply) -> Frames:
        """Write the lines. The finish reason and the end mark are one line here, so both are `done`."""
        if reply.tool:
            messages = [_tool_message(reply.tool)]
        else:
            messages = [{"role": "assistant", "content": word} for word in reply.parts()]
        content = tuple(_json_line(_line(ask, message)) for message in messages)
        last = _json_line(_line(ask, {"role": "assistant", "content": ""}) | _end(reply))
        return Frames((), content, (), (last,))

    def problem(self, which: int | ProblemName, ask: Ask) -> Problem:
        """Look an error up."""
        return lookup(PROBLEMS, which, ask)

    def error_body(self, problem: Problem) -> JsonObject:
        """Write {"error": "text"}; a type or code, which Ollama lacks, only if asked for."""
        extra = {"type": problem.type, "code": problem.code}
        return {"error": problem.message} | {k: v for k, v in extra.items() if v is not None}

    def error_frame(self, problem: Problem) -> bytes:
        """Write the error as one more line."""
        return _json_line(self.error_body(problem))


def _json_line(value: JsonObject) -> bytes:
    """Write a line as Go's json.Marshal does: its client takes U+2028 and U+2029 for ends of a line where they are not escaped."""
    written = to_json(value).decode()
    for mark in "<>&\u2028\u2029":
        written = written.replace(mark, f"\\u{ord(mark):04x}")
    return written.encode() + b"\n"


def _line(ask: Ask, message: JsonObject) -> JsonObject:
    created = datetime.now(UTC).isoformat().replace("+00:00", "Z")
    return {"model": ask.model, "created_at": created, "message": message, "done": False}


def _tool_message(tool: ToolUse) -> JsonObject:
    call = {"function": {"name": tool.name, "arguments": tool.args}}
    return {"role": "assistant", "content": "", "tool_calls": [call]}


def _end(reply: Reply) -> JsonObject:
    return {
        "done": True,
        "done_reason": "stop",  # Ollama has no other word for a filtered answer
        "total_duration": 1_000_000,
        "load_duration": 100_000,
        "prompt_eval_count": reply.input_tokens,
        "prompt_eval_duration": 200_000,
        "eval_count": reply.output_tokens,
        "eval_duration": 700_000,
    }
