"""One model call of an agent: its plan, and each attempt through the agent's own handler.

Rules of this file: the engine's plan decides who is asked and how often, and ends at the first failure after a shown token, which reaches the
caller alone. An async attempt keeps its limit itself, as the tokens that prolong it are heard here; a sync one has only its client's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple, cast

from langchain.agents.middleware.types import ModelRequest
from langchain.agents.structured_output import StructuredOutputError
from langgraph.errors import GraphBubbleUp

from langchain_resilient.call import Engine, options_of
from langchain_resilient.engine.drive.cancelling import Limit
from langchain_resilient.engine.effects import Admit, Call, Look, Plan, Sleep
from langchain_resilient.engine.errors import AttemptTimeoutError, StreamInterruptedError, TruncatedStreamError
from langchain_resilient.engine.policy import Target
from langchain_resilient.middleware.asked import Answer, Asked, Result, as_answer
from langchain_resilient.middleware.shown import Shown, listening

NO_LIMIT = 86_400.0
"""Seconds; for the driver, where the attempt keeps its limit itself. Finite: not every event loop takes an infinite timer."""
NEXT_STEPS = (Look, Admit, Sleep)
"""What a plan asks for on the way to a further attempt."""


class _Limit(NamedTuple):
    seconds: float = NO_LIMIT
    limited_by: str = "response"


class Attempts:
    """One model call of an agent: what the drivers ask for whole answers."""

    _limit = _Limit()
    _final: Exception | None = None
    """What reaches the caller, where a failure came after a shown token."""

    def __init__(self, engine: Engine, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], Any]) -> None:
        self._handler = handler
        self._asked = Asked(request, engine.stop)
        with options_of(None):  # an agent's configuration is known to whatever runs inside it
            self._call = engine.call(self._asked.messages, None, None, request.model_settings)

    def plan(self, *, keeps_limit: bool) -> Plan:
        """The plan of the request, which ends at the first failure after a shown token.

        Args:
            keeps_limit: Whether attempts end at their limit by themselves, so that the driver need not end them.
        """
        plan = self._call.plan
        reply: Any = None
        error: BaseException | None = None
        while True:
            try:
                effect = plan.send(reply) if error is None else plan.throw(error)
            except StopIteration as done:
                return done.value
            except Exception:
                if self._final is not None:
                    raise self._final from self._final.__cause__
                raise
            reply = error = None
            if self._final is not None and isinstance(effect, NEXT_STEPS):
                error = self._final
                continue
            if keeps_limit and isinstance(effect, Call):
                self._limit = _Limit(effect.limit, effect.limited_by)
                effect = effect._replace(limit=NO_LIMIT)
            try:
                reply = yield effect
            except BaseException as raised:  # noqa: BLE001  # the plan decides what it means
                error = raised

    def result(self, answer: Answer) -> Result:
        """What the handler returned, with its decision record if that was asked for."""
        self._call.stamped(answer)
        return cast("Result", answer.result)

    # --------------------------------------------------------------------------------------------------------- calling
    def keeps_time(self, target: Target, seconds: float) -> bool:
        """A graph's context, and what its nodes hold, belong to the caller's thread: no other may run it."""
        return True

    def call(self, target: Target) -> Answer:
        """One attempt."""
        request = self._request(target)
        with self._attempt(target):
            return as_answer(self._handler(request))

    async def acall(self, target: Target) -> Answer:
        """One attempt, for as long as its limit allows or tokens keep coming."""
        request, loop, limit = self._request(target), asyncio.get_running_loop(), self._limit
        with self._attempt(target) as shown:
            try:
                with Limit(limit.seconds) as scope:
                    # By the loop: a model without async streaming tells its tokens from a thread.
                    shown.prolong = partial(loop.call_soon_threadsafe, scope.prolong, target.idle)
                    return as_answer(await self._handler(request))
            except TimeoutError as error:
                if not scope.expired:
                    raise
                limited_by, seconds = ("idle", target.idle) if shown.said else (limit.limited_by, limit.seconds)
                raise AttemptTimeoutError(limited_by, seconds) from error

    def _request(self, target: Target) -> ModelRequest[Any]:
        request, changes = self._asked.of(target.client)
        self._call.upstream.note_changes(target, changes)
        return request

    @contextmanager
    def _attempt(self, target: Target) -> Iterator[Shown]:
        reader = self._call.upstream
        with listening(reader, target.client.model) as shown:
            try:
                with reader.waiting(target):
                    yield shown
                if shown.streamed and target.sends_finish_reason and shown.seen.finish_reason is None:
                    raise TruncatedStreamError("the stream ended without a finish reason")
            except GraphBubbleUp:
                raise
            except Exception as error:
                if not shown.shown:
                    raise
                self._final = error
                # One that does not parse was whole: nothing broke, and its own exception says what is wrong with it.
                if isinstance(error, StructuredOutputError):
                    raise
                self._final = _interrupted(target, shown, error)
                raise self._final from error


def _interrupted(target: Target, shown: Shown, error: Exception) -> StreamInterruptedError:
    message = (
        f"{target.name}: the model call failed after {len(shown.seen.text)} chunks were shown ({type(error).__name__})"
    )
    return StreamInterruptedError(message, partial="".join(shown.seen.text), usage=shown.seen.usage)
