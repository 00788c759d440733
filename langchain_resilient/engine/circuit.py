"""The circuit breaker of one provider, as frozen state and pure transitions.

Rules of this file
------------------
* Nothing here reads a clock: every step takes `now`, integer microseconds of the store's own time, and returns a new state.
  The numbers are integers so that a Lua twin can do the same arithmetic to the last bit.
* A report counts only under the generation it was admitted in; each change of phase begins a new generation, and
  `max(generation + 1, now in ms)` can't repeat even if a failover rewinds the store.
* A half-open permit is a lease: it lapses by itself, so a crashed or cancelled probe can't wedge the circuit.
* Neutral outcomes (cancelled, the caller's own mistakes, a provider's 429) release the permit and move nothing.

Theory
------
Closed until `failure_threshold` failures in a row, or until at least `failure_rate` of at least `minimum_calls` calls in the last
`window` seconds failed (the first notices a dead provider in five calls, the second a flaky one that a lucky success keeps
resetting). Open: nothing passes for `recovery_timeout` (± 10 %, never before the provider's own Retry-After). Half-open: at most
`min(1 + successes, half_open_max_calls)` probes at a time, so trust grows as it is earned; `half_open_max_calls` successes close
the circuit, one failure opens it again. Nygard's *Release It!* has the pattern; the generation is sony/gobreaker's, the leases ours.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import Literal, NamedTuple

from langchain_resilient.engine.errors import checked, is_number, require, unknown_name

Phase = Literal["closed", "half_open", "open"]
Outcome = Literal["success", "failure", "interruption", "neutral"]
"""What a report says of the provider. "interruption" is a failure too: a stream that broke after it had begun."""

BUCKETS = 10
"""The window is counted in this many buckets."""
JITTER_PERMILLE = 100
"""Open times vary by this much either way, so that a fleet does not probe in step."""
RACED_PROBE_INTERVAL_US = 5_000_000
"""A raced probe happens at most once in this time (or in `recovery_timeout`, if that is shorter) and provider: each costs one
duplicated call."""


@checked
@dataclass(frozen=True, slots=True)
class Circuit:
    """When a provider counts as failing, and how it earns trust again. Checked when made: raises `SettingsError`."""

    failure_threshold: int = 5
    """Failures in a row that open the circuit (≥ 1)."""
    failure_rate: float = 0.5
    """Share of failed calls in `window` that opens it (0 < rate ≤ 1)."""
    minimum_calls: int = 10
    """Calls in `window` before `failure_rate` is looked at (≥ 1)."""
    window: float = 60.0
    """Seconds that `failure_rate` looks back (> 0). Longer than a call takes, or it never sees enough."""
    recovery_timeout: float = 60.0
    """Seconds an open circuit refuses before it lets probes through (> 0)."""
    recovery_growth: float = 1.0
    """Factor on `recovery_timeout` for every time in a row that a probe failed (≥ 1; 1 = constant)."""
    recovery_cap: float = 300.0
    """The longest `recovery_timeout` that growth leads to, in seconds (≥ `recovery_timeout`)."""
    half_open_max_calls: int = 3
    """Successful probes that close the circuit, and the most that run at a time (≥ 1)."""
    auth_block: float = 300.0
    """Seconds that a credential is left alone after a 401 (> 0)."""
    slow_first_token: float | None = None
    """Seconds to first token (unstreamed: to the answer) above which a success counts as slow; `failure_rate` slow calls open
    the circuit like failures. None: off."""
    probe: Literal["raced", "inline"] = "raced"
    """"raced": a probe runs beside another provider and the user gets the first good answer; "inline": the user's own call is
    the probe."""

    def __post_init__(self) -> None:
        for name in ("failure_threshold", "minimum_calls", "half_open_max_calls"):
            value = getattr(self, name)
            require(
                isinstance(value, int) and is_number(value, least=1), f"Circuit.{name}", value, "use a whole number ≥ 1"
            )
        for name in ("window", "recovery_timeout", "auth_block"):
            value = getattr(self, name)
            fix = "use a number of seconds > 0 (at least a microsecond)"
            require(is_number(value, least=1e-6), f"Circuit.{name}", value, fix)
        require(
            is_number(self.failure_rate, above=0, most=1),
            "Circuit.failure_rate",
            self.failure_rate,
            "use a share: 0 < rate ≤ 1",
        )
        require(
            is_number(self.recovery_growth, least=1),
            "Circuit.recovery_growth",
            self.recovery_growth,
            "use a factor ≥ 1",
        )
        require(
            is_number(self.recovery_cap, above=0),
            "Circuit.recovery_cap",
            self.recovery_cap,
            "use a number of seconds > 0",
        )
        slow = self.slow_first_token
        require(
            slow is None or is_number(slow, above=0),
            "Circuit.slow_first_token",
            slow,
            "use a number of seconds > 0, or None",
        )
        if self.probe not in ("raced", "inline"):  # no set: a list from a file is not hashable
            raise unknown_name("Circuit.probe", self.probe, ["raced", "inline"])


class Bucket(NamedTuple):
    """The calls of one slice of the window."""

    slice: int
    """`now // slice_of(settings)`."""
    calls: int
    failures: int
    slow: int


class Permit(NamedTuple):
    """One leased place of the half-open state."""

    attempt: int
    lapses: int
    """µs of the store's time."""


class CircuitState(NamedTuple):
    """All that is shared about one circuit. The default is a new, closed one."""

    phase: Phase = "closed"
    generation: int = 0
    failures_in_a_row: int = 0
    buckets: tuple[Bucket, ...] = ()
    """Oldest first; only slices that had calls."""
    until: int = 0
    """Open: when probes may begin, µs."""
    reopened: int = 0
    """How often in a row a probe failed."""
    successes: int = 0
    """Half-open: probes that succeeded."""
    permits: tuple[Permit, ...] = ()
    raced_at: int = -RACED_PROBE_INTERVAL_US
    """When the last raced probe was let through, µs."""
    broke_midway: bool = False
    """Opened by streams that broke after their beginning: then a first token is no proof of health yet."""
    for_slowness: bool = False
    """Opened by slow answers: they are answers all the same, for those whom nobody else can answer."""


def wait_for_place(state: CircuitState, settings: Circuit, now: int, *, raced: bool, early: bool = False) -> int:
    """Microseconds until this circuit may let one more call in; 0: now.

    Args:
        state: The circuit.
        settings: Its settings.
        now: The store's time, µs.
        raced: Whether the call would be raced if it is a probe (then probes are spaced).
        early: Whether to probe before the open time is over, because every other candidate is open too. The first such probe is
            spaced, so that an open circuit still fails fast; once it has answered, only the permits bound the next.
    """
    if state.phase == "closed":
        return 0
    if state.phase == "open" and not early and now < state.until:
        return state.until - now
    # Once one has answered the next need not wait: what was healed is used again within moments.
    healing = state.phase == "half_open" and state.successes > 0
    if (raced and not healing) or (early and state.phase == "open"):
        interval = min(RACED_PROBE_INTERVAL_US, int(settings.recovery_timeout * 1_000_000))
        spaced = state.raced_at + interval - now
        if spaced > 0:
            return spaced
    if state.phase == "open":
        return 0
    live = [permit.lapses for permit in state.permits if permit.lapses > now]
    if len(live) < min(1 + state.successes, settings.half_open_max_calls):
        return 0
    return min(live) - now


def enter(state: CircuitState, now: int, *, attempt: int, lease: int, spaced: bool) -> CircuitState:
    """The state after a call that `wait_for_place` allowed has been let in.

    Args:
        state: The circuit, not closed (a closed one needs no step).
        now: The store's time, µs.
        attempt: The attempt's id, under which its permit is kept.
        lease: How long the permit lives unless renewed, µs.
        spaced: Whether this is a raced (or early) probe, which starts the pause before the next one.
    """
    if state.phase == "open":
        state = _begin(state, "half_open", now, reopened=state.reopened)
    live = tuple(permit for permit in state.permits if permit.lapses > now)
    return state._replace(
        permits=(*live, Permit(attempt, now + lease)),
        raced_at=now if spaced else state.raced_at,
    )


def renew(state: CircuitState, now: int, *, attempt: int, lease: int) -> CircuitState:
    """The state after the permit of `attempt` was renewed; a lapsed one stays lost."""
    if not any(permit.attempt == attempt and permit.lapses > now for permit in state.permits):
        return state
    return state._replace(
        permits=tuple(Permit(attempt, now + lease) if permit.attempt == attempt else permit for permit in state.permits)
    )


def report(
    state: CircuitState,
    settings: Circuit,
    now: int,
    outcome: Outcome,
    *,
    generation: int,
    attempt: int,
    slow: bool = False,
    floor: int = 0,
    spread: int = 0,
) -> CircuitState:
    """The state after the attempt told how it went.

    Args:
        state: The circuit.
        settings: Its settings.
        now: The store's time, µs.
        outcome: What the attempt says of the provider.
        generation: The one it was admitted under; any other than the present one changes nothing.
        attempt: Its id.
        slow: Whether a success was slower than `slow_first_token`.
        floor: The provider's own Retry-After in µs: an open circuit waits at least this long.
        spread: Random, −1000 … 1000: where in the ± 10 % of the open time to land.
    """
    if generation != state.generation or state.phase == "open":
        return state
    if state.phase == "closed":
        if outcome == "neutral":
            return state
        return _count(state, settings, now, outcome, slow=slow, floor=floor, spread=spread)
    return _probed(state, settings, now, outcome, attempt=attempt, slow=slow, floor=floor, spread=spread)


def _count(
    state: CircuitState, settings: Circuit, now: int, outcome: Outcome, *, slow: bool, floor: int, spread: int
) -> CircuitState:
    failed = outcome != "success"
    in_a_row = state.failures_in_a_row + 1 if failed else 0
    buckets = _add(state.buckets, settings, now, failed=failed, slow=slow)
    state = CircuitState("closed", state.generation, in_a_row, buckets, raced_at=state.raced_at)
    if not (failed or slow) or not _trips(in_a_row, buckets, settings):
        return state
    return _open(state, settings, now, outcome, floor=floor, spread=spread, reopened=0)


def reset(state: CircuitState, now: int) -> CircuitState:
    """A new, closed circuit, because somebody vouches for the provider. Its generation is new: what is under way counts no more."""
    return _begin(state, "closed", now, reopened=0)


def slice_of(settings: Circuit) -> int:
    """How long one bucket of the window is, µs."""
    return max(1, int(settings.window * 1_000_000) // BUCKETS)


def _add(buckets: tuple[Bucket, ...], settings: Circuit, now: int, *, failed: bool, slow: bool) -> tuple[Bucket, ...]:
    index = now // slice_of(settings)
    if buckets and buckets[-1].slice >= index:
        last = buckets[-1]
        return (*buckets[:-1], Bucket(last.slice, last.calls + 1, last.failures + failed, last.slow + slow))
    live = tuple(bucket for bucket in buckets if bucket.slice > index - BUCKETS)
    return (*live, Bucket(index, 1, int(failed), int(slow)))


def _trips(in_a_row: int, buckets: tuple[Bucket, ...], settings: Circuit) -> bool:
    if in_a_row >= settings.failure_threshold:
        return True
    newest = buckets[-1].slice
    live = [bucket for bucket in buckets if bucket.slice > newest - BUCKETS]
    calls = sum(bucket.calls for bucket in live)
    bad = max(sum(bucket.failures for bucket in live), sum(bucket.slow for bucket in live))
    return calls >= settings.minimum_calls and bad / calls >= settings.failure_rate


def _probed(
    state: CircuitState,
    settings: Circuit,
    now: int,
    outcome: Outcome,
    *,
    attempt: int,
    slow: bool,
    floor: int,
    spread: int,
) -> CircuitState:
    held = any(permit.attempt == attempt and permit.lapses > now for permit in state.permits)
    if not held:
        return state
    permits = tuple(permit for permit in state.permits if permit.attempt != attempt)
    if outcome == "neutral":
        return state._replace(permits=permits)
    if outcome != "success" or slow:
        return _open(state, settings, now, outcome, floor=floor, spread=spread, reopened=state.reopened + 1)
    if state.successes + 1 < settings.half_open_max_calls:
        return state._replace(permits=permits, successes=state.successes + 1)
    return _begin(state, "closed", now, reopened=0)


def _open(
    state: CircuitState, settings: Circuit, now: int, outcome: Outcome, *, floor: int, spread: int, reopened: int
) -> CircuitState:
    seconds = longest = max(settings.recovery_cap, settings.recovery_timeout)
    with suppress(OverflowError):  # dead for days: the cap decided long ago
        seconds = min(settings.recovery_timeout * settings.recovery_growth**reopened, longest)
    base = int(seconds * 1_000_000)
    pause = max(floor, base + base * JITTER_PERMILLE * spread // 1_000_000)
    return _begin(state, "open", now, reopened=reopened)._replace(
        until=now + pause, broke_midway=outcome == "interruption", for_slowness=outcome == "success"
    )


def _begin(state: CircuitState, phase: Phase, now: int, *, reopened: int) -> CircuitState:
    return CircuitState(
        phase=phase,
        generation=max(state.generation + 1, now // 1000),
        reopened=reopened,
        raced_at=state.raced_at,
        broke_midway=state.broke_midway and phase != "closed",
        for_slowness=state.for_slowness and phase != "closed",
    )
