"""One step at a time, and nobody locked out: what interrupts a step, and what comes in the middle of one."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from types import FrameType
from typing import Any

import pytest

from langchain_resilient.engine.store import turn as home
from langchain_resilient.engine.store.turn import Turn
from tests.servers import until


class Interruption(BaseException):
    """What a signal's handler raises: a KeyboardInterrupt, Celery's soft time limit."""


def free(turn: Turn, within: float = 2.0) -> bool:
    """Whether another thread can take its turn within so many seconds."""
    took = threading.Event()

    def take() -> None:
        with turn:
            took.set()

    threading.Thread(target=take, daemon=True).start()
    return took.wait(within)


def interrupted(step: Callable[[], object], at: int) -> bool:
    """Do a step, and raise before the instruction with this number of those that are the turn's own; whether there are as many."""
    left = at

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal left
        if frame.f_code.co_filename != home.__file__:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            left -= 1
            if left < 0:
                raise Interruption
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        step()
    except Interruption:
        return True
    finally:
        sys.settrace(before)
    return False


def test_no_instruction_of_its_own_can_be_interrupted_with_the_turn_taken():
    """Whatever it runs of its own on the way in and out, an exception there leaves the turn to others."""
    at, turn = 0, Turn()

    def step() -> None:
        with turn:
            turn.postponed(list)
        turn.postponed(list)

    while interrupted(step, at):
        assert free(turn), f"interrupted at instruction {at}"
        at += 1
    assert at  # `postponed` has some


@pytest.fixture
def alarm() -> Iterator[Callable[[], object]]:
    """Sets an alarm for a moment soon, whose handler raises; by this process's own time, as the other clock is pytest-timeout's."""

    def ring(*_: object) -> None:
        raise Interruption

    before = signal.signal(signal.SIGVTALRM, ring)
    yield lambda: signal.setitimer(signal.ITIMER_VIRTUAL, 0.0005)
    signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    signal.signal(signal.SIGVTALRM, before)


def test_a_signal_at_any_moment_leaves_the_turn_to_others(alarm: Callable[[], object]):
    """A handler that raises, wherever it hits a thread that takes turn after turn, locks nobody out."""
    turn = Turn()
    for _ in range(100):
        with suppress(Interruption):
            alarm()
            while True:
                with turn:
                    pass
        assert free(turn)


def test_what_comes_within_a_step_is_done_after_it():
    """The garbage collector may report to the store whose turn its own thread has: it does not wait, and nothing is done in between."""
    turn, order = Turn(), []

    def report() -> None:
        if not turn.postponed(report):
            with turn:
                order.append("report")

    with turn:
        report()
        assert not free(turn, within=0.05)  # the other thread had time to come in between
        order.append("step")
    until(lambda: order == ["step", "report"], "it is reported")
    report()
    assert order == ["step", "report", "report"]


def test_without_a_thread_it_is_done_at_once(monkeypatch: pytest.MonkeyPatch):
    """At the end of the interpreter, or of the machine's threads, a report in between is better than none: it finds no closed door."""

    def none_left(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(home, "start_new_thread", none_left)
    turn = Turn()
    with turn:
        assert not turn.postponed(list)
        with turn:
            assert turn._is_owned()
        assert turn._is_owned()
    assert free(turn)
