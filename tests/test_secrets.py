"""Planted keys, prompts and answers turn up nowhere but where they belong: with the provider, and with the caller.

Rules of this file: everything that leaves the process by itself is read as a whole (the log, metrics, spans, Redis, the letters' files), after
calls of all four ways through every fault, at providers that quote the prompt and the key in their errors.
"""

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.fernet import Fernet
from langchain_core.tracers.langchain import LangChainTracer
from prometheus_client import CollectorRegistry, generate_latest

from langchain_resilient import (
    DeadLetters,
    KeyedRateLimiter,
    RateLimits,
    ResilienceError,
    ResilientChatModel,
    Retry,
    SettingsError,
    Timeouts,
    capture_decisions,
)
from langchain_resilient.engine.observe.prometheus import PrometheusObserver
from langchain_resilient.testing import Fault, FaultServer
from tests.clients import WAYS, ask, instance
from tests.test_tracing import KeptClient

KEY = "sk-planted-key-4711"
PROMPT = "planted-prompt-0815"
ANSWER = "planted-answer-2342"
TENANT = "planted-tenant-1234"
USER = "planted-user-9876"
PLANTED = (KEY, PROMPT, ANSWER, TENANT, USER)
QUOTED = f"Incorrect API key provided: {KEY}; your prompt was: {PROMPT}"
LIMIT = 0.3
"""Seconds: of a hang there must not be more."""
FAULTS = {
    "ok": Fault.ok(ANSWER),
    "400": Fault.status(400, message=QUOTED),
    "401": Fault.status(401, message=QUOTED),
    "403": Fault.status(403, message=QUOTED),
    "404": Fault.status(404, message=QUOTED),
    "429": Fault.status(429, message=QUOTED),
    "quota": Fault.quota_exhausted(),
    "500": Fault.status(500, message=QUOTED),
    "503": Fault.status(503, message=QUOTED),
    "strange": Fault.status(418, message=QUOTED),
    "overflow": Fault.context_overflow(),
    "policy": Fault.content_filter(),
    "hang": Fault.hang(LIMIT * 3),
    "stall": Fault.hang_after(1, LIMIT * 3),
    "cut": Fault.close_after(1),
    "truncated": Fault.truncate(1),
    "garbage": Fault.malformed(1),
    "in band": Fault.in_band_error(1),
}


def planted_in(text: str) -> set[str]:
    """What was planted and is found."""
    return {word for word in PLANTED if word in text}


def everything_of(url: str) -> str:
    """All keys and values of a server."""
    import redis

    client = redis.Redis.from_url(url, decode_responses=False)
    readers = {
        b"string": client.get,
        b"hash": client.hgetall,
        b"list": lambda key: client.lrange(key, 0, -1),
        b"set": client.smembers,
        b"zset": lambda key: client.zrange(key, 0, -1, withscores=True),
        b"stream": client.xrange,
    }
    with client:
        found = [(key, readers[client.type(key)](key)) for key in client.scan_iter(count=1000)]
    assert found, "nothing was written at all"
    return repr(found)


def ours(error: BaseException) -> Iterator[str]:
    """What we say: of our own exceptions everything, of the providers' the notes."""
    yield from getattr(error, "__notes__", ())
    if isinstance(error, ResilienceError):
        yield repr(error.args[0] if error.args else "")
        yield str(getattr(error, "message", ""))
    for inner in getattr(error, "exceptions", ()):
        yield from ours(inner)


class Eavesdropper:
    """All that a model says, and to whom.

    Args:
        folder: For letters.
        url: Of Redis; None: the memory backend.
        namespace: Of the model.
        servers: The providers.
    """

    def __init__(self, folder: Path, url: str | None, namespace: str, *servers: FaultServer) -> None:
        self.registry = CollectorRegistry()
        self.events: list[Any] = []
        self.tracer = KeptClient()
        self.errors: list[str] = []
        self.calls = 0
        self.folder = folder
        self.model = ResilientChatModel(
            providers=[instance(server, "openai", f"m{number}", api_key=KEY) for number, server in enumerate(servers)],
            backend=url or "memory://",
            namespace=namespace,
            retry=Retry(base_delay=0.0),
            timeouts=Timeouts(first_token=LIMIT, idle=LIMIT, response=LIMIT),
            observers=[PrometheusObserver(self.registry), self.events.append],
            dead_letters=DeadLetters(str(folder / "letters.db"), keys=[Fernet.generate_key().decode()]),
        )

    async def ask(self, way: str) -> None:
        """One call."""
        self.calls += 1
        said = {"tenant": TENANT, "idempotency_key": f"call-{self.calls}"}
        config = {"configurable": said, "callbacks": [LangChainTracer(client=self.tracer)]}
        try:
            await ask(self.model, way, PROMPT, config=config)
        except Exception as error:
            self.errors += ours(error)

    def said(self, log: str, decisions: list[Any]) -> dict[str, str]:
        """By where, all of it. A decision record is the caller's own, tenant and all."""
        runs = [run.get("extra", {}).get("metadata", {}) for run in self.tracer.updated]
        metadata = [{key: value for key, value in run.items() if key.startswith("resilience")} for run in runs]
        assert any(metadata)
        return {
            "log": log,
            "metrics": generate_latest(self.registry).decode(),
            "exceptions": repr(self.errors),
            "records": repr([decision._replace(tenant=None) for decision in decisions]),
            "events": repr([event for event in self.events if type(event).__name__ != "Decided"]),
            "traces' metadata": repr(metadata),
            "status": repr(self.model.status()),
            "repr": repr(self.model),
            "dump": json.dumps(self.model.model_dump(), default=repr),
            # Whose a letter is stays readable, so that an operator can list them; what was asked and answered is encrypted.
            "letters": "".join(file.read_bytes().decode("latin-1") for file in self.folder.iterdir()).replace(
                TENANT, ""
            ),
        }


@pytest.mark.e2e
@pytest.mark.parametrize("backend", ["memory", "redis"])
async def test_nothing_that_was_planted_is_found(
    backend: str, tmp_path: Path, namespace: str, request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture
):
    """After every fault in all four ways: no key, prompt, answer or tenant in the log, metrics, errors, traces' metadata, Redis or letters."""
    url = request.getfixturevalue("redis_url") if backend == "redis" else None
    with (
        FaultServer() as first,
        FaultServer() as second,
        caplog.at_level(logging.DEBUG, logger="langchain_resilient"),
        capture_decisions() as decisions,
    ):
        one = Eavesdropper(tmp_path, url, namespace, first, second)
        for name, fault in FAULTS.items():
            first.always(fault)
            second.always(Fault.ok(ANSWER) if name == "ok" else fault)
            for way in WAYS:
                await one.ask(way)
            for provider in one.model.status():  # each fault is to be met, and not an open circuit
                one.model.override(provider, "metrics_only")
        first.always(Fault.ok(ANSWER))
        assert (await one.model.areplay(most=3)).answered == 3
        one.model.close()
        log = "\n".join(record.getMessage() for record in caplog.records if record.name == "langchain_resilient")
        said = one.said(log, decisions)
        if url is not None:
            said["Redis"] = everything_of(url)
    assert one.model.letters.counts().waiting + one.model.letters.counts().parked > 0
    assert len(decisions) >= len(FAULTS) * len(WAYS)
    assert {where: found for where, text in said.items() if (found := planted_in(text))} == {}


def test_a_user_s_key_is_in_no_redis_key(redis_url: str, namespace: str):
    """The limiter's users are hashed where they are written."""
    limiter = KeyedRateLimiter(redis_url, RateLimits(rpm=60), namespace=namespace)
    assert limiter.try_acquire(USER)
    assert planted_in(everything_of(redis_url)) == set()
    assert planted_in(repr(limiter)) == set()


@pytest.mark.parametrize(
    "settings",
    [
        {"backend": f"redis://user:{KEY}@127.0.0.1:1/notadb"},
        {"backend": f"postgres://user:{KEY}@localhost"},
        {"dead_letters": f"postgres://user:{KEY}@localhost/letters"},
        {"dead_letters": [KEY]},
    ],
)
def test_a_mistake_in_the_settings_quotes_no_secret(settings: dict[str, Any]):
    """An error about a URL, or about keys in the wrong place, does not repeat them."""
    with FaultServer() as server, pytest.raises(SettingsError) as caught:
        ResilientChatModel(providers=[instance(server, "openai")], **settings)
    assert planted_in(f"{caught.value!r} {caught.value.__cause__!r}") == set()
