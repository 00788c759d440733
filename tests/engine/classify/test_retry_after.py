"""Every form in which a provider says "wait"; expected values are worked out by hand."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from langchain_resilient.engine.classify.headroom import read_headroom
from langchain_resilient.engine.classify.retry_after import read_retry_after

WALL = 1_700_000_000.0  # 2023-11-14 22:13:20 UTC
DATE = "Tue, 14 Nov 2023 22:13:20 GMT"


def wait(headers=None, body=None, message="", wall=WALL):
    """Read the wait, with all that a case does not speak of left empty."""
    return read_retry_after(headers or {}, body, message, wall=wall)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "7"}, 7.0),
        ({"Retry-After": "1.5"}, 1.5),
        ({"retry-after": " 20 "}, 20.0),
        ({"retry-after": "6m0s"}, 360.0),
        ({"retry-after": "Tue, 14 Nov 2023 22:14:20 GMT"}, 60.0),
        ({"retry-after": "Tuesday, 14-Nov-23 22:14:20 GMT"}, 60.0),
        ({"retry-after": "Tue Nov 14 22:14:20 2023"}, 60.0),
        ({"retry-after": "2023-11-14T22:13:50Z"}, 30.0),
        ({"retry-after": "2023-11-15T00:13:50+02:00"}, 30.0),
        ({"retry-after": "1700000030"}, 30.0),
        ({"retry-after": "1700000030000"}, 30.0),
        ({"retry-after": "86401"}, 86_401.0),
        ({"retry-after-ms": "1500"}, 1.5),
        ({"x-ms-retry-after-ms": "250"}, 0.25),
        ({"x-amz-retry-after": "2000"}, 2.0),
        ({"retry-after": "30", "retry-after-ms": "29500"}, 29.5),
        ({"retry-after-ms": "-1", "retry-after": "3"}, 3.0),
        ({"llm_provider-retry-after": "20"}, 20.0),
        ({b"retry-after": b"9"}, 9.0),
        ({"retry_after": 4}, 4.0),
    ],
)
def test_wait_headers(headers, seconds):
    """A header that says how long to wait is read in each form that is sent, the more exact header first."""
    assert wait(headers) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "value",
    ["0", "-1", "0.0", "0s", "", "soon", "nan", "inf", "-inf", "1e5", "1_0", "٣", "9" * 400, "9" * 400 + "s", "1h-3", "::::" * 9,
     "Tue, 14 Nov 2023 22:13:20 GMT", "Tue, 14 Nov 2023 22:13:19 GMT", "Tue, 99 Nov 2023 99:99:99 GMT", "2023-13-45T99:99:99Z",
     "1699999999", "0001-01-01T00:00:00+23:59", "\x00"],
)  # fmt: skip
def test_sentinels_and_malformed(value):
    """Sentinels, moments that have passed and malformed values are no hint."""
    assert wait({"retry-after": value}) is None


def test_date_of_response_is_preferred():
    """A date is measured against the response's own Date, not against our clock."""
    headers = {"date": DATE, "retry-after": "Tue, 14 Nov 2023 22:13:50 GMT"}
    assert wait(headers, wall=0.0) == 30.0
    assert wait({**headers, "date": "rubbish"}, wall=WALL + 10) == 20.0


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "6m0s"}, 360.0),
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "20ms"}, 0.02),
        ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "1h2m3.5s"}, 3723.5),
        ({"x-ratelimit-remaining-tokens": "12", "x-ratelimit-reset-tokens": "1h"}, None),
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "2s",
          "x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "5s"}, 5.0),
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "2s",
          "x-ratelimit-remaining-tokens": "9", "x-ratelimit-reset-tokens": "5s"}, 2.0),
        ({"x-ratelimit-reset-requests": "2s", "x-ratelimit-reset-tokens": "5s"}, 2.0),
        ({"x-ratelimit-remaining-requests-day": "0", "x-ratelimit-reset-requests-day": "33011.38"}, 33_011.38),
        ({"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "1700000042000"}, 42.0),
        ({"RateLimit-Remaining": "0", "RateLimit-Reset": "30"}, 30.0),
        ({"RateLimit": '"default";r=0;t=30'}, 30.0),
        ({"RateLimit": '"burst";r=3;t=1, "daily";r=0;t=50000'}, 50_000.0),
        ({"RateLimit": "limit=100, remaining=0, reset=31"}, 31.0),
        ({"RateLimit": '"default";r=5;t=30'}, None),
        ({"anthropic-ratelimit-input-tokens-remaining": "0",
          "anthropic-ratelimit-input-tokens-reset": "2023-11-14T22:13:31Z"}, 11.0),
        ({"retry-after": "7", "x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "6m0s"}, 7.0),
        ({"retry-after": "0", "x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "6s"}, 6.0),
    ],
)  # fmt: skip
def test_exhausted_limits(headers, seconds):
    """A reset is a hint where its limit is exhausted, or where nothing says what remains."""
    assert wait(headers) == (None if seconds is None else pytest.approx(seconds))


GEMINI = {
    "error": {
        "code": 429,
        "status": "RESOURCE_EXHAUSTED",
        "details": [
            {
                "@type": "type.googleapis.com/google.rpc.QuotaFailure",
                "violations": [{"quotaId": "GenerateRequestsPerMinute"}],
            },
            {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "46s"},
        ],
    }
}


@pytest.mark.parametrize(
    ("body", "seconds"),
    [
        (GEMINI, 46.0),
        ([GEMINI], 46.0),
        ({"details": [{"retryDelay": "10h17m5.7s"}]}, 37_025.7),
        ({"details": [{"retryDelay": {"seconds": 46, "nanos": 500_000_000}}]}, 46.5),
        ([SimpleNamespace(retry_delay=SimpleNamespace(seconds=12, nanos=0))], 12.0),
        ({"error": {"retry_after": 3}}, 3.0),
        ({"error": {"retry_after_ms": 1200}}, 1.2),
        ({"retry_after": True}, None),
        ({"retry_after": None}, None),
        ({"retry_after": float("nan")}, None),
        ({"retry_after": {"seconds": []}}, None),
        (
            {"error": {"metadata": {"headers": {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "1700000005000"}}}},
            5.0,
        ),
        ('{"retryDelay": "46s"}', 46.0),
        (b'{"retryDelay": "46s"}', 46.0),
    ],
)
def test_bodies(body, seconds):
    """Gemini's RetryInfo, and what gateways write into bodies, are read whatever they are wrapped in."""
    assert wait(body=body) == (None if seconds is None else pytest.approx(seconds))


def test_body_whose_attributes_raise():
    """A message object that cannot be read gives no hint."""
    rude = type("Rude", (), {"retry_delay": property(lambda self: 1 / 0)})()
    assert wait({"x-ratelimit-reset-tokens": "3s"}, body=[rude]) == 3.0


def test_body_that_holds_itself():
    """A body that holds itself ends the search."""
    body: dict = {}
    body["error"] = body
    assert wait(body=body) is None


@pytest.mark.parametrize(
    ("message", "seconds"),
    [
        ("Rate limit reached: Limit 10, Used 10. Please try again in 41.724s.", 41.724),
        ("Please try again in 20ms. Visit https://x", 0.02),
        ("Please try again in 6m0s.", 360.0),
        ("Please try again in 7m12.5s", 432.5),
        ("Please retry after 20 seconds.", 20.0),
        ("Please retry in 10h17m5.7s.", 37_025.7),
        ("No deployments available. Try again in 5 seconds. Passed model=m", 5.0),
        ("try again in 1 minute and 30 seconds", 90.0),
        ("try again in 250 milliseconds", 0.25),
        ("retry_delay {\n  seconds: 46\n}", 46.0),
        ("{'@type': 'RetryInfo', 'retryDelay': '46s'}", 46.0),
        ("You will regain access on 2023-11-15 at 00:00 UTC.", 6400.0),
        ("Limit 30000, Requested 36000", None),
        ("try again later", None),
        ("please retry 3 times", None),
        ("try again in 0s", None),
        (f"{'x' * 5000} try again in 5s", None),
        # Once in some hundred requests, the hexadecimal id that follows begins like a wait.
        ("{'message': 'Slow down, try again later.'}, 'request_id': 'req_953654d'}", None),
        ("Try again later. request_id=req_953654d", None),
        ("Try again later (request id: 9536541d-4c3e-11ef-9c1a-325096b39f47)", None),
        ("Try again later (id 12d4a)", None),
    ],
)
def test_messages(message, seconds):
    """The message is the last resort, and only its first 4 kB."""
    assert wait(message=message) == (None if seconds is None else pytest.approx(seconds))


def test_message_before_reset_without_remaining():
    """A message is more exact than a reset of which nobody says that it matters."""
    assert wait({"x-ratelimit-reset-tokens": "6m0s"}, message="try again in 2s") == 2.0


NAMES = st.sampled_from([
    "retry-after", "retry-after-ms", "date", "ratelimit", "ratelimit-policy", "x-ratelimit-reset-tokens",
    "x-ratelimit-remaining-tokens", "anthropic-ratelimit-requests-reset", "x-ratelimit-reset",
])  # fmt: skip
VALUES = st.one_of(
    st.text(max_size=40),
    st.from_regex(r"-?[0-9]{1,400}(\.[0-9]+)?(s|ms|h|m|d)?", fullmatch=True),
    st.from_regex(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(Z|[+-][0-9]{2}:[0-9]{2})?", fullmatch=True),
    st.from_regex(
        r"[A-Z][a-z]{2}, [0-9]{1,2} (Jan|Feb) [0-9]{1,5} [0-9]{2}:[0-9]{2}:[0-9]{2} (GMT|[+-][0-9]{4})", fullmatch=True
    ),
    st.from_regex(r'"?[a-z]*"?(;[rtqw]=[0-9]{1,20}){0,3}', fullmatch=True),
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | VALUES,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["retryDelay", "retry_after", "headers", "seconds"]), inner)
    ),
    max_leaves=6,
)


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(NAMES, VALUES, max_size=5), JSON, VALUES, st.floats(-1e12, 1e12))
def test_any_input_gives_a_wait_or_none(headers, body, message, wall):
    """Whatever comes, the wait is None or positive and finite, and headroom is never negative."""
    seconds = wait(headers, body, f"try again in {message}", wall)
    assert seconds is None or 0.0 < seconds < math.inf
    for row in read_headroom(headers, wall=wall):
        assert row.reset is None or 0.0 <= row.reset < math.inf
        assert (row.limit or 0) >= 0 and (row.remaining or 0) >= 0
