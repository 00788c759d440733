"""What a request is expected to take."""

from typing import Any

import pytest

from litellm_hooks.expecting import most_tokens, prompt_tokens

QUESTION = [{"role": "user", "content": "What happened?"}]


@pytest.mark.parametrize(
    ("data", "least", "most"),
    [
        ({}, 1, 1),
        ({"messages": QUESTION}, 5, 20),
        ({"input": "word " * 100}, 90, 130),
        ({"input": ["word " * 50, "word " * 50]}, 90, 140),
        ({"prompt": "word " * 100, "messages": None}, 90, 130),
        ({"messages": QUESTION, "system": "word " * 100}, 100, 150),
        ({"messages": [{"role": "user", "content": [{"type": "nothing", "x": "y" * 400}]}]}, 1, 200),
        ({"messages": 7}, 1, 10),
    ],
)
def test_a_prompt_is_counted_wherever_a_route_has_it(data: dict[str, Any], least: int, most: int):
    """Messages, a system prompt, an input, a prompt: each counts; what can't be read is estimated, and is no error of ours."""
    assert least <= prompt_tokens(data) <= most


@pytest.mark.parametrize(
    ("data", "told"),
    [
        ({}, None),
        ({"max_tokens": 7}, 7),
        ({"max_tokens": None, "max_completion_tokens": 8}, 8),
        ({"max_output_tokens": 9}, 9),
        ({"max_tokens": "many"}, None),
        ({"max_tokens": -1}, None),
    ],
)
def test_the_most_output_is_what_the_request_says(data: dict[str, Any], told: int | None):
    """Each route's own word for it counts; nonsense is for the provider to refuse."""
    assert most_tokens(data) == told
