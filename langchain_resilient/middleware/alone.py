"""The chat model's policy as an agent's call needs it: one attempt at a time, and what only an agent raises is judged.

Rules of this file: what the policy remembers and counts is shared with the chat model, and one policy has one twin. The user's classifier is
asked of a provider's own error, never of what the graph says.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

from langchain.agents.structured_output import StructuredOutputError
from langgraph.errors import GraphBubbleUp

from langchain_resilient.engine.classify import ErrorKind, Failure, classify
from langchain_resilient.engine.errors import StreamInterruptedError
from langchain_resilient.engine.policy import Classifier, Policy

CUT = frozenset({ErrorKind.SERVER_ERROR, ErrorKind.OVERLOADED, ErrorKind.UNKNOWN, ErrorKind.TIMEOUT})
"""Failures that, after a shown token, are an interrupted stream. Others say more than that (a rate limit, say)."""

_ALONE: WeakKeyDictionary[Policy, Policy] = WeakKeyDictionary()


def alone(policy: Policy) -> Policy:
    """The same policy with one attempt at a time; what it remembers and counts is shared."""
    found = _ALONE.get(policy)
    if found is None:
        targets = tuple([replace(target, client=_as_given(target.client)) for target in policy.targets])
        judge = partial(judged, policy.classifier, policy.clock.wall)
        found = _ALONE[policy] = replace(policy, targets=targets, races=False, classifier=judge)
    return found


def _as_given(client: Any) -> Any:
    """A model that was made with `streaming=True` streams here: the chat model takes that over, but an agent calls it itself."""
    return replace(client, model=client.model.model_copy(update={"streaming": True})) if client.forced else client


def judged(own: Classifier | None, wall: Callable[[], float], error: BaseException) -> ErrorKind | Failure | None:
    """What only an agent raises; the rest is left to the user's classifier and ours."""
    if isinstance(error, GraphBubbleUp):
        return ErrorKind.CANCELLED
    if isinstance(error, StreamInterruptedError) and error.__cause__ is not None:
        told = own(error.__cause__) if own is not None else None
        failure = told if isinstance(told, Failure) else classify(error.__cause__, wall=wall())
        kind = ErrorKind(told) if isinstance(told, str) else failure.kind
        return failure._replace(kind=ErrorKind.STREAM_INTERRUPTED if kind in CUT else kind)
    told = own(error) if own is not None else None
    return ErrorKind.INVALID_OUTPUT if told is None and isinstance(error, StructuredOutputError) else told
