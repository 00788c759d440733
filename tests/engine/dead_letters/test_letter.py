"""A letter as it is written, and read by other versions."""

import json

import pytest

from langchain_resilient.engine.dead_letters.letter import decode, encode, new_id
from langchain_resilient.engine.errors import SettingsError
from tests.engine.dead_letters.post import letter


def test_a_letter_is_one_line():
    """What is written has no line end in it, whatever the letter holds, and reads back the same; the claim is never written."""
    made = letter(content={"messages": ["\r\n\u2028\ud83c"]}, parked="by hand", not_before=5.0, deliveries=3)
    written = encode(letter(content=made.content, parked="by hand", not_before=5.0, deliveries=3, claim=7))
    assert b"\n" not in written and b"\r" not in written
    assert decode(written) == (made, None)


def test_what_a_newer_version_added_is_ignored():
    """Unknown fields are ignored, and what an older version did not write has its default."""
    newer = json.loads(encode(letter())) | {"v": 2, "mood": "sour"}
    assert decode(json.dumps(newer).encode())[0] == letter()
    older = {name: newer[name] for name in ("v", "id", "key", "created", "kind")}
    found = decode(json.dumps(older).encode())[0]
    assert (found.attempts, found.content, found.tenant, found.not_before) == ((), None, None, 0.0)


@pytest.mark.parametrize(
    "written",
    [b"", b"{", b"[]", b"1", b"{}", b'{"v": 1, "id": "a"}', b'{"v":1,"id":"","key":"k","created":1,"kind":"x"}'],
)
def test_what_is_no_letter(written):
    """Anything else is a ValueError, never half a letter."""
    with pytest.raises(ValueError):
        decode(written)


@pytest.mark.parametrize(
    "changed", [{"id": ""}, {"key": ""}, {"key": "\ud83c"}, {"id": 5}, {"created": "now"}, {"not_before": float("nan")}]
)
def test_a_letter_that_could_not_be_written(changed):
    """A letter that some box could not keep is refused when it is made; the key, which may hold a prompt, is not quoted."""
    with pytest.raises(SettingsError, match=f"Letter.{next(iter(changed))}"):
        letter(**changed)


def test_content_is_in_no_repr():
    """A letter that is logged shows no prompt."""
    assert "question" not in repr(letter())


def test_ids_sort_by_creation():
    """An id begins with its millisecond, in digits that sort."""
    assert new_id(1_735_689_600.5, b"\x01\xff") == "01941f297df4-01ff"
    moments = [0.0, 0.001, 0.015, 0.016, 1.0, 1e9, 1.7e9]
    made = [new_id(moment, bytes([255 - place])) for place, moment in enumerate(moments)]
    assert made == sorted(made) and len(set(made)) == len(made)
