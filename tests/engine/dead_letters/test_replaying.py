"""What becomes of a letter that is asked again: answered, put off, parked, or given back where nobody could be asked."""

import asyncio

import pytest

from langchain_resilient.engine.dead_letters.box import BoxAwayError
from langchain_resilient.engine.dead_letters.letter import MOST_DELIVERIES
from langchain_resilient.engine.dead_letters.replaying import (
    GOES_ON,
    LEASE,
    LONGEST,
    PUT_OFF,
    Replayer,
    ReplayReport,
    judged,
)
from langchain_resilient.engine.errors import (
    AllProvidersFailedError,
    CircuitOpenError,
    DeadlineExceededError,
    RateLimitedError,
    SettingsError,
)
from langchain_resilient.engine.events import Replayed
from langchain_resilient.testing.clock import FakeClock
from tests.engine.dead_letters.post import TENANT, letter
from tests.engine.harness import status
from tests.servers import until

OPEN = CircuitOpenError("open", retry_after=45.0)


class Patient(FakeClock):
    """A clock on which nobody's lease comes to its renewal, and waits pass at once."""

    async def asleep(self, seconds, until=None):
        if seconds == LEASE / 3:
            await asyncio.Event().wait()
        await super().asleep(seconds, until)


class Desk:
    """A replayer over a box, and what it was asked and told.

    Args:
        box: The letters.
        clock: The box's own.
        answers: By key: a value, an exception, or a function of the letter.
    """

    def __init__(self, box, clock, **answers):
        self.box, self.clock, self.answers = box, clock, answers
        self.asked, self.events = [], []

    async def ask(self, one):
        self.asked.append(one.key)
        said = self.answers.get(one.key.replace("-", "_"), f"answer to {one.key}")
        if callable(said):
            said = await said(one)
        if isinstance(said, Exception):
            raise said
        return said

    def replayer(self, **settings):
        return Replayer(self.box, self.ask, observe=self.events.append, rand=lambda: 0.5, clock=self.clock, **settings)

    async def run(self, **settings):
        return await self.replayer(**settings).run()

    def outcomes(self):
        return [(event.letter, event.outcome) for event in self.events if isinstance(event, Replayed)]


@pytest.fixture
def desk(place):
    """Makes a desk on a clock that the box goes by too."""
    place.clock = Patient()
    box = place()
    return lambda **answers: Desk(box, place.clock, **answers)


async def test_what_is_answered_is_kept_by_its_key(desk):
    """Each due letter is asked once; its answer can be read by its idempotency key, and the letter is gone."""
    d = desk()
    for number in range(10):
        d.box.put(letter(number))
    assert await d.run() == ReplayReport(answered=10)
    assert sorted(d.asked) == [f"key-{number}" for number in range(10)]
    assert [d.box.result(f"key-{number}", TENANT).value for number in (0, 9)] == ["answer to key-0", "answer to key-9"]
    assert sorted(d.outcomes()) == [(f"id-{number:04}", "answered") for number in range(10)]
    assert d.box.counts()[:3] == (0, 0, 0)


async def test_where_nobody_may_be_asked_nobody_else_is(desk):
    """A refusal ends the run, comes back uncounted, and says when to come again; the letter is not due before."""
    d = desk(key_1=OPEN)
    for number in (1, 2, 3):
        d.box.put(letter(number))
    report = await d.run(concurrency=1)
    assert (report, d.asked) == (ReplayReport(refused=1, retry_after=45.0), ["key-1"])
    back = d.box.get("id-0001")
    assert (back.deliveries, back.not_before, back.parked) == (0, d.clock.wall() + 45.0, None)


async def test_who_is_refused_beside_others_comes_back_in_the_same_run(desk):
    """A half-open circuit takes one probe and refuses those beside it for half a minute: once the probe has answered they are asked."""
    probing, refused = asyncio.Event(), []

    async def probe(_):
        await probing.wait()
        return "well again"

    async def beside(one):
        if not probing.is_set():
            refused.append(one.key)
            if len(refused) == 2:
                probing.set()
            raise CircuitOpenError("its probes are taken", retry_after=30.0)
        return "answered"

    d = desk(key_1=probe, key_2=beside, key_3=beside)
    for number in (1, 2, 3):
        d.box.put(letter(number))
    began = d.clock.now()
    assert await d.run() == ReplayReport(answered=3)
    assert (sorted(refused), d.clock.now() - began < 5.0) == (["key-2", "key-3"], True)
    assert d.box.result("key-3", TENANT).value == "answered"


@pytest.mark.parametrize("wide", [1, 4])
async def test_all_refused_at_once_end_the_run(desk, wide):
    """Letters that are refused together do not wait for one another: the run ends, as it does with one, and says when to come again."""

    async def shut(_):
        raise OPEN

    d = desk(**dict.fromkeys(("key_1", "key_2", "key_3", "key_4"), shut))
    for number in (1, 2, 3, 4):
        d.box.put(letter(number))
    report = await asyncio.wait_for(d.run(concurrency=wide), 10)
    assert (report, len(d.asked)) == (ReplayReport(refused=wide, retry_after=45.0), wide)
    assert d.box.counts()[:3] == (4, 0, 0)


async def test_refusals_that_overlap_for_ever_end_the_run(desk):
    """Of letters that take long to be refused one is always being asked: after a minute without any other end that is a refusal of all."""
    d = desk()
    began = d.clock.now()

    async def overlapping(_):
        number = len(d.asked)
        while len(d.asked) == number and d.clock.now() - began < GOES_ON:  # for two things, one of them a clock's
            await asyncio.sleep(0.01)
            d.clock.advance(0.2)
        raise OPEN

    d.answers.update(key_1=overlapping, key_2=overlapping)
    d.box.put(letter(1))
    d.box.put(letter(2))
    report = await asyncio.wait_for(d.run(), 20)
    assert (report.refused, report.retry_after) == (2, 45.0)
    assert len(d.asked) > 2


async def test_most_counts_those_who_were_asked(desk):
    """Who was refused beside another was not asked: two others are, and no more."""
    done = asyncio.Event()

    async def slow(_):
        await done.wait()
        return "done"

    async def second(_):
        if not done.is_set():
            done.set()
            raise OPEN
        return "done"

    d = desk(key_1=slow, key_2=second)
    for number in (1, 2, 3):
        d.box.put(letter(number))
    assert (await d.run(most=2)).answered == 2
    assert d.box.counts().waiting == 1


async def test_what_fails_is_put_off_longer_each_time(desk):
    """A failure counts as a delivery; the wait is half (the jitter here) of 30 s, then of 60 s, and so on, or what the provider said."""
    d = desk(key_1=status(503))
    d.box.put(letter(1))
    waits = []
    for _ in range(3):
        assert await d.run() == ReplayReport(failed=1)
        waits.append(d.box.get("id-0001").not_before - d.clock.wall())
        d.clock.advance(LONGEST)
    assert waits == pytest.approx([PUT_OFF / 2, PUT_OFF, PUT_OFF * 2])
    d.answers["key_1"] = status(503, retry_after=500.0)
    await d.run()
    assert d.box.get("id-0001").not_before - d.clock.wall() == pytest.approx(500.0)


async def test_after_five_deliveries_it_is_parked(desk):
    """The fifth failure parks it, with the reason; it is not asked a sixth time."""
    d = desk(key_1=status(503))
    d.box.put(letter(1))
    reports = []
    for _ in range(MOST_DELIVERIES + 1):
        reports.append(await d.run())
        d.clock.advance(LONGEST)
    assert reports == [ReplayReport(failed=1)] * 4 + [ReplayReport(parked=1), ReplayReport()]
    assert d.box.get("id-0001").parked == "delivered 5 times: overloaded"


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (status(400), "its own fault (client_error)"),
        (status(400, "content_filter"), "its own fault (content_policy)"),
        (SettingsError("tools can't be bound"), "it can't be asked as it is written"),
        (RateLimitedError("too large", never=True), "nobody will ever answer it (RateLimitedError)"),
    ],
)
async def test_what_nobody_will_answer_is_parked_at_once(desk, error, why):
    """A fault of the letter's own is not asked again."""
    d = desk(key_1=error)
    d.box.put(letter(1))
    assert await d.run() == ReplayReport(parked=1)
    assert d.box.get("id-0001").parked == why


async def test_an_answer_that_is_no_json_is_parked(desk):
    """What can't be written as JSON is not lost without a word: the letter says so."""
    d = desk(key_1=object())
    d.box.put(letter(1))
    assert await d.run() == ReplayReport(parked=1)
    assert "can't be written as JSON" in d.box.get("id-0001").parked


@pytest.mark.parametrize(
    ("error", "outcome", "wait"),
    [
        (OPEN, "refused", 45.0),
        (DeadlineExceededError("late"), "refused", None),
        (AllProvidersFailedError("x", [OPEN, RateLimitedError("y", retry_after=7.0)]), "refused", 7.0),
        (AllProvidersFailedError("x", [status(503), RateLimitedError("y", retry_after=7.0)]), "failed", 7.0),
        (status(429, retry_after=9.0), "failed", 9.0),
        (status(401), "failed", None),
        (TypeError("a bug"), "failed", None),
    ],
)
def test_what_an_error_means(error, outcome, wait):
    """Refused, where nobody was asked; failed, where somebody may answer another time; and when."""
    assert judged(error, FakeClock().wall())[:2] == (outcome, wait)


async def test_no_more_at_a_time_than_allowed(desk):
    """With `concurrency=3` three letters are under way, and a fourth only once one of them has ended."""
    most, under_way = 0, 0

    async def slow(_):
        nonlocal most, under_way
        under_way += 1
        most = max(most, under_way)
        for _ in range(20):
            await asyncio.sleep(0)
        under_way -= 1
        return "done"

    d = desk(**{f"key_{number}": slow for number in range(9)})
    for number in range(9):
        d.box.put(letter(number))
    assert (await d.run(concurrency=3)).answered == 9
    assert most == 3


async def test_no_more_in_all_than_asked_for(desk):
    """With `most=2` two letters are asked, and the third still waits."""
    d = desk()
    for number in range(3):
        d.box.put(letter(number))
    assert (await d.run(most=2)).answered == 2
    assert d.box.counts().waiting == 1


async def test_cancelled_it_gives_back_what_it_holds(desk):
    """Whoever stops a replay loses no letter: those under way are due again at once, uncounted."""
    began = asyncio.Event()

    async def hangs(_):
        began.set()
        await asyncio.Event().wait()

    d = desk(key_1=hangs)
    d.box.put(letter(1))
    running = asyncio.create_task(d.run())
    await began.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    back = d.box.get("id-0001")
    assert (d.box.counts().waiting, back.deliveries, back.not_before) == (1, 0, 0.0)


@pytest.mark.parametrize("first", [None, BoxAwayError("away"), RuntimeError("planted")])
async def test_a_long_call_keeps_its_letter(desk, first):
    """A letter that is asked for longer than its lease is renewed, so nobody else gets it; a renewal that fails is not the last."""
    d = desk()
    d.clock = FakeClock()  # on which every wait passes at once: renewals follow one another as fast as the loop turns
    done = asyncio.Event()
    renewed = []

    async def hangs(_):
        await done.wait()
        return "late"

    own = d.box.renew

    def renew(letters, lease):
        renewed.append(([one.key for one in letters], lease))
        if first is not None and len(renewed) == 1:
            raise first
        own(letters, lease)
        done.set()

    d.box.renew = renew
    d.answers["key_1"] = hangs
    d.box.put(letter(1))
    assert (await d.run(lease=60.0)).answered == 1
    assert renewed[-1] == (["key-1"], 60.0)


async def test_an_answer_is_written_even_if_the_box_was_away(desk):
    """An answer has been paid for: its writing is tried again."""
    d = desk()
    d.box.put(letter(1))
    own, tries = d.box.finish, []

    def finish(one, value):
        tries.append(one.key)
        if len(tries) < 3:
            raise BoxAwayError("away")
        return own(one, value)

    d.box.finish = finish
    assert (await d.run()).answered == 1
    assert (tries, d.asked, d.box.result("key-1", TENANT).value) == (["key-1"] * 3, ["key-1"], "answer to key-1")


async def test_waiting_it_goes_on_for_ever(desk):
    """With `wait=True` letters that come later are asked too, and those that were refused once their time has come."""
    d = desk(key_1=OPEN)
    d.box.put(letter(1))
    running = asyncio.create_task(d.run(wait=True))
    await asyncio.to_thread(
        until, lambda: d.asked.count("key-1") >= 2, "a second try"
    )  # refused, and asked again after 45 s of the clock
    d.answers.clear()
    d.box.put(letter(2))
    await asyncio.to_thread(
        until, lambda: d.box.result("key-2", TENANT) and d.box.result("key-1", TENANT), "both answers"
    )
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


@pytest.mark.parametrize(
    ("settings", "field"),
    [({"concurrency": 0}, "concurrency"), ({"most": 0}, "most"), ({"lease": 0.5}, "lease"), ({"most": 1.5}, "most")],
)
def test_numbers_that_can_t_be_meant(desk, settings, field):
    """A setting that makes no sense is named with what was given and the fix."""
    with pytest.raises(SettingsError, match=rf"replay\.{field}: got"):
        desk().replayer(**settings)
