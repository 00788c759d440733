"""Scenes in words."""

import pytest

from langchain_resilient.cli.foretold import EXAMPLES, Row, as_dict, tables, told
from langchain_resilient.cli.rehearsal import OWN_ERROR, Act, Case, Scene
from langchain_resilient.engine.classify import ErrorKind
from langchain_resilient.engine.events import Attempt

CALM = {"blocked_for": None, "blocked_after": 1, "opens_after": None, "opens_for": None}


def scene(*attempts: tuple, by: str | None = None, gets: str | None = None, **more) -> Scene:
    """A scene of (provider, wait) attempts."""
    made = tuple(Attempt(name, "overloaded", 0.0, wait) for name, wait in attempts)
    return Scene(made, by, gets, **(CALM | more))


WORDS = {
    "b answers": scene(("a", 0), ("b", 0), by="b"),
    "asked again once after up to 0.5 s; then b answers": scene(("a", 0), ("a", 0.5), ("b", 0), by="b"),
    "asked again once at once; then b answers": scene(("a", 0), ("a", 0), ("b", 0), by="b"),
    "asked again 3 times after up to 0.5 s, 1 s and 2 s; then AllProvidersFailedError": scene(
        ("a", 0), ("a", 0.5), ("a", 1.0), ("a", 2.0), gets="AllProvidersFailedError"
    ),
    "asked again twice after up to 61 s; then its error as it is": scene(
        ("a", 0), ("a", 61), ("a", 61), gets=OWN_ERROR
    ),
    "the caller gets its error as it is": scene(("a", 0), gets=OWN_ERROR),
    "the caller gets StreamInterruptedError": scene(("a", 0), gets="StreamInterruptedError"),
    "b answers; left alone for 5 min": scene(("a", 0), ("b", 0), by="b", blocked_for=300.0),
    "b answers; left alone for 5 min from the 3rd in a row on": scene(
        ("a", 0), ("b", 0), by="b", blocked_for=300.0, blocked_after=3
    ),
    "b answers; circuit opens after 5 in a row, for up to 66 s": scene(
        ("a", 0), ("b", 0), by="b", opens_after=5, opens_for=65.99
    ),
    "it is never asked": scene(),
}


@pytest.mark.parametrize("words", WORDS)
def test_a_scene_is_one_sentence(words: str):
    """What happened is told in its order: asked again, who answers or what the caller gets, and what is remembered of it."""
    assert told(WORDS[words]) == words


def test_every_kind_has_an_example():
    """People know a kind by what it looks like: each but a caller's own cancellation has an example."""
    assert {str(kind) for kind in ErrorKind} - set(EXAMPLES) == {"cancelled"}


def acts(*names: str, different: str = "") -> list[Act]:
    """Two kinds at each provider, the next of which answers; one provider's may be left alone."""
    found = []
    for name, after in zip(names, (*names[1:], None), strict=True):
        blocked = {"blocked_for": 60.0} if name == different else {}
        for kind in (ErrorKind.NOT_FOUND, ErrorKind.UNKNOWN):
            beside = None if after is None else scene((name, 0), (after, 0), by=after, **blocked)
            found.append(Act(name, Case(kind), beside, scene((name, 0), gets="AllProvidersFailedError")))
    return found


def test_what_leads_to_the_same_stands_together():
    """Failures with one outcome are one row, providers with one outcome one table, and the next provider needs no name."""
    beside, alone = tables(acts("a", "b", "c"))
    assert beside.title == "If a or b fails"
    both = (("not_found", "404"), ("unknown", "anything else"))
    assert beside.rows == (Row(both, "the next one answers"),)
    assert alone.title == "If any of them fails, and nobody else can be asked"
    assert alone.rows == (Row(both, "the caller gets AllProvidersFailedError"),)


def test_what_differs_stands_apart():
    """A provider with settings of its own has a table of its own."""
    titles = [table.title for table in tables(acts("a", "b", "c", different="b"))]
    assert titles == ["If a fails", "If b fails", "If any of them fails, and nobody else can be asked"]


def test_a_single_provider_has_one_table():
    """With one provider there is nothing to tell apart."""
    assert [table.title for table in tables(acts("a"))] == ["If a fails"]


def test_somebody_unusual_who_answers_is_named():
    """Where another than the usual next provider answers, the row says who."""
    odd = Act("a", Case(ErrorKind.CONTEXT_OVERFLOW), scene(("a", 0), ("c", 0), by="c"), scene(("a", 0), gets=OWN_ERROR))
    beside, _ = tables([*acts("a", "b", "c")[:2], odd])[:2]
    assert [row.leads_to for row in beside.rows] == ["the next one answers", "c answers"]


def test_a_document_names_everything():
    """The JSON of a failure has the attempts, the names and the sentence."""
    content = as_dict(acts("a", "b")[0])
    assert (content["provider"], content["kind"], content["example"]) == ("a", "not_found", "404")
    assert content["others_answer"]["answered_by"] == "b"
    assert content["others_answer"]["in_words"] == "b answers"
    assert content["others_answer"]["attempts"][1] == {"provider": "b", "kind": "overloaded", "wait": 0}
    assert as_dict(acts("a")[0])["others_answer"] is None
