"""Every row of DESIGN §4 over real HTTP: three real clients × two ways to make them × four ways to ask.

The table says, for a first provider that always plays the fault and a healthy second one, which attempts the decision record
holds. From that alone follow the requests that each server saw (one an attempt: inner retries are off) and what the caller gets.
"""

from collections.abc import Iterator
from typing import NamedTuple

import pytest

from langchain_resilient import (
    AllProvidersFailedError,
    ErrorKind,
    ResilientChatModel,
    Retry,
    StreamInterruptedError,
    Timeouts,
    capture_decisions,
)
from langchain_resilient.testing import Fault, FaultServer
from langchain_resilient.testing.fault_server import RETRY_FORMS
from tests.clients import WAYS, WIRES, ask, failure, fresh, made

GREETING = "Hello from the fault server."
SHORT = 0.5  # seconds that a silent provider is given; a busy machine needs some to ask it
LONG = 20.0  # seconds that a busy machine is given where nobody is silent
HOUR = 3600.0


class Row(NamedTuple):
    """What one fault amounts to."""

    fault: Fault
    kinds: str
    """The failed attempts at the first provider, in order."""
    alone: int
    """How many requests it gets when there is nobody else, with `max_retries=2`."""
    failures: int = 0
    """What its circuit counts."""
    blocked: tuple[str, float] | None = None
    """Why its credential is left alone afterwards, and for how many seconds."""
    other: dict[str, str] = {}  # noqa: RUF012 -- never changed
    """The attempts by "wire" or "wire, whole|streamed" where they differ from `kinds`."""


TWICE = "server_error server_error"
CUT = {"streamed": "stream_interrupted"}
NAMES = ("one", "two")
ROWS: dict[str, Row] = {
    "quota": Row(Fault.quota_exhausted(), "quota_exhausted", 1, blocked=("quota_exhausted", HOUR)),
    "402": Row(Fault.status(402), "quota_exhausted", 1, blocked=("quota_exhausted", HOUR)),
    "overloaded": Row(Fault.overloaded(), "overloaded", 3, 1),
    "503": Row(Fault.status(503), "overloaded", 3, 1),
    "529": Row(Fault.status(529), "overloaded", 3, 1),
    # An unstreamed error under HTTP 200 is shown by Anthropic's client as a message without its parts: the word is lost.
    "in-band": Row(Fault.in_band_error(0), "overloaded", 3, 1, other={"anthropic, whole": TWICE}),
    "in-band 500": Row(Fault.in_band_error(0, "server_error"), TWICE, 3, 2),
    "500": Row(Fault.status(500), TWICE, 3, 2),
    "502": Row(Fault.status(502, body="<html>Bad Gateway</html>"), TWICE, 3, 2),
    "504": Row(Fault.status(504), TWICE, 3, 2),
    "reset": Row(Fault.reset(), TWICE, 3, 2),
    "cut before content": Row(Fault.reset_after(0), TWICE, 3, 2),
    "malformed": Row(Fault.malformed(0), TWICE, 3, 2),
    "malformed, as HTML": Row(Fault.malformed(0, "text/html"), TWICE, 3, 2),
    # Half a JSON document is malformed; a stream that ends before it said anything is truncated.
    "truncated": Row(Fault.truncate(0), TWICE, 3, 2, other=CUT),
    # Timeouts of a model that has not answered yet weigh half: the first of them is spared.
    "hang": Row(Fault.hang(), "timeout", 1),
    "hang after the headers": Row(Fault.hang_after(0), "timeout", 1),
    # What the provider itself says is no limit of ours that may be wrong: it counts at once.
    "408": Row(Fault.status(408), "timeout", 1, 1),
    "401": Row(Fault.status(401), "auth", 1, blocked=("auth", 300.0)),
    "403": Row(Fault.status(403), "permission", 1),
    "404": Row(Fault.status(404), "not_found", 1),
    "context": Row(Fault.context_overflow(), "context_overflow", 1),
    "413": Row(Fault.status(413), "context_overflow", 1),
    "policy": Row(Fault.content_filter(), "content_policy", 1),
    "400": Row(Fault.status(400), "client_error", 1),
    "409": Row(Fault.status(409), "client_error", 1),
    "422": Row(Fault.status(422), "client_error", 1),
}
ELSEWHERE = {
    ErrorKind.CANCELLED: "nobody's fault: test_chat_model_ways.py",
    ErrorKind.LOCAL: "test_threads_and_loops.py",
    ErrorKind.RATE_LIMITED: "every Retry-After form: below",
    ErrorKind.UNKNOWN: "no wire sends it: test_upstream.py",
    ErrorKind.INVALID_OUTPUT: "the wire is well: test_structured.py",
}
FINAL = {"content_policy", "client_error"}  # nobody else is asked
# Every way for specs; two of them for instances, which differ in how they are made only.
CALLS = [("spec", way) for way in WAYS] + [("instance", "invoke"), ("instance", "astream")]


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[FaultServer, FaultServer]]:
    """A faulty server and a healthy one."""
    with FaultServer() as faulty, FaultServer() as healthy:
        yield faulty, healthy


@pytest.fixture(scope="module", autouse=True)
async def _warm(servers: tuple[FaultServer, FaultServer]) -> None:
    """A process's first call of each client takes long, sync and async: it imports and opens what the later ones have."""
    for wire in WIRES:
        for way in ("invoke", "astream"):
            await ask(model_of("spec", wire, servers[1]), way)


@pytest.fixture
def faulty(servers: tuple[FaultServer, FaultServer]) -> Iterator[FaultServer]:
    """The faulty one, its log empty."""
    server = servers[0]
    server.reset_log()
    yield server
    server.accept()
    server.always(Fault.ok())


@pytest.fixture
def healthy(servers: tuple[FaultServer, FaultServer]) -> FaultServer:
    """The healthy one, its log empty."""
    servers[1].reset_log()
    return servers[1]


def model_of(how: str, wire: str, *servers: FaultServer, patience: float = LONG) -> ResilientChatModel:
    """A model over these servers, named one, two, …: no backoff."""
    limits = Timeouts(connect=1.0, response=patience, first_token=patience, idle=patience)
    return ResilientChatModel(
        providers=[made(how, server, wire, name, patience) for server, name in zip(servers, NAMES, strict=False)],
        namespace=fresh(),
        retry=Retry(max_retries=2, base_delay=0.0),
        timeouts=limits,
        on_interruption="raise",
    )


def patience_with(fault: Fault) -> float:
    """Short where the fault is silence."""
    return SHORT if fault.ending in {"stall", "keepalive"} else LONG


def expected(row: Row, wire: str, way: str) -> list[str]:
    """The failed attempts that a cell of the table names."""
    form = "streamed" if "stream" in way else "whole"
    for key in (f"{wire}, {form}", wire, form):
        if key in row.other:
            return row.other[key].split()
    return row.kinds.split()


def test_every_kind_has_a_row():
    """Each kind of failure is in the table, or in the list that says where else."""
    named = {kind for row in ROWS.values() for cell in (row.kinds, *row.other.values()) for kind in cell.split()}
    assert named | set(ELSEWHERE) == set(ErrorKind)


@pytest.mark.parametrize(("how", "way"), CALLS)
@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("name", ROWS)
async def test_another_provider_answers(
    faulty: FaultServer, healthy: FaultServer, name: str, wire: str, how: str, way: str
):
    """A failing provider is asked as often as its kind of failure allows, and then the next one answers, or nobody is asked."""
    row = ROWS[name]
    faulty.always(row.fault)
    model = model_of(how, wire, faulty, healthy, patience=patience_with(row.fault))
    kinds = expected(row, wire, way)
    with capture_decisions() as decisions:
        got = await failure(model, way) if kinds[-1] in FINAL else await ask(model, way)
    [decision] = decisions
    tried = [(attempt.provider, attempt.kind) for attempt in decision.attempts]
    failed = [(f"{wire}/one", kind) for kind in kinds]
    assert faulty.count == len(kinds)
    if kinds[-1] in FINAL:
        assert tried == failed and healthy.count == 0 and decision.outcome == "failed" and decision.provider is None
        assert type(got).__module__.split(".")[0] in {
            "openai",
            "anthropic",
            "ollama",
            "langchain_openai",
            "langchain_anthropic",
        }
    else:
        assert got == GREETING
        assert tried == [*failed, (f"{wire}/two", "ok")] and healthy.count == 1
        assert decision.fallback and decision.provider == f"{wire}/two"
    status = model.status()[f"{wire}/one"]
    failures = len(kinds) if row.failures else 0
    assert (status["circuit"], status["failures_in_a_row"]) == ("closed", failures)
    if row.blocked is None:
        assert status["blocked"] is None
    else:
        assert status["blocked"] == row.blocked[0]
        assert status["blocked_for"] == pytest.approx(row.blocked[1], abs=5)


@pytest.mark.parametrize("way", ["invoke", "astream"])
@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("name", ROWS)
async def test_a_provider_alone(faulty: FaultServer, name: str, wire: str, way: str):
    """With nobody else, what may pass is asked again up to `max_retries`; then the provider's own exception comes, with a note."""
    row = ROWS[name]
    faulty.always(row.fault)
    model = model_of("spec", wire, faulty, patience=patience_with(row.fault))
    with capture_decisions() as decisions:
        error = await failure(model, way)
    kind = expected(row, wire, way)[-1]
    requests = row.alone
    assert faulty.count == requests
    assert [attempt.kind for attempt in decisions[0].attempts] == [kind] * requests
    assert not isinstance(error, AllProvidersFailedError)
    notes = getattr(error, "__notes__", [])
    if kind not in FINAL and kind != "context_overflow":
        assert f"langchain_resilient tried {wire}/one {requests} time(s)" in notes[-1]


# ── 429 ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("form", RETRY_FORMS)
async def test_every_form_of_retry_after(faulty: FaultServer, healthy: FaultServer, form: str, wire: str, way: str):
    """A 429 that asks for seven seconds goes to the next provider at once, and its account is left alone for seven seconds."""
    faulty.always(Fault.rate_limited(form, 7))
    model = model_of("spec", wire, faulty, healthy)
    with capture_decisions() as decisions:
        assert await ask(model, way) == GREETING
    assert [attempt.kind for attempt in decisions[0].attempts] == ["rate_limited", "ok"]
    assert (faulty.count, healthy.count) == (1, 1)
    status = model.status()[f"{wire}/one"]
    unheard = form == "none" or (wire == "ollama" and form not in {"gemini", "message"})
    low, high = (0.0, 1.0) if unheard else (6.0, 8.0)  # dates are whole seconds, rounded up
    assert status["blocked"] == "blocked" and low <= status["blocked_for"] <= high
    assert (status["circuit"], status["failures_in_a_row"]) == ("closed", 0)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("wire", ["openai", "anthropic"])
@pytest.mark.parametrize("form", ["decimal", "ms", "x-ms"])
async def test_a_short_retry_after_is_waited_for(
    faulty: FaultServer, healthy: FaultServer, form: str, wire: str, way: str
):
    """A 429 whose Retry-After is at most `max_retry_after` is asked again, once, after that time."""
    faulty.schedule(Fault.rate_limited(form, 0.03))
    model = model_of("spec", wire, faulty, healthy)
    with capture_decisions() as decisions:
        assert await ask(model, way) == GREETING
    [first, second] = decisions[0].attempts
    assert (first.kind, second.kind) == ("rate_limited", "ok")
    assert first.provider == second.provider == f"{wire}/one" and 0.03 <= second.wait < 0.3
    assert (faulty.count, healthy.count) == (2, 0)
    assert faulty.requests[1].at - faulty.requests[0].at >= 0.03


# ── Nothing listens, the whole is too slow ───────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("how", "way"), CALLS)
@pytest.mark.parametrize("wire", WIRES)
async def test_refused_connections(faulty: FaultServer, healthy: FaultServer, wire: str, how: str, way: str):
    """A provider that refuses connections is tried twice and then the next one answers."""
    faulty.refuse()
    model = model_of(how, wire, faulty, healthy)
    with capture_decisions() as decisions:
        assert await ask(model, way) == GREETING
    assert [attempt.kind for attempt in decisions[0].attempts] == ["server_error", "server_error", "ok"]
    assert (faulty.count, healthy.count) == (0, 1)
    assert model.status()[f"{wire}/one"]["failures_in_a_row"] == 2


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("wire", WIRES)
async def test_signs_of_life_are_no_answer(faulty: FaultServer, healthy: FaultServer, wire: str, way: str):
    """A provider that sends keep-alives and never content runs into the limit all the same."""
    faulty.always(Fault.keepalive(0.03, seconds=3 * SHORT))
    model = model_of("spec", wire, faulty, healthy, patience=SHORT)
    with capture_decisions() as decisions:
        assert await ask(model, way) == GREETING
    limit = "first_token" if "stream" in way else "response"
    assert [(item.kind, item.limit) for item in decisions[0].attempts] == [("timeout", limit), ("ok", None)]


# ── After the first content ──────────────────────────────────────────────────────────────────────────────────────────

BROKEN = {
    "truncated": Fault.truncate(2),
    "cut": Fault.reset_after(2),
    "in-band error": Fault.in_band_error(2),
    "malformed": Fault.malformed(2),
    "silent": Fault.hang_after(2),
}


@pytest.mark.parametrize("way", ["stream", "astream"])
@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("name", BROKEN)
async def test_a_break_after_content_is_an_error(
    faulty: FaultServer, healthy: FaultServer, name: str, wire: str, way: str
):
    """A stream that breaks after its first content raises with what was shown, and nobody else's text follows it."""
    faulty.always(BROKEN[name])
    model = model_of("spec", wire, faulty, healthy, patience=patience_with(BROKEN[name]))
    with capture_decisions() as decisions:
        error = await failure(model, way)
    assert isinstance(error, StreamInterruptedError) and error.partial == "Hello from"
    assert (faulty.count, healthy.count) == (1, 0)
    assert decisions[0].outcome == "interrupted" and decisions[0].provider is None
    status = model.status()[f"{wire}/one"]
    assert (status["failures_in_a_row"], status["in_flight"]) == (1, 0)


@pytest.mark.parametrize("way", ["invoke", "ainvoke"])
@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("name", BROKEN)
async def test_a_break_inside_an_unstreamed_answer(
    faulty: FaultServer, healthy: FaultServer, name: str, wire: str, way: str
):
    """An unstreamed answer that breaks midway was shown to nobody, so the next provider answers, also where the client streams inside."""
    faulty.always(BROKEN[name])
    model = model_of("spec", wire, faulty, healthy, patience=patience_with(BROKEN[name]))
    assert await ask(model, way) == GREETING
    assert healthy.count == 1
