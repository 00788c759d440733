"""What the middleware's tests share: agents and their requests, and the ways to ask them."""

from collections.abc import Callable
from typing import Any

from langchain.agents import create_agent
from langchain.agents.middleware import ModelRequest
from langchain_core.messages import HumanMessage

from langchain_resilient import ResilientModelMiddleware, Retry
from tests.clients import fresh

QUESTION = {"messages": [("user", "hi")]}
STREAMS = ("stream", "astream", "astream_events", "stream_events")


def around(*models: Any, **settings: Any) -> ResilientModelMiddleware:
    """The middleware over these models, without backoff."""
    fixed = {"namespace": fresh(), "retry": Retry(base_delay=0.0)}
    return ResilientModelMiddleware(*models, **(fixed | settings))


def agent(model: Any, *middleware: Any, **settings: Any) -> Any:
    """An agent without tools."""
    return create_agent(model, middleware=list(middleware), **settings)


async def answer(agent: Any, way: str, question: str = "hi", **arguments: Any) -> str:
    """The text of an agent's last message, asked for in one of the four ways."""
    given = {"messages": [("user", question)]}
    if way == "invoke":
        return agent.invoke(given, **arguments)["messages"][-1].text
    if way == "ainvoke":
        return (await agent.ainvoke(given, **arguments))["messages"][-1].text
    if way == "stream":
        return list(agent.stream(given, stream_mode="values", **arguments))[-1]["messages"][-1].text
    return [item async for item in agent.astream(given, stream_mode="values", **arguments)][-1]["messages"][-1].text


def request(model: Any, **fields: Any) -> ModelRequest:
    """A model request as an agent makes it."""
    return ModelRequest(model=model, messages=[HumanMessage("hi")], **fields)


async def wrapped(middleware: Any, colour: str, given: ModelRequest, handler: Callable[[ModelRequest], Any]) -> Any:
    """What the middleware makes of one model call."""
    if colour == "sync":
        return middleware.wrap_model_call(given, handler)

    async def awaited(asked: ModelRequest) -> Any:
        return handler(asked)

    return await middleware.awrap_model_call(given, awaited)


def kinds(decision: Any) -> list[tuple[str, str]]:
    """Who was asked, and what came of it."""
    return [(attempt.provider, attempt.kind) for attempt in decision.attempts]


async def shown(agent: Any, way: str, text: list[str]) -> None:
    """Puts the tokens that a caller sees into `text`, as they come."""
    if way == "stream":
        for message, _ in agent.stream(QUESTION, stream_mode="messages"):
            text.append(message.text)
    elif way == "astream":
        async for message, _ in agent.astream(QUESTION, stream_mode="messages"):
            text.append(message.text)
    elif way == "astream_events":
        async for event in agent.astream_events(QUESTION, version="v2"):
            if event["event"] == "on_chat_model_stream":
                text.append(event["data"]["chunk"].text)
    else:
        for event in agent.stream_events(QUESTION, version="v3"):
            if event["method"] == "messages" and event["params"]["data"][0].get("event") == "content-block-delta":
                text.append(event["params"]["data"][0]["delta"]["text"])
