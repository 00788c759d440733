"""`dead-letters`: what is listed, shown, exported, removed and asked again, and what is never said."""

import io
import json
import os
import re
import signal
import stat
import subprocess
from contextlib import closing

import pytest

from langchain_resilient.cli import box
from langchain_resilient.cli.emptying import Tally
from langchain_resilient.engine.dead_letters.letter import Letter
from langchain_resilient.engine.dead_letters.opening import open_box
from langchain_resilient.engine.events import Replayed
from langchain_resilient.testing import Fault
from tests.cli.letters import PROMPT, TENANT, left_behind
from tests.cli.running import INTERRUPTIBLE, command, environment

ROW = {
    "id", "state", "kind", "created", "age", "deliveries", "due_in", "parked", "tenant", "key", "readable", "attempts",
}  # fmt: skip
COUNTS = {"waiting", "claimed", "parked", "spooled", "oldest_age"}


def letters_of(typed, path, *arguments):
    """As `list --json` has them."""
    return json.loads(typed("dead-letters", "list", "-c", path, "--json", *arguments).out)["letters"]


def park(left, place=0):
    """Let a letter be as one that nobody will ever answer."""
    for letter in left.model.letters.claim(place + 1, 60.0)[place:]:
        left.model.letters.park(letter, "its own fault (client_error)")
    for _, letter in left.model.letters.letters("claimed"):
        left.model.letters.release(letter, 0.0, counted=False)


# ----------------------------------------------------------------------------------------------------------- list and show
def test_a_list_says_why_and_when_and_never_what(typed, server, tmp_path):
    """Id, age, reason, state, tenant and who was asked, oldest first; no prompt, and no key that a caller chose."""
    left = left_behind(server, tmp_path, "chosen-by-the-caller", "second")
    ran = typed("dead-letters", "list", "-c", left.path)
    assert ran.code == 0
    first, second = [line for line in ran.out.splitlines() if re.match(r"[0-9a-f]{12}-", line.strip())][:2]
    assert (left.ids[0] in first, left.ids[1] in second) == (True, True)
    flat = " ".join(ran.out.split())
    assert all(word in flat for word in ("overloaded", "waiting", TENANT, "ollama/one"))
    document = json.loads(typed("dead-letters", "list", "-c", left.path, "--json").out)
    assert set(document) == {"source", "where", "letters", "counts", "after", "warnings"}
    assert set(document["counts"]) == COUNTS
    row = document["letters"][0]
    assert set(row) == ROW
    assert (row["id"], row["state"], row["kind"], row["tenant"], row["key"]) == (
        left.ids[0], "waiting", "overloaded", TENANT, None,
    )  # fmt: skip
    assert row["attempts"][0]["provider"] == "ollama/one"
    assert PROMPT not in ran.out + json.dumps(document) and "chosen-by" not in ran.out + json.dumps(document)


def test_a_list_goes_page_by_page(typed, server, tmp_path):
    """--most bounds it, `after` of one page begins the next, and --state leaves out the others."""
    left = left_behind(server, tmp_path, "a", "b", "c")
    first = json.loads(typed("dead-letters", "list", "-c", left.path, "--most", "2", "--json").out)
    assert ([row["id"] for row in first["letters"]], first["after"]) == (left.ids[:2], left.ids[1])
    assert [row["id"] for row in letters_of(typed, left.path, "--after", left.ids[1])] == left.ids[2:]
    assert f"--after {left.ids[1]}" in typed("dead-letters", "list", "-c", left.path, "--most", "2").err
    park(left)
    assert [row["id"] for row in letters_of(typed, left.path, "--state", "parked")] == left.ids[:1]
    assert "no claimed letters" in typed("dead-letters", "list", "-c", left.path, "--state", "claimed").out


def test_content_is_shown_to_who_asks_for_it(typed, server, tmp_path):
    """`show` tells what was tried; the prompt and a caller's own key come with --content alone."""
    left = left_behind(server, tmp_path, "chosen-by-the-caller")
    for more in ([], ["--json"]):
        ran = typed("dead-letters", "show", left.ids[0], "-c", left.path, *more)
        assert ran.code == 0 and "overloaded" in ran.out
        assert PROMPT not in ran.out + ran.err and "chosen-by" not in ran.out + ran.err
        ran = typed("dead-letters", "show", left.ids[0], "-c", left.path, "--content", *more)
        assert PROMPT in ran.out and "chosen-by-the-caller" in ran.out
    assert set(json.loads(ran.out)["letter"]) == ROW | {"content"}


@pytest.mark.parametrize("state", ["waiting", "claimed", "parked"])
def test_show_tells_the_state_that_lists_tell(typed, server, tmp_path, state):
    """Whether a letter waits, is being asked or is parked."""
    left = left_behind(server, tmp_path, "a")
    if state != "waiting":
        (letter,) = left.model.letters.claim(1, 60.0)
        if state == "parked":
            left.model.letters.park(letter, "poison")
    shown = json.loads(typed("dead-letters", "show", left.ids[0], "-c", left.path, "--json").out)["letter"]["state"]
    assert shown == letters_of(typed, left.path)[0]["state"] == state


@pytest.mark.parametrize("words", [["show"], ["purge", "--yes"], ["unpark"]])
def test_an_unknown_id_names_the_nearest(typed, server, tmp_path, words):
    """One that is not there is a usage error, and nothing is done to the others."""
    left = left_behind(server, tmp_path, "a", "b")
    ran = typed("dead-letters", *words, f"{left.ids[0][:-1]}x", "-c", left.path)
    assert (ran.code, ran.out) == (2, "")
    assert f"did you mean {left.ids[0]}?" in ran.err
    assert left.model.letters.counts().waiting == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["list", "--state", "park"], "did you mean 'parked'"),
        (["list", "--most", "0"], "--most"),
        (["purge", "--yes"], "nothing says what to remove"),
        (["purge", "--older-than", "7 fortnights", "--yes"], "7d or 12h"),
        (["purge", "--state", "parked"], "add --yes"),
        (["purge", "--state", "parked", "--json"], "add --yes"),
        (["unpark"], "--all"),
        (["replay", "--concurrency", "0"], "≥ 1"),
        (["replay", "--most", "0"], "≥ 1"),
    ],
)
def test_nonsense_is_refused_before_anything_is_done(typed, server, tmp_path, words, said):
    """Exit 2, one line that says what to write."""
    left = left_behind(server, tmp_path, "a")
    ran = typed("dead-letters", *words, "-c", left.path)
    assert ran.code == 2
    assert said in ran.err
    assert (left.model.letters.counts().waiting, server.count) == (1, 0)


# ------------------------------------------------------------------------------------------------------------ where they lie
def test_no_key_is_needed_to_look(typed, server, tmp_path):
    """A provider's key that the environment lacks, as its variable or in the file, does not matter to who asks nobody."""
    left = left_behind(server, tmp_path, "a")
    path = tmp_path / "keys.yaml"
    path.write_text(
        f"providers:\n  - openai:gpt-4.1\n  - model: mistralai:x\n    model_kwargs: {{api_key: '${{OUR_OWN_KEY}}'}}\n"
        f"dead_letters: {tmp_path / 'letters.db'}\n"
    )
    for words in (["list"], ["show", left.ids[0]], ["export"], ["purge", "--yes", *left.ids]):
        ran = typed("dead-letters", *words, "-c", path)
        assert (ran.code, ran.err) == (0, "")
    assert "OPENAI_API_KEY" not in os.environ and "OUR_OWN_KEY" not in os.environ


def test_a_variable_that_is_no_provider_s_key_is_missed(typed, tmp_path):
    """What the letters themselves need (a URL, the keys that open them) is asked for by name."""
    path = tmp_path / "x.yaml"
    path.write_text("providers: [ollama:one]\ndead_letters: {where: true, keys: ['${LETTERS_KEY}']}\n")
    ran = typed("dead-letters", "list", "-c", path)
    assert ran.code == 2 and "set the environment variable LETTERS_KEY" in ran.err


def test_a_box_is_not_made_by_looking(typed, server, tmp_path):
    """In another directory than the application's there is no file, and none is made: the error says where it was looked for."""
    path = tmp_path / "x.yaml"
    path.write_text(f"providers: [ollama:one]\ndead_letters: {tmp_path / 'nowhere.db'}\n")
    for words in (["list"], ["replay"]):
        ran = typed("dead-letters", *words, "-c", path)
        assert ran.code == 2 and f"there is no file {tmp_path / 'nowhere.db'}" in ran.err
    assert not (tmp_path / "nowhere.db").exists()
    path.write_text("providers: [ollama:one]\n")
    assert "these settings keep none" in typed("dead-letters", "list", "-c", path).err


@pytest.mark.e2e
def test_letters_in_redis_are_the_same_letters(server, tmp_path, redis_url, namespace):
    """What one process left in Redis another lists, asks again and finds answered."""
    left = left_behind(server, tmp_path, "k", where=redis_url, more=f"namespace: {namespace}\n")
    ran = command("dead-letters", "list", "-c", str(left.path), "--json", env=environment())
    assert [row["id"] for row in json.loads(ran.out)["letters"]] == left.ids
    assert command("dead-letters", "replay", "-c", str(left.path), env=environment()).code == 0
    ran = command("dead-letters", "result", "k", "--tenant", TENANT, "-c", str(left.path), env=environment())
    assert (ran.code, ran.out) == (0, "Hello from the fault server.\n")
    left.model.letters.close()


def test_a_redis_that_is_away_is_said_so(typed, tmp_path):
    """Exit 1, one line, and with --json a document."""
    path = tmp_path / "x.yaml"
    path.write_text(
        f"providers: [ollama:one]\ndead_letters: {{where: 'redis://:a-password@127.0.0.1:1', spool: {tmp_path}}}\n"
    )
    ran = typed("dead-letters", "list", "-c", path, "--json")
    assert (ran.code, json.loads(ran.out)["error"]["kind"]) == (1, "letters_away")
    assert "a-password" not in ran.out + ran.err


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://:a-password@10.0.0.7:6380/3", "redis://10.0.0.7:6380/3, namespace shop"),
        ("rediss://user:a%2Fpassword@host?ssl_cert_reqs=none", "rediss://host:6379, namespace shop"),
        ("redis://host?db=2&password=a-password", "redis://host:6379/2, namespace shop"),
        ("unix:///run/redis.sock?password=a-password", "unix:///run/redis.sock, namespace shop"),
        ("redis+cluster://user:a-password@one:7000,two:7001", "redis+cluster://one:7000,two:7001, namespace shop"),
    ],
)
def test_a_place_in_redis_is_named(url, shown):
    """Which server, which database and which namespace: who removes something there must know; never who may do so, nor an option's value."""
    assert box.shown_place(url, {"namespace": "shop"}) == shown


def test_a_purge_says_where(typed, tmp_path, monkeypatch, redis_url, namespace):
    """The prompt names the place that it is about to remove from."""
    path = tmp_path / "x.yaml"
    path.write_text(
        f"providers: [ollama:one]\nnamespace: {namespace}\ndead_letters: {{where: '{redis_url}', spool: {tmp_path}}}\n"
    )
    with closing(open_box(redis_url, namespace=namespace, spool=str(tmp_path))) as found:
        found.put(Letter("0" * 12 + "-00", "old", 1.0, "overloaded", content={}))
    monkeypatch.setattr("io.StringIO", Terminal)
    ran = typed("dead-letters", "purge", "--state", "waiting", "-c", path, stdin="n\n")
    host = redis_url.partition("://")[2].partition("/")[0]
    assert f"Remove 1 letter from redis://{host}" in ran.err
    assert f", namespace {namespace} for good? [y/N]:" in ran.err


# ------------------------------------------------------------------------------------------------------------------- export
def test_an_export_is_json_lines(typed, server, tmp_path):
    """One letter a line, the same as in lists; content only with --content."""
    left = left_behind(server, tmp_path, "a", "b")
    lines = [json.loads(line) for line in typed("dead-letters", "export", "-c", left.path).out.splitlines()]
    assert [line["id"] for line in lines] == left.ids
    assert set(lines[0]) == ROW
    ran = typed("dead-letters", "export", "-c", left.path, "--content", "--state", "waiting")
    line = json.loads(ran.out.splitlines()[0])
    assert (line["key"], line["content"]["messages"][0]["data"]["content"]) == ("a", PROMPT)
    assert len(json.loads(typed("dead-letters", "export", "-c", left.path, "--json").out)["letters"]) == 2


def test_an_exported_file_is_its_owner_s_alone_and_new(typed, server, tmp_path):
    """Mode 0600; a file that is there is never written over."""
    left = left_behind(server, tmp_path, "a")
    output = tmp_path / "kept.jsonl"
    document = json.loads(typed("dead-letters", "export", "-c", left.path, "-o", output, "--content", "--json").out)
    assert (document["exported"], document["file"]) == (1, str(output))
    assert stat.S_IMODE(output.stat().st_mode) == 0o600
    assert PROMPT in output.read_text()
    output.write_text("mine")
    ran = typed("dead-letters", "export", "-c", left.path, "-o", output)
    assert (ran.code, output.read_text()) == (2, "mine")


# ---------------------------------------------------------------------------------------------------------- purge and unpark
class Terminal(io.StringIO):
    """A stdin at which somebody sits."""

    def isatty(self):
        """They do."""
        return True


def test_a_purge_removes_what_meets_all_that_is_given(typed, server, tmp_path):
    """Ids, a state and an age narrow each other; what is younger than the age stays."""
    left = left_behind(server, tmp_path, "a", "b", "c")
    left.model.letters.put(Letter("0" * 12 + "-00", "old", 1.0, "overloaded", content={}))
    park(left, place=1)
    assert [row["id"] for row in letters_of(typed, left.path, "--state", "parked")] == left.ids[:1]

    def purged(*words):
        return json.loads(typed("dead-letters", "purge", "-c", left.path, "--yes", "--json", *words).out)["removed"]

    assert purged(*left.ids, "--state", "parked") == 1
    assert purged("--older-than", "7d", left.ids[1]) == 0
    assert purged("--older-than", "7d") == 1
    assert [row["id"] for row in letters_of(typed, left.path)] == left.ids[1:]


@pytest.mark.parametrize(("said", "kept", "code"), [("y\n", 0, 0), ("n\n", 2, 1)])
def test_a_purge_asks_first(typed, server, tmp_path, monkeypatch, said, kept, code):
    """On a terminal it says how many, and removes nothing unless told yes."""
    left = left_behind(server, tmp_path, "a", "b")
    monkeypatch.setattr("io.StringIO", Terminal)
    ran = typed("dead-letters", "purge", "--state", "waiting", "-c", left.path, stdin=said)
    assert (ran.code, left.model.letters.counts().waiting) == (code, kept)
    assert f"Remove 2 letters from {tmp_path / 'letters.db'} for good? [y/N]:" in ran.err


def test_a_purge_removes_no_more_than_was_agreed_to(typed, server, tmp_path, monkeypatch):
    """A letter that is parked while the prompt waits stays, and so does one that is parked no longer."""
    left = left_behind(server, tmp_path, "a", "b", "c")
    first, second, third = left.ids
    for _ in range(2):
        park(left)
    assert [row["id"] for row in letters_of(typed, left.path, "--state", "parked")] == [first, second]

    def meanwhile(*_args, **_kwargs):
        park(left)
        return left.model.letters.unpark(second)

    monkeypatch.setattr("io.StringIO", Terminal)
    monkeypatch.setattr("typer.confirm", meanwhile)
    assert typed("dead-letters", "purge", "--state", "parked", "-c", left.path).out == "1 letter removed\n"
    assert [(row["id"], row["state"]) for row in letters_of(typed, left.path)] == [
        (second, "waiting"),
        (third, "parked"),
    ]


def test_a_purge_of_nothing_asks_nobody(typed, server, tmp_path, monkeypatch):
    """There is nothing to agree to, and what comes meanwhile stays."""
    left = left_behind(server, tmp_path, "a")
    monkeypatch.setattr("io.StringIO", Terminal)
    ran = typed("dead-letters", "purge", "--state", "parked", "-c", left.path)
    assert (ran.code, ran.out, ran.err) == (0, "0 letters removed\n", "")
    assert left.model.letters.counts().waiting == 1


def test_an_unparked_letter_waits_again(typed, server, tmp_path):
    """By id or all of them; one that was not parked is named, with exit 1."""
    left = left_behind(server, tmp_path, "a", "b")
    park(left)
    assert typed("dead-letters", "unpark", "--all", "-c", left.path).code == 0
    assert left.model.letters.counts().waiting == 2
    ran = typed("dead-letters", "unpark", left.ids[1], "-c", left.path, "--json")
    document = json.loads(ran.out)
    assert (ran.code, document["error"]["kind"], document["left"], document["unparked"]) == (
        1, "not_unparked", [left.ids[1]], [],
    )  # fmt: skip


# ------------------------------------------------------------------------------------------------------------------- replay
def test_a_replay_asks_again_and_keeps_the_answers(typed, server, tmp_path):
    """Once the provider is well all are answered: exit 0, and each answer is found by its key."""
    left = left_behind(server, tmp_path, "a", "b")
    ran = typed("dead-letters", "replay", "-c", left.path, "--json")
    document = json.loads(ran.out)
    assert (ran.code, document["report"]["answered"], document["counts"]["waiting"]) == (0, 2, 0)
    assert set(document) == {"source", "where", "report", "counts", "warnings"}
    assert PROMPT not in ran.out + ran.err
    assert (
        typed("dead-letters", "result", "a", "--tenant", TENANT, "-c", left.path).out
        == "Hello from the fault server.\n"
    )
    result = json.loads(typed("dead-letters", "result", "b", "--tenant", TENANT, "-c", left.path, "--json").out)[
        "result"
    ]
    assert (result["letter"], result["value"]["type"]) == (left.ids[1], "ai")
    assert typed("dead-letters", "result", "c", "--tenant", TENANT, "-c", left.path).code == 1
    ran = typed("dead-letters", "result", "a", "-c", left.path)
    assert (ran.code, "no answer to that key without a tenant" in ran.err) == (1, True)
    ran = typed("dead-letters", "replay", "-c", left.path)
    assert (ran.code, ran.out) == (0, "no letter was due\n")


@pytest.mark.parametrize("as_json", [False, True])
def test_what_is_left_is_exit_code_1(typed, server, tmp_path, as_json):
    """One answered, one that failed again, one that nobody will ever answer: each is counted, and the exit code says that some are left."""
    left = left_behind(server, tmp_path, "a", "b", "c")
    server.schedule(Fault.ok(), Fault.status(400), Fault.overloaded())
    words = ["--concurrency", "1", *(["--json"] if as_json else [])]
    ran = typed("dead-letters", "replay", "-c", left.path, *words)
    assert ran.code == 1
    assert "2 of 3 letters were not answered: 1 failed and will be asked again and 1 are parked" in ran.err
    if as_json:
        document = json.loads(ran.out)
        assert document["error"]["kind"] == "letters_left"
        assert document["report"] == {"answered": 1, "failed": 1, "parked": 1, "refused": 0, "retry_after": None}
    else:
        assert ran.out == "1 answered, 1 failed and 1 parked\n"


def test_most_bounds_a_replay(typed, server, tmp_path):
    """--most asks so many; those behind them are not touched, which is no failure."""
    left = left_behind(server, tmp_path, "a", "b", "c")
    assert typed("dead-letters", "replay", "-c", left.path, "--most", "2").code == 0
    assert (server.count, left.model.letters.counts().waiting) == (2, 1)


@pytest.mark.e2e
@pytest.mark.parametrize("as_json", [False, True])
def test_ctrl_c_gives_back_what_is_being_asked(server, tmp_path, as_json):
    """What hangs when Ctrl-C comes waits again, uncounted; what was answered stays so; exit 130."""
    left = left_behind(server, tmp_path, "a", "b")
    server.schedule(Fault.ok(), Fault.hang())
    process = subprocess.Popen(
        [*INTERRUPTIBLE, "dead-letters", "replay", "-c", str(left.path), "--concurrency", "1", *(["--json"] if as_json else [])],
        env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    server.wait_for(2, timeout=40)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert (process.returncode, err.splitlines()[-1]) == (130, "error: interrupted")
    assert "Traceback" not in err
    ((state, letter),) = left.model.letters.letters()
    assert (letter.id, state, letter.deliveries) == (left.ids[1], "waiting", 0)
    assert left.model.letters.result("a", TENANT) is not None
    if as_json:
        document = json.loads(out)
        assert (document["error"]["kind"], document["report"]["answered"]) == ("interrupted", 1)
    else:
        assert out == "1 answered\n"


def test_a_letter_that_comes_back_is_one_letter():
    """After a Ctrl-C each letter is counted by what became of it last, however often nobody could be asked about it."""
    tally = Tally()
    for letter, outcome in (("a", "refused"), ("b", "refused"), ("a", "answered"), ("b", "refused")):
        tally(Replayed(letter, outcome, 0.1))
    report = tally.report()
    assert (report.answered, report.refused, report.failed, report.parked) == (1, 1, 0, 0)
