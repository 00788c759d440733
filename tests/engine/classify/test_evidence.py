"""Exceptions are read without being trusted."""

from __future__ import annotations

import pytest

from langchain_resilient.engine.classify.evidence import attribute, causes, frames, read_evidence, said


def deep(depth):
    """Raise that many calls further in."""
    if depth:
        deep(depth - 1)
    raise ValueError("deep")


def caught(function, *args):
    """What a call raises."""
    with pytest.raises(ValueError) as info:
        function(*args)
    return info.value


def test_frames():
    """Frames come innermost first, and no more than sixteen of them, however deep the recursion was."""
    assert frames(ValueError()) == []
    assert frames(caught(deep, 0))[0] == (__name__.partition(".")[0], "deep")
    assert len(frames(caught(deep, 200))) == 16


def test_codes_come_from_attributes_first():
    """What is printed may be the message only: code and status come from attributes and body, the exception's own first."""
    error = ValueError("Error code: 400 - too long")
    error.code, error.status_code = "context_length_exceeded", 400
    error.body = {"error": {"code": "inner", "type": "invalid_request_error", "message": "Too LONG"}}
    found = read_evidence(error)
    assert found.codes == ("context_length_exceeded", "inner", "invalid_request_error")
    assert (found.status, found.shown_code) == (400, "context_length_exceeded")
    assert said(error) == "error code: 400 - too long" and "too long" in found.text


def test_body_as_argument():
    """A dict, or an object with a message, that is an exception's first argument is a body; another exception is none."""

    class Told:
        def __init__(self):
            self.message, self.code = "no", "server_error"

    assert read_evidence(ValueError({"code": "overloaded_error"})).codes == ("overloaded_error",)
    assert read_evidence(ValueError(Told())).codes == ("server_error",)
    inner = ValueError("x")
    inner.message, inner.code = "no", "server_error"
    assert read_evidence(ValueError(inner)).codes == ()


def test_causes():
    """Named causes, then contexts, each once; a suppressed context is none."""
    first, second, third = ValueError(1), ValueError(2), ValueError(3)
    first.__cause__, second.__context__, third.__context__ = second, third, first
    assert causes(first) == [(first, True), (second, True), (third, False)]
    third.__suppress_context__ = True
    assert causes(third) == [(third, True)]
    assert causes(third, hidden=True) == [(third, True), (first, False), (second, True)]


def test_causes_are_not_what_the_asker_handles():
    """What was being handled counts where the error passed through the frame that handled it, not where that frame only asked."""

    def fail() -> None:
        raise ValueError("inner")

    def asked(*, handles: bool) -> Exception:
        try:
            if handles:
                try:
                    raise KeyError("its own")
                except KeyError:
                    fail()
            fail()
        except ValueError as error:
            return error
        raise AssertionError

    try:
        raise OSError("the asker's")
    except OSError:
        alone, own = asked(handles=False), asked(handles=True)
    assert isinstance(alone.__context__, OSError)
    assert causes(alone) == [(alone, True)]
    assert [type(link) for link, _ in causes(own)] == [ValueError, KeyError]


def test_attribute():
    """An attribute that is missing or raises is None."""

    class Broken:
        @property
        def status(self):
            raise RuntimeError

    assert attribute(Broken(), "status") is attribute(Broken(), "other") is None
