"""FaultServer, driven by the real clients: what each fault looks like to ChatOpenAI, ChatAnthropic and ChatOllama."""

import asyncio
import json
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import httpx
import ollama
import pytest
from langchain_anthropic import ChatAnthropic
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import ToolMessage
from langchain_core.tools import tool
from langchain_ollama import ChatOllama
from langchain_openai import ChatOpenAI
from langchain_tests.integration_tests import ChatModelIntegrationTests
from pydantic import BaseModel

from langchain_resilient.testing.fault_server import RETRY_FORMS, Fault, FaultServer, RecordedRequest
from langchain_resilient.testing.wires.retry_hints import go_duration
from langchain_resilient.testing.wires.schema import Hints, minimal

GREETING = "Hello from the fault server."
WIRES = ("openai", "anthropic", "ollama")
SHORT = 0.15  # seconds until a client gives up


@pytest.fixture
def server() -> Iterator[FaultServer]:
    """A server of one's own."""
    with FaultServer() as running:
        yield running


def model_of(server: FaultServer, wire: str, timeout: float = 5.0) -> BaseChatModel:
    """The real client of a wire, its own retries off."""
    url = server.base_url(wire)
    if wire == "openai":
        settings = {"base_url": url, "api_key": "test", "max_retries": 0, "stream_usage": True}
        return ChatOpenAI(model="gpt-test", timeout=timeout, **settings)
    if wire == "anthropic":
        return ChatAnthropic(model="claude-test", base_url=url, api_key="test", max_retries=0, timeout=timeout)
    return ChatOllama(model="llama-test", base_url=url, client_kwargs={"timeout": timeout})


@pytest.fixture(params=WIRES)
def wire(request: pytest.FixtureRequest) -> str:
    """Each wire in turn."""
    return request.param


@pytest.fixture
def model(server: FaultServer, wire: str) -> BaseChatModel:
    """The real client of the wire."""
    return model_of(server, wire)


@tool
def magic_function(input: int) -> int:  # noqa: A002 -- as LangChain's standard tests name it
    """Apply a magic function."""
    return input + 2


class Joke(BaseModel):
    """A joke."""

    setup: str
    rating: int


def streamed(model: BaseChatModel) -> tuple[list[str], Exception | None]:
    """The content chunks that a stream showed, and what broke it."""
    shown: list[str] = []
    try:
        shown.extend(chunk.text for chunk in model.stream("hi") if chunk.text)
    except Exception as error:
        return shown, error
    return shown, None


def failure(model: BaseChatModel, *, stream: bool = False) -> Exception:
    """The exception of one call."""
    with pytest.raises(Exception) as caught:
        list(model.stream("hi")) if stream else model.invoke("hi")
    return caught.value


# ── Healthy ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_healthy_invoke(server: FaultServer, model: BaseChatModel, wire: str):
    """A healthy answer carries the text, the model asked for, the usage set and the wire's own finish reason."""
    server.answer("All is well.", input_tokens=11, output_tokens=3)
    message = model.invoke("hi")
    assert message.text == "All is well."
    assert message.usage_metadata["input_tokens"] == 11 and message.usage_metadata["output_tokens"] == 3
    metadata = message.response_metadata
    assert (
        metadata["model_name"]
        == server.requests[0].model
        == {"openai": "gpt", "anthropic": "claude"}.get(wire, "llama") + "-test"
    )
    reason = {"openai": "finish_reason", "anthropic": "stop_reason", "ollama": "done_reason"}[wire]
    assert metadata[reason] == {"anthropic": "end_turn"}.get(wire, "stop")


def test_healthy_stream(server: FaultServer, model: BaseChatModel):
    """A healthy stream has one word a chunk and one usage over all."""
    server.answer(GREETING, input_tokens=7, output_tokens=5)
    chunks = list(model.stream("hi"))
    assert [chunk.text for chunk in chunks if chunk.text] == ["Hello", " from", " the", " fault", " server."]
    full = chunks[0]
    for chunk in chunks[1:]:
        full += chunk
    assert full.usage_metadata["input_tokens"] == 7 and full.usage_metadata["output_tokens"] == 5
    assert full.chunk_position == "last"
    assert server.requests[0].stream


async def test_async(model: BaseChatModel):
    """The async clients see the same."""
    assert (await model.ainvoke("hi")).text == GREETING
    assert [chunk.text async for chunk in model.astream("hi") if chunk.text][:2] == ["Hello", " from"]


def test_answer_from_a_function(server: FaultServer, model: BaseChatModel):
    """An answer may be a function of the request."""
    server.answer(lambda request: f"You asked {request.model}.")
    assert model.invoke("hi").text.startswith("You asked ")


@pytest.mark.parametrize("stream", [False, True])
def test_tool_call(model: BaseChatModel, *, stream: bool):
    """A tool that the user names is called with the number from the message, and its result comes back in the text."""
    bound, question = model.bind_tools([magic_function]), "What is the value of magic_function(3)? Use the tool."
    if stream:
        chunks = list(bound.stream(question))
        asked = chunks[0]
        for chunk in chunks[1:]:
            asked += chunk
    else:
        asked = bound.invoke(question)
    [call] = asked.tool_calls
    assert (call["name"], call["args"]) == ("magic_function", {"input": 3})
    answered = bound.invoke([("human", question), asked, ToolMessage("five", tool_call_id=call["id"])])
    assert answered.text == "The tool answered: five" and not answered.tool_calls


def test_scripted_tool_call(server: FaultServer, model: BaseChatModel):
    """A scripted tool call is played as given, and the step after its result is text."""
    server.answer_with_tool("anything", {"nested": {"word": "grüße"}})
    asked = model.invoke("hi")
    assert asked.tool_calls[0]["name"] == "anything" and asked.tool_calls[0]["args"] == {"nested": {"word": "grüße"}}
    assert not model.invoke(
        [("human", "hi"), asked, ToolMessage("ok", tool_call_id=asked.tool_calls[0]["id"])]
    ).tool_calls


def test_tools_are_not_called_unasked(server: FaultServer, model: BaseChatModel):
    """An offered tool that the message does not speak of, or a text set by the test, leaves the answer text."""
    assert model.bind_tools([magic_function]).invoke("hi").text == GREETING
    server.answer("No tools today.")
    assert model.bind_tools([magic_function]).invoke("Use magic_function(3).").text == "No tools today."


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
def test_structured_output(server: FaultServer, model: BaseChatModel, method: str):
    """A schema gets the smallest object that fits, even where a plain text was set; JSON that was set is kept."""
    chain = model.with_structured_output(Joke, method=method)
    assert chain.invoke("Tell me a joke.") == Joke(setup="x", rating=1)
    if method == "json_schema":
        server.answer("plain")
        assert chain.invoke("Tell me a joke.") == Joke(setup="x", rating=1)
        server.answer('{"setup": "Knock", "rating": 5}')
        assert chain.invoke("Tell me a joke.") == Joke(setup="Knock", rating=5)


def test_unstreamed_ollama(server: FaultServer):
    """Ollama's unstreamed form, which LangChain never uses, answers, refuses and breaks too."""
    client = ollama.Client(server.url, timeout=5)
    messages = [{"role": "user", "content": "hi"}]
    assert client.chat("m", messages, stream=False).message.content == GREETING
    server.schedule(Fault.status(503), Fault.in_band_error(), Fault.malformed())
    with pytest.raises(ollama.ResponseError, match="server busy"):
        client.chat("m", messages, stream=False)
    with pytest.raises(ValueError, match="Field required"):  # the client overlooks an error in an HTTP 200
        client.chat("m", messages, stream=False)
    with pytest.raises(ValueError, match="Expecting value"):
        client.chat("m", messages, stream=False)


# ── Refusals ─────────────────────────────────────────────────────────────────────────────────────────────────────────

LANGCHAIN_NAMES = {  # the class that LangChain raises, without the provider's prefix; None: the SDK's own, listed below
    400: "InvalidRequestError",
    401: "AuthenticationError",
    403: "PermissionDeniedError",
    404: "ModelNotFoundError",
    429: "RateLimitError",
    500: "APIError",
    502: "APIError",
    503: "APIError",
    504: "APIError",
}
SDK_NAMES = {
    402: ("APIStatusError", "PaymentRequiredError"),
    408: ("APIStatusError", "RequestTimeoutError"),
    409: ("ConflictError", "ConflictError"),
    413: ("APIStatusError", "ContentTooLargeError"),
    422: ("UnprocessableEntityError", "UnprocessableEntityError"),
    529: ("OpenAIAPIError", "AnthropicOverloadedError"),
}


def class_name(wire: str, status: int) -> str:
    """The class in which a client reports a status."""
    if wire == "ollama":
        return "ResponseError"
    if status in SDK_NAMES:
        return SDK_NAMES[status][wire == "anthropic"]
    return {"openai": "OpenAI", "anthropic": "Anthropic"}[wire] + LANGCHAIN_NAMES[status]


@pytest.mark.parametrize("status", [*LANGCHAIN_NAMES, *SDK_NAMES])
def test_status(server: FaultServer, model: BaseChatModel, wire: str, status: int):
    """Each status reaches the client as that status, streamed or not, in the provider's own body."""
    server.always(Fault.status(status))
    for stream in (False, True):
        error = failure(model, stream=stream)
        assert (type(error).__name__, error.status_code) == (class_name(wire, status), status)
        if wire == "openai":
            assert set(error.body) == {"message", "type", "param", "code"}
        elif wire == "anthropic":
            assert set(error.body) == {"type", "error", "request_id"} and error.body["type"] == "error"
            assert set(error.body["error"]) == {"type", "message"}
        else:
            assert error.error and "{" not in error.error


def test_status_overrides(server: FaultServer):
    """Message, type, code, headers, Retry-After and the whole body may be set by the test."""
    model = model_of(server, "openai")
    server.schedule(
        Fault.status(429, retry_after="1.5", headers={"X-Own": "1"}, code="c", type="t", message="m"),
        Fault.status(502, body="<html>Bad Gateway</html>", headers={"content-type": "text/html"}),
        Fault.status(418, body={"error": {"message": "teapot"}}),
    )
    error = failure(model)
    assert (error.code, error.type, error.body["message"]) == ("c", "t", "m")
    assert error.response.headers["retry-after"] == "1.5" and error.response.headers["x-own"] == "1"
    error = failure(model)
    assert error.response.text == "<html>Bad Gateway</html>" and error.response.headers["content-type"] == "text/html"
    assert failure(model).body == {"message": "teapot"}
    server.schedule(Fault.status(502, body=""))
    assert failure(model).response.text == ""


SEVEN_SECONDS = {  # verified by hand; None: a date, checked below
    "seconds": {"retry-after": "7"},
    "decimal": {"retry-after": "7.0"},
    "http-date": {"retry-after": None},
    "ms": {"retry-after-ms": "7000"},
    "x-ms": {"x-ms-retry-after-ms": "7000"},
    "openai-reset": {
        "x-ratelimit-limit-requests": "500",
        "x-ratelimit-remaining-requests": "0",
        "x-ratelimit-reset-requests": "7s",
        "x-ratelimit-limit-tokens": "150000",
        "x-ratelimit-remaining-tokens": "149984",
        "x-ratelimit-reset-tokens": "6ms",
    },
    "anthropic-reset": {
        "anthropic-ratelimit-requests-limit": "50",
        "anthropic-ratelimit-requests-remaining": "0",
        "anthropic-ratelimit-requests-reset": None,
    },
    "ietf": {"ratelimit": '"default";r=0;t=7'},
    "gemini": {},
    "message": {},
    "none": {},
}


@pytest.mark.parametrize("form", RETRY_FORMS)
def test_retry_after_forms(server: FaultServer, form: str):
    """Each form of Retry-After says seven seconds in its own place, and no other form speaks beside it."""
    server.schedule(Fault.rate_limited(form, 7))
    before = datetime.now(UTC)
    answer = httpx.post(server.url + "/v1/chat/completions", json={"model": "m", "messages": []})
    assert answer.status_code == 429
    hints = {name: value for name, value in answer.headers.items() if "retry" in name or "ratelimit" in name}
    assert hints.keys() == SEVEN_SECONDS[form].keys()
    for name, value in SEVEN_SECONDS[form].items():
        if value is None:
            said = hints[name]
            date = parsedate_to_datetime(said) if form == "http-date" else datetime.fromisoformat(said)
            assert said.endswith("GMT" if form == "http-date" else "Z")
            assert (date - before).total_seconds() >= 7
        else:
            assert hints[name] == value
    assert ("Please try again in 7s." in answer.text) == (form == "message")
    details = answer.json()["error"].get("details")
    assert (details == [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "7s"}]) == (
        form == "gemini"
    )


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (0.02, "20ms"), (0.0065, "6.5ms"), (1.5, "1.5s"), (60, "1m0s"), (360, "6m0s"), (3661, "1h1m1s")],
)
def test_go_durations(seconds: float, text: str):
    """Durations are written as Go prints them."""
    assert go_duration(seconds) == text


NAMED = {  # fault: class, status and telling word, for openai, anthropic, ollama
    "quota_exhausted": (
        ("OpenAIRateLimitError", 429, "insufficient_quota"),
        ("AnthropicRateLimitError", 429, "enforced_spend_limit_reached"),
        ("ResponseError", 429, "usage limit"),
    ),
    "overloaded": (
        ("OpenAIAPIError", 503, "server_is_overloaded"),
        ("AnthropicOverloadedError", 529, "overloaded_error"),
        ("ResponseError", 503, "server busy"),
    ),
    "context_overflow": (
        (
            "OpenAIInvalidRequestError",
            400,
            "context_length_exceeded",
        ),  # openai 3.x hides the code from LangChain's check
        ("AnthropicContextOverflowError", 400, "prompt is too long"),
        ("ResponseError", 400, "context length"),
    ),
    "content_filter": (
        ("OpenAIInvalidRequestError", 400, "content_filter"),
        ("AnthropicInvalidRequestError", 400, "content filtering policy"),
        ("ResponseError", 400, "content policy"),
    ),
}


@pytest.mark.parametrize("name", NAMED)
def test_named_refusals(server: FaultServer, model: BaseChatModel, wire: str, name: str):
    """Quota, overload, overflow and filter come with the status and the code that this provider uses for them."""
    server.schedule(getattr(Fault, name)())
    error = failure(model)
    expected, status, word = NAMED[name][WIRES.index(wire)]
    assert (type(error).__name__, error.status_code) == (expected, status)
    assert word in (error.error if wire == "ollama" else json.dumps(error.body))


def test_filtered_answer(server: FaultServer, wire: str, model: BaseChatModel):
    """A filter may also speak through the finish reason of an HTTP 200, where the wire has one."""
    server.schedule(Fault.content_filter(in_answer=True))
    metadata = model.invoke("hi").response_metadata
    said = metadata.get("finish_reason") or metadata.get("stop_reason") or metadata.get("done_reason")
    assert said == {"openai": "content_filter", "anthropic": "refusal", "ollama": "stop"}[wire]


# ── Silence, cuts and nonsense ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("stream", [False, True])
def test_hang(server: FaultServer, wire: str, *, stream: bool):
    """A hung request ends by the client's own timeout, and the record tells that the client left."""
    server.schedule(Fault.hang())
    error = failure(model_of(server, wire, SHORT), stream=stream)
    assert type(error).__name__ == {"openai": "OpenAITimeoutError", "anthropic": "AnthropicTimeoutError"}.get(
        wire, "ReadTimeout"
    )
    [request] = server.requests
    assert request.wait_ended() and request.disconnected and request.outcome == "hang"


@pytest.mark.parametrize("chunks", [0, 2])
def test_hang_after(server: FaultServer, wire: str, chunks: int):
    """A stalled stream shows its first chunks, then silence until the client's timeout."""
    server.schedule(Fault.hang_after(chunks))
    shown, error = streamed(model_of(server, wire, SHORT))
    assert len(shown) == chunks
    assert type(error).__name__ == {"openai": "OpenAITimeoutError"}.get(wire, "ReadTimeout")
    assert server.requests[0].wait_ended() and server.requests[0].disconnected


def test_hang_for_a_while(server: FaultServer, model: BaseChatModel, wire: str):
    """A hang with a length ends with a closed connection and no answer, and not by the client."""
    server.schedule(Fault.hang(0.02))
    error = failure(model)
    assert (
        type(error).__name__
        == {
            "openai": "OpenAIConnectionError",
            "anthropic": "AnthropicConnectionError",
            "ollama": "RemoteProtocolError",
        }[wire]
    )
    assert server.requests[0].wait_ended() and not server.requests[0].disconnected


@pytest.mark.parametrize("fault", [Fault.hang(), Fault.hang_after(0), Fault.keepalive(0.02), Fault.slow(30)])
async def test_cancelled_call(server: FaultServer, wire: str, fault: Fault):
    """A cancelled async call is noticed at once, whatever the server was waiting for."""
    server.schedule(fault)
    call = asyncio.ensure_future(model_of(server, wire).ainvoke("hi"))
    [request] = await asyncio.to_thread(server.wait_for, 1)
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)
    assert await asyncio.to_thread(request.wait_ended) and request.disconnected


def test_keepalive(server: FaultServer, wire: str):
    """Signs of life keep a read timeout from firing and never are content."""
    server.schedule(Fault.keepalive(interval=0.02, seconds=0.6))
    shown, _ = streamed(model_of(server, wire, timeout=0.4))
    assert shown == []
    assert server.requests[0].wait_ended() and not server.requests[0].disconnected


def test_delay_from_a_function(server: FaultServer):
    """How late an answer begins may depend on the request: one that takes for ever delays no other."""
    asked: list[str] = []

    def delay(record: RecordedRequest) -> float:
        asked.append(record.body["messages"][-1]["content"])
        return 30.0 if asked[-1] == "slow" else 0.0

    server.answer("Ok.", delay=delay)
    patient, impatient = model_of(server, "openai"), model_of(server, "openai", SHORT)
    assert patient.invoke("quick").text == "Ok."
    with pytest.raises(Exception, match="timed out"):
        impatient.invoke("slow")
    assert patient.invoke("quick").text == "Ok."
    assert asked == ["quick", "slow", "quick"]


def test_slow(server: FaultServer, wire: str):
    """A slow answer is too late for an impatient client, and whole for a patient one."""
    server.schedule(Fault.slow(30), Fault.slow(0.01, chunk_delay=0.001))
    assert "Timeout" in type(failure(model_of(server, wire, SHORT))).__name__
    assert "".join(streamed(model_of(server, wire))[0]) == GREETING


@pytest.mark.parametrize("stream", [False, True])
def test_reset(server: FaultServer, model: BaseChatModel, wire: str, *, stream: bool):
    """A reset before any byte is a connection error."""
    server.schedule(Fault.reset())
    error = failure(model, stream=stream)
    names = {"openai": "OpenAIConnectionError", "anthropic": "AnthropicConnectionError", "ollama": "ReadError"}
    assert type(error).__name__ == names[wire]
    while error.__cause__:
        error = error.__cause__
    assert "reset by peer" in str(error)


def test_reset_after(server: FaultServer, model: BaseChatModel, wire: str):
    """A reset in mid-stream loses nothing that was sent before it."""
    server.schedule(Fault.reset_after(2))
    shown, error = streamed(model)
    assert shown == ["Hello", " from"]
    assert type(error).__name__ == {"openai": "OpenAIConnectionError"}.get(wire, "ReadError")
    server.schedule(Fault.reset_after(2))
    names = {"openai": "OpenAIConnectionError", "anthropic": "AnthropicConnectionError", "ollama": "ReadError"}
    assert type(failure(model)).__name__ == names[wire]


def test_truncate(server: FaultServer, model: BaseChatModel, wire: str):
    """A truncated stream ends without an error and without a finish reason; a truncated body is no JSON."""
    server.schedule(Fault.truncate(2))
    chunks = list(model.stream("hi"))
    assert "".join(chunk.text for chunk in chunks) == "Hello from"
    reasons = {"finish_reason", "stop_reason", "done_reason"}
    assert not any(reasons & chunk.response_metadata.keys() for chunk in chunks)
    server.schedule(Fault.truncate(2))
    if wire == "ollama":  # streams in any case
        assert model.invoke("hi").text == "Hello from"
    else:
        assert isinstance(failure(model), json.JSONDecodeError)


def test_no_done(server: FaultServer, wire: str):
    """Without the end mark the content is whole; the finish reason is there, save on Ollama, where the two are one line."""
    server.schedule(Fault.no_done())
    body = {"model": "m", "messages": [], "stream": True}
    path = {"openai": "/v1/chat/completions", "anthropic": "/v1/messages", "ollama": "/api/chat"}[wire]
    text = httpx.post(server.url + path, json=body).text
    assert "server." in text
    assert not any(mark in text for mark in ("[DONE]", "message_stop", '"done":true'))
    assert any(reason in text for reason in ('"finish_reason":"stop"', '"stop_reason":"end_turn"')) == (
        wire != "ollama"
    )


def test_malformed(server: FaultServer, model: BaseChatModel):
    """Garbage after two chunks, or for a body, is a JSONDecodeError in every client."""
    server.schedule(Fault.malformed(2), Fault.malformed())
    shown, error = streamed(model)
    assert shown == ["Hello", " from"] and isinstance(error, json.JSONDecodeError)
    assert isinstance(failure(model), json.JSONDecodeError)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("overloaded", ("server_is_overloaded", "overloaded_error", "server busy")),
        ("server_error", ("server_error", "api_error", "llama runner")),
    ],
)
def test_in_band_error(server: FaultServer, model: BaseChatModel, wire: str, kind: str, words: tuple[str, ...]):
    """An error inside an HTTP 200 stream comes after the chunks, without a telling status."""
    server.schedule(Fault.in_band_error(2, kind))
    shown, error = streamed(model)
    assert shown == ["Hello", " from"]
    expected = {"openai": ("APIError", None), "anthropic": ("APIStatusError", 200), "ollama": ("ResponseError", -1)}
    assert (type(error).__name__, getattr(error, "status_code", None)) == expected[wire]
    assert words[WIRES.index(wire)] in str(getattr(error, "body", error))


# ── Schedules, records, life ─────────────────────────────────────────────────────────────────────────────────────────


def test_schedule_then_always(server: FaultServer):
    """Scheduled faults are played once each, in order; then `always` rules, and `always(ok)` heals."""
    model = model_of(server, "openai")
    server.always(Fault.status(500))
    server.schedule(Fault.ok("first"), Fault.status(429))
    assert model.invoke("hi").text == "first"
    assert [failure(model).status_code for _ in range(3)] == [429, 500, 500]
    server.always(Fault.ok())
    assert model.invoke("hi").text == GREETING
    assert [r.outcome for r in server.requests] == ["ok", "status(429)", "status(500)", "status(500)", "ok"]


def test_each_fault_is_played_once_among_threads(server: FaultServer):
    """Requests that arrive together share the schedule without loss or repetition."""
    server.schedule(*[Fault.status(503)] * 10)
    body = {"model": "m", "messages": []}
    with ThreadPoolExecutor(8) as pool:
        asked = pool.map(lambda _: httpx.post(server.url + "/v1/messages", json=body).status_code, range(20))
        assert sorted(asked) == [200] * 10 + [503] * 10


def test_flaky_is_repeatable():
    """The same seed gives the same faults in the same order; probabilities 0 and 1 are never and always."""

    def outcomes(probability: float, seed: int) -> list[str]:
        flaky = Fault.flaky(probability, Fault.reset(), seed)
        return [flaky.resolve().name for _ in range(20)]

    assert outcomes(0.5, 1) == outcomes(0.5, 1) != outcomes(0.5, 2)
    assert set(outcomes(0.5, 1)) == {"ok", "reset"}
    assert set(outcomes(0, 1)) == {"ok"} and set(outcomes(1, 1)) == {"reset"}
    with pytest.raises(ValueError, match="between 0 and 1"):
        Fault.flaky(50, Fault.reset())


def test_record(server: FaultServer):
    """A record holds what the client sent, and one number for one kept-alive connection."""
    server.schedule(Fault.status(500))  # an error keeps the connection too
    with httpx.Client() as client:
        for stream in (False, True):
            body = {"model": "m", "messages": [], "stream": stream}
            client.post(server.url + "/v1/chat/completions?x=1", json=body, headers={"X-Api-Key": "k"})
    first, second = server.requests
    assert (first.wire, first.method, first.path) == ("openai", "POST", "/v1/chat/completions?x=1")
    assert first.headers["x-api-key"] == "k" and first.body == {"model": "m", "messages": [], "stream": False}
    assert (first.stream, second.stream) == (False, True) and first.at <= second.at
    assert first.connection == second.connection
    assert first.ended and not first.disconnected
    server.reset_log()
    assert server.count == 0


def test_wait_for(server: FaultServer):
    """Waiting ends with the request that completes the number, or says how many came."""
    seen: list[RecordedRequest] = []
    waiter = threading.Thread(target=lambda: seen.extend(server.wait_for(2)))
    waiter.start()
    for _ in range(2):
        httpx.post(server.url + "/api/chat", json={"stream": False})
    waiter.join(5)
    assert len(seen) == 2
    with pytest.raises(TimeoutError, match="2 of 3 requests"):
        server.wait_for(3, timeout=0.01)


def test_refuse_and_accept(server: FaultServer, model: BaseChatModel, wire: str):
    """A refusing server turns away even a client with a kept connection, and is found again on the same port."""
    url = server.url
    model.invoke("hi")
    server.refuse()
    server.refuse()
    names = {"openai": "OpenAIConnectionError", "anthropic": "AnthropicConnectionError", "ollama": "ConnectError"}
    assert type(failure(model)).__name__ == names[wire]
    server.accept()
    assert model.invoke("hi").text == GREETING and server.url == url
    assert server.count == 2


def test_refuse_lets_running_exchanges_end(server: FaultServer):
    """Refusing touches new connections only: an answer under way arrives whole."""
    server.schedule(Fault.slow(0.1))
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(model_of(server, "openai").invoke, "hi")
        server.wait_for(1)
        server.refuse()
        assert call.result(5).text == GREETING


def test_kill_and_revive(server: FaultServer):
    """Killing resets what is open, idle or not, and refuses what comes; a start revives the same port."""
    server.schedule(Fault.hang())
    with socket.create_connection(("127.0.0.1", server.port)) as idle, ThreadPoolExecutor(1) as pool:
        call = pool.submit(failure, model_of(server, "ollama"))
        [request] = server.wait_for(1)
        server.kill()
        assert type(call.result(5)).__name__ == "ReadError"
        idle.settimeout(5)
        with pytest.raises(ConnectionResetError):
            idle.recv(1)
        assert request.ended and not request.disconnected
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", server.port))
    server.start()
    assert model_of(server, "ollama").invoke("hi").text == GREETING


def test_stop_is_idempotent_and_leaves_no_thread():
    """A stopped server ends hung exchanges, may be stopped again, and keeps no thread."""
    before = threading.active_count()
    server = FaultServer()
    server.start()
    server.start()
    server.schedule(Fault.hang())
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(failure, model_of(server, "openai"))
        server.wait_for(1)
        server.stop()
        server.stop()
        assert type(call.result(5)).__name__ == "OpenAIConnectionError"
    assert threading.active_count() == before


def test_a_stopped_server_gives_its_port_back():
    """After a stop the port is free for others, and a new start takes the same one if it still is."""
    server = FaultServer()
    with server:
        port = server.port
    with socket.socket() as other:
        other.bind(("127.0.0.1", port))
    with server:
        assert server.port == port
        assert model_of(server, "openai").invoke("hi").text == GREETING


def test_nothing_is_printed(server: FaultServer, capfd: pytest.CaptureFixture[str]):
    """Clients that vanish, resets and unknown paths print nothing."""
    faults = [Fault.hang(), Fault.reset(), Fault.reset_after(1), Fault.slow(30), Fault.hang_after(1)]
    server.schedule(*faults)
    model = model_of(server, "openai", SHORT)
    assert all(streamed(model)[1] for _ in faults)
    with socket.create_connection(("127.0.0.1", server.port)) as rude:
        rude.sendall(b"POST /v1/messages HTTP/1.1\r\ncontent-length: 100\r\n\r\n{")
    assert "serves POST" in httpx.get(server.url + "/v1/models").text
    server.stop()
    assert capfd.readouterr() == ("", "")


def test_wrong_words_are_explained(server: FaultServer):
    """An unknown wire or form is an error that lists what there is."""
    with pytest.raises(ValueError, match="openai, anthropic, ollama"):
        server.base_url("gemini")
    with pytest.raises(ValueError, match="http-date"):
        Fault.rate_limited("minutes")


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"type": "string"}, "x"),
        ({"type": "string", "minLength": 3}, "xxx"),
        ({"enum": ["b", "a"]}, "b"),
        ({"const": 4}, 4),
        ({"type": "integer", "exclusiveMinimum": 9}, 10),
        ({"type": "number", "maximum": -2}, -2),
        ({"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 0.5}, 0.25),
        ({"anyOf": [{"type": "null"}, {"type": "boolean"}]}, True),
        ({"type": "array", "items": {"type": "integer"}, "minItems": 2}, [1, 1]),
        ({"type": "object", "properties": {"a": {"type": "null"}, "b": {}}, "required": ["a"]}, {"a": None}),
        ({"$ref": "#/$defs/D", "$defs": {"D": {"allOf": [{"type": "string"}, {"format": "date"}]}}}, "2026-01-01"),
    ],
)
def test_minimal_objects(schema: dict, value: object):
    """The object for a schema is the smallest that fits it."""
    assert minimal(schema) == value


def test_hints_fill_what_is_free():
    """Numbers and quoted words of the user's message are taken in order, if the schema allows them."""
    schema = {
        "type": "object",
        "properties": {k: {"type": t} for k, t in zip("abc", ("integer", "string", "number"), strict=True)},
    }
    hints = Hints("add -4 for '你好啊集团' at 2.5, it's late")
    assert minimal(schema | {"required": ["a", "b", "c"]}, hints) == {"a": -4, "b": "你好啊集团", "c": 2.5}


class TestStandardSuite(ChatModelIntegrationTests):
    """LangChain's standard integration tests pass against the server with a bare ChatOpenAI: a control for our own."""

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def _running(cls) -> Iterator[None]:
        with FaultServer() as server:
            cls.url = server.base_url("openai")
            yield

    chat_model_class = ChatOpenAI
    supports_json_mode = True
    model_override_value = "gpt-other"

    @property
    def chat_model_params(self) -> dict:
        """A client that reports usage of streams too, which ChatOpenAI does by itself for api.openai.com only."""
        return {"model": "gpt-4.1", "base_url": self.url, "api_key": "test", "max_retries": 0, "stream_usage": True}


def test_a_request_that_makes_no_sense_gets_a_400():
    """A body whose fields have the wrong types is refused with HTTP 400, and the server goes on serving."""
    with FaultServer() as server:
        for body in ({"tools": 7, "messages": [], "model": "m"}, {"messages": 3, "model": "m"}):
            answer = httpx.post(f"{server.base_url('openai')}/chat/completions", json=body)
            assert answer.status_code == 400
            assert "can't read this request" in answer.json()["error"]["message"]
        good = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}
        assert httpx.post(f"{server.base_url('openai')}/chat/completions", json=good).status_code == 200
