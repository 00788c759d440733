"""What LangChain's own middleware, and `with_fallbacks`, make of what we raise."""

from collections.abc import Iterator
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import ModelFallbackMiddleware, ModelRetryMiddleware, SummarizationMiddleware
from langchain.agents.middleware._retry import default_retry_on
from langchain_core.exceptions import ContextOverflowError, ModelAPIError
from langchain_core.messages import BaseMessage, HumanMessage

from langchain_resilient import (
    AllProvidersFailedError,
    Circuit,
    CircuitOpenError,
    Provider,
    RateLimitedError,
    RateLimits,
    ResilientModelMiddleware,
    Retry,
)
from langchain_resilient.testing import Fault, FaultServer
from tests.clients import ANSWER, WAYS, BusyError, ask, fresh, instance, resilient, scripted

QUESTION = {"messages": [("user", "hi")]}
FORMS = ("middleware", "chat model")


@pytest.fixture
def server() -> Iterator[FaultServer]:
    """A server of our own: what it plays is set by each test."""
    with FaultServer() as server:
        yield server


def agent(form: str, models: list[Any], *outside: Any, **settings: Any) -> Any:
    """An agent over these providers in one of two forms, with other middleware outside."""
    settings = {"namespace": fresh(), "max_retries": 0, "retry": Retry(base_delay=0.0)} | settings
    if form == "chat model":
        return create_agent(resilient(*models, **settings), middleware=list(outside))
    return create_agent(scripted("unused"), middleware=[*outside, ResilientModelMiddleware(*models, **settings)])


def once_more() -> ModelRetryMiddleware:
    """LangChain's retries: one, at once, and then the exception itself."""
    return ModelRetryMiddleware(max_retries=1, initial_delay=0.0, jitter=False, on_failure="error")


TABLE = [
    (Fault.overloaded(), True),
    (Fault.status(500), True),
    (Fault.rate_limited("seconds", 0.01), True),
    (Fault.status(401), False),
    (Fault.status(403), False),
    (Fault.status(404), False),
    (Fault.status(400), False),
    (Fault.context_overflow(), False),
]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("wire", ["openai", "anthropic"])
@pytest.mark.parametrize(("fault", "again"), TABLE, ids=[fault.name for fault, _ in TABLE])
async def test_model_retry_of_one_provider(server: FaultServer, form: str, wire: str, fault: Fault, *, again: bool):
    """`ModelRetryMiddleware` tries again what may pass, and nothing that can't."""
    server.schedule(fault)
    built = agent(form, [instance(server, wire)], once_more(), circuit=Circuit(failure_threshold=5))
    if again:
        assert (await built.ainvoke(QUESTION))["messages"][-1].text
    else:
        with pytest.raises(Exception, match=r".") as caught:
            await built.ainvoke(QUESTION)
        assert type(caught.value).__module__.split(".")[0] != "langchain_resilient"
    assert server.count == (2 if again else 1)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("wire", ["openai", "anthropic"])
async def test_model_retry_of_an_exhausted_quota(server: FaultServer, form: str, wire: str):
    """LangChain thinks that a used-up quota may pass; whatever it tries, the provider is not asked again."""
    server.always(Fault.quota_exhausted())
    with pytest.raises(Exception, match=r"."):
        await agent(form, [instance(server, wire)], once_more()).ainvoke(QUESTION)
    assert server.count == 1


GROUPS = [
    ([Fault.overloaded(), Fault.overloaded()], True),
    ([Fault.status(401), Fault.overloaded()], True),
    ([Fault.status(401), Fault.status(401)], False),
    ([Fault.status(404), Fault.status(401)], False),
]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("faults", "again"), GROUPS, ids=lambda value: "+".join(f.name for f in value) if isinstance(value, list) else None
)
async def test_model_retry_of_several(server: FaultServer, form: str, faults: list[Fault], *, again: bool):
    """The group of all causes is tried again where any of them may pass."""
    server.schedule(*faults)
    built = agent(form, [instance(server, "openai"), instance(server, "anthropic", "two")], once_more())
    if again:
        assert (await built.ainvoke(QUESTION))["messages"][-1].text
    else:
        with pytest.raises(AllProvidersFailedError):
            await built.ainvoke(QUESTION)
    assert (server.count > 2) is again


@pytest.mark.parametrize("form", FORMS)
async def test_model_retry_of_our_own_refusals(form: str):
    """A refusal of ours is tried again where time can lift it; a request that costs more than its limit is not."""
    tries: list[Exception] = []

    def judged(error: Exception) -> bool:
        tries.append(error)
        return default_retry_on(error)

    retries = ModelRetryMiddleware(max_retries=1, retry_on=judged, initial_delay=0.0, jitter=False, on_failure="error")
    built = agent(form, [scripted("one", BusyError())], retries, circuit=Circuit(failure_threshold=1))
    with pytest.raises(CircuitOpenError):
        await built.ainvoke(QUESTION)
    assert [type(error).__name__ for error in tries] == ["BusyError", "CircuitOpenError"]
    tries.clear()
    small = Provider(scripted("one"), limits=RateLimits(tpm=1))
    with pytest.raises(RateLimitedError):
        await agent(form, [small], retries).ainvoke(QUESTION)
    assert len(tries) == 1


@pytest.mark.parametrize("form", FORMS)
async def test_model_fallback_takes_over(form: str):
    """`ModelFallbackMiddleware` outside asks its own model after all of ours failed."""
    models = [scripted("one", BusyError()), scripted("two", BusyError())]
    fallback = ModelFallbackMiddleware(scripted("three"))
    if form == "middleware":
        with pytest.raises(AllProvidersFailedError):  # it sets another model, and ours take its place again
            await agent(form, models, fallback).ainvoke(QUESTION)
    else:
        assert (await agent(form, models, fallback).ainvoke(QUESTION))["messages"][-1].text == ANSWER


class TooLongError(ContextOverflowError):
    """A provider's own."""


def small(messages: list[BaseMessage]) -> str:
    """A model that takes two messages at most, and 9000 characters."""
    if len(messages) > 2 or sum(len(message.text) for message in messages) > 9000:
        raise TooLongError("too long")
    return "summary"


@pytest.mark.parametrize("way", WAYS)
async def test_context_overflow_everywhere_is_the_providers_own(way: str):
    """What every provider says of a prompt's length is raised as it is, with no group around it."""
    model = resilient(scripted("one", small), scripted("two", small))
    with pytest.raises(TooLongError):
        await ask(model, way, [HumanMessage("hi")] * 3)


async def test_summarization_reacts_to_context_overflow():
    """`SummarizationMiddleware` with our model for its summaries shortens its prompt when every provider says that it is too long."""
    one = scripted("one", small)
    summaries = SummarizationMiddleware(
        resilient(one, scripted("two", small)),
        trigger=("messages", 3),
        keep=("messages", 1),
        trim_tokens_to_summarize=None,
    )
    built = create_agent(scripted("agent"), middleware=[summaries])
    long = [("user", "x" * 4000), ("assistant", "y" * 4000), ("user", "z" * 4000), ("user", "and?")]
    state = await built.ainvoke({"messages": long})
    assert "summary" in state["messages"][0].text
    assert len(one.calls) == 2, "too long, then shortened"


@pytest.mark.parametrize("form", ["middleware", "hybrid"])
async def test_a_deep_agent_summarizes_on_overflow(server: FaultServer, form: str):
    """A deep agent whose providers say that the prompt is too long summarizes and goes on, instead of failing."""
    deepagents = pytest.importorskip("deepagents")
    models = [instance(server, "openai", "gpt-4.1"), instance(server, "anthropic", "claude-sonnet-4-6")]
    ours = resilient(*models, max_retries=0)
    server.schedule(Fault.context_overflow(), Fault.context_overflow())
    model = models[0] if form == "middleware" else ours
    built = deepagents.create_deep_agent(model=model, middleware=[ResilientModelMiddleware(ours)])
    # Long enough for deepagents to find something to summarize: with the bare model it gives up on short ones too.
    said = [("user" if index % 2 == 0 else "assistant", "word " * 20_000) for index in range(5)]
    state = await built.ainvoke({"messages": said})
    assert state["messages"][-1].text and server.count == 4, "too long twice, the summary, the answer"


@pytest.mark.parametrize("way", WAYS)
async def test_with_fallbacks_around_a_chat_model(way: str):
    """`with_fallbacks` asks the next model after all of ours failed, and may choose by our exceptions or LangChain's."""
    for handled in ((Exception,), (AllProvidersFailedError,), (ModelAPIError,)):
        ours = resilient(scripted("one", BusyError()), scripted("two", BusyError()), max_retries=0)
        chain = ours.with_fallbacks([scripted("three")], exceptions_to_handle=handled)
        assert await ask(chain, way) == ANSWER
    ours = resilient(scripted("one", BusyError()), scripted("two", BusyError()), max_retries=0)
    with pytest.raises(AllProvidersFailedError):
        await ask(ours.with_fallbacks([scripted("three")], exceptions_to_handle=(CircuitOpenError,)), way)


async def test_with_fallbacks_binds_tools():
    """Tools and structured output go through `with_fallbacks` to ours."""
    with FaultServer() as server:
        server.answer_with_tool("look", {"place": "Paris"})

        def look(place: str) -> str:
            """Look at a place."""
            return place

        ours = resilient(instance(server, "openai")).with_fallbacks([instance(server, "anthropic")])
        bound = ours.bind_tools([look])
        assert (await bound.ainvoke("look at Paris")).tool_calls[0]["name"] == "look"
