"""What a store keeps of a provider, and what a report changes in it.

Rules of this file: no locks, no clocks; every step takes `now` in the store's integer microseconds. It holds no rule of its own about
circuits, limits or latency: it translates an attempt's report into the words of each mechanism.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple

from langchain_resilient.engine import budget, circuit, quota
from langchain_resilient.engine.circuit import CircuitState, Outcome
from langchain_resilient.engine.classify import ErrorKind
from langchain_resilient.engine.effects import Admit, Report, Settled, Ticket
from langchain_resilient.engine.events import CircuitChanged, CredentialBlocked
from langchain_resilient.engine.latency import HOT_CALLS, RETURN_AT, RouteLatency, Timings
from langchain_resilient.engine.lateness import Lateness
from langchain_resilient.engine.policy import Target
from langchain_resilient.engine.quota import Cost, Dimension
from langchain_resilient.engine.store.account import SECOND, Account

Override = Literal["forced_open", "disabled", "metrics_only"]
OVERRIDES: tuple[Override, ...] = ("forced_open", "disabled", "metrics_only")

LEASE_US = 30 * SECOND
EXPLORE_INTERVAL_US = 30 * SECOND
QUOTA_BLOCK_US = 3600 * SECOND
THROTTLE_CAP_US = 60 * SECOND
FORBIDDEN_IN_A_ROW = 3
PROVEN_ANSWERS = 3
OUTRUN_INTERVAL_US = 5 * SECOND
"""The least time between two looks at a provider that was outrun again and again."""
OUR_LIMITS = frozenset({"first_token", "idle", "response"})
"""The time limits that may be wrong for a model that nobody has seen answer yet."""
PROVEN_STREAMS = 3

OUTCOMES: dict[ErrorKind | None, Outcome] = {
    None: "success",
    ErrorKind.OVERLOADED: "failure",
    ErrorKind.SERVER_ERROR: "failure",
    ErrorKind.TIMEOUT: "failure",
    ErrorKind.STREAM_INTERRUPTED: "interruption",
}
"""What each kind says of the provider's health; any other is neutral."""
HEADROOM_DIMENSIONS = {"requests": "rpm", "tokens": "tpm", "input_tokens": "itpm", "output_tokens": "otpm"}

ONE_REQUEST = Cost()
"""What a request takes where no limit counts tokens."""
CALM_SETTLED = Settled("closed", (), 0.0, affords=True)


class Route:
    """What all credentials share about one provider."""

    __slots__ = ("answers", "budget", "circuit", "explored_at", "finishes", "latency", "lateness", "override", "spared")

    def __init__(self) -> None:
        self.circuit = CircuitState()
        self.override: Override | None = None
        self.latency = RouteLatency(predicts=False)
        self.budget = budget.FULL
        self.explored_at = -EXPLORE_INTERVAL_US
        self.lateness = Lateness(self.latency.streams)
        self.answers = 0
        self.finishes = 0
        self.spared = False

    def hot(self, target: Target, seconds: float, max_output: int | None = None) -> bool:
        """Whether the provider is suspiciously silent."""
        latency = self.latency
        if len(latency.silent_calls) < HOT_CALLS and len(latency.silent_streams) < HOT_CALLS:
            return False
        return latency.hot(seconds, call_limit=target.response(max_output), first_token_limit=target.first_token)

    def is_slow(self, target: Target, *, stream: bool) -> bool:
        """Whether it is asked after faster ones: above its `max_latency`, or outrun again and again."""
        if self.lateness.outrun:
            return True
        return target.max_latency is not None and self.latency.timings(stream=stream).slowness.slow

    def unfit(self, target: Target, ask: Admit, now: int) -> bool:
        """Whether it is slow or suspiciously silent: then others are asked before it, and no extra call goes there."""
        return self.is_slow(target, stream=ask.stream and not ask.whole) or self.hot(
            target, now / SECOND, ask.max_output
        )

    @property
    def look_interval(self) -> int:
        """The least time between two looks at it while it is slow, µs."""
        return OUTRUN_INTERVAL_US if self.lateness.outrun else EXPLORE_INTERVAL_US

    def look_due(self, now: int) -> bool:
        """Whether somebody slow should be looked at once more."""
        return now - self.explored_at >= self.look_interval

    def cost(self, target: Target, ask: Admit, now: int) -> Cost:
        """What a request is expected to take from the limits: its input, and as long an answer as usual here."""
        if not target.counts_tokens:
            return ONE_REQUEST
        expected = self.latency.expected_output(now / SECOND)
        return target.cost(ask.input_tokens, expected if ask.max_output is None else min(expected, ask.max_output))

    def status(self, target: Target, now: int) -> dict[str, object]:
        """For people: seconds."""
        state, seconds = self.circuit, now / SECOND
        calls, streams = self.latency.calls.histogram, self.latency.streams.histogram
        return {
            "circuit": state.phase,
            "override": self.override,
            "generation": state.generation,
            "probes_in": max(0.0, (state.until - now) / SECOND) if state.phase == "open" else None,
            "failures_in_a_row": state.failures_in_a_row,
            "hot": self.hot(target, seconds),
            "slow": self.lateness.outrun or self.latency.calls.slowness.slow or self.latency.streams.slowness.slow,
            "in_flight": self.latency.in_flight,
            "p50": calls.quantile(0.5),
            "p99": calls.quantile(0.99),
            "first_token_p50": streams.quantile(0.5),
            "first_token_p99": streams.quantile(0.99),
            "retry_budget": round(self.budget, 1),
        }


def note_opened(
    route: Route, account: Account, ticket: Ticket, first_token: float, now: int, spread: Callable[[], int]
) -> Settled:
    """A stream's first content came: a latency sample; for a probe its success, unless streams break *after* it here."""
    target, before = ticket.target, route.circuit
    slow = note_opened_here(route, ticket, first_token, now)
    if ticket.probe and not before.broke_midway and route.override != "disabled":
        route.circuit = circuit.report(
            before, target.circuit, now, "success",
            generation=ticket.generation, attempt=ticket.attempt, slow=slow, spread=spread(),
        )  # fmt: skip
    return settled(route, account, target, before, "slow" if slow else "first_token", now)


def note_opened_here(route: Route, ticket: Ticket, first_token: float, now: int) -> bool:
    """What a stream's first content changes in this process alone; whether it came too late for `slow_first_token`."""
    target, seconds = ticket.target, now / SECOND
    route.latency.silent_streams.end(ticket.attempt, seconds, answered=True)
    route.lateness.spoke(first_token, seconds)
    route.latency.streams.add(first_token, seconds, target.max_latency)
    _look_again(route, target, first_token, route.latency.streams)
    return is_too_slow(target, first_token)


class Verdict(NamedTuple):
    """What a report says of the provider."""

    outcome: Outcome
    slow: bool
    reason: str


def note_settled(
    route: Route, account: Account, ticket: Ticket, report: Report, now: int, spread: Callable[[], int]
) -> Settled:
    """An attempt ended: lease back, tokens reconciled, the provider's hints, the circuit's outcome, latency, budget."""
    target = ticket.target
    if account.leases:
        account.leases.pop(ticket.attempt, None)
    if ticket.charged:
        _reconcile(account, ticket, report, now)
    verdict = note_here(route, ticket, report, now)
    blocked = note_blocks(account, ticket, report, now)
    before = route.circuit
    if route.override != "disabled":
        outcome, slow, _ = verdict
        route.circuit = circuit.report(
            before, target.circuit, now, outcome, generation=ticket.generation, attempt=ticket.attempt, slow=slow,
            floor=int(report.retry_after * SECOND) if report.retry_after else 0,
            spread=0 if outcome == "success" and not slow else spread(),
        )  # fmt: skip
    return settled(route, account, target, before, verdict.reason, now, blocked)


def note_here(route: Route, ticket: Ticket, report: Report, now: int) -> Verdict:
    """What a report changes in this process alone, latency and budget, and what it says of the provider."""
    target = ticket.target
    fell_silent = report.outrun is not None and route.lateness.cancelled(
        report.outrun, now / SECOND, max_latency=target.max_latency, limit=target.first_token
    )
    _note_latency(route, ticket, report, now)
    slow = is_too_slow(target, report.first_token if ticket.stream else report.seconds)
    outcome = "success" if report.kind is None else "failure" if fell_silent else _outcome(route, report)
    return Verdict(outcome, slow, "silent" if fell_silent else str(report.kind or ("slow" if slow else "ok")))


def settled(
    route: Route, account: Account, target: Target, before: CircuitState, reason: str, now: int,
    blocked: CredentialBlocked | None = None,
) -> Settled:  # fmt: skip
    """What a request is told once its report is counted; `before`: the circuit until then."""
    after = route.circuit
    is_calm = after.phase == before.phase == "closed" and account.blocked_until <= now and route.budget > budget.FLOOR
    if is_calm and blocked is None:
        return CALM_SETTLED
    changes: tuple[CircuitChanged | CredentialBlocked, ...] = () if blocked is None else (blocked,)
    if after.phase != before.phase:
        changes = (CircuitChanged(target.name, before.phase, after.phase, str(reason)), *changes)
    return Settled(after.phase, changes, max(0, account.blocked_until - now) / SECOND, route.budget > budget.FLOOR)


def is_too_slow(target: Target, seconds: float | None) -> bool:
    """Whether an answer took longer than `slow_first_token`."""
    limit = target.circuit.slow_first_token
    return limit is not None and seconds is not None and seconds > limit


def _outcome(route: Route, report: Report) -> Outcome:
    outcome = OUTCOMES.get(report.kind, "neutral")
    if report.limit == "deadline":
        return "neutral"  # the caller's own deadline left less than the provider may take
    if report.kind is not ErrorKind.TIMEOUT or report.limit not in OUR_LIMITS:
        return outcome  # the provider said so itself (a 408), or was never reached
    if route.answers < PROVEN_ANSWERS:
        # Our limit may be wrong for a model that nobody has seen answer yet (a local one loads its weights first), so its
        # timeouts weigh half; not nothing, or a provider that is a black hole from the start would be asked for ever.
        route.spared = not route.spared
        return "neutral" if route.spared else outcome
    return outcome


def _note_latency(route: Route, ticket: Ticket, report: Report, now: int) -> None:
    seconds = now / SECOND
    answered = report.kind is None
    route.latency.silence(stream=ticket.stream).end(ticket.attempt, seconds, answered=answered, over=True)
    if not answered:
        return
    route.answers += 1
    route.finishes += report.finished
    route.budget = budget.earn(route.budget)
    if not ticket.stream:
        route.lateness.answered_whole(seconds)
    if report.seconds is not None and (report.whole or not ticket.stream):
        route.latency.calls.add(report.seconds, seconds, ticket.target.max_latency)
        _look_again(route, ticket.target, report.seconds, route.latency.calls)
    # How long answers are matters to limits that count tokens, and to streams; for the rest it is work for nobody.
    if (ticket.stream or ticket.target.counts_tokens) and report.usage is not None and report.usage.output > 0:
        route.latency.output.add(report.usage.output, seconds)
        if report.first_token is not None and report.seconds is not None and report.usage.output > 1:
            route.latency.inter_token.add((report.seconds - report.first_token) / (report.usage.output - 1), seconds)


def _look_again(route: Route, target: Target, took: float, timings: Timings) -> None:
    """A slow provider was fast: the next look need not wait, or it would be slow for minutes more."""
    if timings.slowness.slow and target.max_latency is not None and took <= RETURN_AT * target.max_latency:
        route.explored_at = -EXPLORE_INTERVAL_US


def note_blocks(account: Account, ticket: Ticket, report: Report, now: int) -> CredentialBlocked | None:
    """What a report says of the credential: 429s, used-up quota, a bad key."""
    kind, name = report.kind, ticket.target.name
    if kind is None:
        account.forbidden = 0
        if ticket.granted > account.throttled_at:
            account.throttles = 0
        return None
    if kind is ErrorKind.RATE_LIMITED:
        _note_throttle(account, ticket, report, now)
        return None
    if kind is ErrorKind.QUOTA_EXHAUSTED:
        pause = QUOTA_BLOCK_US if report.retry_after is None else int(report.retry_after * SECOND)
        account.block(now + pause, "quota_exhausted")
        return CredentialBlocked(name, "quota_exhausted", pause / SECOND)
    account.forbidden = account.forbidden + 1 if kind is ErrorKind.PERMISSION else account.forbidden
    if kind is ErrorKind.AUTH or account.forbidden >= FORBIDDEN_IN_A_ROW:
        account.forbidden = 0
        account.block(now + int(ticket.target.circuit.auth_block * SECOND), "auth")
        return CredentialBlocked(name, "auth", ticket.target.circuit.auth_block)
    return None


def _note_throttle(account: Account, ticket: Ticket, report: Report, now: int) -> None:
    if ticket.granted > account.throttled_at:
        # Those admitted before the last 429 was heard are part of the same overrun, and count with it.
        account.throttles += 1
        account.throttled_at = now
        if ticket.target.dimensions:
            account.scale = quota.cut(account.scale, now)
    if report.retry_after is not None:
        account.block(now + int(report.retry_after * SECOND), "blocked")
    elif account.throttled_at == now:
        account.block(now + min(THROTTLE_CAP_US, SECOND << min(account.throttles - 1, 6)), "blocked")


def _reconcile(account: Account, ticket: Ticket, report: Report, now: int) -> None:
    scale = quota.scale_at(account.scale, now)
    for dimension, moved, room in reconciled(ticket, report):
        tat = quota.reconcile(account.tats.get(dimension.name, 0), moved, now)
        account.tats[dimension.name] = tat if room is None else quota.tighten(dimension, tat, room, now, scale)


def reconciled(ticket: Ticket, report: Report) -> Iterator[tuple[Dimension, int, int | None]]:
    """Per dimension: how far the real cost moves it, and how many units the provider said remain."""
    estimate, actual = ticket.cost, _actual(ticket.target, ticket.cost, report)
    rooms = {HEADROOM_DIMENSIONS.get(room.dimension): room.remaining for room in report.headroom}
    for dimension, charged in zip(ticket.target.dimensions, ticket.charged, strict=True):
        unit = dimension.unit
        moved = quota.moved(dimension, charged, estimate.of(unit), actual.of(unit))
        yield dimension, moved, rooms.get(dimension.name)


def _actual(target: Target, estimate: Cost, report: Report) -> Cost:
    if report.never_sent:
        return Cost(0, 0, 0, 0)
    usage = report.usage
    if usage is None:
        return estimate if report.kind is None else target.cost(estimate.input_tokens, 0)
    cost = target.cost(usage.input, usage.output)
    if target.price is not None and usage.cached_input:
        cost = cost._replace(usd_micros=round(target.price.of(usage) * 1_000_000))
    return cost
