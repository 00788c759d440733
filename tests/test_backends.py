"""What `backend=` and `namespace=` mean to a user: who shares with whom, what is refused at once, and that no password is ever shown."""

from __future__ import annotations

import asyncio
import copy
import gc
import logging
import pickle
import time
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from langchain_core.load import dumpd, dumps

from langchain_resilient import (
    Circuit,
    Hedge,
    KeyedRateLimiter,
    Provider,
    RateLimits,
    ResilientChatModel,
    SettingsError,
)
from langchain_resilient.engine.store import opening
from langchain_resilient.engine.store.redis import wire
from tests.clients import ANSWER, BusyError, ask, instance, resilient, scripted
from tests.servers import Server, binary_or_skip, client_of, until, valkey_binary

SECRET = "hunter2-s3cret"
TENANT = "ann@example.org"


@pytest.fixture(autouse=True)
def _closed_afterwards() -> Iterator[None]:
    """Stores that a test opened are closed with it: their servers go away."""
    before = set(opening._SHARED)
    yield
    for key in set(opening._SHARED) - before:
        opening._SHARED.pop(key).close()


# ── what can be meant ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("backend", "said"),
    [
        ("redi://localhost", "did you mean 'redis://'?"),
        ("http://localhost:6379", "redis"),
        ("valkey://localhost", "rediss://"),
        ("memory://here", "memory://"),
        ("localhost:6379", "redis://host:6379/0"),
        ("", "redis://host:6379/0"),
        (None, "memory://"),
        (6379, "memory://"),
        ("redis://localhost:port", "redis://[user:password@]host[:port][/db]"),
        ("redis://localhost/db", "redis://[user:password@]host[:port][/db]"),
        ("redis://localhost?colour=red", "unknown to redis-py"),
        ("redis+sentinel://localhost:26379", "service"),
        ("redis+cluster://localhost:0", "redis+cluster://host:port"),
        ("unix://", "path"),
    ],
)
def test_a_backend_that_cannot_be_meant_is_refused_when_the_model_is_made(backend: Any, said: str):
    """The error names the field and what would be right."""
    with pytest.raises(SettingsError, match=r"^backend: ") as raised:
        resilient(backend=backend)
    assert said in str(raised.value)
    assert backend not in {url for url, _ in opening._SHARED}


@pytest.mark.parametrize(
    "backend",
    [
        f"redi://user:{SECRET}@localhost",
        f"redis:{SECRET}@localhost",
        f"redis//:{SECRET}@localhost",
        f"{SECRET}@redis://localhost",
        f"redis://:{SECRET}@localhost:port",
        f"redis://:{SECRET}@localhost/db",
        f"redis://:{SECRET}@localhost?colour=red",
        f"redis://localhost?password={SECRET}&colour=red",
        f"redis://localhost?colour={SECRET}",
        f"rediss://:{SECRET}@localhost?ssl_cert_reqs={SECRET}",
        f"redis+cluster://:{SECRET}@localhost:0",
        f"redis+sentinel://:{SECRET}@localhost",
        f"redis+sentinel://:{SECRET}@:1/lr",
        f"unix://:{SECRET}@",
        f"redis://:{SECRET}[@localhost",
        f"redis://:{SECRET}/{SECRET}@localhost",
    ],
)
def test_no_error_quotes_a_password(backend: str):
    """However a URL is mistyped: not the message, nor what it was raised from."""
    with pytest.raises(SettingsError, match=r"^backend: ") as raised:
        resilient(backend=backend)
    assert SECRET not in f"{raised.value!r} {raised.value.__cause__!r}"
    with pytest.raises(SettingsError, match=r"^backend: ") as raised:
        KeyedRateLimiter(backend, RateLimits(rpm=1))
    assert SECRET not in f"{raised.value!r} {raised.value.__cause__!r}"


@pytest.mark.parametrize("namespace", ["a{b", "}", "{lr1}"])
def test_a_namespace_that_would_break_the_hash_slot_is_refused(namespace: str):
    """Braces mark Redis's hash slot, so a namespace has none."""
    with pytest.raises(SettingsError, match=r"^namespace: .*leave out"):
        resilient(backend="redis://127.0.0.1:9", namespace=namespace)


# ── no password is shown ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("reachable", [True, False])
async def test_no_password_is_shown(reachable: bool, caplog: pytest.LogCaptureFixture):
    """Not by repr, str, dumps, LangChain's serialisation, traces, cache keys, status, events or logs, whether the server is there or not."""
    caplog.set_level(logging.DEBUG)
    events: list[Any] = []
    with Server(binary_or_skip(valkey_binary), password=SECRET) as server:
        if not reachable:
            server.kill()
        model = resilient(backend=server.url, observers=[events.append])
        plain = resilient(backend=server.url)  # pydantic can write no observer as JSON
        assert await ask(model, "invoke") == await ask(model, "ainvoke") == ANSWER
        shown = [
            repr(model), str(model), plain.model_dump_json(), repr(model.model_dump()), repr(plain.model_dump(mode="json")),
            dumps(model), repr(dumpd(model)), repr(model._identifying_params), model._get_llm_string(),
            repr(model._get_ls_params()), repr(model._get_invocation_params()), repr(model.lc_attributes),
            repr(model.status()), repr(events), repr(model._engine), repr(model._engine.store), repr(model._engine.store._courier),
            repr(model.bind(stop=["x"])), repr(model.with_config(tags=["x"])), repr(model.get_graph().to_json()),
            "".join(part for part in model.__rich_repr__() if isinstance(part, str)) if hasattr(model, "__rich_repr__") else "",
        ]  # fmt: skip
        if reachable:
            server.kill()
            await ask(model, "invoke")
            until(lambda: any(type(event).__name__ == "StoreDegraded" for event in events), "it is noticed")
            shown.append(repr(events))
    shown.append(caplog.text)
    assert [text for text in shown if SECRET in text] == []
    assert model.backend == server.url  # for the program itself


def test_the_backend_is_named_where_it_may_be():
    """Dumps say which kind of backend it is."""
    model = resilient(backend=f"redis://:{SECRET}@127.0.0.1:9/0")
    assert model.model_dump()["backend"] == "redis://…"
    assert resilient().model_dump()["backend"] == "memory://"


# ── who shares ───────────────────────────────────────────────────────────────────────────────────────────────────────


def circuit_of(model: ResilientChatModel) -> object:
    """The first provider's circuit."""
    return model.status()["scripted/one"]["circuit"]


def test_models_of_one_backend_and_namespace_share(redis_url: str, namespace: str):
    """They have one store; another namespace, and another backend, have their own."""
    sick = resilient(scripted("one", BusyError()), scripted("two"), backend=redis_url, namespace=namespace)
    same = resilient(scripted("one"), scripted("two"), backend=redis_url, namespace=namespace)
    other = resilient(scripted("one"), scripted("two"), backend=redis_url, namespace=f"{namespace}-other")
    alone = resilient(scripted("one"), scripted("two"), namespace=namespace)
    for _ in range(5):
        sick.invoke("hi")
    until(lambda: circuit_of(sick) == "open", "the circuit is open")
    assert [circuit_of(model) for model in (same, other, alone)] == ["open", "closed", "closed"]
    assert same._engine.store is sick._engine.store
    assert other._engine.store is not sick._engine.store


async def test_a_closed_model_leaves_the_others_working(redis_url: str, namespace: str):
    """`close` and `aclose` let go of what is the model's own; whoever shares the store, the model itself included, goes on."""
    first = resilient(backend=redis_url, namespace=namespace)
    second = resilient(backend=redis_url, namespace=namespace)
    with first:
        first.invoke("hi")
    async with first:
        await first.ainvoke("hi")
    assert second.invoke("hi").text == first.invoke("hi").text == ANSWER
    assert second.status()["scripted/one"]["shared"] is first.status()["scripted/one"]["shared"] is True


def test_what_was_reported_before_close_is_there(redis_url: str, namespace: str):
    """`close` sends what was told and not sent yet: a short-lived program's failures count too."""
    with resilient(
        scripted("one", BusyError()),
        scripted("two"),
        backend=redis_url,
        namespace=namespace,
        circuit=Circuit(failure_threshold=1),
    ) as model:
        model.invoke("hi")
    with client_of(redis_url) as client:
        assert list(client.scan_iter(f"*{namespace}*:r:*"))


def test_copies_share_and_settings_that_change_hold(redis_url: str, namespace: str):
    """A copy has the store of its backend and namespace; a changed namespace holds from the next call on."""
    model = resilient(backend=redis_url, namespace=namespace)
    copies = [model.model_copy(), copy.copy(model), model.model_copy(update={"temperature": 0.5})]
    assert {id(each._engine.store) for each in copies} == {id(model._engine.store)}
    model.namespace = f"{namespace}-new"
    assert model.invoke("hi").text == ANSWER
    assert model._engine.store is not copies[0]._engine.store
    moved = model.model_copy(update={"backend": "memory://"})
    assert "shared" not in moved.status()["scripted/one"]


def test_a_file_names_the_backend(redis_url: str, namespace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """YAML takes the URL from the environment; one that is missing is said by name, never by value."""
    path = tmp_path / "resilience.yaml"
    path.write_text(
        f"""
backend: ${{REDIS_URL}}
namespace: {namespace}
providers:
  - model: openai:gpt-test
    model_kwargs: {{api_key: sk-test, base_url: "http://127.0.0.1:9/v1"}}
    limits: {{rpm: 60}}
"""
    )
    monkeypatch.setenv("REDIS_URL", redis_url)
    model = ResilientChatModel.from_yaml(path)
    assert model.backend == redis_url
    assert model.status()["openai/gpt-test"]["shared"] is True
    monkeypatch.setenv("REDIS_URL", f"redi://:{SECRET}@localhost")
    with pytest.raises(SettingsError, match="backend: ") as raised:
        ResilientChatModel.from_yaml(path)
    assert SECRET not in str(raised.value)
    monkeypatch.delenv("REDIS_URL")
    with pytest.raises(SettingsError, match="REDIS_URL"):
        ResilientChatModel.from_yaml(path)


# ── what is kept ─────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_every_key_is_of_the_schema_has_an_end_and_holds_no_secret(tmp_path: Path):
    """After a run with everything in use: keys of `lr1` alone, each with a time to live, and no credential, address or tenant in them."""
    events: list[Any] = []
    limits = RateLimits(rpm=600, tpm=100_000, rpd=10_000, concurrency=1, burst=2, on_limit="wait")
    with Server(binary_or_skip(valkey_binary)) as server:

        class Down:
            url = "http://provider.internal:8443"

            def base_url(self, _: str) -> str:
                return f"{self.url}/v1"

        sick = instance(Down(), "openai", "gone", timeout=0.5, api_key="sk-very-secret")  # type: ignore[arg-type]
        model = resilient(
            Provider(sick, circuit=Circuit(failure_threshold=1, recovery_timeout=0.1, probe="inline")),
            Provider(scripted("two"), limits=limits, account="acme-billing"),
            backend=server.url, namespace="shop", observers=[events.append], hedge=Hedge(),
        )  # fmt: skip
        model.override("openai/gone", "forced_open")
        config: Any = {"configurable": {"tenant": TENANT, "lane": "batch"}}
        await asyncio.gather(*[model.ainvoke("a private question", config) for _ in range(6)])
        _ = [chunk async for chunk in model.astream("a private question", config)]
        model.override("scripted/two", "metrics_only")
        limiter = KeyedRateLimiter(server.url, RateLimits(rpm=60), namespace="shop", user_type="free")
        assert limiter.try_acquire(TENANT)
        until(lambda: model.status()["scripted/two"]["running"] == 0, "all is settled")
        client = server.client()
        keys = sorted(client.scan_iter())
        assert {key[: key.index(b"}") + 1] for key in keys} == {b"{lr1:shop}", b"{lr1:shop:u}"}
        ends = {key: client.pttl(key) for key in keys}
        assert {key: left for key, left in ends.items() if left <= 0} == {}
        assert max(ends.values()) <= 31 * 24 * 3600 * 1000
        kept = b"\n".join(key + b" " + (client.dump(key) or b"") for key in keys)
    for word in ("sk-very-secret", "provider.internal", "8443", TENANT, "acme-billing", "private", "127.0.0.1"):
        assert word.encode() not in kept, word
    kinds = {key.partition(b"}:")[2].partition(b":")[0] for key in keys if key.startswith(b"{lr1:shop}")}
    assert {b"m", b"p", b"r", b"a"} <= kinds


def test_the_schemas_version_is_in_every_key():
    """Another version of what is kept has keys and a channel of its own."""
    keys = wire.Keys("shop")
    assert wire.SCHEMA == "lr1"
    assert {key.startswith("{lr1:shop}:") for key in (keys.meta, keys.channel, keys.processes)} == {True}


def test_models_are_made_while_another_is_being_made(redis_url: str, namespace: str):
    """Threads that make models of one backend at once get one store, and one connection for decisions."""
    with ThreadPoolExecutor(8) as pool:
        models = list(pool.map(lambda _: resilient(backend=redis_url, namespace=namespace), range(8)))
    assert len({id(model._engine.store) for model in models}) == 1


def test_a_model_with_a_backend_is_no_heavier_to_forget(redis_url: str, namespace: str):
    """A model that is gone is no longer told of anything: the store keeps no hold of it."""
    model = resilient(backend=redis_url, namespace=namespace)
    model.invoke("hi")
    gone, store = weakref.ref(model), model._engine.store
    del model
    until(lambda: gc.collect() is not None and gone() is None, "it is forgotten", 5)
    resilient(backend=redis_url, namespace=namespace)
    assert len(store._hearers._who) == 1


def test_no_server_costs_no_time(namespace: str):
    """Where nothing listens a model is made at once and answers at once, also the second one."""
    began = time.monotonic()
    for _ in range(3):
        model = resilient(backend="redis://127.0.0.1:9", namespace=namespace)
        assert model.invoke("hi").text == ANSWER
    assert model.status()["scripted/one"]["shared"] is False
    assert time.monotonic() - began < 5.0  # a bound against redis-py's own 3.6 s for each, no timing


def test_a_pickled_error_of_construction_keeps_its_text():
    """A worker pool hands errors on by pickling them."""
    with pytest.raises(SettingsError) as raised, suppress(ImportError):
        resilient(backend="redi://localhost")
    assert str(pickle.loads(pickle.dumps(raised.value))) == str(raised.value)  # noqa: S301  # our own
