"""One LangChain request, as the engine's `Upstream`: how it is put to each provider, and how answers are read.

Rules of this file: what was meant for the first provider is said to each in its own terms (`binding`, `messages`), and what could not be
said is on record. A provider is called through the seam that gives one run and no child runs (DESIGN §11): `_generate` where that is all
that `invoke` would do, `_generate_with_cache` where the model has a cache, limiter or output version of its own; streams through `_stream`,
with the inner limiter asked by us, as LangChain does that only in `stream`. Never `inner.invoke`, which doubles runs and tokens.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, NamedTuple

from langchain_core.callbacks import UsageMetadataCallbackHandler
from langchain_core.language_models import BaseChatModel
from langchain_core.language_models.chat_models import generate_from_stream
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.messages.utils import count_tokens_approximately
from langchain_core.outputs import ChatGenerationChunk, ChatResult

from langchain_resilient.binding import Answer, Binding, Way, awaits, recall, remember, translated
from langchain_resilient.continuing import ChatContinuation, asked_to_continue, asks_for_json, can_continue
from langchain_resilient.engine.classify import Headroom, read_headroom
from langchain_resilient.engine.effects import Begun
from langchain_resilient.engine.errors import TruncatedStreamError
from langchain_resilient.engine.events import Usage
from langchain_resilient.engine.policy import Target
from langchain_resilient.limiter import Patience
from langchain_resilient.limiter import waiting as waiting_for_limiter
from langchain_resilient.messages import fit
from langchain_resilient.offloop import in_thread, stream_in_threads
from langchain_resilient.providers import Client
from langchain_resilient.unseen import aunseen, unseen

TOKEN_MARGIN = 1.1
FINISH_REASONS = ("finish_reason", "stop_reason", "done_reason", "stopReason", "completion_reason")
SILENT_KEYS = frozenset({"type", "id", "index", "annotations"})
"""Keys of a content block that say nothing by themselves."""
NOT_WAITING = nullcontext()
SPEAKING_EXTRAS = ("reasoning_content", "refusal", "audio", "tool_calls", "function_call")


class _Retry(NamedTuple):
    """What LangChain's tracers read of a retry (they know tenacity's)."""

    attempt_number: int
    outcome: _Outcome
    idle_for: float = 0.0


class _Outcome(NamedTuple):
    error: BaseException
    failed: bool = True

    def exception(self) -> BaseException:
        return self.error


class Question(NamedTuple):
    """What one provider is asked."""

    client: Client
    model: BaseChatModel
    messages: list[BaseMessage]
    arguments: dict[str, Any]
    way: Way | None
    """How it was bound; None: nothing is bound."""


class ChatUpstream:
    """One request to a chat model.

    Args:
        messages: The conversation.
        stop: Stop words.
        run_manager: Of the one run that the caller sees.
        kwargs: Further arguments of the call, as the first provider takes them.
        first: The first provider.
        binding: The tools or schema that are bound; None: nothing is.
        wall: Seconds since the epoch.
        patience: How long a provider's own rate limiter may be waited for from now on; None: for ever.
    """

    _calls = 0
    _last_error: Exception | None = None
    _tokens: int | None = None

    def __init__(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None,
        run_manager: Any,
        kwargs: Mapping[str, Any],
        wall: Callable[[], float],
        patience: Callable[[Target], Patience] | None = None,
        *,
        first: Client | None = None,
        binding: Binding | None = None,
    ) -> None:
        self._messages = messages
        self._stop = stop
        self._run_manager = run_manager
        self._kwargs = kwargs
        self._wall = wall
        self._patience = patience
        self._first = first
        self._binding = binding
        self._changes: dict[str, tuple[str, ...]] = {}

    def input_tokens(self) -> int:
        """A local estimate of the prompt, 10 % on the safe side; counted once."""
        if self._tokens is None:
            self._tokens = math.ceil(count_tokens_approximately(self._messages) * TOKEN_MARGIN)
        return self._tokens

    # --------------------------------------------------------------------------------------------------------- calling
    def waiting(self, target: Target) -> AbstractContextManager[None]:
        """Bounds the wait for the model's own limiter, if it has one."""
        if target.client.model.rate_limiter is None or self._patience is None:
            return NOT_WAITING
        return waiting_for_limiter(self._patience(target))

    # Of streams' retries a trace hears nothing: LangChain gives `_stream` no run manager; records and observers tell of them.
    def _retry(self) -> _Retry | None:
        """What to tell the trace before this attempt; None before the first."""
        self._calls += 1
        if self._last_error is None or self._run_manager is None:
            return None
        return _Retry(self._calls, _Outcome(self._last_error))

    def _question(self, target: Target, begun: Begun | None = None) -> Question:
        """What this provider is to be asked."""
        client: Client = target.client
        given: Mapping[str, Any] = self._kwargs
        way: Way | None = None
        changes: tuple[str, ...] = ()
        if self._binding is not None:
            way, given, changes = self._binding.asked(client, given)
            client = way.client
        elif given and self._first is not None and client.word != self._first.word:
            given, changes = translated(given, client, self._first)
        asked = self._messages if begun is None else asked_to_continue(self._messages, begun)
        messages, left_out = fit(asked, client.word, client.word if self._first is None else self._first.word)
        self.note_changes(target, changes + left_out)
        model, arguments = client.asked_with(given)
        return Question(client, model, messages, arguments, way)

    def note_changes(self, target: Target, changes: tuple[str, ...]) -> None:
        """Remember what was converted or left out for this provider."""
        if changes:
            self._changes[target.name] = changes

    def changes(self, target: Target) -> tuple[str, ...]:
        """What of the request was converted or left out for this provider."""
        return self._changes.get(target.name, ())

    def call(self, target: Target, begun: Begun | None = None) -> ChatResult:
        """Ask for an unstreamed answer."""
        if (retry := self._retry()) is not None:
            self._run_manager.on_retry(retry)
        try:
            with self.waiting(target):
                question = self._question(target, begun)
                result = self._asked(question, self._run_manager)
                if (unread := self._complete(question, result)) is not None:
                    unread.read(result.generations[0].message, self.usage(result))
                return result
        except Exception as error:
            self._last_error = error
            raise

    def _asked(self, question: Question, run_manager: Any) -> ChatResult:
        client, model, messages, arguments, way = question
        if way is not None and way.whole is not None:
            counted = UsageMetadataCallbackHandler()
            return way.result(unseen(way.whole, messages, counted), counted)
        if not client.plain:
            return model._generate_with_cache(messages, self._stop, run_manager, **arguments)
        if client.takes_run_manager:
            return model._generate(messages, self._stop, run_manager, **arguments)
        return model._generate(messages, self._stop, **arguments)

    async def acall(self, target: Target, begun: Begun | None = None) -> ChatResult:
        """Ask for an unstreamed answer."""
        if (retry := self._retry()) is not None:
            await self._run_manager.on_retry(retry)
        try:
            with self.waiting(target):
                question = self._question(target, begun)
                result = await self._aasked(question, target)
                if (unread := self._complete(question, result)) is not None:
                    await unread.aread(result.generations[0].message, self.usage(result))
                return result
        except Exception as error:
            self._last_error = error
            raise

    async def _aasked(self, question: Question, target: Target) -> ChatResult:
        client, model, messages, arguments, way = question
        if way is not None and way.whole is not None:
            counted = UsageMetadataCallbackHandler()
            return way.result(await aunseen(way.whole, messages, counted), counted)
        if not client.generates_async:
            run_manager = self._run_manager and self._run_manager.get_sync()
            return await in_thread(partial(self._asked, question, run_manager), target.route)
        if not client.plain:
            return await model._agenerate_with_cache(messages, self._stop, self._run_manager, **arguments)
        if client.atakes_run_manager:
            return await model._agenerate(messages, self._stop, self._run_manager, **arguments)
        return await model._agenerate(messages, self._stop, **arguments)

    def _complete(self, question: Question, result: ChatResult) -> Way | None:
        """Check that there is an answer, and that it has its end; returns how it is to be read, if it is."""
        way = question.way
        if way is not None and way.whole is not None:
            return None
        if not result.generations:
            msg = "the answer has no choices"
            raise TruncatedStreamError(msg)
        if question.client.streams_inside and self.finish_reason(result.generations[0]) is None:
            msg = "the answer ended without a finish reason"
            raise TruncatedStreamError(msg)
        return way

    def stream(self, target: Target, begun: Begun | None = None) -> Iterator[ChatGenerationChunk]:
        """Ask for a stream of chunks; one chunk from a model that can't stream."""
        if not self.streams(target):
            return iter([_as_chunk(self.call(target, begun))])
        _, model, messages, arguments, way = self._question(target, begun)
        if model.rate_limiter is not None:
            with self.waiting(target):
                model.rate_limiter.acquire(blocking=True)
        chunks = model._stream(messages, stop=self._stop, **arguments)
        return chunks if way is None or way.reader is None else _marked(chunks, way)

    async def astream(self, target: Target, begun: Begun | None = None) -> AsyncIterator[ChatGenerationChunk]:
        """Ask for a stream of chunks; one chunk from a model that can't stream."""
        if not self.streams(target):
            yield _as_chunk(await self.acall(target, begun))
            return
        client, model, messages, arguments, way = self._question(target, begun)
        if model.rate_limiter is not None:
            with self.waiting(target):
                await model.rate_limiter.aacquire(blocking=True)
        if client.streams_async:
            chunks = model._astream(messages, stop=self._stop, **arguments)
        else:
            chunks = stream_in_threads(partial(model._stream, messages, stop=self._stop, **arguments), target.route)
        unmarked = way if way is not None and way.reader is not None else None
        try:
            async for chunk in chunks:
                if unmarked is not None:
                    remember(chunk.message, Answer(unmarked))
                    unmarked = None
                yield chunk
        finally:
            close = getattr(chunks, "aclose", None)
            if close is not None:
                await close()

    def streams(self, target: Target) -> bool:
        """Whether a stream from there comes in chunks, and not as one whole answer."""
        client: Client = target.client
        tools = self._kwargs.get("tools")
        if self._binding is not None:
            try:
                way = self._binding.way(client)
            except Exception:  # noqa: BLE001  # what can't be bound there fails as an attempt, and not here
                return True
            if way.whole is not None:
                return False
            client, tools = way.client, tools or way.arguments.get("tools")
        return client.streams and not (client.off_for_tools and tools)

    def keeps_time(self, target: Target, seconds: float) -> bool:
        """Whether the client itself gives up within about `seconds`, whatever comes."""
        limit = target.client.gives_up_after
        return limit is not None and limit <= seconds + 1.0

    # --------------------------------------------------------------------------------------------------------- reading
    def has_content(self, chunk: ChatGenerationChunk) -> bool:
        """Whether a chunk carries text, reasoning, a tool call, a refusal or audio."""
        message = chunk.message
        content = message.content
        if isinstance(content, str):
            if content:
                return True
        elif any(_speaks(block) for block in content):
            return True
        if getattr(message, "tool_call_chunks", None) or getattr(message, "tool_calls", None):
            return True
        extras = message.additional_kwargs
        return bool(extras) and any(extras.get(key) for key in SPEAKING_EXTRAS)

    def finish_reason(self, chunk: Any) -> str | None:
        """Why the provider stopped, if this chunk (or answer) says so."""
        for told in (chunk.message.response_metadata, chunk.generation_info):
            if told:
                for key in FINISH_REASONS:
                    if told.get(key):
                        return str(told[key])
                if told.get("status") in {"completed", "incomplete"}:
                    return str(told["status"])
        return None

    def usage(self, answer: Any) -> Usage | None:
        """The tokens that an answer, or a chunk, reports."""
        message = answer.generations[0].message if isinstance(answer, ChatResult) else answer.message
        told = getattr(message, "usage_metadata", None)
        if not told:
            return None
        details = told.get("input_token_details") or {}
        return Usage(told.get("input_tokens") or 0, told.get("output_tokens") or 0, details.get("cache_read") or 0)

    def headroom(self, answer: ChatResult) -> tuple[Headroom, ...]:
        """The limits that the response's headers report, where the client was told to keep them."""
        generation = answer.generations[0]
        # LangChain moves them into the message only after `_generate`; with an inner cache that has happened already.
        told = generation.generation_info or {}
        headers = told.get("headers") or generation.message.response_metadata.get("headers")
        return read_headroom(headers, wall=self._wall()) if headers else ()

    def text(self, chunk: ChatGenerationChunk) -> str:
        """The plain text of a chunk."""
        return chunk.text

    def continuation(self, shown: Sequence[ChatGenerationChunk]) -> ChatContinuation | None:
        """What another stream needs to go on with these chunks; None: they are more than text, or part of a structured output."""
        if self._binding is not None and self._binding.structures:
            return None
        if self._first is not None and asks_for_json(self._kwargs, self._first.model):
            return None
        return ChatContinuation(shown) if can_continue(shown) else None

    def whole(self, target: Target, chunks: Sequence[ChatGenerationChunk]) -> ChatResult:
        """A stream's chunks as an unstreamed answer, read as one. Raises `InvalidOutputError` if it does not parse or validate."""
        result = generate_from_stream(iter(chunks))
        message = result.generations[0].message
        way = None if self._binding is None else self._binding.way(target.client)
        known = recall(chunks[0].message)
        if known is not None and known.read:  # it came whole, and was read when it came
            remember(message, known)
        elif way is not None and way.reader is not None and not awaits(way.reader):
            way.read(message, self.usage(result))
        return result


def _speaks(block: str | dict[str, Any]) -> bool:
    if isinstance(block, str):
        return bool(block)
    return any(value for key, value in block.items() if key not in SILENT_KEYS)


def _marked(chunks: Iterator[ChatGenerationChunk], way: Way) -> Iterator[ChatGenerationChunk]:
    """The same, and of the first it is known who says it: whoever reads a structured stream goes by that."""
    first = next(chunks, None)
    if first is not None:
        remember(first.message, Answer(way))
        yield first
        yield from chunks


def _as_chunk(result: ChatResult) -> ChatGenerationChunk:
    generation = result.generations[0]
    message: Any = generation.message
    if result.llm_output:  # as LangChain does with a whole answer: the finish reason and the model's name stand here
        message.response_metadata = {**result.llm_output, **message.response_metadata}
    if isinstance(message, AIMessage) and not isinstance(message, AIMessageChunk):
        known, extras = recall(message), message.additional_kwargs
        message = AIMessageChunk(**{**message.model_dump(exclude={"type"}), "chunk_position": "last"})
        message.additional_kwargs = extras  # a dump makes dicts of the objects in it
        if known is not None:
            remember(message, known)
    return ChatGenerationChunk(message=message, generation_info=generation.generation_info)
