"""Who asks what and when, what the right answer is, and how long a healthy provider takes to give it.

Rules of this file: values, drawn from a seed. The same seed is the same traffic to the last digit, whoever is asked: a draw depends on
the request's number and the provider's name, never on what was drawn before.
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

MEDIAN = 0.3
"""Seconds that a healthy provider takes to answer, or to its first word."""
SPREAD = 0.35
"""Sigma of the lognormal: the p99 is 0.68 s."""
WORDS = 12
"""Words in an answer; one word is one chunk of a stream."""
BETWEEN_WORDS = 0.05
"""Seconds between two words of a stream."""

_QUESTION = re.compile(r"\[(\d+)\]")


class Arrival(NamedTuple):
    """One request of one user."""

    number: int
    at: float
    """Seconds from the beginning."""


def arrivals(*, seed: int, rate: float, seconds: float) -> tuple[Arrival, ...]:
    """A Poisson process.

    Args:
        seed: Of the generator.
        rate: Requests a second (> 0).
        seconds: How long they come.
    """
    rng = random.Random(f"{seed} arrivals")
    found: list[Arrival] = []
    at = rng.expovariate(rate)
    while at < seconds:
        found.append(Arrival(len(found), at))
        at += rng.expovariate(rate)
    return tuple(found)


def prompt_of(number: int) -> str:
    """What a user asks: numbered, so that a server can tell one request from another."""
    return f"[{number}] Count for me, and don't lose your place."


def reply_to(number: int) -> str:
    """The one right answer: every word tells whose it is and which, so that a lost or doubled one shows."""
    return " ".join(f"{number}-{word}" for word in range(1, WORDS + 1))


def number_in(messages: Sequence[Any]) -> int:
    """The number of the request that these messages of any wire belong to; -1 if they belong to none."""
    found = next((match for text in map(_text_of, messages) if (match := _QUESTION.search(text))), None)
    return int(found[1]) if found else -1


def answer_to(messages: Sequence[Any]) -> str:
    """What a model says to these messages: its answer, or the rest of it if it is shown a beginning.

    The beginning may come as the assistant's last turn (a prefill) or quoted in an instruction.
    """
    number = number_in(messages)
    words = reply_to(number).split(" ")
    shown = [_text_of(message) for message in messages]
    for said in range(len(words), 0, -1):
        beginning = " ".join(words[:said])
        if any(_holds(text, beginning) for text in shown):
            return "".join(f" {word}" for word in words[said:])
    return " ".join(words)


def usual_time(seed: int, provider: str, number: int) -> float:
    """Seconds that a healthy provider takes for this request, or until its first word."""
    rng = random.Random(f"{seed} {provider} {number}")
    return MEDIAN * math.exp(SPREAD * rng.gauss(0.0, 1.0))


def _holds(text: str, beginning: str) -> bool:
    """Whether the text has the beginning, and its last word in full: "17-1" does not stand in "17-12"."""
    return re.search(rf"{re.escape(beginning)}(?!\d)", text) is not None


def _text_of(message: Any) -> str:
    content = message.get("content") if isinstance(message, dict) else None
    if isinstance(content, list):
        return "".join(str(block.get("text", "")) for block in content if isinstance(block, dict))
    return content if isinstance(content, str) else ""
