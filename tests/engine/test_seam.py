"""Where two parts of one answer meet: what was said before is found, and nothing else is taken away."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langchain_resilient.engine.seam import ANCHOR, ANEW, Seam, anchor_of

FOX = "The quick brown fox jumps over the lazy dog, and the dog does not mind at all."
REPEATED = ("ha ", "buffalo ", "all work and no play makes Jack a dull boy.\n", "水", "🇩🇪", "a", "- [ ] \n", "\n")
TEXTS = st.one_of(
    st.text(min_size=1, max_size=200),
    st.text(alphabet="ab \n", min_size=1, max_size=200),
    st.builds(str.__mul__, st.sampled_from(REPEATED), st.integers(1, 40)),
)
"""Texts of any kind, and above all those that repeat themselves."""


def told(seam: Seam, said: str, size: int = 3) -> tuple[object, str]:
    """What a seam says of a continuation that comes in pieces, and how much of it came before it said so."""
    for end in range(size, len(said), size):
        surplus = seam.surplus(said[:end], ended=False)
        if surplus is not None:
            return surplus, said[:end]
    return seam.surplus(said, ended=True), said


def joined(shown: str, said: str, anchor: str | None, size: int = 3) -> str:
    """Both parts as the caller sees them."""
    surplus, _ = told(Seam(shown, anchor), said, size)
    assert isinstance(surplus, int)
    return shown + said[surplus:]


# ------------------------------------------------------------------------------------------------------------ the anchor
def test_an_anchor_is_the_last_words():
    """At least 40 characters, from the beginning of a word."""
    assert anchor_of(FOX) == "lazy dog, and the dog does not mind at all."
    assert anchor_of("Short.") == "Short."
    assert anchor_of("\n\n Short. ") == "Short. "
    assert anchor_of("水" * 10 + "の" * 50) == "水" * 10 + "の" * 50


@given(TEXTS)
def test_an_anchor_occurs_once(text: str):
    """It ends what was shown and stands nowhere else in it, or it is all of it."""
    anchor = anchor_of(text)
    assert text.endswith(anchor)
    assert anchor == text.lstrip() or (text.find(anchor) == text.rfind(anchor) and len(anchor) >= ANCHOR // 2)


# -------------------------------------------------------------------------------------------------- providers that obey
@given(TEXTS, st.integers(0, 200), st.integers(1, 12))
def test_one_who_begins_with_the_anchor(text: str, cut: int, size: int):
    """No character is lost or doubled, wherever the text was cut, also where it repeats itself all the time."""
    shown = text[:cut]
    if not shown.strip():
        return
    anchor = anchor_of(shown)
    assert joined(shown, anchor + text[cut:], anchor, size) == text


@given(TEXTS, st.integers(0, 200), st.integers(1, 12))
def test_one_who_starts_again_from_the_top(text: str, cut: int, size: int):
    """Told to begin with the anchor, it says the same answer again: what was shown is not shown twice."""
    shown = text[:cut]
    if not shown.strip() or text[0].isspace():
        return
    assert joined(shown, text, anchor_of(shown), size) == text


@given(TEXTS, st.integers(0, 200), st.integers(1, 12))
def test_one_who_was_given_the_beginning(text: str, cut: int, size: int):
    """A provider that takes a begun answer goes on behind it; the white space that its API cut off comes again."""
    shown = text[:cut]
    if not shown.strip() or text[cut:].startswith(shown):
        return
    assert joined(shown, text[len(shown.rstrip()) :], None, size) == text


@pytest.mark.parametrize("word", ["ha ", "a", "水"])
@pytest.mark.parametrize("times", [1, 2, 3, 20, 21])
def test_one_word_repeated_after_a_beginning_that_was_taken(word: str, times: int):
    """Its next words are the first ones again, and yet it has not started again."""
    text = word * 50
    assert joined(word * times, text[len((word * times).rstrip()) :], None) == text


def test_one_who_takes_the_beginning_and_starts_again_all_the_same():
    """Where that is unmistakable what was shown is not shown twice: 40 characters that do not repeat themselves."""
    assert joined(FOX[:45], FOX, None) == FOX


# ---------------------------------------------------------------------------------------------- providers that do not obey
@pytest.mark.parametrize("cut", range(20, len(FOX), 7))
def test_one_who_goes_straight_on(cut: int):
    """Without a word of what it was told to repeat: then everything is new."""
    assert joined(FOX[:cut], FOX[cut:], anchor_of(FOX[:cut])) == FOX


@pytest.mark.parametrize("back", [12, 20, 33])
def test_one_who_repeats_another_last_part(back: int):
    """Some words before the break, but not those that it was told to repeat."""
    shown = FOX[:60]
    assert joined(shown, FOX[60 - back :], anchor_of(shown)) == FOX


def test_one_who_says_the_broken_word_again():
    """Cut inside a word, it begins with that word."""
    shown = FOX[:13]
    assert shown.endswith("bro")
    assert joined(shown, FOX[10:], anchor_of(shown)) == FOX


@pytest.mark.parametrize("before", ["\n", "\n\n", " "])
def test_white_space_in_front_of_the_anchor_is_dropped(before: str):
    """Models like to begin with an empty line."""
    anchor = anchor_of(FOX[:60])
    assert joined(FOX[:60], before + anchor + FOX[60:], anchor) == FOX


def test_the_kind_of_white_space_between_words_does_not_matter():
    """A line break where there was a blank is still the same words; what is new is shown as it came."""
    anchor = anchor_of(FOX[:60])
    said = anchor.replace(" ", "\n") + FOX[60:].replace(" ", "  ")
    assert joined(FOX[:60], said, anchor) == FOX[:60] + FOX[60:].replace(" ", "  ")


def test_a_new_answer_is_told_and_not_shown():
    """It has the first words in common with what was shown, and then says something else."""
    seam = Seam(FOX, anchor_of(FOX))
    surplus, read = told(seam, "The quick brown cat sleeps.")
    assert surplus == ANEW
    assert len(read) <= 27


@pytest.mark.parametrize(
    "before",
    [
        "Here is the rest:\n\n",
        "```\n",
        '"',
        "…",
        "<last_words>",
        "Sure! Continuing: ",
        "The connection broke in the middle. ",
    ],
)
def test_what_is_said_before_the_anchor_is_not_shown(before):
    """A greeting, a fence, our own tag: the answer goes on behind the anchor."""
    anchor = anchor_of(FOX[:60])
    assert joined(FOX[:60], before + anchor + FOX[60:], anchor) == FOX
    assert joined(FOX[:60], before + anchor.upper() + FOX[60:], anchor) == FOX


@pytest.mark.parametrize("said", ["Sorry, I can't help with that.", "Rain is water that falls.", "Here is a poem."])
def test_another_answer_in_mid_sentence_is_told_and_not_shown(said):
    """A sentence does not begin inside a sentence."""
    assert told(Seam(FOX[:60], anchor_of(FOX[:60])), said)[0] == ANEW


def test_one_who_has_nothing_to_add():
    """The text was complete, only its end was lost."""
    anchor = anchor_of(FOX)
    assert [joined(FOX, said, anchor) for said in ("", anchor, FOX)] == [FOX] * 3
    assert joined(FOX, "", None) == FOX


def test_one_who_ends_within_what_was_shown_is_not_through():
    """Half of the anchor, or of what was shown, and then the end: no text is told to be complete that is not."""
    shown = FOX[:60]
    anchor = anchor_of(shown)
    assert [told(Seam(shown, anchor), said)[0] for said in (anchor[:20], shown[:30])] == [ANEW, ANEW]


def test_a_new_line_is_kept():
    """Where the white space at the seam is of another kind, what is new of it begins with its line break."""
    assert joined("line one\r", "\n two", None) == "line one\r\n two"
    assert joined("line one ", "\n two", None) == "line one \n two"


def test_white_space_without_end_takes_no_time_without_end():
    """A model stuck in blanks: 100 kB in chunks of five characters."""
    shown = FOX + " " * 100_000
    seam, said = Seam(shown, None), ""
    for _ in range(20_000):
        said += " " * 5
        seam.surplus(said, ended=False)
    assert seam.surplus(said + "x", ended=True) == 100_000


def test_an_end_that_looks_like_the_beginning():
    """What was given to a provider as its beginning, it need not repeat: its last words are new, even if they were the first."""
    shown = FOX[:60]
    for said in ("\n", "The quick", shown[:-1]):
        assert joined(shown, said, None) == shown + said


def test_it_is_told_as_soon_as_it_is_known():
    """A caller does not wait for more than the anchor, or the first words that differ."""
    shown = FOX[:60]
    anchor = anchor_of(shown)
    assert told(Seam(shown, anchor), anchor + FOX[60:], size=1)[1] in {anchor, anchor + FOX[60]}
    assert len(told(Seam(shown, anchor), FOX[60:], size=1)[1]) <= 12
    assert told(Seam(shown, None), FOX[60:], size=1)[1] == FOX[60]
