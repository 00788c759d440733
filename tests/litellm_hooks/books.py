"""A look at what the Proxy's users have left, for the tests of their limits."""

from __future__ import annotations

import re
from types import SimpleNamespace

from langchain_resilient import KeyedRateLimiter, RateLimits

DAY = {"rpd": 100, "tpd": 20_000}
"""Limits of which nothing to speak of flows back during a test."""
DAILY = RateLimits(**DAY)
NOBODY = SimpleNamespace(token=None, api_key=None, user_id=None, team_id=None, end_user_id=None)


def who(**names: str) -> SimpleNamespace:
    """Who asks, as LiteLLM tells of it."""
    return SimpleNamespace(**{**vars(NOBODY), **names})


class Books:
    """What users have left of the daily limits, read without taking anything.

    Args:
        namespace: Of the limits.
        backend: Where they are kept.
    """

    def __init__(self, namespace: str, backend: str = "memory://") -> None:
        self._namespace, self._backend = namespace, backend
        self._readers: dict[str, KeyedRateLimiter] = {}

    def left(self, name: str, kind: str = "key") -> tuple[int, int]:
        """Requests and tokens."""
        told = self._reader(kind).try_acquire(name, tokens=10**9)  # more than is ever let in, so that it takes nothing
        assert not told
        requests, tokens = re.findall(r";r=(\d+);", told.headers["RateLimit"])
        return int(requests), int(tokens)

    def taken(self, name: str, kind: str = "key") -> tuple[int, int]:
        """Requests and tokens."""
        requests, tokens = self.left(name, kind)
        return DAY["rpd"] - requests, DAY["tpd"] - tokens

    def _reader(self, kind: str) -> KeyedRateLimiter:
        if kind not in self._readers:
            made = KeyedRateLimiter(self._backend, DAILY, user_type=kind, namespace=self._namespace)
            self._readers[kind] = made
        return self._readers[kind]

    def close(self) -> None:
        """Let go of the connection."""
        for reader in self._readers.values():
            reader.close()
