"""How LiteLLM's chunks are read, and how one stream goes on behind another as one answer."""

import warnings
from typing import Any

import pytest
from litellm.types.utils import Delta, ModelResponse, ModelResponseStream, StreamingChoices, Usage

from langchain_resilient.engine.effects import Begun
from langchain_resilient.engine.events import Usage as Tokens
from litellm_hooks import chunks
from litellm_hooks.chunks import ChunkContinuation

CALL = [{"index": 0, "id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]


def chunk(finish: str | None = None, index: int = 0, of: str = "one", usage: Usage | None = None, **delta: Any) -> Any:
    """One chunk of a stream."""
    choices = [StreamingChoices(finish_reason=finish, index=index, delta=Delta(**delta))]
    made = ModelResponseStream(id=of, model=of, created=1 if of == "one" else 2, choices=choices)
    if usage is not None:
        made.usage = usage
    return made


def without_choices() -> Any:
    """The chunk that only tells of usage."""
    made = ModelResponseStream(id="one", model="one", choices=[])
    made.usage = Usage(prompt_tokens=3, completion_tokens=4, total_tokens=7)
    return made


@pytest.mark.parametrize(
    ("delta", "speaks"),
    [
        ({"content": "a"}, True),
        ({"content": ""}, False),
        ({"role": "assistant"}, False),
        ({"reasoning_content": "hm"}, True),
        ({"tool_calls": CALL}, True),
        ({"refusal": "no"}, True),
    ],
)
def test_what_speaks(delta: dict[str, Any], speaks: bool):
    """Text, thoughts, tool calls and refusals are content; a role or an empty text is not."""
    assert chunks.has_content(chunk(**delta)) is speaks


@pytest.mark.parametrize(
    "made", [chunk(content="a"), chunk("stop", usage=Usage(total_tokens=1)), ModelResponse(), object()]
)
def test_what_is_told_is_what_is_there(made: Any):
    """Fields, extra fields, properties, methods and what is missing are read as `getattr` reads them."""
    for thing in (
        made,
        *(choice for choice in getattr(made, "choices", ())),
        Delta(content="a", refusal="no"),
        Usage(total_tokens=1),
    ):
        for name in (*dir(thing), *chunks.SPEAKING, "usage", "choices", "nonsense"):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # some are deprecated
                assert chunks.told(thing, name) == getattr(thing, name, None)


def test_a_chunk_without_choices_says_nothing_but_usage():
    """The chunk that reports the tokens has no text, no content and no end."""
    last = without_choices()
    assert (chunks.text_of(last), chunks.has_content(last), chunks.finish_reason(last)) == ("", False, None)
    assert chunks.usage_of(last) == Tokens(3, 4, 0)


def test_usage_tells_of_the_cache():
    """Tokens are read from chunks and whole answers alike, those from the provider's cache among them."""
    told = Usage(prompt_tokens=9, completion_tokens=2, total_tokens=11, prompt_tokens_details={"cached_tokens": 5})
    assert chunks.usage_of(ModelResponse(usage=told)) == chunks.usage_of(chunk(usage=told)) == Tokens(9, 2, 5)
    assert chunks.usage_of(chunk(content="a")) is None


def test_the_finish_reason_is_of_answers_and_chunks():
    """Why a provider stopped is read from either."""
    assert chunks.finish_reason(chunk("length")) == "length"
    assert chunks.finish_reason(chunk(content="a")) is None


@pytest.mark.parametrize(
    ("shown", "can"),
    [
        ([chunk(role="assistant"), chunk(content="a")], True),
        ([chunk(reasoning_content="hm"), chunk(content="a")], True),
        ([chunk(content="a"), without_choices()], True),
        ([chunk(content="a"), chunk(tool_calls=CALL)], False),
        ([chunk(content="a", index=1)], False),
        ([chunk(refusal="no")], False),
    ],
)
def test_only_text_can_be_continued(shown: list[Any], can: bool):
    """Text and what was thought before it, of one choice, may be gone on with; a tool call or a refusal may not."""
    assert chunks.can_continue(shown) is can


@pytest.mark.parametrize(
    ("form", "asks"),
    [
        (None, False),
        ({"type": "text"}, False),
        ({"type": "json_object"}, True),
        ({"type": "json_schema", "json_schema": {}}, True),
        (dict, True),
    ],
)
def test_who_asks_for_json(form: Any, asks: bool):
    """A schema, as a mapping or as a class, asks for JSON; plain text does not."""
    assert chunks.asks_for_json({"response_format": form}) is asks


def test_a_begun_answer_is_asked_for_as_the_model_takes_it():
    """A model that takes a prefill is given the text as its own; any other is told where to go on."""
    asked = [{"role": "user", "content": "?"}]
    prefilled = chunks.asked_to_continue(asked, Begun("It rai", None))
    assert prefilled == [*asked, {"role": "assistant", "content": "It rai", "prefix": True}]
    *before, begun, last = chunks.asked_to_continue(asked, Begun("It rai", "rai"))
    assert (before, begun) == (asked, {"role": "assistant", "content": "It rai"})
    assert last["role"] == "user" and "rai" in last["content"]
    assert asked == [{"role": "user", "content": "?"}]


def test_what_the_caller_had_begun_is_part_of_it():
    """A conversation that ended in the caller's own beginning ends in that and what was shown, as one message."""
    asked = [{"role": "user", "content": "?"}, {"role": "assistant", "content": "It "}]
    assert chunks.asked_to_continue(asked, Begun("rai", None))[1:] == [
        {"role": "assistant", "content": "It rai", "prefix": True}
    ]


def test_another_s_chunk_is_part_of_the_same_answer():
    """What goes on has the first stream's id, time and model, no second role, and the text that is left of it."""
    begun = ChunkContinuation([chunk(role="assistant", content="It "), chunk(content="rai")])
    joined = begun.joined(chunk(of="other", role="assistant", content="rains", reasoning_content="hm"), "ns")
    delta = joined.choices[0].delta
    assert begun.text == "It rai"
    assert (joined.id, joined.model, joined.created) == ("one", "one", 1)
    assert (delta.role, delta.content, getattr(delta, "reasoning_content", None)) == (None, "ns", None)


def test_a_chunk_of_which_nothing_is_left_is_not_shown():
    """A chunk whose text was shown already is dropped, unless it ends the answer or tells of tokens."""
    begun = ChunkContinuation([chunk(content="It rains.")])
    assert begun.joined(chunk(of="other", content="It"), "") is None
    assert begun.joined(chunk("stop", of="other"), "").choices[0].finish_reason == "stop"
    assert begun.joined(without_choices(), "").usage.completion_tokens == 4
