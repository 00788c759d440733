"""What providers said, without what their clients wrap around it."""

import pytest

from langchain_resilient.cli.session import Session
from langchain_resilient.cli.telling import failed_call, said
from langchain_resilient.engine.errors import (
    AllProvidersFailedError,
    CircuitOpenError,
    RateLimitedError,
    StreamInterruptedError,
)
from langchain_resilient.engine.events import Attempt, Decision, Refusal


class ClientError(Exception):
    """As SDKs raise it: a wrapped text, and the body beside it."""

    def __init__(self, text: str, body: object = None) -> None:
        super().__init__(text)
        self.body = body


def raised_from(inner: Exception, outer: Exception) -> Exception:
    """An exception with its cause."""
    try:
        raise outer from inner
    except type(outer) as error:
        return error


SAID = {
    "OpenAI's body": (ClientError("Error code: 401 - x", {"message": "bad key"}), "bad key"),
    "Anthropic's body": (ClientError("Error code: 401 - {...}", {"error": {"message": "bad key"}}), "bad key"),
    "a body without words": (ClientError("plain", {"error": {"message": " "}}), "plain"),
    "no body": (ClientError("plain"), "plain"),
    "no words at all": (ClientError(""), "ClientError"),
    "a connection": (
        raised_from(OSError("refused"), ClientError("Connection error.")),
        "Connection error (refused)",
    ),
    "a cause without words": (raised_from(OSError(), ClientError("Connection error.")), "Connection error (OSError)"),
    "a cause that is quoted already": (
        raised_from(OSError("refused"), ClientError("it was refused")),
        "it was refused",
    ),
}


@pytest.mark.parametrize(("error", "words"), SAID.values(), ids=SAID)
def test_the_providers_own_words_are_found(error: Exception, words: str):
    """The message inside a body, or the reason behind a "Connection error."; else what the exception says."""
    assert said(error) == words


def test_an_http_error_needs_no_reason_behind_it():
    """What has a status said what was wrong."""
    error = raised_from(OSError("for more information"), ClientError("not found"))
    error.status_code = 404
    assert said(error) == "not found"


def decision(*attempts: Attempt, refusals: tuple[Refusal, ...] = ()) -> Decision:
    """The record of a call that nobody answered."""
    return Decision(
        1, None, "a", "failed", 1.0, None, attempts, refusals, "closed", False, None, None, False, "interactive", None
    )  # fmt: skip


def test_each_provider_is_told_once_with_its_last_word():
    """A group's line has every provider's last failure with what it said then, and who was not asked and why."""
    attempts = (
        Attempt("a", "server_error", 0.1, status=500),
        Attempt("a", "overloaded", 0.1, status=503),
        Attempt("b", "auth", 0.1),
    )
    members = [Exception("first"), Exception("second"), Exception("third"), CircuitOpenError("c", retry_after=12.0)]
    refused = (Refusal("c", "circuit_open", 12.0),)
    failed = failed_call(
        Session(), AllProvidersFailedError("x", members), decision(*attempts, refusals=refused), {"answer": None}
    )
    assert str(failed) == (
        "no provider answered: a: overloaded 503: second; b: auth: third; c: not asked (circuit_open); retry in 12 s"
    )
    assert (failed.kind, failed.code, failed.details["retry_after"]) == ("all_providers_failed", 1, 12.0)
    assert [item["provider"] for item in failed.details["providers"]] == ["a", "b", "c"]
    assert failed.document == {"answer": None}


def test_a_refusal_of_ours_is_told_as_it_is():
    """Where nobody was asked our own exception says why, and the kind is its word."""
    refused = (Refusal("a", "rpm", 3.0),)
    failed = failed_call(
        Session(), RateLimitedError("a: its limit 'rpm' is used up", retry_after=3.0), decision(refusals=refused), {}
    )
    assert (str(failed), failed.kind) == ("a: its limit 'rpm' is used up; retry in 3 s", "rate_limited")


def test_who_could_not_go_on_is_named():
    """The line tells whose stream broke, and what the last one said who was asked to go on with it."""
    broken = StreamInterruptedError("a: the stream broke after 3 chunks (timeout), and nobody could go on with it")
    error = raised_from(ClientError("Sorry."), broken)
    attempts = (Attempt("a", "timeout", 0.1, limit="idle"), Attempt("b", "overloaded", 0.1, status=503))
    assert str(failed_call(Session(), error, decision(*attempts), {})) == f"{broken}: b: overloaded 503: Sorry."
    assert str(failed_call(Session(), error, decision(attempts[0]), {})) == f"{broken}: Sorry."
    assert str(failed_call(Session(), StreamInterruptedError("a: it broke"), decision(*attempts), {})) == "a: it broke"


def test_what_a_provider_said_is_bounded():
    """A page of HTML from one provider leaves room for the others."""
    failed = failed_call(Session(), ClientError("x" * 5000), decision(Attempt("a", "unknown", 0.1)), {})
    assert len(str(failed)) < 200
