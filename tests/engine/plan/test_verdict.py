"""What reaches the caller of a request that nobody answered."""

import pytest

from langchain_resilient.engine.errors import (
    CircuitOpenError,
    DeadlineExceededError,
    RateLimitedError,
    RefusedError,
)
from langchain_resilient.engine.events import Refusal
from langchain_resilient.engine.plan.verdict import refused


@pytest.mark.parametrize(
    ("reason", "wait", "kind", "text"),
    [
        ("circuit_open", 40.0, CircuitOpenError, "a: its circuit is open; retry in 40 s"),
        ("half_open", 5.0, CircuitOpenError, "a: its circuit is half-open, and its probes are taken; retry in 5 s"),
        ("forced_open", None, CircuitOpenError, "a: its circuit is forced open"),
        ("auth", 300.0, CircuitOpenError, "a: its credential was refused; retry in 300 s"),
        ("deadline", None, DeadlineExceededError, "a: too little time is left before the deadline"),
        ("budget", None, RefusedError, "a: its retry budget is used up"),
        ("blocked", 4.0, RateLimitedError, "a: it asked to be left alone; retry in 4 s"),
        ("quota_exhausted", 3600.0, RateLimitedError, "a: its quota is used up; retry in 3.6e+03 s"),
        ("line", 1.5, RateLimitedError, "a: others wait in its line; retry in 1.5 s"),
        ("rpm", 6.0, RateLimitedError, "a: its limit 'rpm' is used up; retry in 6 s"),
        ("tpm", None, RateLimitedError, "a: the request costs more than its limit 'tpm' allows per period"),
    ],
)
def test_each_reason_in_words(reason, wait, kind, text):
    """The class, the sentence, the provider and the time."""
    error = refused(Refusal("a", reason, wait))
    assert type(error) is kind
    assert (str(error), error.provider, error.retry_after) == (text, "a", wait)


def test_what_can_be_tried_again():
    """Waiting helps against everything but a deadline and a cost that never fits."""
    retryable = {
        reason: refused(Refusal("a", reason, wait)).is_retryable
        for reason, wait in [("circuit_open", 1.0), ("rpm", 1.0), ("budget", None), ("deadline", None), ("tpm", None)]
    }
    assert retryable == {"circuit_open": True, "rpm": True, "budget": True, "deadline": False, "tpm": False}
