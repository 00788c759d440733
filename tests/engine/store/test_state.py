"""What a report changes: blocks, limits, circuits and latency."""

import pytest

from langchain_resilient.engine.circuit import Circuit
from langchain_resilient.engine.classify import ErrorKind, Headroom
from langchain_resilient.engine.events import CircuitChanged, CredentialBlocked, Usage
from langchain_resilient.engine.policy import Price
from langchain_resilient.engine.quota import RateLimits
from langchain_resilient.engine.store.memory import MemoryStore
from langchain_resilient.testing.clock import FakeClock
from tests.engine.harness import admitted, refused, settle, target

K = ErrorKind


@pytest.fixture
def clock():
    """Begins at 1000 s."""
    return FakeClock()


@pytest.fixture
def store(clock):
    """Open times without jitter."""
    return MemoryStore(clock.now, lambda: 0.5)


def limited(**limits):
    """A provider with these limits."""
    return target("a", limits=RateLimits(**limits), price=Price(1.0, 10.0))


# ------------------------------------------------------------------------------------------------------------------ blocks
def test_auth_blocks_that_credential_alone(store):
    """A laptop's bad key leaves the fleet's good one at the same provider alone."""
    bad, good = target("a", account="bad"), target("a", account="good")
    told = settle(store, admitted(store, bad), K.AUTH)
    assert told.changes == (CredentialBlocked("a", "auth", 300.0),)
    assert refused(store, bad) == [("auth", 300.0)]
    admitted(store, good)
    assert store.status(good)["circuit"] == "closed"


def test_an_auth_block_ends(store, clock):
    """After `auth_block` the credential is tried again."""
    item = target("a")
    settle(store, admitted(store, item), K.AUTH)
    clock.advance(300.0)
    admitted(store, item)


def test_three_403s_in_a_row_block_the_credential(store):
    """One may be a model that this key may not use; three without an answer are a key that may use nothing."""
    item = target("a")
    for kind in (K.PERMISSION, K.PERMISSION, None, K.PERMISSION, K.PERMISSION):
        assert settle(store, admitted(store, item), kind).changes == ()
    assert settle(store, admitted(store, item), K.PERMISSION).changes == (CredentialBlocked("a", "auth", 300.0),)
    assert refused(store, item) == [("auth", 300.0)]


def test_other_failures_between_403s_do_not_start_them_afresh(store):
    """Only an answer proves the key."""
    item = target("a")
    for kind in (K.PERMISSION, K.SERVER_ERROR, K.PERMISSION, K.CANCELLED):
        settle(store, admitted(store, item), kind)
    settle(store, admitted(store, item), K.PERMISSION)
    assert refused(store, item) == [("auth", 300.0)]


@pytest.mark.parametrize(("retry_after", "seconds"), [(None, 3600.0), (7200.0, 7200.0)])
def test_a_used_up_quota_blocks_until_its_reset(store, retry_after, seconds):
    """The stated reset, else an hour; the circuit learns nothing."""
    item = target("a")
    told = settle(store, admitted(store, item), K.QUOTA_EXHAUSTED, retry_after=retry_after)
    assert told.changes == (CredentialBlocked("a", "quota_exhausted", seconds),)
    assert refused(store, item) == [("quota_exhausted", seconds)]
    assert store.status(item)["failures_in_a_row"] == 0


def test_429s_without_a_hint_back_off_in_powers_of_two(store, clock):
    """1, 2, 4 … at most 60 s; an answer starts them afresh."""
    item = target("a")
    blocks = []
    for _ in range(8):
        settled = settle(store, admitted(store, item), K.RATE_LIMITED)
        blocks.append(settled.blocked)
        clock.advance(settled.blocked + 0.5)
    assert blocks == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]
    settle(store, admitted(store, item))
    assert settle(store, admitted(store, item), K.RATE_LIMITED).blocked == 1.0


def test_a_burst_of_429s_counts_once(store, clock):
    """Twenty calls under way when the first 429 came are one overrun: one step of the backoff, one cut of the limit."""
    item = limited(rpm=600, burst=100)
    tickets = [admitted(store, item) for _ in range(20)]
    for ticket in tickets:
        clock.advance(0.01)
        settle(store, ticket, K.RATE_LIMITED)
    assert store.status(item)["limits_scale"] == 0.8
    assert store.status(item)["blocked_for"] == pytest.approx(1.0 - 0.19, abs=1e-5)


def test_a_late_answer_does_not_start_429s_afresh(store, clock):
    """It was admitted before the 429, and says nothing of what came after."""
    item = target("a")
    early = admitted(store, item)
    for _ in range(3):
        clock.advance(settle(store, admitted(store, item), K.RATE_LIMITED).blocked + 0.5)
    settle(store, early)
    assert settle(store, admitted(store, item), K.RATE_LIMITED).blocked == 8.0


def test_a_retry_after_blocks_that_long_and_never_shortens(store, clock):
    """The longest of what the provider asked for holds."""
    item = target("a")
    tickets = [admitted(store, item) for _ in range(3)]
    for ticket, seconds in zip(tickets, (5.0, 20.0, 1.0), strict=True):
        settle(store, ticket, K.RATE_LIMITED, retry_after=seconds)
    assert refused(store, item) == [("blocked", 20.0)]
    clock.advance(20.0)
    admitted(store, item)


def test_429s_are_not_the_circuits_business(store, clock):
    """A hundred of them leave it closed and uncounted."""
    item = target("a")
    for _ in range(100):
        settle(store, admitted(store, item), K.RATE_LIMITED, retry_after=0.001)
        clock.advance(1.0)
    assert (store.status(item)["circuit"], store.status(item)["failures_in_a_row"]) == ("closed", 0)


# ------------------------------------------------------------------------------------------------------------------- limits
def test_aimd(store, clock):
    """A 429 cuts the limit by a fifth, at most once a minute; 5 % of it come back in each."""
    item = limited(rpm=600, burst=100)
    settle(store, admitted(store, item), K.RATE_LIMITED, retry_after=0.5)
    assert store.status(item)["limits_scale"] == 0.8
    clock.advance(30.0)
    settle(store, admitted(store, item), K.RATE_LIMITED, retry_after=0.5)
    assert store.status(item)["limits_scale"] == 0.825
    clock.advance(30.0)
    settle(store, admitted(store, item), K.RATE_LIMITED, retry_after=0.5)
    assert store.status(item)["limits_scale"] == 0.68
    clock.advance(240.0)
    assert store.status(item)["limits_scale"] == 0.88


def test_no_aimd_without_a_limit(store):
    """There is nothing to cut."""
    item = target("a", limits=RateLimits(concurrency=4))
    settle(store, admitted(store, item), K.RATE_LIMITED)
    assert store.status(item)["limits_scale"] == 1.0


@pytest.mark.parametrize(
    ("kind", "report", "free"),
    [
        # 100 in and 500 out of a bucket of 1,000 tokens, and one request of ten, were charged.
        (None, {"usage": Usage(100, 500)}, (0.4, 0.9)),
        (None, {}, (0.4, 0.9)),
        (None, {"usage": Usage(100, 100)}, (0.8, 0.9)),
        (None, {"usage": Usage(150, 600)}, (0.25, 0.9)),
        (K.SERVER_ERROR, {}, (0.9, 0.9)),
        (K.CANCELLED, {}, (0.9, 0.9)),
        (K.SERVER_ERROR, {"usage": Usage(100, 300)}, (0.6, 0.9)),
        (K.TIMEOUT, {"never_sent": True}, (1.0, 1.0)),
    ],
)
def test_what_was_charged_is_reconciled_with_what_was_used(store, kind, report, free):
    """Reported usage; nothing reported and answered: the estimate; failed or cancelled: the input; never sent: nothing."""
    item = limited(tpm=6000, rpm=60, burst=10)
    ticket = admitted(store, item, input_tokens=100, max_output=500)
    assert store.status(item)["limits_free"] == {"rpm": 0.9, "tpm": 0.4}
    settle(store, ticket, kind, **report)
    assert store.status(item)["limits_free"] == {"rpm": free[1], "tpm": free[0]}


def test_money_is_reconciled_with_the_price_of_cached_input(store):
    """Estimated 100 · 1 $/M + 500 · 10 $/M; used 100, 50 of them cached for nothing, and 100 out: 1,050 µ$ of 10,000."""
    item = target("a", limits=RateLimits(usd_per_day=0.01), price=Price(1.0, 10.0, cached_input=0.0))
    ticket = admitted(store, item, input_tokens=100, max_output=500)
    assert store.status(item)["limits_free"] == {"usd_per_day": 0.49}
    settle(store, ticket, usage=Usage(100, 100, 50))
    assert store.status(item)["limits_free"] == {"usd_per_day": 0.895}


def test_the_providers_headers_tighten(store):
    """It says that 3 of 60 requests a minute remain: of our bucket of 10 as many are free; never more than we know."""
    item = limited(rpm=60, burst=10)
    settle(store, admitted(store, item), headroom=(Headroom("requests", 60, 3, 57.0),))
    assert store.status(item)["limits_free"] == {"rpm": 0.3}
    settle(store, admitted(store, item), headroom=(Headroom("requests", 60, 50, 1.0), Headroom("tokens", 9, 0, 1.0)))
    assert store.status(item)["limits_free"] == {"rpm": 0.2}


def test_output_is_estimated_from_what_was_seen(store):
    """1,024 tokens while nothing is known, then the p90 of the answers, never above what the request allows."""
    item = limited(otpm=60_000)
    assert admitted(store, item).cost.output_tokens == 1024
    assert admitted(store, item, max_output=300).cost.output_tokens == 300
    for _ in range(10):
        settle(store, admitted(store, item), usage=Usage(10, 200))
    assert admitted(store, item).cost.output_tokens == pytest.approx(200, rel=0.03)
    assert admitted(store, item, max_output=50).cost.output_tokens == 50


# ----------------------------------------------------------------------------------------------------------------- circuits
def test_what_each_kind_says_of_a_providers_health(store):
    """Four kinds are failures; all the others are neutral."""
    failures = set()
    for kind in ErrorKind:
        item = target(kind)
        for _ in range(3):
            settle(store, admitted(store, item))
        settle(store, admitted(store, item), kind)
        if store.status(item)["failures_in_a_row"]:
            failures.add(kind)
    assert failures == {K.OVERLOADED, K.SERVER_ERROR, K.TIMEOUT, K.STREAM_INTERRUPTED}


def test_a_change_of_circuit_is_told_with_its_reason(store):
    """By the report that made it, and by no other."""
    item = target("a")
    told = [settle(store, admitted(store, item), K.OVERLOADED) for _ in range(5)]
    assert [item.changes for item in told] == [()] * 4 + [(CircuitChanged("a", "closed", "open", "overloaded"),)]
    assert told[-1].phase == "open"


def test_a_circuit_that_slowness_opened_says_so(store, clock):
    """The answers came, so "ok" would explain nothing: the reason is "slow", for calls, for probes and for streams' first tokens."""
    settings = Circuit(slow_first_token=1.0, minimum_calls=2, recovery_timeout=10.0, probe="inline")
    calls, streams = target("calls", circuit=settings), target("streams", circuit=settings)
    told = [settle(store, admitted(store, calls), seconds=2.0) for _ in range(2)]
    assert told[-1].changes == (CircuitChanged("calls", "closed", "open", "slow"),)
    for _ in range(2):
        settle(store, admitted(store, streams, stream=True), K.OVERLOADED)
    clock.advance(15.0)
    probe = settle(store, admitted(store, calls), seconds=2.0)
    assert probe.changes == (CircuitChanged("calls", "half_open", "open", "slow"),)
    opened = store.opened(admitted(store, streams, stream=True), 2.0)
    assert opened.changes == (CircuitChanged("streams", "half_open", "open", "slow"),)


def test_an_open_circuit_waits_for_the_providers_own_retry_after(store):
    """A 503 with a Retry-After of 100 s keeps it open for longer than its 60 s."""
    item = target("a")
    for _ in range(5):
        settle(store, admitted(store, item), K.OVERLOADED, retry_after=100.0)
    assert refused(store, item) == [("circuit_open", 100.0)]


def test_timeouts_before_the_first_answers_weigh_half(store):
    """The first of two is spared; a connection that can't be made, and anything after three answers, counts in full."""
    item = target("a")
    for _ in range(4):
        settle(store, admitted(store, item), K.TIMEOUT, limit="response")
    assert store.status(item)["failures_in_a_row"] == 2
    settle(store, admitted(store, item), K.TIMEOUT, limit="connect")
    assert store.status(item)["failures_in_a_row"] == 3
    for _ in range(3):
        settle(store, admitted(store, item))
    for _ in range(2):
        settle(store, admitted(store, item), K.TIMEOUT, limit="first_token")
    assert store.status(item)["failures_in_a_row"] == 2


# ------------------------------------------------------------------------------------------------------------------- latency
def test_failures_are_no_latency_samples(store):
    """A provider that fails fast is not a fast provider."""
    item = target("a")
    settle(store, admitted(store, item), K.SERVER_ERROR, seconds=0.01)
    assert store.status(item)["p50"] is None
    settle(store, admitted(store, item), seconds=4.0)
    assert store.status(item)["p50"] == pytest.approx(4.0, rel=0.02)


def test_a_streams_latency_is_its_first_token(store, clock):
    """Its length is no latency; what it takes per token is known apart."""
    item = target("a")
    ticket = admitted(store, item, stream=True)
    store.opened(ticket, 0.5)
    settle(store, ticket, seconds=10.5, first_token=0.5, usage=Usage(10, 101))
    status = store.status(item)
    assert (status["first_token_p50"], status["p50"]) == (pytest.approx(0.5, rel=0.02), None)
    assert store._route(item).latency.inter_token.quantile(0.5, clock.now()) == pytest.approx(0.1, rel=0.02)


def test_an_answer_earns_a_tenth_of_a_retry(store):
    """A failure earns nothing."""
    item = target("a")
    store._route(item).budget = 90.0
    settle(store, admitted(store, item))
    settle(store, admitted(store, item), K.SERVER_ERROR)
    assert store.status(item)["retry_budget"] == 90.1
