"""The vocabulary itself."""

from __future__ import annotations

from langchain_resilient.engine.classify.kinds import ErrorKind, Failure


def test_every_kind_has_a_family():
    """Each kind belongs to one of the five coarser words."""
    families = {kind.family for kind in ErrorKind}
    assert families == {"rate_limited", "transient", "fatal", "client_error", "unknown"}


def test_what_is_not_known_of_a_failure():
    """A failure of which only the kind is known promises nothing: it may have been sent, and nobody said how long to wait."""
    assert Failure(ErrorKind.TIMEOUT) == (ErrorKind.TIMEOUT, None, None, None, None, False, False, ())
