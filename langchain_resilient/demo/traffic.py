"""Who asks what, and when.

Rules of this file: values, drawn from a seed: the same seed is the same traffic, to the last digit, for every contender.
"""

from __future__ import annotations

import random
from typing import NamedTuple

FAQ: dict[str, str] = {
    "Why does a circuit breaker have a half-open state?": "So that a few probes can tell whether the provider is well again, before all"
    " users find out at once that it is not.",
    "What is full jitter?": "A wait drawn evenly between zero and the backoff's present ceiling, so that clients that failed together do"
    " not come back together.",
    "Why not just retry three times?": "Because three times the traffic is the last thing that a provider in trouble needs: a budget"
    " bounds what all retries together may add.",
    "What does Retry-After tell me?": "When the provider wants to hear from you again. Asking earlier costs you a place in line, and it"
    " the calm to recover.",
    "What is a black hole?": "A provider that accepts your request and never answers. No error tells you; only the silence does, if you"
    " listen to it.",
    "When is a slow answer a failure?": "When it comes after the user has gone. Until then it is merely late, and somebody else may be"
    " faster.",
    "What does p99 hide?": "Every hundredth user. At ten requests a session that is every tenth session, and those are the ones that"
    " write to support.",
    "Why put a deadline over all attempts?": "Because each attempt believes it has all the time in the world, and the user has only one"
    " afternoon.",
    "What is a token bucket?": "An allowance that fills at a steady rate up to a limit. You may spend a burst at once, but not more than"
    " has come in.",
    "Who should probe a broken provider?": "One request at a time, and beside a healthy provider, so that no user pays for the news.",
    "Is a timeout the provider's fault?": "Usually. But a model that has never answered yet may just be slow, so the first ones count"
    " for less.",
    "What happens at 2:10 PM?": "With luck, nothing that anybody notices.",
}
"""What is asked, and what a provider answers when it is well."""

STREAM_EVERY = 3
"""Every third question is asked as a stream."""


class Question(NamedTuple):
    """One request of one user."""

    number: int
    at: float
    """Seconds from the beginning."""
    text: str
    stream: bool

    @property
    def prompt(self) -> str:
        """What is sent: numbered, so that the servers can tell one from another."""
        return f"[{self.number}] {self.text}"


def arrivals(*, seed: int, rate: float, seconds: float) -> tuple[Question, ...]:
    """The questions of an afternoon: a steady stream, with gaps of half to one and a half times the usual.

    Args:
        seed: Of the generator.
        rate: Questions a second (> 0).
        seconds: How long they come (> 0).
    """
    rng = random.Random(seed)
    topics = list(FAQ)
    rng.shuffle(topics)
    questions: list[Question] = []
    at = rng.random() / rate
    while at < seconds:
        number = len(questions)
        questions.append(Question(number, at, topics[number % len(topics)], stream=number % STREAM_EVERY == 0))
        at += rng.uniform(0.5, 1.5) / rate
    return tuple(questions)


def reply_to(prompt: str) -> str:
    """What a provider that is well says to a prompt."""
    return FAQ.get(prompt.partition("] ")[2], "Ask me about resilience.")


def usual_time(seed: int, house: str, prompt: str) -> float:
    """The factor on a provider's usual time for this prompt (0.75 – 1.15): the same for whoever asks."""
    return random.Random(f"{seed} {house} {prompt}").uniform(0.75, 1.15)
