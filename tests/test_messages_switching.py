"""A conversation that changes its provider at every turn is accepted by each, and would not be without each rule."""

from __future__ import annotations

from itertools import cycle, islice
from typing import Any

import pytest
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage, SystemMessage, ToolMessage

from langchain_resilient.messages import fit
from langchain_resilient.testing import FaultServer
from tests.strict import replies, wire

RING = ("openai", "anthropic", "ollama")
CIRCLES = (RING, tuple(reversed(RING)), ("openai", "anthropic", "openai", "ollama"), ("ollama", "ollama", "anthropic"))


@pytest.fixture(scope="module")
def server():
    """A server of all three wires."""
    with FaultServer() as running:
        yield running


def results(answer: AIMessage) -> list[ToolMessage]:
    """A result for every call of an answer."""
    return [
        ToolMessage(f"it is {call['name']}", tool_call_id=call["id"], name=call["name"]) for call in answer.tool_calls
    ]


@pytest.mark.parametrize("circle", CIRCLES)
@pytest.mark.parametrize("origin", ["", "openai", "anthropic"])
def test_ten_turns_with_a_switch_at_each_are_accepted_by_every_provider(server, circle, origin):
    """Ten turns of two parallel calls each, another provider at every turn, in every direction: every request is accepted."""
    history: list[BaseMessage] = [SystemMessage("Be brief."), HumanMessage("What is it in Oslo and Rome?")]
    for turn, provider in enumerate(islice(cycle(circle), 10)):
        fitted = fit(history, provider, origin)
        assert wire.refusal(server, provider, fitted.messages, tools=_tools(provider)) == [], (turn, provider)
        answer = wire.answered(server, provider, replies.REPLIES[provider](turn))
        assert len(answer.tool_calls) == 2
        history += [answer, *results(answer)]
        if turn % 3 == 2:
            history += [wire.answered(server, provider, replies.REPLIES[provider](turn, "Done.") | _ended(provider))]
            history[-1].tool_calls = []  # the turn's end, without calls
            history[-1].content = _without_calls(history[-1].content)
            history += [HumanMessage("And now?")]


def _ended(provider: str) -> dict[str, Any]:
    return {"stop_reason": "end_turn"} if provider == "anthropic" else {}


def _without_calls(content: Any) -> Any:
    return content if isinstance(content, str) else [block for block in content if block["type"] != "tool_use"]


def _tools(provider: str) -> list[dict[str, Any]]:
    if provider != "anthropic":
        return wire.TOOLS
    functions = [tool["function"] for tool in wire.TOOLS]
    return [{"name": f["name"], "description": f["description"], "input_schema": f["parameters"]} for f in functions]


def answer(provider: str, content: Any = "", calls: tuple[str | None, ...] = (), **extra: Any) -> AIMessage:
    """An answer as a provider's client marks it, with calls of these ids."""
    made = [{"name": "weather", "args": {}, "id": id_, "type": "tool_call"} for id_ in calls]
    return AIMessage(content=content, tool_calls=made, response_metadata={"model_provider": provider}, **extra)


def asked(*messages: BaseMessage) -> list[BaseMessage]:
    """A conversation that a user opened."""
    return [HumanMessage("Hello."), *messages]


PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
MARK = {"type": "ephemeral"}
SEARCH = [
    {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {}},
    {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": []},
    {"type": "text", "text": "Found."},
]
THOUGHT = [{"type": "thinking", "thinking": "hm", "signature": "sig"}, {"type": "text", "text": "Yes."}]
SECRET = [{"type": "redacted_thinking", "data": "x"}, {"type": "text", "text": "Yes."}]
ITEMS = [
    {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "hm"}]},
    {"type": "web_search_call", "id": "ws_1", "status": "completed"},
    {"type": "text", "text": "Yes.", "annotations": [], "id": "msg_1"},
]
DOCUMENT = {
    "type": "document",
    "source": {"type": "text", "media_type": "text/plain", "data": "the deed"},
    "title": "T",
}
IMAGE = {"type": "image", "base64": PIXEL, "mime_type": "image/png"}
AGAIN = HumanMessage("And?")

RULES: dict[str, tuple[str, list[BaseMessage], str, set[str]]] = {
    "a tool call's id is short enough for OpenAI": (
        "openai",
        asked(answer("google_genai", "", ("x" * 60,)), ToolMessage("4", tool_call_id="x" * 60)),
        "string too long",
        {"tool call ids rewritten for openai"},
    ),
    "a tool call has an id": (
        "anthropic",
        asked(answer("openai", "", (None,)), ToolMessage("4", tool_call_id="")),
        "String should match pattern",
        {"tool call ids rewritten for anthropic"},
    ),
    "a tool call's id is given once": (
        "anthropic",
        asked(
            answer("groq", "", ("call_0",)),
            ToolMessage("4", tool_call_id="call_0"),
            answer("groq", "", ("call_0",)),
            ToolMessage("5", tool_call_id="call_0"),
        ),
        "ids must be unique",
        {"tool call ids rewritten for anthropic"},
    ),
    "blank text beside calls is no text": (
        "anthropic",
        asked(answer("ollama", "\n", ("a",)), ToolMessage("4", tool_call_id="a")),
        "non-whitespace",
        {"answer converted"},
    ),
    "Anthropic's thoughts stay behind (Ollama)": (
        "ollama",
        asked(answer("anthropic", THOUGHT), AGAIN),
        "ValueError",
        {"1 reasoning block left out"},
    ),
    "secret thoughts stay behind (OpenAI)": (
        "openai",
        asked(answer("anthropic", SECRET), AGAIN),
        "Input should be",
        {"1 reasoning block left out"},
    ),
    "thoughts signed by others stay behind": (
        "anthropic",
        asked(answer("bedrock", THOUGHT), AGAIN),
        "signature",
        {"1 reasoning block left out"},
    ),
    "server tools stay behind (OpenAI)": (
        "openai",
        asked(answer("anthropic", SEARCH), AGAIN),
        "Input should be",
        {"server tool web_search left out"},
    ),
    "server tools stay behind (Ollama)": (
        "ollama",
        asked(answer("anthropic", SEARCH), AGAIN),
        "ValueError",
        {"server tool web_search left out"},
    ),
    "items of Responses stay behind (Anthropic)": (
        "anthropic",
        asked(answer("openai", ITEMS), AGAIN),
        "web_search_call",
        {"1 reasoning block left out", "server tool web_search left out"},
    ),
    "items of Responses stay behind (Ollama)": (
        "ollama",
        asked(answer("openai", ITEMS), AGAIN),
        "ValueError",
        {"1 reasoning block left out", "server tool web_search left out"},
    ),
    "an answer that was all thought is no answer": (
        "anthropic",
        asked(answer("bedrock", THOUGHT[:1]), AGAIN),
        "signature",
        {"1 reasoning block left out", "empty answer left out"},
    ),
    "a mark for caching stays behind": (
        "openai",
        [HumanMessage([{"type": "text", "text": "Hello.", "cache_control": MARK}])],
        "Extra inputs",
        {"cache_control left out"},
    ),
    "a mark for caching stays behind (system)": (
        "openai",
        [SystemMessage([{"type": "text", "text": "Be brief.", "cache_control": MARK}]), AGAIN],
        "Extra inputs",
        {"cache_control left out"},
    ),
    "a document becomes text": ("openai", [HumanMessage([DOCUMENT])], "Input should be", {"document turned into text"}),
    "a document becomes text (Ollama)": (
        "ollama",
        [HumanMessage([DOCUMENT])],
        "ValueError",
        {"document turned into text"},
    ),
    "Anthropic's image is converted": (
        "ollama",
        [HumanMessage([{"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXEL}}])],
        "ValueError",
        {"image converted"},
    ),
    "OpenAI's file is converted": (
        "anthropic",
        [
            HumanMessage(
                [{"type": "file", "file": {"file_data": "data:application/pdf;base64,AAAA", "filename": "a.pdf"}}]
            )
        ],
        "Input should be",
        {"file converted"},
    ),
    "OpenAI's sound can't be heard": (
        "anthropic",
        [HumanMessage([{"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}])],
        "Input should be",
        {"audio as data left out"},
    ),
    "an image by file id stays behind": (
        "openai",
        [HumanMessage([{"type": "image", "file_id": "file_1"}])],
        "ValueError",
        {"image by file id left out"},
    ),
    "an image by url can't be fetched": (
        "ollama",
        [HumanMessage([{"type": "image_url", "image_url": {"url": "https://x.test/a.png"}}])],
        "the client",
        {"image by url left out"},
    ),
    "a tool's image is shown by the user": (
        "openai",
        asked(answer("anthropic", "", ("a",)), ToolMessage([IMAGE], tool_call_id="a")),
        "Input should be",
        {"image of a tool result shown by the user"},
    ),
    "system messages stand first": (
        "anthropic",
        [SystemMessage("Be brief."), HumanMessage("Hello."), SystemMessage("Be kind."), AGAIN],
        "non-consecutive",
        {"later system messages moved to the front"},
    ),
    "a user opens": (
        "anthropic",
        [answer("openai", "Ahoy."), HumanMessage("Hello.")],
        "first message",
        {"opening user message added"},
    ),
    "a name is one word": (
        "openai",
        [HumanMessage("Hello.", name="Ann Lee")],
        "name does not match",
        {"name of a message rewritten"},
    ),
}


@pytest.mark.parametrize("rule", RULES)
def test_each_rule_turns_a_refusal_into_an_acceptance(server, rule):
    """What a rule is for is refused by the strict provider as it stands, and accepted once fitted, and the record names it."""
    provider, messages, why, changes = RULES[rule]
    refused = wire.refusal(server, provider, messages)
    assert refused
    assert why in " ".join(refused)
    fitted = fit(messages, provider)
    assert wire.refusal(server, provider, fitted.messages) == []
    assert set(fitted.changes) == changes


def test_what_the_provider_itself_signed_and_searched_goes_back_untouched(server):
    """An answer goes back to the provider that gave it as it came, among others' answers too."""
    own = wire.answered(server, "anthropic", replies.anthropic(1))
    other = wire.answered(server, "openai", replies.openai(2))
    messages = asked(own, *results(own), other, *results(other))
    fitted = fit(messages, "anthropic").messages
    assert fitted[1] is own
    assert wire.refusal(server, "anthropic", fitted) == []


def test_a_streamed_answer_is_read_like_a_whole_one(server):
    """A merged AIMessageChunk, which is what a stream leaves in the history, is made portable as a message is."""
    whole = wire.answered(server, "anthropic", replies.anthropic(1))
    chunk = AIMessageChunk(
        **whole.model_dump(exclude={"type", "tool_calls", "invalid_tool_calls"}), tool_calls=whole.tool_calls
    )
    messages = asked(chunk, *results(whole))
    assert wire.refusal(server, "ollama", messages)
    assert wire.refusal(server, "ollama", fit(messages, "ollama").messages) == []
