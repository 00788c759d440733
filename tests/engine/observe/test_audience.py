"""Who hears of what one model does, and what may be read of it for how long."""

import gc
import logging
from dataclasses import replace

import pytest

from langchain_resilient.engine.classify import ErrorKind
from langchain_resilient.engine.errors import SettingsError
from langchain_resilient.engine.events import CircuitChanged, Watching
from langchain_resilient.engine.observe.audience import Audience
from langchain_resilient.engine.observe.capture import capture_decisions
from langchain_resilient.engine.policy import Gate
from langchain_resilient.testing import FakeClock
from tests.engine.harness import admitted, memory, settle, target
from tests.engine.observe.test_prometheus import decision

CLOCK = FakeClock()


class Watcher:
    """Keeps what may be read."""

    events = frozenset({Watching})

    def __init__(self):
        self.heard = []

    def __call__(self, event):
        self.heard.append(event)


def test_the_log_captures_and_the_users_own_hear(caplog):
    """Everybody hears of everything, as far as he asked for it."""
    own = []
    audience = Audience(CLOCK, [own.append])
    events = (CircuitChanged("a", "closed", "open", "timeout"), decision())
    with caplog.at_level(logging.WARNING, "langchain_resilient"), capture_decisions() as decisions:
        for event in events:
            audience(event)
    assert own == list(events)
    assert decisions == [decision().decision]
    assert "closed -> open" in caplog.text


def test_what_is_no_observer_is_refused():
    """The error names the field."""
    with pytest.raises(SettingsError, match="observers: got 3"):
        Audience(CLOCK, [3])


def test_each_provider_may_be_read_once():
    """Those that come up later are told of by themselves, with their budget, mode and circuit."""
    watcher, store = Watcher(), memory(CLOCK)
    audience, gate = Audience(CLOCK, [watcher]), Gate()
    for names in ("a", "ab", "b"):
        audience.watch(store, [target(name) for name in names], gate)
    assert [event.providers for event in watcher.heard] == [("a",), ("b",)]
    store.override(target("b"), "forced_open")
    assert [event.mode(*event.providers) for event in watcher.heard] == [None, "forced_open"]
    assert [event.budget(*event.providers) for event in watcher.heard] == [100.0, 100.0]
    for _ in range(target("a").circuit.failure_threshold):
        settle(store, admitted(store, target("a")), ErrorKind.SERVER_ERROR)
    assert [event.phase(*event.providers) for event in watcher.heard] == ["open", "closed"]
    assert [(event.store, event.alone()) for event in watcher.heard] == [("", False)] * 2


def test_a_provider_that_moved_is_read_where_it_is():
    """A deployment whose address was changed keeps its name: what may be read is the new one's, and the store tells of that too."""
    watcher, store = Watcher(), memory(CLOCK)
    audience, gate, moved = (
        Audience(CLOCK, [watcher]),
        Gate(),
        replace(target("a"), route="elsewhere", account="elsewhere"),
    )
    listened = []
    store.listen = lambda observe, targets: listened.append([one.route for one in targets])
    for targets in ([target("a")], [moved], [moved]):
        audience.watch(store, targets, gate)
    store.override(moved, "forced_open")
    assert [event.mode("a") for event in watcher.heard] == ["forced_open"]
    assert listened == [["a"], ["elsewhere"]]


def test_requests_in_the_gate_are_told_once():
    """Not with each provider that comes up."""
    watcher = Watcher()
    audience, gate = Audience(CLOCK, [watcher]), Gate()
    for name in "abc":
        audience.watch(memory(CLOCK), [target(name)], gate)
    gate.enter("interactive")
    assert [event.pending() for event in watcher.heard] == [1, 0, 0]


def test_a_gate_that_is_gone_is_told():
    """So that a model that nobody uses any more is read no longer."""
    watcher = Watcher()
    audience, gate = Audience(CLOCK, [watcher]), Gate()
    for name in "ab":
        audience.watch(memory(CLOCK), [target(name)], gate)
    del gate
    gc.collect()
    assert [event.pending() for event in watcher.heard] == [None, None]
