"""One store and one ledger for each backend and namespace of a process."""

from __future__ import annotations

import pytest
import redis

from langchain_resilient.engine import quota
from langchain_resilient.engine.quota import RateLimits
from langchain_resilient.engine.store import opening
from langchain_resilient.engine.store.opening import open_ledger, open_store
from langchain_resilient.engine.store.redis import wire

DIMENSIONS = quota.dimensions(RateLimits(rpm=60))


def test_limiters_of_one_namespace_share_a_ledger_and_it_counts_until_the_end(
    redis_url: str, namespace: str, monkeypatch: pytest.MonkeyPatch
):
    """Closing one of its limiters leaves it to the others; at the interpreter's end the process no longer counts."""
    monkeypatch.setattr(opening, "_SHARED", {})
    monkeypatch.setattr(opening, "_LEDGERS", {})
    ledger = open_ledger(redis_url, namespace)
    assert open_ledger(redis_url, namespace) is ledger
    assert open_ledger(redis_url, f"{namespace}-2") is not ledger
    store = open_store(redis_url, namespace)
    with redis.Redis.from_url(redis_url) as client:
        processes = f"{wire.slot(namespace, ':u')}:processes"
        ledger.close()
        assert ledger.take("default:x", DIMENSIONS, [1], 0).result().ledger is ledger
        assert client.zcard(processes) == 1
        opening._close_all()
        assert client.zcard(processes) == 0
    assert ledger._courier._closed
    assert store._courier._closed
