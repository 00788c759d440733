"""Tools, bound for each provider in its own way."""

import copy
from typing import Any

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableBinding, RunnableLambda
from langchain_core.tools import tool

from langchain_resilient import ResilientChatModel, capture_decisions
from langchain_resilient.binding import HIDDEN, choice
from langchain_resilient.testing import Fault, FaultServer, ScriptedChatModel
from tests.clients import WAYS, WIRES, BusyError, ask, instance, resilient, spec


@tool
def get_weather(city: str) -> str:
    """Tell the weather of a city."""
    return f"Fine in {city}."


@tool
def get_time(city: str) -> str:
    """Tell the time in a city."""
    return f"Noon in {city}."


TOOLS = [get_weather, get_time]
QUESTION = "What is the weather in 'Paris'? Use get_weather."


@pytest.fixture
def servers():
    """A provider that is asked first, and one that is asked next."""
    with FaultServer() as first, FaultServer() as second:
        yield first, second


async def called(model: Any, way: str, question: Any = QUESTION) -> list[str]:
    """The names of the tools that an answer calls, asked for in one of the four ways."""
    if way in {"invoke", "ainvoke"}:
        message = model.invoke(question) if way == "invoke" else await model.ainvoke(question)
    else:
        chunks = list(model.stream(question)) if way == "stream" else [chunk async for chunk in model.astream(question)]
        message = chunks[0]
        for chunk in chunks[1:]:
            message += chunk
    return [call["name"] for call in message.tool_calls]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("wire", WIRES)
async def test_the_first_provider_gets_what_the_bare_model_would_send(servers, wire: str, way: str):
    """The same body, to the letter, with the tools in the provider's own format."""
    first, second = servers
    bare = instance(first, wire)
    bound = resilient(instance(first, wire), instance(second, "openai", "other")).bind_tools(TOOLS, tool_choice="any")
    names = await called(bare.bind_tools(TOOLS, tool_choice="any"), way), await called(bound, way)
    assert names == (["get_weather"], ["get_weather"])
    bodies = [copy.deepcopy(record.body) for record in first.requests]
    assert bodies[0] == bodies[1]
    assert second.count == 0


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("other", WIRES)
async def test_the_next_provider_gets_what_its_own_bare_model_would_send(servers, wire: str, other: str, way: str):
    """The tools in its own format, not the first one's, and its answer calls the same tool."""
    first, second = servers
    first.always(Fault.status(503))
    bound = resilient(instance(first, wire, "one"), instance(second, other, "two")).bind_tools(TOOLS)
    assert await called(bound, way) == ["get_weather"]
    assert await called(instance(second, other, "two").bind_tools(TOOLS), way) == ["get_weather"]
    ours, bare = (record.body for record in second.requests)
    assert ours == bare


CHOICES: list[tuple[Any, str | None, str | None]] = [
    # as given, what OpenAI's client is to get, and what Anthropic's
    (None, None, None),
    (False, None, None),
    ("auto", None, None),
    ("any", "any", "any"),
    ("required", "any", "any"),
    (True, "any", "any"),
    ("get_time", "get_time", "get_time"),
    ({"type": "function", "function": {"name": "get_time"}}, "get_time", "get_time"),
    ({"type": "tool", "name": "get_time"}, "get_time", "get_time"),
    ({"type": "any"}, "any", "any"),
    ({"type": "auto"}, None, None),
    ("none", "none", {"type": "none"}),
]


@pytest.mark.parametrize(("given", "openai", "anthropic"), CHOICES)
def test_a_choice_of_tool_is_said_in_each_providers_words(given: Any, openai: Any, anthropic: Any):
    """OpenAI's, Anthropic's and LangChain's ways to say it mean the same to each; what Ollama can't be told is on record."""
    assert choice(given, "openai") == ({} if openai is None else {"tool_choice": openai}, ())
    assert choice(given, "anthropic") == ({} if anthropic is None else {"tool_choice": anthropic}, ())
    assert choice(given, "ollama") == ({}, () if openai is None else ("tool_choice left out",))


@pytest.mark.parametrize("given", [choice[0] for choice in CHOICES])
@pytest.mark.parametrize("other", WIRES)
def test_every_choice_reaches_every_fallback(servers, given: Any, other: str):
    """However it was said to OpenAI, the real client of the next provider takes it."""
    first, second = servers
    first.always(Fault.status(503))
    model = resilient(instance(first, "openai", "one"), instance(second, other, "two"))
    with capture_decisions() as decisions:
        model.bind_tools(TOOLS, tool_choice=given).invoke("Hello")
    assert decisions[0].outcome == "answered"
    told = decisions[0].attempts[-1].changed
    assert ("tool_choice left out" in told) == (
        other == "ollama" and given not in (None, False, "auto", {"type": "auto"})
    )


def test_bind_tools_gives_a_binding_that_shows_the_first_providers_tools(servers):
    """As the bare model's: `.bound` is the model, `.kwargs` hold what is sent."""
    model = resilient(instance(servers[0], "openai"))
    bound = model.bind_tools(TOOLS, tool_choice="any")
    bare = instance(servers[0], "openai").bind_tools(TOOLS, tool_choice="any")
    assert isinstance(bound, RunnableBinding) and bound.bound is model
    assert {key: value for key, value in bound.kwargs.items() if key != HIDDEN} == bare.kwargs


def test_tools_are_bound_to_the_first_at_once_and_to_the_others_when_asked():
    """A binding costs what the bare model's costs; a provider that is never asked binds nothing."""
    told: list[str] = []

    class Telling(ScriptedChatModel):
        def bind_tools(self, tools: Any, **kwargs: Any) -> Any:
            told.append(self.model_name)
            return self.bind(tools=tools)

    model = resilient(Telling(model_name="one", script=["ok", BusyError(), BusyError()]), Telling(model_name="two"))
    bound = model.bind_tools(TOOLS)
    assert told == ["one"]
    bound.invoke("hi")
    assert told == ["one"]
    bound.invoke("hi")
    bound.invoke("hi")
    assert told == ["one", "two"]


def test_what_the_first_cannot_bind_is_raised_at_once():
    """As from the bare model."""
    with pytest.raises(NotImplementedError):
        resilient(ScriptedChatModel()).bind_tools(TOOLS)


async def test_a_fallback_without_tools_is_passed_over():
    """One that can't bind them at all fails its attempt, and the next one answers."""

    class Bindable(ScriptedChatModel):
        def bind_tools(self, tools: Any, **kwargs: Any) -> Any:
            return self.bind(tools=tools)

    dead = Bindable(model_name="one", script=[BusyError()])
    model = resilient(dead, ScriptedChatModel(model_name="two"), Bindable(model_name="three", script=["from three"]))
    with capture_decisions() as decisions:
        assert (await model.bind_tools(TOOLS).ainvoke("hi")).content == "from three"
    assert [attempt.provider for attempt in decisions[0].attempts] == ["scripted/one", "scripted/two", "scripted/three"]


class Shaped(ScriptedChatModel):
    """Its `bind_tools` gives what `shape` makes of the model."""

    shape: Any = None

    def bind_tools(self, tools: Any, **kwargs: Any) -> Any:
        return self.shape(self)


def other_model(model: BaseChatModel) -> BaseChatModel:
    """As fakes do that keep their tools in a field."""
    return model.model_copy(update={"script": ["with tools"]})


SHAPES = {
    "a model": other_model,
    "a binding over another model": lambda model: other_model(model).bind(x=1),
    "a binding over a binding": lambda model: other_model(model).bind(x=1).bind(y=2).with_config(tags=["t"]),
    "an opaque runnable": lambda model: RunnableLambda(lambda messages: AIMessage(content="with tools")),
    "an opaque sequence": lambda model: RunnableLambda(lambda messages: messages) | other_model(model),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("place", ["first", "fallback"])
@pytest.mark.parametrize("shape", SHAPES)
async def test_whatever_bind_tools_gives_is_what_is_asked(shape: str, place: str, way: str):
    """A model, a binding over another one, or a runnable that can't be taken apart: as first provider and as fallback."""
    shaped = Shaped(model_name="shaped", script=["without tools"], shape=SHAPES[shape])
    dead = Shaped(model_name="dead", script=[BusyError()], shape=lambda model: model.bind())
    model = resilient(*([shaped] if place == "first" else [dead, shaped]))
    assert await ask(model.bind_tools(TOOLS), way) == "with tools"


def test_arguments_given_later_reach_the_provider_that_answers(servers):
    """`.bind(stop=…)`, `.bind(temperature=…)` and a call's own keywords count for the fallback too, over its own tools."""
    first, second = servers
    first.always(Fault.status(503))
    model = resilient(instance(first, "openai", "one"), instance(second, "anthropic", "two"))
    model.bind_tools(TOOLS).bind(temperature=0.3).invoke("hi", max_tokens=77)
    body = second.requests[0].body
    assert (body["temperature"], body["max_tokens"]) == (0.3, 77)
    assert [each["name"] for each in body["tools"]] == ["get_weather", "get_time"]
    assert "input_schema" in body["tools"][0]


@pytest.mark.parametrize("other", WIRES)
def test_tools_that_nobody_bound_are_translated_too(servers, other: str):
    """`model.invoke(…, tools=[…])` in the first provider's format reaches the next one in its own."""
    first, second = servers
    first.always(Fault.status(503))
    given = dict(instance(first, "openai").bind_tools(TOOLS, tool_choice="get_weather").kwargs)
    model = resilient(instance(first, "openai", "one"), instance(second, other, "two"))
    assert model.invoke(QUESTION, **given).tool_calls[0]["name"] == "get_weather"


def test_traces_see_the_tools_and_not_our_own_keyword(servers):
    """Invocation parameters hold what the bare model's would, and no object of ours."""
    bound = resilient(instance(servers[0], "openai")).bind_tools(TOOLS)
    params = bound.bound._get_invocation_params(**bound.kwargs)
    assert HIDDEN not in params
    assert params["tools"] == bound.kwargs["tools"]


def test_bindings_that_differ_share_no_cached_answer():
    """Another choice of tool, or another tool, is another question; the same binding made again is the same one."""

    class Bindable(ScriptedChatModel):
        def bind_tools(self, tools: Any, **kwargs: Any) -> Any:
            return self.bind(tools=[each.name for each in tools])

    inner = Bindable(script=[f"answer {number}" for number in range(9)])
    model = ResilientChatModel(providers=[inner], cache=InMemoryCache())
    answers = [
        model.bind_tools(tools, **settings).invoke("hi").content
        for tools, settings in [
            (TOOLS, {}), (TOOLS, {}), (TOOLS, {"tool_choice": "any"}), (TOOLS[:1], {}), (TOOLS, {"strict": True}), (TOOLS, {}),
        ]
    ]  # fmt: skip
    assert answers == ["answer 0", "answer 0", "answer 1", "answer 2", "answer 3", "answer 0"]


def test_a_bindings_text_is_the_same_in_any_process():
    """It holds no address: a cache outlives the process."""
    texts = {repr(resilient(instance_of(name)).bind_tools(TOOLS).kwargs[HIDDEN]) for name in ("a", "a")}
    assert len(texts) == 1
    assert "0x" not in texts.pop()


def instance_of(name: str) -> ScriptedChatModel:
    """A model that binds."""

    class Bindable(ScriptedChatModel):
        def bind_tools(self, tools: Any, **kwargs: Any) -> Any:
            return self.bind(tools=[each.name for each in tools])

    return Bindable(model_name=name)


def test_providers_from_specs_bind_as_instances_do(servers):
    """A spec's model is bound like any other."""
    first, second = servers
    first.always(Fault.status(503))
    model = resilient(spec(first, "openai", "one"), spec(second, "anthropic", "two"))
    assert model.bind_tools(TOOLS).invoke(QUESTION).tool_calls[0]["name"] == "get_weather"


def test_a_choice_and_no_parallel_calls_reach_anthropic_together(servers):
    """Both are said in its one `tool_choice`."""
    first, second = servers
    first.always(Fault.status(503))
    model = resilient(instance(first, "openai", "one"), instance(second, "anthropic", "two"))
    model.bind_tools(TOOLS, tool_choice="any", parallel_tool_calls=False).invoke("hi")
    assert second.requests[0].body["tool_choice"] == {"type": "any", "disable_parallel_tool_use": True}


@pytest.mark.parametrize("way", WAYS)
async def test_one_of_ours_may_be_a_provider_of_another(servers, way: str):
    """Its own binding travels inside the outer one's, as first provider and as fallback."""
    first, second = servers
    first.always(Fault.status(503))
    inner = resilient(instance(first, "openai", "one"), instance(second, "anthropic", "two"))
    assert await called(resilient(inner).bind_tools(TOOLS), way) == ["get_weather"]
    dead = instance(first, "openai", "dead")
    assert await called(resilient(dead, inner).bind_tools(TOOLS), way) == ["get_weather"]


@pytest.mark.parametrize("wire", WIRES)
def test_a_provider_that_does_not_stream_is_whole_in_a_stream(servers, wire: str):
    """With `disable_streaming` its one chunk ends with its finish reason and tells its model, so it is no broken stream."""
    model = resilient(instance(servers[0], wire, "one", disable_streaming=True), instance(servers[1], "openai", "two"))
    servers[0].answer("All of it.")
    chunks = list(model.stream("hi"))
    assert "".join(chunk.text for chunk in chunks) == "All of it."
    assert servers[1].count == 0
