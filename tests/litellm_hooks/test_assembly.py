"""The engine's parts for one Router: made once for what they are made of, and kept."""

import copy
import gc
import os
import sys
import threading
import warnings
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from langchain_resilient.engine.events import Watching
from langchain_resilient.engine.observe.levels import Levels
from litellm_hooks import assembly as module
from litellm_hooks.assembly import Assembly
from litellm_hooks.deployments import Candidate
from litellm_hooks.settings import Settings
from tests.litellm_hooks.test_router import entry


def rungs(*names: str, **params: Any) -> tuple[tuple[Candidate, ...], ...]:
    """One rung of these."""
    return (tuple([Candidate("main", entry(name, **params), {}) for name in names]),)


def test_a_policy_is_made_once(namespace):
    """The same candidates have the same policy, though the Router hands out copies of them."""
    parts = Assembly(Settings(namespace=namespace))
    assert parts.policy(rungs("a", "b")) is parts.policy(copy.deepcopy(rungs("a", "b")))
    assert parts.policy(rungs("a")) is not parts.policy(rungs("a", "b"))


def test_a_changed_deployment_is_another_target_with_the_same_state(namespace):
    """New parameters make a new target, whose keys are the old one's; a new endpoint makes a new key."""
    parts = Assembly(Settings(namespace=namespace))
    (before,) = parts.policy(rungs("a")).targets
    (after,) = parts.policy(rungs("a", rpm=3)).targets
    assert after is not before
    assert (after.route, after.account, after.limits.rpm) == (before.route, before.account, 3)
    (moved,) = parts.policy(rungs("a", api_base="http://127.0.0.1:1/v1")).targets
    assert moved.route != before.route


def test_what_a_fallback_says_beside_makes_another_target(namespace):
    """One deployment that is asked in two ways is two targets, each asked in its own."""
    parts = Assembly(Settings(namespace=namespace))
    made = [
        parts.policy(((Candidate("main", entry("a"), overrides),),)).targets[0] for overrides in ({}, {"seed": 1}, {})
    ]
    assert [target.client.overrides for target in made] == [{}, {"seed": 1}, {}]


def test_rungs_and_places_are_as_given(namespace):
    """Targets stand on the rungs and in the order in which their deployments were given."""
    parts = Assembly(Settings(namespace=namespace))
    made = parts.policy((*rungs("a", "b"), *rungs("c"))).targets
    assert [(one.client.id, one.rung, one.priority) for one in made] == [("a", 0, 0), ("b", 0, 1), ("c", 1, 0)]


def test_no_more_are_kept_than_the_bound(namespace, monkeypatch):
    """The oldest policies and targets are let go of."""
    monkeypatch.setattr(module, "MOST_KEPT", 3)
    parts = Assembly(Settings(namespace=namespace))
    for name in "abcdef":
        parts.policy(rungs(name))
    assert len(parts._policies) == len(parts._targets) == 3


@pytest.fixture
def _threads_take_turns() -> Iterator[None]:
    """As often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("_threads_take_turns")
def test_threads_let_go_of_the_oldest_together(namespace, monkeypatch):
    """Threads that make policies at once disturb one another in nothing, and keep no more than the bound."""
    monkeypatch.setattr(module, "MOST_KEPT", 3)
    parts = Assembly(Settings(namespace=namespace))

    def make(thread: int) -> None:
        for number in range(100):
            parts.policy(rungs(f"{thread}-{number}"))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(make, range(8)))
    assert len(parts._policies) == len(parts._targets) == 3


def test_a_fork_while_a_policy_is_made(namespace):
    """Who is forked while a thread makes a policy waits for nobody: that thread is not there."""
    parts = Assembly(Settings(namespace=namespace))
    begun, go_on = threading.Event(), threading.Event()

    def make() -> None:
        with parts._lock.current:
            begun.set()
            go_on.wait(20)

    thread = threading.Thread(target=make)
    thread.start()
    begun.wait(20)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # that a process with threads forks is the point
        child = os.fork()
    if not child:  # pragma: no cover  # another process
        threading.Timer(10, lambda: os._exit(2)).start()
        parts.policy(rungs("a"))
        os._exit(0)
    go_on.set()
    thread.join()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


class Observing:
    """Hears which providers there are; told of the first, it does what it is given."""

    events = frozenset({Watching})

    def __init__(self, first: Callable[[], object] = lambda: None) -> None:
        self.heard: list[tuple[str, ...]] = []
        self._first = first

    def __call__(self, event: Any) -> None:
        self.heard.append(event.providers)
        if len(self.heard) == 1:
            self._first()


def test_whoever_observes_may_ask_the_router_itself(namespace):
    """An observer that makes a policy when it is told of one is not waited for by itself."""
    observing = Observing(lambda: parts.policy(rungs("b")))
    parts = Assembly(Settings(namespace=namespace, observers=[observing]))
    parts.policy(rungs("a"))
    assert observing.heard == [("openai/gpt-4.1#a",), ("openai/gpt-4.1#b",)]


def test_observers_are_told_of_each_provider_once(namespace):
    """Whoever observes is told which providers there are, each once, as they come up."""
    observing = Observing()
    parts = Assembly(Settings(namespace=namespace, observers=[observing]))
    parts.policy(rungs("a"))
    parts.policy(rungs("a", "b"))
    parts.policy(rungs("b"))
    assert observing.heard == [("openai/gpt-4.1#a",), ("openai/gpt-4.1#b",)]


def test_requests_under_way_are_counted_once(namespace):
    """However many deployments have come up one after the other, a request is one to whoever reads how many are pending."""
    levels = Levels()
    parts = Assembly(Settings(namespace=namespace, observers=[levels.heard]))
    for name in "abc":
        parts.policy(rungs(name))
    parts.policy(rungs("a")).gate.enter("interactive")
    assert levels.pending() == 1
    assert levels.watched == tuple(f"openai/gpt-4.1#{name}" for name in "abc")


def test_whoever_observes_does_not_keep_it(namespace):
    """The parts of a Router that was given other settings are let go of, and counted no more."""
    levels = Levels()
    parts = Assembly(Settings(namespace=namespace, observers=[levels.heard]))
    parts.policy(rungs("a")).gate.enter("interactive")
    gone = weakref.ref(parts)
    del parts
    gc.collect()
    assert gone() is None
    assert levels.pending() == 0


def test_one_gate_for_all(namespace):
    """Requests count against one `max_pending`, whichever candidates they have."""
    parts = Assembly(Settings(namespace=namespace, max_pending=3))
    assert parts.policy(rungs("a")).gate is parts.policy(rungs("b")).gate
