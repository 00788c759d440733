"""`chat`: the answer, the decision, the notes, the document; in this process, against a real server."""

import json
import logging
import re
import warnings

import pytest

from langchain_resilient.cli import sources
from langchain_resilient.testing import Fault
from tests.cli.running import config


def lines_of(err: str, word: str) -> list[str]:
    """The lines on stderr that begin with a word."""
    return [line for line in err.splitlines() if line.startswith(f"{word}: ")]


@pytest.mark.parametrize("way", [[], ["--no-stream"]])
def test_a_failing_provider_is_passed_over(typed, server, tmp_path, way):
    """The next provider's answer is shown once, and the decision says who failed, how, and who answered instead."""
    server.schedule(Fault.status(503))
    ran = typed("chat", "Hi", "-c", config(tmp_path, server, "one", "two"), *way)
    assert (ran.code, ran.out) == (0, "Hello from the fault server.\n")
    head, *rest = ran.err.splitlines()
    assert re.fullmatch(
        r"ollama/two answered in [\d.]+ m?s(, first token after [\d.]+ m?s)?, instead of ollama/one", head
    )
    assert ("first token" in head) == (way == [])
    assert re.fullmatch(r"  ollama/one  overloaded 503  [\d.]+ m?s", rest[0])
    assert re.fullmatch(r"  ollama/two  ok              [\d.]+ m?s", rest[1])
    assert re.fullmatch(r"  \d+ tokens in, 5 out", rest[2])
    assert len(rest) == 3


def test_quiet_says_nothing(typed, server, tmp_path):
    """With --quiet stderr stays empty unless something fails."""
    server.schedule(Fault.status(503))
    path = config(tmp_path, server, "one", "two")
    assert typed("chat", "Hi", "-q", "-c", path) == (0, "Hello from the fault server.\n", "")
    server.always(Fault.status(400))
    ran = typed("chat", "Hi", "-q", "-c", path)
    assert ran.code == 1
    assert len(ran.err.splitlines()) == 1 and ran.err.startswith("error: ollama/one: client_error 400: ")


def test_the_question_is_what_was_typed_or_stdin(typed, server, tmp_path):
    """Words need no quotes, "-" reads stdin, and --system and --max-tokens reach the provider."""
    path = config(tmp_path, server, "one")
    typed("chat", "What", "is", "it?", "-c", path, "--system", "Be brief.", "--max-tokens", "7")
    typed("chat", "-", "-c", path, stdin="From a\npipe\n")
    first, second = [request.body for request in server.requests]
    assert [(message["role"], message["content"]) for message in first["messages"]] == [
        ("system", "Be brief."),
        ("user", "What is it?"),
    ]
    assert first["options"]["num_predict"] == 7
    assert second["messages"][-1]["content"] == "From a\npipe\n"


def test_a_deadline_bounds_everything(typed, server, tmp_path):
    """With --deadline a silent provider is given up in time, and the error says so."""
    server.always(Fault.hang())
    ran = typed("chat", "Hi", "-c", config(tmp_path, server, "one"), "--deadline", "0.2")
    assert (ran.code, ran.out) == (1, "")
    assert re.search(r"ollama/one  timeout \(deadline\)", ran.err)
    assert lines_of(ran.err, "error")[0].startswith("error: ollama/one: timeout (deadline)")


def test_a_stream_that_breaks_leaves_what_was_shown(typed, server, tmp_path):
    """After the first content the answer stops where it broke: its line is ended, one error line, exit 1."""
    server.always(Fault.reset_after(2))
    ran = typed("chat", "Hi", "-c", config(tmp_path, server, "one", "two"))
    assert (ran.code, ran.out) == (1, "Hello from\n")
    assert ran.err.startswith("the stream broke after ")
    (error,) = lines_of(ran.err, "error")
    assert error.startswith("error: ollama/one: the stream broke after ")
    assert lines_of(ran.err, "note") == []  # our own log lines say the same


def test_a_stream_that_breaks_before_its_first_content_falls_over(typed, server, tmp_path):
    """Before the first content nobody has seen anything, so the next provider answers."""
    server.schedule(Fault.truncate(0))
    ran = typed("chat", "Hi", "-c", config(tmp_path, server, "one", "two"))
    assert (ran.code, ran.out) == (0, "Hello from the fault server.\n")
    assert "ollama/one  stream_interrupted" in ran.err


def test_json_is_one_document(typed, server, tmp_path):
    """With --json the answer and its decision are one document; nothing is streamed beside it."""
    server.schedule(Fault.status(503))
    ran = typed("chat", "Hi", "--json", "-c", config(tmp_path, server, "one", "two"))
    document = json.loads(ran.out)
    assert (ran.code, document["answer"]) == (0, "Hello from the fault server.")
    decision = document["decision"]
    assert (decision["provider"], decision["fallback"]) == ("ollama/two", True)
    assert [attempt["kind"] for attempt in decision["attempts"]] == ["overloaded", "ok"]
    assert decision["usage"]["output"] == 5


def test_json_of_a_failure_holds_all_there_is(typed, server, tmp_path):
    """A broken stream's document has the error, what was shown, and the decision."""
    server.always(Fault.reset_after(2))
    ran = typed("chat", "Hi", "--json", "-c", config(tmp_path, server, "one"))
    document = json.loads(ran.out)
    assert (ran.code, document["answer"]) == (1, "Hello from")
    assert (document["error"]["kind"], document["error"]["exit_code"]) == ("stream_interrupted", 1)
    assert document["decision"]["outcome"] == "interrupted"
    assert document["error"]["message"] == lines_of(ran.err, "error")[0].removeprefix("error: ")


def test_nobody_answers(typed, server, tmp_path):
    """When all fail the line says for each what went wrong there."""
    server.always(Fault.status(404, message="model not found"))
    ran = typed("chat", "Hi", "--json", "-c", config(tmp_path, server, "one", "two"))
    missing = "not_found 404: model not found (status code: 404)"
    assert lines_of(ran.err, "error") == [f"error: no provider answered: ollama/one: {missing}; ollama/two: {missing}"]
    assert json.loads(ran.out)["error"]["kind"] == "all_providers_failed"


def test_a_wait_that_helps_is_told(typed, server, tmp_path):
    """A provider that is left alone is not asked, and the error says for how long."""
    server.always(Fault.status(401))
    path = config(tmp_path, server, "one")
    typed("chat", "Hi", "-c", path)
    ran = typed("chat", "Hi", "--json", "-c", path)
    error = json.loads(ran.out)["error"]
    assert server.count == 1
    assert error["kind"] == "circuit_open" and 200 < error["retry_after"] <= 300
    assert re.search(r"; retry in \d+ (s|min)$", error["message"])
    assert re.search(r"ollama/one  not asked  auth, for \d+ (s|min)", ran.err)


def test_a_prompt_is_in_no_message(typed, server, tmp_path):
    """A provider that quotes the question in its error does not get it into stderr or the error document."""
    question = "a question of great secrecy"
    server.always(Fault.status(400, message=f"I won't hear of {question!r}"))
    ran = typed(
        "chat", *question.split(), "--json", "-c", config(tmp_path, server, "one"), "--system", "a system prompt"
    )
    assert ran.code == 1
    assert "I won't hear of '[your question]'" in ran.err
    assert question not in ran.out + ran.err


def test_an_error_of_many_lines_is_one(typed, server, tmp_path):
    """A proxy's HTML page, escape sequences included, is one line of bounded length."""
    server.always(Fault.status(400, body="<html>\n<h1>\x1b[31mBad</h1>\n" + "\n".join(["<p>Gateway</p>"] * 200)))
    ran = typed("chat", "Hi", "-q", "-c", config(tmp_path, server, "one"))
    assert len(ran.err.splitlines()) == 1 and len(ran.err) < 700
    assert "\x1b" not in ran.err


@pytest.mark.parametrize(("text", "what"), [("", "empty"), ("cut", "cut short")])
def test_an_answer_that_is_not_all_is_noted(typed, monkeypatch, text, what):
    """An empty answer, or one that the provider cut, says so with its reason."""
    from langchain_core.messages import AIMessageChunk
    from langchain_core.outputs import ChatGenerationChunk

    from langchain_resilient.testing import ScriptedChatModel

    class Cut(ScriptedChatModel):
        async def _astream(self, *_args, **_kwargs):
            yield ChatGenerationChunk(message=AIMessageChunk(text, response_metadata={"finish_reason": "length"}))

    monkeypatch.setattr("langchain_resilient.cli.sources.settings_of", lambda *_: {"providers": [Cut()]})
    ran = typed("chat", "Hi", "-p", "any:thing")
    assert (ran.code, ran.out) == (0, text and f"{text}\n")
    assert lines_of(ran.err, "note") == [f"note: the answer is {what} (finish reason: length)"]


def test_warnings_and_log_lines_wait_until_the_answer_is_over(typed, server, monkeypatch):
    """What Python or any library says meanwhile comes after the decision, once, in a line of its own, without secrets."""
    from langchain_resilient.testing import ScriptedChatModel

    def says(_messages):
        warnings.warn("an odd setting", UserWarning, stacklevel=1)
        logging.getLogger("some.client").warning("about %s", "sk-abcdefghijkl")
        logging.getLogger("some.client").warning("about %s", "sk-abcdefghijkl")
        logging.getLogger("some.client").info("a detail")
        return "fine"

    monkeypatch.setattr(
        "langchain_resilient.cli.sources.settings_of", lambda *_: {"providers": [ScriptedChatModel(script=[says])]}
    )
    ran = typed("chat", "Hi", "-p", "any:thing")
    assert ran.out == "fine\n"
    assert ran.err.splitlines()[-2:] == ["note: an odd setting", "note: about [hidden]"]
    assert "_Kept" not in str(logging.getLogger().handlers)


def test_a_missing_key_is_told_where_it_may_be_the_reason(typed, server, tmp_path, monkeypatch):
    """A client that was made without its key says so only when it is asked: the note names the provider if it failed."""
    path = tmp_path / "keyless.yaml"
    path.write_text(
        f"providers:\n  - model: anthropic:claude-sonnet-4-5\n    model_kwargs: {{base_url: '{server.base_url('anthropic')}', api_key: ''}}\n"
    )
    with monkeypatch.context() as patched:
        patched.setattr(sources, "keyless", lambda _: ["ollama/one"])
        assert "no key" not in typed("chat", "Hi", "-c", config(tmp_path, server, "one")).err
    server.always(Fault.status(401))
    ran = typed("chat", "Hi", "-c", path)
    assert ran.code == 1
    assert "note: anthropic/claude-sonnet-4-5: no key was found for it" in ran.err.splitlines()
