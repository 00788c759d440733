"""What a refusal says to people, and what a journey remembers."""

import pytest

from langchain_resilient.engine.classify import ErrorKind, Failure
from langchain_resilient.engine.effects import Request
from langchain_resilient.engine.errors import CircuitOpenError, DeadlineExceededError, RateLimitedError, RefusedError
from langchain_resilient.engine.events import Refusal
from langchain_resilient.engine.plan.journey import Journey, Lapse, refused
from langchain_resilient.engine.policy import Policy
from langchain_resilient.testing.clock import FakeClock
from tests.engine.harness import target

K = ErrorKind


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


def test_faults_of_our_own_are_counted_apart():
    """A local fault takes no try from the provider, and has one free try of its own."""
    lapse = Lapse()
    lapse.count(Failure(K.LOCAL))
    assert lapse.tries == 1
    lapse.count(Failure(K.SERVER_ERROR))
    assert (lapse.tries, lapse.failure.kind) == (1, K.SERVER_ERROR)
    lapse.count(Failure(K.LOCAL))
    assert lapse.tries == 2


def test_what_is_left_to_the_deadline():
    """The request's own deadline, else the policy's total, counted from the beginning."""
    clock = FakeClock()
    policy = Policy((target(),), clock=clock, total=100.0)
    own, usual = Journey(Request(1, None, deadline=10.0), policy), Journey(Request(2, None), policy)
    clock.advance(4.0)
    assert (own.left(), usual.left()) == (6.0, 96.0)
    assert (own.fits(policy.targets[0], 5.9), own.fits(policy.targets[0], 6.0)) == (True, False)
