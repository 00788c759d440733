"""Limits of the Proxy's users: who is asked for what, and what a refusal says; then real Proxies and real clients."""

import asyncio
import contextvars
import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import openai
import pytest

from langchain_resilient import KeyedRateLimiter, RateLimits, SettingsError
from langchain_resilient.testing import Fault, FaultServer
from litellm_hooks import charging, install
from litellm_hooks.installing import installed_on
from litellm_hooks.settings import read
from litellm_hooks.tenants import Tenants
from tests.litellm_hooks.books import DAY, Books, who
from tests.litellm_hooks.proxies import HANDLER, QUESTION, ROOT, Proxy, ask, deployment
from tests.litellm_hooks.test_imports import BLOCK, run
from tests.litellm_hooks.world import TEXT
from tests.servers import until

fastapi = pytest.importorskip("fastapi", reason="needs litellm[proxy]")
pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]

SECRET = "a-name-to-keep"


@pytest.fixture(autouse=True)
def _alone() -> None:
    """Each test is a request of its own."""
    charging.put(None)


def tenants(namespace: str, **limits: Any) -> Tenants:
    """Limits in memory."""
    return Tenants(read({"namespace": namespace, "tenants": limits}, "test"))


async def comes(limits: Tenants, asks: SimpleNamespace, **asked: Any) -> charging.Charge | None:
    """A request comes in a context of its own; what it has taken."""

    async def admitted() -> charging.Charge | None:
        data = {"messages": QUESTION, "litellm_call_id": "1", **asked}
        await limits.admit(asks, data, "acompletion")
        return charging.present()

    return await asyncio.create_task(admitted(), context=contextvars.Context())


# ── Who, and what ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("kind", "asks"),
    [
        ("key", who(token="me", api_key="other")),
        ("key", who(api_key="me")),
        ("user", who(user_id="me")),
        ("team", who(team_id="me")),
        ("end_user", who(end_user_id="me")),
    ],
)
async def test_each_kind_goes_by_what_litellm_calls_it(namespace: str, kind: str, asks: SimpleNamespace):
    """A request is charged to whom LiteLLM has identified: by a key's hash, and the ids of user, team and end user."""
    charge = await comes(tenants(namespace, **{kind: DAY}), asks, max_tokens=100)
    books = Books(namespace)
    requests, tokens = books.taken("me", kind)
    assert requests == 1 and 100 < tokens < 130
    charge.end(0)
    assert books.taken("me", kind) == (0, 0)


@pytest.mark.parametrize("asks", [None, who(), who(user_id="", team_id="t")])
async def test_who_has_no_name_has_no_limit(namespace: str, asks: Any):
    """A request without a key, or of nobody in particular, is let in, and takes of no limit of that kind."""
    limits = tenants(namespace, key={"rpd": 1}, user={"rpd": 1})
    assert [await comes(limits, asks) for _ in range(3)] == [None] * 3


async def test_all_or_nothing(namespace: str):
    """Where one kind refuses, what the others gave is back, and no charge is left."""
    limits = tenants(namespace, key=DAY, user=DAY, team={"rpd": 1})
    first = await comes(limits, who(token="a", user_id="u", team_id="t"))
    with pytest.raises(fastapi.HTTPException):
        await comes(limits, who(token="b", user_id="v", team_id="t"))
    books = Books(namespace)
    assert books.taken("b") == books.taken("v", "user") == (0, 0)
    assert books.taken("a")[0] == books.taken("u", "user")[0] == 1
    assert first.open


async def test_a_refusal_tells_the_kind_and_when(namespace: str):
    """429 says which limit it was, and when to come again, in the body and in headers; it names nobody."""
    limits = tenants(namespace, key={"rpm": 60, "burst": 1}, team={"rpm": 600})
    asks = who(token=SECRET, team_id=SECRET)
    first = await comes(limits, asks)
    with pytest.raises(fastapi.HTTPException) as raised:
        await comes(limits, asks)
    assert first.open
    error = raised.value
    assert error.status_code == 429
    assert {name: error.detail[name] for name in ("user_type", "limit", "quota")} == {
        "user_type": "key",
        "limit": "rpm",
        "quota": 60,
    }
    assert 0 < error.detail["retry_after"] <= 1
    assert "rpm = 60 for this virtual key" in error.detail["error"]
    assert error.headers["Retry-After"] == "1"
    assert {"RateLimit", "RateLimit-Policy"} <= error.headers.keys()
    assert SECRET not in f"{error.detail} {error.headers}"


async def test_what_can_never_fit_is_413(namespace: str):
    """A request that alone asks for more than the limit is told so: no waiting would help."""
    limits = tenants(namespace, user={"tpm": 1000}, key=DAY)
    with pytest.raises(fastapi.HTTPException) as raised:
        await comes(limits, who(user_id="u", token="k"), max_tokens=2000)
    assert raised.value.status_code == 413
    assert raised.value.detail["retry_after"] is None and "Retry-After" not in raised.value.headers
    assert Books(namespace).taken("k") == (0, 0)


async def test_waiting(namespace: str):
    """With `on_limit: wait` a request that finds no place waits for one; by default it is refused."""
    asks = who(token="me")
    limits = tenants(namespace, key={"rpm": 600, "burst": 1, "on_limit": "wait"})
    first = await comes(limits, asks)
    assert first.open
    assert (await comes(limits, asks)).taken[0].admission.waited > 0


async def test_nobody_waits_for_a_refusal(namespace: str):
    """Whoever refuses at once is asked before whoever is waited for."""
    limits = tenants(
        namespace, key={"rpm": 1, "burst": 1, "on_limit": "wait", "max_wait": 50.0}, team={"rpd": 1, "rpm": 1}
    )
    asks = who(token="k", team_id="t")
    charge = await comes(limits, asks)
    assert [one.limiter._user_type for one in charge.taken] == ["team", "key"]
    with pytest.raises(fastapi.HTTPException):
        await asyncio.wait_for(comes(limits, asks), 10.0)


async def test_who_leaves_while_waiting_has_taken_nothing(namespace: str):
    """A client that hangs up in the line gives back its place, and what other limits gave it."""
    limits = tenants(namespace, key=DAY, team={"rpm": 1, "burst": 1, "on_limit": "wait", "max_wait": 90.0})
    first = await comes(limits, who(team_id="t"))
    waiting = asyncio.create_task(comes(limits, who(token="k", team_id="t")))
    books = Books(namespace)
    await asyncio.to_thread(until, lambda: books.taken("k")[0] == 1, "it waits", 10.0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert first.open and books.taken("k") == (0, 0)


async def test_tokens_are_counted_only_for_limits_of_tokens(namespace: str, monkeypatch: pytest.MonkeyPatch):
    """Where only requests are limited no prompt is counted, nor where whoever asks has no limit of tokens, though others have."""
    asked: list[Any] = []
    monkeypatch.setattr("litellm_hooks.tenants.prompt_tokens", lambda data: asked.append(data) or 1)
    await comes(tenants(namespace, key={"rpm": 60}), who(token="me"))
    await comes(tenants(namespace, key={"rpm": 60}, team={"tpm": 60}), who(token="me"))
    assert not asked
    await comes(tenants(namespace, key={"tpm": 60}), who(token="me"))
    assert len(asked) == 1


def test_only_the_proxy_knows_who_asks(world: Any):
    """`install` refuses limits of users: on a Router alone nobody could be held to them."""
    router = world.router(world.deployment(world.server()))
    with pytest.raises(SettingsError, match=r"tenants: got \['key'\].*KeyedRateLimiter"):
        install(router, tenants={"key": {"rpm": 60}})
    assert installed_on(router) is None


def test_limits_need_no_langchain():
    """Where no LangChain can be imported a keyed limiter counts, and only its LangChain form is missing."""
    program = f"""{BLOCK}
import sys
from langchain_resilient import KeyedRateLimiter, RateLimits
from litellm_hooks.tenants import Tenants
limiter = KeyedRateLimiter(limits=RateLimits(rpm=6, burst=1))
print(*(limiter.try_acquire("me").allowed for _ in range(2)), any(name.startswith("langchain_core") for name in sys.modules))
try:
    limiter.for_key("me")
except ModuleNotFoundError as error:
    print(error.name.partition(".")[0])
"""
    assert run(program).split("\n")[-3:-1] == ["True False False", "langchain_core"]


# ── Real Proxies ─────────────────────────────────────────────────────────────────────────────────────────────────────

AUTH = """
from litellm.proxy._types import UserAPIKeyAuth
async def who(request, api_key):
    key, user, team = (api_key.split(".") + [None] * 2)[:3]
    return UserAPIKeyAuth(api_key=key, user_id=user, team_id=team)
"""
"""LiteLLM's own keys need a database; this is its documented way to bring others."""
SLOW = {"rpm": 6, "burst": 2}
REFUSING = """
import litellm
from litellm.integrations.custom_logger import CustomLogger
class Refusing(CustomLogger):
    async def async_pre_call_hook(self, user_api_key_dict, cache, data, call_type):
        if data.get("user") == "unwanted":
            raise ValueError("no")
refusing = Refusing()
"""


class There:
    """Two Proxies that share one Redis, and what their users have left.

    Args:
        stack: Ends them.
        folder: Of their files.
        url: Of the Redis.
        namespace: Of the limits.
    """

    def __init__(self, stack: ExitStack, folder: Path, url: str, namespace: str) -> None:
        self.server = stack.enter_context(FaultServer())
        self.books = Books(namespace, url)
        stack.callback(self.books.close)
        self.url, self.namespace = url, namespace
        (folder / "users.py").write_text(AUTH + REFUSING)
        fake = {
            "model_name": "fake",
            "litellm_params": {"model": "openai/text-embedding-3-small", "api_key": "k", "mock_response": [0.1, 0.2]},
        }
        claude = {
            "model_name": "claude",
            "litellm_params": {
                "model": "anthropic/claude-sonnet-4-5", "api_base": self.server.base_url("anthropic"), "api_key": "k",
            },
        }  # fmt: skip
        config = {
            "model_list": [deployment(self.server, "a", "main", "model"), claude, fake],
            "router_settings": {"disable_cooldowns": True},
            "litellm_settings": {
                "resilience": {
                    "backend": url, "namespace": namespace, "retry": {"max_retries": 0},
                    "tenants": {"key": DAY, "user": SLOW, "team": {"rpm": 600, "burst": 100}},
                },
                "callbacks": ["prometheus", HANDLER, "users.refusing"],
            },
            "general_settings": {"custom_auth": "users.who", "cancel_on_disconnect": True},
        }  # fmt: skip
        self.proxies = []
        for name in ("one", "two"):
            own = folder / name
            own.mkdir()
            (own / "users.py").write_text(AUTH + REFUSING)
            path = f"{own}:{ROOT}"
            self.proxies.append(stack.enter_context(Proxy(config, own, PYTHONPATH=_path(path))))
        self._users = 0

    def user(self, team: str = "team") -> str:
        """A key of a user that nobody had."""
        self._users += 1
        return f"sk-{SECRET}{self._users}.user{self._users}.{team}"

    def left(self, key: str) -> tuple[int, int]:
        """Requests and tokens that a key has taken."""
        return self.books.taken(hashed(key))


def _path(first: str) -> str:
    # A newer LiteLLM may be a directory on the path that the tests have.
    return os.pathsep.join([os.environ.get("PYTHONPATH", ""), first])


def hashed(key: str) -> str:
    """What LiteLLM makes of a key."""
    return hashlib.sha256(key.partition(".")[0].encode()).hexdigest()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, redis_url: str) -> Iterator[There]:
    """The Proxies of this file."""
    with ExitStack() as stack:
        there = There(stack, tmp_path_factory.mktemp("tenants"), redis_url, f"test-{time.time_ns()}")
        for place in (0, 1):
            say(there, there.user(), place)  # a cold Proxy's first answer may take as long as a limit needs to refill
        yield there


@pytest.fixture
def there(running: There) -> There:
    """The same, with a server that is well."""
    running.server.always(Fault.ok())
    running.server.answer(TEXT, input_tokens=30, output_tokens=10)
    return running


def say(there: There, key: str, place: int = 0, **asked: Any) -> Any:
    """Ask a Proxy as this key."""
    proxy = there.proxies[place]
    theirs = SimpleNamespace(client=proxy.client.with_options(api_key=key))
    return ask(theirs, "main", **asked)  # type: ignore[arg-type]  # it asks for no more


def test_each_key_has_its_own(there: There):
    """A user over its limit gets 429 with the headers that the client obeys, from either Proxy; others, of the same team, don't notice."""
    mine, other = there.user(), there.user()
    answers = [say(there, mine, place) for place in (0, 1)]
    assert all(answer.text == TEXT for answer in answers)
    assert '"rpm";q=6;w=60' in answers[0].headers["ratelimit-policy"]
    for place in (0, 1):
        with pytest.raises(openai.RateLimitError) as raised:
            say(there, mine, place)
        headers = raised.value.response.headers
        assert 0 < int(headers["retry-after"]) <= 10
        assert '"rpm";r=0;' in headers["ratelimit"]
        body = raised.value.body
        assert "rpm = 6 for this user" in body["message"]
        assert body["provider_specific_fields"]["user_type"] == "user"
        assert SECRET not in raised.value.response.text and "user1" not in raised.value.response.text
    assert say(there, other).text == TEXT
    until(lambda: there.left(mine) == (2, 80), "all is settled; what the refused took is back", 10.0)


@pytest.mark.parametrize("stream", [False, True])
def test_real_usage_is_charged(there: There, stream: bool):
    """What the provider reports is what a key has taken in the end, of a stream too."""
    key = there.user()
    options = {"stream_options": {"include_usage": True}} if stream else {}
    say(there, key, stream=stream, max_tokens=5000, **options)
    until(lambda: there.left(key) == (1, 40), "it is settled", 10.0)


def test_a_stream_without_usage_is_counted(there: There):
    """A stream whose client does not ask for usage is charged by its words."""
    key = there.user()
    say(there, key, stream=True, max_tokens=5000)
    until(lambda: 30 < there.left(key)[1] < 70 and there.left(key)[0] == 1, "it is settled", 10.0)


def test_a_failed_request_gives_its_output_back(there: There):
    """Of a request that failed the prompt stays charged."""
    key = there.user()
    there.server.always(Fault.status(400))
    with pytest.raises(openai.BadRequestError):
        say(there, key, max_tokens=5000)
    until(lambda: there.left(key)[0] == 1 and 5 < there.left(key)[1] < 40, "it is settled", 10.0)


def test_a_stream_that_is_left_costs_what_came(there: There):
    """A client that hangs up in the middle pays the prompt and the words that came, not what it might have had."""
    key = there.user()
    there.server.always(Fault.hang_after(3))
    client = there.proxies[0].client.with_options(api_key=key)
    stream = client.chat.completions.create(model="main", messages=QUESTION, stream=True, max_tokens=5000)  # type: ignore[call-overload]  # as a user would
    next(iter(stream))
    assert there.left(key)[1] > 5000
    stream.close()
    until(lambda: there.left(key)[0] == 1 and 5 < there.left(key)[1] < 40, "it is settled", 10.0)


def test_what_others_refuse_costs_nothing(there: There):
    """A request that another callback refuses, and one that can never fit, are as if they had not come."""
    key = there.user()
    with pytest.raises(openai.APIStatusError):
        say(there, key, user="unwanted")
    with pytest.raises(openai.APIStatusError) as raised:
        say(there, key, max_tokens=DAY["tpd"] + 1)
    assert raised.value.status_code == 413
    until(lambda: there.left(key) == (0, 0), "it is handed back", 10.0)


def test_other_routes_are_limited_too(there: There):
    """Embeddings take of the same limits, and are settled with what LiteLLM logs."""
    key = there.user()
    client = there.proxies[0].client.with_options(api_key=key)
    for _ in range(2):
        client.embeddings.create(model="fake", input="word " * 300)
    with pytest.raises(openai.RateLimitError):
        client.embeddings.create(model="fake", input="word " * 300)
    until(lambda: there.left(key)[0] == 2 and 0 < there.left(key)[1] < 100, "they are settled", 10.0)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", ["/v1/messages", "/v1/responses"])
def test_every_served_route_is_settled(there: There, path: str, stream: bool):
    """Anthropic's messages and OpenAI's responses are settled as chat completions are."""
    key = there.user()
    said = (
        {"messages": QUESTION, "max_tokens": 5000}
        if "messages" in path
        else {"input": "What?", "max_output_tokens": 5000}
    )
    response = there.proxies[0].http.post(
        path, json={"model": "claude", "stream": stream, **said}, headers={"Authorization": f"Bearer {key}"}
    )
    assert response.status_code == 200, response.text
    until(lambda: there.left(key)[0] == 1 and 20 < there.left(key)[1] < 70, "it is settled", 10.0)


def test_several_models_are_one_request(there: There):
    """A request that names several models costs what all their answers took, and one place."""
    key = there.user()
    asked = {"model": "main,main,nobody", "messages": QUESTION, "max_tokens": 1000}
    there.proxies[0].http.post("/v1/chat/completions", json=asked, headers={"Authorization": f"Bearer {key}"})
    until(lambda: there.left(key) == (1, 80), "it is settled", 10.0)


def test_a_keyed_limiter_shares_them(there: There):
    """A limiter elsewhere, of the same namespace and kind, sees what the Proxy let in, and the Proxy what that one did."""
    key = there.user()
    name = key.split(".")[1]
    limiter = KeyedRateLimiter(there.url, RateLimits(**SLOW), user_type="user", namespace=there.namespace)
    try:
        assert limiter.try_acquire(name)
        say(there, key)
        assert not limiter.try_acquire(name)
        with pytest.raises(openai.RateLimitError):
            say(there, key)
    finally:
        limiter.close()


def test_nobody_is_named(there: There):
    """Hits are counted by kind; no key, user or team is in our metrics, in Redis, or in what the engine logs."""
    key = there.user(team=f"team-{SECRET}")
    before = there.proxies[0].metric("rate_limit_hits_total", user_type="user")
    for _ in range(2):
        say(there, key)
    with pytest.raises(openai.RateLimitError):
        say(there, key)
    assert there.proxies[0].metric("rate_limit_hits_total", user_type="user") == before + 1
    ours = [line for line in there.proxies[0].metrics().splitlines() if "litellm_" not in line.partition("{")[0]]
    names = (SECRET, hashed(key), key.split(".")[1])
    assert not [line for line in ours for name in names if name in line]
    redis = pytest.importorskip("redis").Redis.from_url(there.url)
    keys = b" ".join(redis.scan_iter(match=f"*{there.namespace}*", count=1000)).decode()
    redis.close()
    assert keys and not [name for name in names if name in keys]
    told = [
        line for line in there.proxies[0].log.splitlines() if "langchain_resilient" in line or "for this user" in line
    ]
    assert told and not [line for line in told for name in names if name in line]
