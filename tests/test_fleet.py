"""One fleet: real worker processes and a real Redis. What one of them learns all know, and what all share is counted once."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import pairwise

import pytest

from langchain_resilient import Circuit, RateLimits
from langchain_resilient.testing import Fault, FaultServer
from tests import fleet as f
from tests.fleet import Fleet, provider
from tests.servers import client_of, until

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("redis_url")]
SIZE = 4
TASKS = 2
SOON = Circuit(recovery_timeout=0.5, half_open_max_calls=1, probe="inline")


@pytest.fixture(scope="module")
def workers() -> Iterator[Fleet]:
    """Four processes that have made no model yet; each test's models come on top, in a namespace of its own."""
    with Fleet(SIZE) as fleet:
        yield fleet


@pytest.fixture
def fleet(workers: Fleet) -> Fleet:
    """The four processes, as if they were new."""
    workers.call(f.forget)
    return workers


@pytest.fixture
def servers() -> Iterator[tuple[FaultServer, FaultServer]]:
    """A provider that is asked first, and one that is asked next."""
    with FaultServer() as first, FaultServer() as second:
        first.answer("From the first.")
        second.answer("From the second.")
        yield first, second


def known(fleet: Fleet, name: str, of: str) -> set[object]:
    """What the processes' statuses say of one thing."""
    return {status[name][of] for status in fleet.call(f.status)}


def test_a_fleet_learns_of_an_outage_from_the_first_five_failures(fleet, servers, redis_url: str, namespace: str):
    """Calls into a dead provider: five, those in flight, and one probe at a time for all; healed, it is closed for all and used by all."""
    first, second = servers
    first.always(Fault.status(503))
    given = [provider("one", url=first.base_url("openai")), provider("two", url=second.base_url("openai"))]
    fleet.call(f.make, redis_url, given, namespace=namespace, circuit=SOON)
    began = time.monotonic()
    fleet.call(f.keep_asking, 0.02, tasks=TASKS)
    time.sleep(1.5)
    probes = 1 + (time.monotonic() - began) / (0.9 * SOON.recovery_timeout)
    asked = first.count
    assert 5 <= asked <= 5 + SIZE * (1 + TASKS) + probes
    first.always(Fault.ok())
    until(lambda: known(fleet, "openai/one", "circuit") == {"closed"}, "the circuit is closed everywhere")
    time.sleep(0.5)
    answers = fleet.call(f.answers)
    assert {answer.error for told in answers for answer in told} == {""}
    for told in answers:
        assert [answer.text for answer in told[-3:]] == ["From the first."] * 3
    assert second.count > 5 * asked


def test_what_one_process_finds_open_the_idle_ones_know_at_once(fleet, redis_url: str, namespace: str, tmp_path):
    """An opening is published: processes that ask nothing know it within a moment, tell their observers, and need no failure of their own."""
    sick = tmp_path / "sick"
    sick.touch()
    given = [provider("one", fails=str(sick)), provider("two")]
    fleet.call(f.make, redis_url, given, namespace=namespace)
    fleet[0].call(f.ask, 5)
    told = [
        until(lambda worker=worker: worker.call(f.events, "CircuitChanged"), "every process is told")
        for worker in fleet
    ]
    assert {(event.provider, event.before, event.after) for (_, event), *_ in told} == {
        ("scripted/one", "closed", "open")
    }
    assert [len(events) for events in told] == [1] * SIZE
    moments = [events[0][0] for events in told]
    assert max(moments) - min(moments) < f.SLOW  # about 10 ms; a beat would be 3 s
    for worker in fleet:
        assert worker.call(f.gauge, "circuit_breaker_state", provider="scripted/one") == 2
        assert worker.call(f.ask)[0].text == "All is well."
    assert not fleet[1].call(f.events, "FellBack")


@pytest.mark.parametrize("kind", ["wait", "next"])
def test_four_processes_keep_one_rate_limit(fleet, redis_url: str, namespace: str, kind: str):
    """Together they get the burst and the rate, never more and hardly less; in a line none of them starves."""
    limits = RateLimits(rpm=1200, burst=5, on_limit=kind)  # 20 a second
    given = [provider("one", limits=limits, says="1"), *([provider("two", says="2")] if kind == "next" else [])]
    fleet.call(f.make, redis_url, given, namespace=namespace)
    fleet.call(f.keep_asking, 0.01, tasks=TASKS)
    time.sleep(2.0)
    told = fleet.call(f.answers)
    everything = [answer for answers in told for answer in answers]
    assert {answer.error for answer in everything} == {""}
    mine = [[answer for answer in answers if answer.text == "1"] for answers in told]
    ours = [answer for answers in mine for answer in answers]
    seconds = max(answer.at + answer.seconds for answer in ours) - min(answer.at for answer in ours)
    assert 0.7 * 20 * 2.0 <= len(ours) <= 5 + 20 * seconds + 1
    if kind == "wait":
        assert min(len(answers) for answers in mine) >= len(ours) / SIZE / 2


def test_four_processes_keep_one_concurrency_limit(fleet, servers, redis_url: str, namespace: str):
    """Never more than the limit run at once in the whole fleet, and everybody gets a turn."""
    first, _ = servers
    first.answer("From the first.", delay=0.05)
    given = [provider("one", url=first.base_url("openai"), limits=RateLimits(concurrency=3, on_limit="wait"))]
    fleet.call(f.make, redis_url, given, namespace=namespace)
    fleet.call(f.keep_asking, 0.0, tasks=TASKS)
    time.sleep(1.5)
    seen = [fleet[0].call(f.status)["openai/one"] for _ in range(10)]  # at one instant all places may be between two
    told = fleet.call(f.answers)
    assert {answer.error for answers in told for answer in answers} == {""}
    begins = sorted(request.at for request in first.requests)
    # A request runs for 50 ms at least, so the fourth after one begins later than that.
    assert all(fourth - one >= 0.045 for one, fourth in zip(begins, begins[3:], strict=False))
    assert len(begins) >= 20
    assert min(len(answers) for answers in told) >= len(begins) / SIZE / 3
    assert 1 <= max(one["running"] for one in seen) <= 3
    assert max(one["waiting"] for one in seen) >= SIZE
    until(lambda: known(fleet, "openai/one", "running") == {0}, "every place is given back")
    assert known(fleet, "openai/one", "waiting") == {0}


def test_an_override_holds_in_the_whole_fleet(fleet, redis_url: str, namespace: str):
    """Set in one process it holds in all, is shown by all, and is cleared by any of them."""
    fleet.call(f.make, redis_url, [provider("one", says="1"), provider("two", says="2")], namespace=namespace)
    assert {told[0].text for told in fleet.call(f.ask)} == {"1"}
    fleet[0].call(f.override, "scripted/one", "forced_open")
    assert {told[0].text for told in fleet.call(f.ask)} == {"2"}
    assert known(fleet, "scripted/one", "override") == {"forced_open"}
    fleet[3].call(f.override, "scripted/one", None)
    # It refuses nobody from now on; who had ranked it last hears so in a moment.
    until(lambda: {told[0].text for told in fleet.call(f.ask)} == {"1"}, "all ask the first again")
    assert known(fleet, "scripted/one", "override") == {None}


def test_every_process_shows_the_same(fleet, redis_url: str, namespace: str, tmp_path):
    """Circuit, generation, blocks, running, free limits: what is shared reads the same wherever it is asked for."""
    sick = tmp_path / "sick"
    sick.touch()
    limits = RateLimits(rpd=1000, concurrency=8)
    given = [provider("one", fails=str(sick)), provider("two", limits=limits, takes=1.5)]
    fleet.call(f.make, redis_url, given, namespace=namespace, circuit=Circuit(failure_threshold=1))
    fleet[0].begin(f.ask_at_once, 3)
    until(lambda: fleet[1].call(f.status)["scripted/two"]["running"] == 3, "three run")
    statuses = [worker.call(f.status) for worker in fleet.workers[1:]]
    shared = ("circuit", "generation", "blocked", "limits_scale", "running", "waiting", "shared", "override")
    assert len({tuple(status[name][of] for name in status for of in shared) for status in statuses}) == 1
    assert statuses[0]["scripted/one"]["circuit"] == "open"
    assert {status["scripted/two"]["limits_free"]["rpd"] for status in statuses} == {0.997}
    fleet[0].end()


def test_a_process_knows_how_fast_a_provider_is_that_it_never_asked(fleet, redis_url: str, namespace: str):
    """Latencies are counted together: p50 and p99 are known everywhere, from everybody's answers."""
    fleet.call(f.beat_every, 0.2)
    fleet.call(f.make, redis_url, [provider("one", takes=0.02), provider("two", takes=0.02)], namespace=namespace)
    fleet[1].call(f.override, "scripted/one", "forced_open")
    fleet[1].call(f.ask, 3)
    fleet[1].call(f.override, "scripted/one", None)
    fleet[0].call(f.ask, 20)

    def everywhere() -> bool:
        fleet[0].call(f.ask)  # nothing is told without a word
        statuses = [worker.call(f.status) for worker in fleet]
        return all(status[name]["p50"] for status in statuses for name in status)

    until(everywhere, "everybody knows both")
    status = fleet[3].call(f.status)
    assert 0.02 <= status["scripted/one"]["p50"] < 0.5
    assert 0.02 <= status["scripted/two"]["p99"] < 1.0


def test_a_bad_key_blocks_those_who_have_it(fleet, servers, redis_url: str, namespace: str):
    """A credential that was refused is left alone by all who share it, and by nobody else; it stands in Redis as a hash."""
    first, second = servers
    first.schedule(Fault.status(401))
    for worker, key in zip(fleet, ("sk-bad", "sk-bad", "sk-good", "sk-good"), strict=True):
        given = [provider("one", url=first.base_url("openai"), key=key), provider("two", url=second.base_url("openai"))]
        worker.call(f.make, redis_url, given, namespace=namespace)
    assert fleet[0].call(f.ask)[0].text == "From the second."
    until(lambda: fleet[1].call(f.events, "CredentialBlocked"), "the other one with that key is told")
    assert [told[0].text for told in fleet.call(f.ask)] == ["From the second."] * 2 + ["From the first."] * 2
    blocked = [status["openai/one"]["blocked"] for status in fleet.call(f.status)]
    assert blocked == ["auth", "auth", None, None]
    assert first.count == 3
    with client_of(redis_url) as client:
        stored = b" ".join(key + b" " + (client.dump(key) or b"") for key in client.scan_iter(f"*{namespace}*"))
    assert b"sk-" not in stored
    assert str(first.port).encode() not in stored


def test_two_settings_for_one_provider_are_warned_of(fleet, redis_url: str, namespace: str):
    """Two models of a process that name one provider with other limits get one warning; each call goes by its own model's."""
    fleet[0].call(f.make, redis_url, [provider("one", limits=RateLimits(rpm=60))], namespace=namespace)
    assert not fleet[0].call(f.warned)
    fleet[0].call(f.make, redis_url, [provider("one", limits=RateLimits(rpm=120))], namespace=namespace)
    assert [text for text in fleet[0].call(f.warned) if "scripted/one" in text and "other settings" in text]


def test_a_model_that_is_made_late_knows_what_the_fleet_knows(fleet, redis_url: str, namespace: str, tmp_path):
    """A new process, and a second model of an old one, show an open circuit from the beginning and never ask there."""
    sick = tmp_path / "sick"
    sick.touch()
    given = [provider("one", fails=str(sick)), provider("two", says="2")]
    fleet[0].call(f.make, redis_url, given, namespace=namespace)
    fleet[0].call(f.ask, 5)
    fleet[1].call(f.make, redis_url, [provider("three")], namespace=namespace)
    fleet[1].call(f.ask)
    for worker in fleet.workers[1:3]:
        worker.call(f.make, redis_url, given, namespace=namespace)
        until(lambda worker=worker: worker.call(f.gauge, "circuit_breaker_state", provider="scripted/one") == 2, "open")
        assert worker.call(f.ask, model=-1)[0].text == "2"
        assert not worker.call(f.events, "FellBack")


def test_a_lines_order_is_the_fleets(fleet, redis_url: str, namespace: str):
    """Who waits in a line is served in the order of coming, whichever process it came from."""
    limits = RateLimits(rpm=600, burst=1, on_limit="wait")  # one in 0.1 s
    fleet.call(f.make, redis_url, [provider("one", limits=limits)], namespace=namespace)
    fleet[0].call(f.ask)
    for turn in range(8):
        fleet[turn % SIZE].begin(f.ask) if turn < SIZE else None
        time.sleep(0.03) if turn < SIZE else None
    answers = [worker.end()[0] for worker in fleet]
    ends = [answer.at + answer.seconds for answer in answers]
    assert ends == sorted(ends)
    assert all(later - sooner >= 0.08 for sooner, later in pairwise(ends))
