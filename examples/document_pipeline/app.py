"""The front door: `uvicorn app:app`.

    curl --data-binary @page.png localhost:8000/documents
    curl localhost:8000/jobs/<id>

Rules of this file: it takes pages and tells what became of them, and asks no provider. 202 is said when the job and its message are in Redis.
"""

import json
from typing import Literal

import jobs
from fastapi import FastAPI, HTTPException, Request
from fastapi.concurrency import run_in_threadpool
from kombu.exceptions import OperationalError
from model import ATTEMPTS, Invoice, model
from pydantic import BaseModel
from redis.exceptions import RedisError
from tasks import extract

LARGEST = 5 * 1024 * 1024
"""Bytes of a page."""
WAITING = "kept as a dead letter, will be answered later"

app = FastAPI()


class Job(BaseModel):
    """What is known of a job."""

    job: str
    state: Literal["queued", "running", "waiting", "done", "failed"]
    attempts: int
    """Requests to providers that its tries have cost or reserved; replays are not counted."""
    most_attempts: int = ATTEMPTS
    read_by: str | None = None
    reason: str | None = None
    result: Invoice | None = None
    late: bool = False
    """Whether a replay has answered."""


@app.post("/documents", status_code=202)
async def upload(request: Request) -> dict[str, str]:
    """Take a scanned page, as the body."""
    page = bytearray()
    async for chunk in request.stream():
        page += chunk
        if len(page) > LARGEST:
            raise HTTPException(413, f"a page may have {LARGEST} bytes")
    if not page:
        raise HTTPException(400, "the body is empty: send the page itself")
    try:
        return {"job": await run_in_threadpool(accept, bytes(page))}
    except (RedisError, OperationalError) as error:
        raise HTTPException(503, "nothing can be taken in now", {"Retry-After": "5"}) from error


def accept(page: bytes) -> str:
    """A job for a page, and the message that starts it."""
    job = jobs.create(page)
    extract.apply_async((job,))
    return job


@app.get("/jobs/{job}")
def look(job: str) -> Job:
    """What became of a page."""
    known = jobs.read(job)
    if known is None:
        raise HTTPException(404, "no job of this id, or none any more")
    told = {"job": job, "attempts": known.get("attempts", 0), "read_by": known.get("read_by")}
    if "end" in known:
        end = json.loads(known["end"])
        return Job(**told, state="done" if "result" in end else "failed", **end)
    if known["state"] == "waiting":
        return Job(**told, **later(job, known))
    return Job(**told, state=known["state"], reason=known.get("reason"))


def later(job: str, known: dict[str, str]) -> dict[str, object]:
    """What became of a job's dead letter."""
    answer = model.letters.result(job)
    if answer is not None:
        return {"state": "done", "result": answer.value, "late": True}
    letter = model.letters.get(known["letter"]) if "letter" in known else None
    if letter is not None and letter.parked:
        return {"state": "failed", "reason": letter.parked}
    return {"state": "waiting", "reason": f"{WAITING} ({known['reason']})"}


@app.get("/status")
def status() -> dict[str, dict[str, object]]:
    """What is known of the providers: for you, not for your users."""
    return model.status()
