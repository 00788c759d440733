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
from collections.abc import Callable, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Self

from langchain_resilient.testing.wires.base import JsonObject, ToolUse, WireName
from langchain_resilient.testing.wires.connection import WIRES, Connection
from langchain_resilient.testing.wires.faults import Fault
from langchain_resilient.testing.wires.port import Link, Port
from langchain_resilient.testing.wires.records import RecordedRequest
from langchain_resilient.testing.wires.replies import DEFAULT_TEXT, Answer
from langchain_resilient.testing.wires.resume import PREFILL_REFUSALS, Prefill, Refuse, Repeat, Resume, checked
from langchain_resilient.testing.wires.retry_hints import RETRY_FORMS, RetryForm

__all__ = [
    "DEFAULT_TEXT",
    "PREFILL_REFUSALS",
    "RETRY_FORMS",
    "Fault",
    "FaultServer",
    "RecordedRequest",
    "Refuse",
    "Repeat",
    "RetryForm",
    "WireName",
]


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
        chunk_sizes: Sequence[int] = (),
        prefill: Prefill = "restart",
        instructed: Resume | None = None,
        quoted: tuple[str, str] | None = None,
    ) -> None:
        """Set how healthy answers look from now on; replaces what was set before, a tool call too.

        text: what they say, or a function of the request that tells it; streamed one word a chunk. Default: a greeting; or,
            after a tool's result, a sentence with that result; or a call of an offered tool that the user's message names.
            A request that forces a tool call gets one all the same, and one that sets a JSON schema an object that fits it,
            unless the text is JSON itself.
        input_tokens, output_tokens: reported usage. Default: a quarter of the prompt's characters; the words of the answer.
        delay: seconds before the response begins, or a function of the request that tells them. Default 0.
        chunk_delay: seconds between chunks of a stream. Default 0.
        chunk_sizes: characters (code points) of each chunk of a streamed text, over and over. Default: a word a chunk.
        prefill: what is made of an assistant message at the end of the conversation: "continue" (only the rest is said),
            "trimmed" (so is it, without the white space that it begins with), Repeat(20) or Repeat("sentence") (the end of the
            text so far is said once more), "restart" (default), "refuse" or Refuse("mistral") (a 400 in that provider's words; the
            record's outcome is then "prefill refused"). A text that the answer does not begin with is met by the full answer.
            Anthropic's wire refuses one that ends with white space in any case.
        instructed: the same (refusals apart) for a user message at the end that quotes the text so far. Default None: it is a
            question like any other.
        quoted: what stands right before and right after the text so far in an instruction; a message without both is no
            instruction. Default None: the text so far is the longest beginning of the answer that stands in the message, which
            may be a letter too long where the quote is followed by what the answer goes on with, and finds itself in questions.
        """
        if any(size < 1 for size in chunk_sizes):
            small = f"chunk_sizes must be 1 or more each, not {list(chunk_sizes)}"
            raise ValueError(small)
        checked(prefill, instructed)
        with self._changed:
            self._answer = Answer(
                text=text,
                input_tokens=input_tokens,
                output_tokens=output_tokens,
                delay=delay,
                chunk_delay=chunk_delay,
                chunk_sizes=tuple(chunk_sizes),
                prefill=prefill,
                instructed=instructed,
                quoted=quoted,
            )

    def answer_with_tool(self, name: str, args: JsonObject) -> None:
        """Answer with this tool call from now on, except right after a tool's result, which is answered as before."""
        with self._changed:
            self._answer = replace(self._answer, tool=ToolUse(name, dict(args)))

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
