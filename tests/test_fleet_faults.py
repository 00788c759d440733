"""Redis is never a new way to fail: what users see of it, and what is left of the limits, while a real server is hurt.

Each fault has a server of its own. Whatever the fault: every request is answered, none waits for seconds, one event, line and gauge tell of
it, and all is shared again by itself.
"""

from __future__ import annotations

import os
import re
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from langchain_resilient import Circuit, KeyedRateLimiter, RateLimits, SettingsError
from langchain_resilient.engine.store import opening
from langchain_resilient.engine.store.redis import wire
from tests import fleet as f
from tests.fleet import Fleet, Worker, provider
from tests.server_groups import Cluster, Sentinel
from tests.servers import MINIMUM_RIGHTS, Server, binary_or_skip, client_of, floor_binary, rights, until, valkey_binary

pytestmark = pytest.mark.e2e
TASKS = 2
GIVEN = [provider("one", limits=RateLimits(rpm=60_000, concurrency=50)), provider("two")]
SECRET = "hunter2-s3cret"
SPREAD = 1.5
"""Seconds that a fault lasts: several probes of the courier's."""


@pytest.fixture
def fleet() -> Iterator[Fleet]:
    """Two processes."""
    binary_or_skip(valkey_binary)
    with Fleet(2) as fleet:
        yield fleet


def shared(worker: Worker) -> bool:
    """Whether a worker's Redis answers."""
    return all(known["shared"] for known in worker.call(f.status).values())


def all_shared(fleet: Fleet, within: float = 15.0) -> float:
    """Wait until it does for all of them; returns the seconds."""
    began = time.monotonic()
    until(lambda: all(shared(worker) for worker in fleet), "shared again", within)
    return time.monotonic() - began


def told(worker: Worker) -> list[bool]:
    """What observers were told of the shared store."""
    return [event.degraded for _, event in worker.call(f.events, "StoreDegraded")]


def checked(fleet: Fleet, *, noticed: list[bool] | None) -> None:
    """Nobody noticed a thing, and (unless None) observers, log and gauge tell so."""
    for worker in fleet:
        answers = worker.call(f.answers)
        slowest = max(answer.seconds for answer in answers)
        report(
            f"{len(answers)} requests, slowest {slowest:.3f} s, {sum(answer.text is None for answer in answers)} failed"
        )
        assert {answer.error for answer in answers} == {""}
        assert slowest < f.SLOW
        assert told(worker) == [index % 2 == 0 for index in range(len(told(worker)) // 2 * 2)]  # away, back, away, back
        if noticed is not None:
            assert told(worker) == noticed
            lines = worker.call(f.lines, "shared store")
            assert ["store back" in line for line in lines] == [not away for away in noticed]
            assert worker.call(f.gauge, "llm_resilient_store_degraded") == 0
        assert not worker.call(f.lines, "Traceback")
        assert not worker.call(f.lines, "made a mistake")


def report(text: str) -> None:
    """Say what was seen, for whoever asks for it: no timing is asserted beyond "not seconds"."""
    if path := os.environ.get("FAULTS_SEEN"):
        with Path(path).open("a") as out:
            out.write(text + "\n")


@contextmanager
def asked_meanwhile(fleet: Fleet, url: str, *, noticed: list[bool] | None = None, **settings: Any) -> Iterator[None]:
    """Ask all the time in every way, from a worker's threads and tasks, while the block hurts the server and mends it."""
    fleet.call(f.make, url, settings.pop("given", GIVEN), **settings)
    fleet.call(f.keep_asking, 0.01, tasks=TASKS)
    until(lambda: all(shared(worker) for worker in fleet), "shared at first")
    time.sleep(0.3)
    yield
    report(f"  shared again after {all_shared(fleet):.2f} s")
    time.sleep(0.3)
    checked(fleet, noticed=noticed)


def away(fleet: Fleet) -> None:
    """It is noticed, and lasts."""
    for worker in fleet:
        until(lambda worker=worker: told(worker) == [True], "the fault is noticed")
        until(lambda worker=worker: worker.call(f.gauge, "llm_resilient_store_degraded") == 1, "the gauge tells")
        assert not shared(worker)
    time.sleep(SPREAD)


# ── faults of the server ─────────────────────────────────────────────────────────────────────────────────────────────


def killed(server: Server, fleet: Fleet) -> None:
    """SIGKILL, and started again, empty."""
    server.kill()
    away(fleet)
    server.restart()


def stopped(server: Server, fleet: Fleet) -> None:
    """SIGSTOP, and SIGCONT."""
    server.stop()
    away(fleet)
    server.cont()


def full(server: Server, fleet: Fleet) -> None:
    """No memory left."""
    client = server.client()
    client.config_set("maxmemory", 1)
    away(fleet)
    client.config_set("maxmemory", 0)


def crowded(server: Server, fleet: Fleet) -> None:
    """Every connection taken by others."""
    client = server.client()
    client.config_set("maxclients", 1)
    hang_up(client)
    away(fleet)
    client.config_set("maxclients", 1000)


def locked(server: Server, fleet: Fleet) -> None:
    """Another password."""
    client = server.client()
    client.config_set("requirepass", SECRET + "-new")
    hang_up(client)
    away(fleet)
    for worker in fleet:
        assert len(worker.call(f.lines, "password")) >= 1
        assert SECRET not in str(worker.call(f.lines))
        assert SECRET not in str(worker.call(f.events, "StoreDegraded"))
    client.config_set("requirepass", SECRET)


def demoted(server: Server, fleet: Fleet) -> None:
    """A replica of somebody else all of a sudden: it reads, and does not write."""
    client = server.client()
    client.replicaof("127.0.0.1", "9")
    away(fleet)
    client.replicaof("NO", "ONE")


def hang_up(client: Any) -> None:
    """End all other connections, subscriptions too."""
    for kind in ("normal", "pubsub"):
        client.execute_command("CLIENT KILL", "TYPE", kind, "SKIPME", "yes")


@pytest.mark.parametrize("fault", [killed, stopped, full, crowded, locked, demoted])
def test_no_request_fails_with_the_server(fleet: Fleet, fault: Callable[[Server, Fleet], None]):
    """Killed, stopped, full, crowded, locked or demoted midway: told once when it goes and once when it is back, and nobody waits for seconds."""
    report(fault.__name__)
    with Server(password=SECRET) as server, asked_meanwhile(fleet, server.url, noticed=[True, False]):
        fault(server, fleet)


def test_a_flushed_script_is_not_even_noticed(fleet: Fleet):
    """SCRIPT FLUSH: the script is loaded again within the same decision, and nobody is told anything."""
    report("script flush")
    with Server() as server, asked_meanwhile(fleet, server.url, noticed=[]):
        for _ in range(3):
            server.client().script_flush()
            time.sleep(0.2)


def test_hung_up_connections_are_made_again(fleet: Fleet):
    """CLIENT KILL: connections are new at the next request, whether it was a decision's or the subscription's."""
    report("client kill")
    with Server() as server, asked_meanwhile(fleet, server.url, noticed=[]):
        for _ in range(3):
            hang_up(server.client())
            time.sleep(0.3)


@pytest.mark.parametrize("how", ["refused", "stopped"])
def test_down_at_the_start(fleet: Fleet, how: str):
    """A model is made in no time where the server is down, answers, says so, and shares when the server is up."""
    report(f"down at start: {how}")
    with Server() as server:
        server.kill() if how == "refused" else server.stop()
        assert max(fleet.call(f.make, server.url, GIVEN)) < f.SLOW
        fleet.call(f.keep_asking, 0.01, tasks=TASKS)
        away(fleet)
        server.restart() if how == "refused" else server.cont()
        report(f"  shared after {all_shared(fleet):.2f} s")
        checked(fleet, noticed=[True, False])


def test_a_second_model_says_so_too(fleet: Fleet):
    """Who begins to observe while the server is away is told that it is, and later that it is back; nobody is told twice."""
    with Server() as server:
        server.kill()
        fleet.call(f.make, server.url, GIVEN)
        until(lambda: all(told(worker) == [True] for worker in fleet), "the first one is told")
        fleet.call(f.make, server.url, [provider("three")])
        until(lambda: [told(worker) for worker in fleet] == [[True, True]] * 2, "each model's observer is told")
        server.restart()
        all_shared(fleet)
        until(lambda: [told(worker) for worker in fleet] == [[True, True, False, False]] * 2, "each is told once more")


def test_sentinel_promotes_a_replica(fleet: Fleet):
    """The primary dies, the sentinels promote its replica: nobody notices, and the new one is shared."""
    report("sentinel")
    with Sentinel(sentinels=1, password=SECRET) as group, asked_meanwhile(fleet, group.url):
        group.failover()
        until(lambda: group.client().exists("{lr1:default}:m"), "the promoted one is used")


def test_a_cluster_promotes_a_replica(fleet: Fleet):
    """The primary of our slot dies, its replica takes over: nobody notices, and the new one is shared."""
    report("cluster")
    with Cluster(replicas=1, node_timeout=800, password=SECRET) as group, asked_meanwhile(fleet, group.url):
        gone = group.server_of("{lr1:default}:m")
        gone.kill()
        until(lambda: group.server_of("{lr1:default}:m") is not gone, "a replica has taken over", 20)
        new = group.server_of("{lr1:default}:m")
        assert new in group.replicas


@pytest.mark.parametrize("form", ["tls", "unix", "redis-6.2", "database", "user"])
def test_every_way_to_reach_a_server(fleet: Fleet, form: str):
    """TLS, a unix socket, the oldest server, another database, a user with the least rights: it is used, killed, and used again."""
    binary = binary_or_skip(floor_binary) if form == "redis-6.2" else None
    users = {"least": (SECRET, rights("{lr1:*"))} if form == "user" else {}
    report(form)
    with Server(binary, tls=form == "tls", unix=form == "unix", users=users) as server:
        url = server.url_of("least") if form == "user" else server.url + ("/3" if form == "database" else "")
        with asked_meanwhile(fleet, url, noticed=[True, False]):
            server.kill()
            away(fleet)
            server.restart()
        index = 3 if form == "database" else 0
        if form != "tls":
            with client_of(server.url + (f"/{index}" if index else "")) as client:
                assert client.exists("{lr1:default}:m")


# ── limits without a server ──────────────────────────────────────────────────────────────────────────────────────────


def test_limits_hold_without_a_server():
    """Alone, N processes together take at most the limit, and each of them something; together again, what they took is forgotten."""
    limits = RateLimits(rpm=1200, burst=40)  # 20 a second
    given = [provider("one", limits=limits, says="1"), provider("two", says="2")]
    with Server(binary_or_skip(valkey_binary)) as server, Fleet(4) as fleet:
        fleet.call(f.make, server.url, given)
        fleet.call(f.keep_asking, 0.01)
        time.sleep(0.4)  # whoever starts is counted by all at once
        server.kill()
        gone = time.monotonic()
        for worker in fleet:
            until(lambda worker=worker: told(worker) == [True], "noticed")
        time.sleep(2.5)
        seconds = time.monotonic() - gone
        answers = [
            [answer for answer in worker.call(f.answers) if answer.at > gone + 0.1 and answer.text == "1"]
            for worker in fleet
        ]
        counts = [len(of) for of in answers]
        report(f"limits alone: {counts} in {seconds:.2f} s of 20/s")
        assert sum(counts) <= 20 * seconds
        assert min(counts) >= 1
        assert sum(counts) >= 0.8 * 20 * seconds / 2


def test_a_concurrency_limit_holds_without_a_server():
    """Alone, each of N processes runs its share of the requests, one at least."""
    given = [provider("one", limits=RateLimits(concurrency=8), says="1", takes=0.3), provider("two", says="2")]
    with Server(binary_or_skip(valkey_binary)) as server, Fleet(2) as fleet:
        fleet.call(f.make, server.url, given)
        fleet.call(f.ask)
        server.kill()
        fleet.call(f.ask)
        for worker in fleet:
            until(lambda worker=worker: told(worker) == [True], "noticed")
        texts = [[answer.text for answer in answers] for answers in fleet.call(f.ask_at_once, 8)]
        report(f"concurrency alone: {[of.count('1') for of in texts]} of 8 for two")
        assert all(1 <= of.count("1") <= 3 for of in texts)  # 0.8 / 2 of 8


def test_a_line_goes_on_without_a_server(fleet: Fleet):
    """Who waits for a limit when the server dies goes on waiting in its own process, and not for longer than it would have."""
    given = [provider("one", limits=RateLimits(rpm=120, burst=1, on_limit="wait", max_wait=10.0))]
    with Server() as server:
        fleet.call(f.make, server.url, given)
        for worker in fleet:
            worker.begin(f.ask_at_once, 3)  # two of the six in a second
        time.sleep(0.7)
        server.kill()
        answers = [answer for worker in fleet for answer in worker.end()]
        report(f"line when the server dies: {sorted(round(answer.seconds, 2) for answer in answers)}")
        assert {answer.error for answer in answers} == {""}
        assert (
            max(answer.seconds for answer in answers) < 8.0
        )  # three times 1.25 s, at 0.8 / 2 of the rate; not until a place lapses
        assert [told(worker) for worker in fleet] == [[True], [True]]


def test_what_ends_while_the_server_hangs_gives_its_place_back(fleet: Fleet):
    """Calls that Redis admitted, and that end while it can't be told, are told when it is back: their places don't wait for a lease to lapse."""
    given = [provider("one", limits=RateLimits(concurrency=4), takes=0.5), provider("two")]
    with Server() as server:
        fleet.call(f.make, server.url, given)
        fleet.call(f.ask)
        for worker in fleet:
            worker.begin(f.ask_at_once, 2)
        until(lambda: server.client().zcard(f.key_of(server.client(), "c", "one")) == 4, "four run")
        server.stop()
        answers = [answer for worker in fleet for answer in worker.end()]
        assert {answer.error for answer in answers} == {""}
        fleet.call(f.ask)
        for worker in fleet:
            until(lambda worker=worker: told(worker) == [True], "noticed")
        server.cont()
        all_shared(fleet)
        until(lambda: fleet[0].call(f.status)["scripted/one"]["running"] == 0, "no place is held any more")


def test_an_open_circuit_is_carried_over(fleet: Fleet, tmp_path: Path):
    """What was open when the server died, or opened meanwhile, is open for all when an empty one is back, for what is left of its time."""
    sick = tmp_path / "sick"
    given = [provider("one", fails=str(sick)), provider("two", says="2")]
    with Server() as server:
        fleet.call(f.make, server.url, given)
        fleet.call(f.ask)
        server.kill()
        fleet.call(f.ask)
        until(lambda: told(fleet[0]) == told(fleet[1]) == [True], "noticed")
        sick.touch()
        fleet[0].call(f.ask, 5)
        assert fleet[0].call(f.status)["scripted/one"]["circuit"] == "open"
        assert fleet[1].call(f.status)["scripted/one"]["circuit"] == "closed"
        server.restart()
        all_shared(fleet)
        until(lambda: fleet[1].call(f.status)["scripted/one"]["circuit"] == "open", "the other one knows")
        assert fleet[1].call(f.status)["scripted/one"]["probes_in"] < 66
        sick.unlink()
        assert fleet[1].call(f.ask)[0].text == "2"


# ── workers that die, fork and share ─────────────────────────────────────────────────────────────────────────────────


def test_a_killed_workers_places_come_back(tmp_path: Path):
    """`kill -9` in the middle of a probe and of a leased call: both places lapse by themselves within a lease, and others go on."""
    sick = tmp_path / "sick"
    circuit = Circuit(failure_threshold=1, recovery_timeout=0.2, half_open_max_calls=1, probe="inline")
    given = [
        provider("one", fails=str(sick), limits=RateLimits(concurrency=1), circuit=circuit, says="1"),
        provider("two", says="2"),
    ]
    with Server(binary_or_skip(valkey_binary)) as server, Fleet(2) as fleet:
        fleet.call(f.lease_for, 2.0)
        fleet[0].call(f.make, server.url, given)
        slow = [given[0] | {"takes": 60.0}, given[1]]
        fleet[1].call(f.make, server.url, slow)
        sick.touch()
        assert fleet[0].call(f.ask)[0].text == "2"
        sick.unlink()
        time.sleep(0.3)
        fleet[1].begin(f.ask)
        until(lambda: fleet[0].call(f.status)["scripted/one"]["running"] == 1, "the probe is under way")
        assert fleet[0].call(f.status)["scripted/one"]["circuit"] == "half_open"
        fleet[1].kill()
        killed_at = time.monotonic()
        assert fleet[0].call(f.ask)[0].text == "2"
        until(lambda: fleet[0].call(f.ask, 1, 0.2)[0].text == "1", "the place has lapsed", 10)
        report(f"killed worker's probe and place back after {time.monotonic() - killed_at:.1f} s")
        status = fleet[0].call(f.status)["scripted/one"]
        assert (status["circuit"], status["running"]) == ("closed", 0)


def test_a_killed_worker_in_a_line_holds_nobody_up_for_long():
    """`kill -9` while it stands in a line: its place lapses with its patience, and whoever stands behind it is served."""
    limits = RateLimits(rpm=60, burst=1, on_limit="wait", max_wait=2.0)
    with Server(binary_or_skip(valkey_binary)) as server, Fleet(2) as fleet:
        fleet.call(f.make, server.url, [provider("one", limits=limits)])
        fleet[0].call(f.ask)
        fleet[1].begin(f.ask)
        until(lambda: fleet[0].call(f.status)["scripted/one"]["waiting"] == 1, "it stands in the line")
        fleet[0].begin(f.ask)
        until(lambda: server.client().llen(f.key_of(server.client(), "l", "one")) == 2, "another one behind it")
        fleet[1].kill()
        answer = fleet[0].end()[0]
        report(f"behind a killed worker in a line: {answer.seconds:.2f} s")
        assert answer.error == ""


def test_a_fork_is_a_process_of_its_own(fleet: Fleet):
    """Forked after use, child and parent both ask, share and count as two; neither reads the other's replies."""
    with Server() as server:
        fleet[0].call(f.make, server.url, GIVEN)
        fleet[0].call(f.ask, 3)
        fleet[0].call(f.keep_asking, 0.0, tasks=TASKS)
        for _ in range(3):
            child, answers, status, _ = fleet[0].call(f.fork)
            assert child != fleet[0].pid
            assert {answer.error for answer in answers} == {""}
            assert {answer.text for answer in answers} == {"All is well."}
            assert max(answer.seconds for answer in answers) < f.SLOW
            assert {known["shared"] for known in status.values()} == {True}
        assert {answer.error for answer in fleet[0].call(f.answers)} == {""}
        assert shared(fleet[0])
        assert server.client().zcard("{lr1:default}:p") == 4  # the parent, and three children that never said good-bye
        assert told(fleet[0]) == []


def test_a_child_of_a_process_that_was_alone_is_not(fleet: Fleet):
    """Forked while the server was away, the child shares as soon as it is back, and its observers hear so once."""
    with Server() as server:
        server.kill()
        fleet[0].call(f.make, server.url, GIVEN)
        until(lambda: told(fleet[0]) == [True], "noticed")
        server.restart()
        _, _, status, events = fleet[0].call(f.fork)
        assert {known["shared"] for known in status.values()} == {True}
        assert [event.degraded for _, event in events] == [True, False]


def test_two_loops_at_once(fleet: Fleet):
    """Two event loops in two threads of one process share one connection, and each gets its own answers."""
    with Server() as server:
        fleet[0].call(f.make, server.url, GIVEN)
        answers = fleet[0].call(f.ask_from_loops, 2, 20, 5)
        assert len(answers) == 200
        assert {answer.error for answer in answers} == {""}
        assert max(answer.seconds for answer in answers) < f.SLOW
        ours = [item for item in server.client().client_list() if item["name"] == "langchain-resilient"]
        assert len(ours) == 2  # decisions, news


# ── who may ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def guarded() -> Iterator[Server]:
    """A server whose users have passwords and rights."""
    with Server(binary_or_skip(valkey_binary), password=SECRET) as server:
        yield server


def refusal(url: str, namespace: str) -> SettingsError | None:
    """What making a model says."""
    try:
        f.made(url, [provider("one")], namespace=namespace)
        KeyedRateLimiter(url, RateLimits(rpm=1), namespace=namespace)
    except SettingsError as error:
        return error
    finally:
        store = opening._SHARED.pop((url, namespace), None)
        if store is not None:
            store.close()
    return None


@pytest.mark.parametrize("wrong", ["password", "user", "none"])
def test_a_wrong_password_is_said_at_once(guarded: Server, namespace: str, wrong: str):
    """It is no outage: making a model raises, names the field and the fix, and holds no password."""
    url = {
        "password": guarded.url_of(None, "wr0ng"),
        "user": guarded.url_of("nobody", "wr0ng"),
        "none": f"redis://127.0.0.1:{guarded.port}",
    }[wrong]
    error = refusal(url, namespace)
    assert error is not None
    assert re.match(
        r"backend: redis://127\.0\.0\.1:\d+ refuses this user: .*check the user name and the password", str(error)
    )
    assert "wr0ng" not in f"{error!r} {error.__cause__!r} {error.__context__!r}"
    assert SECRET not in str(error)


def _without(right: str) -> str:
    return rights("{lr1:*").replace(f" {right}", "", 1)


@pytest.mark.parametrize("right", sorted({word for word in MINIMUM_RIGHTS.split() if word.startswith("+")}))
def test_every_right_is_needed(guarded: Server, namespace: str, right: str):
    """Without any one of the minimum rights making a model raises and says which one is missing; what redis-py does without is not in them."""
    name = f"user-{secrets.token_hex(4)}"
    guarded.client().execute_command("ACL SETUSER", name, "on", f">{SECRET}", *_without(right).split())
    error = refusal(guarded.url_of(name, SECRET), namespace)
    assert error is not None
    assert "refuses this user" in str(error)
    assert right[1:].partition("|")[0] in str(error).lower()
    assert "give the user that right" in str(error)


@pytest.mark.parametrize("place", ["database", "cluster"])
def test_another_place_needs_one_right_more(guarded: Server, namespace: str, place: str):
    """`+select` for a database other than 0, `+cluster|slots` for a Cluster: missing, that is said; there, the minimum rights suffice."""
    name, more = f"user-{place}", {"database": "+select", "cluster": "+cluster|slots"}[place]

    def tried(url: str, nodes: list[Server], *further: str) -> SettingsError | None:
        for node in nodes:
            node.client().execute_command("ACL SETUSER", name, "on", f">{SECRET}", *rights("{lr1:*").split(), *further)
        return refusal(url, namespace)

    if place == "database":
        url, nodes = guarded.url_of(name, SECRET) + "/3", [guarded]
        missing, there = tried(url, nodes), tried(url, nodes, more)
    else:
        with Cluster() as group:
            url = group.url.replace("://", f"://{name}:{SECRET}@")
            missing, there = tried(url, group.nodes), tried(url, group.nodes, more)
    assert "refuses this user" in str(missing)
    assert "give the user that right" in str(missing)
    assert there is None


@pytest.mark.parametrize("missing", ["keys", "channels"])
def test_the_patterns_are_needed(guarded: Server, namespace: str, missing: str):
    """A user who may not touch our keys, or not hear our channel, is told so when the model is made."""
    allowed = rights("{lr1:*").split()
    allowed = [word for word in allowed if not word.startswith("~" if missing == "keys" else "&")]
    guarded.client().execute_command("ACL SETUSER", f"no-{missing}", "on", f">{SECRET}", *allowed)
    error = refusal(guarded.url_of(f"no-{missing}", SECRET), namespace)
    assert error is not None
    assert "give the user that right" in str(error)


def test_the_minimum_rights_are_all_that_scripts_call():
    """Every command of the scripts is among the minimum rights and in the probe; so a new one can't be forgotten in either."""
    folder = Path(wire.__file__).with_name("lua")
    called = {
        path.stem: set(re.findall(r'redis\.call\(\s*"([A-Z]+)"', path.read_text())) for path in folder.glob("*.lua")
    }
    allowed = {word[1:].upper() for word in MINIMUM_RIGHTS.split() if word.startswith("+")}
    assert set().union(*called.values()) <= allowed
    main = (folder / "main.lua").read_text()
    probe = main[main.index(".probe(keys)") :]
    tried = set(re.findall(r'"([A-Z]+)"', probe[: probe.index("\n  end\n")] if "\n  end\n" in probe else probe))
    always = {"GET", "SET", "PUBLISH", "TIME"}
    ours = set().union(*(commands for name, commands in called.items() if name != "keyed"))
    assert ours - tried <= always


def test_the_minimum_rights_suffice(guarded: Server, namespace: str):
    """A user with them alone does everything: circuits, limits, lines, leases, overrides, news, latencies, users' limits."""
    guarded.client().execute_command("ACL SETUSER", "enough", "on", f">{SECRET}", *rights("{lr1:*").split())
    url = guarded.url_of("enough", SECRET)
    guarded.client().execute_command("ACL LOG", "RESET")
    limits = RateLimits(rpm=600, burst=1, concurrency=2, on_limit="wait")
    with Fleet(2) as fleet:
        fleet.call(f.beat_every, 0.1)
        fleet.call(
            f.make, url, [provider("one", limits=limits)], namespace=namespace, circuit=Circuit(failure_threshold=1)
        )
        answers = [answer for told in fleet.call(f.ask_tasks, 4) for answer in told]
        assert {answer.error for answer in answers} == {""}
        fleet[0].call(f.override, "scripted/one", "metrics_only")
        fleet.call(f.ask, 3, 0.1)
        assert {status["scripted/one"]["shared"] for status in fleet.call(f.status)} == {True}
        assert [told(worker) for worker in fleet] == [[], []]
    limiter = KeyedRateLimiter(url, RateLimits(rpm=60, burst=2, on_limit="reject"), namespace=namespace)
    assert [bool(limiter.try_acquire("ann")) for _ in range(3)] == [True, True, False]
    refused = {entry["object"] for entry in guarded.client().execute_command("ACL LOG")}
    assert refused <= {"client|setinfo"}  # redis-py says its own version, and goes on if it may not


# ── under gunicorn ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_gunicorn_with_preload(tmp_path: Path):
    """A model that is made before gunicorn forks its workers is shared by each of them, as a process of its own."""
    pytest.importorskip("gunicorn")
    with Server(binary_or_skip(valkey_binary)) as server, f.gunicorn(tmp_path, server.url) as ask:
        seen = []
        until(lambda: seen.append(ask()) or len({answer["pid"] for answer in seen}) == 2, "both workers have answered")
        assert {answer["text"] for answer in seen} == {"All is well."}
        assert {answer["shared"] for answer in seen} == {True}
        names = server.client().zrange("{lr1:default}:p", 0, -1)
        assert len(names) == 3  # the master, which asked once, and its two workers
        server.kill()
        assert {ask()["text"] for _ in range(10)} == {"All is well."}
        server.restart()
        until(lambda: all(ask()["shared"] for _ in range(10)), "shared again", 15)


# ── versions ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_two_versions_of_the_schema_side_by_side(fleet: Fleet, tmp_path: Path):
    """In a rolling deploy the old version's processes and the new one's use one server, and neither disturbs the other."""
    sick = tmp_path / "sick"
    given = [provider("one", fails=str(sick), limits=RateLimits(rpm=6000, concurrency=5)), provider("two", says="2")]
    with Server() as server:
        fleet[0].call(f.schema, "lr0")
        fleet.call(f.make, server.url, given)
        fleet.call(f.keep_asking, 0.01, tasks=TASKS)
        time.sleep(0.5)
        fleet[0].call(f.override, "scripted/one", "forced_open")
        statuses = fleet.call(f.status)
        assert [status["scripted/one"]["override"] for status in statuses] == ["forced_open", None]
        for answers in fleet.call(f.answers):
            assert {answer.error for answer in answers} == {""}
        kinds = {key.split(b":")[0] for key in server.client().scan_iter()}
        assert kinds == {b"{lr0", b"{lr1"}
        assert [told(worker) for worker in fleet] == [[], []]


def test_probes_of_many_processes_do_not_stampede(fleet: Fleet):
    """While the server is away each process probes with growing, jittered pauses, not in step and not without end."""
    with Server() as server:
        fleet.call(f.make, server.url, GIVEN)
        fleet.call(f.ask)
        server.stop()
        fleet.call(f.ask)
        moments = [
            until(lambda worker=worker: worker.call(f.events, "StoreDegraded"), "noticed")[0][0] for worker in fleet
        ]
        time.sleep(2.0)
        server.cont()
        all_shared(fleet)
        assert all(abs(one - other) < f.SLOW for one, other in pairwise(moments))
