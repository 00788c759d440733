"""A continued answer is one message: one id, one model's name, one finish reason, one shape; and anybody may be sent it afterwards."""

from collections.abc import Sequence
from itertools import product
from typing import Any

import pytest
from langchain_core.callbacks import BaseCallbackHandler, get_usage_metadata_callback
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, SystemMessage, ToolMessage
from langchain_core.outputs import ChatGenerationChunk
from langchain_core.tools import tool
from langchain_core.tracers.context import collect_runs

from langchain_resilient.continuing import ChatContinuation, asked_to_continue, asks_for_json, can_continue
from langchain_resilient.engine.effects import Begun
from langchain_resilient.engine.seam import INSTRUCTION
from langchain_resilient.messages import fit
from langchain_resilient.testing import Fault, FaultServer
from tests.clients import WIRES, instance, scripted
from tests.continued import FIRST, SECOND, SHOWN, TEXT, pair

PAIRS = list(product(WIRES, WIRES))
MODEL_NAMES = ("model_name", "model")
FINISHED = ("finish_reason", "stop_reason", "done_reason")
ARGUMENTS = {"city": "Bath", "day": "Monday at noon"}


@tool
def get_weather(city: str, day: str) -> str:
    """Tell the weather of a city."""
    return f"It rains in {city}."


def joined(chunks: Sequence[AIMessageChunk]) -> AIMessageChunk:
    """What a caller makes of a stream."""
    first, *rest = chunks
    return first.__add__(rest) if rest else first


class Ends(BaseCallbackHandler):
    """What callbacks are told at the end."""

    def __init__(self) -> None:
        self.messages: list[Any] = []
        self.errors: list[BaseException] = []

    def on_llm_end(self, response: Any, **kwargs: Any) -> None:
        self.messages.append(response.generations[0][0].message)

    def on_llm_error(self, error: BaseException, **kwargs: Any) -> None:
        self.errors.append(error)


# ── Over HTTP ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.e2e
@pytest.mark.parametrize("version", [None, "v1"])
@pytest.mark.parametrize("bound", [False, True], ids=["plain", "tools"])
@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_both_parts_are_one_message(first: str, second: str, bound: bool, version: str | None):
    """For the caller and for callbacks alike, whatever LangChain makes of its content; in one run, without an error."""
    ends = Ends()
    with pair(first, second, output_version=version) as (model, *_), collect_runs() as runs:
        asked = model.bind_tools([get_weather]) if bound else model
        with get_usage_metadata_callback() as usage:
            chunks = list(asked.stream("Hi", config={"callbacks": [ends]}))
    message = joined(chunks)
    in_blocks = version == "v1" or (bound and first == "anthropic")
    assert message.text == TEXT
    assert len({chunk.id for chunk in chunks}) == 1
    assert {type(chunk.content) for chunk in chunks} == {list if in_blocks else str}
    assert [(block["type"], block["text"]) for block in message.content_blocks] == [("text", TEXT)]
    told = message.response_metadata
    assert {told[key] for key in MODEL_NAMES if key in told} <= {FIRST[first], SECOND[second]}
    assert len({told[key] for key in MODEL_NAMES if key in told}) == 1
    assert [told[key] in {"stop", "end_turn"} for key in FINISHED if key in told] == [True]
    assert told.get("model_provider") in {first, second, None}
    assert told.get("output_version") == version
    assert told["continued"] is True
    [end] = ends.messages
    assert (end.content, end.id, end.response_metadata) == (message.content, message.id, told)
    assert message.usage_metadata == end.usage_metadata
    [counted] = usage.usage_metadata.values()
    assert counted["total_tokens"] == 27  # the second part's: of a stream that breaks these clients tell no usage
    [run] = runs.traced_runs
    assert (run.error, run.child_runs, ends.errors) == (None, [], [])


@pytest.mark.e2e
@pytest.mark.parametrize("version", [None, "v1"])
@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_a_tool_call_after_the_break(first: str, second: str, version: str | None):
    """It is whole, stands behind the text in the content too, and each of the three providers takes the message afterwards."""
    with pair(first, second, output_version=version) as (model, one, two), FaultServer() as third:
        one.answer(TEXT)
        two.answer_with_tool("get_weather", ARGUMENTS)
        message = joined(list(model.bind_tools([get_weather]).stream("Hi")))
        [call] = message.tool_calls
        assert (message.text, call["name"], call["args"], bool(call["id"])) == (SHOWN, "get_weather", ARGUMENTS, True)
        assert message.invalid_tool_calls == []
        blocks = message.content_blocks
        assert [block["type"] for block in blocks] == ["text", "tool_call"]
        assert (blocks[1]["args"], blocks[1]["id"]) == (ARGUMENTS, call["id"])
        history = [HumanMessage("Hi"), message, ToolMessage("Rain.", tool_call_id=call["id"])]
        for wire in WIRES:
            fitted = fit(history, wire, first).messages
            instance(third, wire).bind_tools([get_weather]).invoke(fitted)
        bodies = [str(record.body["messages"]) for record in third.requests]
    assert [body.count(SHOWN) for body in bodies] == [1, 1, 1]
    assert [body.count("Monday at noon") for body in bodies] == [1, 1, 1]


def test_tokens_of_both_parts_are_told():
    """Where a part has told its usage before it broke, the message has the sum."""
    usage = {"input_tokens": 10, "output_tokens": 4, "total_tokens": 14}
    shown = [chunk("The rain"), chunk(" had", usage_metadata=usage), chunk(" stopped")]
    rest = ChatContinuation(shown).joined(chunk(" by noon.", usage_metadata=usage), " by noon.")
    message = joined([part.message for part in [*shown, rest]])
    assert message.usage_metadata == {"input_tokens": 20, "output_tokens": 8, "total_tokens": 28}


# ── Shapes ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def chunk(content: Any, **fields: Any) -> ChatGenerationChunk:
    """A chunk of a stream."""
    return ChatGenerationChunk(message=AIMessageChunk(content=content, **fields))


def called(index: int | None, name: str | None = "f", args: str = "{}", **fields: Any) -> ChatGenerationChunk:
    """A chunk of a tool call."""
    call = {"name": name, "args": args, "id": name and f"id-{name}", "index": index, "type": "tool_call_chunk"}
    return chunk("", tool_call_chunks=[call], **fields)


ANTHROPICS = {"model_provider": "anthropic"}
THOUGHT = [
    chunk([{"type": "thinking", "thinking": "Hm.", "index": 0}], response_metadata=ANTHROPICS),
    chunk([{"type": "text", "text": "It was", "index": 1}], response_metadata=ANTHROPICS),
]
"""What Claude shows when it breaks in its text: thinking whose signature has come or not."""


def message_of(shown: Sequence[ChatGenerationChunk], *rest: ChatGenerationChunk) -> AIMessageChunk:
    """The message that a caller makes of what was shown and the parts of another stream."""
    continuation = ChatContinuation(shown)
    parts = [part for item in rest if (part := continuation.joined(item, item.text)) is not None]
    last = AIMessageChunk(content=[] if isinstance(shown[0].message.content, list) else "", chunk_position="last")
    return joined([*(item.message for item in [*shown, *parts]), last])


def test_text_goes_into_the_block_that_was_begun():
    """Behind thinking the text is one block, and what the second model thought of it all is not shown."""
    message = message_of(THOUGHT, chunk("", additional_kwargs={"reasoning_content": "A break?"}), chunk(" late."))
    assert [block["type"] for block in message.content_blocks] == ["reasoning", "text"]
    assert message.text == "It was late."


def test_thinking_alone_is_followed_by_a_block_of_text():
    """Where no word had been shown yet."""
    message = message_of(THOUGHT[:1], chunk("It was"), chunk(" late."))
    assert [block["type"] for block in message.content] == ["thinking", "text"]
    assert message.text == "It was late."


@pytest.mark.parametrize("target", ["anthropic", "openai", "ollama", "mistralai", "google_genai"])
@pytest.mark.parametrize("origin", ["anthropic", "openai"])
def test_broken_thinking_is_not_sent_to_anybody(origin: str, target: str):
    """Its signature never came, and Anthropic's API refuses it without; whoever answers next is given text and calls alone."""
    answer = message_of(THOUGHT, chunk(" late."), called(0))
    history = [HumanMessage("Hi"), answer, ToolMessage("ok", tool_call_id="id-f"), HumanMessage("Go on")]
    messages, changes = fit(history, target, origin)
    sent = next(message for message in messages if isinstance(message, AIMessage))
    assert (sent.content, sent.tool_calls[0]["name"]) == ("It was late.", "f")
    assert "1 reasoning block left out" in changes


def test_a_call_behind_the_blocks_of_openais_responses():
    """It is read out of the content, as that client's own are; the ids of what was never finished there are sent to nobody."""
    told = {"model_provider": "openai"}
    shown = [chunk([{"type": "text", "text": "So:", "index": 0, "id": "msg_1"}], response_metadata=told, id="resp_1")]
    message = message_of(shown, called(0, "f", '{"a":'), called(0, None, " 1}"))
    assert [block["type"] for block in message.content_blocks] == ["text", "tool_call"]
    assert message.content_blocks[1]["args"] == {"a": 1}
    [sent] = fit([message], "openai", "openai").messages
    assert (sent.content, sent.id, sent.tool_calls) == ("So:", None, message.tool_calls)


@pytest.mark.parametrize("index", [0, None])
@pytest.mark.parametrize("shown", [[chunk("So:")], THOUGHT, [chunk([{"type": "text", "text": "So:", "index": 0}])]])
def test_several_calls_stay_apart(shown: list[ChatGenerationChunk], index: int | None):
    """With places of their own or without, in pieces or in one."""
    first = called(index, "f", '{"a":') if index == 0 else called(None, "f", '{"a": 1}')
    pieces = [first, called(0, None, " 1}")] if index == 0 else [first]
    message = message_of(shown, *pieces, called(None if index is None else 1, "g"))
    assert [(call["name"], call["args"]) for call in message.tool_calls] == [("f", {"a": 1}), ("g", {})]


def test_a_third_part_keeps_to_the_first():
    """What the second one told of itself is not told again; the mark stands once."""
    shown = [chunk("One", response_metadata={"model_provider": "openai", "model_name": "a"}, id="x")]
    second = ChatContinuation(shown).joined(chunk(" two", response_metadata={"model": "b", "created": 1}), " two")
    told = {"model_name": "c", "model_provider": "anthropic", "output_version": "v1", "finish_reason": "stop"}
    third = ChatContinuation([*shown, second]).joined(chunk(" three", response_metadata=told), " three")
    message = joined([part.message for part in [*shown, second, third]])
    assert (message.text, message.id) == ("One two three", "x")
    assert message.response_metadata == {
        "model_provider": "openai", "model_name": "a", "created": 1, "continued": True, "finish_reason": "stop",
    }  # fmt: skip


@pytest.mark.parametrize(
    "content",
    [
        [{"type": "tool_use", "id": "x", "name": "f", "input": {}, "index": 0}],
        [{"type": "refusal", "refusal": "No.", "index": 0}],
        [{"type": "image", "url": "x"}],
    ],
)
def test_what_is_no_text_can_not_be_continued(content: Any):
    """A call, a refusal, an image; but text and thinking can."""
    assert not can_continue([*THOUGHT, chunk(content)])
    assert not can_continue([chunk("", additional_kwargs={"refusal": "No"})])
    assert not can_continue([called(0)])
    assert can_continue(THOUGHT)


# ── Asking ───────────────────────────────────────────────────────────────────────────────────────────────────────────

SHOWN_IMAGE = HumanMessage([{"type": "text", "text": "Look"}, {"type": "image_url", "image_url": {"url": "data:,"}}])


@pytest.mark.parametrize(
    ("asked", "before", "begun"),
    [
        ([HumanMessage("Hi")], [HumanMessage("Hi")], "One two"),
        ([SystemMessage("Be")], [SystemMessage("Be")], "One two"),
        ([SHOWN_IMAGE], [SHOWN_IMAGE], "One two"),
        ([HumanMessage("Hi"), AIMessage("Zero. ")], [HumanMessage("Hi")], "Zero. One two"),
        ([HumanMessage("Hi"), AIMessage([{"type": "text", "text": "Zero. "}])], [HumanMessage("Hi")], "Zero. One two"),
        ([], [], "One two"),
    ],
    ids=["question", "system", "image", "begun by the caller", "begun in blocks", "nothing"],
)
def test_what_is_asked(asked: list[Any], before: list[Any], begun: str):
    """The conversation, then the begun answer; then, where it is said in words, what to begin with."""
    assert asked_to_continue(asked, Begun("One two", None)) == [*before, AIMessage(begun)]
    told = asked_to_continue(asked, Begun("One two", "two"))
    assert told == [*before, AIMessage(begun), HumanMessage(INSTRUCTION % "two")]


def test_a_callers_tool_call_is_not_taken_for_a_beginning():
    """It stays a message of its own."""
    calls = AIMessage("Look", tool_calls=[{"name": "f", "args": {}, "id": "1"}])
    assert asked_to_continue([calls], Begun("One", None)) == [calls, AIMessage("One")]


@pytest.mark.parametrize(
    ("arguments", "is_json"),
    [
        ({"response_format": {"type": "json_object"}}, True),
        ({"response_format": {"type": "text"}}, False),
        ({"response_format": Fault}, True),
        ({"format": "json"}, True),
        ({"format": {"type": "object"}}, True),
        ({"output_config": {"format": {"type": "json_schema"}}}, True),
        ({"output_config": {"effort": "high"}}, False),
        ({"output_format": {"type": "json_schema"}}, True),
        ({"text": {"format": {"type": "json_schema"}}}, True),
        ({"text": {"format": {"type": "text"}, "verbosity": "low"}}, False),
        ({"response_mime_type": "application/json"}, True),
        ({"response_mime_type": "text/plain"}, False),
        ({"response_schema": {"properties": {}}}, True),
        ({"format": None, "temperature": 0.5}, False),
    ],
)
def test_who_asks_for_json(arguments: dict[str, Any], is_json: bool):
    """By every provider's own argument for it, in a call or among a model's settings; asking for text is not."""
    model = scripted()
    assert asks_for_json(arguments, model) is is_json
    model.__dict__.update(arguments)
    assert asks_for_json({}, model) is is_json
