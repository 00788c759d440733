"""Each box against a small model of what a box is: generated histories, with claimants that come late.

The model keeps plain dicts and shares no code with the boxes. Which of the due letters are handed out first is each box's own (a file: exactly
the oldest; a stream: those that came back stand behind), so the model checks that the choice was allowed and follows it.
"""

from __future__ import annotations

import itertools
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import event, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from langchain_resilient.engine.dead_letters.letter import MOST_DELIVERIES
from tests.engine.dead_letters.post import TENANT, Place, letter

KEEP = 300.0
SERIAL = itertools.count()
NUMBERS = st.integers(1, 6)
PICK = st.integers(0, 99)


@dataclass
class Entry:
    """What the model knows of a letter."""

    key: str
    created: float
    not_before: float
    deliveries: int = 0
    held_until: float | None = None
    holder: int | None = None
    parked: str | None = None

    def state(self, now):
        if self.parked:
            return "parked"
        return "claimed" if self.held_until is not None and self.held_until > now else "waiting"


class Machine(RuleBasedStateMachine):
    """One box, its model, and every letter that was ever handed out."""

    kind = url = ""

    def __init__(self):
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.place = Place(
            self.kind, Path(self.folder.name), self.url, f"machine-{next(SERIAL)}-{Path(self.folder.name).name}"
        )
        self.box = self.place(keep=KEEP)
        self.entries: dict[str, Entry] = {}
        self.results: dict[str, tuple[object, float]] = {}
        self.handed: list[tuple[object, int]] = []
        self.claims = itertools.count()
        self.names: list[str] = []
        """The ids so far."""

    def teardown(self):
        self.place.close()
        self.folder.cleanup()

    @property
    def now(self):
        return self.place.clock.wall()

    def answered(self, key):
        return key in self.results and self.results[key][1] > self.now

    def mine(self, held):
        """The entry that a handed-out letter still is the claim of."""
        it, holder = held
        entry = self.entries.get(it.id)
        return entry if entry is not None and entry.holder == holder else None

    @rule(number=NUMBERS, key=NUMBERS, wait=st.sampled_from([0, 0, 5, 40]))
    def put(self, number, key, wait):
        """A letter, of a key that may be known."""
        # An id is used once: claims of a letter that is gone are told from a new letter's by it.
        made = letter(number, id=f"id-{len(self.names):04}", key=f"key-{key}", not_before=self.now + wait)
        self.names.append(made.id)
        known = self.answered(made.key) or any(entry.key == made.key for entry in self.entries.values())
        assert self.box.put(made) == (None if known else self.kind)
        if not known:
            self.entries[made.id] = Entry(made.key, made.created, made.not_before)

    @rule(most=st.integers(1, 4), lease=st.sampled_from([10.0, 30.0]))
    def claim(self, most, lease):
        """Some letters; what they are must be allowed."""
        now = self.now
        due = {name: it for name, it in self.entries.items() if it.state(now) == "waiting" and it.not_before <= now}
        good = sorted((it.created, name) for name, it in due.items() if it.deliveries < MOST_DELIVERIES)
        taken = self.box.claim(most, lease)
        assert len(taken) == min(most, len(good))
        assert {it.id for it in taken} <= {name for _, name in good}
        if self.kind == "sqlite":
            assert [it.id for it in taken] == [name for _, name in good[:most]]
        for name, entry in due.items():
            if entry.deliveries >= MOST_DELIVERIES:
                parked = self.box.get(name).parked
                assert parked == "poison" or (parked is None and len(taken) == most)
                if parked:
                    event("poison")
                    entry.parked, entry.held_until, entry.holder = parked, None, None
        for it in taken:
            entry, holder = self.entries[it.id], next(self.claims)
            if entry.holder is not None:
                event("a claim lapsed and was taken")
            entry.deliveries += 1
            entry.held_until, entry.holder = now + lease, holder
            assert it.deliveries == entry.deliveries
            self.handed.append((it, holder))

    @precondition(lambda self: self.handed)
    @rule(pick=PICK, wait=st.sampled_from([0, 20]), counted=st.booleans())
    def release(self, pick, wait, counted):
        """Any letter that was ever handed out is given back."""
        held = self.handed[-1 - pick % len(self.handed)]
        self.box.release(held[0], self.now + wait, counted=counted)
        if entry := self.mine(held):
            entry.holder = entry.held_until = None
            entry.not_before = self.now + wait
            entry.deliveries -= not counted

    @precondition(lambda self: self.handed)
    @rule(pick=PICK, lease=st.sampled_from([10.0, 30.0]))
    def renew(self, pick, lease):
        """Any letter that was ever handed out is to be held longer."""
        held = self.handed[-1 - pick % len(self.handed)]
        self.box.renew([held[0]], lease)
        if entry := self.mine(held):
            entry.held_until = self.now + lease

    @precondition(lambda self: self.handed)
    @rule(pick=PICK)
    def park(self, pick):
        """Any letter that was ever handed out is to be parked."""
        held = self.handed[-1 - pick % len(self.handed)]
        self.box.park(held[0], "by hand")
        if entry := self.mine(held):
            entry.parked, entry.holder, entry.held_until = "by hand", None, None

    @precondition(lambda self: self.handed)
    @rule(pick=PICK)
    def finish(self, pick):
        """Any letter that was ever handed out is answered, perhaps late."""
        it, _ = self.handed[-1 - pick % len(self.handed)]
        value = len(self.handed)
        stands = self.answered(it.key)
        assert self.box.finish(it, value) is (not stands)
        if not stands:
            self.results[it.key] = (value, self.now + KEEP)
        self.entries = {name: entry for name, entry in self.entries.items() if entry.key != it.key}

    def name(self, pick):
        """The id of a letter that was put once, or of none."""
        return self.names[-1 - pick % len(self.names)] if self.names else "id-none"

    @rule(pick=PICK)
    def unpark(self, pick):
        """A letter is to wait again."""
        entry = self.entries.get(self.name(pick))
        parked = entry is not None and entry.parked is not None
        assert self.box.unpark(self.name(pick)) is parked
        if parked:
            entry.parked, entry.deliveries, entry.not_before = None, 0, 0.0

    @rule(pick=PICK, state=st.sampled_from([None, "waiting", "claimed", "parked"]))
    def purge(self, pick, state):
        """A letter is removed if it is in that state."""
        name = self.name(pick)
        there = name in self.entries and state in (None, self.entries[name].state(self.now))
        assert self.box.purge(ids=[name], state=state) == there
        if there:
            del self.entries[name]

    @rule(seconds=st.sampled_from([1, 10, 31, 400]))
    def wait(self, seconds):
        """Time passes."""
        self.place.clock.advance(seconds)

    @rule()
    def reopen(self):
        """The process is another one."""
        self.place.close()
        self.box = self.place(keep=KEEP)

    @invariant()
    def agree(self):
        """What is listed, counted and answered is what the model has."""
        now = self.now
        found = {it.id: (state, it.key, it.deliveries, it.not_before, it.parked) for state, it in self.box.letters()}
        assert found == {
            name: (it.state(now), it.key, it.deliveries, it.not_before, it.parked) for name, it in self.entries.items()
        }
        states = [entry.state(now) for entry in self.entries.values()]
        alive = [entry.created for entry in self.entries.values() if not entry.parked]
        counts = self.box.counts()
        assert counts[:3] == tuple(states.count(state) for state in ("waiting", "claimed", "parked"))
        assert counts.oldest == min(alive, default=None)
        for key in [f"key-{number}" for number in range(1, 7)]:
            result = self.box.result(key, TENANT)
            assert (result and result.value) == (self.results[key][0] if self.answered(key) else None)


@pytest.mark.parametrize(("kind", "examples"), [("sqlite", 20), ("redis", 60)])
def test_a_box_is_its_model(kind, examples, request):
    """Whatever is done to a box, in whatever order and however late, it holds what the model holds."""
    url = request.getfixturevalue("redis_url") if kind == "redis" else ""
    machine = type(f"{kind}Machine", (Machine,), {"kind": kind, "url": url})
    run_state_machine_as_test(machine, settings=settings(max_examples=examples, stateful_step_count=40, deadline=None))
