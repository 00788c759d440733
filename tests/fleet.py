"""Workers of a fleet: real processes, each with models of its own, that a test tells what to do.

Rules of this file:

- One process imports the libraries once and forks the workers, before it has made any model: a worker starts in milliseconds. It is the
  first test's child; a worker ends by its pid, or with its test's `Fleet`, however the test ends.
- A test calls functions of this module in a worker (`worker.call(ask, 10)`); what they are told and answer is pickled.
- Providers are scripted, or spec strings on a `FaultServer` of the test's process.
"""

from __future__ import annotations

import asyncio
import atexit
import gc
import json
import logging
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib import import_module
from multiprocessing.connection import Client, Connection, Listener
from pathlib import Path
from typing import Any, NamedTuple, Self
from urllib.request import urlopen

from tests.reaper import tell_reaper
from tests.servers import free_port, until

BUDGET = 0.75
"""Seconds that a worker's decision waits for Redis: three times what users get, as a machine that runs four suites at once starves a server
for longer than a quarter of a second, and that is an outage by design."""
SLOW = 2.0
"""Seconds: a request of a fleet whose Redis is sick takes less, "not seconds"."""


# ── in a worker ──────────────────────────────────────────────────────────────────────────────────────────────────────


class Answer(NamedTuple):
    """One request of a worker, as its caller saw it."""

    text: str | None
    """None: it failed."""
    error: str
    seconds: float
    at: float
    """When it was asked, `time.monotonic`: the same clock in all processes of a machine."""


@dataclass
class Here:
    """What a worker has."""

    models: list[Any] = field(default_factory=list)
    events: list[tuple[float, Any]] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)
    asking: threading.Event = field(default_factory=threading.Event)
    threads: list[threading.Thread] = field(default_factory=list)

    def observe(self, event: Any) -> None:
        """Keep an event and when it came."""
        self.events.append((time.monotonic(), event))


HERE = Here()


class _Lines(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        HERE.lines.append(f"{record.levelname} {record.getMessage()}")


def provider(name: str, **settings: Any) -> dict[str, Any]:
    """A provider for `make`: scripted, or with `url` a FaultServer's. Settings: `says`, `fails`, `takes` (seconds), and `Provider`'s own."""
    return {"name": name, **settings}


def made(backend: str, providers: Sequence[Mapping[str, Any]], **settings: Any) -> Any:
    """A model over such providers."""
    from langchain_resilient import Provider, ResilientChatModel
    from langchain_resilient.testing import ScriptedChatModel

    def one(given: Mapping[str, Any]) -> Provider:
        rest = dict(given)
        name, url = rest.pop("name"), rest.pop("url", None)
        if url is not None:
            keys = {"base_url": url, "api_key": rest.pop("key", "sk-test")}
            return Provider(f"openai:{name}", model_kwargs=keys, **rest)
        says, fails, takes = rest.pop("says", "All is well."), rest.pop("fails", None), rest.pop("takes", 0.0)

        def line(_: Any) -> str:
            time.sleep(takes)
            if fails is not None and Path(fails).exists():
                raise SickError
            return says

        # As clients over HTTP do, one that takes long runs in a thread of its own, and its leases are renewed as it goes.
        patient = {"total_timeout": None} if takes > 1 else {}
        return Provider(ScriptedChatModel(script=(line,), model_name=name, **patient), **rest)

    from langchain_resilient import Retry

    fixed = {"retry": Retry(base_delay=0.0), "observers": [HERE.observe, "prometheus"]}
    return ResilientChatModel(providers=[one(given) for given in providers], backend=backend, **(fixed | settings))


class SickError(Exception):
    """A provider's 503."""

    status_code = 503


def make(backend: str, providers: Sequence[Mapping[str, Any]], **settings: Any) -> float:
    """Make a model; the first one is the one that is asked. Returns the seconds it took."""
    from langchain_resilient.engine.store.redis.post.courier import Courier

    Courier.__init__.__kwdefaults__["budget"] = BUDGET
    began = time.monotonic()
    HERE.models.append(made(backend, providers, **settings))
    return time.monotonic() - began


def forget() -> None:
    """Be as a process that has made no model yet; what an earlier test's models told is no longer kept."""
    HERE.models, HERE.events, HERE.lines, HERE.answers, HERE.warnings = [], [], [], [], []


def warned() -> list[str]:
    """What users were warned of so far."""
    return list(HERE.warnings)


def beat_every(seconds: float) -> None:
    """Let processes tell one another how they are more often than every 3 s."""
    from langchain_resilient.engine.store.redis import mirror

    mirror.BEAT_EVERY_US = int(seconds * 1_000_000)


def lease_for(seconds: float) -> None:
    """Let leases lapse sooner than after 30 s."""
    from langchain_resilient.engine.store.redis import wire

    wire.LEASE_US = int(seconds * 1_000_000)


def schema(name: str) -> None:
    """Speak another version of what is kept in Redis."""
    from langchain_resilient.engine.store.redis import wire

    wire.SCHEMA = name


def pid() -> int:
    """This process's."""
    return os.getpid()


def _asked(model: Any, began: float | None = None) -> Answer:
    began = time.monotonic() if began is None else began
    try:
        text, error = model.invoke("hi").text, ""
    except Exception as failure:
        text, error = None, f"{type(failure).__name__}: {failure}"
    return Answer(text, error, time.monotonic() - began, began)


async def _aasked(model: Any) -> Answer:
    began = time.monotonic()
    try:
        text, error = (await model.ainvoke("hi")).text, ""
    except Exception as failure:
        text, error = None, f"{type(failure).__name__}: {failure}"
    return Answer(text, error, time.monotonic() - began, began)


def ask(times: int = 1, pause: float = 0.0, model: int = 0) -> list[Answer]:
    """Ask so often, one after the other."""
    answers = []
    for _ in range(times):
        answers.append(_asked(HERE.models[model]))
        time.sleep(pause)
    return answers


def ask_at_once(times: int, model: int = 0) -> list[Answer]:
    """Ask so often from as many threads."""
    answers: list[Answer] = []
    threads = [threading.Thread(target=lambda: answers.append(_asked(HERE.models[model]))) for _ in range(times)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


def ask_tasks(times: int, model: int = 0) -> list[Answer]:
    """Ask so often from as many tasks of one event loop."""

    async def main() -> list[Answer]:
        return await asyncio.gather(*[_aasked(HERE.models[model]) for _ in range(times)])

    return asyncio.run(main())


def ask_from_loops(loops: int, tasks: int, times: int) -> list[Answer]:
    """Ask so often, from so many tasks of so many event loops at once, each in a thread."""
    answers: list[Answer] = []

    async def main() -> None:
        for _ in range(times):
            answers.extend(await asyncio.gather(*[_aasked(HERE.models[0]) for _ in range(tasks)]))

    threads = [threading.Thread(target=lambda: asyncio.run(main())) for _ in range(loops)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


def keep_asking(pause: float = 0.01, *, tasks: int = 0) -> None:
    """Ask all the time until `answers` is called: from a thread, and with `tasks` from as many tasks of a loop besides."""
    HERE.asking.set()

    def in_thread() -> None:
        while HERE.asking.is_set():
            HERE.answers.append(_asked(HERE.models[0]))
            time.sleep(pause)

    async def in_task() -> None:
        while HERE.asking.is_set():
            HERE.answers.append(await _aasked(HERE.models[0]))
            await asyncio.sleep(pause)

    async def main() -> None:
        await asyncio.gather(*[in_task() for _ in range(tasks)])

    HERE.threads = [threading.Thread(target=in_thread)]
    HERE.threads += [threading.Thread(target=lambda: asyncio.run(main()))] if tasks else []
    for thread in HERE.threads:
        thread.start()


def answers() -> list[Answer]:
    """End `keep_asking`, and tell all answers since."""
    HERE.asking.clear()
    for thread in HERE.threads:
        thread.join()
    told, HERE.answers = HERE.answers, []
    return told


def status(model: int = 0) -> dict[str, dict[str, Any]]:
    """The model's `status()`."""
    told: dict[str, dict[str, Any]] = HERE.models[model].status()
    return told


def override(name: str, mode: str | None) -> None:
    """Set a circuit aside, or (None) let it rule again."""
    model = HERE.models[0]
    model.clear_override(name) if mode is None else model.override(name, mode)


def events(kind: str) -> list[tuple[float, Any]]:
    """The events of one kind so far, each with when it came."""
    return [(at, event) for at, event in list(HERE.events) if type(event).__name__ == kind]


def lines(part: str = "") -> list[str]:
    """What was logged so far."""
    return [line for line in list(HERE.lines) if part in line]


def gauge(name: str, **labels: str) -> float | None:
    """A metric's value."""
    from prometheus_client import REGISTRY

    return REGISTRY.get_sample_value(name, labels)


def fork() -> tuple[int, list[Answer], dict[str, dict[str, Any]], list[tuple[float, Any]]]:
    """Fork, ask in the child, and tell its pid, answers, status and what it heard of the store; the child is gone then."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        with suppress(BaseException), os.fdopen(writing, "wb") as out:
            out.write(pickle.dumps((os.getpid(), ask(5), status(), events("StoreDegraded"))))
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as came:
        raw = came.read()
    os.waitpid(child, 0)
    told: tuple[int, list[Answer], dict[str, dict[str, Any]], list[tuple[float, Any]]] = pickle.loads(raw)  # noqa: S301  # ours
    return told


def close() -> None:
    """Close every model."""
    for model in HERE.models:
        model.close()


def _serve(address: str, key: bytes) -> None:
    """A worker's life: do what comes over the connection, until it ends."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logger = logging.getLogger("langchain_resilient")
    logger.addHandler(_Lines())
    warnings.simplefilter("always")
    warnings.showwarning = lambda message, *_: HERE.warnings.append(str(message))
    with Client(address, authkey=key) as connection:
        connection.send(os.getpid())
        while True:
            try:
                function, arguments, settings = connection.recv()
            except EOFError:
                break
            try:
                told = (True, function(*arguments, **settings))
            except Exception as error:
                told = (False, f"{type(error).__name__}: {error}\n{traceback.format_exc()}")
            connection.send(told)
    atexit._run_exitfuncs()
    os._exit(0)


def _fork_workers() -> None:
    """The life of the process that forks workers: one for each line that it reads, which says where to connect to."""
    for name in ("langchain.chat_models", "langchain_openai", "langchain_resilient.engine.store.redis.store", "redis"):
        import_module(name)
    made("memory://", [provider("warm"), provider("up", url="http://127.0.0.1:9")])  # imports the rest
    # Or the workers' first full collection copies every page of it, for a third of a second, at a time that a test may measure.
    gc.collect()
    gc.freeze()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    sys.stdout.write("\n")
    sys.stdout.flush()
    for line in sys.stdin:
        address, key = line.split()
        if not os.fork():
            sys.stdin.close()
            _serve(address, bytes.fromhex(key))


# ── in the test ──────────────────────────────────────────────────────────────────────────────────────────────────────

_forker: subprocess.Popen[str] | None = None


def _started() -> subprocess.Popen[str]:
    global _forker  # noqa: PLW0603  # one for the process, made when the first worker is
    if _forker is None:
        command = [sys.executable, "-c", "from tests.fleet import _fork_workers; _fork_workers()"]
        _forker = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[1],
            start_new_session=True,
        )
        tell_reaper("+", _forker.pid)
        assert _forker.stdout is not None
        _forker.stdout.readline()
        atexit.register(_end, _forker)
    return _forker


def _end(forker: subprocess.Popen[str]) -> None:
    forker.kill()
    forker.wait()
    tell_reaper("-", forker.pid)


class Worker:
    """A process of a fleet."""

    def __init__(self, connection: Connection[Any, Any], process: int) -> None:
        self._connection = connection
        self.pid = process
        self._ended = False

    def begin(self, function: Callable[..., Any], *arguments: Any, **settings: Any) -> None:
        """Have a function of this module called, and don't wait."""
        self._connection.send((function, arguments, settings))

    def end(self, within: float = 50.0) -> Any:
        """What the function that was begun came to. Raises AssertionError for what it raised."""
        assert self._connection.poll(within), f"worker {self.pid} does not answer within {within} s"
        well, told = self._connection.recv()
        assert well, told
        return told

    def call(self, function: Callable[..., Any], *arguments: Any, **settings: Any) -> Any:
        """Call a function of this module in the worker."""
        self.begin(function, *arguments, **settings)
        return self.end()

    def kill(self) -> None:
        """SIGKILL."""
        if not self._ended:
            self._ended = True
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            self._connection.close()
            tell_reaper("-", self.pid)


class Fleet:
    """So many workers; a context manager that ends them.

    Args:
        size: How many.
    """

    def __init__(self, size: int) -> None:
        self.workers: list[Worker] = []
        self._size = size

    def __enter__(self) -> Self:
        for _ in range(self._size):
            self.add()
        return self

    def __exit__(self, *raised: object) -> None:
        for worker in self.workers:
            worker.kill()

    def __iter__(self) -> Any:
        return iter(self.workers)

    def __getitem__(self, place: int) -> Worker:
        return self.workers[place]

    def add(self) -> Worker:
        """One more."""
        forker, key = _started(), os.urandom(16)
        with tempfile.TemporaryDirectory(prefix="lr-fleet-") as folder:
            address = f"{folder}/socket"
            with Listener(address, authkey=key) as listener:
                assert forker.stdin is not None
                forker.stdin.write(f"{address} {key.hex()}\n")
                forker.stdin.flush()
                connection = listener.accept()
        worker = Worker(connection, connection.recv())
        tell_reaper("+", worker.pid)
        self.workers.append(worker)
        return worker

    def call(self, function: Callable[..., Any], *arguments: Any, **settings: Any) -> list[Any]:
        """Call a function in all of them at once."""
        for worker in self.workers:
            worker.begin(function, *arguments, **settings)
        return [worker.end() for worker in self.workers]


def key_of(client: Any, kind: str, name: str) -> bytes:
    """The Redis key of a scripted provider of the default namespace: its route (r), account (a), leases (c) or line (l)."""
    return next(iter(client.scan_iter(f"{{lr1:default}}:{kind}:scripted/{name}:*")), b"none")


# ── under gunicorn ───────────────────────────────────────────────────────────────────────────────────────────────────

APPLICATION = """
import json, os
from tests.fleet import made, provider

model = made(os.environ["BACKEND"], [provider("one")])
model.invoke("hi")

def app(environ, start_response):
    known = {"text": model.invoke("hi").text, "shared": model.status()["scripted/one"]["shared"], "pid": os.getpid()}
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(known).encode()]
"""


@contextmanager
def gunicorn(folder: Path, backend: str) -> Iterator[Callable[[], dict[str, Any]]]:
    """Two workers of a web application whose model is made, and used, before they are forked; yields what asks one of them."""
    (folder / "application.py").write_text(APPLICATION)
    port, root = free_port(), str(Path(__file__).parents[1])
    command = [
        sys.executable,
        "-m",
        "gunicorn",
        "--preload",
        "--workers=2",
        f"--bind=127.0.0.1:{port}",
        "application:app",
    ]
    process = subprocess.Popen(
        command, cwd=folder, env=os.environ | {"BACKEND": backend, "PYTHONPATH": root}, stdout=subprocess.DEVNULL,
        stderr=(folder / "log").open("wb"), start_new_session=True,
    )  # fmt: skip
    tell_reaper("+", process.pid)

    def asked() -> dict[str, Any]:
        with urlopen(f"http://127.0.0.1:{port}/", timeout=10) as response:
            told: dict[str, Any] = json.load(response)
            return told

    try:
        until(asked, "gunicorn answers", 20)
        yield asked
    finally:
        process.terminate()
        process.wait(20)
        tell_reaper("-", process.pid)
