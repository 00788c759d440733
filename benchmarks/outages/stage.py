"""Three providers on loopback, for one contender, and the log of what they were asked.

Rules of this file: the servers alone are told what is to happen. Every contender talks to the same three: OpenAI's wire, Anthropic's,
and OpenAI's again, as LiteLLM continues a broken stream only on a model that takes a prefill, which OpenAI's do not.
A refused connection reaches no server, so it is counted where it is dialled.
"""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any, NamedTuple, Self

from langchain_resilient.testing.fault_server import Fault, FaultServer, RecordedRequest, WireName
from outages.faults import Condition, Outage
from outages.traffic import BETWEEN_WORDS, MEDIAN, answer_to, number_in, usual_time

HEALTHY = Condition()


class House(NamedTuple):
    """One provider."""

    name: str
    wire: WireName
    model: str


HOUSES = (
    House("first", "openai", "gpt-4.1"),
    House("second", "anthropic", "claude-sonnet-4-5"),
    House("third", "openai", "gpt-4.1-mini"),
)
"""In order of priority."""


class Call(NamedTuple):
    """One request to one provider, as its server saw it."""

    provider: int
    """Its place in the order of priority, from 0."""
    at: float
    """Seconds from the beginning."""
    answered: bool
    """Whether the provider answered it in full, and the client stayed to hear it."""
    wasted: bool
    """Whether a provider that was sick then failed it, or took its time over it."""


class Stage:
    """A contender's three providers. A context manager.

    Args:
        seed: Of the answers' times.
        paced: Whether a stream's words come one after another; else, where whole answers are asked for, they all come at once, so that one
            who streams inside waits as long as one who does not.
        median: Seconds that half of the healthy answers take at most, or their first words.
    """

    def __init__(self, seed: int, *, paced: bool = True, median: float = MEDIAN) -> None:
        self._between_words = BETWEEN_WORDS if paced else 0.0
        self._pace = median / MEDIAN
        self.servers = tuple(FaultServer() for _ in HOUSES)
        self._seed = seed
        self._slow: list[tuple[int, float, float]] = []
        self._began: dict[int, float] = {}
        self._refused: list[tuple[int, float]] = []
        self._refusing: dict[int, int] = {}

    def __enter__(self) -> Self:
        for server in self.servers:
            server.start()
        sys.addaudithook(self._dialled)
        self.heal()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for server in self.servers:
            server.stop()

    def base_url(self, provider: int) -> str:
        """What a client of this provider takes as base URL."""
        return self.servers[provider].base_url(HOUSES[provider].wire)

    def strike(self, outage: Outage) -> None:
        """From now on the sick ones are sick; what is under way ends as it began. May block for a moment."""
        for provider, condition in outage.sick.items():
            self._set(provider, condition)

    def heal(self) -> None:
        """From now on all are healthy."""
        for provider in range(len(HOUSES)):
            self._set(provider, HEALTHY)

    def forget(self) -> None:
        """Forget what was asked so far."""
        for server in self.servers:
            server.reset_log()
        self._refused.clear()

    def _set(self, provider: int, condition: Condition) -> None:
        server, name = self.servers[provider], HOUSES[provider].name
        pace = condition.slowdown * self._pace
        server.answer(
            lambda record: answer_to(_messages(record)),
            delay=lambda record: condition.later + pace * usual_time(self._seed, name, number_in(_messages(record))),
            chunk_delay=condition.slowdown * self._between_words,
        )
        server.always(condition.fault)
        self._remember(provider, slow=condition.slowdown > 1 or condition.later > 0)
        if condition.refuses:
            self._refusing[server.port] = provider
            server.refuse()
        else:
            server.accept()
            self._refusing.pop(server.port, None)

    def _remember(self, provider: int, *, slow: bool) -> None:
        now = time.monotonic()
        if slow:
            self._began[provider] = now
        elif provider in self._began:
            self._slow.append((provider, self._began.pop(provider), now))

    def _dialled(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "socket.connect" and self._refusing:
            address = arguments[1]
            provider = self._refusing.get(address[1]) if isinstance(address, tuple) else None
            if provider is not None:
                self._refused.append((provider, time.monotonic()))

    def calls(self, zero: float) -> tuple[Call, ...]:
        """All that the providers were asked, in the order of time.

        Args:
            zero: The beginning, by `time.monotonic()`.
        """
        found = [Call(provider, at - zero, answered=False, wasted=True) for provider, at in self._refused]
        for provider, server in enumerate(self.servers):
            found += [self._call(provider, record, zero) for record in server.requests]
        return tuple(sorted(found, key=lambda call: call.at))

    def _call(self, provider: int, record: RecordedRequest, zero: float) -> Call:
        well = record.outcome == Fault.ok().name
        slow = any(one == provider and begins <= record.at < ends for one, begins, ends in self._slow)
        answered = well and record.ended and not record.disconnected
        return Call(provider, record.at - zero, answered=answered, wasted=slow or not well)


def _messages(record: RecordedRequest) -> list[Any]:
    messages = record.body.get("messages")
    return messages if isinstance(messages, list) else []
