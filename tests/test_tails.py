"""Slow providers seen from a chat model, over real HTTP: answers that are streamed inside, and hedges."""

from typing import Any

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from pydantic import BaseModel

from langchain_resilient import Hedge, ResilientChatModel, Timeouts, capture_decisions
from langchain_resilient.testing import Fault, FaultServer
from tests.clients import WIRES, ask, fresh, instance

CALLS = ("invoke", "ainvoke")
WATCHED = Timeouts(first_token=0.4, response=30.0, watch_calls=True)
PATIENT = Timeouts(watch_calls=True)


class Person(BaseModel):
    """Somebody."""

    name: str
    age: int


class Heard(BaseCallbackHandler):
    """Counts what a caller's handlers hear."""

    def __init__(self) -> None:
        self.tokens = self.starts = self.ends = self.errors = 0

    def on_chat_model_start(self, *args: Any, **kwargs: Any) -> None:
        self.starts += 1

    def on_llm_new_token(self, *args: Any, **kwargs: Any) -> None:
        self.tokens += 1

    def on_llm_end(self, *args: Any, **kwargs: Any) -> None:
        self.ends += 1

    def on_llm_error(self, *args: Any, **kwargs: Any) -> None:
        self.errors += 1


@pytest.fixture
def servers():
    """A provider that is asked first, and one that is asked next."""
    with FaultServer() as first, FaultServer() as second:
        for server in (first, second):
            server.answer("It is well with us.", output_tokens=5, input_tokens=7)
        yield first, second


def add(a: int, b: int) -> int:
    """Add."""
    return a + b


@pytest.mark.e2e
@pytest.mark.parametrize("way", CALLS)
@pytest.mark.parametrize("wire", WIRES)
async def test_a_hang_is_seen_at_the_first_token_limit(servers, wire: str, way: str):
    """With `watch_calls` an unstreamed answer falls over after 0.4 s instead of 30, and is what the bare model's would be."""
    first, second = servers
    first.always(Fault.hang())
    inner = instance(first, wire, "one", timeout=30.0), instance(second, wire, "two")
    model = ResilientChatModel(inner, namespace=fresh(), timeouts=WATCHED)
    heard = Heard()
    with capture_decisions() as decisions:
        config = {"callbacks": [heard]}
        answer = model.invoke("hi", config) if way == "invoke" else await model.ainvoke("hi", config)
    assert (answer.text, type(answer).__name__) == ("It is well with us.", "AIMessage")
    assert (answer.usage_metadata["input_tokens"], answer.usage_metadata["output_tokens"]) == (7, 5)
    assert [attempt.limit for attempt in decisions[0].attempts] == ["first_token", None]
    assert decisions[0].seconds < 5.0  # a bound against 30, no timing
    assert [request.stream for request in (*first.requests, *second.requests)] == [True, True]
    assert (heard.starts, heard.tokens, heard.ends, heard.errors) == (1, 0, 1, 0)


@pytest.mark.e2e
@pytest.mark.parametrize("way", CALLS)
@pytest.mark.parametrize("fault", [Fault.reset_after(2), Fault.truncate(2), Fault.in_band_error(2)])
async def test_an_answer_that_breaks_inside_begins_anew(servers, fault: Fault, way: str):
    """Nothing of it was shown, so the next provider's answer is the whole answer."""
    first, second = servers
    first.always(fault)
    second.answer("Quite another answer.")
    model = ResilientChatModel(
        [instance(first, "openai", "one"), instance(second, "anthropic", "two")], namespace=fresh(), timeouts=PATIENT
    )
    assert await ask(model, way) == "Quite another answer."


@pytest.mark.parametrize("way", CALLS)
@pytest.mark.parametrize("wire", WIRES)
async def test_tools_and_schemas_are_read_from_streams(servers, wire: str, way: str):
    """Tool calls come whole, and a structured output is parsed; one that does not parse falls over."""
    first, second = servers
    first.answer(None)
    model = ResilientChatModel(
        [instance(first, wire, "one"), instance(second, "openai", "two")], namespace=fresh(), timeouts=PATIENT
    )
    bound = model.bind_tools([add])
    question = "Please add 1 and 2"
    answer = bound.invoke(question) if way == "invoke" else await bound.ainvoke(question)
    assert [call["name"] for call in answer.tool_calls] == ["add"]
    chain = model.with_structured_output(Person)
    first.always(Fault.ok("no object at all"))
    second.answer('{"name": "Ann", "age": 42}')
    person = chain.invoke("Who?") if way == "invoke" else await chain.ainvoke("Who?")
    assert person == Person(name="Ann", age=42)


@pytest.mark.e2e
@pytest.mark.parametrize("way", ["invoke", "ainvoke", "stream", "astream"])
async def test_a_late_provider_is_outrun(servers, way: str):
    """After 20 answers it is known what late is: the next provider is asked beside, its answer is told, and the late one is hung up."""
    first, second = servers
    model = ResilientChatModel(
        [instance(first, "openai", "one"), instance(second, "anthropic", "two")],
        namespace=fresh(),
        hedge=Hedge(max_fraction=1.0),
    )
    for _ in range(20):
        await ask(model, way)
    first.always(Fault.hang())
    second.answer("From the second.")
    with capture_decisions() as decisions:
        assert await ask(model, way) == "From the second."
    decision = decisions[0]
    assert (decision.hedged, decision.fallback) == (True, True)
    assert sorted(attempt.kind for attempt in decision.attempts) == ["cancelled", "ok"]
    late = first.requests[-1]
    assert late.wait_ended()
    assert late.disconnected
