"""`status`: what it shows, and what it says that it can't know."""

import json
from contextlib import closing

import pytest

from langchain_resilient import ResilientChatModel
from langchain_resilient.engine.dead_letters.letter import Letter
from langchain_resilient.engine.dead_letters.opening import open_box
from langchain_resilient.testing import Fault
from tests.cli.letters import PROMPT, left_behind
from tests.cli.running import command, config, environment
from tests.cli.test_circuits import FIELDS
from tests.servers import until

PROVIDER = FIELDS | {
    "name", "p50", "p99", "first_token_p50", "first_token_p99", "limits_free", "limits_scale", "running", "waiting",
}  # fmt: skip
LETTERS = {"where", "waiting", "claimed", "parked", "spooled", "oldest_age", "error"}


@pytest.mark.e2e
def test_a_fleet_at_a_glance(server, tmp_path, redis_url, namespace):
    """From a process that has asked nobody: the fleet's circuits and latencies, the backend, the letters and the oldest's age."""
    more = f"backend: '{redis_url}'\nnamespace: {namespace}\n"
    left = left_behind(server, tmp_path, "a", "b", more=more)
    with left.model as model:

        def status():
            # What a process has measured it tells the others with the next change, or after seconds; what it measured while it could not
            # reach the server, and on a busy machine that is a late reply, it keeps to itself.
            model.clear_override("ollama/one")
            for _ in range(3):
                model.invoke(PROMPT)
            model.override("ollama/one", "forced_open")
            until(lambda: model.status()["ollama/one"]["shared"], "the server")
            model.close()
            return json.loads(command("status", "-c", str(left.path), "--json", env=environment()).out)

        seen = []
        until(lambda: seen.append(status()) or seen[-1]["providers"][0]["p50"], "the fleet's latencies", within=40)
        document = seen[-1]
        assert set(document) == {"source", "backend", "providers", "dead_letters", "warnings"}
        (one,) = document["providers"]
        assert set(one) == PROVIDER
        assert (one["circuit"], one["override"], one["credential_known"]) == ("closed", "forced_open", True)
        assert one["p50"] is not None and one["p50"] <= one["p99"]
        letters = document["dead_letters"]
        assert set(letters) == LETTERS
        assert (letters["waiting"], letters["parked"], letters["error"]) == (2, 0, None)
        assert 0 < letters["oldest_age"] < 300
        ran = command("status", "-c", str(left.path), env=environment())
        flat = " ".join(ran.out.split())
        assert (ran.code, ran.err) == (0, "")
        assert "forced_open" in flat and "reachable" in flat
        assert "2 waiting; the oldest came" in flat and " ago" in flat
        assert PROMPT not in ran.out and redis_url not in ran.out


@pytest.mark.e2e
def test_a_backend_that_is_away_does_not_hide_the_letters(server, tmp_path):
    """What can be read is shown; that the rest can't be is exit 1."""
    left = left_behind(server, tmp_path, "a", more="namespace: away\n")
    left.path.write_text(left.path.read_text() + "backend: 'redis://127.0.0.1:1'\n")
    ran = command("status", "-c", str(left.path), "--json", env=environment())
    document = json.loads(ran.out)
    assert (ran.code, document["error"]["kind"], document["backend"]["reachable"]) == (1, "backend_away", False)
    assert (document["providers"][0]["circuit"], document["dead_letters"]["waiting"]) == (None, 1)
    ran = command("status", "-c", str(left.path), env=environment())
    assert ran.code == 1 and "can't be reached: each process decides alone" in " ".join(ran.out.split())


def test_memory_says_that_it_knows_nothing(typed, server, tmp_path):
    """Exit 0, the circuits unknown, the letters of the file known all the same."""
    left = left_behind(server, tmp_path, "a")
    ran = typed("status", "-c", left.path)
    assert ran.code == 0
    flat = " ".join(ran.out.split())
    assert "ollama/one unknown" in flat and "closed" not in flat and "1 waiting" in flat
    assert "live in each process of your application" in flat
    document = json.loads(typed("status", "-c", left.path, "--json").out)
    assert (document["backend"]["shared"], document["providers"][0]["p50"]) == (False, None)


def test_without_letters_there_is_nothing_to_count(typed, server, tmp_path):
    """No dead letters kept is null; a file that nobody made is not made, and warned of."""
    path = config(tmp_path, server, "one")
    assert json.loads(typed("status", "-c", path, "--json").out)["dead_letters"] is None
    path = config(tmp_path, server, "one", more=f"dead_letters: {tmp_path / 'none.db'}\n")
    document = json.loads(typed("status", "-c", path, "--json").out)
    assert document["dead_letters"]["waiting"] is None
    assert any("there is no file" in warning for warning in document["warnings"])
    assert not (tmp_path / "none.db").exists()


def test_letters_that_can_t_be_read_are_exit_code_1(typed, server, tmp_path):
    """The rest is shown, and the error said."""
    more = f"dead_letters: {{where: 'redis://127.0.0.1:1', spool: {tmp_path}}}\n"
    ran = typed("status", "-c", config(tmp_path, server, "one", more=more), "--json")
    document = json.loads(ran.out)
    assert (ran.code, document["error"]["kind"]) == (1, "letters_away")
    assert document["providers"][0]["name"] == "ollama/one" and document["dead_letters"]["error"]


def test_letters_on_their_way_are_counted_while_redis_is_away(typed, server, tmp_path):
    """Those of this machine: nobody else can tell of them."""
    away = "redis://127.0.0.1:1"
    path = config(tmp_path, server, "one", more=f"dead_letters: {{where: '{away}', spool: {tmp_path}}}\n")
    with closing(open_box(away, spool=str(tmp_path))) as found:
        for key in "ab":
            assert found.put(Letter(f"{key * 12}-00", key, 1.0, "overloaded", content={})) == "spool"
    ran = typed("status", "-c", path, "--json")
    letters = json.loads(ran.out)["dead_letters"]
    assert (ran.code, letters["waiting"], letters["spooled"]) == (1, None, 2)
    assert letters["error"]
    ran = typed("status", "-c", path)
    assert ran.code == 1 and "2 spooled on this machine" in " ".join(ran.out.split())


@pytest.mark.e2e
def test_forty_columns_hold_it_all(server, tmp_path, redis_url, namespace):
    """At 40 columns no line is longer, and what is known is there."""
    more = f"backend: '{redis_url}'\nnamespace: {namespace}\ncircuit: {{failure_threshold: 1}}\nretry: {{base_delay: 0, max_retries: 0}}\n"
    path = config(tmp_path, server, "a-model-with-a-rather-long-name", "two", more=more)
    with ResilientChatModel.from_yaml(path) as model:
        server.schedule(Fault.overloaded())
        model.invoke("hi")
        name = "ollama/a-model-with-a-rather-long-name"
        until(lambda: model.status()[name]["circuit"] == "open", "an open circuit")
    ran = command("status", "-c", str(path), env=environment(COLUMNS="40"))
    assert ran.code == 0
    assert max(map(len, ran.out.splitlines())) <= 40
    assert "circuit: open, probed in" in ran.out
