"""What a request is expected to take, by its arguments alone.

Rules of this file: it is an estimate, made before anything is sent, and fails for no request: what is malformed is refused by whoever has to
read it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from inspect import signature
from typing import Any, NamedTuple

import litellm

MOST_TOKENS = ("max_tokens", "max_completion_tokens", "max_output_tokens")
SPOKEN = ("system", "instructions", "input", "prompt", "query", "documents")
"""Where routes have their text, beside `messages`."""
TEXTS = ("text", "content", "arguments", "output", "summary")
"""Where the parts of what they have there keep theirs. All else (images, sounds, files, ids, signatures) is no text."""
MARGIN = 1.1
LETTERS = 4
"""Of a token, where LiteLLM can't count it."""
DATA = ("data:", ";base64,")
"""What an image or a sound begins with that stands where others have text, and what its first letters hold."""
_NO_PICTURES = "use_default_image_token_count"
"""Else LiteLLM gets images from the web to measure them, and nobody else is served meanwhile."""
_FETCHES_NOTHING = {_NO_PICTURES: True} if _NO_PICTURES in signature(litellm.token_counter).parameters else {}


class _Said(NamedTuple):
    """What a request says."""

    texts: list[str]
    ids: int
    """Tokens that come as their numbers."""


def prompt_tokens(data: Mapping[str, Any]) -> int:
    """A local estimate of a request's input, 10 % on the safe side."""
    spoken = [told for name in SPOKEN if (told := data.get(name))]
    messages = data.get("messages")
    count = _of_messages(messages) if messages else 0
    if count is None:  # LiteLLM can't read them
        count, spoken = 0, [messages, *spoken]
    texts, ids = _said(spoken)
    count += ids + (counted("\n".join(texts)) if texts else 0)
    return int(count * MARGIN) + 1


def counted(text: str) -> int:
    """The tokens of a text."""
    try:
        return int(litellm.token_counter(text=text))
    except Exception:  # noqa: BLE001  # see the rules
        return len(text) // LETTERS


def _of_messages(messages: Any) -> int | None:
    if not _FETCHES_NOTHING:
        return None
    try:
        return int(litellm.token_counter(messages=messages, **_FETCHES_NOTHING))
    except Exception:  # noqa: BLE001  # see the rules
        return None


def _said(spoken: Sequence[Any]) -> _Said:
    texts: list[str] = []
    ids = 0
    rest = list(reversed(spoken))
    while rest:  # and no recursion: nobody says how deep a client's lists are
        one = rest.pop()
        if isinstance(one, str):
            if not (one.startswith(DATA[0]) and DATA[1] in one[:100]):
                texts.append(one)
        elif isinstance(one, Mapping):
            rest += [one[name] for name in reversed(TEXTS) if name in one]
        elif isinstance(one, list | tuple) and one:
            if isinstance(one[0], int):
                ids += len(one)
            else:
                rest += reversed(one)
    return _Said(texts, ids)


def most_tokens(request: Mapping[str, Any]) -> int | None:
    """The most output that a request allows, in all its answers; None: it does not say."""
    given = [told for name in MOST_TOKENS if isinstance(told := request.get(name), int) and told > 0]
    answers = request.get("n")
    return max(given) * (answers if isinstance(answers, int) and answers > 0 else 1) if given else None


def models_of(request: Mapping[str, Any]) -> int:
    """How many models a request names, each of which the Proxy asks for an answer (≥ 1)."""
    model = request.get("model")
    return model.count(",") + 1 if isinstance(model, str) else 1
