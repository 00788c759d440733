"""A stream that outlives its providers, as the stream object that LiteLLM's users know.

Rules of this file: it is built when the first content has come, and tells (headers, hidden params, logging object) what the stream that began
it told. Its chunks are the engine's, whoever says them.
"""

from __future__ import annotations

from typing import Any, Self

from litellm.litellm_core_utils.streaming_handler import CustomStreamWrapper

from litellm_hooks.errors import Translated

_NOTHING = object()


class _Shown:
    """The engine's chunks, of which one was taken already."""

    _resilient_chunks: Any
    _resilient_first: Any
    _resilient_translated: Translated

    def _show(self, chunks: Any, first: Any, group: str) -> None:
        self._resilient_chunks = chunks
        self._resilient_first = first
        self._resilient_translated = Translated(group)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        if (first := self._taken()) is not _NOTHING:
            return first
        with self._resilient_translated:
            return next(self._resilient_chunks)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        if (first := self._taken()) is not _NOTHING:
            return first
        with self._resilient_translated:
            return await anext(self._resilient_chunks)

    def _taken(self) -> Any:
        first, self._resilient_first = self._resilient_first, _NOTHING
        return first

    def close(self) -> None:
        """Let go of the provider."""
        self._resilient_chunks.close()

    async def aclose(self) -> None:
        """Let go of the provider."""
        await self._resilient_chunks.aclose()


class ResilientStream(_Shown, CustomStreamWrapper):  # type: ignore[misc]  # LiteLLM's types are not read here
    """A chat completion in chunks.

    Args:
        chunks: The engine's, sync or async.
        first: The chunk that was taken from it already.
        begun: LiteLLM's own stream of the attempt that answered first.
        group: What the user asked for.
    """

    def __init__(self, chunks: Any, first: Any, begun: Any, group: str) -> None:
        self.__dict__.update(vars(begun))
        self._show(chunks, first, group)


class PlainStream(_Shown):
    """The stream of another route: what it does not have itself is the stream's that began it.

    Args:
        chunks: The engine's, async.
        first: The chunk that was taken from it already.
        begun: LiteLLM's own stream of the attempt that answered first.
        group: What the user asked for.
    """

    def __init__(self, chunks: Any, first: Any, begun: Any, group: str) -> None:
        self._begun = begun
        self._show(chunks, first, group)

    def __getattr__(self, name: str) -> Any:
        if name == "_begun":
            raise AttributeError(name)
        return getattr(self._begun, name)
