"""Who is told of a fork, and locks that a child finds free."""

import os
import threading
import warnings

import pytest

from langchain_resilient.engine.store.forks import ForkLock


@pytest.mark.parametrize("make", [threading.Lock, threading.RLock])
def test_a_lock_is_free_in_the_child(make):
    """A thread that holds it when the process forks holds it in the parent alone."""
    lock, held, go_on = ForkLock(make), threading.Event(), threading.Event()

    def hold() -> None:
        with lock.current:
            held.set()
            go_on.wait(20)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(20)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # that a process with threads forks is the point
        child = os.fork()
    if not child:  # pragma: no cover  # another process
        os._exit(0 if lock.current.acquire(timeout=10) else 2)
    assert not lock.current.acquire(blocking=False)
    go_on.set()
    thread.join()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert lock.current.acquire(blocking=False)
