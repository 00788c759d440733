"""How the chunks of a stream become what the caller is shown.

Rules of this file: it performs nothing and knows no provider. Each way takes chunks as they come and gives those that may be shown now.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from langchain_resilient.engine.effects import Begun, Continuation
from langchain_resilient.engine.errors import NewAnswerError
from langchain_resilient.engine.seam import ANEW, Seam


class Telling:
    """Everything as it comes."""

    value: Any = None
    """What a caller who wants the whole answer gets."""

    def take(self, chunk: Any) -> Iterable[Any]:
        """What may be shown now that this chunk has come."""
        return (chunk,)

    def end(self) -> Iterable[Any]:
        """What is left to be shown when the stream has ended well."""
        return ()


class Unheard(Telling):
    """Nothing: nobody listens."""

    def take(self, chunk: Any) -> Iterable[Any]:
        """Let it pass."""
        return ()


class Kept(Telling):
    """Everything at its end."""

    def __init__(self) -> None:
        self._chunks: list[Any] = []

    def take(self, chunk: Any) -> Iterable[Any]:
        """Keep it back."""
        self._chunks.append(chunk)
        return ()

    def end(self) -> Iterable[Any]:
        """All that was kept back."""
        return self._chunks


class Whole(Kept):
    """Nothing: the chunks make one answer.

    Args:
        make: Makes it; raises an `AttemptError` if it is not what was asked for.
    """

    def __init__(self, make: Callable[[list[Any]], Any]) -> None:
        super().__init__()
        self._make = make

    def end(self) -> Iterable[Any]:
        """Make the answer."""
        self.value = self._make(self._chunks)
        return ()


class Joint(Telling):
    """What another stream has not said already, from where it says something new.

    Args:
        continuation: What was shown.
        begun: How the stream was asked for; None: as if nothing had been shown, as no word of it had.
        text: The text of a chunk.
    """

    def __init__(self, continuation: Continuation, begun: Begun | None, text: Callable[[Any], str]) -> None:
        self._continuation = continuation
        self._text = text
        self._seam: Seam | None = Seam(continuation.text, None if begun is None else begun.anchor)
        self._said = ""
        self._held: list[Any] = []

    def take(self, chunk: Any) -> Iterable[Any]:
        """What of the stream can be shown now that this chunk has come. Raises `NewAnswerError`."""
        if self._seam is None:
            return self._joined(chunk, self._text(chunk))
        self._held.append(chunk)
        self._said += self._text(chunk)
        return self._release(self._seam, ended=False)

    def end(self) -> Iterable[Any]:
        """What was held back, as it was too short to tell. Raises `NewAnswerError`."""
        return () if self._seam is None else self._release(self._seam, ended=True)

    def _release(self, seam: Seam, *, ended: bool) -> list[Any]:
        surplus = seam.surplus(self._said, ended=ended)
        if surplus == ANEW:
            msg = "it began a new answer instead of going on with the one that was shown"
            raise NewAnswerError(msg)
        if surplus is None:
            return []
        self._seam = None
        found: list[Any] = []
        for chunk in self._held:
            text = self._text(chunk)
            found += self._joined(chunk, text[surplus:])
            surplus = max(0, surplus - len(text))
        return found

    def _joined(self, chunk: Any, text: str) -> list[Any]:
        joined = self._continuation.joined(chunk, text)
        return [] if joined is None else [joined]
