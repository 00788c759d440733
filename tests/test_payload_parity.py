"""What an agent sends over HTTP is what it would send without us: the same bodies to the same paths, key for key."""

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.tools import tool
from pydantic import BaseModel

from langchain_resilient import ResilientModelMiddleware, Retry
from langchain_resilient.testing import Fault, FaultServer
from tests.clients import WAYS, fresh, instance, resilient

NAMES = {
    "openai": "gpt-4.1",
    "anthropic": "claude-sonnet-4-6",
}  # names that LangChain and deepagents know the abilities of
MADE_UP = re.compile(r"\b(call|toolu|msg|chatcmpl|lc_run-)[_-][-0-9a-f]{8,}")
"""Ids that the server, or LangChain, makes up anew for each answer."""
QUESTION = {"messages": [("user", "What is the weather in Paris?")]}


@tool
def get_weather(city: str) -> str:
    """Tell the weather of a city."""
    return f"Sunny in {city}."


class Forecast(BaseModel):
    """A forecast."""

    city: str
    degrees: int


@pytest.fixture(scope="module")
def server() -> Iterator[FaultServer]:
    """A healthy server, which calls the tool first and answers from its result."""
    with FaultServer() as server:
        server.answer_with_tool("get_weather", {"city": "Paris"})
        yield server


def over(model: Any) -> Any:
    """A `ResilientChatModel` over a model."""
    return resilient(model)


def around(*models: Any) -> ResilientModelMiddleware:
    """The middleware, without backoff."""
    return ResilientModelMiddleware(*models, namespace=fresh(), retry=Retry(base_delay=0.0))


FORMS: dict[str, Callable[[Any], tuple[Any, list[Any]]]] = {
    "middleware with the model": lambda model: (model, [around(model)]),
    "middleware alone": lambda model: (model, [around()]),
    "hybrid": lambda model: (over(model), [ResilientModelMiddleware()]),
    "chat model": lambda model: (over(model), []),
}
"""The model and the middleware of an agent, from the bare model."""


async def asked(agent: Any, way: str) -> list[BaseMessage]:
    """The last messages of an agent, asked in one of the four ways; streams show tokens."""
    if way == "invoke":
        return agent.invoke(QUESTION)["messages"]
    if way == "ainvoke":
        return (await agent.ainvoke(QUESTION))["messages"]
    modes = ["messages", "values"]
    if way == "stream":
        shown = list(agent.stream(QUESTION, stream_mode=modes))
    else:
        shown = [item async for item in agent.astream(QUESTION, stream_mode=modes)]
    assert any(mode == "messages" for mode, _ in shown)
    return [item["messages"] for mode, item in shown if mode == "values"][-1]


def sent(server: FaultServer) -> list[tuple[str, str]]:
    """What the server was asked since it was last looked at: path and body, keys in the order in which they came."""
    requests = [(request.path, MADE_UP.sub("made-up", json.dumps(request.body))) for request in server.requests]
    server.reset_log()
    return requests


def told(messages: list[BaseMessage]) -> list[tuple[str, str, Any]]:
    """What of a conversation must be the same: who says what and calls which tool."""
    return [
        (
            message.type,
            message.text,
            [call["args"] for call in message.tool_calls] if isinstance(message, AIMessage) else None,
        )
        for message in messages
    ]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("schema", [None, Forecast], ids=["plain", "structured"])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("wire", NAMES)
async def test_create_agent(server: FaultServer, wire: str, form: str, schema: Any, way: str):
    """An agent with tools sends what the bare model's agent sends, and says what it says."""

    def agent(model: Any, middleware: list[Any]) -> Any:
        return create_agent(
            model, [get_weather], system_prompt="Be brief.", response_format=schema, middleware=middleware
        )

    model = instance(server, wire, NAMES[wire])
    bare = told(await asked(agent(model, []), way))
    expected = sent(server)
    assert len(expected) == 2 and all("get_weather" in body for _, body in expected)
    assert told(await asked(agent(*FORMS[form](model)), way)) == bare
    assert sent(server) == expected


@pytest.mark.parametrize("way", ["invoke", "astream"])
@pytest.mark.parametrize("wire", NAMES)
async def test_what_the_model_was_made_with(server: FaultServer, wire: str, way: str):
    """A model that was made to stream, with parameters of its own, sends them as it would alone."""
    own = {"openai": {"seed": 7}, "anthropic": {"top_k": 7}}[wire]
    model = instance(server, wire, NAMES[wire], streaming=True, temperature=0.5, stop=["END"], **own)
    await asked(create_agent(model, [get_weather]), way)
    expected = sent(server)
    assert all(json.loads(body)["stream"] for _, body in expected)
    for form in ("middleware with the model", "middleware alone", "hybrid"):
        agent_model, middleware = FORMS[form](model)
        await asked(create_agent(agent_model, [get_weather], middleware=middleware), way)
        assert sent(server) == expected


# ------------------------------------------------------------------------------------------------------- deep agents
# Of Anthropic's caching a chat model of ours alone loses all: deepagents asks for the model's class. That is what the middleware is for.
DEEP = [(wire, form) for wire in NAMES for form in FORMS if (wire, form) != ("anthropic", "chat model")]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("schema", [None, Forecast], ids=["plain", "structured"])
@pytest.mark.parametrize(("wire", "form"), DEEP)
async def test_create_deep_agent(server: FaultServer, wire: str, form: str, schema: Any, way: str):
    """A deep agent sends what the bare model's sends; Anthropic's prompt caching, which goes by the model's class, stays."""
    deepagents = pytest.importorskip("deepagents")

    def agent(model: Any, middleware: list[Any]) -> Any:
        return deepagents.create_deep_agent(
            model=model, tools=[get_weather], system_prompt="Be brief.", response_format=schema, middleware=middleware
        )

    model = instance(server, wire, NAMES[wire])
    bare = told(await asked(agent(model, []), way))
    expected = sent(server)
    assert len(expected) >= 2 and ("cache_control" in expected[0][1]) == (wire == "anthropic")
    assert told(await asked(agent(*FORMS[form](model)), way)) == bare
    assert sent(server) == expected


@pytest.mark.parametrize("way", ["invoke", "astream"])
async def test_a_deep_agent_falls_over_and_keeps_its_caching(server: FaultServer, way: str):
    """With OpenAI down, a deep agent's requests to Anthropic are those of a deep agent that was made for Anthropic."""
    deepagents = pytest.importorskip("deepagents")
    models = [instance(server, wire, name) for wire, name in NAMES.items()]
    with FaultServer() as down:
        down.always(Fault.status(503))
        dead = instance(down, "openai", NAMES["openai"])
        agent = deepagents.create_deep_agent(model=dead, tools=[get_weather], middleware=[around(dead, models[1])])
        assert "Sunny" in told(await asked(agent, way))[-1][1]
        assert "cache_control" in sent(server)[0][1]
