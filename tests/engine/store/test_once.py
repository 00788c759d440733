"""What a process opens once."""

from __future__ import annotations

import os
import threading
import warnings

import pytest

from langchain_resilient.engine.store.once import opened_once


def test_each_name_is_opened_once():
    """Threads that come at once get one and the same; what could not be opened is tried again by the next."""
    opened: dict[str, object] = {}
    found = []
    threads = [threading.Thread(target=lambda: found.append(opened_once(opened, "a", object))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({id(one) for one in found}) == 1
    with pytest.raises(ZeroDivisionError):
        opened_once(opened, "b", lambda: 1 // 0)
    assert opened_once(opened, "b", lambda: 2) == 2


def test_a_fork_while_one_is_opened():
    """A child that is forked while a thread opens something opens its own: nobody there holds the lock."""
    begun, go_on = threading.Event(), threading.Event()

    def slow() -> int:
        begun.set()
        go_on.wait(20)
        return 1

    thread = threading.Thread(target=opened_once, args=({}, "a", slow))
    thread.start()
    begun.wait(20)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # that a process with threads forks is the point
        pid = os.fork()
    if not pid:
        threading.Timer(20, lambda: os._exit(3)).start()
        os._exit(0 if opened_once({}, "a", lambda: 7) == 7 else 2)
    go_on.set()
    thread.join()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
