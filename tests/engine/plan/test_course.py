"""What each kind of failure leads to: DESIGN §4's table, row by row."""

import pytest

from langchain_resilient.engine.backoff import Retry
from langchain_resilient.engine.classify import ErrorKind, Failure
from langchain_resilient.engine.plan.course import (
    CALLERS_OWN,
    COURSES,
    OWN_IF_EVERYWHERE,
    delay_alone,
    delay_beside_others,
)

RETRY = Retry()  # 3 retries, base 0.5 s, cap 60 s, hints up to 2 s
K = ErrorKind


def beside(kind, *, retry_after=None, tries=1, retry=RETRY, rand=0.5, bug=False):
    """The delay while others could take the request."""
    return delay_beside_others(Failure(kind, retry_after=retry_after, bug=bug), retry, tries=tries, rand=rand)


def alone(kind, *, retry_after=None, tries=1, round_=0, blocked=0.0, retry=RETRY, rand=0.5, bug=False):
    """The delay where nobody else can take it."""
    failure = Failure(kind, retry_after=retry_after, bug=bug)
    return delay_alone(failure, retry, tries=tries, round_=round_, blocked=blocked, rand=rand)


def test_every_kind_has_a_row():
    """No kind of failure is forgotten."""
    assert set(COURSES) == set(ErrorKind)


@pytest.mark.parametrize(
    ("kind", "others", "nobody_else"),
    [
        # rand 0.5: half of the base 0.5 s; a 429 without a hint has a base of 1 s.
        (K.RATE_LIMITED, None, 0.5),
        (K.QUOTA_EXHAUSTED, None, None),
        (K.OVERLOADED, None, 0.25),
        (K.SERVER_ERROR, 0.25, 0.25),
        (K.TIMEOUT, None, None),
        (K.STREAM_INTERRUPTED, None, 0.25),
        (K.AUTH, None, None),
        (K.PERMISSION, None, None),
        (K.NOT_FOUND, None, None),
        (K.CONTEXT_OVERFLOW, None, None),
        (K.CONTENT_POLICY, None, None),
        (K.CLIENT_ERROR, None, None),
        (K.INVALID_OUTPUT, None, 0.25),
        (K.CANCELLED, None, None),
        (K.LOCAL, 0.0, 0.0),
        (K.UNKNOWN, None, 0.25),
    ],
)
def test_retry_here(kind, others, nobody_else):
    """After the first failure the same provider is asked again only where the table says so, after this long."""
    assert (beside(kind), alone(kind)) == (others, nobody_else)


@pytest.mark.parametrize("kind", list(ErrorKind))
def test_who_may_be_asked_next(kind):
    """Another provider may be asked unless the fault is the caller's own."""
    assert COURSES[kind].onward is (kind not in {K.CONTENT_POLICY, K.CLIENT_ERROR, K.CANCELLED})


def test_the_callers_own_faults():
    """The provider's own exception reaches the caller for what the caller has to mend."""
    assert set(CALLERS_OWN) == {K.CLIENT_ERROR, K.CONTENT_POLICY, K.CANCELLED}
    assert set(OWN_IF_EVERYWHERE) == {K.CONTEXT_OVERFLOW, K.INVALID_OUTPUT}


# ------------------------------------------------------------------------------------------------------- beside others


def test_at_most_one_retry_here_while_another_can_take_it():
    """A 500 is retried once where it happened; the second one moves the request on."""
    assert beside(K.SERVER_ERROR, tries=1) == 0.25
    assert beside(K.SERVER_ERROR, tries=2) is None


@pytest.mark.parametrize(
    ("retry_after", "delay"),
    [
        (1.0, 1.05),  # 1 + 0.5 · 0.1
        (2.0, 2.1),  # the most that is waited for
        (2.001, None),
        (3600.0, None),
        (None, None),
    ],
)
def test_a_429_is_waited_for_only_if_its_hint_is_short(retry_after, delay):
    """While others can take it, a 429 is retried here only for a stated wait of at most `max_retry_after`."""
    found = beside(K.RATE_LIMITED, retry_after=retry_after)
    assert found == (None if delay is None else pytest.approx(delay))


def test_a_429_is_waited_for_once():
    """The second 429 in a row moves the request on, however short its hint."""
    assert beside(K.RATE_LIMITED, retry_after=0.1, tries=2) is None


@pytest.mark.parametrize(("retry_after", "delay"), [(1.0, 1.05), (30.0, None)])
def test_a_500_that_states_a_wait_is_not_retried_before_it(retry_after, delay):
    """A stated Retry-After is a minimum for every kind: waited for if short, else the request moves on."""
    found = beside(K.SERVER_ERROR, retry_after=retry_after)
    assert found == (None if delay is None else pytest.approx(delay))


def test_an_overloaded_provider_is_left_to_others_even_with_a_short_hint():
    """503 and 529 are retried here only if nowhere else can take the request."""
    assert beside(K.OVERLOADED, retry_after=0.5) is None


def test_retries_turned_off_hold_beside_others():
    """`max_retries=0` never asks the same provider twice, save for a fault of our own, which is free."""
    never = Retry(max_retries=0)
    assert beside(K.SERVER_ERROR, retry=never) is None
    assert beside(K.RATE_LIMITED, retry_after=0.1, retry=never) is None
    assert beside(K.LOCAL, retry=never) == 0.0


def test_the_first_backoff_is_capped_by_max_delay():
    """`max_delay` holds for the retry beside others too: 0.5 · min(0.1, 0.5)."""
    assert beside(K.SERVER_ERROR, retry=Retry(max_delay=0.1)) == 0.05


@pytest.mark.parametrize("ask", [beside, alone])
def test_a_local_fault_is_retried_once_at_once(ask):
    """Our own fault is repeated once, at once, however long the provider is blocked; the second is not."""
    assert ask(K.LOCAL, tries=1, retry_after=30.0) == 0.0
    assert ask(K.LOCAL, tries=2) is None
    assert ask(K.LOCAL, tries=1, retry=Retry(max_retries=0)) == 0.0


# --------------------------------------------------------------------------------------------------------------- alone


@pytest.mark.parametrize("kind", [K.RATE_LIMITED, K.OVERLOADED, K.SERVER_ERROR])
def test_alone_it_is_tried_max_retries_times(kind):
    """When nobody else can take the request there are `max_retries` retries, and no more."""
    assert [alone(kind, tries=tries) is None for tries in (1, 2, 3, 4)] == [False, False, False, True]
    assert alone(kind, retry=Retry(max_retries=0)) is None


def test_alone_an_unknown_failure_is_tried_once_more():
    """What nobody understands is repeated once, and a bug never."""
    assert alone(K.UNKNOWN, tries=1) == 0.25
    assert alone(K.UNKNOWN, tries=2) is None
    assert alone(K.UNKNOWN, tries=1, bug=True) is None


def test_alone_the_bound_doubles_with_each_round():
    """Rounds 0, 1, 2 wait half of 0.5, 1 and 2 s; a throttled provider half of 1, 2 and 4 s."""
    assert [alone(K.OVERLOADED, round_=round_) for round_ in (0, 1, 2)] == [0.25, 0.5, 1.0]
    assert [alone(K.RATE_LIMITED, round_=round_) for round_ in (0, 1, 2)] == [0.5, 1.0, 2.0]


def test_a_larger_base_holds_when_throttled_too():
    """After a 429 the base is at least 1 s: a configured 4 s stays 4 s."""
    assert alone(K.RATE_LIMITED, retry=Retry(base_delay=4.0)) == 2.0


@pytest.mark.parametrize(
    ("retry_after", "blocked", "delay"),
    [
        (5.0, 0.0, 5.25),  # + 0.5 · 0.1·5
        (None, 5.0, 5.25),  # another call's 429
        (5.0, 8.0, 8.4),  # the longer of the two: + 0.5 · 0.1·8
        (8.0, 5.0, 8.4),
        (60.0, 0.0, 60.5),  # the longest: max_delay
        (60.1, 0.0, None),
        (None, 7200.0, None),
    ],
)
def test_alone_it_sleeps_to_the_providers_own_time(retry_after, blocked, delay):
    """The only candidate waits until it is not blocked, not by its own backoff; beyond `max_delay` it doesn't wait."""
    found = alone(K.RATE_LIMITED, retry_after=retry_after, blocked=blocked, round_=2)
    assert found == (None if delay is None else pytest.approx(delay))


def test_alone_a_hint_does_not_revive_what_is_never_retried():
    """An exhausted quota with a short reset is still not asked again by this request."""
    assert alone(K.QUOTA_EXHAUSTED, retry_after=1.0) is None
    assert alone(K.TIMEOUT, retry_after=1.0) is None
