"""One request of a Router's user, as the engine's `Upstream`: how it is put to one deployment, and how answers are read.

Rules of this file: an attempt is the Router's own call of one deployment, with its retries and fallbacks off: logs, spend, budgets and every
other callback see what they always see. Attempts may run side by side, so each has a copy of what LiteLLM writes into.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

from litellm.litellm_core_utils.asyncify import run_async_function

from langchain_resilient.engine.classify import Headroom, read_headroom
from langchain_resilient.engine.effects import Begun
from langchain_resilient.engine.errors import IneligibleError, TruncatedStreamError
from langchain_resilient.engine.events import Usage
from langchain_resilient.engine.policy import Target
from litellm_hooks import chunks
from litellm_hooks.chunks import ChunkContinuation
from litellm_hooks.deployments import Candidate
from litellm_hooks.errors import callers_patience
from litellm_hooks.expecting import prompt_tokens
from litellm_hooks.readers import CHAT, Reader
from litellm_hooks.router import WRITTEN

ALONE = {
    "num_retries": 0, "disable_fallbacks": True, "fallbacks": [], "context_window_fallbacks": [], "content_policy_fallbacks": [],
    "max_retries": 0,
}  # fmt: skip
"""One attempt, of one deployment."""
NOTE = "resilience"
"""Under which a request's metadata tell how it went: `provider` and `attempts`, or `attempts` and perhaps `retry_after` (seconds)."""


class Came(NamedTuple):
    """Where an answer came from."""

    first: Any
    """It, or a stream's first chunk."""
    source: Any
    """LiteLLM's own answer, or stream."""
    target: Target
    written: Mapping[str, Any]
    """What LiteLLM wrote into the attempt's copies, by argument."""


class RouterUpstream:
    """One request.

    Args:
        call: The Router's own sync call.
        acall: The Router's own async call.
        chosen: Within it the Router is told this deployment.
        request: The call's arguments, `model` included.
        wall: Seconds since the epoch.
        reader: How the route's answers are read.
        granted: A candidate's deployment as the Router hands it out for this request; None: it may not answer.
        tokens: What `input_tokens` gives (≥ 1), where that was counted before; None: nobody has.
    """

    def __init__(
        self,
        call: Callable[..., Any],
        acall: Callable[..., Any],
        chosen: Callable[[Candidate], AbstractContextManager[None]],
        request: Mapping[str, Any],
        wall: Callable[[], float],
        reader: Reader = CHAT,
        granted: Callable[[Candidate], Awaitable[dict[str, Any] | None]] | None = None,
        tokens: int | None = None,
    ) -> None:
        self._call = call
        self._acall = acall
        self._chosen = chosen
        self._request = request
        self._wall = wall
        self._reader = reader
        self._granted = granted
        self._tokens = tokens
        self._came: list[Came] = []
        self.attempts = 0
        """Attempts begun."""

    def input_tokens(self) -> int:
        """A local estimate of the prompt, 10 % on the safe side; counted once."""
        if self._tokens is None:
            self._tokens = prompt_tokens(self._request)
        return self._tokens

    # --------------------------------------------------------------------------------------------------------- calling
    def _asked(self, candidate: Candidate, begun: Begun | None, *, stream: bool) -> dict[str, Any]:
        """An attempt's arguments."""
        asked = {**self._request, **candidate.overrides, **ALONE, "model": candidate.group, "stream": stream}
        asked.pop("specific_deployment", None)
        for name in WRITTEN:
            if isinstance(asked.get(name), dict):
                asked[name] = {key: value for key, value in asked[name].items() if key != NOTE}
        self.attempts += 1
        if self.attempts > 1:
            # It tells of one attempt only, and of that the first outcome; without one LiteLLM makes a new one of the same call id.
            asked.pop("litellm_logging_obj", None)
        if begun is not None:
            asked["messages"] = chunks.asked_to_continue(asked["messages"], begun)
        return asked

    async def _allowed(self, candidate: Candidate) -> Candidate:
        """A candidate that may answer; raises `IneligibleError` for one that may not."""
        if candidate.sure or self._granted is None:
            return candidate
        deployment = await self._granted(candidate)
        if deployment is None:
            msg = f"{candidate.group}: LiteLLM's filters leave deployment {candidate.id} out"
            raise IneligibleError(msg)
        return candidate._replace(deployment=deployment)

    def _allowed_now(self, candidate: Candidate) -> Candidate:
        # LiteLLM's bridge takes a thread, which a healthy call is spared.
        found: Candidate = candidate if candidate.sure else run_async_function(self._allowed, candidate)
        return found

    def call(self, target: Target) -> Any:
        """Ask for an unstreamed answer."""
        candidate = self._allowed_now(target.client)
        asked = self._asked(candidate, None, stream=False)
        with self._chosen(candidate), callers_patience(asked):
            answer = self._call(**asked)
        self._came.append(_came(answer, answer, target, asked))
        return self._checked(answer)

    async def acall(self, target: Target) -> Any:
        """Ask for an unstreamed answer."""
        candidate = await self._allowed(target.client)
        asked = self._asked(candidate, None, stream=False)
        with self._chosen(candidate), callers_patience(asked):
            answer = await self._acall(**asked)
        self._came.append(_came(answer, answer, target, asked))
        return self._checked(answer)

    def stream(self, target: Target, begun: Begun | None = None) -> Iterator[Any]:
        """Ask for a stream of chunks; with `begun`, for the rest of an answer."""
        candidate = self._allowed_now(target.client)
        asked = self._asked(candidate, begun, stream=True)
        with self._chosen(candidate), callers_patience(asked):
            opened = self._call(**asked)
        try:
            with callers_patience(asked):
                for place, chunk in enumerate(opened):
                    if not place:
                        self._came.append(_came(chunk, opened, target, asked))
                    yield self._checked(chunk)
        finally:
            _close(opened)

    async def astream(self, target: Target, begun: Begun | None = None) -> AsyncIterator[Any]:
        """Ask for a stream of chunks; with `begun`, for the rest of an answer."""
        candidate = await self._allowed(target.client)
        asked = self._asked(candidate, begun, stream=True)
        with self._chosen(candidate), callers_patience(asked):
            opened = await self._acall(**asked)
        reader, known, ended = self._reader, False, False
        try:
            with callers_patience(asked):
                async for chunk in opened:
                    if not known:
                        known = True
                        self._came.append(_came(chunk, opened, target, asked))
                    ended = ended or (reader.finishes and reader.finish_reason(chunk) is not None)
                    yield self._checked(chunk)
            if reader.finishes and not ended:
                msg = "the stream ended without saying why"
                raise TruncatedStreamError(msg)
        finally:
            await opened.aclose()

    def _checked(self, came: Any) -> Any:
        """An answer or a chunk; raises the failure that it tells."""
        failure = self._reader.failure(came)
        if failure is not None:
            raise failure
        return came

    def source_of(self, first: Any) -> Came:
        """Where an answer, or the first chunk that is shown, came from: of two that race, who won."""
        return self._came_with(first) or self._came[-1]

    def _came_with(self, first: Any) -> Came | None:
        return next((came for came in self._came if came.first is first), None)

    def streams(self, target: Target) -> bool:
        """Whether a stream from there comes in chunks."""
        return True

    def keeps_time(self, target: Target, seconds: float) -> bool:
        """LiteLLM's own limits are of the gaps between bytes, so a sync call needs a thread."""
        return False

    # --------------------------------------------------------------------------------------------------------- reading
    def changes(self, target: Target) -> tuple[str, ...]:
        """What was converted is LiteLLM's own affair."""
        return ()

    def has_content(self, chunk: Any) -> bool:
        """Whether a chunk carries what the user waits for."""
        return self._reader.has_content(chunk)

    def finish_reason(self, chunk: Any) -> str | None:
        """Why the provider stopped, if this chunk says so."""
        return self._reader.finish_reason(chunk)

    def usage(self, answer: Any) -> Usage | None:
        """The tokens that an answer, or a chunk, reports."""
        return self._reader.usage(answer)

    def headroom(self, answer: Any) -> tuple[Headroom, ...]:
        """The limits that the response's headers report."""
        headers = (getattr(answer, "_hidden_params", None) or {}).get("headers")
        return read_headroom(headers, wall=self._wall()) if headers else ()

    def text(self, chunk: Any) -> str:
        """The plain text of a chunk."""
        return self._reader.text(chunk)

    def continuation(self, shown: Sequence[Any]) -> ChunkContinuation | None:
        """What another stream needs to go on with these chunks; None: they hold what can't be continued."""
        return self._reader.continuation(shown, self._request)

    def whole(self, target: Target, chunks: Sequence[Any]) -> Any:
        """A stream's chunks as the unstreamed answer that they are; asked for only on routes that can tell."""
        answer = self._reader.whole(chunks, self._request)
        came = self._came_with(chunks[0]) if chunks else None
        if came is not None:
            self._came.append(came._replace(first=answer))
        return answer


def _came(first: Any, source: Any, target: Target, asked: Mapping[str, Any]) -> Came:
    return Came(first, source, target, {name: asked[name] for name in WRITTEN if isinstance(asked.get(name), dict)})


def _close(opened: Any) -> None:
    if hasattr(opened, "close"):
        opened.close()
        return
    # Older LiteLLM's sync streams have no `close`: what they read from has, and so has the connection behind that, but not what lies between.
    reading = opened.completion_stream
    between = inspect.getgeneratorlocals(reading).get("model_response") if inspect.isgenerator(reading) else None
    for one in (reading, getattr(between, "completion_stream", None)):
        close = getattr(one, "close", None)
        if close is not None:
            close()
