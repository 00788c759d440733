"""A chat model that says what a script tells it: for tests where the wire is not the point."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.language_models.base import LangSmithParams
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from pydantic import Field, PrivateAttr, SkipValidation

Line = str | Exception | Callable[[list[BaseMessage]], str]
"""An answer, an exception to raise, or a function of the conversation that gives (or raises) one."""


class ScriptedChatModel(BaseChatModel):
    """Answers with the lines of its script, the last one for ever.

    Example:
        >>> model = ScriptedChatModel(script=[TimeoutError(), "Hello"], model_name="one")
        >>> # the first call raises, every later one answers "Hello"

    In a stream each word is a chunk; `break_after` raises after that many of them.
    """

    script: SkipValidation[Sequence[Line]] = ("Hello.",)
    model_name: str = "scripted"
    total_timeout: float | None = 30.0
    """Seconds after which it is said to give up by itself, whatever comes: it tells the engine that sync calls may run in the
    caller's thread."""
    break_after: int | None = None
    """In a stream: raise `ConnectionError` after that many chunks."""
    finish_reason: str | None = "stop"
    calls: list[list[BaseMessage]] = Field(default_factory=list)
    """Every conversation it was asked, in order."""

    _lock: threading.Lock = PrivateAttr(default_factory=threading.Lock)

    def _line(self, messages: list[BaseMessage]) -> str:
        with self._lock:
            line = self.script[min(len(self.calls), len(self.script) - 1)]
            self.calls.append(messages)
        if isinstance(line, BaseException):
            raise line.with_traceback(None)  # it would grow by this call's lines each time
        return line(messages) if callable(line) else line

    def _message(self, text: str) -> AIMessage:
        tokens = len(text.split())
        return AIMessage(
            content=text,
            response_metadata={"model_name": self.model_name, "finish_reason": self.finish_reason},
            usage_metadata={"input_tokens": 10, "output_tokens": tokens, "total_tokens": 10 + tokens},
        )

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return ChatResult(generations=[ChatGeneration(message=self._message(self._line(messages)))])

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return self._generate(messages, stop, None, **kwargs)

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        text = self._line(messages)
        words = text.split(" ")
        for index, word in enumerate(words):
            if index == self.break_after:
                msg = "the connection was lost"
                raise ConnectionError(msg)
            yield ChatGenerationChunk(message=AIMessageChunk(content=word if index == 0 else f" {word}"))
        whole = self._message(text)
        last = AIMessageChunk(
            content="", response_metadata=whole.response_metadata, usage_metadata=whole.usage_metadata
        )
        yield ChatGenerationChunk(message=last)

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        for chunk in self._stream(messages, stop, None, **kwargs):
            yield chunk

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        return LangSmithParams(ls_provider="scripted", ls_model_name=self.model_name, ls_model_type="chat")
