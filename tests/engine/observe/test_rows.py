"""What is counted of each event, by which words."""

import ast
from pathlib import Path
from typing import get_args

import pytest

import langchain_resilient
from langchain_resilient.engine.classify import ErrorKind
from langchain_resilient.engine.events import AdmissionRefused, Event, RateLimited, Refusal
from langchain_resilient.engine.observe.prometheus import PrometheusObserver
from langchain_resilient.engine.observe.rows import (
    COUNTERS,
    KINDS,
    LETTER_KINDS,
    OUTCOMES,
    REASONS,
    ROWS,
    UNCOUNTED,
    Few,
)

SOURCES = sorted(Path(langchain_resilient.__file__).parent.glob("engine/**/*.py"))


@pytest.mark.parametrize("kind", get_args(Event), ids=lambda kind: kind.__name__)
def test_every_event_is_counted_or_excused(kind):
    """One or the other, and never both: a new event fails here until somebody has decided."""
    assert (kind in PrometheusObserver.events) is not (kind in UNCOUNTED)
    assert kind not in UNCOUNTED or len(UNCOUNTED[kind]) > 20, "an excuse says why"


def test_nothing_else_is_counted_or_excused():
    """What is no event any more leaves no row behind."""
    assert PrometheusObserver.events | set(UNCOUNTED) == set(get_args(Event))
    assert set(ROWS) <= PrometheusObserver.events


def literals(*names):
    """Every string that the engine gives to a call of one of these names as its second argument, or as `decide`'s first."""
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
            at = 0 if name == "decide" else 1
            if name in names and len(node.args) > at:
                yield from (
                    it.value
                    for it in ast.walk(node.args[at])
                    if isinstance(it, ast.Constant) and it.value != "half_open"
                )


def test_the_engines_own_words_are_known():
    """Each reason and outcome that the engine writes is in its vocabulary, or it would be counted as "other"."""
    reasons, outcomes = set(literals("Refusal", "block")), set(literals("decide"))
    assert {"forced_open", "line", "unwell", "auth"} <= reasons <= set(REASONS)
    assert {"answered", "overloaded", "cancelled"} <= outcomes <= set(OUTCOMES)


def test_every_kind_of_error_is_a_word():
    """As a plain string, whichever it was given as."""
    assert set(KINDS) == {"ok", *map(str, ErrorKind)}
    assert all(type(word) is str for word in (*KINDS.values(), *LETTER_KINDS.values()))
    assert type(KINDS[ErrorKind.TIMEOUT]) is str
    assert {"refused", "deadline", "timeout"} <= set(LETTER_KINDS)


def test_rows_fit_their_counters():
    """A row has a value for each label of its counter."""
    event = RateLimited("a", "client", "rpm", "free")
    refused = AdmissionRefused((Refusal("a", "rpm"), Refusal("b", "nonsense")))
    rows = [*ROWS[RateLimited](event), *ROWS[AdmissionRefused](refused)]
    assert rows == [
        ("rate_limited", "a", "client", "rpm"),
        ("rate_limit_hits", "free"),
        ("admission_refusals", "a", "rpm"),
        ("admission_refusals", "b", "other"),
    ]
    assert all(len(COUNTERS[key].labels) == len(labels) for key, *labels in rows)


def test_few_words_are_let_through():
    """The first ones, always; later ones never."""
    few = Few(2)
    assert [few(word) for word in "abcacb"] == ["a", "b", "other", "a", "other", "b"]
