"""Jobs and their pages, in Redis.

Rules of this file: a job is one hash, and its first end stays: what arrives later changes nothing. Whoever works at a job holds its lease, which
lapses by itself if the process is killed. Attempts are reserved before they are made and given back if they were not, so that a killed try
has paid for what it may have sent.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any
from uuid import uuid4

from redis import Redis
from redis.exceptions import LockError

from langchain_resilient.engine.events import DeadLettered, Event

REDIS_URL = os.environ.get("REDIS_URL", "redis://127.0.0.1:6379/0")
LEASE = float(os.environ.get("PIPELINE_LEASE", "180"))
"""Seconds that one try may take, reading and asking together; a longer one is begun a second time, beside the first."""
KEPT = 7 * 24 * 3600
"""Seconds for which a job is remembered: as long as late answers are."""

_redis = Redis.from_url(REDIS_URL, decode_responses=True)
_pages = Redis.from_url(REDIS_URL)


def create(page: bytes) -> str:
    """A new job for a scanned page; returns its id."""
    job = uuid4().hex
    _pages.set(_page(job), page, ex=KEPT)
    note(job, state="queued")
    _redis.expire(_hash(job), KEPT)
    return job


def read(job: str) -> dict[str, str] | None:
    """What is known of a job; None: there is none of that id."""
    return _redis.hgetall(_hash(job)) or None


def page_of(job: str) -> bytes:
    """The scanned page."""
    return _pages.get(_page(job)) or b""


def note(job: str, **fields: str) -> None:
    """Write down what is new."""
    _redis.hset(_hash(job), mapping=fields)


def kept(event: Event) -> None:
    """An observer of the model: note the letter that a job has become, its idempotency key being the job's id."""
    if isinstance(event, DeadLettered):
        # One that could be written nowhere goes back to Celery.
        note(event.key, **({"state": "queued"} if event.where == "lost" else {"letter": event.letter}))


def finish(job: str, end: dict[str, Any]) -> None:
    """End a job: `{"result": {…}}` or `{"reason": "…"}`. Of two ends the first stays."""
    if _redis.hsetnx(_hash(job), "end", json.dumps(end)):
        note(job, state="done" if "result" in end else "failed")
    _redis.hdel(_hash(job), "text")
    _pages.delete(_page(job))


def begin(job: str) -> int:
    """Count a try; returns which one it is, from 1."""
    note(job, state="running")
    return int(_redis.hincrby(_hash(job), "tries", 1))


def reserve(job: str, wanted: int, most: int) -> int:
    """Take so many attempts from the job's `most`; returns how many were left to take."""
    over = max(int(_redis.hincrby(_hash(job), "attempts", wanted)) - most, 0)
    refund(job, over)
    return wanted - over


def refund(job: str, unused: int) -> None:
    """Give back attempts that were not made."""
    if unused > 0:
        _redis.hincrby(_hash(job), "attempts", -unused)


@contextmanager
def lease(job: str) -> Iterator[bool]:
    """Whether the job is ours for the time of the block; False: another worker has it."""
    lock = _redis.lock(f"pipeline:lease:{job}", timeout=LEASE)
    mine = lock.acquire(blocking=False)
    try:
        yield mine
    finally:
        if mine:
            with suppress(LockError):  # it lapsed, and may be another's by now
                lock.release()


def _hash(job: str) -> str:
    return f"pipeline:job:{job}"


def _page(job: str) -> str:
    return f"pipeline:page:{job}"
