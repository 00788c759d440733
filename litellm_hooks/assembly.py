"""The engine's parts for one Router: store, observers, and a policy for each set of candidates.

Rules of this file: targets and policies are made once for what they are made of, and kept; a deployment whose parameters change is another
target, with the same keys and so the same state. Threads make and let go of them one at a time, and find what is kept without waiting.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from langchain_resilient.engine.observe.audience import Audience
from langchain_resilient.engine.policy import Gate, Policy, SystemClock, Target
from langchain_resilient.engine.store.forks import ForkLock
from langchain_resilient.engine.store.opening import open_store
from litellm_hooks.candidates import Rungs
from litellm_hooks.deployments import Candidate, target_of, weights_of
from litellm_hooks.settings import Settings

MOST_KEPT = 512
"""Policies, and targets, that are kept: combinations of a Router's deployments, of which filters make many and a day sees few."""


class _Made(NamedTuple):
    target: Target
    params: Mapping[str, Any]
    """What it was made of."""
    info: Mapping[str, Any]

    def is_of(self, candidate: Candidate) -> bool:
        """Whether it would be made of this candidate again."""
        return (
            self.params == candidate.deployment["litellm_params"]
            and self.info == (candidate.deployment.get("model_info") or {})
            and self.target.client.overrides == candidate.overrides
        )


class Assembly:
    """The engine's parts.

    Args:
        settings: The user's.
    """

    def __init__(self, settings: Settings) -> None:
        self.clock = SystemClock()
        self.store = open_store(settings.backend, settings.namespace)
        self.whole = settings.hedge is not None or settings.timeouts.watch_calls
        self._settings = settings
        self._gate = Gate(settings.max_pending)
        self._audience = Audience(self.clock, settings.observers)
        self._first: Policy | None = None
        self._targets: dict[tuple[Any, ...], _Made] = {}
        self._policies: dict[tuple[Target, ...], Policy] = {}
        self._lock = ForkLock(
            threading.RLock
        )  # an observer is told of new targets within it, and may ask the Router itself

    def policy(self, rungs: Rungs) -> Policy:
        """The policy for these candidates."""
        targets = tuple([target for rung, candidates in enumerate(rungs) for target in self._rung(rung, candidates)])
        policy = self._policies.get(targets)
        if policy is None:
            with self._lock.current:
                policy = self._policies.get(targets)  # another thread may have made it meanwhile
                if policy is None:
                    policy = self._made(targets)
                    _keep(self._policies, targets, policy)
        return policy

    def _made(self, targets: tuple[Target, ...]) -> Policy:
        settings = self._settings
        self._audience.watch(self.store, targets, self._gate)
        if self._first is None:
            self._first = Policy(
                targets=targets, routing=settings.routing, total=settings.timeouts.total, classifier=settings.classifier,
                retry=settings.retry, observe=self._audience, heard=self._audience, gate=self._gate, clock=self.clock,
                on_interruption=settings.on_interruption, hedge=settings.hedge,
            )  # fmt: skip
            return self._first
        return replace(self._first, targets=targets, first_choices={})

    def _rung(self, rung: int, candidates: tuple[Candidate, ...]) -> list[Target]:
        weights = weights_of([candidate.deployment for candidate in candidates])
        return [
            self._target(candidate, rung, place, weight)
            for place, (candidate, weight) in enumerate(zip(candidates, weights, strict=True))
        ]

    def _target(self, candidate: Candidate, rung: int, place: int, weight: float) -> Target:
        key = (candidate.group, candidate.id, candidate.sure, rung, place, weight)
        made = self._targets.get(key)
        if made is None or not made.is_of(candidate):
            with self._lock.current:
                made = self._targets.get(key)
                if made is None or not made.is_of(candidate):
                    made = self._made_of(candidate, rung, place, weight)
                    _keep(self._targets, key, made)
        return made.target

    def _made_of(self, candidate: Candidate, rung: int, place: int, weight: float) -> _Made:
        target = target_of(candidate, self._settings, rung=rung, place=place, weight=weight)
        params, info = candidate.deployment["litellm_params"], candidate.deployment.get("model_info") or {}
        return _Made(target, dict(params), dict(info))


def _keep(kept: dict[Any, Any], key: Any, value: Any) -> None:
    kept[key] = value
    while len(kept) > MOST_KEPT:
        del kept[next(iter(kept))]
