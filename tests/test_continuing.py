"""A stream that breaks goes on from another provider, and the caller reads one text: no character lost, none doubled."""

from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

import pytest
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult

from langchain_resilient import Provider, ResilientChatModel
from langchain_resilient.engine.seam import CLOSE, OPEN
from tests.clients import fresh
from tests.texts import TEXTS, chunks


class RefusedError(Exception):
    """A 400."""

    status_code = 400


class Teller(BaseChatModel):
    """Tells a text in given chunks, as far as it gets, and goes on with one that was begun in one of four ways."""

    parts: Sequence[str]
    cut_at: int | None = None
    kind: str = "obeys"

    def _parts(self, messages: list[BaseMessage]) -> list[str]:
        whole, last = "".join(self.parts), messages[-1]
        if isinstance(last, AIMessage):
            if self.kind == "refuses":
                raise RefusedError("This model does not support assistant message prefill.")
            begun = str(last.content).rstrip()  # as Anthropic's API has it
            assert whole.startswith(begun)
            return self._cut(whole[len(begun) :])
        if OPEN not in str(last.content):
            return list(self.parts)
        if self.kind == "restarts":
            return list(self.parts)
        anchor = str(last.content).partition(OPEN)[2].rpartition(CLOSE)[0]
        begun = str(messages[-2].content)
        assert begun.endswith(anchor)
        assert whole.startswith(begun)
        return self._cut(anchor + whole[len(begun) :])

    @staticmethod
    def _cut(text: str) -> list[str]:
        return [text[start : start + 5] for start in range(0, len(text), 5)] or [""]

    def _stream(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> Iterator[ChatGenerationChunk]:
        for place, part in enumerate(self._parts(messages)):
            if place == self.cut_at:
                raise ConnectionError("the connection was lost")
            yield ChatGenerationChunk(message=AIMessageChunk(content=part))
        yield ChatGenerationChunk(message=AIMessageChunk(content="", response_metadata={"finish_reason": "stop"}))

    async def _astream(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        for chunk in self._stream(messages):
            yield chunk

    def _generate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> ChatResult:
        return ChatResult(generations=[ChatGeneration(message=AIMessage("".join(self._parts(messages))))])

    @property
    def _llm_type(self) -> str:
        return "teller"


KINDS = {"continues": True, "restarts": False, "obeys": None, "refuses": True}
"""What the provider that goes on does, and what its user says of it."""


@pytest.fixture(scope="module", params=KINDS)
def told(request: pytest.FixtureRequest) -> tuple[ResilientChatModel, Teller, Teller]:
    """A model, who begins and who goes on: one for all texts, as making one takes as long as an answer."""
    first, second = Teller(parts=()), Teller(parts=(), kind=request.param)
    providers = [Provider(first, name="first"), Provider(second, name="second", prefill=KINDS[request.param])]
    model = ResilientChatModel(providers, namespace=fresh())
    for provider in ("first", "second"):
        model.override(provider, "disabled")  # a thousand breaks in a row, and nobody's circuit opens
    return model, first, second


@pytest.mark.parametrize("name", TEXTS)
async def test_cut_at_every_chunk(name: str, told: tuple[ResilientChatModel, Teller, Teller]):
    """Wherever it is cut the text comes whole, from providers that go on, start again from the top, obey, or refuse a begun answer."""
    model, first, second = told
    first.parts = second.parts = parts = chunks(name)
    for first.cut_at in range(1, len(parts) + 1):
        model._engine.policy.no_prefill.clear()  # so that it is refused at every cut
        shown = [chunk async for chunk in model.astream("Tell me")]
        assert "".join(chunk.text for chunk in shown) == TEXTS[name], f"cut after {first.cut_at} chunks"
