"""A true drop-in: what is built on a chat model sees what it would see of the bare one, and nothing twice."""

import asyncio
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.agents.structured_output import ProviderStrategy
from langchain_core.callbacks import get_usage_metadata_callback
from langchain_core.messages import AIMessage
from langchain_core.runnables import ConfigurableField
from langchain_core.tools import tool
from langchain_core.tracers.context import collect_runs
from langgraph.prebuilt import create_react_agent
from pydantic import BaseModel

from langchain_resilient.binding import HIDDEN
from langchain_resilient.testing import Fault, FaultServer
from tests.clients import instance, resilient


@tool
def get_weather(city: str) -> str:
    """Tell the weather of a city."""
    return f"It rains in {city}."


class Weather(BaseModel):
    """The weather."""

    city: str
    days: int


QUESTION = "What is the weather in 'Bath'? Use get_weather."


@pytest.fixture(params=["well", "first down"])
def pair(request):
    """Two providers, the first well or down; and what the bare model of whoever answers is."""
    with FaultServer() as first, FaultServer() as second:
        if request.param == "first down":
            first.always(Fault.status(503))
        model = resilient(instance(first, "openai", "one"), instance(second, "anthropic", "two"))
        yield (
            model,
            instance(second, "anthropic", "two") if request.param == "first down" else instance(first, "openai", "one"),
        )


def counted(runnable: Any, question: Any) -> tuple[int, int, set[str]]:
    """Runs of chat models, tokens that the usage callback saw, and the names of all keywords that traces hold."""
    with collect_runs() as runs, get_usage_metadata_callback() as usage:
        runnable.invoke(question)

    def walk(run: Any) -> list[Any]:
        return [run, *(inner for child in run.child_runs for inner in walk(child))]

    every = [run for root in runs.traced_runs for run in walk(root)]
    found = {run.id: run for run in every if run.run_type in {"chat_model", "llm"}}.values()
    told = {key for run in found for key in run.extra.get("invocation_params", {})}
    return len(found), sum(each["total_tokens"] for each in usage.usage_metadata.values()), told


@pytest.mark.parametrize(
    "made",
    [
        lambda model: model.bind_tools([get_weather]),
        lambda model: model.with_structured_output(Weather),
        lambda model: model.with_structured_output(Weather, include_raw=True),
        lambda model: model.bind(stop=["END"]),
        lambda model: model.with_config(tags=["x"]),
        lambda model: model.with_retry(stop_after_attempt=2),
        lambda model: model.with_fallbacks([model]),
    ],
    ids=["tools", "structured", "raw", "bind", "config", "retry", "fallbacks"],
)
def test_runs_and_tokens_are_counted_once(pair, made):
    """Around any of LangChain's wrappers: one run, the tokens of the answer, and no keyword of ours in the trace."""
    model, bare = pair
    runs, tokens, told = counted(made(model), QUESTION)
    assert (runs, tokens) == counted(made(bare), QUESTION)[:2]
    assert runs == 1
    assert HIDDEN not in told


@pytest.mark.parametrize("make", [create_agent, create_react_agent])
@pytest.mark.filterwarnings("ignore:create_react_agent has been moved")
def test_an_agent_runs_as_with_the_bare_model(pair, make):
    """The tool is called once, its result is in the answer, tokens count once; invoked, awaited and streamed."""
    model, bare = pair
    ours, theirs = make(model, [get_weather]), make(bare, [get_weather])
    given = {"messages": [("user", QUESTION)]}

    def kinds(state: dict[str, Any]) -> list[str]:
        return [message.type for message in state["messages"]]

    assert kinds(ours.invoke(given)) == kinds(theirs.invoke(given)) == ["human", "ai", "tool", "ai"]
    assert kinds(asyncio.get_event_loop_policy().new_event_loop().run_until_complete(ours.ainvoke(given)))[-1] == "ai"
    assert counted(ours, given)[:2] == counted(theirs, given)[:2]

    def texts(agent: Any) -> list[str]:
        chunks = agent.stream(given, stream_mode="messages")
        return ["".join(part.text for part, _ in chunks if isinstance(part, AIMessage))]

    assert texts(ours) == texts(theirs)


@pytest.mark.parametrize("make", [create_agent, create_react_agent])
@pytest.mark.filterwarnings("ignore:create_react_agent has been moved")
def test_an_agents_structured_response_is_whoever_answers(pair, make):
    """`response_format` gives an object of the schema."""
    model, _ = pair
    state = make(model, [get_weather], response_format=Weather).invoke({"messages": [("user", QUESTION)]})
    assert isinstance(state["structured_response"], Weather)


@pytest.mark.parametrize("tools", [[], [get_weather]])
@pytest.mark.parametrize("wire", ["openai", "anthropic", "ollama"])
def test_a_providers_own_structured_response_falls_over(wire: str, tools: list[Any]):
    """`ProviderStrategy`, with and without tools: the next provider gets what its own bare model would, in its own form."""
    with FaultServer() as first, FaultServer() as second:
        first.always(Fault.status(503))
        second.answer('{"city": "Bath", "days": 3}')
        models = (
            instance(second, wire, "two"),
            resilient(instance(first, "openai", "one"), instance(second, wire, "two")),
        )
        states = [
            create_agent(model, tools, response_format=ProviderStrategy(Weather)).invoke({"messages": [("user", "Hi")]})
            for model in models
        ]
        bare, ours = (record.body for record in second.requests)
    assert states[0]["structured_response"] == states[1]["structured_response"] == Weather(city="Bath", days=3)
    assert ours.get("format") == bare.get("format")
    assert len(ours.get("tools") or []) == len(bare.get("tools") or []) == len(tools)


def test_fields_stay_configurable(pair):
    """`configurable_fields` reaches the provider that answers."""
    model, _ = pair
    chosen = model.configurable_fields(temperature=ConfigurableField(id="heat"))
    assert chosen.invoke("hi").text == chosen.with_config(configurable={"heat": 0.5}).invoke("hi").text


@pytest.mark.parametrize("version", ["v1", "v2"])
async def test_events_name_each_step_once(pair, version: str):
    """`astream_events` through a structured chain: the model starts once and ends once."""
    counts = []
    for model in pair:
        chain = model.with_structured_output(Weather)
        names = [event["event"] async for event in chain.astream_events(QUESTION, version=version)]
        counts.append([names.count(f"on_chat_model_{step}") for step in ("start", "end")])
    assert counts[0] == counts[1]
    assert counts[0][0] == 1


def test_reading_an_answer_leaves_no_trace_of_its_own(pair):
    """What is read in an attempt is no run of anybody's: a structured chain is one root, as with the bare model."""
    model, _ = pair
    with collect_runs() as runs:
        model.with_structured_output(Weather).invoke(QUESTION)
    assert [run.name for run in runs.traced_runs] == ["RunnableSequence"]


@pytest.mark.parametrize("bound", [False, True])
def test_the_third_version_of_events_tells_what_the_bare_models_does(pair, bound: bool):
    """`stream_events(version="v3")`: the same text, tool calls and usage."""

    def told(model: Any) -> tuple[str, list[str], int]:
        chosen = model.bind_tools([get_weather]) if bound else model
        stream = chosen.stream_events(QUESTION, version="v3")
        message = stream.output
        return message.text, [call["name"] for call in message.tool_calls], message.usage_metadata["total_tokens"]

    model, bare = pair
    assert told(model) == told(bare)
