"""Cancelling what swallows a cancellation, as `asyncio.wait_for` of Python 3.11 may: real tasks, limits of some tens of milliseconds."""

import asyncio

import pytest

from langchain_resilient.engine.drive import arun, cancelling
from langchain_resilient.engine.drive.cancelling import Limit, cancel
from langchain_resilient.engine.errors import AttemptTimeoutError
from tests.engine.drive.test_drive import LONG, SHORT, Provider, Setting
from tests.engine.harness import Chunk, left_over

EMPTY = Chunk("")
ENDLESS = 10_000
"""Chunks without content, one each millisecond: nobody waits for their end."""


class Deaf(Provider):
    """A provider whose client swallows the first cancellation of each sleep."""

    async def acall(self, target):
        return await self._deaf(super().acall, target)

    async def _deaf(self, call, target):
        try:
            await asyncio.sleep(LONG)
        except asyncio.CancelledError:
            self.cancelled.append(f"{target.name}, unheeded")
        return await call(target)

    async def astream(self, target):
        try:
            for chunk in self.scripts[target.name][1]:
                try:
                    await asyncio.sleep(0.001)
                except asyncio.CancelledError:
                    self.cancelled.append(f"{target.name}, unheeded")
                yield chunk
        finally:
            self.closed.append(target.name)


def deaf(**options):
    """A setting whose providers' clients are deaf to the first cancellation."""
    setting = Setting(**options)
    setting.upstream = Deaf(**setting.upstream.scripts)
    return setting


@pytest.fixture(autouse=True)
def _insist_often(monkeypatch):
    monkeypatch.setattr(cancelling, "INSIST_EVERY", SHORT)


async def test_a_stream_of_empty_deltas_that_swallows_the_limit_ends_all_the_same():
    """Its next chunk is its last: the limit is told, the connection let go of."""
    setting = deaf(a=(0.0, (EMPTY,) * ENDLESS), first_token=SHORT)
    async with asyncio.timeout(LONG):
        with pytest.raises(AttemptTimeoutError) as caught:
            [chunk async for chunk in setting.astream()]
    assert caught.value.limit == "first_token"
    assert (setting.upstream.cancelled, setting.upstream.closed) == (["a, unheeded"], ["a"])
    assert left_over(setting.store) == {}


@pytest.mark.parametrize("begun", [False, True], ids=["before content", "after content"])
async def test_a_cancelled_reader_of_a_stream_that_swallows_it_is_cancelled(begun):
    """The user's own cancellation is not lost either, though no limit is over."""
    setting = deaf(a=(0.0, (Chunk("one"),) * begun + (EMPTY,) * ENDLESS))

    async def read():
        return [chunk async for chunk in setting.astream()]

    task = asyncio.create_task(read())
    await asyncio.sleep(SHORT)
    task.cancel()
    await asyncio.wait([task], timeout=LONG)
    assert task.cancelled()
    assert (setting.upstream.cancelled, setting.upstream.closed) == (["a, unheeded"], ["a"])
    assert left_over(setting.store) == {}


async def test_a_call_that_swallows_its_limit_is_cancelled_again():
    """A client that streams inside a plain call can't be looked into: it is asked until it heeds."""
    setting = deaf(a=(LONG, Chunk("late")), response=SHORT)
    with pytest.raises(AttemptTimeoutError) as caught:
        await setting.arun()
    assert (caught.value.limit, setting.upstream.cancelled) == ("response", ["a, unheeded", "a"])
    assert left_over(setting.store) == {}


async def test_the_loser_of_a_race_that_swallows_its_end_is_cancelled_again():
    """Whoever was answered does not wait for the other's limit."""
    setting = deaf(a=(2 * LONG, Chunk("from a")), b=(2 * LONG, Chunk("from b")))
    setting.half_open()
    task = asyncio.create_task(setting.arun())
    await asyncio.sleep(SHORT)
    task.cancel()
    await asyncio.wait([task], timeout=LONG)
    assert task.cancelled() and sorted(setting.upstream.cancelled) == ["a", "a, unheeded", "b", "b, unheeded"]
    assert left_over(setting.store) == {}


async def test_an_answer_in_the_limits_own_instant_is_an_answer():
    """What swallowed the cancellation because it was done is not asked again, and its task is not left cancelled."""
    setting = deaf(a=(0.0, Chunk("just")), response=SHORT)
    assert (await arun(setting.plan(), setting.ahands)).text == "just"
    task = asyncio.current_task()
    assert (task.cancelling(), setting.upstream.cancelled, left_over(setting.store)) == (0, ["a, unheeded"], {})


async def test_a_limit_leaves_others_cancellations_alone():
    """Whoever is cancelled inside a limit that is not over is cancelled, not out of time; nor is one who is both."""
    for seconds in (LONG, 0.0):

        async def wait(seconds=seconds):
            with Limit(seconds):
                asyncio.get_running_loop().call_soon(asyncio.current_task().cancel)
                await asyncio.sleep(2 * LONG)

        task = asyncio.create_task(wait())
        await asyncio.wait([task], timeout=LONG)
        assert task.cancelled()


async def test_without_a_limit_nothing_ends():
    """None means for ever; a limit that is over already lets nothing wait."""
    with Limit(None) as limit:
        await asyncio.sleep(0)
    assert not limit.expired
    with pytest.raises(TimeoutError), Limit(-1.0):
        await asyncio.sleep(LONG)


async def test_a_limit_can_be_prolonged_until_it_is_over():
    """Never shortened, and what is over stays over."""
    with Limit(SHORT) as limit:
        limit.prolong(-LONG)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not limit.expired
        limit.prolong(LONG)
        await asyncio.sleep(2 * SHORT)
        assert not limit.expired
    limit.prolong(0.0)  # told late, by a thread
    with pytest.raises(TimeoutError), Limit(0.0) as limit:
        try:
            await asyncio.sleep(LONG)
        finally:
            limit.prolong(LONG)
    await asyncio.sleep(0)
    assert asyncio.current_task().cancelling() == 0


async def test_cancelling_an_ended_task_is_nothing():
    """Its outcome stays."""

    async def one():
        return 1

    task = asyncio.create_task(one())
    await asyncio.wait([task])
    await cancel(task)
    assert task.result() == 1


async def test_a_task_is_cancelled_until_it_has_ended():
    """One that swallows it is asked again."""
    swallowed = []

    async def swallow():
        for _ in range(3):
            try:
                await asyncio.sleep(LONG)
            except asyncio.CancelledError:
                swallowed.append(1)
        await asyncio.sleep(LONG)

    task = asyncio.create_task(swallow())
    await asyncio.sleep(0)
    async with asyncio.timeout(LONG):
        await cancel(task)
    assert task.cancelled() and len(swallowed) == 3
