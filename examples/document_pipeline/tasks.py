"""The worker: `celery -A tasks worker --pool threads --concurrency 8`.

Rules of this file: the outer layer. A job has one owner at a time: Celery while it is tried, the dead letters once it is put away. It is tried
again only where the engine's judgement of the error says that this may help soon, when the engine says, and on what is left of the job's
attempts. A message may come twice, and a worker may be killed at any line: whoever comes next goes on with what is written down.
"""

import os
from contextlib import suppress

import jobs
from celery import Celery, Task
from celery.exceptions import Reject
from celery.utils.time import get_exponential_backoff_interval
from langchain_core.messages import BaseMessage
from model import ATTEMPTS, RETRIES, extraction, keeping, model, question
from reading import UnreadableError, read
from redis.exceptions import RedisError

from langchain_resilient import (
    AllProvidersFailedError,
    DeadlineExceededError,
    ErrorKind,
    capture_decisions,
    classify_error,
)

TRIES = 5
"""Tries of one job: those that find the circuit open ask nobody, and cost no attempt."""
LONGEST_WAIT = float(os.environ.get("PIPELINE_LONGEST_WAIT", "60"))
"""Seconds that Celery waits before another try; a job that is to wait longer is put away."""
REDIS_AWAY = 5.0
"""Seconds before another try where Redis failed in this one."""

NEVER = {ErrorKind.CLIENT_ERROR, ErrorKind.CONTENT_POLICY, ErrorKind.CONTEXT_OVERFLOW, ErrorKind.INVALID_OUTPUT}
"""It is the page's own fault: nobody will ever answer it."""
SOON = {
    ErrorKind.RATE_LIMITED, ErrorKind.OVERLOADED, ErrorKind.SERVER_ERROR, ErrorKind.TIMEOUT, ErrorKind.STREAM_INTERRUPTED,
    ErrorKind.LOCAL, ErrorKind.UNKNOWN,
}  # fmt: skip
"""It may be over within a minute. What is in neither (a wrong key, a used-up quota) waits for somebody to mend it."""

celery = Celery("document_pipeline", broker=jobs.REDIS_URL)
celery.conf.update(
    task_acks_late=True,  # a message is gone only when its job is written down
    task_reject_on_worker_lost=True,  # a killed child of a prefork pool gives its message back
    task_ignore_result=True,  # results are in the job
    worker_prefetch_multiplier=1,
    broker_connection_retry_on_startup=True,
    broker_transport_options={
        # After this many seconds the message of a killed worker comes again; sooner than a try or a wait may last, every message would.
        "visibility_timeout": jobs.LEASE + LONGEST_WAIT,
        "unacked_restore_interval": 2,  # seconds between two looks for one; Celery's own pace is 10, and every tenth time
        "unacked_restore_throttle": 1,
    },
)


@celery.task(bind=True, name="extract", max_retries=None)
def extract(self: Task, job: str) -> None:
    """Bring a job forward, and come again if that is to be."""
    try:
        with jobs.lease(job) as mine:
            wait = advance(job) if mine else jobs.LEASE
    except RedisError:
        wait = REDIS_AWAY
    if wait is not None:
        try:
            raise self.retry(countdown=wait)
        except Reject as error:  # the new message could not be sent, and Celery would drop this one
            raise Reject(error.reason, requeue=True) from error


def advance(job: str) -> float | None:
    """Try to end a job. Returns the seconds after which to try again; None: it has another owner, or none any more."""
    known = jobs.read(job)
    if known is None or "end" in known:
        return None
    text = known.get("text")
    if known["state"] == "waiting":  # killed while it was put away, or a message that came twice
        return put_away(job, question(known["text"]), known["reason"])
    tried = jobs.begin(job)
    if text is None:
        if tried > TRIES:
            return fail(job, f"gave up: reading the page ended {TRIES} workers")
        try:
            text, by = read(jobs.page_of(job))
        except UnreadableError as error:
            return fail(job, str(error))
        jobs.note(job, text=text, read_by=by)
    return ask(job, question(text), tried, known.get("reason", "its workers were killed"))


def ask(job: str, messages: list[BaseMessage], tried: int, reason: str) -> float | None:
    """One try, on what is left of the job's attempts."""
    providers = len(model.providers)
    granted = jobs.reserve(job, providers + RETRIES, ATTEMPTS) if tried <= TRIES else 0
    if granted < providers:
        jobs.refund(job, granted)
        return put_away(job, messages, reason)
    failed = None
    try:
        with capture_decisions() as decisions:
            invoice = extraction(granted - providers).invoke(messages, {"configurable": {"lane": "batch"}})
    except Exception as error:  # noqa: BLE001  # whatever it is, the job must come to an end
        failed = error
    finally:
        jobs.refund(job, granted - sum(len(decision.attempts) for decision in decisions))
    if failed is not None:
        return after(job, messages, tried, failed)
    jobs.finish(job, {"result": invoice.model_dump(mode="json")})
    return None


def after(job: str, messages: list[BaseMessage], tried: int, error: Exception) -> float | None:
    """What follows a failed try: another one, the dead letters, or the end."""
    members = error.exceptions if isinstance(error, AllProvidersFailedError) else (error,)
    kinds = {classify_error(member) for member in members}
    reason = ", ".join(sorted(kinds))
    if kinds <= NEVER:
        return fail(job, f"refused for good: {reason}")
    backoff = get_exponential_backoff_interval(factor=2, retries=tried - 1, maximum=int(LONGEST_WAIT), full_jitter=True)
    wait = max(getattr(error, "retry_after", None) or 0.0, backoff)
    if kinds.isdisjoint(SOON) or wait > LONGEST_WAIT:
        return put_away(job, messages, reason)
    jobs.note(job, state="queued", reason=reason)
    return wait


def put_away(job: str, messages: list[BaseMessage], reason: str) -> float | None:
    """Hand a job over to the dead letters, under its id: replay.py asks again, and the late answer is found by it."""
    # First the state, then the letter: killed in between, the next to come writes the letter. The same key makes no second one.
    jobs.note(job, state="waiting", reason=reason)
    with suppress(DeadlineExceededError):
        # Nobody is asked in no time, and what nobody could answer is kept.
        keeping.invoke(messages, {"configurable": {"idempotency_key": job, "deadline": 0.0, "lane": "batch"}})
    kept = jobs.read(job)
    return None if kept is None or kept["state"] == "waiting" else LONGEST_WAIT


def fail(job: str, reason: str) -> None:
    """End a job for good."""
    jobs.finish(job, {"reason": reason})
