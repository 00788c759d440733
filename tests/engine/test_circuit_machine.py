"""The circuit against a naive model, with many attempts at once and reports that are late, repeated, foreign or lost.

The model shares no code with the circuit: it keeps the list of everything that happened in the present phase, and works out
every answer from that list anew. The invariants are I1, I2 and I3 of DESIGN §10.
"""

from __future__ import annotations

from collections import Counter
from fractions import Fraction
from math import floor
from typing import ClassVar

from hypothesis import currently_in_test_context, event, settings, target
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from langchain_resilient.engine.circuit import Circuit, CircuitState, enter, renew, report, wait_for_place

S = 1_000_000
LEASE = 30 * S
SPACING = 5 * S
OPEN_TIMES = [10 * S, 20 * S, 40 * S, 45 * S]
"""10 s, doubled by each failed probe, never above 45 s: the last holds from then on."""
RULES = Circuit(failure_threshold=3, failure_rate=0.5, minimum_calls=6, window=20.0, recovery_timeout=10.0, recovery_growth=2.0, recovery_cap=45.0)  # fmt: skip
SLICE = 2 * S
"""A tenth of the window."""


class NaiveCircuit:
    """What the module's docstring says, in the most roundabout way."""

    def __init__(self, probes: int) -> None:
        self.probes = probes
        self.phase = "closed"
        self.generation = 0
        self.history: list[tuple] = []
        self.until = 0
        self.failed_probes = 0
        self.midway = False
        self.last_spaced: int | None = None

    def _turn(self, phase: str, now: int) -> None:
        self.phase, self.history = phase, []
        self.generation = max(self.generation + 1, now // 1000)

    def holders(self, now: int) -> dict[int, int]:
        """Whose permits are alive, and until when: the phase's history, replayed."""
        alive: dict[int, int] = {}
        for when, what, attempt in self.history:
            if what == "entered" or (what == "renewed" and alive.get(attempt, -1) > when):
                alive[attempt] = when + LEASE
            elif what in {"succeeded", "neutral"}:
                alive.pop(attempt, None)
        return {attempt: lapses for attempt, lapses in alive.items() if lapses > now}

    def successes(self) -> int:
        return len([entry for entry in self.history if entry[1] == "succeeded"])

    def allowed(self) -> int:
        return min(self.probes, 1 + self.successes())

    def lets_in(self, now: int, *, raced: bool, early: bool) -> bool:
        if self.phase == "closed":
            return True
        if self.phase == "open" and now < self.until and not early:
            return False
        healing = self.phase == "half_open" and self.successes() > 0
        spaced = (raced and not healing) or (early and self.phase == "open")
        if spaced and self.last_spaced is not None and now < self.last_spaced + SPACING:
            return False
        return self.phase == "open" or len(self.holders(now)) < self.allowed()

    def entered(self, attempt: int, now: int, *, spaced: bool) -> None:
        if self.phase == "open":
            self._turn("half_open", now)
        self.history.append((now, "entered", attempt))
        if spaced:
            self.last_spaced = now

    def renewed(self, attempt: int, now: int) -> None:
        if self.phase == "half_open":
            self.history.append((now, "renewed", attempt))

    def told(
        self, now: int, outcome: str, *, generation: int, attempt: int, slow: bool, least: int, spread: int
    ) -> None:
        if generation != self.generation or self.phase == "open":
            return
        bad = outcome in {"failure", "interruption"}
        if self.phase == "closed":
            if outcome == "neutral":
                return
            self.history.append((now, bad, slow))
            if (bad or slow) and self._has_tripped():
                self._open(now, outcome, least, spread, failed_probes=0)
        elif attempt in self.holders(now):
            if bad or (outcome == "success" and slow):
                self._open(now, outcome, least, spread, failed_probes=self.failed_probes + 1)
                return
            self.history.append((now, "neutral" if outcome == "neutral" else "succeeded", attempt))
            if self.successes() == self.probes:
                self._turn("closed", now)
                self.failed_probes, self.midway = 0, False

    def _has_tripped(self) -> bool:
        verdicts = [bad for _, bad, _ in self.history]
        if verdicts[-3:] == [True, True, True]:
            return True
        newest = self.history[-1][0] // SLICE
        window = [entry for entry in self.history if newest - entry[0] // SLICE < 10]
        failures, slow = (len([entry for entry in window if entry[place]]) for place in (1, 2))
        return len(window) >= 6 and (2 * failures >= len(window) or 2 * slow >= len(window))

    def _open(self, now: int, outcome: str, least: int, spread: int, *, failed_probes: int) -> None:
        self._turn("open", now)
        self.failed_probes = failed_probes
        self.midway = outcome == "interruption"
        base = OPEN_TIMES[min(failed_probes, 3)]
        self.until = now + max(least, floor(base * (1 + Fraction(spread, 10_000))))


class CircuitMachine(RuleBasedStateMachine):
    """Attempts are let in and report, in any order, to the circuit and to the model alike."""

    reached: ClassVar[Counter[str]] = Counter()

    @initialize(
        probes=st.sampled_from([1, 2, 3, 3, 4]), start=st.sampled_from([0, 1, 7 * S, 1000 * S]), dead=st.booleans()
    )
    def begin(self, probes, start, dead):
        self.settings = Circuit(
            **{name: getattr(RULES, name) for name in RULES.__slots__} | {"half_open_max_calls": probes}
        )
        self.state = CircuitState()
        self.model = NaiveCircuit(probes)
        self.now = start
        self.attempts = 0
        self.flying: list[tuple[int, int]] = []
        self.finished: list[tuple[int, int]] = []
        self.phases = ["closed"]
        self.most_permits = 0
        if dead:
            self.an_outage(3)

    # ------------------------------------------------------------------------------------------------------ what happens
    @rule(
        step=st.one_of(
            st.integers(0, 3), st.integers(0, 3 * S), st.sampled_from([SLICE, SPACING, 10 * S, LEASE, 60 * S])
        )
    )
    def time_passes(self, step):
        """The clock goes forward, or stands still."""
        self.now += step

    @rule(
        calls=st.integers(1, 4),
        raced=st.sampled_from([False, False, True]),
        early=st.sampled_from([False, False, True]),
    )
    def arrive(self, calls, raced, early):
        """Calls ask to be let in at once."""
        for _ in range(calls):
            self.arrives(raced=raced, early=early)

    def arrives(self, *, raced, early):
        wait = wait_for_place(self.state, self.settings, self.now, raced=raced, early=early)
        assert (wait == 0) == self.model.lets_in(self.now, raced=raced, early=early)
        if wait:
            # The stated wait is right while nothing else happens: nothing before it, and after it either a place or
            # (the pause between raced probes over, all permits taken) the rest of the wait.
            assert not self.model.lets_in(self.now + wait - 1, raced=raced, early=early)
            there = self.model.lets_in(self.now + wait, raced=raced, early=early)
            assert there or ((raced or early) and self.state.phase == "half_open")
            return
        self.attempts += 1
        if self.state.phase != "closed":
            spaced = raced or early
            self.state = enter(self.state, self.now, attempt=self.attempts, lease=LEASE, spaced=spaced)
            self.model.entered(self.attempts, self.now, spaced=spaced)
            self._note_phase()
            self.most_permits = max(self.most_permits, len(self.model.holders(self.now)))
            self.permits_stay_within_the_limit()
        self.flying.append((self.attempts, self.state.generation))

    def _tell(self, attempt, generation, outcome, slow, least, spread):
        before = self.state
        self.state = report(
            before, self.settings, self.now, outcome,
            generation=generation, attempt=attempt, slow=slow, floor=least, spread=spread,
        )  # fmt: skip
        self.model.told(
            self.now, outcome, generation=generation, attempt=attempt, slow=slow, least=least, spread=spread
        )
        if generation != before.generation:
            if currently_in_test_context():
                event("a report of another generation")
            assert self.state == before, "I2"
        self._note_phase()

    def _note_phase(self):
        if self.state.phase != self.phases[-1]:
            self.phases.append(self.state.phase)

    REPORT: ClassVar = {
        "outcome": st.sampled_from(["success", "success", "failure", "failure", "interruption", "neutral"]),
        "slow": st.sampled_from([False, False, False, True]),
        "least": st.sampled_from([0, 0, 0, 25 * S, 100 * S]),
        "spread": st.integers(-1000, 1000),
    }

    @rule(which=st.integers(0, 9), **REPORT)
    def reports(self, which, **said):
        """Some attempt in flight tells how it went: often one of long ago."""
        if not self.flying:
            return
        ticket = self.flying.pop(which % len(self.flying))
        self.finished.append(ticket)
        self._tell(*ticket, **said)

    @rule(number=st.integers(1, 4), outcome=st.sampled_from(["success", "failure"]))
    def newest_report(self, number, outcome):
        """The newest attempts all end alike: an outage, or its end."""
        for _ in range(min(number, len(self.flying))):
            ticket = self.flying.pop()
            self.finished.append(ticket)
            self._tell(*ticket, outcome=outcome, slow=False, least=0, spread=0)

    @rule(which=st.integers(0, 9), **REPORT)
    def reports_again(self, which, **said):
        """A second report of an attempt. While closed both count: telling duplicates apart is the store's task."""
        if not self.finished:
            return
        ticket = self.finished[which % len(self.finished)]
        before = self.state
        self._tell(*ticket, **said)
        if before.phase == "half_open":
            assert self.state == before

    @rule(attempt=st.integers(0, 50), ahead=st.integers(-3, 3), **REPORT)
    def a_stranger_reports(self, attempt, ahead, **said):
        """A report under a generation nearby, by an attempt that may never have been let in."""
        known = {number for number, _ in self.flying + self.finished}
        if ahead or attempt not in known:
            self._tell(attempt, self.state.generation + ahead, **said)

    @rule(which=st.integers(0, 9))
    def is_lost(self, which):
        """The caller crashed: no report ever comes."""
        if self.flying:
            self.flying.pop(which % len(self.flying))

    @rule(which=st.integers(0, 9))
    def renews(self, which):
        """A caller that lives keeps its permit (the store renews under the present generation only)."""
        if not self.flying:
            return
        attempt, generation = self.flying[which % len(self.flying)]
        if generation == self.state.generation:
            self.state = renew(self.state, self.now, attempt=attempt, lease=LEASE)
            self.model.renewed(attempt, self.now)

    @rule(calls=st.integers(1, 6))
    def an_outage(self, calls):
        """Calls that come are let in and fail at once."""
        for _ in range(calls):
            self.arrives(raced=False, early=False)
            self.newest_report(1, "failure") if self.flying else None

    @rule(probes=st.integers(1, 2), crowd=st.integers(0, 3), last=st.sampled_from(["success", "failure"]))
    def a_recovery(self, probes, crowd, last):
        """A patient caller waits as told and asks again, with success but perhaps the last time; others come with it, and take their time."""
        for left in reversed(range(probes)):
            self.now += wait_for_place(self.state, self.settings, self.now, raced=False)
            self.arrives(raced=False, early=False)
            first = self.flying[-1]
            for _ in range(crowd):
                self.arrives(raced=False, early=False)
            self.flying.remove(first)
            self.finished.append(first)
            self._tell(*first, outcome="success" if left else last, slow=False, least=0, spread=0)

    # ------------------------------------------------------------------------------------------------- what always holds
    @invariant()
    def agrees_with_the_model(self):
        """Phase, generation, times and permits are what the model works out from its list."""
        state, model = self.state, self.model
        assert (state.phase, state.generation, state.broke_midway) == (model.phase, model.generation, model.midway)
        assert state.reopened == model.failed_probes
        if state.phase == "open":
            assert state.until == model.until
        if state.phase == "half_open":
            assert state.successes == model.successes()
            alive = {permit.attempt: permit.lapses for permit in state.permits if permit.lapses > self.now}
            assert alive == model.holders(self.now)

    @invariant()
    def permits_stay_within_the_limit(self):
        """I1: permits outstanding ≤ limit, per generation."""
        if self.state.phase == "half_open":
            holders = self.model.holders(self.now)
            assert len(holders) <= self.model.allowed() <= self.model.probes
            if currently_in_test_context():
                event(f"{len(holders)} permits outstanding")
        else:
            assert self.state.permits == ()

    @invariant()
    def nothing_is_wedged(self):
        """I3: an open circuit lets a probe in when its time is over, a half-open one within a lease, raced or not."""
        if self.state.phase == "open":
            assert self.state.until - self.now <= max(100 * S, 45 * S + 4_500_000)
            assert wait_for_place(self.state, self.settings, max(self.now, self.state.until), raced=False) == 0
        for raced in (False, True):
            later = max(self.now, self.state.until) + LEASE
            assert wait_for_place(self.state, self.settings, later, raced=raced) == 0

    def teardown(self):
        """Count what was reached; then I3 to its end: given healthy traffic, every circuit closes, in time."""
        if not hasattr(self, "state"):
            return
        times = Counter(zip(self.phases, self.phases[1:], strict=False))
        closed_again = times["half_open", "closed"]
        assert times["open", "closed"] == times["closed", "half_open"] == 0
        self.reached.update({
            "open": self.phases.count("open"),
            "half_open": self.phases.count("half_open"),
            "closed_again": closed_again,
            "opened_again_by_a_probe": times["half_open", "open"],
            "two_permits": self.most_permits >= 2,
            "three_permits": self.most_permits >= 3,
        })  # fmt: skip
        for name in ("open", "half_open", "closed"):
            if name in self.phases[1:]:
                event(f"reached {name}")
        target(float(closed_again), label="closed again")
        latest = max(self.now, self.state.until) + self.model.probes * LEASE
        attempt = 10_000
        while self.state.phase != "closed":
            attempt += 1
            self.now += wait_for_place(self.state, self.settings, self.now, raced=False)
            assert self.now <= latest, "I3"
            self.state = enter(self.state, self.now, attempt=attempt, lease=LEASE, spaced=False)
            self.state = report(
                self.state, self.settings, self.now, "success", generation=self.state.generation, attempt=attempt
            )


TestCircuitMachine = CircuitMachine.TestCase
TestCircuitMachine.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)


def test_the_machine_reaches_every_phase():
    """The property would be empty if it never left "closed": a fixed run opens, probes, reopens and closes again often."""

    class Counted(CircuitMachine):
        reached: ClassVar[Counter[str]] = Counter()

    run_state_machine_as_test(
        Counted,
        settings=settings(max_examples=300, stateful_step_count=40, deadline=None, derandomize=True, database=None),
    )
    wanted = ("open", "half_open", "closed_again", "opened_again_by_a_probe", "two_permits")
    assert [name for name in wanted if not Counted.reached[name]] == []


def test_half_open_and_closed_again_are_reachable_step_by_step():
    """By hand: an outage opens the circuit, a crowd of probes holds three permits, and the last success closes it."""
    machine = CircuitMachine()
    machine.begin(probes=3, start=0, dead=True)
    assert machine.state.phase == "open"
    machine.a_recovery(probes=2, crowd=3, last="success")
    machine.arrive(calls=4, raced=False, early=False)
    assert (machine.state.phase, len(machine.state.permits)) == ("half_open", 3)
    machine.newest_report(1, "success")
    machine.agrees_with_the_model()
    assert machine.phases == ["closed", "open", "half_open", "closed"]
