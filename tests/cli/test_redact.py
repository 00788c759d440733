"""Secrets, prompts and terminal controls stay out of what is said."""

import pytest
from pydantic import SecretStr

from langchain_resilient.cli.redact import Redactor, printable
from langchain_resilient.testing import ScriptedChatModel

ENVIRONMENT = {
    "SOME_API_KEY": "key-of-the-environment",
    "DB_PASSWORD": "hunter2hunter2",
    "SHORT_TOKEN": "abcd",
    "MAX_TOKENS": "4096",
    "HOME": "/home/somebody",
    "EMPTY_KEY": "",
}
HIDDEN = {
    "a variable that is named like a key": "got key-of-the-environment here",
    "a password": "password=hunter2hunter2&x",
    "a short secret as a word": "key abcd refused",
    "OpenAI's form": "refused: sk-proj-abcDEF123456.",
    "OpenAI's mask": "refused: sk-proj-********************wxyz.",
    "a mask of anything": "refused: planted-*******4711",
    "an elided key": "refused: sk-abcde...wxyz",
    "Google's form": "https://x/?key=AIzaSyA1234567890&alt=sse",
    "a header": "Authorization: Bearer abc.def-ghi=",
    "a URL's password": "http://user:pass@127.0.0.1/",
}


@pytest.mark.parametrize("text", HIDDEN.values(), ids=HIDDEN)
def test_secrets_are_hidden(text: str):
    """What the environment holds as a secret, and what looks like a key, whole or masked, is replaced."""
    line = Redactor(ENVIRONMENT).line(text)
    assert "[hidden]" in line
    for part in ("key-of", "hunter2", "abcd", "proj", "wxyz", "4711", "planted", "AIza", "def-ghi", "user:pass"):
        assert part not in line


def test_the_rest_is_kept():
    """Numbers, paths, names and words around a secret stay; a short secret is hidden as a word only."""
    text = "max_tokens 4096 at /home/somebody; abcdefg, a-key, task-manager-of-all and **bold**"
    assert Redactor(ENVIRONMENT).line(text) == text
    assert Redactor(ENVIRONMENT).line("Bad key sk-proj-****abcd. Look at http://x.test/keys.") == (
        "Bad key [hidden]. Look at http://x.test/keys."
    )


def test_secrets_of_settings_models_and_files_are_hidden():
    """Keys among a client's arguments, headers, SecretStr fields and literal keys in a file are all known."""

    class Keyed(ScriptedChatModel):
        some_key: SecretStr

    redactor = Redactor({})
    redactor.add_settings(
        {"api_key": "argument-key", "default_headers": {"x-any": "header-value"}, "base_url": "http://kept.test"}
    )
    redactor.add_settings({"extra": {"deep_token": SecretStr("secret-str-value")}})
    redactor.add_model(Keyed(some_key=SecretStr("model-secret")))
    redactor.add_file("a: {api_key: 'literal-in-file', max_tokens: 4096}\nother_secret: \"quoted-in-file\"\n")
    text = (
        "argument-key header-value secret-str-value model-secret literal-in-file quoted-in-file 4096 http://kept.test"
    )
    assert redactor.line(text) == " ".join(["[hidden]"] * 6) + " 4096 http://kept.test"


def test_prompts_are_hidden():
    """A question that an error quotes is replaced; a word of a few letters is not hunted for."""
    redactor = Redactor({})
    redactor.add_prompt("What is the secret of life?", "Hi", None)
    assert redactor.line("Refused: What is the secret of life? Hi.") == "Refused: [your question] Hi."


def test_a_line_is_one_line_of_bounded_length():
    """Line breaks and escape sequences go, and a page of HTML is cut."""
    redactor = Redactor({})
    assert redactor.line("a\n  b\r\n\x1b[31mred\x1b[0m\x07\x9b") == "a b red"
    assert redactor.line("x" * 700) == "x" * 599 + "…"


def test_an_answer_for_a_terminal_has_no_controls():
    """Escape sequences of an answer lose their escape, however they are cut into chunks; text and line breaks stay."""
    text = "a\tb\nc\r\n\x1b[31mred\x1b]0;title\x07 \x9b31m é 🙂"
    clean = "a\tb\nc\n[31mred]0;title 31m é 🙂"
    assert printable(text) == clean
    assert "".join(printable(char) for char in text) == clean
