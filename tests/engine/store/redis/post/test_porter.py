"""The courier's own thread: servers that are not there yet, come back, or hang while it connects, and a wire that is never given back."""

import asyncio
import socket
import threading
import time

import pytest

from langchain_resilient.engine.store.redis.post import porter
from langchain_resilient.engine.store.redis.post.courier import DOWN, Courier
from tests.engine.store.redis.post.office import SLACK, Box, Changes, in_threads, incr, key, timed, timed_await, until


@pytest.mark.e2e
def test_refused_at_start_and_started_later(hurt: Box, made):
    """Without a server check() raises nothing, the first asker gets DOWN soon, and it is found when it is there."""
    changes = Changes()
    courier, name = made(hurt, changed=changes), key()
    _, seconds = timed(courier.check)
    assert seconds < 0.25 + SLACK
    reply, seconds = timed(courier.ask(incr(name)).result)
    assert reply is DOWN and seconds < 0.25 + SLACK
    until(lambda: not courier.up, 1)
    assert [up for up, _ in changes] == [False] and str(hurt.port) in changes[0][1]
    hurt.start()
    until(lambda: courier.up)
    assert courier.ask(incr(name)).result() == 1


@pytest.mark.e2e
@pytest.mark.parametrize("pause", [0.0, 0.6])
def test_a_killed_server_that_comes_back(hurt: Box, made, pause: float):
    """SIGKILL and a restart on the same port: nobody waits beyond the budget, nothing is raised, and it goes on by itself."""
    courier, name = made(hurt.start()), key()
    assert courier.ask(incr(name)).result() == 1
    stop, late = threading.Event(), []

    def keep_asking(_: int) -> int:
        answered = 0
        while not stop.is_set():
            reply, seconds = timed(courier.ask(incr(name)).result)
            answered += reply is not DOWN
            late.append(seconds)
            if reply is DOWN:
                time.sleep(0.002)
        return answered

    pool = threading.Thread(target=lambda: in_threads(keep_asking, 6))
    pool.start()
    time.sleep(0.1)
    hurt.kill()
    time.sleep(pause)
    if pause:
        assert not courier.up
    hurt.start()
    until(lambda: courier.up and courier.ask(incr(name)).result() is not DOWN)
    stop.set()
    pool.join()
    assert max(late) < 0.25 + SLACK and not courier.open


@pytest.mark.e2e
def test_a_wire_that_is_never_given_back_is_replaced(box: Box, made, monkeypatch: pytest.MonkeyPatch):
    """Where a carrier vanished with the wire, askers get DOWN within their budget, and another wire is made."""
    monkeypatch.setattr(porter, "STUCK", 0.3)
    courier, name = made(box, budget=0.25), key()
    courier.check()
    courier._carriage.wire.free.acquire()
    reply, seconds = timed(courier.ask(incr(name)).result)
    assert reply is DOWN and seconds < 0.25 + SLACK
    until(lambda: courier.ask(incr(name)).result() is not DOWN)
    assert courier.up


@pytest.mark.e2e
def test_a_server_that_never_answers_the_greeting(made, hurt: Box):
    """A port that takes connections and says nothing is a timeout: tasks and threads get DOWN within the budget."""
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", hurt.port))
        mute.listen()
        courier = made(hurt)

        async def task() -> tuple[object, float]:
            return await timed_await(courier.ask(incr(key())))

        reply, seconds = asyncio.run(task())
        assert reply is DOWN and seconds < 0.25 + SLACK
        until(lambda: not courier.up, 1)


def connecting_takes(seconds: float, courier: Courier, monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on it connects as slowly as a name server can make it."""
    connect = courier._dial.connect
    monkeypatch.setattr(courier._dial, "connect", lambda *node: (time.sleep(seconds), connect(*node))[1])


@pytest.mark.e2e
def test_where_connecting_hangs_only_the_first_wait(box: Box, made, monkeypatch: pytest.MonkeyPatch):
    """A name server that hangs opens the breaker when the first budget is over, for threads and tasks; it closes when there is a wire."""
    changes: list[bool] = []
    courier = made(box, budget=0.1, changed=lambda up, _: changes.append(up))
    connecting_takes(1.0, courier, monkeypatch)
    asked = [timed(courier.ask(incr(key())).result) for _ in range(5)]
    assert {reply for reply, _ in asked} == {DOWN} and sum(seconds for _, seconds in asked) < 0.1 + SLACK
    assert changes == [False]
    until(lambda: courier.up)
    assert changes == [False, True] and courier.ask(incr(key())).result() == 1


@pytest.mark.e2e
async def test_where_connecting_hangs_only_the_first_tasks_wait(box: Box, made, monkeypatch: pytest.MonkeyPatch):
    """The same where tasks wait."""
    courier = made(box, budget=0.1)
    connecting_takes(1.0, courier, monkeypatch)
    assert await courier.ask(incr(key())) is DOWN
    _, seconds = await timed_await(courier.ask(incr(key())))
    assert not courier.up and seconds < 0.05


@pytest.mark.e2e
async def test_a_task_is_answered_whatever_the_thread_is_stuck_in(box: Box, made, monkeypatch: pytest.MonkeyPatch):
    """Where connecting takes longer than the budget, as a name server can make it, tasks still get DOWN in time."""
    courier = made(box, budget=0.25)
    connecting_takes(0.8, courier, monkeypatch)
    found = await asyncio.gather(*(timed_await(courier.ask(incr(key()))) for _ in range(5)))
    assert {reply for reply, _ in found} == {DOWN} and max(seconds for _, seconds in found) < 0.25 + SLACK
    assert not courier.open
