"""What a request is expected to take."""

import base64
import random
from typing import Any

import pytest

from litellm_hooks.expecting import most_tokens, prompt_tokens

QUESTION = [{"role": "user", "content": "What happened?"}]
BLOB = base64.b64encode(random.Random(7).randbytes(300_000)).decode()


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
        ({"input": [{"role": "user", "content": [{"type": "input_text", "text": "word " * 100}]}]}, 90, 130),
        (
            {"input": [{"type": "function_call", "arguments": "word " * 50}, {"type": "x", "output": "word " * 50}]},
            90,
            140,
        ),
        ({"input": [{"type": "reasoning", "summary": [{"text": "word " * 100}], "encrypted_content": BLOB}]}, 90, 130),
        ({"documents": [{"text": "word " * 50}, "word " * 50], "query": "why?"}, 90, 140),
        ({"system": [{"type": "text", "text": "word " * 100, "cache_control": {"type": "ephemeral"}}]}, 90, 130),
        ({"input": [1, 2, 3] * 100}, 300, 340),
        ({"prompt": [[1, 2, 3] * 50, [4] * 150]}, 300, 340),
        ({"input": {"a": 1}}, 1, 1),
    ],
)
def test_a_prompt_is_counted_wherever_a_route_has_it(data: dict[str, Any], least: int, most: int):
    """Messages, a system prompt, an input, a prompt, ids of tokens: each counts; what can't be read is estimated, and is no error of ours."""
    assert least <= prompt_tokens(data) <= most


@pytest.mark.parametrize(
    "data",
    [
        {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": f"data:image/png;base64,{BLOB}"}]}]},
        {"input": [f"data:image/png;base64,{BLOB}"]},
        {"messages": [{"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": BLOB, "format": "wav"}}]}]},
        {"messages": [{"role": "user", "content": [{"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": BLOB}}]}]},
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": f"data:image/png;base64,{BLOB}"}}]}]},
    ],
)  # fmt: skip
def test_a_picture_is_not_counted_as_text(data: dict[str, Any]):
    """An image, or a sound, of 300 kB is no prompt of 100 000 tokens, whatever the route calls it."""
    assert prompt_tokens(data) < 1000


@pytest.mark.parametrize("knows", [True, False])
def test_no_picture_is_fetched(monkeypatch: pytest.MonkeyPatch, knows: bool):
    """An image's address is not asked for before the request is let in: nobody else is served meanwhile. So too where LiteLLM has no word for that."""
    fetched: list[Any] = []
    name = "litellm.litellm_core_utils.token_counter.get_image_dimensions"
    monkeypatch.setattr(name, lambda *_, **asked: fetched.append(asked) or (100, 100))
    if not knows:
        monkeypatch.setattr("litellm_hooks.expecting._FETCHES_NOTHING", {})
    image = {"type": "image_url", "image_url": {"url": "https://example.com/x.png", "detail": "high"}}
    said = [{"role": "user", "content": [{"type": "text", "text": "word " * 100}, image]}]
    assert 90 < prompt_tokens({"messages": said}) < 600
    assert not fetched


def test_depth_is_no_failure():
    """What is nested without end, as only an attacker would, is counted all the same."""
    deep: Any = "word"
    for _ in range(20_000):
        deep = [deep]
    assert prompt_tokens({"input": deep}) == 2


@pytest.mark.parametrize(
    ("data", "told"),
    [
        ({}, None),
        ({"max_tokens": 7}, 7),
        ({"max_tokens": None, "max_completion_tokens": 8}, 8),
        ({"max_output_tokens": 9}, 9),
        ({"max_tokens": "many"}, None),
        ({"max_tokens": -1}, None),
        ({"max_tokens": 1, "max_completion_tokens": 100}, 100),
        ({"max_tokens": "many", "max_completion_tokens": 8}, 8),
        ({"max_tokens": 7, "n": 3}, 21),
        ({"max_tokens": 7, "n": 0}, 7),
        ({"max_tokens": 7, "n": "many"}, 7),
        ({"n": 3}, None),
    ],
)
def test_the_most_output_is_what_the_request_says(data: dict[str, Any], told: int | None):
    """Each route's own word for it counts, the largest if there are several, once for each answer; nonsense is for the provider to refuse."""
    assert most_tokens(data) == told
