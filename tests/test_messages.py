"""What `fit` keeps, drops and says, whatever the conversation."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    FunctionMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)

from langchain_resilient.messages import fit

WORDS = ("openai", "azure_openai", "anthropic", "ollama", "google_genai", "mistralai", "bedrock_converse", "groq")
CALL = {"name": "weather", "args": {"city": "Oslo"}, "type": "tool_call"}


def answer(provider: str, content: Any = "", *ids: str | None, **extra: Any) -> AIMessage:
    """An answer as a provider's client marks it."""
    metadata = {"model_provider": provider} | extra.pop("metadata", {})
    calls = [CALL | {"id": id_} for id_ in ids]
    return AIMessage(content=content, tool_calls=calls, response_metadata=metadata if provider else {}, **extra)


# ------------------------------------------------------------------------------------------------------------ properties
BLOCKS: tuple[dict[str, Any], ...] = (
    {"type": "thinking", "thinking": "hm", "signature": "s"},
    {"type": "redacted_thinking", "data": "d"},
    {"type": "reasoning", "id": "rs_1", "summary": []},
    {"type": "web_search_call", "id": "ws_1"},
    {"type": "server_tool_use", "id": "srv", "name": "web_search", "input": {}},
    {"type": "web_search_tool_result", "tool_use_id": "srv", "content": []},
    {"type": "executable_code", "executable_code": "1", "language": "python"},
    {"type": "image", "base64": "AAAA", "mime_type": "image/png"},
    {"type": "Strange Thing", "x": 1},
)
SHOWN: tuple[dict[str, Any], ...] = (
    {"type": "image", "base64": "AAAA", "mime_type": "image/png"},
    {"type": "image_url", "image_url": {"url": "https://x.test/a.png"}},
    {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}},
    {"type": "image", "file_id": "file_1"},
    {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
    {"type": "media", "mime_type": "video/mp4", "data": "AAAA"},
    {"cachePoint": {"type": "default"}},
    {"type": "image_url", "image_url": {}},
)
IDS = st.sampled_from(["call_0", "call_1", "functions.weather:0", "x" * 60, "toolu_1", "abcdefghi", "", None])
ORIGINS = st.sampled_from(["openai", "anthropic", "ollama", "google_genai", "mistralai", "groq"])


class Script:
    """Draws a conversation and remembers which text was said and which result answers which call."""

    def __init__(self, draw: Any) -> None:
        self._draw = draw
        self.words: list[str] = []
        self.messages: list[BaseMessage] = []

    def word(self) -> str:
        self.words.append(f"word{len(self.words)}.")
        return self.words[-1]

    def said(self) -> Any:
        if self._draw(st.booleans()):
            return self.word()
        forms = [
            lambda: {"type": "text", "text": self.word()},
            lambda: {"type": "text", "text": self.word(), "cache_control": {"type": "ephemeral"}},
            lambda: {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": self.word()}},
            lambda: {
                "type": "search_result",
                "content": [{"type": "text", "text": self.word()}],
                "source": "s",
                "title": "t",
            },
            self.word,
        ]
        made = [form() for form in self._draw(st.lists(st.sampled_from(forms), min_size=1, max_size=3))]
        return made + deepcopy(self._draw(st.lists(st.sampled_from(SHOWN), max_size=2)))

    def turn(self) -> None:
        self.messages.append(HumanMessage(self.said(), name=self._draw(st.sampled_from([None, "Ann Lee"]))))
        if self._draw(st.booleans()) and len(self.messages) > 1:
            self.messages.append(SystemMessage(self.word()))
        for _ in range(self._draw(st.integers(0, 2))):
            ids = self._draw(st.lists(IDS, max_size=3, unique=True))
            blocks = deepcopy(self._draw(st.lists(st.sampled_from(BLOCKS), max_size=3)))
            text = {"type": "text", "text": self.word()} if self._draw(st.booleans()) else self.word()
            content = [*blocks, text] if blocks or isinstance(text, dict) else text
            calls = [{"name": f"tool{n}", "args": {}, "id": id_, "type": "tool_call"} for n, id_ in enumerate(ids)]
            metadata = {"model_provider": self._draw(ORIGINS)}
            self.messages.append(AIMessage(content=content, tool_calls=calls, response_metadata=metadata))
            if len(set(filter(None, ids))) + ("" in ids or None in ids) < len(ids):
                continue  # "" and None both: nothing tells which result is whose
            self.messages += [
                ToolMessage(self.said(), tool_call_id=call["id"] or "", name=call["name"]) for call in calls
            ]


@st.composite
def scripts(draw: Any) -> Script:
    """A conversation of several providers."""
    script = Script(draw)
    for _ in range(draw(st.integers(1, 3))):
        script.turn()
    return script


def pairs(messages: list[BaseMessage]) -> list[tuple[str, bool]]:
    """For every result, in order, its tool and whether its id is that of this tool's call in the answer before it."""
    found, calls = [], {}
    for message in messages:
        if isinstance(message, AIMessage):
            calls = {call["name"]: call["id"] or "" for call in message.tool_calls}
        elif isinstance(message, ToolMessage):
            found.append((str(message.name), calls.get(str(message.name)) == message.tool_call_id))
    return found


@given(scripts(), st.sampled_from(WORDS), st.sampled_from(["", *WORDS]))
def test_whatever_the_conversation_its_texts_calls_and_results_arrive(script, word, origin):
    """Texts and pairs are kept, the given messages are not changed, a second fitting finds nothing, and changes are told iff there are any."""
    before = deepcopy(script.messages)
    fitted = fit(script.messages, word, origin)
    assert script.messages == before
    assert (fitted.messages is script.messages) == (fitted.changes == ())
    assert (fitted.messages == before) == (fitted.changes == ())
    told = repr(fitted.messages)
    assert [spoken for spoken in script.words if spoken not in told] == []
    assert pairs(fitted.messages) == pairs(before)
    again = fit(fitted.messages, word, origin)
    assert (again.messages is fitted.messages, again.changes) == (True, ())


@given(scripts(), st.sampled_from(WORDS))
def test_changes_hold_nothing_of_the_conversation(script, word):
    """No change repeats a text, an id, a name or a strange type of the conversation."""
    told = " ".join(fit(script.messages, word).changes)
    assert not any(
        spoken in told for spoken in [*script.words, "Strange", "Ann", "call_0", "functions", "xxx", "x.test"]
    )


@given(scripts(), st.sampled_from(WORDS))
def test_the_same_history_looks_the_same_in_every_request(script, word):
    """A longer conversation begins with the messages of the shorter one, so that a provider's prompt cache serves."""
    half = script.messages[: len(script.messages) // 2]
    short = fit(half, word, "elsewhere").messages
    long = fit(
        [*half, AIMessage("So.", response_metadata={"model_provider": "openai"}), HumanMessage("Bye.")],
        word,
        "elsewhere",
    )
    assert long.messages[: len(short)] == short


# ------------------------------------------------------------------------------------------------- who is left untouched
OWN: dict[str, list[dict[str, Any]]] = {
    "anthropic": [
        {"type": "thinking", "thinking": "hm", "signature": "s"},
        {"type": "text", "text": "Yes.", "citations": []},
    ],
    "openai": [{"type": "reasoning", "id": "rs_1", "summary": []}, {"type": "web_search_call", "id": "ws_1"}],
    "google_genai": [{"type": "executable_code", "executable_code": "1", "language": "python"}],
    "bedrock_converse": [{"type": "reasoning_content", "reasoning_content": {"text": "hm", "signature": "s"}}],
}


@pytest.mark.parametrize("word", OWN)
@pytest.mark.parametrize("origin", [True, False])
def test_a_conversation_of_one_provider_goes_back_to_it_untouched(word, origin):
    """What only the target has taken part in is the same list, caching, odd ids, late system messages and all."""
    marked = [{"type": "text", "text": "Hello.", "cache_control": {"type": "ephemeral"}, "x": 1}]
    messages = [
        HumanMessage(marked, name="Ann Lee"),
        answer(word, OWN[word], "x" * 60),
        ToolMessage(marked, tool_call_id="x" * 60),
    ]
    messages += [SystemMessage("Late."), HumanMessage("And?")]
    fitted = fit(messages, word, word if origin else "")
    assert fitted.messages is messages and fitted.changes == ()


@pytest.mark.parametrize(
    ("word", "provider"), [("azure_openai", "openai"), ("openai", "azure"), ("bedrock_converse", "bedrock")]
)
def test_two_words_for_one_way_of_speaking_are_one_provider(word, provider):
    """Azure reads what OpenAI wrote, and so on: nothing is cleaned between them."""
    messages = [
        HumanMessage("Hello."),
        answer(provider, OWN["openai"], "call_1"),
        ToolMessage("4", tool_call_id="call_1"),
    ]
    assert fit(messages, word).messages is messages


def test_what_the_caller_wrote_for_the_target_stays_after_another_answered():
    """With the first provider known, what the caller wrote for it is left alone while the other's answer is cleaned."""
    marked = HumanMessage([{"type": "text", "text": "Hello.", "cache_control": {"type": "ephemeral"}}])
    messages = [marked, answer("anthropic", OWN["anthropic"])]
    assert fit(messages, "openai", "openai").messages[0] is marked
    assert fit(messages, "openai", "openai").changes == ("1 reasoning block left out",)
    assert "cache_control left out" in fit(messages, "openai", "anthropic").changes


def test_a_plain_answer_of_another_provider_is_not_touched():
    """An answer that is only text, as most are, goes to every provider as it is."""
    messages = [
        HumanMessage("Hello."),
        answer("openai", "Hi.", additional_kwargs={"refusal": None}),
        HumanMessage("And?"),
    ]
    for word in WORDS:
        assert fit(messages, word, "openai").messages is messages


def test_an_answer_that_does_not_say_who_gave_it_is_judged_by_its_blocks():
    """Without `model_provider`, blocks that only one provider writes tell; plain ones are nobody's and stay."""
    messages = [HumanMessage("Hello."), answer("", OWN["anthropic"])]
    assert fit(messages, "anthropic").messages is messages
    assert fit(messages, "ollama").messages[1].content == "Yes."
    nobodys = [HumanMessage("Hello."), answer("", [{"type": "text", "text": "Yes.", "cache_control": {}}])]
    assert fit(nobodys, "openai").messages is nobodys


# ------------------------------------------------------------------------------------------------------- single messages
def fitted(message: BaseMessage, word: str) -> tuple[Any, tuple[str, ...]]:
    """A message after a user's, and what was changed."""
    result = fit([HumanMessage("Hello."), message], word)
    return result.messages[1], result.changes


def test_a_refusal_is_said_as_text():
    """OpenAI keeps a refusal beside the content: elsewhere it is what the assistant said."""
    said, changes = fitted(answer("openai", additional_kwargs={"refusal": "I may not."}), "anthropic")
    assert said.content == "I may not." and changes == ("refusal turned into text",)


def test_speech_is_said_as_its_transcript():
    """OpenAI keeps sound beside the content: elsewhere its transcript is what the assistant said."""
    spoken = {"audio": {"id": "audio_1", "data": "AAAA", "transcript": "Hi."}}
    said, changes = fitted(answer("openai", additional_kwargs=spoken), "ollama")
    assert said.content == "Hi." and changes == ("the model's audio left out",)


def test_thoughts_beside_the_content_are_not_passed_off_as_another_models():
    """Ollama, DeepSeek and Groq keep thoughts in `reasoning_content`, which ChatOllama would send as its own model's."""
    said, changes = fitted(answer("deepseek", "Yes.", additional_kwargs={"reasoning_content": "hm"}), "ollama")
    assert said.additional_kwargs == {} and changes == ("1 reasoning block left out",)


def test_a_function_call_of_old_becomes_a_tool_call_with_its_result():
    """OpenAI's `function_call`, which had no id, and its FunctionMessage become a pair."""
    old = answer("openai", additional_kwargs={"function_call": {"name": "weather", "arguments": '{"city": "Oslo"}'}})
    messages = fit([HumanMessage("Hello."), old, FunctionMessage("4", name="weather")], "anthropic").messages
    assert messages[1].tool_calls[0]["args"] == {"city": "Oslo"}
    assert isinstance(messages[2], ToolMessage) and messages[2].tool_call_id == messages[1].tool_calls[0]["id"]


def test_a_call_that_could_not_be_read_keeps_its_result():
    """An invalid tool call is rewritten along with its result."""
    bad = {"name": "weather", "args": "{", "id": "a.b", "error": None, "type": "invalid_tool_call"}
    said = AIMessage("", invalid_tool_calls=[bad], response_metadata={"model_provider": "groq"})
    messages = fit([HumanMessage("Hello."), said, ToolMessage("no", tool_call_id="a.b")], "mistralai").messages
    assert messages[1].invalid_tool_calls[0]["id"] == messages[2].tool_call_id != "a.b"
    assert len(messages[2].tool_call_id) == 9


def test_twins_in_one_answer_get_their_results_in_order():
    """Two calls with one id: the first result is the first call's."""
    said = answer("groq", "", "call_0", "call_0")
    results = [ToolMessage("4", tool_call_id="call_0"), ToolMessage("5", tool_call_id="call_0")]
    messages = fit([HumanMessage("Hello."), said, *results], "anthropic").messages
    ids = [call["id"] for call in messages[1].tool_calls]
    assert [message.tool_call_id for message in messages[2:]] == ids and len(set(ids)) == 2


def test_the_targets_own_ids_are_never_given_to_others_calls():
    """A call of another provider with the id of a later one of the target's is the one that is rewritten."""
    first, own = answer("groq", "", "same"), answer("anthropic", "", "same")
    result = ToolMessage("4", tool_call_id="same")
    messages = fit([HumanMessage("Hello."), first, result, own, result], "anthropic").messages
    assert messages[3] is own and messages[4] is result
    assert messages[1].tool_calls[0]["id"] == messages[2].tool_call_id != "same"


def test_the_assistant_speaks_between_a_tool_and_the_user_for_mistral():
    """Mistral refuses a user right after a tool."""
    messages = [
        HumanMessage("Hello."),
        answer("openai", "", "call_1"),
        ToolMessage("4", tool_call_id="call_1"),
        HumanMessage("Wait!"),
    ]
    assert [message.type for message in fit(messages, "mistralai").messages] == ["human", "ai", "tool", "ai", "human"]


def test_parallel_results_stay_together_when_a_tools_image_is_shown():
    """What a user shows for a tool comes after all results of the answer."""
    image = {"type": "image", "base64": "AAAA", "mime_type": "image/png"}
    results = [ToolMessage([image], tool_call_id="a"), ToolMessage("5", tool_call_id="b")]
    messages = fit([HumanMessage("Look."), answer("anthropic", "", "a", "b"), *results], "openai").messages
    assert [message.type for message in messages] == ["human", "ai", "tool", "tool", "human"]
    assert messages[-1].content == [image]


NATIVE: dict[str, dict[str, Any]] = {
    "openai": {"type": "file", "file": {"file_id": "file_1"}},
    "anthropic": {"type": "document", "source": {"type": "file", "file_id": "file_1"}},
    "google_genai": {"type": "media", "file_uri": "gs://x", "mime_type": "video/mp4"},
    "bedrock_converse": {"cachePoint": {"type": "default"}},
}


@pytest.mark.parametrize("word", NATIVE)
def test_a_block_in_the_targets_own_form_was_written_for_it(word):
    """With nothing else to tell, a user's block in a provider's own form goes to that one as it is, and to no other."""
    messages = [HumanMessage([{"type": "text", "text": "Look."}, NATIVE[word]])]
    assert fit(messages, word).messages is messages
    for other in set(NATIVE) - {word}:
        assert NATIVE[word] not in fit(messages, other).messages[0].content


def test_a_user_is_told_what_was_left_out():
    """A block that can't be carried leaves a line, so that the model does not answer about nothing."""
    shown = HumanMessage([{"type": "image", "file_id": "file_1"}])
    assert fit([shown], "anthropic", "openai").messages[0].content == [{"type": "text", "text": "(image left out)"}]


def test_what_a_tool_returned_beside_its_content_stays():
    """A result keeps its artifact, status and name when its id or content changes."""
    result = ToolMessage([{"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "x"}}],
                         tool_call_id="a.b", artifact={"k": 1}, status="error", name="weather")  # fmt: skip
    messages = fit([HumanMessage("Hello."), answer("groq", "", "a.b"), result], "bedrock_converse").messages
    assert (messages[2].artifact, messages[2].status, messages[2].name) == ({"k": 1}, "error", "weather")


def test_text_that_claims_a_format_of_blocks_is_only_text():
    """A streamed answer may say `output_version` over a plain string, which a client would read letter by letter as blocks."""
    said = answer("openai", "Yes.", metadata={"output_version": "v1"})
    new, changes = fitted(said, "anthropic")
    assert (new.content, new.response_metadata, changes) == ("Yes.", {}, ("answer converted",))


def test_a_new_id_stays_when_the_beginning_is_trimmed():
    """A rewritten id depends on the old one and not on how many came before it."""
    turns = [[answer("groq", "", f"{n}.0"), ToolMessage("4", tool_call_id=f"{n}.0")] for n in range(2)]
    whole = fit([HumanMessage("Hello."), *turns[0], *turns[1]], "anthropic").messages
    trimmed = fit([HumanMessage("Hello."), *turns[1]], "anthropic").messages
    assert whole[-2:] == trimmed[-2:]


@pytest.mark.parametrize("kind", ["image_url", "input_image"])
def test_an_image_whose_url_is_written_bare_is_read_too(kind):
    """A block with the URL as a plain string is an image like any other."""
    shown = HumanMessage([{"type": kind, "image_url": "https://x.test/a.png"}])
    carried = fit([shown], "anthropic").messages[0].content
    assert carried == [{"type": "image", "url": "https://x.test/a.png"}]


def test_a_name_is_rewritten_only_where_it_is_sent():
    """A name of two words goes on to providers whose client does not send it."""
    messages = [HumanMessage("Hello.", name="Ann Lee")]
    assert fit(messages, "anthropic").messages is messages
    assert fit(messages, "groq").messages[0].name == "Ann_Lee"


def test_the_callers_own_order_stays_with_the_provider_it_was_written_for():
    """A late system message that was written for the target stays where it is, even if another has answered."""
    messages = [HumanMessage("Hello."), answer("openai", OWN["openai"]), HumanMessage("And?"), SystemMessage("Late.")]
    assert [message.type for message in fit(messages, "anthropic", "anthropic").messages][-1] == "system"
    assert fit(messages, "anthropic", "openai").messages[0].type == "system"


def test_a_calls_old_id_stands_nowhere_once_it_is_rewritten():
    """The content's own copy of a call, in an answer of nobody, goes when the call gets another id."""
    blocks = [{"type": "text", "text": "So."}, CALL | {"id": "a.b"}]
    messages = [HumanMessage("Hello."), answer("", blocks, "a.b"), ToolMessage("4", tool_call_id="a.b")]
    assert "a.b" not in repr(fit(messages, "bedrock_converse").messages)
    assert fit(messages, "bedrock_converse").messages[1].content == [{"type": "text", "text": "So."}]


def test_a_tools_image_in_openais_own_form_is_shown_by_the_user_too():
    """OpenAI's own form of an image is no more allowed in its tool results than another's."""
    image = {"type": "image_url", "image_url": {"url": "https://x.test/a.png"}}
    messages = [HumanMessage("Hello."), answer("anthropic", "", "a"), ToolMessage([image], tool_call_id="a")]
    shown = fit(messages, "openai").messages[2:]
    assert [message.type for message in shown] == ["tool", "human"] and shown[-1].content == [image]


def test_a_mark_for_caching_stays_with_its_own_provider_through_a_conversion():
    """LangChain's first form of an image, marked for Anthropic's cache, is marked in its new form too."""
    mark = {"type": "ephemeral"}
    image = {"type": "image", "source_type": "base64", "data": "AAAA", "mime_type": "image/png", "cache_control": mark}
    carried = fit([HumanMessage([image])], "anthropic", "openai").messages[0].content
    assert carried == [{"type": "image", "base64": "AAAA", "mime_type": "image/png", "cache_control": mark}]
