"""What each kind of failure would lead to, found out by playing it.

Rules of this file: nothing here knows the rules. Each failure is played at each provider through the real plan, the real policy and a
store of its own, on a clock that only moves when somebody waits, and what happened is read from the decision record, the events and the
store. So the table of `check` can't disagree with the engine: it is the engine's.

How a scene is played
---------------------
All providers have answered before, a day ago: a healthy provider fails, not one that nobody knows. Who would be asked before it is out
(forced open). Then it fails, again and again, while everybody else answers; the first request is what one caller sees, the further ones
show when the circuit opens or the credential is left alone. Randomness stands at its most, so a wait can be told as "up to". Limits are
left out, as the repetitions would use them up.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import replace
from itertools import count
from typing import Any, NamedTuple

from langchain_resilient.engine.classify import ErrorKind, Failure, Headroom
from langchain_resilient.engine.drive import Hands, run, stream
from langchain_resilient.engine.effects import Begun, Request
from langchain_resilient.engine.events import (
    Attempt,
    Attempted,
    CircuitChanged,
    CredentialBlocked,
    Decision,
    Event,
    Usage,
)
from langchain_resilient.engine.plan import answer
from langchain_resilient.engine.policy import Gate, Policy, Target
from langchain_resilient.engine.quota import RateLimits
from langchain_resilient.engine.store.memory import MemoryStore
from langchain_resilient.testing.clock import FakeClock

MOST = 1 - 2**-53
"""The largest number below 1."""
HEALTHY_ANSWERS = 5
A_DAY = 86_400.0
SHORTEST_RUN, LONGEST_RUN = 10, 1000
"""Requests that are played, at least and at most, to see whether anything is done about a failure that goes on."""
NOT_PLAYED = frozenset({ErrorKind.CANCELLED})
"""No failure of a provider: the caller is gone."""
OWN_ERROR = "the provider's own exception"
NOT_OPENED = (None, None)
REQUESTS = count(1)


class Case(NamedTuple):
    """One failure to play."""

    kind: ErrorKind
    retry_after: float | None = None
    """What the provider asks for."""
    midway: bool = False
    """Whether it happens after a stream's first content."""


class Scene(NamedTuple):
    """What one failing provider led to."""

    attempts: tuple[Attempt, ...]
    """Of the first request."""
    answered_by: str | None
    caller_gets: str | None
    """The class of the exception that reached the caller of the first request, or `OWN_ERROR`; None: an answer."""
    blocked_for: float | None
    """Seconds for which its credential is left alone."""
    blocked_after: int
    """Failures in a row that it took."""
    opens_after: int | None
    """Failures in a row after which its circuit opens; None: it does not."""
    opens_for: float | None
    """Seconds, at most, until it is tried again."""


class Act(NamedTuple):
    """One failure of one provider."""

    provider: str
    case: Case
    beside: Scene | None
    """While those after it answer; None if there are none."""
    alone: Scene
    """When nobody else can be asked."""


def cases(policy: Policy) -> tuple[Case, ...]:
    """Every kind of failure, and those that a hint or the moment changes."""
    short = policy.retry.max_retry_after
    found = [Case(kind) for kind in ErrorKind if kind not in NOT_PLAYED]
    hinted = [Case(ErrorKind.RATE_LIMITED, seconds) for seconds in sorted({short, 60.0}) if seconds > 0]
    return (*found[:1], *hinted, *found[1:], Case(ErrorKind.STREAM_INTERRUPTED, midway=True))


def rehearse(policy: Policy) -> tuple[Act, ...]:
    """Play every case at every provider."""
    return tuple(_act(policy, target, case) for target in policy.targets for case in cases(policy))


def _act(policy: Policy, target: Target, case: Case) -> Act:
    names = {other.name for other in policy.targets}
    alone = Stage(policy, target.name, case, names - {target.name}).play()
    beside = _beside(policy, target, case) if len(names) > 1 else None
    return Act(target.name, case, beside, alone or _UNPLAYABLE)


def _beside(policy: Policy, target: Target, case: Case) -> Scene | None:
    """The scene with whoever is asked after the provider; None if it is the last."""
    out: set[str] = set()
    while len(out) < len(policy.targets) - 1:
        stage = Stage(policy, target.name, case, out)
        scene = stage.play()
        if scene is not None:
            return scene
        out.add(stage.asked_first)
    return None


_UNPLAYABLE = Scene((), None, None, blocked_for=None, blocked_after=0, opens_after=None, opens_for=None)


class PlayedError(Exception):
    """The failure that is played."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(f"played: {failure.kind}")
        self.failure = failure


class Stage:
    """One provider that fails, on a clock and a store of its own.

    Args:
        policy: The real one.
        failing: The provider's name.
        case: How it fails.
        out: Who can't be asked.
    """

    def __init__(self, policy: Policy, failing: str, case: Case, out: set[str]) -> None:
        self._clock = FakeClock()
        self._store = MemoryStore(self._clock.now, lambda: MOST)
        self._failures = 0
        self._blocked: tuple[float, int] | None = None
        self._opened: tuple[int | None, float | None] = NOT_OPENED
        targets = tuple(_without_limits(target) for target in policy.targets)
        self._policy = replace(
            policy, targets=targets, clock=self._clock, rand=lambda: MOST, gate=Gate(), observe=self._observe,
            heard=frozenset({Attempted, CircuitChanged, CredentialBlocked}), last_errors={}, first_choices={},
            no_prefill=set(),
            classifier=lambda error: error.failure if isinstance(error, PlayedError) else None,
        )  # fmt: skip
        self._target = next(target for target in targets if target.name == failing)
        self._case = case
        self._out = frozenset(out)
        self.asked_first = failing

    def play(self) -> Scene | None:
        """The scene; None if somebody else is asked first (`asked_first` says who)."""
        self._remember_good_times()
        for target in self._policy.targets:
            self._store.override(target, "forced_open" if target.name in self._out else None)
        decision, error = self._ask(self._case)
        self.asked_first = decision.attempts[0].provider if decision.attempts else self._target.name
        if self.asked_first != self._target.name:
            return None
        # A provider's own 429 blocks without an event, and for less the longer its caller has waited since.
        blocked, blocked_after = self._status("blocked_for"), self._failures
        self._fail_on()
        if self._blocked is not None:
            blocked, blocked_after = self._blocked
        gets = None if error is None else OWN_ERROR if isinstance(error, PlayedError) else type(error).__name__
        return Scene(decision.attempts, decision.provider, gets, blocked, blocked_after, *self._opened)

    def _remember_good_times(self) -> None:
        """Everybody has answered, each on its own, and long ago."""
        for known in self._policy.targets:
            for target in self._policy.targets:
                self._store.override(target, None if target is known else "forced_open")
            for _ in range(HEALTHY_ANSWERS):
                self._ask(None)
        self._clock.advance(A_DAY)

    def _fail_on(self) -> None:
        """Fail until something is done about it, or nothing will be."""
        for _ in range(min(LONGEST_RUN, max(SHORTEST_RUN, self._target.circuit.failure_threshold))):
            before = self._failures
            if self._blocked is not None or self._opened != NOT_OPENED:
                return
            self._ask(self._case)
            if self._failures == before:
                return  # it is not even asked

    def _observe(self, event: Event) -> None:
        """Count the failures, and note what was done about them when it is done."""
        if getattr(event, "provider", None) != self._target.name:
            return
        if isinstance(event, Attempted) and event.kind != "ok":
            self._failures += 1
        elif isinstance(event, CredentialBlocked):
            self._blocked = (event.seconds, self._failures)
        elif isinstance(event, CircuitChanged) and event.after == "open" and self._opened == NOT_OPENED:
            self._opened = (self._failures, self._status("probes_in"))

    def _status(self, name: str) -> float | None:
        value = self._store.status(self._target)[name]
        return float(value) if isinstance(value, int | float) else None

    def _ask(self, case: Case | None) -> tuple[Decision, Exception | None]:
        """One request; how it was decided, and what its caller got instead of an answer."""
        midway = case is not None and case.midway
        actors = Actors(self._policy, self._target.name, case, self._clock)
        kept: list[Decision] = []
        request = Request(next(REQUESTS), actors, midway, told=kept.append)
        hands = Hands(self._store, actors, self._clock)
        try:
            if midway:
                for _ in stream(answer(request, self._policy), hands):
                    pass
            else:
                run(answer(request, self._policy), hands)
        except Exception as error:  # noqa: BLE001  # what the caller would get is what is asked
            return kept[0], error
        return kept[0], None


def _without_limits(target: Target) -> Target:
    limits = RateLimits(on_limit=target.limits.on_limit, max_wait=target.limits.max_wait)
    return replace(target, limits=limits)


class Actors:
    """Stands in for the providers: one fails, the others answer with their names. An `Upstream`."""

    def __init__(self, policy: Policy, failing: str, case: Case | None, clock: FakeClock) -> None:
        self._total = policy.total
        self._failing = failing
        self._case = case
        self._clock = clock

    def call(self, target: Target) -> str:
        """An answer, or the failure."""
        if self._case is not None and target.name == self._failing:
            raise self._failure(target, self._case)
        return target.name

    def _failure(self, target: Target, case: Case) -> PlayedError:
        if case.kind is not ErrorKind.TIMEOUT:
            return PlayedError(Failure(case.kind, case.retry_after))
        # Silence lasts as long as its limit, and a deadline that leaves less is nobody's fault but the caller's.
        limit = target.response(None)
        self._clock.advance(min(limit, self._total))
        return PlayedError(Failure(case.kind, limit="response" if limit < self._total else "deadline"))

    async def acall(self, target: Target) -> str:
        """An answer, or the failure."""
        return self.call(target)

    def stream(self, target: Target, begun: Begun | None = None) -> Iterator[str]:
        """Some content, and then the end or the failure."""
        yield target.name if begun is None else f"{begun.anchor or ''}{target.name}"
        self.call(target)
        yield ""

    async def astream(self, target: Target, begun: Begun | None = None) -> AsyncIterator[str]:
        """Some content, and then the end or the failure."""
        for chunk in self.stream(target, begun):
            yield chunk

    def streams(self, target: Target) -> bool:
        """Everybody does."""
        return True

    def keeps_time(self, target: Target, seconds: float) -> bool:
        """Nothing here takes any time."""
        return True

    def has_content(self, chunk: str) -> bool:
        """A name is content."""
        return bool(chunk)

    def finish_reason(self, chunk: str) -> str | None:
        """The empty chunk ends."""
        return None if chunk else "stop"

    def usage(self, answer: Any) -> Usage | None:
        """Nothing is counted."""
        return None

    def headroom(self, answer: Any) -> tuple[Headroom, ...]:
        """Nothing is limited."""
        return ()

    def changes(self, target: Target) -> tuple[str, ...]:
        """Nothing is converted."""
        return ()

    def text(self, chunk: str) -> str:
        """All of it."""
        return chunk

    def continuation(self, shown: Sequence[str]) -> Names:
        """Names may follow one another."""
        return Names("".join(shown))

    def whole(self, target: Target, chunks: Sequence[str]) -> str:
        """All of them."""
        return "".join(chunks)


class Names:
    """What was shown, for another actor to go on with."""

    def __init__(self, text: str) -> None:
        self.text = text

    def joined(self, chunk: str, text: str) -> str | None:
        """The text alone; the empty chunk ends."""
        return text if text or not chunk else None
