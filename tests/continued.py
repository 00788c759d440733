"""What the tests of continued answers share: a text, a provider that does what it is told, and a pair of them over HTTP."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from langchain_resilient import Provider, ResilientChatModel, Retry
from langchain_resilient.engine.seam import CLOSE, OPEN
from langchain_resilient.testing import Fault, FaultServer
from langchain_resilient.testing.fault_server import RecordedRequest
from tests.clients import fresh, spec

TEXT = "The rain had stopped by noon. Nobody went out, though; the streets were empty, and the dog slept on. Someone laughed."
SHOWN = "The rain had stopped"
"""What its first four chunks say."""
BROKEN = Fault.reset_after(4)
FIRST = {"openai": "gpt-4.1", "anthropic": "claude-sonnet-4-5", "ollama": "llama3.1"}
SECOND = {"openai": "gpt-4o-mini", "anthropic": "claude-haiku-4-5", "ollama": "llama3.2"}
"""Models by wire; of these Anthropic's alone are given a begun answer by default."""


def said(content: Any) -> str:
    """The text of a message in a request's body."""
    return content if isinstance(content, str) else "".join(block.get("text", "") for block in content or ())


def obeying(whole: str = TEXT) -> Callable[[RecordedRequest], str]:
    """A provider that begins with the words it is told to begin with, and tells the text from its top if it is told nothing."""

    def tell(record: RecordedRequest) -> str:
        *_, before, last = [{"content": ""}, *record.body["messages"]]
        instruction = said(last["content"])
        if last["role"] != "user" or OPEN not in instruction:
            return whole
        anchor, begun = instruction.partition(OPEN)[2].rpartition(CLOSE)[0], said(before["content"])
        assert before["role"] == "assistant"
        assert begun.endswith(anchor)
        return anchor + whole[len(begun) :]

    return tell


class Pair(NamedTuple):
    """A model over two providers, of which the first breaks, and their servers."""

    model: ResilientChatModel
    first: FaultServer
    second: FaultServer


@contextmanager
def pair(
    first: str, second: str, fault: Fault = BROKEN, *more: Provider, prefill: bool | None = None, **settings: Any
) -> Iterator[Pair]:
    """Two providers by their wires; the second one obeys."""
    with FaultServer() as one, FaultServer() as two:
        one.answer(TEXT, input_tokens=10, output_tokens=5)
        one.always(fault)
        two.answer(obeying(), input_tokens=20, output_tokens=7, prefill="continue")
        providers = [spec(one, first, FIRST[first]), spec(two, second, SECOND[second], prefill=prefill), *more]
        fixed = {"namespace": fresh(), "retry": Retry(base_delay=0.0)}
        yield Pair(ResilientChatModel(providers, **(fixed | settings)), one, two)
