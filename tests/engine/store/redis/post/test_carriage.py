"""Carrying: askers share batches, the script's time is adopted, its errors are answers, and a Ctrl-C loses no wire."""

import asyncio
import threading
import time
from itertools import pairwise

import pytest

from langchain_resilient.engine.store.redis.post.courier import DOWN, Operation
from tests.engine.store.redis.post.office import Box, in_threads, incr, key, run_python, slow


def test_sync_askers_carry_for_themselves(box: Box, made):
    """One at a time, each ask is one EVALSHA, and the courier's thread has no part in it."""
    courier, name = made(box), key()
    assert courier.ask(incr(name)).result() == 1
    before = box.batches()
    courier.ring = courier._bag.ring = lambda: pytest.fail("the thread was woken")
    assert [courier.ask(incr(name)).result() for _ in range(20)] == list(range(2, 22))
    del courier._bag.ring
    assert box.batches() - before == 20


async def test_tasks_share_batches(box: Box, made):
    """64 tasks that ask at once travel in a few EVALSHA, and each gets its own reply."""
    courier, name = made(box), key()
    await courier.ask(incr(name))
    before = box.batches()

    async def several() -> list[int]:
        return [await courier.ask(incr(name)) for _ in range(20)]

    replies = await asyncio.gather(*(several() for _ in range(64)))
    assert sorted(reply for its in replies for reply in its) == list(range(2, 64 * 20 + 2))
    assert all(earlier < later for its in replies for earlier, later in pairwise(its))
    assert box.batches() - before <= 64 * 20 * 0.1


def test_threads_share_batches(box: Box, made):
    """While one thread carries, the others' operations wait for the next batch, and go in one."""
    courier, name = made(box, budget=2.0), key()
    courier.ask(incr(name)).result()
    before = box.batches()
    carrier = threading.Thread(target=courier.ask(slow(100)).result)
    carrier.start()
    time.sleep(0.02)
    assert sorted(in_threads(lambda _: courier.ask(incr(name)).result(), 16)) == list(range(2, 18))
    carrier.join()
    assert box.batches() - before <= 3


def test_time_epoch_and_clock(box: Box, made):
    """The script's time and epoch are adopted before a reply is given out; a given clock is the script's time."""
    seen: list[tuple[int, int]] = []
    courier = made(box, adopt=lambda now, epoch: seen.append((now, epoch)), clock=lambda: 1_234_567)
    courier.ask(incr(key())).result()
    assert seen[-1] == (1_234_567, 7)
    courier = made(box, adopt=lambda now, epoch: seen.append((now, epoch)))
    assert courier.ask(Operation("process", (), ())).result() == courier.process.encode()
    assert abs(seen[-1][0] / 1e6 - time.time()) < 5


def test_a_script_that_fails_answers_all_and_goes_on(box: Box, made, caplog: pytest.LogCaptureFixture):
    """An error of the script is DOWN for those of that batch, is logged once, and opens no breaker."""
    courier, name = made(box), key()
    courier.check()
    for _ in range(3):
        assert courier.ask(Operation("fail", (), ())).result() is DOWN
    assert caplog.text.count("the script failed") == 1
    assert courier.up and courier.ask(incr(name)).result() == 1


@pytest.mark.e2e
def test_ctrl_c_in_an_asker_loses_no_wire(box: Box):
    """A Ctrl-C that hits a waiting thread in any place ends its wait only: the next ask is answered."""
    name = key()
    printed = run_python(
        box,
        f"""
        import _thread, random, threading, time
        courier.check()
        stop = False
        def annoy():
            while not stop:
                time.sleep(random.uniform(0.0, 0.003))
                if armed: _thread.interrupt_main()
        armed = False
        threading.Thread(target=annoy, daemon=True).start()
        hits = 0
        end = time.monotonic() + 2
        while time.monotonic() < end:
            try:
                armed = True
                while True:
                    courier.ask(Operation('incr', ('{name}',), ())).result()
            except KeyboardInterrupt:
                armed = False
                hits += 1
        stop = True
        try:
            time.sleep(0.05)
        except KeyboardInterrupt:
            pass
        time.sleep(0.05)
        assert hits > 50, hits
        replies = [courier.ask(Operation('incr', ('{name}',), ())).result() for _ in range(5)]
        print(courier.up, DOWN in replies[1:], len(courier.open))
        """,
    )
    assert printed.split() == ["True", "False", "0"]
