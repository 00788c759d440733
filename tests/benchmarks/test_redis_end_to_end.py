"""Rules for whole runs of `benchmarks/redis_store.py` and `benchmarks/fleet.py`, at tiny sizes; no timing is asserted."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import fleet
import pytest
from fleets.scene import Scene
from stores import decisions, server
from stores.contenders import Setting
from stores.crew import Crew, CrewError
from stores.crowd import Plan, Spec, Waiters, run_together
from stores.figures import Bucket

from tests.servers import binary_or_skip, until, valkey_binary

pytestmark = pytest.mark.e2e
FOLDER = Path(__file__).parents[2] / "benchmarks"
TINY = decisions.Sizes(rounds=2, alone=5, crowd=16, tasks=4, threads=2)


@pytest.fixture(autouse=True)
def _a_server_can_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    binary_or_skip(valkey_binary)
    monkeypatch.delenv("REDIS_URL", raising=False)


def test_every_decision_is_measured(namespace: str):
    """One at a time and at once, sync and async: each has a row with a ratio, and ours send one EVALSHA or fewer."""
    with server.Server() as it:
        found = [
            decisions.local(TINY),
            decisions.one_at_a_time(it.url, f"{namespace}a", TINY),
            decisions.one_task(it.url, f"{namespace}b", TINY),
            decisions.many_tasks(it.url, f"{namespace}c", TINY),
            decisions.many_threads(it.url, f"{namespace}d", TINY),
        ]
    for rows in found:
        assert rows[0].ratio == 1.0
        assert all(row.ratio > 0 and row.median_us > 0 for row in rows)
    assert {row.what for row in found[1]} >= {decisions.BARE, decisions.PLAIN, decisions.FULL}
    assert found[1][0].evalsha >= 1.0


def test_waiters_of_several_processes_share_a_limit(namespace: str):
    """Ours admit what there is and no more; LangChain's limiter knows one process only, and sends nothing."""
    plan = Plan(Bucket(50.0, 5.0), processes=2, waiters=3, seconds=1.0)
    found = run_together(["model", "keyed", "langchain"], plan, namespace)
    assert [seen.error for seen in found.values()] == [""] * 3
    for name in ("model", "keyed"):
        assert 2 <= sum(map(len, found[name].processes)) <= 5 + 50 + 1
        assert set(found[name].commands) <= {"EVALSHA", "SUBSCRIBE", "PING", "SCRIPT", "CLIENT", "HELLO"}
        assert found[name].commands["EVALSHA"] > 0
    assert not found["langchain"].commands


def test_tokens_are_reconciled_in_ours(namespace: str):
    """An estimate of 2000 that turns out to be some 600 leaves room for more than the estimates would."""
    plan = Plan(Bucket(1000.0, 10_000.0), processes=1, waiters=8, seconds=1.5, estimate=2000, works=0.05)
    seen = run_together(["model-held"], plan, namespace)["model-held"]
    assert seen.error == ""
    assert sum(map(len, seen.processes)) > (10_000 + 1500) / 2000


def test_what_a_process_raises_is_told():
    """A process that can't do its work says why, and none is left."""
    spec = Spec("no such contender", Setting("redis://127.0.0.1:1", "x", Bucket(1.0, 1.0)), 0, 1, 1.0)
    with Crew() as crew, pytest.raises(CrewError, match="no such contender"):
        crew.add(Waiters, [spec])
    assert not any(member._process.is_alive() for member in crew.members if member._process._closed is False)


def test_clients_commands_are_told_from_a_scripts(namespace: str):
    """MONITOR shows both; only what clients sent counts, and only between the two times."""
    with server.Server() as it, server.client_of(it.url) as client:
        with server.Monitor(it.url) as monitor:
            client.ping()
            time.sleep(0.01)
            begins = time.time()
            client.eval("redis.call('SET', KEYS[1], 'a') return redis.call('GET', KEYS[1])", 1, namespace)
            ends = time.time()
            time.sleep(0.01)
            client.ping()
        assert monitor.between(begins, ends) == {"EVAL": 1}
        assert server.calls(client, "set") == 1


def test_a_server_can_be_hurt_and_mended():
    """Killed it is gone, and comes back at the same place; stopped it says nothing until it goes on; ended, no process is left."""
    with server.Server() as it:
        url = it.url
        it.kill()
        with pytest.raises(Exception, match="refused"), server.client_of(url) as client:
            client.ping()
        it.start()
        it.stop()
        it.cont()
        with server.client_of(url) as client:
            assert client.ping()
        process = it._pid
    until(lambda: not _runs(process), "it is gone")


def test_a_server_does_not_outlive_a_benchmark_that_is_killed():
    """Its shell sees the pipe close."""
    program = f"import sys, time; sys.path.insert(0, {str(FOLDER)!r}); from stores.server import Server; it = Server(); it.stop()"
    command = [sys.executable, "-c", f"{program}; print(it._pid, flush=True); time.sleep(60)"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running:
        process = int(running.stdout.readline())
        running.send_signal(signal.SIGKILL)
    until(lambda: not _runs(process), "it is gone")


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return "State:\tZ" not in Path(f"/proc/{process}/status").read_text() if Path("/proc").exists() else True


def test_the_command_runs(tmp_path: Path):
    """A part of it: tables, gates, and the same as JSON; a contender that is not asked for has a row that says so."""
    written = tmp_path / "told.json"
    command = [sys.executable, FOLDER / "redis_store.py", "--quick", "--part", "local", "waiting", "--only", "keyed"]
    done = subprocess.run([*command, "--json", written], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "not asked for" in done.stdout
    told = json.loads(written.read_text())
    assert set(told["waiting"]) == {"keyed"}
    assert {gate["what"] for gate in told["gates"]} >= {"local decision: admit, µs", "KeyedRateLimiter: admitted"}


def test_a_fleet_goes_through_an_outage():
    """Every request is answered though Redis is killed midway, which both processes are told of; the first provider is used again."""
    scene = Scene(lead_in=0.5, outage=1.5, afterwards=2.5, rate=30.0, takes=0.02, recovery=0.4)
    found = fleet.run("killed", 2, scene)
    assert (found.answered, found.errors) == (1.0, {})
    assert found.away == (2, 2)
    assert found.dead >= 5
    assert found.used_again is not None
    fleet.show({(2, "killed"): found}, scene)
    assert [held.reach for held in fleet.gates({(2, "killed"): found}, scene)][1] == "≥ 100.0 %"
