"""Every decision and change has one sentence."""

import pytest

from langchain_resilient.demo.play import Told
from langchain_resilient.demo.words import change_words, decision_words, listed, news, percent, seconds
from langchain_resilient.engine.events import Refusal
from tests.demo.made import ANTHROPIC, OLLAMA, OPENAI, bad, changed, decision, ok

OPEN, BLOCKED = Refusal(OPENAI, "circuit_open"), Refusal(ANTHROPIC, "blocked")
LIMIT = bad(ANTHROPIC, "rate_limited", 429)


@pytest.mark.parametrize(
    ("made", "words", "brief"),
    [
        (decision(OPENAI, ok()), "openai answered", "openai answered"),
        (decision(ANTHROPIC, bad(), ok(ANTHROPIC)), "openai 503 → anthropic", "openai 503 → anthropic"),
        (
            decision(ANTHROPIC, bad(kind="timeout", status=None), ok(ANTHROPIC)),
            "openai gave no answer → anthropic",
            "openai gave no answer → anthropic",
        ),
        (
            decision(ANTHROPIC, ok(ANTHROPIC), refusals=(OPEN,)),
            "openai is open: anthropic answered",
            "openai open: anthropic",
        ),
        (
            decision(OLLAMA, ok(OLLAMA), refusals=(OPEN, BLOCKED)),
            "openai open, anthropic blocked: ollama answered",
            "openai open, anthropic blocked: ollama",
        ),
        (
            decision(OLLAMA, LIMIT, ok(OLLAMA), refusals=(OPEN,)),
            "openai is open: anthropic 429 → ollama",
            "openai open: anthropic 429 → ollama",
        ),
        (
            decision(ANTHROPIC, ok(ANTHROPIC), refusals=(Refusal(OPENAI, "rpm"),)),
            "openai is at its limit (rpm): anthropic answered",
            "openai at its limit (rpm): anthropic",
        ),
        (
            decision(ANTHROPIC, ok(ANTHROPIC)),
            "openai is being probed: anthropic answered",
            "openai being probed: anthropic",
        ),
        (decision(OPENAI, ok(probe=True)), "openai answered its probe", "openai answered its probe"),
        (
            decision(ANTHROPIC, bad(probe=True), ok(ANTHROPIC)),
            "openai 503 (probe) → anthropic",
            "openai 503 (probe) → anthropic",
        ),
        (
            decision(None, bad(), LIMIT, refusals=(Refusal(OLLAMA, "silent"),), outcome="failed"),
            "nobody answered: openai 503, anthropic 429, ollama is silent",
            "nobody answered: openai 503, anthropic 429, ollama silent",
        ),
        (decision(None, outcome="overloaded"), "too many were waiting", "too many were waiting"),
        (decision(OPENAI, ok(), outcome="interrupted"), "openai: the stream broke", "openai: the stream broke"),
    ],
)
def test_a_decision_in_words(made, words, brief):
    """Who was passed over and why, who failed and how, who answered."""
    assert decision_words(made) == words
    assert decision_words(made, brief=True) == brief


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (changed("closed", "open"), "circuit of openai opened (overloaded)"),
        (changed("closed", "open", "first_token"), "circuit of openai opened (slow answers)"),
        (changed("half_open", "open", "timeout"), "circuit of openai opened again (probe: no answer)"),
        (changed("open", "half_open", "probe"), "circuit of openai half-open: probing"),
        (changed("half_open", "closed", "ok"), "circuit of openai closed again"),
    ],
)
def test_a_change_in_words(made, words):
    """What the circuit does now, and why it opened."""
    assert change_words(made) == words


def test_equal_news_in_a_row_are_one_line():
    """Newest first, with how many there were and how long they took; other news in between keeps them apart."""
    told = [Told(float(at), decision(OPENAI, ok(), seconds=0.2 + at / 10)) for at in range(3)]
    told += [Told(3.0, changed("closed", "open")), Told(4.0, decision(OPENAI, ok(), seconds=0.25))]
    entries = news(told)
    assert [(entry.at, entry.mark, entry.text()) for entry in entries] == [
        (4.0, "·", "openai answered in 0.25 s"),
        (3.0, "×", "circuit of openai opened (overloaded)"),
        (2.0, "·", "openai answered ×3 in 0.20–0.40 s"),
    ]


def test_seconds_follow_the_words_as_a_sentence_does():
    """A trail ends with its time, an answer came in it, and nobody answered after it; briefly, there is the time alone."""
    made = [
        decision(ANTHROPIC, bad(), ok(ANTHROPIC)),
        decision(OPENAI, ok()),
        decision(None, bad(), outcome="failed"),
    ]
    told = [Told(0.0, each) for each in made]
    assert [entry.text() for entry in reversed(news(told))] == [
        "openai 503 → anthropic 0.38 s",
        "openai answered in 0.38 s",
        "nobody answered: openai 503 after 0.38 s",
    ]
    assert news(told[1:2], brief=True)[0].text() == "openai answered 0.38 s"


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, "–"),
        (0.0, "0.00 s"),
        (0.414, "0.41 s"),
        (9.994, "9.99 s"),
        (9.996, "10.0 s"),
        (99.96, "100 s"),
        (140.2, "140 s"),
    ],
)
def test_seconds(value, words):
    """Three digits are enough for a wait."""
    assert seconds(value) == words


@pytest.mark.parametrize(
    ("share", "words"), [(0.0, "0 %"), (0.004, "<1 %"), (0.5, "50 %"), (0.999, "99 %"), (1.0, "100 %"), (0.29, "29 %")]
)
def test_percent(share, words):
    """100 % is the whole and 0 % nothing: what is between is never called either."""
    assert percent(share) == words


def test_listed():
    """With commas, and "and" before the last."""
    assert [listed(words) for words in ([], ["a"], ["a", "b"], ["a", "b", "c"])] == ["", "a", "a and b", "a, b and c"]
