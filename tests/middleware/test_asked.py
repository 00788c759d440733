"""What each provider is asked in an agent's name, and how a handler's result is read."""

from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import AgentMiddleware, ExtendedModelResponse, ModelRequest, ModelResponse
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langgraph.types import Command

from langchain_resilient import Provider, RateLimitedError, RateLimits, capture_decisions
from langchain_resilient.middleware.asked import origin_of
from langchain_resilient.testing import Fault, FaultServer
from tests.agents import agent, answer, around, request, wrapped
from tests.clients import instance, resilient, scripted

COLOURS = ("sync", "async")


def test_standard_parameters_reach_every_provider():
    """`stop` and parameters that a model has no field for go with each call; what the request says wins over them."""
    asked: list[ModelRequest] = []

    def handler(given: ModelRequest) -> Any:
        asked.append(given)
        return AIMessage("x")

    middleware = around(scripted("one"), stop=["END"], temperature=0.5, max_tokens=7)
    middleware.wrap_model_call(request(scripted()), handler)
    middleware.wrap_model_call(request(scripted(), model_settings={"stop": ["ALSO"], "max_tokens": 9}), handler)
    assert asked[0].model_settings == {"stop": ["END"], "temperature": 0.5, "max_tokens": 7}
    assert asked[1].model_settings == {"stop": ["ALSO"], "temperature": 0.5, "max_tokens": 9}


MESSAGE = AIMessage("x", usage_metadata={"input_tokens": 5, "output_tokens": 2, "total_tokens": 7})
RESULTS = [
    MESSAGE,
    ModelResponse(result=[MESSAGE, ToolMessage("done", tool_call_id="1")]),
    ModelResponse(result=[AIMessage("before it"), MESSAGE]),
    ExtendedModelResponse(ModelResponse(result=[MESSAGE]), Command(update={"a": 1})),
]


@pytest.mark.parametrize("colour", COLOURS)
@pytest.mark.parametrize("result", RESULTS, ids=lambda result: type(result).__name__)
async def test_what_a_handler_returns_is_returned(result: Any, colour: str):
    """Whatever form an answer has, it is returned as it is, and its message's usage is on record."""
    with capture_decisions() as decisions:
        assert await wrapped(around(), colour, request(scripted()), lambda _: result) is result
    assert decisions[0].usage is not None and tuple(decisions[0].usage)[:2] == (5, 2)


def test_a_result_without_an_answer():
    """A handler may return no message of a model's at all: that is returned too, with nothing on record."""
    result = ModelResponse(result=[ToolMessage("done", tool_call_id="1")])
    with capture_decisions() as decisions:
        assert around().wrap_model_call(request(scripted()), lambda _: result) is result
    assert decisions[0].outcome == "answered" and decisions[0].usage is None


def test_what_a_request_costs():
    """The system message counts: 400 words don't fit a limit of 200 tokens a minute."""
    middleware = around(Provider(scripted("one"), limits=RateLimits(tpm=200)))
    assert middleware.wrap_model_call(request(scripted()), lambda _: MESSAGE) is MESSAGE
    long = request(scripted(), system_message=SystemMessage("word " * 400))
    with pytest.raises(RateLimitedError):
        middleware.wrap_model_call(long, lambda _: pytest.fail("asked"))


class Says(AgentMiddleware):
    """Changes the request before we see it."""

    def __init__(self, **overrides: Any) -> None:
        self.overrides = overrides
        self.tools = []

    async def awrap_model_call(self, request: ModelRequest, handler: Any) -> Any:
        return await handler(request.override(**self.overrides))


async def test_another_provider_is_asked_in_its_own_terms():
    """What was meant for the first provider is translated or left out for the next, and the record says what; the first sees all."""

    def look(place: str) -> str:
        """Look at a place."""
        return place

    with FaultServer() as server:
        server.schedule(Fault.status(503))
        first, second = instance(server, "openai"), instance(server, "anthropic", "two")
        asks = Says(
            tool_choice="none",
            model_settings={"prompt_cache_key": "k", "temperature": 0.5},
            system_message=SystemMessage([{"type": "text", "text": "Be brief."}]),
        )
        built = create_agent(first, [look], middleware=[asks, around(first, second)])
        with capture_decisions() as decisions:
            await answer(built, "ainvoke")
        one, two = (item.body for item in server.requests)
    assert one["tool_choice"] == "none" and one["prompt_cache_key"] == "k" and one["temperature"] == 0.5
    assert two["tool_choice"] == {"type": "none"} and "prompt_cache_key" not in two and two["temperature"] == 0.5
    assert [tool["name"] for tool in two["tools"]] == ["look"] and "Be brief." in str(two["system"])
    failed, answered = decisions[0].attempts
    assert not failed.changed and any("prompt_cache_key" in change for change in answered.changed)


async def test_a_conversation_is_made_portable():
    """Thinking that one provider signed is not sent to another, and the messages of the graph's state stay as they were."""
    thinking = {"type": "thinking", "thinking": "hm", "signature": "s"}
    said = AIMessage([thinking, {"type": "text", "text": "Hello."}], response_metadata={"model_provider": "anthropic"})
    with FaultServer() as server:
        model = instance(server, "openai")
        given = {"messages": [("user", "hi"), said, ("user", "and?")]}
        with capture_decisions() as decisions:
            state = await agent(model, around()).ainvoke(given)
        body = server.requests[0].body
    assert decisions[0].attempts[0].changed
    assert "signature" not in str(body) and "Hello." in str(body)
    assert thinking in state["messages"][1].content


MARKED = [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}]


@pytest.mark.parametrize("who", ["system", "user"])
async def test_what_was_written_for_the_first_provider(who: str):
    """A mark that the caller set for the agent's own provider reaches that one, and is taken off, on record, for the next."""
    with FaultServer() as server:
        server.schedule(Fault.status(503))
        first, second = instance(server, "anthropic"), instance(server, "openai", "two")
        prompt = {"system_prompt": SystemMessage(MARKED)} if who == "system" else {}
        built = create_agent(first, middleware=[around(first, second, max_retries=1)], **prompt)
        with capture_decisions() as decisions:
            await built.ainvoke({"messages": [("user", "hi" if who == "system" else MARKED)]})
        one, two = (item.body for item in server.requests)
    assert "cache_control" in str(one) and "cache_control" not in str(two) and "Be brief." in str(two)
    failed, answered = decisions[0].attempts
    assert not failed.changed and any("cache_control" in change for change in answered.changed)


def test_the_agents_own_provider_is_told_what_was_written():
    """What the caller wrote for the agent's own provider goes there word for word, however strange it looks."""
    asked: list[ModelRequest] = []

    def handler(given: ModelRequest) -> Any:
        asked.append(given)
        return AIMessage("x")

    with FaultServer() as server:
        own = request(instance(server, "openai")).override(messages=[HumanMessage("hi", name="John Doe")])
        around().wrap_model_call(own, handler)
    assert asked[0].messages == [HumanMessage("hi", name="John Doe")]


def test_a_request_for_a_resilient_chat_model():
    """It was made for its first provider, under the word that its spec has for it."""
    urls = {"azure_endpoint": "http://127.0.0.1", "api_key": "sk-test", "api_version": "1"}
    azure = Provider("azure_openai:gpt-4.1", model_kwargs=urls)
    assert origin_of(resilient(azure, scripted())) == "azure_openai"
