"""Every row of DESIGN section 4, told by the exceptions that the SDKs really raise."""

from __future__ import annotations

import asyncio
import errno
import http.client
import json
import math
import socket
import ssl

import anthropic
import httpx
import httpx2
import ollama
import openai
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_anthropic.chat_models import AnthropicContextOverflowError, AnthropicOverloadedError
from langchain_core.exceptions import (
    ContextOverflowError,
    ModelAPIError,
    ModelAuthenticationError,
    ModelConnectionError,
    ModelInvalidRequestError,
    ModelNotFoundError,
    ModelPermissionDeniedError,
    ModelRateLimitError,
    ModelTimeoutError,
)
from langchain_openai.chat_models.base import (
    OpenAIConnectionError,
    OpenAIRateLimitError,
    OpenAIRefusalError,
    OpenAITimeoutError,
)
from langgraph.errors import GraphInterrupt, ParentCommand
from openai.types.responses import ResponseError

from langchain_resilient.engine.classify import ErrorKind, Failure, Headroom, classify, classify_error

K = ErrorKind
WALL = 1_700_000_000.0
POST = httpx.Request("POST", "https://api.example/v1")
POST2 = httpx2.Request("POST", "https://api.example/v1")


def openai_error(status, error, headers=None):
    """Build what the openai SDK raises for this response."""
    response = httpx2.Response(status, json={"error": error}, headers=headers, request=POST2)
    return openai.OpenAI(api_key="k")._make_status_error_from_response(response)


def anthropic_error(status, kind, message="no", headers=None, **details):
    """Build what the anthropic SDK raises for this response, a status 200 with an error in the stream included."""
    error = {"type": kind, "message": message, **({"details": details} if details else {})}
    response = httpx2.Response(status, json={"type": "error", "error": error}, headers=headers, request=POST2)
    client = anthropic.Anthropic(api_key="k")
    return client._make_status_error(f"Error code: {status}", body=response.json(), response=response)


def closed_by(module, name):
    """What httpx makes of a connection that anyio found closed."""
    error = httpx.ReadError("")
    error.__cause__ = duck(module, name)
    return error


def duck(module, name, base=Exception, /, **attributes):
    """Build an exception of a package that is not installed: only its class's module and name, and its attributes, count."""
    bases = base if isinstance(base, tuple) else (base,)
    error = type(name, bases, {"__module__": module})(attributes.pop("text", ""))
    for key, value in attributes.items():
        setattr(error, key, value)
    return error


def boto(status, code, message="", headers=None):
    """Build a botocore ClientError: its `response` is a dict."""
    response = {"Error": {"Code": code, "Message": message},
                "ResponseMetadata": {"HTTPStatusCode": status, "HTTPHeaders": headers or {}}}  # fmt: skip
    return duck("botocore.exceptions", "ClientError", text=f"An error occurred ({code}): {message}", response=response)


def google(code, status, message="", details=(), headers=None):
    """Build a google-genai APIError."""
    body = {"error": {"code": code, "message": message, "status": status, "details": list(details)}}
    response = httpx.Response(code, json=body, headers=headers, request=POST)
    return duck("google.genai.errors", "ClientError", text=f"{code} {status}. {body}", code=code, status=status, details=body,
                message=message, response=response)  # fmt: skip


def litellm(name, status, message="", headers=None):
    """Build a LiteLLM error: its response has no headers, `litellm_response_headers` has."""
    response = httpx.Response(status, request=POST)
    return duck("litellm.exceptions", name, status_code=status, message=message, response=response,
                litellm_response_headers=headers)  # fmt: skip


def quota(quota_id, delay):
    """Build the details of Gemini's 429."""
    return [
        {"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": [{"quotaId": quota_id}]},
        {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": delay},
    ]


def raised(error, cause=None, *, context=None):
    """Raise as real code does, so that Python itself links cause or context."""
    try:
        if cause is not None:
            raise error from cause
        try:
            raise context
        except BaseException:
            raise error  # noqa: B904  # the context alone is the case
    except BaseException as caught:
        return caught


TOO_LARGE = (
    "Request too large for gpt-4o on tokens per min (TPM): Limit 30000, Requested 36000. The input must be reduced."
)
TPM = "Rate limit reached for gpt-4o on tokens per min (TPM): Limit 30000, Used 29000, Requested 2000. Please try again in 2s."
RPD = "Rate limit reached for gpt-4o on requests per day (RPD): Limit 200, Used 200, Requested 1. Please try again in 7m12s."
GEMINI_TEXT = "You exceeded your current quota, please check your plan and billing details. Please retry in 46s."

RATE_LIMITS = [
    (openai_error(429, {"code": "rate_limit_exceeded", "type": "tokens", "message": TPM}), K.RATE_LIMITED, 2.0),
    (openai_error(429, {"code": "slow_down", "message": "ramp"}), K.RATE_LIMITED, None),
    (openai_error(429, {"message": "x"}, {"retry-after": "7"}), K.RATE_LIMITED, 7.0),
    (openai_error(429, {"message": "x"}, {"retry-after": "-1"}), K.RATE_LIMITED, None),
    (openai_error(429, {"code": "insufficient_quota", "message": "You exceeded your current quota"}), K.QUOTA_EXHAUSTED, None),
    (openai_error(429, {"code": "credit_balance_exhausted"}), K.QUOTA_EXHAUSTED, None),
    (openai_error(429, {"message": "You exceeded your current quota, please check your plan"}), K.QUOTA_EXHAUSTED, None),
    (openai_error(429, {"code": "rate_limit_exceeded", "message": RPD}), K.QUOTA_EXHAUSTED, 432.0),
    (openai_error(429, {"code": "rate_limit_exceeded", "message": TOO_LARGE}), K.CONTEXT_OVERFLOW, None),
    (openai_error(402, {"message": "pay"}), K.QUOTA_EXHAUSTED, None),
    (openai_error(403, {"message": "Your team has reached its monthly spending limit."}), K.QUOTA_EXHAUSTED, None),
    (anthropic_error(429, "rate_limit_error", headers={"retry-after": "12"}), K.RATE_LIMITED, 12.0),
    (anthropic_error(429, "rate_limit_error", error_code="enforced_spend_limit_reached"), K.QUOTA_EXHAUSTED, None),
    (anthropic_error(402, "billing_error"), K.QUOTA_EXHAUSTED, None),
    (anthropic_error(400, "invalid_request_error", "Your credit balance is too low to access the API"), K.QUOTA_EXHAUSTED, None),
    (anthropic_error(400, "invalid_request_error", "You have reached your specified API usage limits. You will regain access on"
                     " 2023-11-15 at 00:00 UTC."), K.QUOTA_EXHAUSTED, 6400.0),
    (google(429, "RESOURCE_EXHAUSTED", GEMINI_TEXT, quota("GenerateRequestsPerMinutePerProject", "46s")), K.RATE_LIMITED, 46.0),
    (google(429, "RESOURCE_EXHAUSTED", GEMINI_TEXT, quota("GenerateRequestsPerDayPerProject", "10h")), K.QUOTA_EXHAUSTED, 36_000.0),
    (google(429, "RESOURCE_EXHAUSTED", "Quota exceeded for metric: x, limit: 0, model: m"), K.QUOTA_EXHAUSTED, None),
    (boto(429, "ThrottlingException", "Too many requests, please wait"), K.RATE_LIMITED, None),
    (boto(400, "ThrottlingException", "Rate exceeded"), K.RATE_LIMITED, None),
    (boto(429, "ThrottlingException", "Too many tokens per day, please wait"), K.QUOTA_EXHAUSTED, None),
    (boto(429, "TooManyRequestsException", headers={"retry-after": "3"}), K.RATE_LIMITED, 3.0),
    (boto(400, "ServiceQuotaExceededException"), K.QUOTA_EXHAUSTED, None),
    (litellm("RateLimitError", 429, "litellm.RateLimitError: x", {"retry-after": "20"}), K.RATE_LIMITED, 20.0),
    (litellm("RateLimitError", 429, f"GeminiException - {GEMINI_TEXT} 'quotaId': 'RequestsPerDay'"), K.QUOTA_EXHAUSTED, 46.0),
    (duck("litellm.exceptions", "BudgetExceededError", text="Budget has been exceeded"), K.QUOTA_EXHAUSTED, None),
    (duck("litellm.types.router", "RouterRateLimitError", text="No deployments available. Try again in 5 seconds."), K.RATE_LIMITED, 5.0),
    (ValueError({"message": "Provider returned error", "code": 429}), K.RATE_LIMITED, None),
    (Exception("Too Many Requests, try again in 3s"), K.RATE_LIMITED, 3.0),
]  # fmt: skip


@pytest.mark.parametrize(("error", "kind", "seconds"), RATE_LIMITS)
def test_limits_and_quotas(error, kind, seconds):
    """A limit that passes by itself, one that somebody must pay for, and a request that can never fit are told apart."""
    failure = classify(error, wall=WALL)
    assert (failure.kind, failure.retry_after) == (kind, seconds)


def test_error_of_the_responses_api():
    """OpenAI's Responses API tells an error under HTTP 200 as an object, which langchain-openai raises in a ValueError."""
    error = ValueError(ResponseError(code="rate_limit_exceeded", message="Try again in 3s"))
    assert classify(error, wall=WALL)[:5] == (K.RATE_LIMITED, 3.0, None, None, "rate_limit_exceeded")


def stream_error(**error):
    """Build what the openai SDK raises for an error event in a stream."""
    return openai.APIError("An error occurred during streaming", request=POST2, body=error)


KINDS = [
    # overloaded
    (openai_error(503, {"code": "server_is_overloaded"}), K.OVERLOADED),
    (anthropic_error(529, "overloaded_error"), K.OVERLOADED),
    (anthropic_error(200, "overloaded_error"), K.OVERLOADED),
    (stream_error(code="server_is_overloaded", type="server_error"), K.OVERLOADED),
    (boto(503, "ServiceUnavailableException"), K.OVERLOADED),
    (boto(429, "ModelNotReadyException"), K.OVERLOADED),
    (google(503, "UNAVAILABLE", "The model is overloaded."), K.OVERLOADED),
    (ollama.ResponseError("server busy, please try again. maximum pending requests exceeded", 503), K.OVERLOADED),
    (litellm("ServiceUnavailableError", 503), K.OVERLOADED),
    # server errors
    (openai_error(500, {"type": "server_error"}), K.SERVER_ERROR),
    (openai_error(502, {}), K.SERVER_ERROR),
    (openai_error(504, {}), K.SERVER_ERROR),
    (openai_error(520, {}), K.SERVER_ERROR),
    (stream_error(type="server_error", code=None), K.SERVER_ERROR),
    (stream_error(message="?"), K.SERVER_ERROR),
    (stream_error(code=502, message="upstream"), K.SERVER_ERROR),
    (anthropic_error(200, "api_error"), K.SERVER_ERROR),
    (anthropic_error(500, "api_error"), K.SERVER_ERROR),
    (ollama.ResponseError("llama runner process has terminated"), K.SERVER_ERROR),
    (ollama.ResponseError("boom", 500), K.SERVER_ERROR),
    (boto(424, "ModelErrorException"), K.SERVER_ERROR),
    (boto(500, "InternalServerException"), K.SERVER_ERROR),
    (google(500, "INTERNAL"), K.SERVER_ERROR),
    (litellm("APIConnectionError", 500), K.SERVER_ERROR),
    (json.JSONDecodeError("Expecting value", "<html>", 0), K.SERVER_ERROR),
    (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"), K.SERVER_ERROR),
    (openai.APIResponseValidationError(httpx2.Response(200, request=POST2), None), K.SERVER_ERROR),
    (ValueError("No generation chunks were returned"), K.SERVER_ERROR),
    (TypeError("Received response with null value for 'choices'."), K.SERVER_ERROR),
    # streams and time
    (boto(424, "modelStreamErrorException"), K.STREAM_INTERRUPTED),
    (litellm("MidStreamFallbackError", 503), K.STREAM_INTERRUPTED),
    (openai_error(408, {}), K.TIMEOUT),
    (boto(408, "ModelTimeoutException"), K.TIMEOUT),
    (litellm("Timeout", 408), K.TIMEOUT),
    (stream_error(code="timeout"), K.TIMEOUT),
    (TimeoutError(), K.TIMEOUT),
    (duck("google.api_core.exceptions", "DeadlineExceeded", grpc_status_code=duck("x", "Y", name="DEADLINE_EXCEEDED")), K.TIMEOUT),
    # credentials
    (openai_error(401, {"code": "invalid_api_key"}), K.AUTH),
    (anthropic_error(401, "authentication_error"), K.AUTH),
    (google(400, "INVALID_ARGUMENT", "API key not valid.", [{"reason": "API_KEY_INVALID"}]), K.AUTH),
    (boto(403, "ExpiredTokenException"), K.AUTH),
    (duck("botocore.exceptions", "NoCredentialsError", text="Unable to locate credentials"), K.AUTH),
    (duck("google.auth.exceptions", "DefaultCredentialsError"), K.AUTH),
    (openai_error(403, {"code": "unsupported_country_region_territory"}), K.PERMISSION),
    (anthropic_error(403, "permission_error"), K.PERMISSION),
    (boto(403, "AccessDeniedException"), K.PERMISSION),
    (google(400, "FAILED_PRECONDITION", "User location is not supported for the API use."), K.PERMISSION),
    (openai_error(404, {"code": "model_not_found"}), K.NOT_FOUND),
    (openai_error(403, {"code": "model_not_found"}), K.NOT_FOUND),
    (openai_error(410, {}), K.NOT_FOUND),
    (ollama.ResponseError("model 'x' not found", 404), K.NOT_FOUND),
    (boto(400, "ValidationException", "The provided model identifier is invalid."), K.NOT_FOUND),
    # what was asked
    (openai_error(400, {"code": "context_length_exceeded", "type": "invalid_request_error"}), K.CONTEXT_OVERFLOW),
    (openai_error(400, {"message": "This model's maximum context length is 8192 tokens."}), K.CONTEXT_OVERFLOW),
    (anthropic_error(400, "invalid_request_error", "prompt is too long: 210000 tokens > 200000 maximum"), K.CONTEXT_OVERFLOW),
    (anthropic_error(413, "request_too_large"), K.CONTEXT_OVERFLOW),
    (openai_error(413, {"code": "rate_limit_exceeded", "message": "Request too large"}), K.CONTEXT_OVERFLOW),
    (boto(400, "ValidationException", "Input is too long for requested model."), K.CONTEXT_OVERFLOW),
    (google(400, "INVALID_ARGUMENT", "The input token count (9) exceeds the maximum number of tokens allowed (8)."), K.CONTEXT_OVERFLOW),
    (ollama.ResponseError("the input length exceeds the context length", 400), K.CONTEXT_OVERFLOW),
    (litellm("ContextWindowExceededError", 400), K.CONTEXT_OVERFLOW),
    (ContextOverflowError("x"), K.CONTEXT_OVERFLOW),
    (openai_error(400, {"code": "content_filter", "innererror": {"code": "ResponsibleAIPolicyViolation"}}), K.CONTENT_POLICY),
    (openai_error(400, {"code": "content_policy_violation"}), K.CONTENT_POLICY),
    (openai_error(400, {"code": "invalid_prompt", "message": "flagged as potentially violating our usage policy"}), K.CONTENT_POLICY),
    (openai_error(403, {"message": "requires moderation and your input was flagged"}), K.CONTENT_POLICY),
    (openai.ContentFilterFinishReasonError(), K.CONTENT_POLICY),
    (OpenAIRefusalError("I can't help with that"), K.CONTENT_POLICY),
    (duck("langchain_core.exceptions", "ModelRefusalError"), K.CONTENT_POLICY),
    (litellm("ContentPolicyViolationError", 400), K.CONTENT_POLICY),
    (openai_error(400, {"type": "invalid_request_error", "message": "Unknown parameter: 'x'."}), K.CLIENT_ERROR),
    (openai_error(409, {}), K.CLIENT_ERROR),
    (openai_error(422, {}), K.CLIENT_ERROR),
    (openai_error(418, {}), K.CLIENT_ERROR),
    (stream_error(type="invalid_request_error", code="rate_limit_exceeded"), K.RATE_LIMITED),
    # langchain_core's own classes, where nothing else speaks
    (ModelRateLimitError("x"), K.RATE_LIMITED),
    (ModelRateLimitError("insufficient_quota"), K.QUOTA_EXHAUSTED),
    (ModelAPIError("x"), K.SERVER_ERROR),
    (ModelConnectionError("x"), K.SERVER_ERROR),
    (ModelTimeoutError("x"), K.TIMEOUT),
    (ModelAuthenticationError("x"), K.AUTH),
    (ModelPermissionDeniedError("x"), K.PERMISSION),
    (ModelNotFoundError("x"), K.NOT_FOUND),
    (ModelInvalidRequestError("x"), K.CLIENT_ERROR),
    # the caller
    (asyncio.CancelledError(), K.CANCELLED),
    (KeyboardInterrupt(), K.CANCELLED),
    (SystemExit(1), K.CANCELLED),
    (GeneratorExit(), K.CANCELLED),
    (GraphInterrupt(()), K.CANCELLED),
    (ParentCommand(None), K.CANCELLED),
    # ours
    (RuntimeError("Event loop is closed"), K.LOCAL),
    (RuntimeError("Task <Task> got Future <Future> attached to a different loop"), K.LOCAL),
    (RuntimeError("Cannot send a request, as the client has been closed."), K.LOCAL),
    (OSError(errno.EMFILE, "Too many open files"), K.LOCAL),
    (OSError(errno.EBADF, "Bad file descriptor"), K.LOCAL),
    (MemoryError(), K.LOCAL),
    (RuntimeError("File descriptor 15 is used by transport <_SelectorSocketTransport fd=15>"), K.LOCAL),
    (KeyError("15 is not registered"), K.LOCAL),
    (KeyError("the model is not registered"), K.UNKNOWN),
    (KeyError(), K.UNKNOWN),
    (closed_by("anyio", "ClosedResourceError"), K.LOCAL),
    (closed_by("anyio", "BrokenResourceError"), K.SERVER_ERROR),
    (duck("redis.exceptions", "ConnectionError"), K.LOCAL),
    # the rest
    (ValueError("?"), K.UNKNOWN),
    (Exception(), K.UNKNOWN),
]  # fmt: skip


@pytest.mark.parametrize(("error", "kind"), KINDS)
def test_kinds(error, kind):
    """Each provider's way of saying it comes out as one kind, and the public function agrees."""
    assert classify(error, wall=WALL).kind is kind
    assert classify_error(error) is kind


@pytest.mark.parametrize("lib", [httpx, httpx2])
@pytest.mark.parametrize(
    ("name", "kind", "limit", "never_sent"),
    [
        ("ConnectTimeout", K.TIMEOUT, "connect", True),
        ("ReadTimeout", K.TIMEOUT, "response", False),
        ("WriteTimeout", K.TIMEOUT, "response", False),
        ("PoolTimeout", K.LOCAL, None, True),
        ("ConnectError", K.SERVER_ERROR, None, True),
        ("ProxyError", K.SERVER_ERROR, None, True),
        ("ReadError", K.SERVER_ERROR, None, False),
        ("WriteError", K.SERVER_ERROR, None, False),
        ("RemoteProtocolError", K.SERVER_ERROR, None, False),
        ("DecodingError", K.SERVER_ERROR, None, False),
        ("LocalProtocolError", K.LOCAL, None, True),
    ],
)
def test_transport(lib, name, kind, limit, never_sent):
    """Transport errors of httpx and httpx2 are known by name, and whether anything was sent with them."""
    error = getattr(lib, name)("x")
    assert classify(error, wall=WALL) == Failure(kind, limit=limit, never_sent=never_sent)
    for sdk in (openai, anthropic):
        wrapped = raised(sdk.APIConnectionError(request=POST2), error)
        assert classify(wrapped, wall=WALL) == Failure(kind, limit=limit, never_sent=never_sent)


@pytest.mark.parametrize(
    ("error", "kind", "never_sent"),
    [
        (ConnectionRefusedError(), K.SERVER_ERROR, True),
        (socket.gaierror(-2, "Name or service not known"), K.SERVER_ERROR, True),
        (ssl.SSLCertVerificationError("bad"), K.SERVER_ERROR, True),
        (OSError(errno.EHOSTUNREACH, "No route to host"), K.SERVER_ERROR, True),
        (ssl.SSLError("bad record"), K.SERVER_ERROR, False),
        (ConnectionResetError(), K.SERVER_ERROR, False),
        (ConnectionError("?"), K.SERVER_ERROR, False),
        (BrokenPipeError(), K.SERVER_ERROR, False),
        (http.client.RemoteDisconnected(), K.SERVER_ERROR, False),
        (
            ConnectionError(
                "Failed to connect to Ollama. Please check that Ollama is downloaded, running and accessible."
            ),
            K.SERVER_ERROR,
            True,
        ),
        (duck("botocore.exceptions", "EndpointConnectionError"), K.SERVER_ERROR, True),
        (duck("botocore.exceptions", "ConnectionClosedError"), K.SERVER_ERROR, False),
        (duck("aiohttp.client_exceptions", "ClientConnectorError", OSError), K.SERVER_ERROR, True),
        (duck("aiohttp.client_exceptions", "ServerDisconnectedError"), K.SERVER_ERROR, False),
        (duck("my.app", "ReadError"), K.UNKNOWN, False),
    ],
)
def test_connections(error, kind, never_sent):
    """Python's own connection errors, and other clients' by module and name; a stranger's class of that name is no match."""
    failure = classify(error, wall=WALL)
    assert (failure.kind, failure.never_sent) == (kind, never_sent)


def test_timeouts_learn_which_limit():
    """An SDK's timeout hides which limit it was; the cause tells, through every wrapper."""
    for cause, limit in ((httpx2.ConnectTimeout("x"), "connect"), (httpx2.ReadTimeout("x"), "response")):
        for sdk in (openai, anthropic):
            error = raised(sdk.APITimeoutError(request=POST2), cause)
            assert classify(error, wall=WALL).limit == limit
            outer = raised(OpenAITimeoutError(request=POST2), error)
            assert classify(outer, wall=WALL) == Failure(K.TIMEOUT, limit=limit, never_sent=limit == "connect")
    assert classify(openai.APITimeoutError(request=POST2), wall=WALL) == Failure(K.TIMEOUT)


def test_langchain_wrappers():
    """LangChain's classes inherit the SDK's: status, code and hints are read from them as from the bare error."""
    response = httpx2.Response(429, request=POST2, headers={"retry-after": "7"})
    error = OpenAIRateLimitError("x", response=response, body={"code": "insufficient_quota"})
    assert classify(error, wall=WALL)[:5] == (K.QUOTA_EXHAUSTED, 7.0, None, 429, "insufficient_quota")
    overloaded = AnthropicOverloadedError("x", response=httpx2.Response(529, request=POST2), body=None)
    assert classify(overloaded, wall=WALL)[:4] == (K.OVERLOADED, None, None, 529)
    overflow = AnthropicContextOverflowError("x", response=httpx2.Response(400, request=POST2), body=None)
    assert classify_error(overflow) is K.CONTEXT_OVERFLOW
    refused = raised(OpenAIConnectionError(request=POST2), httpx2.ConnectError("x"))
    assert classify(refused, wall=WALL) == Failure(K.SERVER_ERROR, never_sent=True)


def test_details_of_a_rate_limit():
    """Status, code, hint and headroom of a 429 are all there."""
    headers = {"retry-after-ms": "6000", "x-ratelimit-limit-tokens": "30000", "x-ratelimit-remaining-tokens": "0",
               "x-ratelimit-reset-tokens": "58s"}  # fmt: skip
    error = openai_error(429, {"code": "rate_limit_exceeded", "type": "tokens", "message": TPM}, headers)
    assert classify(error, wall=WALL) == Failure(
        K.RATE_LIMITED, 6.0, status=429, code="rate_limit_exceeded", headroom=(Headroom("tokens", 30_000, 0, 58.0),)
    )


def test_google_headers_on_the_cause():
    """Google's wrapper has the class only: kind, code and headers come from its cause."""
    cause = google(429, "RESOURCE_EXHAUSTED", headers={"retry-after": "9"})
    error = raised(ModelRateLimitError("x"), cause)
    assert classify(error, wall=WALL)[:5] == (K.RATE_LIMITED, 9.0, None, 429, "RESOURCE_EXHAUSTED")
    with_status = raised(duck("langchain_google_genai", "GoogleError", status_code=429), cause)
    assert classify(with_status, wall=WALL).retry_after == 9.0


def test_raise_for_status():
    """A bare HTTPStatusError is judged by its response, body included, if that was read."""
    response = httpx.Response(400, json={"error": {"code": "context_length_exceeded"}}, request=POST)
    assert classify(httpx.HTTPStatusError("x", request=POST, response=response), wall=WALL)[:5] == (
        K.CONTEXT_OVERFLOW, None, None, 400, "context_length_exceeded",
    )  # fmt: skip
    unread = httpx.Response(503, stream=httpx.ByteStream(b"{}"), request=POST, headers={"retry-after": "5"})
    assert classify(httpx.HTTPStatusError("x", request=POST, response=unread), wall=WALL)[:2] == (K.OVERLOADED, 5.0)


def test_reset_of_a_bucket_is_no_hint_of_a_server_error():
    """An empty bucket does not explain a 500; an explicit Retry-After counts with any passing failure."""
    headers = {"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "58s"}
    assert classify(openai_error(500, {}, headers), wall=WALL).retry_after is None
    assert classify(openai_error(500, {}, {**headers, "retry-after": "2"}), wall=WALL).retry_after == 2.0
    assert classify(openai_error(400, {}, {"retry-after": "2"}), wall=WALL).retry_after is None


class TimerError(Exception):
    error_kind = "timeout"

    def __init__(self, limit):
        super().__init__()
        self.limit = limit


@pytest.mark.parametrize("limit", ["connect", "first_token", "idle", "response", "deadline"])
def test_our_own_timeouts(limit):
    """An exception whose class has `error_kind` is of that kind, and `limit` says which limit fired."""
    assert classify(TimerError(limit), wall=WALL) == Failure(K.TIMEOUT, limit=limit, never_sent=limit == "connect")


def test_our_own_kind_must_exist():
    """An `error_kind` outside the vocabulary is no kind."""
    assert classify_error(duck("x", "Odd", (TimerError,), args=())) is K.TIMEOUT
    stranger = type("Stranger", (Exception,), {"error_kind": "weird"})()
    assert classify_error(stranger) is K.UNKNOWN


@pytest.mark.parametrize(
    "bug", [TypeError, KeyError, AttributeError, NameError, IndexError, AssertionError, ZeroDivisionError]
)
def test_bugs(bug):
    """A programming error is unknown and a bug, whatever was being handled when it was raised."""
    assert classify(bug("x"), wall=WALL) == Failure(K.UNKNOWN, bug=True)
    assert classify(raised(bug("x"), context=openai_error(429, {})), wall=WALL) == Failure(K.UNKNOWN, bug=True)
    assert classify(raised(RuntimeError("x"), bug("x")), wall=WALL) == Failure(K.UNKNOWN, bug=True)


def test_the_link_nearest_to_the_head_wins():
    """What was being handled when a firm error was raised does not change it."""
    assert classify_error(raised(httpx.ConnectError("x"), context=openai_error(429, {}))) is K.SERVER_ERROR
    assert classify_error(raised(RuntimeError("x"), context=openai_error(429, {}))) is K.RATE_LIMITED


def test_suppressed_context():
    """`raise … from None` hides what was being handled."""
    error = RuntimeError("x")
    error.__context__ = openai_error(429, {})
    error.__suppress_context__ = True
    assert classify_error(error) is K.UNKNOWN


def test_what_this_process_did_is_found_behind_from_none():
    """What this process did to itself is told, also where a pool raises its error again `from None`."""
    hidden = httpx.ConnectError("")
    hidden.__cause__ = deeper = duck("httpcore", "ConnectError")
    deeper.__context__ = OSError(errno.EMFILE, "Too many open files")
    deeper.__suppress_context__ = True
    assert classify_error(hidden) is K.LOCAL


def test_cancellation_inside_a_timeout():
    """asyncio.timeout raises TimeoutError from a CancelledError: that is a timeout, not the caller."""

    async def main():
        async with asyncio.timeout(0):
            await asyncio.Event().wait()

    with pytest.raises(TimeoutError) as caught:
        asyncio.run(main())
    assert classify_error(caught.value) is K.TIMEOUT


def test_local_fault_anywhere():
    """A dead event loop or a lack of sockets explains whatever an SDK makes of it."""
    dead = raised(openai.APIConnectionError(request=POST2), RuntimeError("Event loop is closed"))
    assert classify_error(dead) is K.LOCAL
    assert classify_error(raised(httpx.ConnectError("x"), OSError(errno.EMFILE, "x"))) is K.LOCAL


def test_cycles_and_depth():
    """Causes that form a ring, or a very long chain, end."""
    first, second = RuntimeError("a"), RuntimeError("b")
    first.__cause__, second.__cause__ = second, first
    assert classify_error(first) is K.UNKNOWN
    link = openai_error(429, {})
    for _ in range(1000):
        link = raised(RuntimeError("x"), link)
    assert classify_error(link) is K.UNKNOWN


def test_groups():
    """An exception group is judged by its first error."""
    group = ExceptionGroup("x", [httpx.ReadTimeout("x"), ValueError("y")])
    assert classify(group, wall=WALL) == Failure(K.TIMEOUT, limit="response")
    assert classify_error(BaseExceptionGroup("x", [asyncio.CancelledError(), httpx.ReadError("y")])) is K.SERVER_ERROR
    assert classify_error(BaseExceptionGroup("x", [asyncio.CancelledError()])) is K.CANCELLED


def test_litellm_before_the_first_chunk():
    """What LiteLLM wraps before anything was shown is judged as what it wraps."""
    error = litellm("MidStreamFallbackError", 503)
    error.is_pre_first_chunk, error.original_exception = True, openai_error(429, {})
    assert classify_error(error) is K.RATE_LIMITED


@pytest.mark.parametrize("code", ["a message with spaces", "sk-proj-abcdef", "x" * 200, "line\nbreak", "", "é" * 5, 7])
def test_code_is_an_identifier(code):
    """What is not a short identifier does not reach the logs."""
    assert classify(openai_error(400, {"code": code}), wall=WALL).code is None


def test_families():
    """Every kind belongs to one of the seed's five words."""
    assert {kind: kind.family for kind in K} == {
        K.RATE_LIMITED: "rate_limited", K.QUOTA_EXHAUSTED: "rate_limited", K.OVERLOADED: "transient",
        K.SERVER_ERROR: "transient", K.TIMEOUT: "transient", K.STREAM_INTERRUPTED: "transient", K.AUTH: "fatal",
        K.PERMISSION: "client_error", K.NOT_FOUND: "client_error", K.CONTEXT_OVERFLOW: "client_error",
        K.CONTENT_POLICY: "client_error", K.CLIENT_ERROR: "client_error", K.CANCELLED: "client_error",
        K.LOCAL: "unknown", K.UNKNOWN: "unknown", K.INVALID_OUTPUT: "unknown",
    }  # fmt: skip


class HostileError(Exception):
    """Every attribute that might be looked at raises."""

    def __getattr__(self, name):
        raise RuntimeError(name)

    def __str__(self):
        raise ValueError

    response = headers = body = message = status_code = code = property(lambda self: 1 / 0)


def test_hostile_exception():
    """An exception whose every property raises is unknown."""
    assert classify(HostileError("x"), wall=WALL) == Failure(K.UNKNOWN)


def test_one_bad_property_hides_nothing_else():
    """What the other attributes say still counts."""
    error = type(
        "Rude",
        (Exception,),
        {"message": property(lambda self: 1 / 0), "__str__": lambda self: 1 / 0, "status_code": 429},
    )
    assert classify_error(error()) is K.RATE_LIMITED


def test_only_the_first_4_kb_are_read():
    """A needle beyond the first 4 kB of a message is not looked for."""
    assert classify_error(Exception("x" * 5000 + " rate limit")) is K.UNKNOWN
    assert classify_error(duck("x", "Y", body=b"\xff" * 10_000_000, status_code=500)) is K.SERVER_ERROR


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.binary(max_size=20)
    | st.sampled_from([429, 503, "429", "insufficient_quota", "try again in 5s", "quotaId", object(), Exception]) | st.builds(HostileError),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from(["error", "code", "details", "retryDelay", "retry-after", "message", 3, None]), inner, max_size=4),
    max_leaves=8,
)  # fmt: skip
ATTRIBUTES = st.sampled_from([
    "status_code", "status", "code", "type", "error_code", "body", "details", "message", "response", "headers", "retry_after",
    "litellm_response_headers", "raw_response", "original_exception", "is_pre_first_chunk", "limit", "grpc_status_code",
])  # fmt: skip
CLASSES = st.sampled_from([Exception, ValueError, OSError, TimeoutError, KeyError, ModelRateLimitError, HostileError])


@settings(max_examples=400, deadline=None)
@given(CLASSES, st.lists(JUNK, max_size=3), st.dictionaries(ATTRIBUTES, JUNK, max_size=6), st.floats(allow_nan=True))
def test_never_raises(base, args, attributes, wall):
    """Whatever an exception carries, a Failure comes out, and its wait is None or positive and finite."""
    cls = type("Junk", (base,), {"__module__": "grpc.junk"})
    error = cls.__new__(cls)
    error.args = tuple(args)
    for name, value in attributes.items():
        try:
            setattr(error, name, value)
        except Exception:
            setattr(cls, name, value)
    failure = classify(error, wall=wall)
    assert failure.kind in K
    assert failure.retry_after is None or 0.0 < failure.retry_after < math.inf
