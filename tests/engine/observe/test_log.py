"""Events as log lines: levels, pace, and nothing that was said."""

import logging
import threading

import pytest

from langchain_resilient.engine.events import (
    Admitted,
    Attempt,
    CircuitChanged,
    Continued,
    CredentialBlocked,
    Decided,
    Decision,
    FellBack,
    Hedged,
    RateLimited,
    Refusal,
    StoreDegraded,
    StreamInterrupted,
)
from langchain_resilient.engine.observe.log import LogObserver
from langchain_resilient.testing.clock import FakeClock
from tests.engine.harness import World, status

DECISION = Decision(
    7, "b", "a", "answered", 3.25, None, (Attempt("a", "timeout", 3.0), Attempt("b", "ok", 0.25)),
    (Refusal("c", "circuit_open", 9.0),), "closed", True, None, None, False, "interactive", None,
)  # fmt: skip


@pytest.fixture
def lines(caplog):
    """The lines so far, with their levels."""
    caplog.set_level(logging.DEBUG, "langchain_resilient")
    here = threading.get_ident()  # another test's store may have a thread that speaks too
    return lambda: [(record.levelname, record.getMessage()) for record in caplog.records if record.thread == here]


@pytest.mark.parametrize(
    ("event", "level", "line"),
    [
        (CircuitChanged("a", "closed", "open", "timeout"), "WARNING", "a: circuit closed -> open (timeout)"),
        (CircuitChanged("a", "open", "half_open", "probe"), "INFO", "a: circuit open -> half_open (probe)"),
        (CircuitChanged("a", "half_open", "closed", "ok"), "WARNING", "a: circuit half_open -> closed (ok)"),
        (CredentialBlocked("a", "auth", 300.0), "ERROR", "a: credential left alone for 300 s (auth)"),
        (FellBack("a", "b", "timeout"), "INFO", "a -> b after timeout"),
        (StreamInterrupted("a", "timeout", shown=True), "WARNING", "a: stream interrupted (timeout)"),
        (Continued("a", "b"), "INFO", "the answer that broke at a goes on at b"),
        (Hedged("b", "a", won=True), "INFO", "b answered before a, hedged"),
        (RateLimited("a", "provider", "429"), "INFO", "a: rate limited by provider (429)"),
        (StoreDegraded(True, "no answer"), "WARNING", "shared store degraded: no answer"),
        (StoreDegraded(False, "answers"), "WARNING", "shared store back: answers"),
        (
            Decided(DECISION),
            "DEBUG",
            "request 7 answered by b in 3.25s; tried: a timeout 3.00s, b ok 0.25s; refused: c circuit_open",
        ),
        (
            Decided(DECISION._replace(attempts=(), refusals=(), provider=None, outcome="refused")),
            "DEBUG",
            "request 7 refused by None in 3.25s; tried: nothing",
        ),
    ],
)
def test_each_event_has_its_line(lines, event, level, line):
    """One line, at this level."""
    LogObserver(FakeClock().now)(event)
    assert lines() == [(level, line)]


def test_what_nobody_has_to_read_is_not_written(lines):
    """An admission is no news, nor a hedge that changed nothing."""
    LogObserver(FakeClock().now)(Admitted("a", False, 0.0))
    LogObserver(FakeClock().now)(Hedged("b", "a", won=False))
    assert lines() == []
    assert Admitted not in LogObserver.events


def test_what_an_outage_repeats_is_written_every_five_seconds(lines):
    """And the next line says how many it stands for; other providers have their own pace."""
    clock = FakeClock()
    observer = LogObserver(clock.now)
    for _ in range(100):
        observer(FellBack("a", "b", "timeout"))
        clock.advance(0.049)
    observer(FellBack("b", "c", "timeout"))
    clock.advance(0.2)
    observer(FellBack("a", "b", "timeout"))
    assert [line for _, line in lines()] == [
        "a -> b after timeout",
        "b -> c after timeout",
        "a -> b after timeout, and 99 more like it",
    ]


def test_a_circuits_changes_are_never_left_out(lines):
    """Each is written, however quickly they follow one another."""
    observer = LogObserver(FakeClock().now)
    for _ in range(3):
        observer(CircuitChanged("a", "closed", "open", "timeout"))
    assert len(lines()) == 3


def test_a_level_that_is_off_is_not_counted_either(caplog):
    """Nothing is written, and nothing is announced later."""
    clock = FakeClock()
    observer = LogObserver(clock.now)
    caplog.set_level(logging.WARNING, "langchain_resilient")
    for _ in range(3):
        observer(FellBack("a", "b", "timeout"))
        observer(Decided(DECISION))
    assert caplog.records == []
    caplog.set_level(logging.INFO, "langchain_resilient")
    observer(FellBack("a", "b", "timeout"))
    assert [record.getMessage() for record in caplog.records] == ["a -> b after timeout"]


def test_nothing_that_was_said_is_logged(world, lines):
    """A whole story, at DEBUG: neither the prompt, nor an answer, nor an error's text is in it."""
    error = status(500)
    error.args = ("the secret of the prompt",)
    w: World = world({"a": [error], "b": ["the secret of the answer"]})
    w.policy.__dict__["observe"] = LogObserver(w.clock.now)
    w.events.append(Decided(DECISION))
    w.ask()
    assert len(lines()) == 2
    assert "secret" not in repr(lines())
