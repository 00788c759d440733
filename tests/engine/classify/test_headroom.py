"""What a response says is left of its limits, in every notation."""

from __future__ import annotations

import httpx
import pytest

from langchain_resilient.engine.classify.headroom import Headroom, read_headroom

WALL = 1_700_000_000.0  # 2023-11-14 22:13:20 UTC
DATE = "Tue, 14 Nov 2023 22:13:20 GMT"


def test_headroom_openai():
    """OpenAI's headers are read with Go durations."""
    headers = httpx.Headers({
        "x-ratelimit-limit-requests": "500", "x-ratelimit-remaining-requests": "499", "x-ratelimit-reset-requests": "120ms",
        "x-ratelimit-limit-tokens": "30000", "x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "6m0s",
    })  # fmt: skip
    assert read_headroom(headers, wall=WALL) == (
        Headroom("requests", 500, 499, pytest.approx(0.12)),
        Headroom("tokens", 30_000, 0, 360.0),
    )


def test_headroom_anthropic():
    """Anthropic's four limits are read against the response's Date."""
    headers = {"date": DATE, "anthropic-ratelimit-output-tokens-limit": "8000",
               "anthropic-ratelimit-output-tokens-remaining": "7000",
               "anthropic-ratelimit-output-tokens-reset": "2023-11-14T22:13:25Z"}  # fmt: skip
    assert read_headroom(headers, wall=0.0) == (Headroom("output_tokens", 8000, 7000, 5.0),)


@pytest.mark.parametrize(
    ("headers", "rows"),
    [
        ({}, ()),
        (
            {"x-ratelimit-limit-requests-day": "9", "x-ratelimit-limit-tokens-minute": "8"},
            (Headroom("tokens", 8, None, None),),
        ),
        ({"x-ratelimit-limit-tokens-prompt": "8"}, (Headroom("input_tokens", 8, None, None),)),
        ({"x-ratelimit-limit-images": "8"}, ()),
        ({"x_ratelimit_remaining_requests": 3}, (Headroom("requests", None, 3, None),)),
        (
            {"x-ratelimit-remaining-tokens": "-1", "x-ratelimit-reset-tokens": "-1"},
            (Headroom("tokens", None, None, 0.0),),
        ),
        ({"x-ratelimit-remaining-tokens": "many"}, (Headroom("tokens", None, None, None),)),
        (
            {"ratelimit": '"default";r=5;t=30', "ratelimit-policy": '"default";q=100;w=60'},
            (Headroom("requests", 100, 5, 30.0),),
        ),
        ({"ratelimit": '"d";r=5;t=30', "ratelimit-policy": '"d";q=100;w=86400'}, ()),
        ({"ratelimit": '"tokens";r=5;t=30'}, (Headroom("tokens", None, 5, 30.0),)),
        ({"ratelimit": "limit=10, remaining=1, reset=7"}, (Headroom("requests", 10, 1, 7.0),)),
        ({"ratelimit": ";;;,,,=;r="}, ()),
    ],
)
def test_headroom_forms(headers, rows):
    """Each spelling of a limit comes out in one form; longer windows than a minute are left out."""
    assert read_headroom(headers, wall=WALL) == rows
