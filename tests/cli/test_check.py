"""`check`: what it shows, what it pings, how it ends."""

import json
import re

import pytest

from langchain_resilient.engine.classify import ErrorKind
from langchain_resilient.testing import Fault
from tests.cli.running import config

SETTINGS = """
providers:
  - model: ollama:one
    name: first
    model_kwargs: {base_url: "http://user:a-url-password@127.0.0.1:9/x?key=1"}
    limits: {rpm: 500, tpm: 200000, usd_per_day: 5, on_limit: wait}
    price: {input: 2, output: 8}
    max_latency: 5
  - model: openai:two
    name: second
    model_kwargs: {api_key: a-literal-key, default_headers: {x-token: a-header-token}}
    timeouts: {first_token: 30}
circuit: {failure_threshold: 3}
"""


def test_the_page_shows_the_settings_that_matter(typed, tmp_path):
    """Providers stand in order with their limits, price, times and circuit; what all share stands once; no secret is shown."""
    path = tmp_path / "x.yaml"
    path.write_text(SETTINGS)
    ran = typed("check", path)
    assert (ran.code, ran.err) == (0, "")
    flat = " ".join(ran.out.split())
    assert flat.startswith(
        "valid: 2 providers, asked in this order, at most 10 min a request 1 first at 127.0.0.1:9/x "
    )
    assert "500 requests a minute, 200 000 tokens a minute, $5 a day; then wait up to 10 s" in flat
    assert "$2 in, $8 out per million tokens" in flat
    assert "asked after faster ones while its p50 is above 5 s" in flat
    assert "2 second timeouts 30 s to the first token" in flat
    assert (
        flat.count("opens after 3 failures in a row, or 50% of at least 10 calls in 60 s; tried again after 60 s") == 1
    )
    assert "If first fails" in flat and "If any of them fails, and nobody else can be asked" in flat
    assert not re.search("a-url-password|a-literal-key|a-header-token", ran.out)


def test_the_table_is_the_rehearsals(typed, tmp_path):
    """A changed setting changes the row that it governs."""
    path = tmp_path / "x.yaml"
    path.write_text(SETTINGS)
    assert "circuit opens after 3 in a row" in " ".join(typed("check", path).out.split())
    path.write_text(SETTINGS.replace("failure_threshold: 3", "failure_threshold: 4, auth_block: 30"))
    flat = " ".join(typed("check", path).out.split())
    assert "circuit opens after 4 in a row" in flat
    assert re.search(r"auth \(401\) +the next one answers; left alone for 30 s", flat)


def test_json_is_one_document(typed, tmp_path):
    """The document has the providers, the warnings and every failure, and no secret."""
    path = tmp_path / "x.yaml"
    path.write_text(SETTINGS)
    ran = typed("check", "-c", path, "--json")
    document = json.loads(ran.out)
    assert (ran.code, document["valid"], document["pings"], document["source"]) == (0, True, None, str(path))
    first, second = document["providers"]
    assert (first["name"], first["endpoint"]) == ("first", "127.0.0.1:9/x")
    assert (first["limits"]["rpm"], first["price"]["output"], first["circuit"]["failure_threshold"]) == (500, 8, 3)
    assert second["timeouts"]["first_token"] == 30
    kinds = [failure["kind"] for failure in document["failures"] if failure["provider"] == "second"]
    assert set(kinds) == {str(kind) for kind in ErrorKind} - {"cancelled"}
    assert not re.search("a-url-password|a-literal-key|a-header-token", ran.out)


def test_warnings_are_shown(typed, tmp_path, server):
    """What makes little sense, and a key that is missing, is listed and is no error."""
    path = tmp_path / "x.yaml"
    path.write_text(
        f"providers:\n  - model: anthropic:m\n    model_kwargs: {{base_url: '{server.base_url('anthropic')}', max_retries: 2, api_key: ''}}\n"
    )
    ran = typed("check", path)
    assert ran.code == 0
    flat = " ".join(ran.out.split())
    assert "! anthropic/m: no key was found for it" in flat
    assert "! anthropic/m is the only provider" in flat
    assert "! anthropic/m: its client retries 2 times by itself" in flat
    assert json.loads(typed("check", path, "--json").out)["warnings"][0] == "anthropic/m: no key was found for it"


@pytest.mark.parametrize("as_json", [False, True])
def test_a_ping_that_fails_is_exit_code_1(typed, server, tmp_path, as_json):
    """Each provider is asked once, by itself, with few tokens; one that fails is told in one line, with its reason."""
    server.schedule(Fault.status(503))
    path = config(tmp_path, server, "one", "two")
    ran = typed("check", path, "--ping", *(["--json"] if as_json else []))
    assert ran.code == 1
    assert re.fullmatch(r"error: 1 of 2 providers did not answer the ping: ollama/(one|two): overloaded 503\n", ran.err)
    assert server.count == 2
    assert {request.body["model"] for request in server.requests} == {"one", "two"}
    assert all(request.body["options"]["num_predict"] == 16 for request in server.requests)
    if as_json:
        document = json.loads(ran.out)
        assert document["error"]["kind"] == "ping_failed"
        assert [pinged["provider"] for pinged in document["pings"]] == ["ollama/one", "ollama/two"]
        assert sorted(pinged["kind"] for pinged in document["pings"]) == ["ok", "overloaded"]
    else:
        ping = ran.out.split("Ping\n")[1]
        assert re.search(r"ollama/(one|two) +ok  [\d.]+ m?s\n", ping)
        assert re.search(r"ollama/(one|two) +overloaded 503  [\d.]+ m?s", ping)


def test_a_ping_that_succeeds(typed, server, tmp_path):
    """When all answer the exit code is 0, and nothing is on stderr."""
    ran = typed("check", config(tmp_path, server, "one", "two"), "--ping")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.count(" ok  ") == 2


def test_a_ping_has_a_deadline(typed, server, tmp_path):
    """A provider that hangs is given up at the deadline, whatever the settings allow, and the others are told of all the same."""
    server.schedule(Fault.hang())
    ran = typed("check", config(tmp_path, server, "one", "two"), "--ping", "--deadline", "0.5", "--json")
    assert ran.code == 1
    assert sorted(pinged["outcome"] for pinged in json.loads(ran.out)["pings"]) == ["ok", "timeout (deadline)"]


def test_nothing_is_sent_without_ping(typed, server, tmp_path):
    """Without --ping no provider hears of a check."""
    assert typed("check", config(tmp_path, server, "one")).code == 0
    assert server.count == 0
