"""The words are told apart: a table that contradicts another is found here, not in an outage."""

from __future__ import annotations

from langchain_resilient.engine.classify import tables
from langchain_resilient.engine.classify.kinds import ErrorKind


def test_a_word_stands_in_one_table():
    """A code or a class has one meaning, and codes and needles are in lower case, as they are compared."""
    assert tables.SHARP_CODES.keys().isdisjoint(tables.PLAIN_CODES)
    assert tables.SHARP_CLASSES.keys().isdisjoint(tables.LOOSE_CLASSES)
    assert tables.TRANSPORT.keys().isdisjoint(tables.LOOSE_TRANSPORT)
    needles = [needle for _, _, group in tables.NEEDLES for needle in group]
    needles += [*tables.LOCAL_NEEDLES, *tables.MALFORMED_NEEDLES, *tables.GEMINI_QUOTA, tables.OUT_OF_QUOTA]
    for word in [*tables.SHARP_CODES, *tables.PLAIN_CODES, *needles]:
        assert word == word.lower()


def test_needles_refine():
    """A needle leads to another kind than those that it may refine, and never to "unknown"."""
    for refined, bases, needles in tables.NEEDLES:
        assert refined not in bases | {ErrorKind.UNKNOWN} and needles


def test_readers_build_no_requests():
    """What builds a request or calls callbacks breaks by a user's mistake: it is no reader of responses."""
    assert tables.RESPONSE_READERS.isdisjoint(
        {"_generate", "_agenerate", "_stream", "_astream", "_get_request_payload"}
    )
