"""What a healthy answer says: a pure decision over the request and the server's settings."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass

from langchain_resilient.testing.wires.base import Ask, FinishReason, Reply, Tool, ToolUse, pieces
from langchain_resilient.testing.wires.records import RecordedRequest
from langchain_resilient.testing.wires.resume import Prefill, Refuse, Resume, quoted_in, resumed
from langchain_resilient.testing.wires.schema import Hints, minimal

DEFAULT_TEXT = "Hello from the fault server."


@dataclass(frozen=True, slots=True)
class Answer:
    """How healthy answers look: `FaultServer.answer` documents each field."""

    text: str | Callable[[RecordedRequest], str] | None = None
    tool: ToolUse | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    delay: float | Callable[[RecordedRequest], float] = 0.0
    chunk_delay: float = 0.0
    chunk_sizes: tuple[int, ...] = ()
    prefill: Prefill = "restart"
    instructed: Resume | None = None
    quoted: tuple[str, str] | None = None

    def delay_of(self, record: RecordedRequest) -> float:
        """Say how many seconds late the answer to this request begins."""
        return self.delay(record) if callable(self.delay) else self.delay


def compose(
    ask: Ask, answer: Answer, record: RecordedRequest, text: str | None = None, finish: FinishReason = "stop"
) -> Reply:
    """Answer one request; `text`, set by a fault for this request alone, wins over everything."""
    chosen = text if text is not None else _content(ask, answer, record)
    tool, said = (chosen, "") if isinstance(chosen, ToolUse) else (None, _rest(chosen, ask, answer, record))
    words = pieces(json.dumps(tool.args) if tool else said)
    return Reply(
        text=said,
        tool=tool,
        input_tokens=ask.prompt_tokens if answer.input_tokens is None else answer.input_tokens,
        output_tokens=len(words) if answer.output_tokens is None else answer.output_tokens,
        finish=finish,
        sizes=answer.chunk_sizes,
    )


def _rest(full: str, ask: Ask, answer: Answer, record: RecordedRequest) -> str:
    """Say what is left to say where the answer was begun already, and note that in the record."""
    if ask.prefill is not None and not isinstance(answer.prefill, Refuse) and answer.prefill != "refuse":
        return resumed(full, ask.prefill, answer.prefill)
    if ask.last_user is None or answer.instructed is None:
        return full
    begun = quoted_in(ask.last_user, full, answer.quoted)
    if begun is None:
        return full
    record.begun, record.begun_by = begun, "instruction"
    return resumed(full, begun, answer.instructed)


def _content(ask: Ask, answer: Answer, record: RecordedRequest) -> str | ToolUse:
    if ask.forced:
        return _forced(ask, answer)
    if answer.tool and ask.tool_result is None:
        return answer.tool
    script = answer.text(record) if callable(answer.text) else answer.text
    if ask.output_schema is not None:
        return script if script is not None and _is_json(script) else _object(ask)
    if script is not None:
        return script
    if ask.tool_result is not None:
        return f"The tool answered: {ask.tool_result}"
    named = _named(ask.tools, ask.user_text)
    return _call(named, ask) if named else DEFAULT_TEXT


def _forced(ask: Ask, answer: Answer) -> ToolUse:
    if answer.tool and any(tool.name == answer.tool.name for tool in ask.forced):
        return answer.tool
    # After a tool's result the last tool: agents offer the schema of their final answer last, and would loop on the first.
    fallback = ask.forced[0] if ask.tool_result is None else ask.forced[-1]
    named = _named(ask.forced, ask.user_text) if ask.tool_result is None else None
    return _call(named or fallback, ask)


def _call(tool: Tool, ask: Ask) -> ToolUse:
    return ToolUse(tool.name, minimal({"type": "object"} | tool.schema, Hints(ask.user_text)))


def _named(tools: tuple[Tool, ...], text: str) -> Tool | None:
    """Find the tool that the user speaks of: by its name, else by a word of its name ("weather" for get_weather)."""
    spoken = set(re.findall(r"\w+", text.lower()))
    by_name = (tool for tool in tools if tool.name.lower() in spoken)
    by_word = (tool for tool in tools if spoken & _telling_words(tool.name))
    return next(by_name, None) or next(by_word, None)


def _telling_words(name: str) -> set[str]:
    return {word for word in re.findall(r"[a-z]+", name.lower()) if len(word) > 3}  # not get, set, run


def _object(ask: Ask) -> str:
    """Fit the schema; without one, use the keys that the user's message quotes, as JSON mode asks for."""
    if ask.output_schema:
        return json.dumps(minimal(ask.output_schema), ensure_ascii=False)
    keys = list(Hints(ask.user_text).words) or ["answer"]
    return json.dumps(dict.fromkeys(keys, "x"), ensure_ascii=False)


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True
