"""A real Proxy with one line in its `config.yaml`, a real client before it and fake providers behind it."""

import json
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import litellm
import openai
import pytest
from langchain_core.language_models import BaseChatModel

from langchain_resilient.engine.errors import SettingsError
from langchain_resilient.testing import Fault
from litellm_hooks import install
from litellm_hooks import proxy as hooks
from tests.litellm_hooks.proxies import (
    HANDLER,
    QUESTION,
    NotStartedError,
    Pair,
    Proxied,
    Proxy,
    ask,
    is_clean,
    proxied,
)
from tests.litellm_hooks.test_matrix import ELSEWHERE, FAULTS, SILENT, hidden_by_litellm
from tests.litellm_hooks.world import TEXT
from tests.servers import until

pytest.importorskip("fastapi", reason="needs litellm[proxy]")
pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]  # a start takes seconds, on a busy machine half a minute

STREAMED = {"whole": False, "stream": True}
CELLS = list(product(FAULTS, STREAMED))
BREAK_WITHIN = {"hang_after", "reset_after", "close_after", "truncate", "malformed", "in_band_error"}
"""Faults that come when a stream has begun, and the client's headers are sent."""
SOON = 10.0
"""Seconds that a busy machine is given for what takes none; less than any limit that is not meant to fire."""
KINDS: dict[str, tuple[int, dict[str, Any]]] = {
    "plain": (len(CELLS) + 30, {}),
    "quick": (len(CELLS), {}),
    "narrow": (4, {"max_parallel_requests": 1}),
}
"""How many pairs of each kind the Proxy has, with what parameters of their first deployments."""


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxied]:
    """The Proxy of this file."""
    with proxied(tmp_path_factory.mktemp("proxy"), KINDS, TEXT) as there:
        yield there


@pytest.fixture
def there(running: Proxied) -> Iterator[Proxied]:
    """The same, with servers that are well before and after."""
    running.heal()
    yield running
    running.heal()


# ── Every fault ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("fault", "how"), CELLS)
async def test_every_fault_is_survived(there: Proxied, world, fault: str, how: str):
    """The client reads the whole answer as one; each attempt until then, or until its stream began, was one request, and it is told so."""
    there.first.always(FAULTS[fault])
    hidden = (fault, how) == ("truncate", "stream") and await hidden_by_litellm(world, there.first, "async stream")
    pair = there.pair("quick" if fault in SILENT else "plain")
    answer = ask(there.proxy, pair.name, stream=STREAMED[how])
    if STREAMED[how]:
        is_clean(answer)
    if hidden:
        assert answer.text and TEXT.startswith(answer.text)
        return
    assert answer.text == TEXT
    if STREAMED[how] and fault in BREAK_WITHIN:
        assert pair.counts == (1, 1)
        assert (answer.attempts, answer.provider) == (1, f"{pair.name}-a")
    else:
        assert answer.attempts == sum(pair.counts)
        assert answer.provider == f"{pair.name}-{'b' if pair.counts[1] else 'a'}"


def test_no_cell_is_missing():
    """Each way for `Fault` to misbehave is a row, or is tested elsewhere by name; each row is run streamed and unstreamed."""
    (mark,) = test_every_fault_is_survived.pytestmark
    assert set(mark.args[1]) == {(fault, how) for fault in FAULTS for how in ("whole", "stream")}
    constructors = {name for name, member in vars(Fault).items() if isinstance(member, classmethod)}
    assert constructors == {fault.name.partition("(")[0] for fault in FAULTS.values()} | set(ELSEWHERE)


# ── What a client is told ────────────────────────────────────────────────────────────────────────────────────────────


def seconds_to_wait(error: openai.APIStatusError) -> int:
    """What a refused client is told."""
    return int(error.response.headers["retry-after"])


@pytest.mark.parametrize("stream", [False, True])
def test_an_outage_is_told(there: Proxied, stream: bool):
    """While all circuits are open a client is refused at once, with 503 and a Retry-After, and nobody is asked."""
    pair = there.pair()
    for server in (there.first, there.second):
        server.always(Fault.status(503))
    for _ in range(12):
        before = sum(pair.counts)
        with pytest.raises(openai.InternalServerError) as raised:
            ask(there.proxy, pair.name, stream=stream)
        error = raised.value
        assert error.status_code == 503
        attempts = int(error.response.headers["x-resilience-attempts"])
        assert sum(pair.counts) - before == attempts
        if attempts == 0:
            break
    assert attempts == 0
    assert 0 < seconds_to_wait(error) <= 66
    there.heal()
    with pytest.raises(openai.InternalServerError):
        ask(there.proxy, pair.name, stream=stream)


@pytest.mark.parametrize("stream", [False, True])
def test_limits_are_told(there: Proxied, stream: bool):
    """Where all providers say 429 so does the Proxy, with the Retry-After that is left, and does not ask them again before; this one is too long to be waited for."""
    pair = there.pair()
    for server in (there.first, there.second):
        server.always(Fault.rate_limited("seconds", 600.0))
    for attempts in (2, 0):
        with pytest.raises(openai.RateLimitError) as raised:
            ask(there.proxy, pair.name, stream=stream)
        assert raised.value.response.headers["x-resilience-attempts"] == str(attempts)
        assert 0 < seconds_to_wait(raised.value) <= 600
    assert pair.counts == (1, 1)


def test_a_client_says_nothing_in_our_name(there: Proxied):
    """What a request's own metadata hold under our name is told to nobody."""
    forged = {"resilience": {"provider": "nobody\r\nset-cookie: a=b", "retry_after": 7}}
    response = there.proxy.http.post(
        "/v1/chat/completions", json={"model": "no such group", "messages": QUESTION, "metadata": forged}
    )
    assert response.status_code >= 400
    assert not {"set-cookie", "retry-after", "x-resilience-provider"} & set(response.headers)


def test_metrics(there: Proxied):
    """`/metrics` shows ours beside LiteLLM's."""
    pair = there.pair()
    there.first.always(Fault.status(503))
    ask(there.proxy, pair.name)
    names = {"a": f"openai/model-{pair.name}#{pair.name}-a", "b": f"openai/spare-{pair.name}#{pair.name}-b"}
    metric = there.proxy.metric
    assert metric("llm_resilient_requests_total", outcome="answered", provider=names["b"]) == 1
    assert metric("llm_resilient_attempts_total", provider=names["a"], kind="overloaded") == pair.counts[0]
    assert metric("fallback_total", from_provider=names["a"], to_provider=names["b"]) == 1
    assert metric("llm_latency_seconds_count", provider=names["b"]) == 1
    until(lambda: metric("litellm_proxy_total_requests_metric_total") > 0, "LiteLLM's own are there", SOON)


# ── Who is asked, and how often ──────────────────────────────────────────────────────────────────────────────────────


def test_fallback_groups_answer_without_retries_of_the_router(there: Proxied):
    """With the Router's `num_retries` as it is by default a request that fails, or is slow, is made as often as the engine makes it."""
    pair = there.pair()
    there.first.always(Fault.slow(1.5))
    assert ask(there.proxy, pair.name).attempts == 1
    assert pair.counts == (1, 0)
    there.first.always(Fault.status(401))
    assert ask(there.proxy, pair.name).attempts == 2
    assert pair.counts == (2, 1)
    other = there.pair()
    for server in (there.first, there.second):
        server.always(Fault.status(500))
    with pytest.raises(openai.InternalServerError) as raised:
        ask(there.proxy, other.name)
    assert sum(other.counts) == int(raised.value.response.headers["x-resilience-attempts"])


@pytest.mark.parametrize("tag", ["free", "paid"])
def test_tags(there: Proxied, tag: str):
    """A tagged request is answered by a deployment of that tag, and by no other."""
    for _ in range(4):
        answer = ask(there.proxy, "tagged", extra_body={"metadata": {"tags": [tag]}})
        assert answer.provider == f"tagged-{tag}"


@pytest.mark.parametrize("stream", [False, True])
def test_a_pinned_deployment(there: Proxied, stream: bool):
    """Who asks for a deployment by its id is answered by that one."""
    pair = there.pair()
    answer = ask(there.proxy, f"{pair.name}-b", stream=stream)
    assert (answer.text, answer.provider, pair.counts) == (TEXT, f"{pair.name}-b", (0, 1))


# ── Clients that hang up ─────────────────────────────────────────────────────────────────────────────────────────────


@contextmanager
def asking(proxy: Proxy, model: str, *, stream: bool) -> Iterator[socket.socket]:
    """A connection on which a request was sent; it is closed at the end, answered or not."""
    body = json.dumps({"model": model, "messages": QUESTION, "stream": stream}).encode()
    place = urlsplit(proxy.url)
    head = [
        "POST /v1/chat/completions HTTP/1.1", f"Host: {place.netloc}", f"Authorization: Bearer {proxy.key}",
        "Content-Type: application/json", f"Content-Length: {len(body)}",
    ]  # fmt: skip
    with socket.create_connection((place.hostname, place.port), timeout=SOON) as connection:
        connection.sendall("\r\n".join([*head, "", ""]).encode() + body)
        yield connection


def is_let_go(there: Proxied, pair: Pair) -> None:
    """See that its provider was hung up, that nothing is held, and that the next request is answered there."""
    (request,) = pair.asked
    assert request.wait_ended(SOON) and request.disconnected
    until(lambda: there.proxy.metric("llm_resilient_pending") == 0, "no request is under way", SOON)
    there.heal()
    answer = ask(there.proxy, pair.name)
    assert (answer.text, answer.attempts, answer.provider) == (TEXT, 1, f"{pair.name}-a")
    assert pair.counts == (2, 0)


def test_a_client_leaves_in_the_middle_of_a_stream(there: Proxied):
    """Its provider is hung up, nothing stays held, and the next is answered there, though there is but one place."""
    pair = there.pair("narrow")
    there.first.always(Fault.hang_after(2))
    with asking(there.proxy, pair.name, stream=True) as connection:
        came = b""
        while b" rain" not in came:
            came += connection.recv(4096)
    is_let_go(there, pair)


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_leaves_before_the_first_word(there: Proxied, stream: bool):
    """With LiteLLM's `cancel_on_disconnect` its provider is hung up, nothing stays held, and the next is answered there."""
    pair = there.pair("narrow")
    there.first.always(Fault.hang())
    with asking(there.proxy, pair.name, stream=stream):
        until(lambda: pair.asked, "its provider is asked", SOON)
    is_let_go(there, pair)


# ── Settings ─────────────────────────────────────────────────────────────────────────────────────────────────────────


UNKNOWN = ({"timeout": 5}, r"timeout")
BAD = ({"timeouts": {"idle": -1}}, r"Timeouts\.idle")
"""Settings that can't be meant, and what their errors name."""


@pytest.mark.parametrize(("given", "named", "place"), [(*UNKNOWN, "before"), (*BAD, "after")])
def test_bad_settings_stop_the_start(tmp_path: Path, given: dict[str, Any], named: str, place: str):
    """An unknown key, or a bad value, under `resilience` ends the Proxy with a message that names it, before or after `callbacks`."""
    told = {"resilience": given, "callbacks": [HANDLER]}
    config = {
        "model_list": [{"model_name": "main", "litellm_params": {"model": "openai/gpt-4.1", "api_key": "test"}}],
        "litellm_settings": told if place == "before" else dict(reversed(told.items())),
    }
    with pytest.raises(NotStartedError) as raised, Proxy(config, tmp_path):
        pass
    assert raised.value.code not in {None, 0}
    errors = [line for line in str(raised.value).splitlines() if line.startswith("langchain_resilient.")]
    assert re.search(f"SettingsError: .*{named}", errors[-1])


@pytest.fixture
def _as_before() -> Iterator[None]:
    """What is read here is forgotten."""
    state, given = dict(hooks._state), vars(litellm).get("resilience")
    yield
    hooks._state.clear()
    hooks._state.update(state)
    vars(litellm)["resilience"] = given


@pytest.mark.usefixtures("_as_before")
def test_settings_are_read_when_litellm_is_given_them(monkeypatch: pytest.MonkeyPatch):
    """What the Proxy sets on LiteLLM's module counts, set before or after we are loaded; None and nothing are the defaults."""
    litellm.resilience = {"namespace": "after"}
    assert litellm.resilience == {"namespace": "after"}
    assert hooks.settings().namespace == "after"
    litellm.resilience = None
    assert hooks.settings().namespace == "default"
    monkeypatch.setitem(vars(litellm), "resilience", {"namespace": "before"})
    hooks._watch()
    assert hooks.settings().namespace == "before"
    for bad in ({"name_space": "x"}, ["namespace"], "x"):
        with pytest.raises(SettingsError, match=r"litellm_settings\.resilience"):
            litellm.resilience = bad
    assert hooks.settings().namespace == "before"


@pytest.mark.usefixtures("_as_before")
@pytest.mark.parametrize(("given", "named"), [UNKNOWN, BAD])
def test_bad_settings_are_errors_wherever_they_stand(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, Any], named: str
):
    """What can't be meant is an error that names it, where LiteLLM is given it before we are loaded and after."""
    with pytest.raises(SettingsError, match=named):
        litellm.resilience = given
    monkeypatch.setitem(vars(litellm), "resilience", given)
    with pytest.raises(SettingsError, match=named):
        hooks._watch()


@pytest.mark.usefixtures("_as_before")
def test_the_environment_goes_before_the_file(monkeypatch: pytest.MonkeyPatch):
    """A variable replaces the one setting that it names, of a section too, and what is wrong in it is an error as in the file."""
    monkeypatch.setenv("LITELLM_RESILIENCE_NAMESPACE", "told")
    monkeypatch.setenv("LITELLM_RESILIENCE_TIMEOUTS__FIRST_TOKEN", "5.5")
    hooks.take({"namespace": "file", "timeouts": {"first_token": 1.0, "idle": 2.0}})
    read = hooks.settings()
    assert (read.namespace, read.timeouts.first_token, read.timeouts.idle) == ("told", 5.5, 2.0)
    monkeypatch.setenv("LITELLM_RESILIENCE_TIMEOUTS__IDLE", "soon")
    with pytest.raises(SettingsError, match=r"timeouts\.idle: got 'soon'"):
        hooks.take(None)


def test_what_the_environment_says():
    """Variables of our prefix are settings: YAML's values, `__` before a section's own, what is no YAML as it stands."""
    environment = {
        "LITELLM_RESILIENCE_MAX_PENDING": "20",
        "LITELLM_RESILIENCE_CIRCUIT": "{window: 30}",
        "LITELLM_RESILIENCE_CIRCUIT__FAILURE_THRESHOLD": "3",
        "LITELLM_RESILIENCE_BACKEND": "redis://:p@host:1/0",
        "LITELLM_RESILIENCE_NAMESPACE": "{",
        "LITELLM_RESILIENT": "no",
    }
    assert hooks.from_environment(environment) == {
        "max_pending": 20,
        "circuit": {"window": 30, "failure_threshold": 3},
        "backend": "redis://:p@host:1/0",
        "namespace": "{",
    }
    assert hooks.from_environment({}) == {}
    with pytest.raises(SettingsError, match="LITELLM_RESILIENCE_CIRCUIT__WINDOW"):
        hooks.from_environment({"LITELLM_RESILIENCE_CIRCUIT": "3", "LITELLM_RESILIENCE_CIRCUIT__WINDOW": "30"})


def test_two_sources_are_merged_section_by_section():
    """The second wins, but what it leaves out of a section stays; neither is changed."""
    first, over = {"a": 1, "s": {"x": 1, "y": 1}, "t": {"x": 1}}, {"s": {"y": 2}, "t": None, "u": {"x": 3}}
    assert hooks.merged(first, over) == {"a": 1, "s": {"x": 1, "y": 2}, "t": None, "u": {"x": 3}}
    assert (first["s"], over["s"]) == ({"x": 1, "y": 1}, {"y": 2})


@pytest.mark.usefixtures("_as_before")
def test_metrics_come_with_litellms(monkeypatch: pytest.MonkeyPatch):
    """With Prometheus among the Proxy's callbacks, as a word or already made, ours are observed too, unless observers are named."""
    made = type("PrometheusLogger", (), {"__module__": "litellm.integrations.prometheus"})()
    hooks.take(None)
    for callbacks, found in (([], ()), (["prometheus"], ("prometheus",)), ([made], ("prometheus",))):
        monkeypatch.setattr(litellm, "callbacks", callbacks)
        assert hooks.settings().observers == found
    mine = [].append
    hooks.take({"observers": [mine]})
    assert list(hooks.settings().observers) == [mine]


# ── Shared state ─────────────────────────────────────────────────────────────────────────────────────────────────────


def lang_chains(pair: Pair, url: str, namespace: str) -> BaseChatModel:
    """The two providers of a pair, in LangChain."""
    from langchain_openai import ChatOpenAI

    from langchain_resilient import ResilientChatModel, Retry

    models = [
        ChatOpenAI(model=f"{which}-{pair.name}", base_url=server.base_url("openai"), api_key="test", max_retries=0)
        for which, server in (("model", pair.first), ("spare", pair.second))
    ]
    return ResilientChatModel(providers=models, backend=url, namespace=namespace, retry=Retry(base_delay=0.0))


async def test_processes_share_what_they_learn(world, tmp_path: Path, redis_url: str, namespace: str):
    """Five failures that a Proxy, a Router or LangChain's model has seen open the circuit for the two others, on one Redis."""
    pytest.importorskip("langchain_openai")
    first, second = world.server(), world.server()
    pairs = [Pair(name, first, second) for name in ("proxy", "router", "langchain")]
    model_list = [entry for pair in pairs for entry in pair.entries()]
    fallbacks = [{pair.name: [f"{pair.name}-spare"]} for pair in pairs]
    router = world.router(*model_list, fallbacks=fallbacks)
    install(router, backend=redis_url, namespace=namespace, retry={"base_delay": 0.0})
    told = {"backend": "os.environ/STATE_URL", "namespace": "not this", "retry": {"base_delay": 0.0}}
    config = {
        "model_list": model_list,
        "router_settings": {"fallbacks": fallbacks},
        "litellm_settings": {"callbacks": [HANDLER], "resilience": told},
    }
    variables = {"STATE_URL": redis_url, "LITELLM_RESILIENCE_NAMESPACE": namespace}
    with Proxy(config, tmp_path, **variables) as proxy:
        models = {pair.name: lang_chains(pair, redis_url, namespace) for pair in pairs}

        async def by_proxy(pair: Pair) -> None:
            ask(proxy, pair.name)

        async def by_router(pair: Pair) -> None:
            await world.ask(router, model=pair.name)

        async def by_langchain(pair: Pair) -> None:
            await models[pair.name].ainvoke("hi")

        for pair, sees in zip(pairs, (by_proxy, by_router, by_langchain), strict=True):
            first.always(Fault.status(503))
            while (seen := pair.counts[0]) < 5:
                await sees(pair)
                assert pair.counts[0] > seen
            first.always(Fault.ok())
            for asks in (by_proxy, by_router, by_langchain):
                before = pair.counts
                await asks(pair)
                assert pair.counts == (before[0], before[1] + 1)
