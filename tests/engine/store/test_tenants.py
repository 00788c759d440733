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
from tests.servers import until

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


def test_a_place_in_the_middle_of_the_line_is_forfeited():
    """Those behind it keep their places, so another one at the end would begin beside them."""
    book = Book(RateLimits(rpm=6, burst=1))
    book.take()
    line = [book.take(patience=LONG) for _ in range(4)]
    assert [booking.wait for booking in line] == [10 * S, 20 * S, 30 * S, 40 * S]
    book.hand_back(line[1])
    assert book.take(patience=-1).wait == 50 * S
    book.hand_back(line[3])
    book.hand_back(line[2])
    assert book.take(patience=LONG).wait == 30 * S


def test_what_the_burst_has_room_for_comes_back_and_nobody_is_overtaken():
    """3 at once: one of the line leaves, and another one may begin beside the last, but not before it."""
    book = Book(RateLimits(rpm=6, burst=3))
    begun = [book.take() for _ in range(3)]
    line = [book.take(patience=LONG) for _ in range(2)]
    assert [booking.wait for booking in line] == [10 * S, 20 * S]
    book.hand_back(line[0])
    refused = book.take()
    assert (refused.wait, refused.tightest) == (20 * S, 0)
    book.hand_back(begun[2])
    refused = book.take()
    assert (refused.wait, refused.tightest) == (20 * S, 0)
    assert [book.take(patience=LONG).wait for _ in range(3)] == [20 * S, 20 * S, 30 * S]


def test_what_flowed_back_before_others_began_does_not_come_back_again():
    """A request that is reported late, when the bucket was full and taken again, lets in nobody beside those who took it."""
    book = Book(RateLimits(rpm=6, burst=2))
    old = book.take()
    book.clock.advance(60.0)
    assert [book.take().granted for _ in range(2)] == [True, True]
    book.hand_back(old)
    assert not book.take().granted


def test_nobody_gets_back_what_was_taken_in_another_book():
    """A user who was forgotten had all of the limit back: what is reported of the time before changes nothing."""
    book = Book(RateLimits(rpm=6, burst=3))
    early = [book.take() for _ in range(3)]
    for booking in early[:2]:
        book.hand_back(booking)
    book.clock.advance(11.0)
    for name in range(3):
        book.take(f"default:{name}")
    assert [book.take().granted for _ in range(4)] == [True, True, True, False]
    book.hand_back(early[2])
    assert not book.take().granted


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_where_nobody_came_behind_all_of_it_comes_back(order: tuple[int, ...]):
    """Requests at a time, settled in whatever order: what they did not use is there at once."""
    book = Book(RateLimits(tpm=600))  # 100 at once
    running = [book.take(tokens=30) for _ in range(3)]
    for which in order:
        book.ledger.settle(running[which], book.dimensions, [-2 * S])
    assert book.take(tokens=70).granted
    assert not book.take(tokens=1).granted


def test_under_load_the_rest_of_an_estimate_comes_back():
    """Bucket empty, four requests at a time that use half of what was expected: twice as many are let in as by their estimates."""
    book = Book(RateLimits(tpm=6000))  # 100 a second, 1000 at once
    running: list[Booking] = []
    count = 0
    for _ in range(600):
        book.clock.advance(0.5)
        if len(running) == 4:
            book.ledger.settle(running.pop(0), book.dimensions, [-1 * S])
        if len(running) < 4 and (booking := book.take(tokens=200)).granted:
            count += 1
            running.append(booking)
    assert count >= 290


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
    until(lambda: book.take().granted, "it is handed back when the step is over")


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
    units: list[int]
    """What it really used."""
    booking: Booking


def leave(book: Book, one: Start, tokens: int | None) -> None:
    """It used fewer tokens than it was expected to, or (None) was never made."""
    if tokens is None:
        book.hand_back(one.booking)
        one.units[:] = [0] * len(one.units)
        return
    moves = []
    for place, dimension in enumerate(book.dimensions):
        expected = one.units[place]
        if dimension.unit != "requests":
            one.units[place] = min(tokens, expected)
        moves.append(quota.moved(dimension, one.booking.steps[place], expected, one.units[place]))
    book.ledger.settle(one.booking, book.dimensions, moves)


TAKE = st.tuples(st.just("take"), st.integers(0, 60), st.sampled_from([0, 5 * S, 60 * S]))
LEAVE = st.tuples(st.sampled_from(["cancel", "settle"]), st.integers(0, 60), st.integers(0, 9))
PASS = st.tuples(st.just("pass"), st.sampled_from([1, S // 2, S, 7 * S, 30 * S]), st.just(0))


@given(
    limits=st.sampled_from(
        [
            RateLimits(rpm=60, burst=1),
            RateLimits(rpm=60, burst=3, tpm=600),
            RateLimits(rpm=6, burst=2, tpm=6000, rpd=20),
            RateLimits(tpm=60, rpm=77, burst=9),
            RateLimits(tpm=600),
        ]
    ),
    asks=st.lists(st.one_of(TAKE, TAKE, LEAVE, PASS), min_size=10, max_size=60),
)
@settings(max_examples=400, deadline=None)
def test_what_begins_in_any_interval_keeps_to_every_limit(limits: RateLimits, asks: list[tuple[str, int, int]]):
    """I4, counted where requests begin, whoever is cancelled or used less: ≤ burst (or one request) + rate · t; and I5, they begin in order."""
    book = Book(limits)
    starts: list[Start] = []
    live: list[Start] = []
    largest = [dimension.burst for dimension in book.dimensions]
    for what, amount, other in asks:
        if what == "pass":
            book.clock.advance(amount / S)
        elif what == "take":
            booking = book.take(tokens=amount, patience=other)
            if booking.granted:
                starts.append(Start(booking.at + booking.wait, costs(limits, amount), booking))
                live.append(starts[-1])
                largest = list(map(max, largest, starts[-1].units))
        elif live:
            leave(book, live.pop(other % len(live)), None if what == "cancel" else amount)
    starts = [start for start in starts if any(start.units)]
    assert [start.when for start in starts] == sorted(start.when for start in starts)
    for place, dimension in enumerate(book.dimensions):
        for first, since in enumerate(starts):
            total = 0
            for start in starts[first:]:
                total += start.units[place]
                # A burst of n requests is n intervals, each rounded up: a microsecond's worth of the rate for each.
                passed = start.when - since.when + dimension.burst
                assert total <= largest[place] + dimension.limit * passed / dimension.period + 1e-6
