"""`circuits`: another process's circuits, seen and steered."""

import json

import pytest

from langchain_resilient import ResilientChatModel
from langchain_resilient.cli.circuits import _came
from langchain_resilient.testing import Fault
from tests.cli.running import OPENAI_KEY, command, config, environment
from tests.servers import until

FIELDS = {
    "circuit", "override", "generation", "failures_in_a_row", "probes_in", "blocked", "blocked_for", "credential_known",
}  # fmt: skip
QUICK = "retry: {base_delay: 0, max_retries: 0}\ncircuit: {failure_threshold: 1}\n"


@pytest.fixture
def fleet(redis_url, namespace):
    """What makes a settings file one of a fleet."""
    return f"{QUICK}backend: '{redis_url}'\nnamespace: {namespace}\n"


def circuits(*words, env=None):
    """The command as a process of its own, and its document."""
    ran = command("circuits", *map(str, words), "--json", env=env or environment())
    return ran.code, json.loads(ran.out)


def hears(model, name, **said):
    """Wait until this process knows that of a provider: a busy machine's news comes late."""
    until(lambda: said.items() <= model.status()[name].items(), f"{name}: {said}")


# -------------------------------------------------------------------------------------------------------------- a fleet
@pytest.mark.e2e
def test_an_open_circuit_is_seen_and_closed_from_outside(server, tmp_path, fleet):
    """A process opened it; the command sees that, closes it, and that process asks the provider again at once."""
    path = config(tmp_path, server, "one", "two", more=fleet)
    with ResilientChatModel.from_yaml(path) as model:
        server.schedule(Fault.overloaded())
        model.invoke("hi")
        hears(model, "ollama/one", circuit="open")
        code, document = circuits("list", "-c", path)
        assert (code, document["backend"]["reachable"], document["warnings"]) == (0, True, [])
        one, two = document["circuits"]
        assert set(one) == FIELDS | {"name"}
        assert (one["name"], one["circuit"], two["circuit"]) == ("ollama/one", "open", "closed")
        assert 50 < one["probes_in"] < 70
        server.reset_log()
        code, document = circuits("close", "ollama/one", "-c", path)
        assert (code, document["before"]["circuit"], document["after"]["circuit"]) == (0, "open", "closed")
        hears(model, "ollama/one", circuit="closed", shared=True)
        assert model.invoke("hi").text == "Hello from the fault server."
        assert [request.body["model"] for request in server.requests] == ["one"]


@pytest.mark.e2e
def test_a_circuit_opened_by_hand_holds_until_it_is_closed(server, tmp_path, fleet):
    """`open` keeps the fleet from a healthy provider, `list` says that it was by hand, `close` lets requests flow."""
    path = config(tmp_path, server, "one", "two", more=fleet)
    with ResilientChatModel.from_yaml(path) as model:
        ran = command("circuits", "open", "ollama/one", "-c", str(path), env=environment())
        assert ran.code == 0 and "ollama/one is opened by hand" in ran.out
        hears(model, "ollama/one", override="forced_open", shared=True)
        model.invoke("hi")
        ran = command("circuits", "list", "-c", str(path), env=environment())
        assert "forced_open" in ran.out and "\x1b" not in ran.out
        code, document = circuits("close", "ollama/one", "-c", path)
        assert (code, document["before"]["override"], document["after"]["override"]) == (0, "forced_open", None)
        hears(model, "ollama/one", override=None, shared=True)
        model.invoke("hi")
        assert [request.body["model"] for request in server.requests] == ["two", "one"]


@pytest.mark.e2e
def test_a_refused_key_is_forgotten_by_reset_alone(server, tmp_path, redis_url, namespace):
    """`close` leaves the block and says so, `reset` ends it; without the key the command says that it can't know."""
    path = tmp_path / "x.yaml"
    path.write_text(
        f"providers:\n  - model: openai:gpt-4.1\n    model_kwargs: {{base_url: '{server.base_url('openai')}', api_key: '${{OUR_KEY}}'}}\n"
        f"  - model: ollama:two\n    model_kwargs: {{base_url: '{server.base_url('ollama')}'}}\n"
        f"{QUICK}backend: '{redis_url}'\nnamespace: {namespace}\n"
    )
    keyed = environment(OUR_KEY=OPENAI_KEY)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OUR_KEY", OPENAI_KEY)
        model = ResilientChatModel.from_yaml(path)
    with model:
        server.schedule(Fault.status(401))
        model.invoke("hi")
        hears(model, "openai/gpt-4.1", blocked="auth", shared=True)
        _, document = circuits("list", "-c", path)
        one = document["circuits"][0]
        assert (one["credential_known"], one["blocked"], one["circuit"]) == (False, None, "closed")
        assert "openai/gpt-4.1: no key was found for it" in document["warnings"][0]
        _, document = circuits("list", "-c", path, env=keyed)
        assert (document["circuits"][0]["blocked"], document["warnings"]) == ("auth", [])
        _, document = circuits("close", "openai/gpt-4.1", "-c", path, env=keyed)
        assert document["after"]["blocked"] == "auth" and "`circuits reset` ends that too" in document["warnings"][0]
        _, document = circuits("reset", "openai/gpt-4.1", "-c", path, env=keyed)
        assert (document["before"]["blocked"], document["after"]["blocked"]) == ("auth", None)
        server.reset_log()
        hears(model, "openai/gpt-4.1", blocked=None, shared=True)
        model.invoke("hi")
        assert [request.wire for request in server.requests] == ["openai"]
        assert OPENAI_KEY not in json.dumps(document)


# ------------------------------------------------------------------------------------------------------------ no fleet
@pytest.mark.parametrize("action", ["open", "close", "reset"])
def test_memory_is_not_steered_from_outside(typed, server, tmp_path, action):
    """With a backend of each process's own the command refuses, and says what to do instead."""
    path = config(tmp_path, server, "one")
    ran = typed("circuits", action, "ollama/one", "-c", path, "--json")
    error = json.loads(ran.out)["error"]
    assert (ran.code, error["kind"]) == (2, "memory_backend")
    assert "live in each process" in error["message"] and "URL of Redis" in error["message"]


def test_memory_is_never_shown_as_closed(typed, server, tmp_path):
    """What this process can't know is null, or unknown, with a warning; never the state of its own that has asked nobody."""
    path = config(tmp_path, server, "one")
    document = json.loads(typed("circuits", "list", "-c", path, "--json").out)
    assert document["backend"] == {"url": "memory://", "shared": False, "reachable": None}
    (one,) = document["circuits"]
    assert (one["circuit"], one["generation"]) == (None, None)
    assert "live in each process" in document["warnings"][0]
    ran = typed("circuits", "list", "-c", path)
    assert "unknown" in ran.out and "closed" not in ran.out and "Warnings" in ran.out


@pytest.mark.e2e
@pytest.mark.parametrize("words", [["list"], ["open", "ollama/one"], ["close", "ollama/one"], ["reset", "ollama/one"]])
def test_a_backend_that_is_away_is_exit_code_1(server, tmp_path, words):
    """Nothing is claimed to be changed or known, and the URL's password is not said."""
    path = config(tmp_path, server, "one", more="backend: 'redis://:a-password@127.0.0.1:1'\n")
    ran = command("circuits", *words, "-c", str(path), "--json", env=environment())
    document = json.loads(ran.out)
    assert (ran.code, document["error"]["kind"], document["backend"]["reachable"]) == (1, "backend_away", False)
    assert ("nothing was changed" in document["error"]["message"]) is (words != ["list"])
    rows = document.get("circuits") or [document["after"]]
    assert rows[0]["circuit"] is None
    assert "a-password" not in ran.out + ran.err


@pytest.mark.e2e
def test_an_unknown_provider_names_the_nearest(server, tmp_path, fleet):
    """Exit 2, and nobody's circuit is touched."""
    path = config(tmp_path, server, "one", "two", more=fleet)
    code, document = circuits("open", "ollama/on", "-c", path)
    assert (code, document["error"]["kind"]) == (2, "settings")
    assert "did you mean 'ollama/one'?" in document["error"]["message"]
    assert [row["override"] for row in circuits("list", "-c", path)[1]["circuits"]] == [None, None]


@pytest.mark.parametrize("words", [["list"], ["open"], ["open", "x"]])
def test_what_is_missing_is_named(typed, words):
    """Settings and provider must be given."""
    ran = typed("circuits", *words)
    assert ran.code == 2 and ran.err.startswith("error: Missing ")


@pytest.mark.parametrize(
    ("action", "after", "came"),
    [
        ("open", {"circuit": "closed", "override": "forced_open"}, True),
        ("open", {"circuit": "closed", "override": None}, False),
        ("close", {"circuit": "closed", "override": None}, True),
        ("reset", {"circuit": "open", "override": "forced_open"}, False),
        ("reset", {"known": True}, False),
    ],
)
def test_a_change_is_believed_when_it_is_seen(action, after, came):
    """A backend may go away between two words: only what the fleet shows afterwards counts as done."""
    assert _came(action, after) is came
