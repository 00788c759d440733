"""What one request has been through so far, and what that amounts to: its decision record, or its error.

Rules of this file: one mutable object per request, seen by its plan alone; it reads the policy's clock, asks for nothing and decides
nothing about where to go.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from langchain_resilient.engine.circuit import Phase
from langchain_resilient.engine.classify import ErrorKind, Failure, classify
from langchain_resilient.engine.effects import Begun, Call, Continuation, Place, Request, Settled, Ticket
from langchain_resilient.engine.events import Attempt, Attempted, Decided, Decision, FellBack, Refusal, Usage
from langchain_resilient.engine.policy import Policy, Target
from langchain_resilient.engine.routing import View
from langchain_resilient.engine.seam import anchor_of

LOGGER = logging.getLogger("langchain_resilient")
PROVIDERS_OWN = frozenset({
    ErrorKind.OVERLOADED, ErrorKind.SERVER_ERROR, ErrorKind.TIMEOUT, ErrorKind.STREAM_INTERRUPTED, ErrorKind.RATE_LIMITED,
    ErrorKind.QUOTA_EXHAUSTED, ErrorKind.AUTH, ErrorKind.PERMISSION,
})  # fmt: skip
"""Errors that say something of the provider, and nothing of what the caller asked."""
UNSAMPLED_NEED = 1.0
"""Seconds that must be left for a further attempt at a provider that nobody has seen answer yet."""


class Lapse:
    """How the last attempt at one target ended."""

    __slots__ = ("_faults", "_tries", "affords", "blocked", "failure")

    def __init__(self) -> None:
        self._faults = 0
        self._tries = 0
        self.failure = Failure(ErrorKind.UNKNOWN)
        self.blocked = 0.0
        self.affords = True
        """Whether the target's retry budget has room for an extra call."""

    @property
    def tries(self) -> int:
        """Attempts that count against the last failure's kind: a fault of our own takes no try from the provider."""
        return self._faults if self.failure.kind is ErrorKind.LOCAL else self._tries

    def count(self, failure: Failure) -> None:
        """Remember one more failure."""
        self.failure = failure
        if failure.kind is ErrorKind.LOCAL:
            self._faults += 1
        else:
            self._tries += 1


class Journey:
    """One request's way."""

    place: Place | None = None
    fallbacks = 0
    """How often it has gone on to another provider."""
    moving: tuple[int, FellBack] | None = None
    """A fallback that nobody was told of yet, and its attempt: it is none if that provider turns out to be no candidate."""
    round = 0
    """How often it has waited for a provider that failed already."""
    waited = 0.0
    """Seconds, since the last attempt."""
    first_token: float | None = None
    """Seconds until the first chunk was shown."""
    decision: Decision | None = None
    continuation: Continuation | None = None
    """What was shown of a stream that broke, for another to go on with."""
    continued = 0
    """How often somebody did."""
    misworded = 0
    """Begun answers that were turned down: our own wrong guesses."""
    hedged = False
    """Whether somebody was asked beside a late attempt."""
    value: Any = None
    """A whole answer that came as a stream."""
    usage: Usage | None = None
    """Tokens that all legs of the answer used, as far as they are known."""
    cost: float | None = 0.0
    """US dollars for them; None once a price is unknown."""
    last_error: Exception | None = None
    final: Failure | None = None
    """What the last error was."""
    views: Mapping[str, View] = MappingProxyType({})
    """By name; empty as long as nobody had to look."""

    def __init__(self, request: Request, policy: Policy) -> None:
        self.request = request
        self.policy = policy
        self.started = policy.clock.now()
        self.until = self.started + (policy.total if request.deadline is None else request.deadline)
        self.order = policy.targets
        self.preferred = policy.targets[0]
        self.attempts: list[Attempt] = []
        self.errors: list[Exception] = []
        self.refusals: dict[str, Refusal] = {}
        self.lapses: dict[str, Lapse] = {}
        self.ineligible: set[str] = set()
        """Who turned out to be no candidate."""
        self.open: list[Ticket] = []
        self.failed = policy.targets[0]
        """Whose attempt failed last."""
        self.speaker = self.failed
        """Whose stream was told last."""
        self.shown: list[Any] = []
        """The chunks that the caller has seen."""
        self.sent: dict[int, float] = {}
        """When each attempt was made."""
        self.noted: set[int] = set()
        """The attempts that the record tells of."""
        self.phases: dict[str, Phase] = {}
        """Each provider's circuit after its last report."""
        self.begun: dict[int, Begun] = {}
        """How an attempt was told to go on with what was shown."""
        self.loose: list[Any] = []
        """Streams and races' runners that must be closed if the caller goes away."""

    # ---------------------------------------------------------------------------------------------------------- time
    def left(self) -> float:
        """Seconds before the deadline."""
        return self.until - self.policy.clock.now()

    def need(self, target: Target) -> float:
        """Seconds that must be left for an attempt there to make sense: its p50."""
        view = self.views.get(target.name)
        if view is not None and view.p50 is not None:
            return view.p50
        # The first attempt at an unknown provider is how anything gets known: it starts with whatever is left.
        return UNSAMPLED_NEED if self.attempts else 0.0

    def fits(self, target: Target, wait: float = 0.0) -> bool:
        """Whether an attempt there, begun after `wait` seconds, could be over in time."""
        left = self.left() - wait
        return left > 0 and left >= self.need(target)

    @staticmethod
    def always_finishes(ticket: Ticket) -> bool:
        """Whether a stream from there without a finish reason is truncated."""
        return ticket.target.sends_finish_reason or ticket.finishes

    def tokens(self) -> int:
        """The prompt's estimated tokens, where any limit counts them."""
        return self.request.input_tokens() if self.policy.counts_tokens else 0

    def call(self, ticket: Ticket) -> Call:
        """The attempt, under the provider's own limit or what is left to the deadline."""
        request, target = self.request, ticket.target
        stream = request.stream and request.upstream.streams(target)
        limit = target.time_limit(request.max_output, stream=stream)
        begun = self._begin(ticket)
        now = self.sent[ticket.attempt] = self.policy.clock.now()
        left = self.until - now
        if left < limit:
            return Call(ticket, max(left, 0.0), "deadline", begun)
        return Call(ticket, limit, "first_token" if stream else "response", begun)

    def may_hedge(self, ticket: Ticket) -> bool:
        """Whether somebody else may be asked beside this attempt, if it is late: not beside one that is raced or looked at already."""
        several = len(self.policy.targets) > 1 and self.attempts_left() > 1
        return several and ticket.stream and not ticket.probe and self.request.upstream.streams(ticket.target)

    def _begin(self, ticket: Ticket) -> Begun | None:
        """How the provider is told to go on with what was shown, if a word of it was."""
        if self.continuation is None or not self.continuation.text.strip():
            return None
        text, target = self.continuation.text, ticket.target
        prefills = target.takes_prefill and target.route not in self.policy.no_prefill
        begun = self.begun[ticket.attempt] = Begun(text, None if prefills else anchor_of(text))
        return begun

    def turned_down(self, ticket: Ticket, failure: Failure) -> bool:
        """Whether a provider would not take a begun answer; it is told in words from then on."""
        begun = self.begun.get(ticket.attempt)
        if failure.kind is not ErrorKind.CLIENT_ERROR or begun is None or begun.anchor is not None:
            return False
        self.policy.no_prefill.add(ticket.target.route)
        self.misworded += 1
        return True

    def attempts_left(self) -> int:
        """How many more attempts the request may have: one per provider and `max_retries` in all; faults of our own are free."""
        counted = sum(attempt.kind != ErrorKind.LOCAL for attempt in self.attempts) - self.misworded
        return len(self.policy.targets) - len(self.ineligible) + self.policy.retry.max_retries - counted

    # -------------------------------------------------------------------------------------------------------- record
    def classify(self, error: Exception) -> Failure:
        """What went wrong, by the user's classifier or ours; its wait is counted from the wall clock."""
        own = self._classified_by_user(error)
        if isinstance(own, Failure):
            return own
        failure = classify(error, wall=self.policy.clock.wall())
        return failure if own is None else failure._replace(kind=own)

    def _classified_by_user(self, error: Exception) -> ErrorKind | Failure | None:
        if self.policy.classifier is None:
            return None
        try:
            own = self.policy.classifier(error)
            return own if own is None or isinstance(own, Failure) else ErrorKind(own)
        except Exception as broken:  # noqa: BLE001  # the provider's error must not be replaced by the classifier's own
            LOGGER.warning("classifier failed on a %s (%s); ours decides", type(error).__name__, type(broken).__name__)
            return None

    def lapse(self, target: Target) -> Lapse:
        """How the last attempt there ended."""
        found = self.lapses.get(target.name)
        if found is None:
            found = self.lapses[target.name] = Lapse()
        return found

    def tried(self, target: Target) -> bool:
        """Whether there was an attempt there."""
        return target.name in self.lapses

    def strike_off(self, target: Target) -> None:
        """Forget a candidate that is none; the record alone tells of it."""
        self.ineligible.add(target.name)
        self.order = tuple([one for one in self.order if one is not target])
        self.refusals[target.name] = Refusal(target.name, "ineligible")

    def asked(self, ticket: Ticket) -> None:
        """It is known that the attempt was made: if it was a fallback, that is told now."""
        if self.moving is not None and self.moving[0] == ticket.attempt:
            self.fallbacks += 1
            self.policy.observe(self.moving[1])
            self.moving = None

    def note(self, ticket: Ticket, kind: str, seconds: float, failure: Failure | None = None) -> None:
        """Remember an attempt's end."""
        self.asked(ticket)
        self.noted.add(ticket.attempt)
        limit, status = (None, None) if failure is None else (failure.limit, failure.status)
        word = str(kind)  # a plain word to print, not an enum's member
        changed = self.request.upstream.changes(ticket.target)
        self.attempts.append(
            Attempt(ticket.target.name, word, seconds, self.waited, ticket.probe, limit, status, changed)
        )
        self.waited = 0.0

    def mend(self, ticket: Ticket, kind: str, seconds: float, failure: Failure | None = None) -> None:
        """Correct an attempt's end: it was noted when its stream's first content had come."""
        name = ticket.target.name
        last = max(place for place, attempt in enumerate(self.attempts) if attempt.provider == name)
        limit, status = (None, None) if failure is None else (failure.limit, failure.status)
        self.attempts[last] = self.attempts[last]._replace(kind=str(kind), seconds=seconds, limit=limit, status=status)

    def attempted(
        self, ticket: Ticket, kind: str, seconds: float, first_token: float | None = None, usage: Usage | None = None
    ) -> None:
        """Tell observers how an attempt ended, and what it cost whoever's answer was shown."""
        target = ticket.target
        cost = None if usage is None or target.price is None else target.price.of(usage)
        self.policy.observe(Attempted(target.name, kind, seconds, first_token, usage, ticket.probe, cost))

    def failed_at(self, target: Target, error: Exception, failure: Failure, settled: Settled) -> None:
        """Remember a failure, for where to go next and for what the caller is to see in the end."""
        self.failed = target
        self.errors.append(error)
        self.last_error, self.final = error, failure
        lapse = self.lapse(target)
        lapse.count(failure)
        lapse.blocked, lapse.affords = settled.blocked, settled.affords

    def use(self, target: Target, usage: Usage | None) -> None:
        """Add what one leg of the answer used."""
        if usage is None:
            return
        self.usage = usage if self.usage is None else self.usage.plus(usage)
        self.cost = None if self.cost is None or target.price is None else self.cost + target.price.of(usage)

    def show(self, chunk: Any) -> None:
        """Remember a chunk that the caller is about to see."""
        if not self.shown:
            self.first_token = self.policy.clock.now() - self.started
        self.shown.append(chunk)

    def cancelled(self, ticket: Ticket, seconds: float) -> None:
        """Remember and tell that an attempt was cancelled."""
        self.note(ticket, ErrorKind.CANCELLED, seconds)
        self.attempted(ticket, str(ErrorKind.CANCELLED), seconds)

    def given_up(self, ticket: Ticket) -> None:
        """Remember and tell that its caller went away from an attempt that was made."""
        self.asked(ticket)
        sent = self.sent.get(ticket.attempt)
        if sent is None:
            return
        seconds = self.policy.clock.now() - sent
        if ticket.attempt in self.noted:  # its stream had begun
            self.attempted(ticket, str(ErrorKind.CANCELLED), seconds)
        else:
            self.cancelled(ticket, seconds)

    def leave(self) -> None:
        """Close the record of a request whose caller is gone, without a word to the store; it may be closed already."""
        if self.decision is not None:
            return
        for ticket in self.open:
            self.given_up(ticket)
        self.decide("cancelled")

    def answered(self, ticket: Ticket, seconds: float, first_token: float | None, usage: Usage | None) -> None:
        """Remember and tell that an attempt answered."""
        self.note(ticket, "ok", seconds)
        self.attempted(ticket, "ok", seconds, first_token, usage)

    def tell(self, target: Target, settled: Settled) -> None:
        """Keep the circuit's state for the record, and tell observers what a report changed."""
        self.phases[target.name] = settled.phase
        for change in settled.changes:
            self.policy.observe(change)

    def not_tried(self) -> tuple[Refusal, ...]:
        """Why each candidate that was not tried was refused."""
        if not self.refusals:
            return ()
        tried = {attempt.provider for attempt in self.attempts}
        names = [target.name for target in self.policy.targets if target.name not in tried]
        return tuple([self.refusals[name] for name in names if name in self.refusals])

    def decide(self, outcome: str, *, provider: Target | None = None) -> Decision:
        """Close the record and tell the observers."""
        request = self.request
        self.decision = decision = Decision(
            request.id, None if provider is None else provider.name, self.preferred.name, outcome,
            self.policy.clock.now() - self.started, self.first_token, tuple(self.attempts), self.not_tried(),
            self.phases.get((provider or self.failed).name, "closed"), provider is not None and provider.name != self.preferred.name, self.usage,
            None if self.usage is None else self.cost, request.stream and not request.whole, request.lane, request.tenant, self.continued, self.hedged,
        )  # fmt: skip
        self.policy.observe(Decided(decision))
        if request.told is not None:
            request.told(decision)
        return decision
