"""OpenAI's Responses API and Azure: the same requests and answers as the bare client's, fallback and continuation included.

The wire is played inside the process (httpx's MockTransport), as the fault server speaks the chat completions API.
"""

import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from langchain_core.language_models import BaseChatModel
from langchain_openai import AzureChatOpenAI, ChatOpenAI
from pydantic import BaseModel

from langchain_resilient import Provider, ResilientChatModel, capture_decisions
from langchain_resilient.engine.seam import CLOSE, OPEN
from tests.clients import fresh

ANSWER = "All is well with us."
USAGE = {
    "input_tokens": 10,
    "output_tokens": 5,
    "total_tokens": 15,
    "input_tokens_details": {"cached_tokens": 0},
    "output_tokens_details": {"reasoning_tokens": 0},
}


class Person(BaseModel):
    """Somebody."""

    name: str
    age: int


def add(a: int, b: int) -> int:
    """Add."""
    return a + b


def message(text: str, status: str = "completed") -> dict[str, Any]:
    """One output item."""
    content = [{"type": "output_text", "text": text, "annotations": []}] if text else []
    return {"id": "msg_1", "type": "message", "role": "assistant", "status": status, "content": content}


def response(status: str, *output: dict[str, Any]) -> dict[str, Any]:
    """A response as the API tells it."""
    return {
        "id": "resp_1", "object": "response", "created_at": 1.0, "status": status, "error": None, "incomplete_details": None,
        "instructions": None, "metadata": {}, "model": "gpt-5", "output": list(output), "parallel_tool_calls": True,
        "temperature": 1.0, "tool_choice": "auto", "tools": [], "top_p": 1.0, "usage": USAGE if status == "completed" else None,
    }  # fmt: skip


def events(text: str) -> Iterator[dict[str, Any]]:
    """The events of a streamed response."""
    place = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
    yield {"type": "response.created", "response": response("in_progress")}
    yield {"type": "response.output_item.added", "output_index": 0, "item": message("", "in_progress")}
    yield {
        "type": "response.content_part.added",
        **place,
        "part": {"type": "output_text", "text": "", "annotations": []},
    }
    for number, word in enumerate(text.split(" ")):
        yield {
            "type": "response.output_text.delta",
            **place,
            "delta": word if number == 0 else f" {word}",
            "logprobs": [],
        }
    yield {"type": "response.output_text.done", **place, "text": text, "logprobs": []}
    yield {"type": "response.output_item.done", "output_index": 0, "item": message(text)}
    yield {"type": "response.completed", "response": response("completed", message(text))}


class Wire:
    """The API, as a transport."""

    def __init__(
        self, say: Callable[[dict[str, Any]], str] = lambda _: ANSWER, *, cut: int | None = None, status: int = 200
    ):
        self.say = say
        self.cut = cut
        self.status = status
        self.bodies: list[dict[str, Any]] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content)
        self.bodies.append(body)
        if self.status != 200:
            return httpx.Response(self.status, json={"error": {"message": "no"}})
        text = self.say(body)
        if not body.get("stream"):
            return httpx.Response(200, json=response("completed", message(text)))
        told = list(events(text))[: None if self.cut is None else 3 + self.cut]
        lines = [
            f"event: {event['type']}\ndata: {json.dumps({**event, 'sequence_number': n})}\n\n"
            for n, event in enumerate(told)
        ]
        return httpx.Response(200, headers={"content-type": "text/event-stream"}, text="".join(lines))


def clients(wire: Wire) -> dict[str, Any]:
    """The HTTP clients that a model is given."""
    transport = httpx.MockTransport(wire)
    return {
        "http_client": httpx.Client(transport=transport),
        "http_async_client": httpx.AsyncClient(transport=transport),
        "max_retries": 0,
        "api_key": "sk-test",
        "use_responses_api": True,
    }


def openai(wire: Wire) -> BaseChatModel:
    """OpenAI's."""
    return ChatOpenAI(model="gpt-5", **clients(wire))


def azure(wire: Wire) -> BaseChatModel:
    """Azure's."""
    where = {"azure_endpoint": "https://here.example", "azure_deployment": "gpt-5", "api_version": "2026-01-01"}
    return AzureChatOpenAI(**where, **clients(wire))


WAYS: dict[str, Callable[[Any], Any]] = {
    "plain": lambda model: model,
    "reasoning": lambda model: model.bind(reasoning={"effort": "low"}),
    "tools": lambda model: model.bind_tools([add], tool_choice="any"),
    "built-in tools": lambda model: model.bind_tools([{"type": "web_search"}]),
    "structured": lambda model: model.with_structured_output(Person),
}


@pytest.mark.parametrize("make", [openai, azure])
@pytest.mark.parametrize("way", WAYS)
async def test_the_same_as_the_bare_client(way: str, make: Callable[[Wire], BaseChatModel]):
    """The same bodies and the same answers, called and streamed, sync and async."""
    said = '{"name": "Ann", "age": 42}' if way == "structured" else ANSWER
    wires = Wire(lambda _: said), Wire(lambda _: said)
    bare, inner = (make(wire) for wire in wires)
    ours = ResilientChatModel([inner], namespace=fresh())
    seen = []
    for model in (bare, ours):
        asked = WAYS[way](model)
        answers = [asked.invoke("hi"), await asked.ainvoke("hi")]
        if way != "structured":  # of this API the bare client can't stream that
            answers += [*asked.stream("hi"), *[chunk async for chunk in asked.astream("hi")]]
        seen.append([str(value) if way == "structured" else value.content for value in answers])
    assert seen[0] == seen[1]
    assert wires[0].bodies == wires[1].bodies


def test_a_dead_one_falls_over():
    """To another client of the same API."""
    dead, well = Wire(status=503), Wire()
    model = ResilientChatModel(
        [Provider(openai(dead), name="dead"), Provider(azure(well), name="well")], namespace=fresh()
    )
    assert model.invoke("hi").text == ANSWER
    assert "".join(chunk.text for chunk in model.stream("hi")) == ANSWER


@pytest.mark.parametrize("cut", [1, 2, 3, 4, 5])
def test_a_cut_stream_goes_on(cut: int):
    """Its text is one block of one message, and it ends as the second response does."""

    def obey(body: dict[str, Any]) -> str:
        *_, begun, instruction = body["input"]
        anchor = instruction["content"].partition(OPEN)[2].rpartition(CLOSE)[0]
        return anchor + ANSWER[len(begun["content"][0]["text"]) :]

    model = ResilientChatModel(
        [Provider(openai(Wire(cut=cut)), name="cut"), Provider(openai(Wire(obey)), name="well")], namespace=fresh()
    )
    with capture_decisions() as decisions:
        first, *others = model.stream("hi")
    whole = sum(others, first)
    assert (whole.text, len(whole.content)) == (ANSWER, 1)
    assert (whole.response_metadata["status"], whole.usage_metadata["total_tokens"]) == ("completed", 15)
    assert (decisions[0].provider, decisions[0].continued) == ("well", 1)
