"""A real HTTP server that speaks LLM providers' wire formats and misbehaves on schedule.

    with FaultServer() as server:
        server.schedule(Fault.status(503), Fault.hang(), Fault.truncate(chunks=2))
        model = ChatOpenAI(model="gpt-test", base_url=server.base_url("openai"), api_key="test", max_retries=0)
        ...
        assert server.count == 3

Rules of this file: the public face and the state that threads share, under one condition variable. How bytes look is in
`wires/<provider>.py`, what may go wrong in `wires/faults.py`, how it is played in `wires/connection.py`.

One server speaks all wires at once, told apart by path: OpenAI Chat Completions, Anthropic Messages, Ollama chat. A request
takes the next scheduled fault, or what `always` set when the schedule is empty. Standard library only.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Self

from langchain_resilient.testing.wires.base import JsonObject, ToolUse, WireName
from langchain_resilient.testing.wires.connection import WIRES, Connection
from langchain_resilient.testing.wires.faults import Fault
from langchain_resilient.testing.wires.port import Link, Port
from langchain_resilient.testing.wires.records import RecordedRequest
from langchain_resilient.testing.wires.replies import DEFAULT_TEXT, Answer
from langchain_resilient.testing.wires.retry_hints import RETRY_FORMS, RetryForm

__all__ = ["DEFAULT_TEXT", "RETRY_FORMS", "Fault", "FaultServer", "RecordedRequest", "RetryForm", "WireName"]


class FaultServer:
    """An LLM provider on 127.0.0.1 that fails as told. A context manager; every method may be called from any thread.

    `port` is the port to listen on; 0 (default) takes a free one, kept over `refuse`, `kill`, `stop` and a new `start`.
    """

    def __init__(self, port: int = 0) -> None:
        self._port = Port("127.0.0.1", port, self._serve)
        self._changed = threading.Condition()
        self._requests: list[RecordedRequest] = []
        self._schedule: deque[Fault] = deque()
        self._default = Fault.ok()
        self._answer = Answer()

    def __repr__(self) -> str:
        """Show the address and what is to come."""
        with self._changed:
            return f"FaultServer(port={self.port}, schedule={list(self._schedule)}, always={self._default})"

    # ── Life ──────────────────────────────────────────────────────────────────────────────────────────────────────────

    def __enter__(self) -> Self:
        """Start."""
        self.start()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop."""
        self.stop()

    def start(self) -> None:
        """Listen, on the same port as before if it ran already. Does nothing while it listens."""
        self._port.listen()

    def stop(self) -> None:
        """Close the port and every connection, exchanges under way included. May be called twice."""
        self._port.close()
        self._port.end_all(reset=False)
        self._port.release()

    def kill(self) -> None:
        """Die as a crashed machine's process does: open connections are reset (RST), the port refuses. `start` revives it."""
        self._port.close()
        self._port.end_all(reset=True)

    def refuse(self) -> None:
        """Refuse connections from now on; idle ones are closed, so that clients' pools notice; running exchanges may end."""
        self._port.refuse()

    def accept(self) -> None:
        """Accept connections again, on the same port."""
        self._port.listen()

    # ── Address ───────────────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def port(self) -> int:
        """The port number; 0 before the first start."""
        return self._port.number

    @property
    def url(self) -> str:
        """The server's root, `http://127.0.0.1:PORT`."""
        return f"http://127.0.0.1:{self._port.number}"

    def base_url(self, wire: WireName) -> str:
        """Give what a client of this provider takes as base URL: `…/v1` for openai, the root for anthropic and ollama."""
        for known in WIRES:
            if known.name == wire:
                return self.url + known.base_path
        unknown = f"wire must be one of {', '.join(w.name for w in WIRES)}, not {wire!r}"
        raise ValueError(unknown)

    # ── Healthy answers ───────────────────────────────────────────────────────────────────────────────────────────────

    def answer(
        self,
        text: str | Callable[[RecordedRequest], str] | None = None,
        *,
        input_tokens: int | None = None,
        output_tokens: int | None = None,
        chunk_delay: float = 0.0,
        delay: float | Callable[[RecordedRequest], float] = 0.0,
    ) -> None:
        """Set how healthy answers look from now on; replaces what was set before, a tool call too.

        text: what they say, or a function of the request that tells it; streamed one word a chunk. Default: a greeting; or,
            after a tool's result, a sentence with that result; or a call of an offered tool that the user's message names.
            A request that forces a tool call gets one all the same, and one that sets a JSON schema an object that fits it,
            unless the text is JSON itself.
        input_tokens, output_tokens: reported usage. Default: a quarter of the prompt's characters; the words of the answer.
        delay: seconds before the response begins, or a function of the request that tells them. Default 0.
        chunk_delay: seconds between chunks of a stream. Default 0.
        """
        with self._changed:
            self._answer = Answer(text, None, input_tokens, output_tokens, delay, chunk_delay)

    def answer_with_tool(self, name: str, args: JsonObject) -> None:
        """Answer with this tool call from now on, except right after a tool's result, which is answered as before."""
        with self._changed:
            old = self._answer
            tool = ToolUse(name, dict(args))
            self._answer = Answer(old.text, tool, old.input_tokens, old.output_tokens, old.delay, old.chunk_delay)

    # ── Faults ────────────────────────────────────────────────────────────────────────────────────────────────────────

    def schedule(self, *faults: Fault) -> None:
        """Queue faults, one for each request to come, in the order of arrival."""
        with self._changed:
            self._schedule.extend(faults)

    def always(self, fault: Fault) -> None:
        """Play this fault whenever the schedule is empty. `always(Fault.ok())`, the default, heals."""
        with self._changed:
            self._default = fault

    # ── What happened ─────────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def requests(self) -> list[RecordedRequest]:
        """The requests since the start or the last `reset_log`, in the order of arrival; a copy."""
        with self._changed:
            return list(self._requests)

    @property
    def count(self) -> int:
        """How many requests were recorded."""
        with self._changed:
            return len(self._requests)

    def reset_log(self) -> None:
        """Forget the recorded requests. What is scheduled stays."""
        with self._changed:
            self._requests.clear()

    def wait_for(self, n: int, timeout: float = 5.0) -> list[RecordedRequest]:
        """Wait until `n` requests were recorded and return all; TimeoutError after `timeout` seconds (default 5)."""
        with self._changed:
            if not self._changed.wait_for(lambda: len(self._requests) >= n, timeout):
                late = f"{len(self._requests)} of {n} requests arrived within {timeout:g} s"
                raise TimeoutError(late)
            return list(self._requests)

    # ── For its connections ───────────────────────────────────────────────────────────────────────────────────────────

    def _begin(self, record: RecordedRequest) -> tuple[Fault, Answer]:
        """Note a request; say what to play and how healthy answers look."""
        with self._changed:
            fault = (self._schedule.popleft() if self._schedule else self._default).resolve()
            record.outcome = fault.name
            self._requests.append(record)
            self._changed.notify_all()
            return fault, self._answer

    def _serve(self, link: Link) -> None:
        Connection(link, self._begin)
