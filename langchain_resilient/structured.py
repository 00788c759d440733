"""The last step of a structured output: an answer's message in, what the caller asked for out.

Rules of this file: a whole answer was read in its attempt already, so that one that does not parse could be asked for again; here that is
only handed on. A stream is read here, by the reader of the provider that speaks, as its parts come.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Iterator
from itertools import chain
from typing import Any

from langchain_core.messages import BaseMessage
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.runnables.base import RunnableSerializable
from pydantic import ConfigDict, SkipValidation

from langchain_resilient.binding import Binding, Way


class StructuredOutput(RunnableSerializable[BaseMessage, Any]):
    """Reads answers as the provider that gave them would."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    binding: SkipValidation[Binding]

    def invoke(self, input: BaseMessage, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        """What an answer says. Raises what the provider's own parser raises."""
        known = self.binding.known(input)
        if known is not None and known.read:
            return known.value
        way = self.binding.way_of(input)
        return _reader(way).invoke(way.given(input), config, **kwargs)

    async def ainvoke(self, input: BaseMessage, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        """What an answer says. Raises what the provider's own parser raises."""
        known = self.binding.known(input)
        if known is not None and known.read:
            return known.value
        way = self.binding.way_of(input)
        return await _reader(way).ainvoke(way.given(input), config, **kwargs)

    def transform(
        self, input: Iterator[BaseMessage], config: RunnableConfig | None = None, **kwargs: Any
    ) -> Iterator[Any]:
        """What a stream says so far, each time it says more."""
        first = next(input, None)
        if first is None:
            return
        known = self.binding.known(first)
        if known is not None and known.read:
            yield known.value
            deque(input, maxlen=0)  # to its end, or the run above would count as cancelled
            return
        way = self.binding.way_of(first)
        parts = chain([first], input)
        yield from _reader(way).transform(map(way.given, parts), config, **kwargs)

    async def atransform(
        self, input: AsyncIterator[BaseMessage], config: RunnableConfig | None = None, **kwargs: Any
    ) -> AsyncIterator[Any]:
        """What a stream says so far, each time it says more."""
        first = await anext(input, None)
        if first is None:
            return
        known = self.binding.known(first)
        if known is not None and known.read:
            yield known.value
            async for _ in input:
                pass
            return
        way = self.binding.way_of(first)

        async def parts() -> AsyncIterator[Any]:
            yield way.given(first)
            async for part in input:
                yield way.given(part)

        async for value in _reader(way).atransform(parts(), config, **kwargs):
            yield value


def _reader(way: Way) -> Runnable[Any, Any]:
    if way.reader is None:
        msg = f"{way.client.word}: its structured output does not outlive the process that asked for it: don't cache this model"
        raise ValueError(msg)
    return way.reader
