"""`check --ping`: one tiny real request to each provider, all at once.

Rules of this file: no retries and no fallback, so that each provider answers for itself; through the same client, classification and
limits as any call.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, NamedTuple

from langchain_resilient.chat_model import ResilientChatModel
from langchain_resilient.cli.decision import outcome
from langchain_resilient.cli.session import Session
from langchain_resilient.cli.sources import policy_of
from langchain_resilient.cli.telling import said
from langchain_resilient.engine.events import Decision
from langchain_resilient.engine.observe.capture import capture_decisions

QUESTION = "Reply with the word ok."
MOST_TOKENS = 16
"""The fewest that every provider takes."""
MOST_OF_EACH = 160


class Pinged(NamedTuple):
    """How one provider answered."""

    provider: str
    ok: bool
    kind: str
    outcome: str
    """The kind, with its status or limit."""
    seconds: float
    message: str
    """What went wrong, in the provider's words."""


async def ping_all(session: Session, settings: Mapping[str, Any], deadline: float) -> list[Pinged]:
    """Ask every provider of the settings, which are known to be valid.

    Args:
        session: Keeps secrets out of messages.
        settings: The model's keyword arguments.
        deadline: Seconds for each.
    """
    models = [
        ResilientChatModel(**{**settings, "providers": [provider], "max_retries": 0, "namespace": f"ping {index}"})
        for index, provider in enumerate(settings["providers"])
    ]
    return list(await asyncio.gather(*(_ping(session, model, deadline) for model in models)))


async def _ping(session: Session, model: ResilientChatModel, deadline: float) -> Pinged:
    name = policy_of(model).targets[0].name
    with capture_decisions() as decisions:
        try:
            await model.ainvoke(QUESTION, config={"configurable": {"deadline": deadline}}, max_tokens=MOST_TOKENS)
        except Exception as error:
            if not decisions:
                raise
            return _pinged(name, decisions[-1], session.redactor.line(said(error), MOST_OF_EACH))
    return _pinged(name, decisions[-1], "")


def _pinged(name: str, decision: Decision, message: str) -> Pinged:
    if not decision.attempts:
        return Pinged(
            name, ok=False, kind=decision.outcome, outcome=decision.outcome, seconds=decision.seconds, message=message
        )
    last = decision.attempts[-1]
    return Pinged(name, last.kind == "ok", str(last.kind), outcome(last), decision.seconds, message)
