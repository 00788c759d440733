"""One client's connection: HTTP/1.1 in, a fault played out.

Rules of this file: it decides nothing. `begin` says which fault to play and how healthy answers look; this file sends it,
and leaves by `_Gone` as soon as the client has disconnected or the server stops, which the record then tells.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler
from typing import Any

from langchain_resilient.testing.wires.anthropic import AnthropicWire
from langchain_resilient.testing.wires.base import (
    Ask,
    Frames,
    JsonObject,
    Problem,
    Reply,
    Wire,
    to_json,
    unstreamed_frames,
)
from langchain_resilient.testing.wires.faults import Fault, Refusal
from langchain_resilient.testing.wires.ollama import OllamaWire
from langchain_resilient.testing.wires.openai import OpenAIWire
from langchain_resilient.testing.wires.port import Link
from langchain_resilient.testing.wires.records import RecordedRequest
from langchain_resilient.testing.wires.replies import Answer, compose
from langchain_resilient.testing.wires.resume import prefill_refused
from langchain_resilient.testing.wires.retry_hints import hint_body, hint_headers, hint_message, utc_now

WIRES: tuple[Wire, ...] = (OpenAIWire(), AnthropicWire(), OllamaWire())
_JSON = "application/json"
_UNFINISHED = ("stall", "reset")  # endings after which the body lacks its end
_NOT_JSON = b"<html><head><title>upstream connect error</title></head><body>no healthy upstream</body></html>"


class _Gone(Exception):  # noqa: N818 -- no error: the exchange is over
    """The client has left, or the server ends the connection."""

    def __init__(self, *, client: bool) -> None:
        self.client = client


class Connection(BaseHTTPRequestHandler):
    """Serves the requests of one connection, one after the other."""

    protocol_version = "HTTP/1.1"
    server_version = "FaultServer"

    def __init__(self, link: Link, begin: Callable[[RecordedRequest], tuple[Fault, Answer]]) -> None:
        self._link = link
        self._begin = begin
        super().__init__(link.sock, link.sock.getpeername(), None)  # type: ignore[arg-type]  # used by nothing we call

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 -- the base class's name
        """Print nothing."""

    def do_GET(self) -> None:
        """Answer 404: nothing is served by GET."""
        self._no_such_path()

    def do_POST(self) -> None:
        """Play one request."""
        raw = self.rfile.read(int(self.headers.get("content-length") or 0))
        wire = next((w for w in WIRES if self.path.partition("?")[0].endswith(w.path)), None)
        if wire is None:
            self._no_such_path()
            return
        self._link.busy = True
        body = _object(raw)
        try:
            ask = wire.parse(body)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            self._refuse_body(error)
            return
        record = self._record(wire, body, ask)
        fault, answer = self._begin(record)
        disconnected = False
        try:
            _Play(self, self._link, wire, ask, fault, answer, record).run()
        except _Gone as gone:
            disconnected, self.close_connection = gone.client, True
        except OSError:
            disconnected, self.close_connection = not self._link.ended, True
        finally:
            self._link.busy = False
            self.close_connection = self.close_connection or self._link.last
            record.end(disconnected=disconnected)

    def _record(self, wire: Wire, body: JsonObject, ask: Ask) -> RecordedRequest:
        return RecordedRequest(
            wire=wire.name,
            path=self.path,
            method=self.command,
            headers={name.lower(): value for name, value in self.headers.items()},
            body=body,
            stream=ask.stream,
            at=time.monotonic(),
            connection=self._link.number,
            begun=ask.prefill,
            begun_by=None if ask.prefill is None else "prefill",
        )

    def _no_such_path(self) -> None:
        known = ", ".join(f"POST …{wire.path}" for wire in WIRES)
        message = f"FaultServer has no {self.command} {self.path}; it serves {known}"
        self.respond(404, _JSON, to_json({"error": {"message": message, "type": "not_found_error"}}))

    def _refuse_body(self, error: Exception) -> None:
        message = f"FaultServer can't read this request: {type(error).__name__}: {error}"
        self.respond(400, _JSON, to_json({"error": {"message": message, "type": "invalid_request_error"}}))

    def respond(self, status: int, content_type: str, body: bytes, headers: Mapping[str, str] | None = None) -> None:
        """Send a whole response in one piece."""
        self.head(status, {"content-type": content_type, "content-length": str(len(body))} | dict(headers or {}))
        self.write_last(self.taken_head() + body)

    def write_last(self, end: bytes) -> None:
        """Send the end of a response. Idle from here on: a client that has read it may send again before we return."""
        self._link.busy = False
        self.wfile.write(end)

    def head(self, status: int, headers: Mapping[str, str]) -> None:
        """Write status line and headers into the buffer; whatever is sent, a fault's own headers replace."""
        self.send_response_only(status)
        own = {"date": self.date_time_string(), "server": self.server_version}
        for name, value in (own | {name.lower(): value for name, value in headers.items()}).items():
            self.send_header(name, value)
        if self._link.last:
            self.send_header("connection", "close")

    def taken_head(self) -> bytes:
        """Take the buffered head, to send it together with what follows."""
        self._headers_buffer: list[bytes]
        taken = b"".join([*self._headers_buffer, b"\r\n"])
        self._headers_buffer = []
        return taken


@dataclass(frozen=True, slots=True)
class _Play:
    """One fault, played to one request."""

    http: Connection
    link: Link
    wire: Wire
    ask: Ask
    fault: Fault
    answer: Answer
    record: RecordedRequest

    def run(self) -> None:
        """Refuse, answer in one piece, or stream up to the fault's ending."""
        fault = self.fault
        if not fault.speaks:
            self._break()
            return
        refusal = fault.refusal if fault.ending == "done" else None
        unwelcome = None if refusal else prefill_refused(self.wire.name, self.ask, self.answer.prefill)
        usual = 0.0 if refusal else self.answer.delay_of(self.record)
        self._pause(usual if fault.delay is None else fault.delay)
        if refusal:
            self._refuse(refusal)
        elif unwelcome:
            self.record.outcome = "prefill refused"
            self.http.respond(unwelcome.status, _JSON, to_json(self.wire.error_body(unwelcome)), self.wire.headers())
        elif not self.ask.stream and fault.ending in ("done", "no_done"):
            self.http.respond(200, _JSON, self._whole(), self._headers())
        else:
            self._stream()

    def _refuse(self, refusal: Refusal) -> None:
        form, seconds = refusal.retry
        problem = self._problem(refusal)
        body = refusal.body if refusal.body is not None else hint_body(form, seconds) or self.wire.error_body(problem)
        sent = body.encode() if isinstance(body, str) else to_json(body)
        self.http.respond(problem.status, _JSON, sent, hint_headers(form, seconds, utc_now()) | self._headers())

    def _problem(self, refusal: Refusal) -> Problem:
        problem = self.wire.problem(refusal.which, self.ask)
        message = (refusal.message or problem.message) + hint_message(*refusal.retry)
        return replace(problem, message=message, type=refusal.type or problem.type, code=refusal.code or problem.code)

    def _headers(self) -> dict[str, str]:
        return self.wire.headers() | dict(self.fault.headers)

    def _reply(self) -> Reply:
        return compose(self.ask, self.answer, self.record, self.fault.text, self.fault.finish)

    def _whole(self) -> bytes:
        return to_json(self.wire.answer(self.ask, self._reply()))

    def _frames(self) -> Frames:
        if self.ask.stream:
            return self.wire.frames(self.ask, self._reply())
        return unstreamed_frames(self._whole())

    def _stream(self) -> None:
        fault, streamed = self.fault, self.ask.stream
        frames = self._frames()
        alive = fault.ending == "keepalive" and not fault.chunks and not fault.empty_deltas
        replaced = alive or (not streamed and fault.ending in ("garbage", "error"))
        content_type = self.wire.stream_type if streamed else fault.content_type or _JSON
        self.http.head(200, {"content-type": content_type, "transfer-encoding": "chunked"} | self._headers())
        opening = () if replaced else frames.opening
        self.http.wfile.write(self.http.taken_head() + b"".join(map(_chunk, opening)))
        chunk_delay = self.answer.chunk_delay if fault.chunk_delay is None else fault.chunk_delay
        for number, frame in enumerate(() if replaced else frames.content[: fault.chunks]):
            if number and streamed:
                self._pause(chunk_delay)
            self.http.wfile.write(_chunk(frame))
        if fault.ending in _UNFINISHED:
            self._break()
            return
        if fault.ending == "keepalive":
            self._keep_alive()
        self.http.write_last(b"".join(map(_chunk, self._last_frames(frames))) + b"0\r\n\r\n")

    def _break(self) -> None:
        """Leave the body unfinished: at once and with RST, or after a silence."""
        if self.fault.ending == "reset":
            self.link.reset_on_close()
        else:
            self._pause(self.fault.seconds)
        self.http.close_connection = True

    def _last_frames(self, frames: Frames) -> tuple[bytes, ...]:
        """Say what follows the content where the body does come to an end."""
        ending, streamed = self.fault.ending, self.ask.stream
        if ending == "done":
            return frames.finish + frames.done
        if ending == "no_done":
            return frames.finish
        if ending == "garbage":
            return (self.wire.garbage if streamed else _NOT_JSON,)
        if ending == "error" and self.fault.refusal:
            problem = self._problem(self.fault.refusal)
            return (self.wire.error_frame(problem) if streamed else to_json(self.wire.error_body(problem)),)
        return ()

    def _keep_alive(self) -> None:
        ends = None if self.fault.seconds is None else time.monotonic() + self.fault.seconds
        signs = (self.wire.ping, self.wire.empty) if self.fault.empty_deltas else (self.wire.ping,)
        for sign in itertools.cycle(signs if self.ask.stream else (b"\n",)):
            if ends is not None and time.monotonic() >= ends:
                return
            self.http.wfile.write(_chunk(sign))
            self._pause(self.fault.interval)

    def _pause(self, seconds: float | None) -> None:
        """Wait (None: without end) and notice at once if the connection ends meanwhile."""
        if seconds is not None and seconds <= 0:
            return
        sock = self.link.sock
        sock.settimeout(seconds)
        try:
            with contextlib.suppress(TimeoutError):
                if sock.recv(1, socket.MSG_PEEK) == b"":
                    raise _Gone(client=not self.link.ended)
                time.sleep(
                    seconds or 0.0
                )  # a pipelined request: no client of ours sends one, and it hides a disconnect
        except ConnectionError:
            raise _Gone(client=not self.link.ended) from None
        finally:
            sock.settimeout(None)


def _chunk(frame: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(frame), frame) if frame else b""


def _object(raw: bytes) -> JsonObject:
    try:
        body = json.loads(raw)
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}
