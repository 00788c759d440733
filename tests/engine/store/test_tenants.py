"""What users have taken: worked by hand, and what begins in any interval against the limits."""

from __future__ import annotations

import math
import os
import signal
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from langchain_resilient.engine import quota
from langchain_resilient.engine.quota import RateLimits
from langchain_resilient.engine.store.tenants import Booking, MemoryLedger, memory_ledger
from langchain_resilient.testing import FakeClock

S = 1_000_000
LONG = 3600 * S


def costs(limits: RateLimits, tokens: int) -> list[int]:
    """What a request takes of each dimension."""
    return [1 if item.unit == "requests" else tokens for item in quota.dimensions(limits)]


class Book:
    """A memory ledger for one set of limits, under a clock of its own."""

    def __init__(self, limits: RateLimits, start: float = 100.0, **settings: Any) -> None:
        self.clock = FakeClock(start)
        self.limits, self.dimensions = limits, quota.dimensions(limits)
        self.ledger = MemoryLedger(self.clock.now, **settings)

    def take(self, user: str = "default:ann", tokens: int = 0, patience: int = 0) -> Booking:
        return self.ledger.take(user, self.dimensions, costs(self.limits, tokens), patience)

    def hand_back(self, booking: Booking) -> None:
        self.ledger.hand_back(booking, self.dimensions)


# --------------------------------------------------------------------------------------------------------------- memory
def test_waits_are_booked_in_order_to_the_microsecond():
    """6 a minute, 2 at once: two go now, and each that waits is placed 10 s behind the one before it."""
    book = Book(RateLimits(rpm=6, burst=2))
    waits = [book.take(patience=LONG).wait for _ in range(5)]
    assert waits == [0, 0, 10 * S, 20 * S, 30 * S]


def test_a_refusal_writes_nothing_and_says_exactly_when():
    """Refused as often as asked, it is due after 10 s, and let in then and not a microsecond before."""
    book = Book(RateLimits(rpm=6, burst=1))
    assert book.take().granted
    for _ in range(3):
        refused = book.take()
        assert not refused.granted
        assert refused.wait == 10 * S
        assert refused.before == refused.after
    book.clock.advance(9.999999)
    assert not book.take().granted
    book.clock.advance(0.000001)
    assert book.take().granted


def test_users_do_not_share():
    """Each key has buckets of its own."""
    book = Book(RateLimits(rpm=6, burst=1))
    assert [book.take(f"default:{name}").granted for name in ("ann", "bob", "ann")] == [True, True, False]


def test_all_dimensions_or_none():
    """A request that the tokens refuse takes no request either."""
    book = Book(RateLimits(rpm=60, burst=2, tpm=600))  # 100 tokens at once, 10 a second
    assert book.take(tokens=100).granted
    refused = book.take(tokens=50)
    assert (refused.granted, refused.wait, refused.tightest) == (False, 5 * S, 1)
    assert book.take(tokens=0, patience=0).wait == 0


def test_what_waits_for_one_limit_takes_of_the_others_when_it_begins():
    """Or tokens would flow back before they were used: a burst of them booked for later is still there to be respected then."""
    book = Book(RateLimits(rpm=6, burst=1, tpm=600))  # 100 tokens at once, 10 a second
    assert book.take().granted
    booked = book.take(tokens=100, patience=LONG)
    assert booked.wait == 10 * S
    book.clock.advance(20.0)  # 10 s after it began its 100 tokens are just back
    assert book.take(tokens=100).granted
    again = Book(RateLimits(rpm=60, burst=1, tpm=600))
    assert again.take().granted
    assert again.take(tokens=100, patience=LONG).wait == 1 * S
    again.clock.advance(3.0)  # 2 s after it began, 20 are
    assert not again.take(tokens=21).granted
    assert again.take(tokens=20).granted


def test_the_last_in_line_that_leaves_leaves_all_as_it_was():
    """Handed back in the opposite order, bookings leave no trace, in no dimension."""
    book = Book(RateLimits(rpm=6, burst=1, tpm=600, rpd=50))
    first = book.take(tokens=30)
    line = [book.take(tokens=70, patience=LONG) for _ in range(3)]
    for booking in reversed(line):
        book.hand_back(booking)
    assert book.take(patience=-1).before == first.after


def test_one_that_leaves_the_middle_of_the_line_gives_back_its_step():
    """Those behind it keep their places; the next one comes a step sooner."""
    book = Book(RateLimits(rpm=6, burst=1))
    book.take()
    line = [book.take(patience=LONG) for _ in range(3)]
    assert [booking.wait for booking in line] == [10 * S, 20 * S, 30 * S]
    book.hand_back(line[1])
    assert book.take(patience=LONG).wait == 30 * S


def test_what_is_handed_back_never_makes_a_bucket_fuller_than_full():
    """Late, after the bucket was full again by itself, it changes nothing for anybody."""
    book = Book(RateLimits(rpm=6, burst=2))
    old = book.take()
    book.clock.advance(60.0)
    assert [book.take().granted for _ in range(3)] == [True, True, False]
    book.clock.advance(20.0)
    book.hand_back(old)
    assert [book.take().granted for _ in range(3)] == [True, True, False]


def test_a_million_users_leave_nothing_behind():
    """Who has all of the limit again is forgotten, a little with each that comes; who has not is not."""
    book = Book(RateLimits(rpm=6, burst=2, rpd=10))  # a request of a day's ten is back after 8640 s
    heavy = [f"default:heavy{n}" for n in range(5)]
    for user in heavy:
        for _ in range(2):
            book.take(user)
    for n in range(20_000):
        book.take(f"default:{n}")
        book.clock.advance(8.64)  # a thousand users a bucket's time
    assert len(book.ledger) <= 2100
    light = Book(RateLimits(rpd=10))
    light.take("default:x")
    for n in range(5_000):
        light.take(f"default:{n}")
    assert light.take("default:x", patience=-1).before[0] > 0
    assert len(light.ledger) == 5_001


def test_a_place_may_be_handed_back_in_the_middle_of_a_step():
    """The collector may close a waiting coroutine at any allocation: it must not wait for the lock that its own thread holds."""
    book = Book(RateLimits(rpm=6, burst=1))
    kept = [book.take()]

    def now() -> float:
        if kept:
            book.hand_back(kept.pop())
        return book.clock.now()

    book.ledger._seconds = now
    assert not book.take().granted
    assert book.take().granted


def test_a_clock_that_steps_back_stands_still_until_it_is_there_again():
    """Nobody gains by it, and nobody waits for longer than the step."""
    book = Book(RateLimits(rpm=6, burst=1))
    book.take()
    book.clock.advance(-50.0)
    assert book.take().wait == 10 * S
    book.clock.advance(60.0)
    assert book.take().granted


def test_a_child_process_may_decide_whatever_its_parent_was_in_the_middle_of():
    """A fork while another thread is in a step must not leave the child waiting for that thread."""
    book = Book(RateLimits(rpm=6))
    with book.ledger._turn:
        if (child := os.fork()) == 0:
            signal.alarm(5)
            os._exit(0 if book.take().granted else 1)
        assert os.waitpid(child, 0)[1] == 0


def test_the_process_has_one_ledger_for_a_namespace():
    """A limiter that is made anew for each request still counts."""
    dimensions = quota.dimensions(RateLimits(rpm=6))
    assert memory_ledger("here", dimensions) is memory_ledger("here", dimensions)
    assert memory_ledger("here", dimensions) is not memory_ledger("there", dimensions)


@pytest.mark.parametrize("processes", [1, 4, 2000])
def test_alone_a_user_begins_with_one_request_and_goes_on_at_a_share(processes: int):
    """However large the first request is, it is let in and takes all; what follows comes at the share, and never stops coming."""
    scale = max(1, 800 // processes)
    book = Book(RateLimits(rpm=60, burst=10, tpm=6000), scale=scale, unknowing=True)
    assert book.take(tokens=10).granted
    refused = book.take(tokens=10)
    assert not refused.granted
    step = math.ceil(S * 1000 / scale)
    assert 0 < refused.wait <= max(step, 10 * 10_000 * 1000 // scale)
    book.clock.advance(refused.wait / S)
    assert book.take(tokens=10).granted


class Start(NamedTuple):
    when: int
    units: tuple[int, ...]


@given(
    limits=st.sampled_from(
        [
            RateLimits(rpm=60, burst=3, tpm=600),
            RateLimits(rpm=6, burst=2, tpm=6000, rpd=20),
            RateLimits(tpm=60, rpm=77, burst=9),
        ]
    ),
    asks=st.lists(
        st.tuples(
            st.sampled_from([0, 0, 1, S, 7 * S, 30 * S]), st.integers(0, 60), st.sampled_from([0, 5 * S, 60 * S])
        ),
        min_size=5,
        max_size=40,
    ),
)
@settings(max_examples=150)
def test_what_begins_in_any_interval_keeps_to_every_limit(limits: RateLimits, asks: list[tuple[int, int, int]]):
    """I4, counted where requests begin and not where they are booked: ≤ burst (or one request) + rate · t; and I5, they begin in order."""
    book = Book(limits)
    starts: list[Start] = []
    for pause, tokens, patience in asks:
        book.clock.advance(pause / S)
        booking = book.take(tokens=tokens, patience=patience)
        if booking.granted:
            starts.append(Start(booking.at + booking.wait, tuple(costs(limits, tokens))))
    assert [start.when for start in starts] == sorted(start.when for start in starts)
    for place, dimension in enumerate(book.dimensions):
        for first in range(len(starts)):
            total = 0
            for start in starts[first:]:
                total += start.units[place]
                most = max(dimension.burst, *(each.units[place] for each in starts))
                # A burst of n requests is n intervals, each rounded up: a microsecond's worth of the rate for each.
                allowed = (
                    most + dimension.limit * (start.when - starts[first].when + dimension.burst) / dimension.period
                )
                assert total <= allowed + 1e-6
