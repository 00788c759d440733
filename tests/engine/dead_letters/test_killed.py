"""`kill -9` at random instants: no letter is lost, none is answered twice, none is held by two."""

import collections
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.engine.dead_letters.post import TENANT, letter
from tests.engine.dead_letters.replayer import opened

ROOT = Path(__file__).parents[3]
LETTERS = 500
KILLS = 30
LEASE = 0.3
"""Seconds: what a killed process held comes back so soon."""
pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400), pytest.mark.usefixtures("much_of_the_machine")]


@pytest.fixture(params=["sqlite", "redis"])
def where(request, tmp_path, namespace):
    """What a replayer is told of the box, up to the log."""
    place = str(tmp_path / "letters.db") if request.param == "sqlite" else request.getfixturevalue("redis_url")
    return [request.param, place, namespace, str(tmp_path / "log")]


def ended(process):
    """Kill it, if it is there, and close what leads to it; returns its code."""
    if process.poll() is None:
        process.kill()
    with process:
        return process.wait()


def test_killed_at_random_instants(where):
    """Of 500 letters that processes replay while they are killed again and again, each has exactly one result, written once, and the right one."""
    kind, place, namespace, log = where
    box = opened(kind, place, namespace, Path(log).parent)
    for number in range(LETTERS):
        assert box.put(letter(number))
    command = [sys.executable, "-m", "tests.engine.dead_letters.replayer", *where, str(LEASE), str(KILLS)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False, timeout=100)
    assert done.returncode == 0, done.stderr
    killed = int(done.stdout)
    assert killed >= KILLS // 3
    # A letter that was killed five times in a row is parked, not lost: an operator lets it wait again.
    for _, parked in box.letters("parked", most=LETTERS):
        assert parked.parked == "poison"
        assert box.unpark(parked.id)
        (held,) = box.claim(1, 60.0)
        with Path(log).open("a") as tail:
            tail.write(f"asked {held.key}\nwritten {held.key}\n")
        assert box.finish(held, held.content["messages"][0]["content"].upper())
    assert box.counts()[:4] == (0, 0, 0, 0)
    for number in range(LETTERS):
        assert box.result(f"key-{number}", TENANT).value == f"QUESTION {number}"
    words = [line.split() for line in Path(log).read_text().splitlines()]
    asked = {key for word, key in words if word == "asked"}
    written = collections.Counter(key for word, key in words if word == "written")
    assert asked == {f"key-{number}" for number in range(LETTERS)}
    assert set(written.values()) == {1}
    assert (
        LETTERS - killed <= len(written) <= LETTERS
    )  # who was killed between the write and the word for it did not say it
    box.close()


def test_several_processes_claim_one_box(where):
    """Processes that claim at once get different letters, and all of them together."""
    kind, place, namespace, log = where
    box = opened(kind, place, namespace, Path(log).parent)
    for number in range(150):
        box.put(letter(number))
    command = [sys.executable, "-m", "tests.engine.dead_letters.replayer", *where, "60", "hold"]
    processes = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) for _ in range(4)
    ]
    try:
        held = [name for process in processes for name in process.stdout.readline().split()]
    finally:
        for process in processes:
            ended(process)
    assert sorted(held) == [f"id-{number:04}" for number in range(150)]
    assert box.counts()[:2] == (0, 150)
    assert box.claim(10, 60.0) == []
    box.close()


def test_putting_processes_are_killed(where, tmp_path):
    """What a process was told is kept is there when it was killed the next instant; what was in the middle is there whole, or not at all."""
    kind, place, namespace, log = where
    box = opened(kind, place, namespace, Path(log).parent)
    program = """
import os, sys
from tests.engine.dead_letters.post import TENANT, letter
from tests.engine.dead_letters.replayer import opened
box = opened(*sys.argv[1:4], os.path.dirname(sys.argv[4]))
number = int(sys.argv[5])
while True:
    assert box.put(letter(number))
    sys.stdout.write(f"{number}\\n"); sys.stdout.flush()
    number += 1
"""
    rng, promised = random.Random(where[0]), []
    for round_ in range(3):
        command = [sys.executable, "-c", program, *where, str(1000 * round_)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
        promised.append(int(process.stdout.readline()))
        time.sleep(rng.uniform(0.0, 0.1))
        process.kill()
        promised += [int(line) for line in process.stdout.read().split()]
        process.stdout.close()
        assert process.wait() == -signal.SIGKILL
    kept = {it.id: it for _, it in box.letters(most=10_000)}
    assert len(promised) > 3
    for number in promised:
        assert kept.pop(f"id-{number:04}") == letter(number)
    assert len(kept) <= 3
    assert all(it.content for it in kept.values())
    box.close()
