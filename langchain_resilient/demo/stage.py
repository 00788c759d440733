"""Three providers on loopback, for one contender.

Rules of this file: the servers alone are told what is to happen. Each contender has three of its own, so that one's retries are not
another's load; they behave alike to the last digit, as the time that an answer takes is drawn from the seed and the question.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from types import TracebackType
from typing import Self

from langchain_resilient.demo.afternoon import Afternoon, Condition, House, Phase
from langchain_resilient.demo.traffic import reply_to, usual_time
from langchain_resilient.testing.fault_server import FaultServer, RecordedRequest, WireName


class Stage:
    """A contender's three providers. A context manager."""

    def __init__(self, afternoon: Afternoon, seed: int) -> None:
        self.houses = afternoon.houses
        self.servers: dict[WireName, FaultServer] = {house.wire: FaultServer() for house in afternoon.houses}
        self._seed = seed

    def __enter__(self) -> Self:
        for server in self.servers.values():
            server.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for server in self.servers.values():
            server.stop()

    def set(self, phase: Phase) -> None:
        """From now on the providers behave as this phase says; what they are at already goes on as it began."""
        for house in self.houses:
            self._set(house, phase.of(house.wire))

    def _set(self, house: House, condition: Condition) -> None:
        server = self.servers[house.wire]
        server.answer(
            lambda record: reply_to(prompt_of(record)),
            delay=self._delay(house, condition.slowdown),
            chunk_delay=house.between_words * condition.slowdown,
            prefill="continue",
        )
        server.always(condition.fault)

    def _delay(self, house: House, slowdown: float) -> Callable[[RecordedRequest], float]:
        return lambda record: house.seconds * slowdown * usual_time(self._seed, house.wire, prompt_of(record))

    def calls(self) -> dict[str, int]:
        """How many requests each provider has seen: its server's own log."""
        return {house.name: self.servers[house.wire].count for house in self.houses}

    def outcomes(self) -> dict[str, dict[str, int]]:
        """The same by what the server did with them ("ok", "status(503)", "hang", …)."""
        return {
            house.name: dict(Counter(record.outcome for record in self.servers[house.wire].requests))
            for house in self.houses
        }


def prompt_of(record: RecordedRequest) -> str:
    """The user's question in a request of any of the three wires: its first message, as what follows asks to go on with an answer."""
    messages = record.body.get("messages")
    first = messages[0] if isinstance(messages, list) and messages else {}
    content = first.get("content", "") if isinstance(first, dict) else ""
    return content if isinstance(content, str) else ""
