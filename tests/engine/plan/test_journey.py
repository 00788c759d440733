"""What a refusal says to people, and what a journey remembers."""

from langchain_resilient.engine.classify import ErrorKind, Failure
from langchain_resilient.engine.effects import Request
from langchain_resilient.engine.plan.journey import Journey, Lapse
from langchain_resilient.engine.policy import Policy
from langchain_resilient.testing.clock import FakeClock
from tests.engine.harness import target

K = ErrorKind


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
