"""Where two parts of one answer meet: what of a continuation was said before, and is not shown again.

Rules of this file: pure, of plain strings, and in steps: a continuation comes in chunks, and none of it is shown before it is known where
it begins. What can't be joined is told (`ANEW`) rather than shown: a garbled text is worse than an interrupted one.

Two ways to ask for a continuation. A provider that takes a begun answer (prefill) goes on exactly behind it, save for white space at its
end, which APIs cut off. Any other is told in words, and told to begin with the *anchor*, the last part of what was shown: chat models start
with a capital letter rather than inside a word, and lose the blank before the next one, so a text that overlaps joins where one that does
not would not. The anchor occurs once in what was shown, so that one who starts again from the top can be told from one who repeats the
anchor, also where one word is repeated all the time.
"""

from __future__ import annotations

import re
from functools import cached_property
from typing import Literal

Surplus = int | Literal["anew"] | None
"""How many characters of a continuation repeat what was shown; None: that is not known yet."""
ANEW: Literal["anew"] = "anew"
"""It starts again from the top in other words, and no part of it fits behind what was shown."""

ANCHOR = 40
"""Characters that an anchor has at least, where so many were shown."""
SAME_START = 12
"""A continuation that has so many first characters in common with what was shown, and then differs, is a new answer."""
SURE_OVERLAP = 12
"""So many characters in common are no coincidence."""
PREAMBLE = 200
"""Characters that may stand before the anchor and are not shown: a fence, a quotation mark, "Here is the rest:", our own instruction."""
SENTENCE_ENDS = frozenset(".!?:;…。！？」\"'`)]}>*|-_#")
"""Characters behind which a capital letter may follow."""
TAIL = 400
"""How far back a repeated part may begin, other than at the anchor or at the top."""
_BLANK = re.compile(r"\s*")
OPEN, CLOSE = "<last_words>", "</last_words>"
INSTRUCTION = (
    "The connection broke in the middle of your last message. Write the rest of it, so that both parts read as one text.\n"
    "Begin by repeating, character for character, its last words, which stand here between two tags, and go straight on from there. Do not "
    f"write the tags, do not start again, do not comment on this.\n{OPEN}%s{CLOSE}"
)
"""How a provider that takes no begun answer is told to go on, with the anchor for `%s`."""


def anchor_of(shown: str) -> str:
    """The last part of what was shown, from the beginning of a word, that occurs in it only once.

    All of it, without white space in front, where it is short or repeats itself all the way.
    """
    length = ANCHOR
    while length < len(shown):
        start = _word_start(shown, len(shown) - length)
        anchor = shown[start:].lstrip()
        if anchor and shown.find(anchor) == shown.rfind(anchor):
            return anchor
        length *= 2
    return shown.lstrip()


def _word_start(text: str, at: int) -> int:
    """The beginning of the word at a place, if that is near: some scripts have no blanks."""
    start = at
    while start > 0 and at - start < ANCHOR and not text[start - 1].isspace():
        start -= 1
    return start if start == 0 or text[start - 1].isspace() else at


class Seam:
    """Tells how much of a continuation was said before.

    Args:
        shown: What the caller has seen.
        anchor: What the provider was told to begin with; None: it was given what was shown as the beginning of its answer.
    """

    def __init__(self, shown: str, anchor: str | None) -> None:
        self._shown = shown
        self._instructed = anchor is not None
        self._lost = shown[len(shown.rstrip()) :]
        """The white space that it ends with."""
        self._anchor = (anchor or "").strip()
        self._first = _Match(self._lost if anchor is None else anchor)
        self._top = _Match(shown)

    def surplus(self, said: str, *, ended: bool) -> Surplus:
        """How many of the first characters of `said` repeat what was shown.

        Args:
            said: All that the continuation has said so far; it only ever grows.
            ended: Whether no more will come, so that the answer may not be None.
        """
        if not self._instructed:
            return self._after_prefill(said, ended=ended)
        by_anchor = self._first.of(said, ended=ended)
        if by_anchor is None or by_anchor >= 0:
            return by_anchor
        from_top = self._top.of(said, ended=ended)
        if from_top is None or from_top >= 0:
            return from_top
        return self._elsewhere(said, ended=ended)

    def _after_prefill(self, said: str, *, ended: bool) -> Surplus:
        """Exact but for white space; where the API took the message and its model starts again all the same, that is unmistakable."""
        if len(self._shown) >= ANCHOR:
            from_top = self._top.of(said, ended=ended)
            again = self._top.matched == len(self._shown) and not _repeats_itself(self._shown)
            if from_top is None or again:
                return from_top
        return self._first.of(said, ended=ended)

    def _elsewhere(self, said: str, *, ended: bool) -> Surplus:
        """It begins neither with the anchor nor at the top: with some other last part, or with nothing said before."""
        found = self._anywhere.search(said, 0, PREAMBLE + 3 * len(self._anchor))
        if found is not None:
            return _past(self._lost, said, found.end(), ended=ended)
        lead = len(said) - len(said.lstrip())
        words = said[lead:]
        tail = self._shown[-TAIL:]
        speaks_up = not words[:1].islower()  # as one who has something to say first, and the anchor may follow
        if not ended and (words in tail or (speaks_up and len(words) < PREAMBLE)):
            return None
        overlap = next((size for size in range(min(len(words), len(tail)), 0, -1) if tail.endswith(words[:size])), 0)
        if overlap >= SURE_OVERLAP or (overlap > 1 and _completes_a_word(tail, words, overlap)):
            return lead + overlap
        if len(words) >= SURE_OVERLAP and words in tail:
            return ANEW  # it only said again what it was to go on behind
        in_sentence = self._shown.rstrip()[-1:] not in SENTENCE_ENDS
        return ANEW if self._top.matched >= SAME_START or (words[:1].isupper() and in_sentence) else 0

    @cached_property
    def _anywhere(self) -> re.Pattern[str]:
        """The anchor in any case, with any white space between its words."""
        return re.compile(r"\s+".join(map(re.escape, self._anchor.split())), re.IGNORECASE)


def _completes_a_word(tail: str, words: str, overlap: int) -> bool:
    """Whether what was shown ends inside a word, which the continuation says again as a whole."""
    at = len(tail) - overlap
    return tail[-1].isalnum() and words[overlap : overlap + 1].isalnum() and (at == 0 or not tail[at - 1].isalnum())


def _repeats_itself(text: str) -> bool:
    """Whether it consists of one part, said twice or more: its next words may then well be its first ones."""
    # The prefix function of Knuth, Morris and Pratt, "Fast pattern matching in strings" (1977): the shortest period is n - border.
    borders = [0] * len(text)
    for place in range(1, len(text)):
        size = borders[place - 1]
        while size and text[place] != text[size]:
            size = borders[size - 1]
        borders[place] = size + (text[place] == text[size])
    return 2 * (len(text) - borders[-1]) <= len(text)


class _Match:
    """Compares a growing text with one that it may begin with, whatever kind of white space stands between words."""

    __slots__ = ("_at", "_expected", "_failed", "_read")

    def __init__(self, expected: str) -> None:
        self._expected = expected
        self._at = 0
        self._read = 0
        self._failed = False

    @property
    def matched(self) -> int:
        """Characters that agree."""
        return self._at

    def of(self, said: str, *, ended: bool) -> int | None:
        """How many characters of `said` say what was expected; -1: it says something else; None: too little was said."""
        expected = self._expected
        if self._failed:
            return -1
        if self._at == 0 and expected and not expected[0].isspace():
            self._read = len(said) - len(said.lstrip())
        while self._at < len(expected):
            if expected[self._at].isspace():
                blank, said_blank = _blank(expected, self._at), _blank(said, self._read)
                if self._read + len(said_blank) == len(said) and not ended and not said_blank.startswith(blank):
                    return None
                self._at += len(blank)
                if self._at == len(expected):
                    self._read += _surplus_blank(blank, said_blank)
                elif said_blank or self._read == len(said):
                    self._read += len(said_blank)
                else:
                    self._at -= len(blank)
                    return self._fail()
            elif self._read == len(said):
                # One who said part of it and ended is not through; one who said nothing at all had nothing to add.
                return self._fail() if ended else None
            elif said[self._read] != expected[self._at]:
                return self._fail()
            else:
                self._at += 1
                self._read += 1
        return self._read

    def _fail(self) -> int:
        self._failed = True
        return -1


def _past(blank: str, said: str, at: int, *, ended: bool) -> int | None:
    """Where what is new begins, behind a place and the white space that was shown there already; None: too little was said."""
    said_blank = _blank(said, at)
    if at + len(said_blank) == len(said) and not ended and not said_blank.startswith(blank):
        return None
    return at + _surplus_blank(blank, said_blank)


def _surplus_blank(blank: str, said_blank: str) -> int:
    """How much of some white space was shown already, as `blank`: where they differ, all before the first line break that is new."""
    if said_blank.startswith(blank):
        return len(blank)
    new_line = -1 if "\n" in blank else said_blank.find("\n")
    return len(said_blank) if new_line < 0 else new_line


def _blank(text: str, start: int) -> str:
    """The white space that begins at a place."""
    found = _BLANK.match(text, start)
    return found[0] if found else ""
