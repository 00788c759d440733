"""What providers, SDKs and transports say when they fail, and which kind each word is. Data: no code judges here.

Rules of this file: codes, needles and statuses are the providers' own words, in lower case; classes count by their name, as
their packages may not be installed. A code stands in one table only, and the table's comment says when it is asked.
Lists are packed by hand (`fmt: skip`): the formatter would give each word a line, and the table would no longer be seen whole.
"""

from __future__ import annotations

import errno
import re
from typing import Final

from langchain_resilient.engine.classify.kinds import ErrorKind, Failure

_K: Final = ErrorKind


def _by_word(table: dict[ErrorKind, str]) -> dict[str, ErrorKind]:
    return {word: kind for kind, words in table.items() for word in words.split()}


STATUSES: Final = {
    400: _K.CLIENT_ERROR,
    401: _K.AUTH,
    402: _K.QUOTA_EXHAUSTED,
    403: _K.PERMISSION,
    404: _K.NOT_FOUND,
    408: _K.TIMEOUT,
    410: _K.NOT_FOUND,  # a model that was retired
    413: _K.CONTEXT_OVERFLOW,
    424: _K.SERVER_ERROR,  # Bedrock: the model itself failed
    425: _K.SERVER_ERROR,
    429: _K.RATE_LIMITED,
    451: _K.PERMISSION,  # not served in this country; another provider may
    498: _K.OVERLOADED,  # Groq: flex capacity
    499: _K.SERVER_ERROR,  # the caller did not cancel, or no response would be here
    503: _K.OVERLOADED,
    529: _K.OVERLOADED,
}

# Codes that say more than the status they come with, in lower case. ModelNotReadyException is a 429, but nothing of ours
# was too fast: cutting our own rate (AIMD) or blocking the account would be wrong, so it is the provider's overload.
SHARP_CODES: Final = _by_word(
    {
        _K.QUOTA_EXHAUSTED: "insufficient_quota credit_balance_exhausted enforced_spend_limit_reached billing_error billing_not_active"
        " billing_hard_limit_reached insufficient_balance insufficient_credits insufficient_funds servicequotaexceededexception"
        " quota_exceeded arrearage usage_limit_reached spend_limit_exceeded budget_exceeded exceeded_current_quota_error",
        _K.OVERLOADED: "overloaded_error server_is_overloaded overloaded engine_overloaded engine_overloaded_error model_overloaded"
        " modelnotreadyexception serviceunavailableexception",
        _K.RATE_LIMITED: "throttlingexception throttling toomanyrequestsexception requestlimitexceeded slow_down",
        _K.TIMEOUT: "modeltimeoutexception",
        _K.STREAM_INTERRUPTED: "modelstreamerrorexception",
        _K.SERVER_ERROR: "modelerrorexception",
        _K.AUTH: "invalid_api_key api_key_invalid expiredtokenexception expiredtoken unrecognizedclientexception"
        " invalidsignatureexception invalidclienttokenid incompletesignature missingauthenticationtoken",
        _K.NOT_FOUND: "model_not_found modelnotfound deploymentnotfound model_decommissioned unknown_model",
        _K.CONTEXT_OVERFLOW: "context_length_exceeded request_too_large tokens_limit_reached exceed_context_size_error"
        " string_above_max_length input_too_long prompt_too_long",
        _K.CONTENT_POLICY: "content_filter content_policy_violation responsibleaipolicyviolation moderation_blocked refusal safety"
        " prohibited_content blocklist recitation data_inspection_failed datainspectionfailed guardrail_intervened invalid_prompt",
    }
)

# Codes that repeat what a status says: they count where there is none (errors inside a stream, gRPC).
PLAIN_CODES: Final = _by_word(
    {
        _K.RATE_LIMITED: "rate_limit_exceeded rate_limit_error resource_exhausted too_many_requests ratelimitreached",
        _K.OVERLOADED: "unavailable service_unavailable service_unavailable_error",
        _K.SERVER_ERROR: "server_error api_error internal internal_error internal_server_error internalserverexception bad_gateway"
        " data_loss aborted upstream_error",
        _K.TIMEOUT: "deadline_exceeded timeout timeout_error request_timeout",
        _K.AUTH: "authentication_error unauthenticated unauthorized",
        _K.PERMISSION: "permission_error permission_denied accessdeniedexception forbidden",
        _K.NOT_FOUND: "not_found_error not_found resourcenotfoundexception",
        _K.CLIENT_ERROR: "invalid_request_error invalid_argument validationexception failed_precondition out_of_range bad_request",
    }
)

# Class names, of any module, that say more than a status.
SHARP_CLASSES: Final = _by_word(
    {
        _K.CONTEXT_OVERFLOW: "ContextOverflowError ContextWindowExceededError",
        _K.CONTENT_POLICY: "ModelRefusalError OpenAIRefusalError ContentPolicyViolationError ContentFilterFinishReasonError",
        _K.QUOTA_EXHAUSTED: "BudgetExceededError",
        _K.STREAM_INTERRUPTED: "MidStreamFallbackError StreamInterruptedError",
        _K.AUTH: "CredentialsError DefaultCredentialsError RefreshError NoCredentialsError PartialCredentialsError",
    }
)

# Class names, of any module, that count where nothing else speaks: langchain_core's Model…Error, SDKs' connection errors.
LOOSE_CLASSES: Final = _by_word(
    {
        _K.RATE_LIMITED: "ModelRateLimitError RateLimitedError RouterRateLimitError RouterRateLimitErrorBasic",
        _K.OVERLOADED: "CircuitOpenError OverloadedError",
        _K.SERVER_ERROR: "ModelAPIError ModelConnectionError APIConnectionError APIResponseValidationError ContentTypeError"
        " MaxRetryError HTTPClientError URLError",
        _K.TIMEOUT: "ModelTimeoutError APITimeoutError",
        _K.AUTH: "ModelAuthenticationError",
        _K.PERMISSION: "ModelPermissionDeniedError",
        _K.NOT_FOUND: "ModelNotFoundError",
        _K.CLIENT_ERROR: "ModelInvalidRequestError LengthFinishReasonError",
    }
)

# Bases of SDK errors that say nothing: their text is asked first, and without an answer it is the provider's fault.
VAGUE_CLASSES: Final = frozenset({"APIError", "ResponseError"})

TRANSPORT_ROOTS: Final = frozenset({
    "builtins", "socket", "ssl", "http", "json", "urllib", "httpx", "httpx2", "httpcore", "httpcore2", "h11", "h2", "anyio",
    "requests", "urllib3", "aiohttp", "botocore",
})  # fmt: skip
_CONNECT_TIMEOUT: Final = Failure(_K.TIMEOUT, limit="connect", never_sent=True)
_READ_TIMEOUT: Final = Failure(_K.TIMEOUT, limit="response")
UNREACHED: Final = Failure(_K.SERVER_ERROR, never_sent=True)
_BROKEN: Final = Failure(_K.SERVER_ERROR)  # drivers know whether a stream was shown, and then say stream_interrupted
_OURS: Final = Failure(_K.LOCAL, never_sent=True)
_TRANSPORT_NAMES: Final[dict[Failure, str]] = {
    _CONNECT_TIMEOUT: "ConnectTimeout ConnectTimeoutError ConnectionTimeoutError",
    _READ_TIMEOUT: "ReadTimeout ReadTimeoutError WriteTimeout SocketTimeoutError ServerTimeoutError",
    Failure(_K.TIMEOUT): "TimeoutError",
    UNREACHED: "ConnectError ConnectionRefusedError gaierror SSLCertVerificationError NewConnectionError ProxyError"
    " NameResolutionError EndpointConnectionError ClientConnectorError ClientProxyConnectionError",
    _BROKEN: "RemoteProtocolError ReadError WriteError CloseError ProtocolError ConnectionResetError BrokenPipeError"
    " ConnectionAbortedError RemoteDisconnected IncompleteRead ConnectionClosedError ServerDisconnectedError ClientOSError"
    " ClientPayloadError ChunkedEncodingError ContentDecodingError DecodingError SSLError TooManyRedirects JSONDecodeError"
    " UnicodeDecodeError BrokenResourceError EndOfStream",
    _OURS: "PoolTimeout ConnectionNotAvailable LocalProtocolError UnsupportedProtocol InvalidURL MissingSchema",
    Failure(_K.LOCAL): "MemoryError StreamError",
}
TRANSPORT: Final = {name: failure for failure, names in _TRANSPORT_NAMES.items() for name in names.split()}
# The same roots' bases, which count only where no cause says more.
LOOSE_TRANSPORT: Final = {
    "Timeout": Failure(_K.TIMEOUT),
    "TimeoutException": Failure(_K.TIMEOUT),
    "ConnectionError": _BROKEN,
    "TransportError": _BROKEN,
    "ClientError": _BROKEN,
}

# Closed at our end, by another loop that uses the same client, say: what the other end closes has other names. And what a loop's
# selector says of a file descriptor that another loop took from it.
CLOSED_HERE: Final = ("anyio", "ClosedResourceError")
SELECTOR_LOST: Final = re.compile(r"\d+ is not registered")
STORE_ROOTS: Final = frozenset({"redis", "valkey", "sqlite3"})
# asyncio's and concurrent.futures', and LangGraph's interrupts.
CANCEL_CLASSES: Final = frozenset({"CancelledError", "GraphBubbleUp"})
LOCAL_ERRNOS: Final = frozenset({
    errno.EBADF, errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL,
})  # fmt: skip
UNREACHED_ERRNOS: Final = frozenset({errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EHOSTDOWN})
BUGS: Final = (
    TypeError, AttributeError, NameError, LookupError, AssertionError, ImportError, SyntaxError, ArithmeticError,
    NotImplementedError, RecursionError, UnicodeEncodeError, StopIteration, StopAsyncIteration,
)  # fmt: skip

# RuntimeErrors of a loop, thread or client of ours that is gone.
LOCAL_NEEDLES: Final = (
    "event loop is closed", "attached to a different loop", "bound to a different event loop", "cannot schedule new futures",
    "can't start new thread", "client has been closed", "is used by transport",
)  # fmt: skip
# What langchain-openai, langchain-core and langchain-ollama say of a response that is none.
MALFORMED_NEEDLES: Final = (
    "null value for 'choices'", "null value for `choices`", "response missing 'choices' key", "unexpected response type from openai",
    "no generation chunks", "no generations found", "no data received from ollama stream",
)  # fmt: skip
# The integrations' functions that only read responses: whatever breaks in them, the provider sent what is none of its format
# (an HTML page, or an error under HTTP 200: "'str' object has no attribute 'model_dump'"). Functions that build requests, or
# that call callbacks (`_generate`, `_stream`), must not stand here: a user's own mistake breaks those.
RESPONSE_READERS: Final = frozenset({
    "_create_chat_result", "_convert_chunk_to_generation_chunk", "_construct_lc_result_from_responses_api",
    "_convert_responses_chunk_to_generation_chunk",  # OpenAI, and most that speak its wire
    "_format_output", "_make_message_chunk_from_anthropic_event",
    "_get_tool_calls_from_response", "_get_usage_metadata_from_generation_info",  # Ollama
})  # fmt: skip
# What they call, beside langchain_*.
READER_PACKAGES: Final = frozenset({"openai", "anthropic", "ollama", "pydantic"})

# (kind, the verdicts that it may refine, words in lower case). UNKNOWN stands for "nothing but the text spoke".
_ANY_4XX: Final = frozenset({_K.CLIENT_ERROR, _K.PERMISSION, _K.UNKNOWN})
NEEDLES: Final[tuple[tuple[ErrorKind, frozenset[ErrorKind], tuple[str, ...]], ...]] = (
    (_K.CONTEXT_OVERFLOW, frozenset({_K.RATE_LIMITED, _K.CLIENT_ERROR, _K.UNKNOWN}), ("request too large", "request is too large")),
    (_K.QUOTA_EXHAUSTED, frozenset({_K.RATE_LIMITED}), (
        "per day", "perday", "(rpd)", "(tpd)", "daily limit", "daily quota", "per month", "usage limit",
        "limit: 0,", "limit: 0\n",  # Gemini: this project has no quota for that model at all
    )),
    (_K.QUOTA_EXHAUSTED, _ANY_4XX | {_K.RATE_LIMITED}, (
        "insufficient_quota", "insufficient balance", "insufficient credit", "insufficient funds", "credit balance",
        "credit_balance", "spend limit", "spending limit", "enforced_spend_limit", "specified api usage limits", "out of credits",
        "available credits", "billing hard limit", "budget has been exceeded",
    )),
    (_K.CONTEXT_OVERFLOW, frozenset({_K.CLIENT_ERROR, _K.SERVER_ERROR, _K.UNKNOWN}), (
        "context_length_exceeded", "context length", "context limit", "context window", "context size", "prompt is too long",
        "input is too long", "prompt too long", "too many tokens", "input tokens exceed", "maximum prompt length",
        "exceeds the maximum number of tokens", "input token count", "range of input length", "reduce the length of",
        "tokens + `max_new_tokens`", "contextwindowexceeded",
    )),
    (_K.CONTENT_POLICY, _ANY_4XX, (
        "content_filter", "content filter", "content management policy", "content policy", "content_policy", "usage policy",
        "usage policies", "input was flagged", "flagged as", "responsibleai", "safety system", "blocked by guardrail",
    )),
    (_K.AUTH, frozenset({_K.CLIENT_ERROR, _K.UNKNOWN}), (  # not a 403's: one alone blocks no key
        "api key not valid", "invalid api key", "incorrect api key", "api key expired", "security token included",
        "api_key client option must be set", "missing credentials", "unauthorized",
    )),
    (_K.PERMISSION, frozenset({_K.CLIENT_ERROR}), ("user location is not supported", "must be verified to")),
    (_K.NOT_FOUND, frozenset({_K.CLIENT_ERROR, _K.UNKNOWN}), (
        "model identifier is invalid", "model does not exist", "model not found", "no such model",
    )),
    (_K.OVERLOADED, frozenset({_K.SERVER_ERROR, _K.UNKNOWN}), (
        "overloaded", "high demand", "at capacity", "server busy", "service unavailable", "serviceunavailable",
    )),
    (_K.RATE_LIMITED, frozenset({_K.UNKNOWN}), (
        "rate limit", "rate_limit", "ratelimit", "too many requests", "throttl", "resource_exhausted", "resource exhausted",
    )),
    (_K.TIMEOUT, frozenset({_K.UNKNOWN}), ("timed out", "timeout error", "request timeout", "deadline exceeded", "deadline_exceeded")),
    (_K.SERVER_ERROR, frozenset({_K.UNKNOWN}), (
        "internal server error", "server_error", "bad gateway", "gateway timeout", "connection error", "connection reset",
        "connection refused", "failed to connect", "peer closed connection", "server disconnected",
    )),
)  # fmt: skip

# OpenAI and Groq: "Limit 30000, Requested 36000" can never pass; "Limit 30000, Used 29000, Requested 2000" can.
LIMIT_REQUESTED: Final = re.compile(r"limit:?\s+([\d,]{1,20})[^\n]{0,80}?requested:?\s+([\d,]{1,20})", re.ASCII)
OUT_OF_QUOTA: Final = "exceeded your current quota"  # OpenAI's for no money; Gemini's for a minute's quota as well
GEMINI_QUOTA: Final = ("quotaid", "retrydelay", "retry_delay", "retry in ", "quota_metric", "quota exceeded for metric")
