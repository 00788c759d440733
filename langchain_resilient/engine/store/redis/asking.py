"""An admission, as Redis is asked for it and as the reply is understood.

Rules of this file: no state, no lock, no clock; it puts together what the plan asks, what this process knows of each candidate, and what
the script answered. What an answer changes in this process, the store does.
"""

from __future__ import annotations

from typing import NamedTuple

from langchain_resilient.engine import budget
from langchain_resilient.engine.effects import Admit, Ticket
from langchain_resilient.engine.policy import Target
from langchain_resilient.engine.store.redis import wire
from langchain_resilient.engine.store.redis.lines import Standing
from langchain_resilient.engine.store.state import PROVEN_STREAMS, Route


class Asked(NamedTuple):
    """An admission under way."""

    ask: Admit
    candidates: tuple[wire.Candidate, ...]
    explore: int
    """The place of the one to explore, from 1; 0: none."""

    @property
    def targets(self) -> list[Target]:
        """All who are asked, in this order."""
        return [candidate.target for candidate in self.candidates]


def considered(ask: Admit) -> tuple[tuple[Target, ...], int]:
    """Those who are asked, with the one to explore among them or behind them; and its place, from 1 (0: none)."""
    if ask.explore is None:
        return ask.targets, 0
    targets = ask.targets if ask.explore in ask.targets else (*ask.targets, ask.explore)
    return targets, targets.index(ask.explore) + 1


def candidate(target: Target, route: Route, ask: Admit, now: int) -> wire.Candidate:
    """What this process adds to a candidate."""
    affords = not ask.pays or budget.spend(route.budget) is not None
    return wire.Candidate(target, route.cost(target, ask, now), affords, ask.spare and route.unfit(target, ask, now))


def operation(keys: wire.Keys, name: str, asked: Asked, interval: int, standing: Standing | None) -> wire.Operation:
    """An admission for the script.

    Args:
        keys: The namespace's.
        name: The attempt, named so in the whole fleet.
        asked: The admission.
        interval: The least time between two looks at the one to explore, µs.
        standing: Where the request stands already.
    """
    placed, entry = 0, ""
    if standing is not None:
        accounts = [target.account for target in asked.ask.targets]
        account = standing.place.target.account
        placed, entry = accounts.index(account) + 1 if account in accounts else 0, standing.entry
    found = wire.admit(
        keys, asked.ask, name, asked.candidates, explore=asked.explore, interval=interval, placed=placed, entry=entry
    )
    return found._replace(about=asked)


def ticket(asked: Asked, granted: wire.Granted, route: Route) -> Ticket:
    """What was granted, in the plan's words."""
    ask, chosen = asked.ask, asked.candidates[granted.place]
    target = chosen.target
    return Ticket(
        ask.attempt, target, granted.generation, granted.probe, granted.raced,
        granted.probe or target.limits.concurrency is not None, chosen.cost, granted.charged, ask.stream, granted.now,
        route.finishes >= PROVEN_STREAMS, granted.half_opens, granted.to_end, wire.refusals(granted.passed, ask.targets),
    )  # fmt: skip
