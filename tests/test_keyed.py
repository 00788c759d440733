"""`KeyedRateLimiter`: limits for each key, told exactly, waited for in order, and as HTTP and LangChain want them."""

import asyncio
import logging
import math
import threading
from collections.abc import Iterator
from typing import Annotated, Any

import httpx
import pytest
from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.responses import PlainTextResponse
from langchain_core.rate_limiters import BaseRateLimiter
from langchain_openai import ChatOpenAI
from prometheus_client import CollectorRegistry

from langchain_resilient import (
    Admission,
    KeyedRateLimiter,
    RateLimitedError,
    RateLimits,
    ResilientChatModel,
    SettingsError,
)
from langchain_resilient.engine.events import Event, RateLimited, StoreDegraded
from langchain_resilient.engine.observe.prometheus import PrometheusObserver
from langchain_resilient.testing import FakeClock, FaultServer, ScriptedChatModel
from tests.servers import until

RPM = RateLimits(rpm=6, burst=2)


@pytest.fixture
def clock() -> FakeClock:
    """Time that passes only when somebody waits."""
    return FakeClock()


@pytest.fixture(params=["memory", "redis"])
def backend(request: pytest.FixtureRequest) -> str:
    """Both, in turn."""
    return "memory://" if request.param == "memory" else request.getfixturevalue("redis_url")


class Made:
    """Limiters on one backend under one clock, closed at the end."""

    def __init__(self, backend: str, namespace: str, clock: FakeClock) -> None:
        self._fixed = {"namespace": namespace, "clock": clock}
        self._backend, self._all = backend, list[KeyedRateLimiter]()

    def __call__(self, limits: RateLimits = RPM, **settings: Any) -> KeyedRateLimiter:
        self._all.append(KeyedRateLimiter(self._backend, limits, **(self._fixed | settings)))
        return self._all[-1]

    def close(self) -> None:
        for limiter in self._all:
            limiter.close()


@pytest.fixture
def make(backend: str, namespace: str, clock: FakeClock) -> Iterator[Made]:
    """Makes limiters."""
    made = Made(backend, namespace, clock)
    yield made
    made.close()


# ------------------------------------------------------------------------------------------------------------ decisions
def test_try_acquire_tells_exactly_what_is_left_and_when(make: Made, clock: FakeClock):
    """6 a minute, 2 at once: what remains, when all is back, and when the refused one may come."""
    limiter = make()
    first = limiter.try_acquire("ann")
    assert first
    assert (first.limit, first.remaining, first.reset, first.retry_after) == (6, 1, 10.0, 0.0)
    assert limiter.try_acquire("ann").remaining == 0
    clock.advance(2.5)
    refused = limiter.try_acquire("ann")
    assert not refused
    assert (refused.dimension, refused.remaining, refused.reset, refused.retry_after) == ("rpm", 0, 17.5, 7.5)
    clock.advance(7.5)
    assert limiter.try_acquire("ann").allowed
    assert limiter.try_acquire("bob").remaining == 1


async def test_the_async_twins_say_the_same(make: Made, clock: FakeClock):
    """`atry_acquire` and `aacquire` decide as `try_acquire` and `acquire` do."""
    limiter = make()
    assert (await limiter.atry_acquire("ann")).remaining == 1
    assert (await limiter.aacquire("ann")).waited == 0.0
    assert (await limiter.aacquire("ann")).waited == 10.0
    assert clock.sleeps == [10.0]
    impatient = make(RateLimits(rpm=6, burst=1, max_wait=5.0))
    await impatient.aacquire("eve")
    with pytest.raises(RateLimitedError):
        await impatient.aacquire("eve")


def test_acquire_sleeps_once_for_its_place(make: Made, clock: FakeClock):
    """It is told once how long, and takes the place that was booked then."""
    limiter = make()
    assert [limiter.acquire("ann").waited for _ in range(4)] == [0.0, 0.0, 10.0, 10.0]
    assert clock.sleeps == [10.0, 10.0]


def test_a_wait_longer_than_max_wait_is_an_error_and_takes_nothing(make: Made):
    """`RateLimitedError` says when there will be a place; whoever asks next is told the same."""
    limiter = make(RateLimits(rpm=6, burst=1, max_wait=9.0))
    limiter.acquire("ann")
    for _ in range(2):
        with pytest.raises(
            RateLimitedError, match=r"rpm = 6 for each user of type 'default': used up for 10\.000 s"
        ) as caught:
            limiter.acquire("ann")
        assert caught.value.retry_after == 10.0
        assert caught.value.is_retryable


def test_reject_never_waits(make: Made, clock: FakeClock):
    """With `on_limit="reject"` acquire is an error at once."""
    limiter = make(RateLimits(rpm=6, burst=1, on_limit="reject"))
    limiter.acquire("ann")
    with pytest.raises(RateLimitedError):
        limiter.acquire("ann")
    assert clock.sleeps == []


def test_what_costs_more_than_the_limit_is_never_let_in(make: Made):
    """No waiting would help: no `retry_after`, not retryable, and nothing is taken."""
    limiter = make(RateLimits(tpm=600, rpm=60))
    refused = limiter.try_acquire("ann", tokens=601)
    assert (refused.allowed, refused.retry_after, refused.dimension, refused.limit) == (False, None, "tpm", 600)
    assert "Retry-After" not in refused.headers
    with pytest.raises(RateLimitedError, match="this request alone takes 601") as caught:
        limiter.acquire("ann", tokens=601)
    assert not caught.value.is_retryable
    assert limiter.try_acquire("ann", tokens=600)


def test_tokens_are_settled_once(make: Made):
    """What was estimated too high comes back, what was estimated too low is charged, and only the first report counts."""
    limiter = make(RateLimits(tpm=600))  # 100 at once, 10 a second
    admission = limiter.try_acquire("ann", tokens=80)
    assert admission.remaining == 20
    limiter.settle(admission, tokens=30)
    limiter.settle(admission, tokens=0)
    limiter.refund(admission)
    second = limiter.try_acquire("ann", tokens=0)
    assert second.remaining == 70
    limiter.settle(second, tokens=40)
    assert limiter.try_acquire("ann", tokens=0).remaining == 30


def test_a_refund_gives_the_request_back_too(make: Made):
    """It was never made: request and tokens are as before, once."""
    limiter = make(RateLimits(rpm=6, burst=2, tpm=600))
    admission = limiter.try_acquire("ann", tokens=50)
    limiter.refund(admission)
    limiter.refund(admission)
    fresh = limiter.try_acquire("ann")
    assert (fresh.remaining, fresh.reset) == (1, 10.0)


def test_an_absurd_report_is_charged_and_hurts_nobody_else(make: Made):
    """However many tokens are asked or reported, numbers stay numbers: others are decided, and the user waits for years, not less than nothing."""
    limiter = make(RateLimits(tpm=600, tpd=10_000))
    assert limiter.try_acquire("ann", tokens=10**30).retry_after is None
    limiter.settle(limiter.try_acquire("ann", tokens=1), tokens=10**30)
    limiter.settle(limiter.try_acquire("bob", tokens=1), tokens=2)
    refused = limiter.try_acquire("ann", tokens=1)
    assert refused.retry_after is not None
    assert refused.retry_after > 365 * 86_400
    assert limiter.try_acquire("bob", tokens=98)
    assert limiter.try_acquire("bob", tokens=1).booking.ledger is limiter._ledger


def test_a_refused_request_can_not_be_settled(make: Made):
    """What was not let in has nothing to give back, and nothing to pay."""
    limiter = make(RateLimits(tpm=600))
    limiter.try_acquire("ann", tokens=100)
    refused = limiter.try_acquire("ann", tokens=50)
    limiter.refund(refused)
    limiter.settle(refused, tokens=500)
    assert limiter.try_acquire("ann", tokens=50).retry_after == 5.0


def test_kinds_of_users_are_apart_and_limiters_of_a_kind_are_not(backend: str, namespace: str):
    """Two limiters of one namespace and kind share what a key has taken, also where they are made anew."""
    fixed: dict[str, Any] = {"namespace": namespace}
    assert KeyedRateLimiter(backend, RateLimits(rpm=1), user_type="free", **fixed).try_acquire("ann")
    assert not KeyedRateLimiter(backend, RateLimits(rpm=1), user_type="free", **fixed).try_acquire("ann")
    assert KeyedRateLimiter(backend, RateLimits(rpm=1), user_type="pro", **fixed).try_acquire("ann")


# --------------------------------------------------------------------------------------------------------------- waiting
class StuckClock(FakeClock):
    """One whose sleepers stay asleep."""

    def __init__(self) -> None:
        super().__init__()
        self.asleep_now = asyncio.Event()

    async def asleep(self, seconds: float, until: asyncio.Event | None = None) -> None:
        self.sleeps.append(seconds)
        if len(self.sleeps) == 3:
            self.asleep_now.set()
        await asyncio.Event().wait()

    def sleep(self, seconds: float, until: threading.Event | None = None) -> None:
        raise KeyboardInterrupt


async def test_a_cancelled_wait_hands_its_place_back(backend: str, namespace: str):
    """The next one is placed as if it had never come; but where others wait behind it they keep theirs, and its place stays empty."""
    clock = StuckClock()
    limiter = KeyedRateLimiter(backend, RateLimits(rpm=6, burst=1, max_wait=100), namespace=namespace, clock=clock)
    await limiter.aacquire("ann")
    waiting = [asyncio.create_task(limiter.aacquire("ann")) for _ in range(3)]
    await clock.asleep_now.wait()
    assert clock.sleeps == [10.0, 20.0, 30.0]
    for task, due in ((waiting[2], 30.0), (waiting[0], 30.0), (waiting[1], 20.0)):
        task.cancel()
        await asyncio.wait([task])
        assert (await limiter.atry_acquire("ann")).retry_after == due
    limiter.close()


def test_ctrl_c_in_a_wait_hands_the_place_back(backend: str, namespace: str):
    """A sync caller that is interrupted leaves no booking behind."""
    limiter = KeyedRateLimiter(backend, RateLimits(rpm=6, burst=1), namespace=namespace, clock=StuckClock())
    limiter.acquire("ann")
    with pytest.raises(KeyboardInterrupt):
        limiter.acquire("ann")
    assert limiter.try_acquire("ann").retry_after == 10.0
    limiter.close()


async def test_many_that_wait_are_let_in_in_the_order_in_which_they_came(make: Made, clock: FakeClock):
    """Each has its own moment, a step after the one before it."""
    limiter = make(RateLimits(rpm=60, burst=1, max_wait=1000))
    tasks = [asyncio.create_task(limiter.aacquire("ann")) for _ in range(20)]
    waits = [(await task).waited for task in tasks]
    assert sorted(waits) == waits


# ---------------------------------------------------------------------------------------------------- what cannot be meant
@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"limits": RateLimits()}, "limits: .* at least one of rpm"),
        ({"limits": RateLimits(rpm=6, concurrency=3)}, "limits.concurrency: got 3"),
        ({"limits": RateLimits(rpm=6, usd_per_day=3)}, "limits.usd_per_day"),
        ({"limits": RateLimits(itpm=6)}, "limits.itpm: got 6; .* set tpm"),
        ({"limits": RateLimits(otpm=6)}, "limits.otpm"),
        ({"limits": {"rpm": 6}}, "limits: got .*RateLimits"),
        ({"user_type": ""}, "user_type"),
        ({"user_type": "a:b"}, "user_type"),
        ({"backend": "mysql://x"}, "backend"),
        ({"backend": None}, "backend"),
        ({"namespace": 3}, "namespace"),
        ({"observers": [3]}, "observers"),
        ({"usertype": "x"}, "user_type"),
    ],
)
def test_what_cannot_be_meant_is_refused(arguments: dict[str, Any], named: str):
    """The error names the field, what was given, and the fix."""
    with pytest.raises(SettingsError, match=named):
        KeyedRateLimiter(**{"limits": RPM, **arguments})


@pytest.mark.parametrize("key", ["", None, 7])
def test_a_key_is_a_string(key: Any):
    """Nobody's bucket is everybody's; the error does not repeat what was given."""
    with pytest.raises(SettingsError, match=r"key: got '(str|NoneType|int)'; use a string that is not empty"):
        KeyedRateLimiter(limits=RPM, clock=FakeClock()).try_acquire(key)


@pytest.mark.parametrize("tokens", [-1, 1.5, "9", True])
def test_tokens_are_a_whole_number(tokens: Any):
    """A negative cost would be a gift."""
    limiter = KeyedRateLimiter(limits=RPM, clock=FakeClock())
    with pytest.raises(SettingsError, match="tokens"):
        limiter.try_acquire("ann", tokens=tokens)
    with pytest.raises(SettingsError, match="tokens"):
        limiter.settle(limiter.try_acquire("ann"), tokens=tokens)


# ------------------------------------------------------------------------------------------------------------- telling
def test_a_hit_is_told_without_the_user(make: Made, caplog: pytest.LogCaptureFixture):
    """Refused or made to wait, it is one event with kind and dimension; the key is in no event, log, repr or error."""
    heard: list[Event] = []
    registry = CollectorRegistry()
    limiter = make(RateLimits(rpm=6, burst=1), user_type="free", observers=[heard.append, PrometheusObserver(registry)])
    with caplog.at_level(logging.DEBUG):
        limiter.try_acquire("ann-secret")
        refused = limiter.try_acquire("ann-secret")
        limiter.acquire("ann-secret")
    assert heard == [RateLimited("none", "client", "rpm", "free")] * 2
    assert registry.get_sample_value("rate_limit_hits_total", {"user_type": "free"}) == 2
    one = limiter.for_key("ann-secret")
    assert (
        "ann-secret" not in f"{caplog.text}{heard}{limiter!r}{refused!r}{refused.booking!r}{one!r}{limiter._ledger!r}"
    )


def test_redis_away_is_told_once_and_costs_nobody_an_error(
    namespace: str, clock: FakeClock, caplog: pytest.LogCaptureFixture
):
    """The first request of each user is let in, the next ones at a share; one event and one log line tell."""
    heard: list[Event] = []
    limiter = KeyedRateLimiter(
        "redis://:pass-word@127.0.0.1:1/0", RPM, namespace=namespace, clock=clock, observers=[heard.append]
    )
    assert [limiter.try_acquire("ann").allowed for _ in range(3)] == [True, False, False]
    assert limiter.try_acquire("bob")
    admission = limiter.try_acquire("ann")
    assert admission.retry_after == 12.5
    assert (admission.remaining, admission.reset) == (0, 20.0)
    clock.advance(12.5)
    assert limiter.try_acquire("ann").remaining == 0
    limiter.close()
    until(lambda: any(isinstance(event, StoreDegraded) for event in heard), "it is told")
    told = [event for event in heard if isinstance(event, StoreDegraded)]
    assert len(told) == 1
    assert told[0].degraded
    assert len([record for record in caplog.records if "degraded" in record.message]) == 1
    assert "pass-word" not in caplog.text


# ----------------------------------------------------------------------------------------------------------- LangChain
def test_it_limits_a_chat_model(make: Made, clock: FakeClock):
    """`ChatOpenAI(rate_limiter=limiter.for_key(…))` waits for its place, and gives up after `max_wait`."""
    limiter = make(RateLimits(rpm=6, burst=1, max_wait=15))
    one = limiter.for_key("ann")
    assert isinstance(one, BaseRateLimiter)
    with FaultServer() as server:
        model = ChatOpenAI(
            model="gpt-test", base_url=server.base_url("openai"), api_key="test", max_retries=0, rate_limiter=one
        )
        model.invoke("Hi")
        model.invoke("Hi")
        assert clock.sleeps == [10.0]
        assert server.count == 2
    assert not one.acquire(blocking=False)
    clock.advance(10)
    assert one.acquire(blocking=False)


async def test_it_limits_a_resilient_model(make: Made, clock: FakeClock):
    """Ours takes it as any LangChain model does: before the request begins, once for all attempts."""
    limiter = make(RateLimits(rpm=6, burst=1, max_wait=15))
    model = ResilientChatModel(providers=[ScriptedChatModel()], rate_limiter=limiter.for_key("ann"))
    await model.ainvoke("Hi")
    await model.ainvoke("Hi")
    assert clock.sleeps == [10.0]
    assert not await limiter.for_key("ann").aacquire(blocking=False)


# ---------------------------------------------------------------------------------------------------------------- HTTP
def test_headers_are_those_of_the_draft(clock: FakeClock):
    """A list of policies and a list of states, by the same names; what a client may wait for is rounded up."""
    limiter = KeyedRateLimiter(limits=RateLimits(rpm=10, burst=10, tpm=6000), clock=clock)
    first = limiter.try_acquire("ann", tokens=100)
    assert first.headers == {
        "RateLimit-Policy": '"rpm";q=10;w=60, "tpm";q=6000;w=60;qu="tokens"',
        "RateLimit": '"rpm";r=9;t=6, "tpm";r=900;t=1',
    }
    limiter.try_acquire("ann", tokens=900)
    clock.advance(0.4)
    refused = limiter.try_acquire("ann", tokens=100)
    assert refused.headers["Retry-After"] == "1"
    assert refused.headers["Retry-After-Ms"] == "600"
    assert refused.headers["RateLimit"] == '"rpm";r=8;t=12, "tpm";r=40;t=10'


def test_what_is_full_is_not_fuller_than_full(make: Made, clock: FakeClock):
    """Refused for its tokens a minute later, it is told the whole burst of requests, and that it is all there now."""
    limiter = make(RateLimits(rpm=6, burst=2, tpd=86_400))
    assert limiter.try_acquire("ann", tokens=86_400)
    clock.advance(60)
    refused = limiter.try_acquire("ann", tokens=100)
    assert refused.headers["RateLimit"] == '"rpm";r=2;t=0, "tpd";r=60;t=86340'
    assert refused.retry_after == 40.0


def test_the_nearest_to_its_end_is_told(make: Made):
    """By its share of the burst, not by the number: 4 of 5 requests are more than 100 of 1000 tokens."""
    admission = make(RateLimits(rpm=30, burst=5, tpm=6000)).try_acquire("ann", tokens=900)
    assert (admission.dimension, admission.remaining) == ("tpm", 100)


def application(limiter: KeyedRateLimiter, **settings: Any) -> FastAPI:
    """A service with one limited page, and one that answers for itself."""
    app = FastAPI()

    async def user_of(request: Request) -> str:
        if "user" not in request.headers:
            raise HTTPException(401)
        return request.headers["user"]

    Limited = Annotated[Admission, Depends(limiter.dependency(key=user_of, **settings))]  # noqa: N806  # a type

    @app.get("/")
    def index(admission: Limited) -> dict[str, int]:
        return {"remaining": admission.remaining}

    @app.get("/own")
    def own(admission: Limited) -> PlainTextResponse:
        return PlainTextResponse("own", headers=admission.headers)

    return app


async def get(app: FastAPI, path: str = "/", **headers: str) -> httpx.Response:
    """Ask it."""
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        return await client.get(path, headers=headers)


async def test_as_a_fastapi_dependency_it_answers_429(make: Made, clock: FakeClock):
    """With `Retry-After`, after which it is let in; headers on success too; the key function's own errors are its own."""
    app = application(make())
    assert (await get(app)).status_code == 401
    answered = await get(app, user="ann")
    assert answered.json() == {"remaining": 1}
    assert answered.headers["ratelimit"] == '"rpm";r=1;t=10'
    assert (await get(app, "/own", user="ann")).headers["ratelimit"] == '"rpm";r=0;t=20'
    clock.advance(0.3)
    refused = await get(app, user="ann")
    assert refused.status_code == 429
    assert refused.headers["ratelimit"] == '"rpm";r=0;t=20'
    assert refused.headers["ratelimit-policy"] == '"rpm";q=6;w=60'
    assert refused.headers["retry-after"] == "10"
    assert refused.headers["retry-after-ms"] == "9700"
    assert refused.json()["detail"] == {"error": "rate_limited", "limit": "rpm", "quota": 6, "retry_after": 9.7}
    clock.advance(math.ceil(9.7))
    assert (await get(app, user="ann")).status_code == 200
    assert (await get(app, user="bob")).status_code == 200


async def test_the_dependency_may_wait(make: Made, clock: FakeClock):
    """With `wait=True` for up to `max_wait`; then 429 all the same."""
    app = application(make(RateLimits(rpm=6, burst=1, max_wait=10)), wait=True)
    assert [(await get(app, user="ann")).status_code for _ in range(2)] == [200, 200]
    assert clock.sleeps == [10.0]
    slow = application(make(RateLimits(rpm=6, burst=1, max_wait=9)), wait=True)
    assert [(await get(slow, user="eve")).status_code for _ in range(2)] == [200, 429]


async def test_a_request_that_exceeds_the_limit_alone_is_413(make: Made):
    """It must not be tried again: no `Retry-After`."""
    app = application(make(RateLimits(tpm=600)), tokens=lambda request: int(request.headers["tokens"]))
    refused = await get(app, user="ann", tokens="601")
    assert refused.status_code == 413
    assert "retry-after" not in refused.headers
    assert (await get(app, user="ann", tokens="600")).status_code == 200


async def test_the_key_may_be_a_plain_function(make: Made):
    """`key=lambda request: …` is enough."""
    app = FastAPI()
    limiter = make(RateLimits(rpm=6, burst=1))

    @app.get("/", dependencies=[Depends(limiter.dependency(key=lambda request: request.client.host))])
    def index() -> None:
        pass

    assert [(await get(app)).status_code for _ in range(2)] == [200, 429]
