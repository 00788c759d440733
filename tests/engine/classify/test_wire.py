"""Every fault of the FaultServer, as the real clients raise it: what ChatOpenAI, ChatAnthropic and ChatOllama make of it."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from langchain_anthropic import ChatAnthropic
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import HumanMessage
from langchain_ollama import ChatOllama
from langchain_openai import ChatOpenAI

from langchain_resilient.engine.classify import ErrorKind, Failure, classify
from langchain_resilient.testing.fault_server import RETRY_FORMS, Fault, FaultServer

WIRES = ("openai", "anthropic", "ollama")
SHORT = 0.1  # seconds until a client gives up, where the server never answers
SILENT = ("hang", "hang_after(0)", "hang_after(1)")

# fmt: off -- a table
STATUSES = {
    400: "client_error",
    401: "auth",
    402: "quota_exhausted",
    403: "permission",
    404: "not_found",
    408: "timeout",
    409: "client_error",
    413: "context_overflow",
    422: "client_error",
    429: "rate_limited",
    500: "server_error",
    502: "server_error",
    503: "overloaded",
    504: "server_error",
    529: "overloaded",
}

# Fault, and what it comes to: one word, or one for each of openai's, anthropic's and ollama's (invoke, stream). "ok" is an
# answer, or a stream that ended without an error: that its end is missing no exception tells. The anthropic client
# loses an error that comes as the body of an HTTP 200.
TABLE: dict[str, tuple[Fault, str]] = {
    "ok": (Fault.ok(), "ok"),
    "slow": (Fault.slow(0.01), "ok"),
    **{f"status({code})": (Fault.status(code), kind) for code, kind in STATUSES.items()},
    "status(503) html": (Fault.status(503, body="<html>no</html>"), "overloaded"),
    "status(429) text": (Fault.status(429, body="slow down"), "rate_limited"),
    "status(400) empty": (Fault.status(400, body=""), "client_error"),
    "quota_exhausted": (Fault.quota_exhausted(), "quota_exhausted"),
    "overloaded": (Fault.overloaded(), "overloaded"),
    "context_overflow": (Fault.context_overflow(), "context_overflow"),
    "content_filter": (Fault.content_filter(), "content_policy"),
    "content_filter in answer": (Fault.content_filter(in_answer=True), "ok"),
    "hang": (Fault.hang(), "timeout"),
    "hang_after(0)": (Fault.hang_after(0), "timeout"),
    "hang_after(1)": (Fault.hang_after(1), "timeout"),
    "hang, closed": (Fault.hang(0.01), "server_error"),
    "hang_after, closed": (Fault.hang_after(1, 0.01), "server_error"),
    "keepalive": (Fault.keepalive(0.01, 0.03), "server_error server_error server_error server_error ok ok"),
    "reset": (Fault.reset(), "server_error"),
    "reset_after(0)": (Fault.reset_after(0), "server_error"),
    "reset_after(1)": (Fault.reset_after(1), "server_error"),
    "truncate(0)": (Fault.truncate(0), "server_error ok server_error ok server_error server_error"),
    "truncate(1)": (Fault.truncate(1), "server_error ok server_error ok ok ok"),
    "no_done": (Fault.no_done(), "ok"),
    "malformed": (Fault.malformed(), "server_error"),
    "malformed html": (Fault.malformed(content_type="text/html"), "server_error"),
    "in_band_error(0)": (Fault.in_band_error(0), "overloaded overloaded server_error overloaded overloaded overloaded"),
    "in_band_error(1)": (Fault.in_band_error(1), "overloaded overloaded server_error overloaded overloaded overloaded"),
    "in_band_error server": (Fault.in_band_error(1, "server_error"), "server_error"),
    "flaky": (Fault.flaky(1.0, Fault.overloaded()), "overloaded"),
}
# fmt: on


@pytest.fixture(scope="module")
def server() -> Iterator[FaultServer]:
    """One server for all rows: each sets its own fault."""
    with FaultServer() as running:
        yield running


def model_of(server: FaultServer, wire: str, timeout: float = 5.0):
    """The real client of a wire, its own retries off."""
    url = server.base_url(wire)
    if wire == "openai":
        return ChatOpenAI(model="gpt-test", base_url=url, api_key="test", max_retries=0, timeout=timeout)
    if wire == "anthropic":
        return ChatAnthropic(model="claude-test", base_url=url, api_key="test", max_retries=0, timeout=timeout)
    return ChatOllama(model="llama-test", base_url=url, client_kwargs={"timeout": timeout})


def outcome(model, *, stream: bool) -> Failure | None:
    """What one call came to; None for an answer."""
    try:
        list(model.stream("hi")) if stream else model.invoke("hi")
    except Exception as error:
        return classify(error, wall=time.time())
    return None


@pytest.mark.parametrize("stream", [False, True], ids=["invoke", "stream"])
@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("row", TABLE)
def test_kind(server: FaultServer, row: str, wire: str, *, stream: bool):
    """Each fault is of its kind, whatever client met it and however that says so; it was sent, and nobody's bug."""
    fault, words = TABLE[row]
    kinds = words.split()
    expected = kinds[0] if len(kinds) == 1 else kinds[2 * WIRES.index(wire) + stream]
    server.always(fault)
    failure = outcome(model_of(server, wire, SHORT if row in SILENT else 5.0), stream=stream)
    assert (failure.kind if failure else "ok") == expected
    assert failure is None or (failure.bug, failure.never_sent, failure.retry_after) == (False, False, None)


@pytest.mark.parametrize("stream", [False, True], ids=["invoke", "stream"])
@pytest.mark.parametrize("wire", WIRES)
def test_refused(wire: str, *, stream: bool):
    """A refused connection is the server's failure, and certainly sent nothing."""
    with FaultServer() as server:
        server.refuse()
        assert outcome(model_of(server, wire), stream=stream) == Failure(ErrorKind.SERVER_ERROR, never_sent=True)


HEARD_BY_OLLAMA = (
    "message",
    "gemini",
)  # its client throws headers away, and keeps the text or a body that is not Ollama's


@pytest.mark.parametrize("stream", [False, True], ids=["invoke", "stream"])
@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("form", RETRY_FORMS)
def test_retry_after(server: FaultServer, form: str, wire: str, *, stream: bool):
    """Retry-After arrives through the real clients in every form; dates are exact to the second that they name."""
    server.always(Fault.rate_limited(form, 30.0))
    failure = outcome(model_of(server, wire), stream=stream)
    silent = form == "none" or (wire == "ollama" and form not in HEARD_BY_OLLAMA)
    assert failure.kind is ErrorKind.RATE_LIMITED
    assert failure.retry_after == (None if silent else pytest.approx(30.0, abs=2.0))


@pytest.mark.parametrize("wire", ["openai", "anthropic"])
@pytest.mark.parametrize("page", ["<html>Context window too long: invalid api key</html>", "null", "[]", "{}"])
def test_whatever_comes_with_http_200(server: FaultServer, wire: str, page: str):
    """A page in a response's place is malformed, whatever words stand in it, and never the user's bug."""
    content_type = "text/html" if "<" in page else "application/json"
    server.always(Fault.status(200, body=page, headers={"content-type": content_type}))
    failure = outcome(model_of(server, wire), stream=False)
    assert failure == Failure(ErrorKind.SERVER_ERROR)


@pytest.mark.parametrize("wire", WIRES)
async def test_async(server: FaultServer, wire: str):
    """The async clients stumble in the same functions."""
    for fault in (Fault.malformed(content_type="text/html"), Fault.in_band_error(0, "server_error")):
        server.always(fault)
        with pytest.raises(Exception) as caught:
            await model_of(server, wire).ainvoke("hi")
        assert classify(caught.value, wall=0.0).kind is ErrorKind.SERVER_ERROR


# ── A user's own mistakes are none of the provider's ─────────────────────────────────────────────────────────────────


class BrokenCallback(BaseCallbackHandler):
    raise_error = True

    def on_llm_new_token(self, token, **kwargs):
        raise TypeError("'NoneType' object is not iterable")


class BrokenOpenAI(ChatOpenAI):
    def _create_chat_result(self, response, generation_info=None):
        return super()._create_chat_result(response, generation_info).no_such_attribute


class BrokenAnthropic(ChatAnthropic):
    def _format_output(self, data, **kwargs):
        return list(None)


MISTAKES = {
    "a callback": lambda s, w: list(model_of(s, w).stream("hi", config={"callbacks": [BrokenCallback()]})),
    "an override": lambda s, w: BrokenOpenAI(model="m", base_url=s.base_url("openai"), api_key="k").invoke("hi"),
    "an override 2": lambda s, w: BrokenAnthropic(model="m", base_url=s.base_url("anthropic"), api_key="k").invoke(
        "hi"
    ),
    "a message": lambda s, w: model_of(s, w).invoke([HumanMessage.model_construct(content=object(), type="human")]),
    "no message": lambda s, w: model_of(s, w).invoke([42]),
}


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("mistake", MISTAKES)
def test_own_mistakes(server: FaultServer, mistake: str, wire: str):
    """A broken callback, subclass or argument is never blamed on the provider, however like a malformed answer it looks."""
    server.always(Fault.ok())
    with pytest.raises(Exception) as caught:
        MISTAKES[mistake](server, wire)
    failure = classify(caught.value, wall=0.0)
    assert failure.kind is ErrorKind.UNKNOWN
    assert failure.bug or not isinstance(caught.value, (TypeError, AttributeError))
