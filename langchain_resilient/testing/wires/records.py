"""What the server remembers of a request."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from langchain_resilient.testing.wires.base import JsonObject, WireName


@dataclass(eq=False, slots=True)
class RecordedRequest:
    """One request as it arrived, and what was done with it."""

    wire: WireName
    path: str
    """With its query string."""
    method: str
    headers: Mapping[str, str]
    """Names in lower case."""
    body: JsonObject
    """The parsed JSON; empty if it was not a JSON object."""
    stream: bool
    """Whether the client asked for a stream."""
    at: float
    """`time.monotonic()` when the request had been read, in seconds."""
    connection: int
    """Number of the TCP connection, from 1; the same number twice means that the client kept it open."""
    outcome: str = "ok"
    """Name of the fault that was played, such as `ok`, `status(503)` or `hang`."""
    begun: str | None = None
    """The text so far, if the request asks to go on with it: a prefill, or what an instruction quotes."""
    begun_by: Literal["prefill", "instruction"] | None = None
    """How it asks."""
    disconnected: bool = False
    """Whether the client went away before the server had finished. Settled once `wait_ended` returns True."""
    _ended: threading.Event = field(default_factory=threading.Event, repr=False)

    @property
    def model(self) -> str:
        """Name of the model that was asked for."""
        return str(self.body.get("model", ""))

    @property
    def ended(self) -> bool:
        """Whether the server is done with this request, be it answered, broken off or abandoned."""
        return self._ended.is_set()

    def wait_ended(self, timeout: float = 5.0) -> bool:
        """Wait until the server is done with this request, at most `timeout` seconds (default 5); False if it isn't."""
        return self._ended.wait(timeout)

    def end(self, *, disconnected: bool) -> None:
        """Note the end. Called by the server."""
        self.disconnected = disconnected
        self._ended.set()
