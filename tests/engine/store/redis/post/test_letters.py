"""Who waits for a reply: threads, and tasks of several loops; and what becomes of it where nobody does any more."""

import asyncio
import gc
import threading
import time

import pytest

from langchain_resilient.engine.store.redis.post.courier import DOWN
from langchain_resilient.engine.store.redis.post.letters import UNSET
from tests.engine.store.redis.post.office import SLACK, Box, await_it, in_threads, incr, key, slow, timed, until


def test_several_loops_and_threads_at_once(box: Box, made):
    """Loops in threads of their own, and threads without one, share a courier, and each gets its own replies."""
    courier, name = made(box), key()

    async def tasks() -> list[int]:
        async def several() -> list[int]:
            return [await courier.ask(incr(name)) for _ in range(30)]

        return [reply for its in await asyncio.gather(*(several() for _ in range(8))) for reply in its]

    def work(number: int) -> list[int]:
        return [courier.ask(incr(name)).result() for _ in range(240)] if number % 2 else asyncio.run(tasks())

    replies = in_threads(work, 6)
    assert sorted(reply for its in replies for reply in its) == list(range(1, 6 * 240 + 1)) and not courier.open


@pytest.mark.e2e
def test_a_loop_that_is_closed_while_a_task_waits(box: Box, made):
    """The reply for a loop that is gone is given back once; others of that batch get theirs."""
    orphans: list = []
    courier, name = made(box, budget=2.0, orphaned=lambda *what: orphans.append(what)), key()
    courier.check()
    ahead = threading.Thread(target=courier.ask(slow(100)).result)
    ahead.start()
    time.sleep(0.02)
    loop = asyncio.new_event_loop()
    task = loop.create_task(await_it(courier.ask(incr(name))))
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    assert courier.ask(incr(name, 10)).result() == 11
    ahead.join()
    until(lambda: orphans)
    task._log_destroy_pending = False
    del task
    gc.collect()
    assert orphans == [(incr(name), 1)] and not courier.open
    assert asyncio.run(await_it(courier.ask(incr(name)))) == 12


@pytest.mark.e2e
async def test_a_cancelled_tasks_reply_is_given_back(box: Box, made):
    """A task that is cancelled while its operation is under way gets nothing, and its reply goes to orphaned() once."""
    orphans: list = []
    courier, name = made(box, budget=2.0, orphaned=lambda *what: orphans.append(what)), key()
    await courier.ask(incr(name))
    ahead = asyncio.create_task(await_it(courier.ask(slow(100))))
    task = asyncio.create_task(await_it(courier.ask(incr(name, 10))))
    await asyncio.sleep(0.03)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await ahead == 0
    await asyncio.to_thread(until, lambda: orphans or not courier.open)
    await asyncio.sleep(0.03)
    assert orphans in ([(incr(name, 10), 11)], []) and not courier.open
    assert await courier.ask(incr(name)) == (12 if orphans else 2)


@pytest.mark.e2e
async def test_cancelled_in_flight(box: Box, made):
    """A reply that comes after its task was cancelled is given back exactly once; one that had come already is, too."""
    orphans: list = []
    courier, name = made(box, budget=2.0, orphaned=lambda *what: orphans.append(what)), key()
    await courier.ask(incr(name))
    in_flight = asyncio.create_task(await_it(courier.ask(slow(80))))
    await asyncio.sleep(0.03)
    in_flight.cancel()
    await asyncio.gather(in_flight, return_exceptions=True)
    await asyncio.to_thread(until, lambda: orphans)
    assert orphans == [(slow(80), 0)]

    orphans.clear()
    task = asyncio.create_task(await_it(courier.ask(incr(name))))
    await asyncio.sleep(0)
    time.sleep(0.05)  # noqa: ASYNC251  # so that the reply comes while the loop is busy
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert orphans == [(incr(name), 2)]


@pytest.mark.e2e
async def test_what_nobody_waits_for_is_not_sent(box: Box, made):
    """An operation whose asker gave up before it was sent is never executed, and gives nothing back."""
    orphans: list = []
    courier, name = made(box, budget=2.0, orphaned=lambda *what: orphans.append(what)), key()
    await courier.ask(incr(key()))
    ahead = asyncio.create_task(await_it(courier.ask(slow(100))))
    await asyncio.sleep(0.03)
    tasks = [asyncio.create_task(await_it(courier.ask(incr(name)))) for _ in range(10)]
    await asyncio.sleep(0.01)
    for task in tasks[:7]:
        task.cancel()
    await ahead
    assert await asyncio.gather(*tasks[7:]) == [1, 2, 3]
    assert not orphans and not courier.open


@pytest.mark.e2e
def test_a_thread_that_waited_for_too_long_gives_up(box: Box, made):
    """A thread whose budget ends while the wire is another's gets DOWN in time; its operation is not sent, or its reply is given back."""
    orphans: list = []
    courier, name = made(box, orphaned=lambda *what: orphans.append(what), budget=0.8), key()
    courier.check()
    first = threading.Thread(target=courier.ask(slow(250)).result)
    first.start()
    time.sleep(0.03)
    letter = courier.ask(incr(name))
    letter.asked_at -= 0.7
    reply, seconds = timed(letter.result)
    assert reply is DOWN and seconds < 0.1 + SLACK
    first.join()
    courier.tell(slow(0))
    courier.flush(1)
    with box.client() as client:
        assert client.get(name) is None and not orphans
    assert courier.up and not courier.open


def test_a_letter_says_nothing_of_secrets():
    """The sentinels print as what they are, and survive a copy as themselves."""
    import copy

    assert repr(DOWN) == "DOWN" and copy.copy(DOWN) is DOWN and UNSET is not DOWN
