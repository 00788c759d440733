"""The settings of one model: defaults, their limits, and the small things that go with them."""

import asyncio
import os
import threading
import time
from dataclasses import replace

import pytest

from langchain_resilient.engine.errors import OverloadedError, SettingsError
from langchain_resilient.engine.events import Usage
from langchain_resilient.engine.hedge import Hedge
from langchain_resilient.engine.policy import Gate, Policy, Price, SystemClock, Timeouts
from langchain_resilient.engine.quota import Cost, RateLimits
from tests.engine.harness import target


def test_the_default_limits():
    """As the design states them, in seconds."""
    assert Timeouts() == Timeouts(connect=5.0, first_token=12.0, idle=15.0, response=60.0, total=600.0)


@pytest.mark.parametrize("name", ["connect", "first_token", "idle", "response", "total"])
@pytest.mark.parametrize("value", [0, -1, None, "5", float("inf"), float("nan"), True])
def test_nonsensical_limits_are_refused(name, value):
    """The error names the field and the fix."""
    with pytest.raises(SettingsError, match=rf"Timeouts\.{name}: got .*; use a number of seconds > 0"):
        Timeouts(**{name: value})


@pytest.mark.parametrize("price", [(-1, 0), (0, "x"), (0, 0, -1), (None, 0)])
def test_nonsensical_prices_are_refused(price):
    """Free is a price; negative is none."""
    with pytest.raises(SettingsError, match=r"Price\..*US dollars per million tokens"):
        Price(*price)
    assert Price(0, 0).of(Usage(10, 10)) == 0.0


def test_what_an_answer_costs():
    """1,000 in at 3 $/M, 400 of them cached at 0.3 $/M, and 200 out at 15 $/M."""
    usage = Usage(1000, 200, 400)
    assert Price(3.0, 15.0, 0.3).of(usage) == pytest.approx(0.00492)
    assert Price(3.0, 15.0).of(usage) == pytest.approx(0.006)


@pytest.mark.parametrize(
    ("settings", "first_token", "idle", "response", "long"),
    [
        ({}, 12.0, 15.0, 60.0, 160.0),
        ({"reasons": True}, 180.0, 60.0, 180.0, 180.0),
        ({"timeouts": Timeouts(first_token=3.0, idle=4.0, response=5.0)}, 3.0, 4.0, 5.0, 5.0),
        ({"reasons": True, "timeouts": Timeouts(first_token=3.0, idle=4.0, response=5.0)}, 3.0, 4.0, 5.0, 5.0),
    ],
)
def test_how_long_a_provider_may_take(settings, first_token, idle, response, long):
    """Models that reason get longer, and an answer of 2,000 tokens 100 s more, unless the settings say otherwise."""
    item = target(**settings)
    assert (item.first_token, item.idle, item.response(None), item.response(2000)) == (
        first_token,
        idle,
        response,
        long,
    )
    assert (item.time_limit(None, stream=True), item.time_limit(2000, stream=False)) == (first_token, long)


def test_no_answer_may_take_longer_than_ten_minutes():
    """However many tokens are allowed."""
    assert target().response(1_000_000) == 600.0


@pytest.mark.parametrize(
    ("limits", "seconds"), [({}, 10.0), ({"max_wait": 3.0}, 10.0), ({"rpm": 60, "max_wait": 3.0}, 3.0), ({"concurrency": 1, "max_wait": 3.0}, 3.0)]
)  # fmt: skip
def test_how_long_a_request_may_stand_in_a_line(limits, seconds):
    """`max_wait` where something is limited; else the usual time, as others may stand there for the circuit."""
    assert target("a", limits=RateLimits(**limits)).longest_wait == seconds


def test_what_a_request_takes_from_the_limits():
    """Money only where there is a price: 100 · 1 $/M + 50 · 2 $/M are 200 µ$."""
    assert target().cost(100, 50) == Cost(1, 100, 50, 0)
    assert target(price=Price(1.0, 2.0)).cost(100, 50) == Cost(1, 100, 50, 200)


def test_a_policy_needs_a_provider_and_a_known_routing():
    """Each error names the field."""
    with pytest.raises(SettingsError, match=r"providers: got .*; name at least one provider"):
        Policy(())
    with pytest.raises(SettingsError, match="routing: got 'latencey'; did you mean 'latency'"):
        Policy((target(),), routing="latencey")


def test_when_the_first_provider_can_be_asked_plainly():
    """Only the list's order decides, and there is time enough."""
    assert Policy((target(),)).plain
    assert not Policy((target(),), total=599.0).plain
    assert not Policy((target(),), routing="cost").plain


def test_whether_tokens_have_to_be_estimated():
    """If any provider's limits count them."""
    assert not Policy((target(), target("b", limits=RateLimits(rpm=1)))).counts_tokens
    assert Policy((target(), target("b", limits=RateLimits(tpm=1)))).counts_tokens


# -------------------------------------------------------------------------------------------------------------------- gate
@pytest.mark.parametrize("most", [0, -1, 1.5, "8", True])
def test_nonsensical_bounds_are_refused(most):
    """A whole number, or none."""
    with pytest.raises(SettingsError, match=r"max_pending: got .*; use a whole number ≥ 1, or None"):
        Gate(most)


def test_a_gate_without_a_bound_turns_nobody_away():
    """It counts all the same: the gauge of pending requests reads it."""
    gate = Gate()
    for _ in range(1000):
        gate.enter("replay")
    assert gate.pending == 1000
    gate.leave()
    assert gate.pending == 999


def test_a_gate_of_one_lets_every_lane_have_it():
    """A share of one place is one place, never none."""
    gate = Gate(1)
    for lane in ("replay", "batch", "interactive"):
        gate.enter(lane)
        with pytest.raises(OverloadedError, match=rf"1 requests are pending .*max_pending=1, lane '{lane}'"):
            gate.enter(lane)
        gate.leave()


def test_a_fork_has_none_of_its_parents_requests():
    """Those who were in the gate are not in the child's, whose lock nobody holds; and what it leaves that it never entered counts for nothing."""
    gate = Gate(2)
    gate.enter("interactive")
    gate.enter("interactive")
    with gate._lock:
        child = os.fork()
        if not child:  # pragma: no cover  # another process
            gate.leave()
            gate.enter("interactive")
            os._exit(gate.pending)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1
    assert gate.pending == 2


def test_policies_that_are_made_of_one_share_its_allowance():
    """Of a Router's many sets of candidates each would else save up hedges of its own."""
    first = Policy((target("a"),), hedge=Hedge())
    assert first.allowance is not None
    assert replace(first, targets=(target("b"),)).allowance is first.allowance
    assert Policy((target("a"),)).allowance is None


def test_a_gate_holds_under_24_threads():
    """Never more inside than the bound, and none left at the end."""
    gate, most, turned_away = Gate(5), [0], []

    def work():
        for _ in range(500):
            try:
                gate.enter("interactive")
            except OverloadedError:
                turned_away.append(1)
                continue
            most[0] = max(most[0], gate.pending)
            gate.leave()

    threads = [threading.Thread(target=work) for _ in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most[0] <= 5
    assert gate.pending == 0


# ------------------------------------------------------------------------------------------------------------------- clock
def test_the_machines_clock_waits_until_woken():
    """A sleep ends at its time, or as soon as the event is set."""
    clock = SystemClock()
    began = time.monotonic()
    clock.sleep(0.01)
    clock.sleep(0.01, threading.Event())
    asyncio.run(clock.asleep(0.01))
    asyncio.run(unset(clock))
    assert time.monotonic() - began >= 0.035
    ready = threading.Event()
    ready.set()
    clock.sleep(30.0, ready)
    asyncio.run(woken(clock))
    assert time.monotonic() - began < 5.0
    assert abs(clock.wall() - time.time()) < 1.0


async def unset(clock):
    """Wait for an event that never comes."""
    await clock.asleep(0.01, asyncio.Event())


async def woken(clock):
    """Be woken from a long sleep."""
    event = asyncio.Event()
    asyncio.get_running_loop().call_later(0.01, event.set)
    await clock.asleep(30.0, event)
