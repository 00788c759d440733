"""One of the processes of `test_killed.py`: it claims letters, answers them, and is killed at any instant.

    python -m tests.engine.dead_letters.replayer sqlite|redis WHERE NAMESPACE LOG HELD MODE

MODE "replay": two forked children (a fork starts in a millisecond) answer letters until none is left. One of them is killed at a random instant,
and replaced, again and again; how often it tells. The answer, a trivial function, goes to LOG with its key before `finish`, and "written" after a
`finish` that wrote it. MODE "hold": claims once, tells what it got, and waits to be told to go.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from pathlib import Path

import redis  # before the forks, or each child would import it anew

from langchain_resilient.engine.dead_letters.redis import RedisBox
from langchain_resilient.engine.dead_letters.sqlite import SqliteBox


def opened(kind, where, namespace, spool):
    """A box on the real clock."""
    return SqliteBox(where) if kind == "sqlite" else RedisBox(where, namespace, spool=spool)


def answer(content):
    """What a provider would say."""
    return content["messages"][0]["content"].upper()


def replay(box, log, lease):
    """Answer all there is."""
    while True:
        taken = box.claim(5, lease)
        for held in taken:
            os.write(log, f"asked {held.key}\n".encode())
            time.sleep(0.002)  # a provider that takes its time
            if box.finish(held, answer(held.content)):
                os.write(log, f"written {held.key}\n".encode())
        if not taken:
            counts = box.counts()
            if not counts.waiting + counts.claimed:
                return
            time.sleep(lease / 4)


def child(kind, where, namespace, log, lease):
    """A process that replays to the end."""
    pid = os.fork()
    if pid:
        return pid
    try:
        file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        box = opened(kind, where, namespace, Path(log).parent)
        replay(box, file, lease)
        box.close()
    except BaseException as error:
        print(repr(error), file=sys.stderr, flush=True)  # noqa: T201  # the test shows it
        os._exit(1)
    os._exit(0)


def killing(kind, where, namespace, log, lease, kills):
    """Kill and replace children; returns how many were killed. They are waited for in the end."""
    rng = random.Random()
    alive, killed = [child(kind, where, namespace, log, lease) for _ in range(2)], 0
    while killed < kills:
        time.sleep(rng.uniform(0.001, 0.06))
        victim = alive.pop(rng.randrange(2))
        os.kill(victim, signal.SIGKILL)  # not waited for, so it is ours still
        if os.waitstatus_to_exitcode(os.waitpid(victim, 0)[1]) != -signal.SIGKILL:
            break  # it was done
        killed += 1
        alive.append(child(kind, where, namespace, log, lease))
    for pid in alive:
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        assert code == 0, code
    return killed


def main(kind, where, namespace, log, lease, mode):
    """Do as one is told."""
    if mode == "hold":
        box = opened(kind, where, namespace, Path(log).parent)
        print(*[held.id for held in box.claim(40, 60.0)], flush=True)  # noqa: T201  # that is what it is for
        sys.stdin.readline()
    else:
        assert redis
        print(killing(kind, where, namespace, log, float(lease), int(mode)), flush=True)  # noqa: T201  # as above


if __name__ == "__main__":
    main(*sys.argv[1:])
