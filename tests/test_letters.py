"""What of a call is written into a dead letter, and how it is asked again."""

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.runnables import RunnableLambda
from pydantic import BaseModel

from langchain_resilient import SettingsError
from langchain_resilient.binding import structured, tools
from langchain_resilient.engine.dead_letters.letter import Letter, as_json
from langchain_resilient.letters import asking, content_of, key_of, question_of, value_of
from langchain_resilient.testing import FaultServer
from tests.clients import WIRES, instance, resilient, scripted, spec

TALK = [
    SystemMessage("Be brief."),
    HumanMessage("Rain in Paris?"),
    AIMessage("", tool_calls=[{"name": "rain", "args": {"where": "Paris"}, "id": "call_1"}]),
    ToolMessage("no", tool_call_id="call_1"),
]


class Person(BaseModel):
    """Somebody."""

    name: str


def rain(where: str) -> str:
    """Whether it rains."""
    return where


def written(content: dict[str, Any], **fields: Any) -> Letter:
    """A letter that has been through JSON."""
    return Letter("id", "key", 0.0, "timeout", (), json.loads(as_json(content)), **fields)


def client_of(model: Any) -> Any:
    """The first provider's client."""
    return model._engine.policy.targets[0].client


def test_a_conversation_comes_back_as_it_was():
    """Messages with tool calls, and what was set beside them, are the same after a way through JSON."""
    content = content_of(TALK, ["END"], {"temperature": 0.5}, None)
    _, messages, config, arguments = question_of(resilient(), written(content, tenant="acme"), None)
    assert messages == TALK
    assert arguments == {"temperature": 0.5, "stop": ["END"]}
    assert config == {"configurable": {"lane": "replay", "tenant": "acme"}}


def test_what_json_does_not_have_is_named():
    """An argument that can't be written is left out by name; such a letter is asked again only through a runnable of its user's."""
    content = content_of(TALK, None, {"temperature": 0.5, "response_format": Person, "tags": {1}}, None)
    assert content["parameters"]["left_out"] == ["response_format", "tags"]
    assert content["parameters"]["arguments"] == {"temperature": 0.5}
    with pytest.raises(SettingsError, match="response_format, tags could not be written; replay it `through`"):
        question_of(resilient(), written(content), None)
    chain = RunnableLambda(len)
    assert question_of(resilient(), written(content), chain)[0] is chain


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("bound", ["tools", "schema"])
def test_bound_things_are_written_in_nobody_s_own_words(wire: str, bound: str):
    """Whoever was first: tools and schemas are in the letter as values, and none of the first provider's own spelling of them."""
    with FaultServer() as server:
        client = client_of(resilient(spec(server, wire)))
        binding = tools(client, [rain], "any", {}) if bound == "tools" else structured(client, Person, {})
        content = content_of(TALK, None, dict(binding.visible), binding)
    parameters = content["parameters"]
    assert parameters["arguments"] == {} and "left_out" not in parameters
    function = parameters[bound][0]["function"]
    assert function["name"] == ("rain" if bound == "tools" else "Person")
    assert parameters.get("tool_choice") == ("any" if bound == "tools" else None)
    as_json(content)


@pytest.mark.parametrize("first", WIRES)
@pytest.mark.parametrize("then", WIRES)
async def test_another_provider_may_answer_it(first: str, then: str):
    """A letter of a structured call that one kind of provider was asked is answered by any other, to the schema."""
    with FaultServer() as server:
        client = client_of(resilient(spec(server, first)))
        binding = structured(client, Person, {})
        letter = written(content_of([HumanMessage("Who?")], None, dict(binding.visible), binding))
        value = await asking(resilient(spec(server, then)))(letter)
    assert set(value) == {"name"}


@pytest.mark.parametrize("in_threads", [False, True])
async def test_tools_are_offered_again(in_threads: bool):
    """A letter of a call with tools is asked with them, by `ainvoke` or in a thread."""
    with FaultServer() as server:
        model = resilient(instance(server, "openai"))
        binding = tools(client_of(model), [rain], None, {})
        letter = written(content_of([HumanMessage("Rain?")], None, dict(binding.visible), binding))
        value = await asking(model, threads=ThreadPoolExecutor(1) if in_threads else None)(letter)
        sent = server.requests[-1].body
    assert value["type"] == "ai"
    assert [tool["function"]["name"] for tool in sent["tools"]] == ["rain"]


def test_the_same_question_has_the_same_key():
    """The key is made of the question: message ids, which are made anew each time, say nothing; all else does."""

    def key(text: str = "Who?", ident: str | None = None, **arguments: Any) -> str:
        return key_of(content_of([HumanMessage(text, id=ident)], None, arguments, None))

    assert key() == key(ident="run-1")
    assert len({key(), key("What?"), key(temperature=1.0)}) == 3
    assert "Who" not in key()


def test_answers_as_json():
    """Messages as LangChain writes them, models as their fields, an error as its name; what JSON has stays."""
    found = value_of(
        {"raw": AIMessage("hi"), "parsed": Person(name="Ann"), "parsing_error": ValueError("a prompt"), "n": [1]}
    )
    assert (found["parsed"], found["parsing_error"], found["n"]) == ({"name": "Ann"}, "ValueError", [1])
    assert found["raw"]["data"]["content"] == "hi"
    as_json(found)


@pytest.mark.parametrize(
    "content",
    [
        None,
        {},
        {"messages": 7},
        {"messages": [], "parameters": {"schema": ["rain"], "arguments": {}, "stop": None, "settings": {}}},
    ],
)
def test_a_letter_that_can_t_be_read(content):
    """What is no letter of ours is refused by name, and nothing of it is quoted."""
    letter = Letter("id-7", "key", 0.0, "timeout", (), content)
    with pytest.raises(SettingsError, match="dead letter id-7: it can't be asked as it is written"):
        question_of(resilient(scripted()), letter, None)
