"""The summary says what the numbers are, whatever they are, and fits where it is shown."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langchain_resilient.demo.contenders import BARE, FALLBACKS, NAMES, OURS
from langchain_resilient.demo.findings import circuits, failures, headline, healing, openings, stopped, waits
from langchain_resilient.demo.summary import as_dict, as_text, summary
from langchain_resilient.demo.words import LABELS
from tests.demo.made import (
    AFTERNOON,
    ANTHROPIC,
    DOWN,
    OPENAI,
    RESULTS,
    answered,
    changed,
    drawn,
    failed,
    fits,
    result,
    score,
)

TEXT = """\
4 of 4 questions answered; the bare client answered 2 and with_fallbacks answered 4.
Of 100 users 99 waited no longer than 0.50 s with ResilientChatModel (1 call wasted), 2.50 s with
the bare client (6 calls wasted) and 0.90 s with with_fallbacks (2 calls wasted).

in all              asked  answered in full  failed  p50 wait  p99 wait  calls  wasted
bare client             4                 2       2    0.30 s    2.50 s      8       6
with_fallbacks          4                 4       0    0.30 s    0.90 s      6       2
ResilientChatModel      4                 4       0    0.30 s    0.50 s      5       1

answered of asked, p99 wait                            bare client   with_fallbacks             ours
 1:59 PM  all is well                                  1/1  0.30 s      1/1  0.30 s      1/1  0.30 s
 2:00 PM  openai answers 503                           0/2  2.50 s      2/2  0.90 s      2/2  0.50 s
 2:10 PM  all is well again                            1/1  0.30 s      1/1  0.30 s      1/1  0.25 s

2 failures of the bare client: 1 × overloaded and 1 × timeout.
The circuit of openai opened at 6.20 s (overloaded), let probes through 2 times, and was open until
12.0 s.
openai was well again at 10.0 s: a user had an answer of it 1.25 s later and its circuit closed
2.00 s later.

"""


@given(RESULTS, st.integers(30, 220), st.sampled_from(["utf-8", "ascii"]))
def test_no_result_overflows_a_terminal_and_all_counts_are_on_it(found, width, encoding):
    """Any result at any width: no line too wide; what was asked, answered and failed of each contender."""
    lines = drawn(summary(found, width=width), width, encoding=encoding)
    assert fits(lines, width)
    heads = [index for index, line in enumerate(lines) if line.split()[:2] in (["asked", "ok"], ["in", "all"])]
    assert len(heads) == bool(found.scores)
    lines = lines[heads[0] :] if heads else []
    for name, each in zip(NAMES, found.scores, strict=False):
        row = next(line for line in lines if line.startswith((f"{name} ", f"{LABELS[name]} ")))
        counts = row.replace(name, "").replace(LABELS[name], "").split()
        assert counts[:3] == [str(n) for n in (each.figures.asked, each.figures.answered, each.figures.failed)]


@given(RESULTS)
def test_every_result_is_json(found):
    """Nothing in it that a program could not read again, and nothing lost on the way."""
    document = json.loads(json.dumps(as_dict(found), allow_nan=False))
    assert document == as_dict(found)
    assert [len(each["questions"]) for each in document["contenders"]] == [len(each.fates) for each in found.scores]
    assert len(document["circuits"]) == len(found.changes)


@given(RESULTS)
def test_the_text_has_100_columns_and_no_blanks_at_the_ends(found):
    """It goes into a code block as it is."""
    lines = as_text(found).split("\n")
    assert fits(lines, 100)
    assert all(line == line.rstrip() for line in lines)


def test_the_text():
    """Headline, totals, phases, failures, circuits; then the small print."""
    text = as_text(result())
    assert text.startswith(TEXT)
    small = " ".join(text.removeprefix(TEXT).split())
    for words in ("seed 7", "same limit of 2.5 s", "servers have logged", "two retries", "recovery_timeout 2.5 s"):
        assert words in small


@pytest.mark.parametrize("width", [100, 80, 60, 40])
def test_phases_keep_their_titles_and_figures_at_every_width(width):
    """Where a line is too short, the title gets one of its own, or the contenders do."""
    lines = drawn(summary(result(), width=width), width)
    words = " ".join(" ".join(lines).split())
    assert "2:00 PM openai answers 503" in words
    assert "0/2 2.50 s" in words and "2/2 0.90 s" in words and "2/2 0.50 s" in words


def test_a_long_title_is_broken_and_not_cut():
    """Between words, below itself; the figures stay on its first line."""
    phases = (
        AFTERNOON.phases[0]._replace(title="openai accepts requests and never answers anybody again"),
        *AFTERNOON.phases[1:],
    )
    lines = as_text(result(afternoon=AFTERNOON._replace(phases=phases))).split("\n")
    at = next(index for index, line in enumerate(lines) if "openai accepts" in line)
    assert "1/1" in lines[at]
    assert lines[at + 1].strip() == "answers anybody again"


# ── sentences ────────────────────────────────────────────────────────────────────────────────────────────────────────


def of(ours, **values):
    """A result in which the others have answered one question each."""
    other = [answered(0, 1.0)]
    return result(scores=(score(BARE, other), score(FALLBACKS, other), ours), **values)


def test_the_headline_says_what_we_failed():
    """Failures of ours, and questions without an answer, are in the first sentence."""
    fates = [answered(0, 1.0), failed(1, 6.0)]
    others = "the bare client answered 1 and with_fallbacks answered 1."
    assert headline(of(score(OURS, fates[:1]))) == f"1 of 1 questions answered; {others}"
    assert headline(of(score(OURS, fates))) == f"1 of 2 questions answered (1 failed); {others}"
    assert headline(of(score(OURS, fates, waiting=3))) == (
        f"1 of 5 questions answered (1 failed and 3 had no answer yet); {others}"
    )


def test_the_headline_of_nothing():
    """Stopped before the first question, there is nothing to praise."""
    assert headline(result(scores=(), seconds=0.0)) == "Nothing was asked: the play was stopped after 0.00 s."
    assert headline(of(score(OURS, []), seconds=0.3)) == "Nothing was asked: the play was stopped after 0.30 s."
    assert as_text(result(scores=(), seconds=0.0, complete=False)).startswith("Nothing was asked")


def test_a_play_that_was_stopped_says_so():
    """After how many seconds of how many; a complete one says nothing."""
    assert stopped(result()) is None
    assert stopped(result(complete=False, seconds=12.34)) == (
        "Stopped after 12.3 s of 20 s: the numbers are of what was asked until then."
    )
    assert "Stopped after 12.3 s" in as_text(result(complete=False, seconds=12.34))


def test_who_waits_has_a_column_only_if_somebody_does():
    """A complete play has nobody left."""
    assert "waiting" not in as_text(result())
    assert "waiting" in as_text(of(score(OURS, [answered(0, 1.0)], waiting=2), complete=False))


def test_waits_are_of_those_that_are_over():
    """A contender that nobody has heard of yet is not praised for it."""
    assert waits(result(scores=(score(OURS, [], waiting=3),))) is None
    said = waits(of(score(OURS, [], waiting=3)))
    assert OURS not in said and "the bare client (0 calls wasted)" in said


def test_failures_are_named_by_kind():
    """The most frequent first; who failed nothing is not named."""
    ours = score(OURS, [failed(0, 1.0)] * 4, errors={"timeout": 1, "cut short": 3})
    assert failures(of(ours)) == ["4 failures of ResilientChatModel: 3 × cut short and 1 × timeout."]


def test_openings_go_from_closed_to_closed():
    """A circuit that tries and opens again has not closed in between; one that never closes is open to the end."""
    changes = [
        (1.0, changed("closed", "open", "timeout")),
        (2.0, changed("open", "half_open", "probe")),
        (2.5, changed("closed", "open", provider=ANTHROPIC)),
        (3.0, changed("half_open", "open")),
        (4.0, changed("open", "half_open", "probe")),
        (5.0, changed("half_open", "closed", "ok")),
        (6.0, changed("closed", "open")),
    ]
    assert openings(changes) == (
        (OPENAI, 1.0, "timeout", 2, 5.0),
        (ANTHROPIC, 2.5, "overloaded", 0, None),
        (OPENAI, 6.0, "overloaded", 0, None),
    )
    told = circuits(result(changes=tuple(changes), seconds=9.0))
    assert told == [
        "The circuit of openai opened at 1.00 s (no answer), let probes through 2 times, and was open until 5.00 s.",
        "The circuit of anthropic opened at 2.50 s (overloaded), let probes through 0 times, and was still not closed at the end.",
        "The circuit of openai opened at 6.00 s (overloaded), let probes through 0 times, and was still not closed at the end.",
    ]
    assert "when the play was stopped" in circuits(result(changes=tuple(changes), complete=False))[-2]


def test_no_circuit_opened():
    """Nothing happened is a finding too."""
    assert circuits(result(changes=(), seconds=9.0)) == ["No circuit opened."]


def test_healing_counts_from_the_end_of_the_last_trouble():
    """To the first answer to a question asked since, and to the end of the opening that was on."""
    assert healing(result()) == (OPENAI, 10.0, 2.0, 1.25)
    # Closed long before, and open again long after: neither has to do with the recovery.
    changes = ((6.0, changed("closed", "open")), (7.0, changed("half_open", "closed")), (12.0, changed("closed", "open")),
               (13.0, changed("half_open", "closed")))  # fmt: skip
    assert healing(result(changes=changes)).closed is None


def test_answers_to_older_questions_and_of_others_are_not_the_healed_ones():
    """What was asked before may have been answered by anybody."""
    fates = [answered(0, 9.0, 2.0), answered(1, 10.5, 0.5, ANTHROPIC), failed(2, 11.0), answered(3, 12.0, 0.5)]
    assert healing(of(score(OURS, fates))).used == 2.5
    assert healing(of(score(OURS, fates[:3]), changes=())) == (OPENAI, 10.0, None, None)
    assert circuits(of(score(OURS, fates[:3]), changes=()))[-1] == (
        "openai was well again at 10.0 s: nobody has had an answer of it since."
    )


def test_no_healing_where_none_was_seen():
    """Never in trouble, still in trouble, or stopped before."""
    well, down, again = AFTERNOON.phases
    assert healing(result(afternoon=AFTERNOON._replace(phases=(well, again)))) is None
    assert healing(result(afternoon=AFTERNOON._replace(phases=(well, down)))) is None
    assert healing(result(afternoon=AFTERNOON._replace(phases=(well, down, again, down)))) is None
    assert healing(result(seconds=10.0)) is None


# ── for programs ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_document():
    """Each part under its documented name."""
    document = as_dict(result())
    assert {key: document[key] for key in ("seed", "complete", "seconds")} == {
        "seed": 7,
        "complete": True,
        "seconds": 21.0,
    }
    assert document["headline"] == headline(result())
    assert document["settings"]["providers"][1] == {
        "name": ANTHROPIC, "seconds": 0.35, "seconds_between_words": 0.03,
    }  # fmt: skip
    assert {name: value for name, value in document["settings"].items() if name != "providers"} == {
        "questions_per_second": 8.0, "attempt_limit": 2.5, "slow": 1.0, "recovery_timeout": 2.5, "window": 5.0,
        "max_retry_after": 2.0,
    }  # fmt: skip
    assert document["phases"][1] == {
        "clock": "2:00 PM", "title": "openai answers 503", "begin": 5.0, "end": 10.0,
        "conditions": {OPENAI: DOWN.word, ANTHROPIC: "healthy"},
    }  # fmt: skip
    assert document["circuits"][1] == {
        "at": 8.7, "provider": OPENAI, "before": "open", "after": "half_open", "reason": "probe",
    }  # fmt: skip


def test_a_contender_in_the_document():
    """Figures of all and by phase, calls, outcomes, errors, and every question's fate."""
    bare = as_dict(result())["contenders"][0]
    assert {key: bare[key] for key in ("name", "asked", "answered", "failed", "waiting", "p50", "p99", "wasted")} == {
        "name": BARE, "asked": 4, "answered": 2, "failed": 2, "waiting": 0, "p50": 0.3, "p99": 2.5, "wasted": 6,
    }  # fmt: skip
    assert bare["calls"] == {OPENAI: 8, ANTHROPIC: 0}
    assert bare["outcomes"] == {OPENAI: {"ok": 4}, ANTHROPIC: {}}
    assert bare["errors"] == {"timeout": 1, "overloaded": 1}
    assert bare["phases"][1] == {"asked": 2, "answered": 0, "failed": 2, "waiting": 0, "p50": 2.5, "p99": 2.5}
    assert bare["questions"][1] == {"number": 1, "at": 6.0, "seconds": 2.5, "provider": None, "error": "timeout"}


def test_every_key_is_documented():
    """The docstring of `as_dict` names each key that it gives."""

    def keys(value):
        if isinstance(value, dict):
            for key, inner in value.items():
                yield key
                yield from keys(inner)
        elif isinstance(value, list):
            for inner in value:
                yield from keys(inner)

    named = set(as_dict.__doc__.replace(",", " ").replace(":", " ").replace(";", " ").replace(")", " ").split())
    by_provider_or_kind = {OPENAI, ANTHROPIC, "ok", "timeout", "overloaded"}
    assert set(keys(as_dict(result()))) - by_provider_or_kind <= named
