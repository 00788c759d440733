"""Every form in which providers say when to come back. One form at a time, so that a reader of it is truly tested."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Literal, get_args

from langchain_resilient.testing.wires.base import JsonObject

RetryForm = Literal[
    "seconds",
    "decimal",
    "http-date",
    "ms",
    "x-ms",
    "openai-reset",
    "anthropic-reset",
    "ietf",
    "gemini",
    "message",
    "none",
]
RETRY_FORMS: tuple[RetryForm, ...] = get_args(RetryForm)


def hint_headers(form: RetryForm, seconds: float, now: datetime) -> dict[str, str]:
    """Write the hint as headers; none for the forms that speak in the body. Dates and whole seconds are rounded up."""
    whole = math.ceil(seconds)
    then = now + timedelta(seconds=seconds)
    if then.microsecond:
        then = then.replace(microsecond=0) + timedelta(seconds=1)
    forms: dict[str, dict[str, str]] = {
        "seconds": {"retry-after": str(whole)},
        "decimal": {"retry-after": str(float(seconds))},
        "http-date": {"retry-after": format_datetime(then, usegmt=True)},
        "ms": {"retry-after-ms": str(round(seconds * 1000))},
        "x-ms": {"x-ms-retry-after-ms": str(round(seconds * 1000))},
        "openai-reset": {
            "x-ratelimit-limit-requests": "500",
            "x-ratelimit-remaining-requests": "0",
            "x-ratelimit-reset-requests": go_duration(seconds),
            "x-ratelimit-limit-tokens": "150000",  # tokens are left: their reset says nothing about this refusal
            "x-ratelimit-remaining-tokens": "149984",
            "x-ratelimit-reset-tokens": "6ms",
        },
        "anthropic-reset": {
            "anthropic-ratelimit-requests-limit": "50",
            "anthropic-ratelimit-requests-remaining": "0",
            "anthropic-ratelimit-requests-reset": then.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        },
        "ietf": {"ratelimit": f'"default";r=0;t={whole}'},
    }
    return forms.get(form, {})


def hint_body(form: RetryForm, seconds: float) -> JsonObject | None:
    """Write Gemini's body, the only form that replaces the whole error; None for the others."""
    if form != "gemini":
        return None
    delay = f"{seconds:g}s"
    info = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": delay}
    message = f"You exceeded your current quota. Please retry in {delay}."
    return {"error": {"code": 429, "message": message, "status": "RESOURCE_EXHAUSTED", "details": [info]}}


def hint_message(form: RetryForm, seconds: float) -> str:
    """Write what the error's message ends with, as OpenAI's does."""
    return f" Please try again in {seconds:g}s." if form == "message" else ""


def go_duration(seconds: float) -> str:
    """Write a duration as Go prints it: 20ms, 1.5s, 6m0s, 1h1m1s."""
    if seconds < 1:
        return f"{seconds * 1000:g}ms" if seconds else "0s"
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(int(minutes), 60)
    return (f"{hours}h" if hours else "") + (f"{minutes}m" if hours or minutes else "") + f"{round(rest, 3):g}s"


def utc_now() -> datetime:
    """Read the wall clock: the dates in headers are wall-clock dates."""
    return datetime.now(UTC)
