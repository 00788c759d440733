"""The vocabulary of faults: what may be done to one request. Values only; `connection.py` plays them.

An exchange either is refused (an HTTP error), or begins with HTTP 200, sends some content chunks and comes to an ending:

    done │ no_done │ cut │ stall │ reset │ garbage │ error │ keepalive

Healthy is the ending `done` after all chunks. Each fault says which ending it takes and after how many chunks. For a request
that isn't streamed the body's first half stands for the first chunks, and `garbage` and `error` are the whole body.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from langchain_resilient.testing.wires.base import FinishReason, JsonObject, ProblemName
from langchain_resilient.testing.wires.retry_hints import RETRY_FORMS, RetryForm

Ending = Literal["done", "no_done", "cut", "stall", "reset", "garbage", "error", "keepalive"]


@dataclass(frozen=True, slots=True)
class Refusal:
    """Which error a provider answers with, and what is overridden in it."""

    which: int | ProblemName
    code: str | None = None
    type: str | None = None
    message: str | None = None
    body: str | JsonObject | None = None
    retry: tuple[RetryForm, float] = ("none", 0.0)


@dataclass(frozen=True, slots=True, repr=False)
class Fault:
    """What to do to one request. Make one with the constructors below; a fault may be scheduled any number of times."""

    name: str
    ending: Ending = "done"
    refusal: Refusal | None = None
    speaks: bool = True
    """False: not one byte is sent before the ending."""
    chunks: int | None = None
    delay: float | None = None
    chunk_delay: float | None = None
    seconds: float | None = None
    interval: float = 0.0
    empty_deltas: bool = False
    text: str | None = None
    finish: FinishReason = "stop"
    content_type: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    pick: Callable[[], Fault] | None = None

    def __repr__(self) -> str:
        """Show the constructor's call."""
        return f"Fault.{self.name}"

    def resolve(self) -> Fault:
        """Say which fault to play this time. Called by the server, once for a request."""
        return self.pick().resolve() if self.pick else self

    @classmethod
    def ok(
        cls,
        text: str | None = None,
        *,
        delay: float | None = None,
        chunk_delay: float | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Fault:
        """Answer. What is left out is as `FaultServer.answer` says.

        `text` is said word for word, whatever tools or schema the request carries. `delay` is in seconds before the response
        begins, `chunk_delay` in seconds between chunks. `headers` are added to the response (rate-limit headers, say).
        """
        return cls("ok", text=text, delay=delay, chunk_delay=chunk_delay, headers=headers or {})

    @classmethod
    def slow(cls, delay: float, chunk_delay: float = 0.0) -> Fault:
        """Answer, `delay` seconds late, with `chunk_delay` seconds (default 0) between chunks."""
        return cls(f"slow({delay:g})", delay=delay, chunk_delay=chunk_delay)

    @classmethod
    def status(
        cls,
        code_: int,
        /,
        *,
        retry_after: str | float | None = None,
        headers: Mapping[str, str] | None = None,
        code: str | None = None,
        type: str | None = None,  # noqa: A002 -- the provider's own word for the member
        message: str | None = None,
        body: str | JsonObject | None = None,
        delay: float = 0.0,
    ) -> Fault:
        """Refuse with an HTTP status and the provider's real error body.

        `retry_after` is put in the retry-after header as it is; `headers` are added. `code`, `type` and `message` override
        the provider's defaults for this status, `body` the whole body (text is sent as it is). `delay`: seconds before it.
        """
        sent = dict(headers or {})
        if retry_after is not None:
            sent["retry-after"] = str(retry_after)
        refusal = Refusal(code_, code, type, message, body)
        return cls(f"status({code_})", refusal=refusal, headers=sent, delay=delay)

    @classmethod
    def rate_limited(cls, form: RetryForm = "seconds", seconds: float = 1.0) -> Fault:
        """Refuse with 429, and say when to come back in one of the forms that providers use, `seconds` (default 1) from now.

        In headers: "seconds", "decimal", "http-date" (retry-after), "ms" (retry-after-ms), "x-ms" (x-ms-retry-after-ms),
        "openai-reset" (x-ratelimit-reset-requests, a Go duration), "anthropic-reset" (RFC 3339), "ietf" (RateLimit). In the
        body: "gemini" (Google's RetryInfo), "message" ("Please try again in 41.724s."). "none" says nothing.
        """
        if form not in RETRY_FORMS:
            unknown = f"form must be one of {', '.join(RETRY_FORMS)}, not {form!r}"
            raise ValueError(unknown)
        return cls(f"rate_limited({form})", refusal=Refusal(429, retry=(form, seconds)))

    @classmethod
    def quota_exhausted(cls) -> Fault:
        """Refuse with a 429 that no wait of seconds cures: OpenAI's insufficient_quota, Anthropic's enforced spend limit."""
        return cls("quota_exhausted", refusal=Refusal("quota_exhausted"))

    @classmethod
    def overloaded(cls) -> Fault:
        """Refuse as overloaded: 503 server_is_overloaded (OpenAI), 529 overloaded_error (Anthropic), 503 (Ollama)."""
        return cls("overloaded", refusal=Refusal("overloaded"))

    @classmethod
    def context_overflow(cls) -> Fault:
        """Refuse a prompt as too long: a 400, `context_length_exceeded` (OpenAI) or "prompt is too long" (Anthropic)."""
        return cls("context_overflow", refusal=Refusal("context_overflow"))

    @classmethod
    def content_filter(cls, *, in_answer: bool = False) -> Fault:
        """Refuse for the content: a 400 (default), or `in_answer`, HTTP 200 whose finish reason says so.

        The finish reason is `content_filter` (OpenAI) or `refusal` (Anthropic); Ollama has neither and answers plainly.
        """
        if in_answer:
            return cls("content_filter", finish="content_filter", text="")
        return cls("content_filter", refusal=Refusal("content_filter"))

    @classmethod
    def hang(cls, seconds: float | None = None) -> Fault:
        """Accept the request and never answer. After `seconds` (default: never) the connection is closed without a byte."""
        return cls("hang", ending="stall", speaks=False, seconds=seconds)

    @classmethod
    def hang_after(cls, chunks: int = 1, seconds: float | None = None) -> Fault:
        """Send `chunks` content chunks (default 1; 0: only the headers and what precedes content), then fall silent.

        After `seconds` (default: never) the connection is closed in the middle of the body.
        """
        return cls(f"hang_after({chunks})", ending="stall", chunks=chunks, seconds=seconds)

    @classmethod
    def keepalive(
        cls, interval: float = 0.05, seconds: float | None = None, *, chunks: int = 0, empty_deltas: bool = False
    ) -> Fault:
        """Send `chunks` content chunks (default 0), then signs of life and no content any more.

        Signs are SSE comments, Anthropic's pings, Ollama's empty lines, else white space; with `empty_deltas` every other one is
        a delta without text. One each `interval` seconds (default 0.05). After `seconds` (default: never) the body ends cleanly.
        """
        name = f"keepalive({chunks})" if chunks else "keepalive"
        return cls(
            name, ending="keepalive", chunks=chunks, interval=interval, seconds=seconds, empty_deltas=empty_deltas
        )

    @classmethod
    def reset(cls) -> Fault:
        """Reset the connection (RST) once the request is read, before any byte."""
        return cls("reset", ending="reset", speaks=False)

    @classmethod
    def reset_after(cls, chunks: int = 1) -> Fault:
        """Send `chunks` content chunks (default 1), then reset the connection (RST)."""
        return cls(f"reset_after({chunks})", ending="reset", chunks=chunks)

    @classmethod
    def close_after(cls, chunks: int = 1) -> Fault:
        """Send `chunks` content chunks (default 1), then close the connection (FIN) without the body's end."""
        return cls(f"close_after({chunks})", ending="stall", chunks=chunks, seconds=0.0)

    @classmethod
    def truncate(cls, chunks: int = 1) -> Fault:
        """End the body cleanly after `chunks` content chunks (default 1): no finish reason, no `[DONE]`, no `done`."""
        return cls(f"truncate({chunks})", ending="cut", chunks=chunks)

    @classmethod
    def no_done(cls) -> Fault:
        """Send everything but the end mark: `[DONE]`, `message_stop`, or Ollama's last line, which is also its finish reason.

        A request that isn't streamed has no end mark and is answered in full.
        """
        return cls("no_done", ending="no_done")

    @classmethod
    def malformed(cls, chunks: int = 1, content_type: str = "application/json") -> Fault:
        """Send `chunks` content chunks (default 1), then a line that is not JSON; unstreamed: HTTP 200 with an HTML body.

        `content_type` (default application/json) is the unstreamed response's header: with text/html the openai client
        returns the text itself instead of failing to parse it.
        """
        return cls(f"malformed({chunks})", ending="garbage", chunks=chunks, content_type=content_type)

    @classmethod
    def in_band_error(cls, chunks: int = 1, kind: Literal["overloaded", "server_error"] = "overloaded") -> Fault:
        """Send HTTP 200 and `chunks` content chunks (default 1), then an error in the stream, in the wire's form.

        Unstreamed: HTTP 200 whose body is the error.
        """
        return cls(f"in_band_error({kind})", ending="error", chunks=chunks, refusal=Refusal(kind))

    @classmethod
    def flaky(cls, probability: float, fault: Fault, seed: int = 0) -> Fault:
        """Play `fault` with a probability (0 to 1), else answer; drawn from its own generator, seeded with `seed` (default 0).

        The draws come in the order of the requests, whichever threads they arrive on.
        """
        if not 0 <= probability <= 1:
            outside = f"probability must be between 0 and 1, not {probability}"
            raise ValueError(outside)
        generator = random.Random(seed)
        lock = threading.Lock()
        healthy = cls.ok()

        def pick() -> Fault:
            with lock:
                return fault if generator.random() < probability else healthy

        return cls(f"flaky({probability:g}, {fault.name})", pick=pick)
