"""What a request is expected to take, by its arguments alone.

Rules of this file: it is an estimate, made before anything is sent, and fails for no request: what is malformed is refused by whoever has to
read it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import litellm

MOST_TOKENS = ("max_tokens", "max_completion_tokens", "max_output_tokens")
SPOKEN = ("system", "instructions", "input", "prompt", "query", "documents")
"""Where routes have their text, beside `messages`."""
MARGIN = 1.1
LETTERS = 4
"""Of a token, where LiteLLM can't count it."""


def prompt_tokens(data: Mapping[str, Any]) -> int:
    """A local estimate of a request's input, 10 % on the safe side."""
    texts = [str(told) for name in SPOKEN if (told := data.get(name))]
    messages = data.get("messages")
    count = counted(text="\n".join(texts)) if texts else 0
    if messages:
        count += counted(messages=messages)
    return int(count * MARGIN) + 1


def counted(**said: Any) -> int:
    """The tokens of `text`, or of `messages`."""
    try:
        return int(litellm.token_counter(**said))
    except Exception:  # noqa: BLE001  # see the rules
        return len(str(said)) // LETTERS


def most_tokens(request: Mapping[str, Any]) -> int | None:
    """The most output that a request allows; None: it does not say."""
    given = next((request[name] for name in MOST_TOKENS if request.get(name)), None)
    return given if isinstance(given, int) and given > 0 else None
