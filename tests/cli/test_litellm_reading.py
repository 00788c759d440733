"""Reading LiteLLM's file: secrets, kinds of values, and what is left over."""

import datetime as dt

import pytest

from langchain_resilient.cli import litellm_reading as reading
from langchain_resilient.cli.litellm_reading import Hidden, Remarks, Section, Unfit, cleaned
from langchain_resilient.cli.redact import HIDDEN, Redactor


def without_secrets(content):
    """The content as the conversion sees it."""
    return cleaned(content, Redactor({})).content


def test_literal_secrets_are_taken_out():
    """What stands under a secret's name is hidden, whatever it is, and what looks like a key is hidden wherever it stands; variables stay."""
    assert without_secrets(
        {
            "api_key": "short",
            "vertex_credentials": {"a": ["b", "short"], "c": None},
            "extra_headers": {"x": "os.environ/X"},
            "max_tokens": 5,
            "input_cost_per_token": 0.5,
            "aws_access_key_id": 7,
            "sk-abcdefghijkl": "see sk-abcdefghijkl",
            "url": "http://me:pw@host",
        }
    ) == {
        "api_key": Hidden(0),
        "vertex_credentials": {"a": [Hidden(1), Hidden(0)], "c": None},
        "extra_headers": {"x": "os.environ/X"},
        "max_tokens": 5,
        "input_cost_per_token": 0.5,
        "aws_access_key_id": Hidden(2),
        HIDDEN: f"see {HIDDEN}",
        "url": f"http://{HIDDEN}@host",
    }


def test_a_secret_is_hidden_where_it_is_repeated():
    """A long literal is hidden at its other places too; one that is a provider's name is no secret, or no model could be named."""
    assert without_secrets({"master_key": "my-own-words", "note": "my-own-words!"})["note"] == f"{HIDDEN}!"
    assert without_secrets({"api_key": "anthropic", "model": "anthropic/x"})["model"] == "anthropic/x"


def test_values_become_plain():
    """Dates, sets, bytes, huge numbers and half characters become what YAML and JSON can say."""
    given = {
        "d": dt.date(2024, 10, 21),
        "s": {1},
        "b": b"x",
        "n": 10**5000,
        "f": float("inf"),
        "h": "\ud800",
        3: 4,
    }
    assert without_secrets(given) == {
        "d": "2024-10-21", "s": [1], "b": HIDDEN, "n": "a very large number", "f": "inf", "h": "?", "3": 4,
    }  # fmt: skip


def test_variables_are_told():
    """The variables that the file names are known, so that no literal gets one of their names."""
    assert cleaned({"a": ["os.environ/X", "os.environ/Y-Z"]}, Redactor({})).variables == {"X"}


@pytest.mark.parametrize(
    ("read", "value", "found"),
    [
        (reading.number, "1e-6", 1e-6),
        (reading.whole, 3.0, 3),
        (reading.whole, "12", 12),
        (reading.text, "os.environ/X_1", "${X_1}"),
        (reading.words, "a", ["a"]),
        (reading.words, ["a", "b"], ["a", "b"]),
        (reading.mapping, {"a": [1, {"b": "os.environ/X"}]}, {"a": [1, {"b": "${X}"}]}),
        (reading.texts, {"a": "b"}, {"a": "b"}),
    ],
)
def test_a_value_is_read_as_its_kind(read, value, found):
    """Numbers may be texts, as YAML takes 1e-6 for one; variables get our spelling."""
    assert read(value) == found


@pytest.mark.parametrize(
    ("read", "value"),
    [
        (reading.number, True),
        (reading.number, "nan"),
        (reading.whole, 1.5),
        (reading.whole, "1e400"),
        (reading.whole, -1),
        (reading.text, " "),
        (reading.text, Hidden(0)),
        (reading.text, f"a {HIDDEN}"),
        (reading.yes_or_no, "true"),
        (reading.mapping, []),
        (reading.mapping, {"a": Hidden(0)}),
        (reading.texts, {"a": 1}),
    ],
)
def test_what_is_not_of_its_kind_is_unfit(read, value):
    """A value that makes no sense there, or holds a secret, is refused with what to write instead."""
    with pytest.raises(Unfit, match=r"write|written"):
        read(value)


def test_a_section_keeps_account():
    """What was not taken is remarked on once, with its place; null is nothing."""
    remarks = Remarks()
    section = Section("here", {"a": 1, "b": "x", "tags": [], "c": None, "d": 2}, remarks)
    assert section.take("a", reading.whole) == 1
    assert section.take("a", reading.whole) is None
    assert section.take("b", reading.whole) is None
    section.pass_over("d")
    section.leave_rest()
    section.leave_rest()
    assert remarks.lines() == [
        "here.b: not carried: write a number",
        "here.tags: not carried: there are no tags here: make a model for each set of providers",
    ]


def test_what_is_said_of_many_places_is_said_once():
    """One line for one thing, with the number of its places."""
    remarks = Remarks()
    for place in ("x[0]", "x[1]", "x[2]"):
        remarks.add(place, "tags", "not carried")
    assert remarks.lines() == ["x[0].tags (and in 2 more places): not carried"]
