"""What becomes of a letter before it is written: redaction, the cap, encryption; and that nothing of it is lost or told."""

import logging
import sys

import pytest
from cryptography.fernet import Fernet

from langchain_resilient.engine.dead_letters.letter import encode
from langchain_resilient.engine.dead_letters.sealing import Seal
from langchain_resilient.engine.errors import SettingsError
from tests.engine.dead_letters.post import letter

OLD, NEW = (Fernet.generate_key().decode() for _ in range(2))
PROMPT = "question 1"


def stored(seal, made=None):
    """A letter as it is written."""
    return seal.written(seal.prepared(made or letter()))


def test_a_plain_seal_keeps_the_letter():
    """Without settings a letter is kept whole, in the clear."""
    assert stored(Seal()) == encode(letter())
    assert Seal().read(encode(letter()), "id") == (letter(), False)


# ── redaction ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_hooks_word_is_kept():
    """What the hook returns is what is kept, scrubbed as well; it gets plain copies of all that would be, without credentials."""
    got = []

    def redact(content):
        got.append(dict(content))
        content["messages"][0]["content"] = "[hidden]"
        content["parameters"]["api_key"] = "planted"
        return content

    made = letter(content={"messages": [{"content": PROMPT}], "parameters": {"stop": ("a",), "token": "x"}})
    found, _ = Seal(redact).read(stored(Seal(redact), made), "id")
    assert found.content == {"messages": [{"content": "[hidden]"}], "parameters": {"stop": ["a"]}}
    assert found.parked is None
    assert got[0]["parameters"] == {"stop": ["a"], "api_key": "planted"}  # the dict that the hook then changed
    assert made.content["messages"][0]["content"] == PROMPT


def raises(content):
    """As a hook may fail: quoting the prompt."""
    raise LookupError(str(content))


@pytest.mark.parametrize(
    "redact",
    [
        raises,
        lambda content: None,
        lambda content: "x",
        lambda content: {},
        lambda content: {"messages": "x"},
        lambda content: {"messages": [b""]},
    ],
    ids=["raises", "None", "text", "empty", "no list", "no JSON"],
)
def test_a_hook_that_fails(redact, caplog):
    """Where the hook raises or returns nonsense, nothing unredacted is written or logged; the letter itself is kept, parked."""
    with caplog.at_level(logging.WARNING, "langchain_resilient"):
        written = stored(Seal(redact))
    found, locked = Seal().read(written, "id")
    assert (found.content, found.parked, locked) == (None, "redaction failed", False)
    assert (found.id, found.key, found.attempts) == ("id-0001", "key-1", letter().attempts)
    assert PROMPT.encode() not in written
    assert "id-0001" in caplog.text and "redaction failed" in caplog.text
    assert PROMPT not in caplog.text and "Traceback" not in caplog.text


def test_content_that_is_no_json(caplog):
    """Content that JSON does not have is left out, and says so, rather than losing the letter."""
    endless = {}
    endless["self"] = endless
    for odd in (b"bytes", object(), endless):
        found = Seal().prepared(letter(content={"messages": [odd], "parameters": {}}))
        assert (found.content, found.parked) == (None, "not JSON")
    assert "bytes" not in caplog.text


def test_the_cap():
    """Content of just so many bytes is kept, one more is not: counted in UTF-8, before encryption."""
    made = letter(content={"messages": ["é"], "parameters": {}})
    size = len('{"messages":["é"],"parameters":{}}'.encode())
    for keys in ((), (OLD,)):
        assert Seal(most_bytes=size, keys=keys).prepared(made).content is not None
        found = Seal(most_bytes=size - 1, keys=keys).prepared(made)
        assert (found.content, found.parked) == (None, "too large")


def test_the_cap_counts_what_is_kept():
    """A hook may make a letter small enough."""
    seal = Seal(lambda content: {**content, "messages": []}, most_bytes=100)
    assert seal.prepared(letter(content={"messages": ["x" * 1000], "parameters": {}})).parked is None


# ── encryption ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_encrypted_content():
    """Content is written under the first key alone; what lists need stays readable."""
    seal = Seal(keys=[NEW, OLD])
    written = stored(seal)
    assert PROMPT.encode() not in written and b"temperature" not in written
    assert b"key-1" in written and b"openai/gpt-4.1" in written
    assert seal.read(written, "id") == (letter(), False)
    assert Seal(keys=[NEW]).read(written, "id") == (letter(), False)
    found, locked = Seal(keys=[OLD]).read(written, "id")
    assert (found.content, locked, found.key, found.parked) == (None, True, "key-1", None)
    assert Seal().read(written, "id")[1] is True


def test_rotation():
    """What an old key wrote is read for as long as that key is listed, and so is what was written without any."""
    rotated = Seal(keys=[NEW, OLD])
    assert rotated.read(stored(Seal(keys=[OLD])), "id") == (letter(), False)
    assert rotated.read(stored(Seal()), "id") == (letter(), False)


def test_results_are_encrypted_too():
    """A result's value passes through the same keys."""
    seal = Seal(keys=[NEW])
    written = seal.written_value({"answer": "forty-two"})
    assert b"forty-two" not in written
    assert seal.read_value(written) == {"answer": "forty-two"}
    assert Seal(keys=[OLD]).read_value(written) is None
    assert Seal().read_value(written) is None
    assert seal.read_value(Seal().written_value([None])) == [None]
    assert seal.read_value(seal.written_value(None)) is None


@pytest.mark.parametrize("key", ["short", "sk-planted-0123456789", "é"])
def test_a_key_that_is_none(key):
    """A wrong key is named by its place, never quoted, and the way to make one is told."""
    with pytest.raises(SettingsError, match=r"keys\[1\].*generate_key") as caught:
        Seal(keys=[OLD, key])
    assert key not in str(caught.value) and caught.value.__cause__ is None


def test_without_cryptography(monkeypatch):
    """Keys without the package are an error that names the extra; without keys it is not imported."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "cryptography"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "cryptography", None)
    assert stored(Seal()) == encode(letter())
    with pytest.raises(SettingsError, match=r"langchain-resilient\[encryption\]"):
        Seal(keys=[OLD])
