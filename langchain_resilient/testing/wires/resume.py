"""What a provider makes of an answer that another one began: it is asked to go on by a prefill, or by an instruction.

A prefill is an assistant message at the end of the conversation; an instruction is a user message there that quotes the text so
far. Rules of this file: pure decisions over an `Ask`, the scripted full answer, and what `FaultServer.answer` was told.

    continue   says the rest only, from exactly where the text so far ends
    trimmed    the same, without the white space that the rest begins with
    Repeat(…)  says the end of the text so far once more, then the rest
    restart    takes no notice and says the full answer from the top
    refuse     a 400 in that provider's words (a prefill only)
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, get_args

from langchain_resilient.testing.wires.base import Ask, Problem, WireName

RefusalName = Literal["anthropic", "bedrock", "mistral", "deepseek", "gemini", "vllm", "llama.cpp"]
"""Whose words a prefill is refused in."""

PREFILL_REFUSALS: dict[RefusalName, Problem] = {
    # Claude 4.6 and later; also seen through OpenRouter and Copilot. smallmain/vscode-unify-chat-provider #249, aaif-goose/goose #7425.
    "anthropic": Problem(
        400,
        "This model does not support assistant message prefill. The conversation must end with a user message.",
        "invalid_request_error",
    ),
    # Converse and ConverseStream, a ValidationException. NousResearch/hermes-agent PR #101401.
    "bedrock": Problem(
        400,
        "The model returned the following errors: This model does not support assistant message prefill. "
        "The conversation must end with a user message.",
        "ValidationException",
    ),
    # QuantumNous/new-api #2858 (2026); until 2025 with type invalid_request_error and no code: AiNiee #641, smolagents #757.
    "mistral": Problem(
        400,
        "Expected last role User or Tool (or Assistant with prefix True) for serving but got assistant",
        "invalid_request_message_order",
        "3230",
        members={"object": "error"},
        flat=True,
    ),
    # BerriAI/litellm #8090, huggingface/smolagents #430.
    "deepseek": Problem(
        400,
        "The last message of deepseek-reasoner must be a user message, or an assistant message with prefix mode on "
        "(refer to https://api-docs.deepseek.com/guides/chat_prefix_completion).",
        "invalid_request_error",
        "invalid_request_error",
    ),
    # songquanpeng/one-api #836 (2023), babaohuang/GeminiProChat PR #68. Models since then mostly accept it.
    "gemini": Problem(
        400,
        "Please ensure that multiturn requests ends with a user role or a function response.",
        "INVALID_ARGUMENT",
        "400",
    ),
    # With Mistral's tokenizer; with Hugging Face templates vLLM restarts unless asked to continue. mistralai/mistral-vibe #114.
    "vllm": Problem(
        400,
        "Cannot set `add_generation_prompt` to True when the last message is from the assistant. "
        "Consider using `continue_final_message` instead.",
        "BadRequestError",
        "400",
    ),
    # Models that think by default. ggml-org/llama.cpp #20861, #21889.
    "llama.cpp": Problem(
        400, "Assistant response prefill is incompatible with enable_thinking.", "invalid_request_error", "400"
    ),
}

_USUAL: dict[WireName, RefusalName] = {
    "openai": "mistral",  # OpenAI itself accepts a prefill and restarts
    "anthropic": "anthropic",
    "ollama": "llama.cpp",  # none of Ollama's own was found: it continues or, by the model's template, restarts
}
_SENTENCE_ENDS = re.compile(r"(?<=[.!?])\s+(?=\S)|(?<=[。！？\n])(?=.)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Repeat:
    """Say the end of the text so far once more: its last `what` characters (code points), or its last "sentence" (default)."""

    what: int | Literal["sentence"] = "sentence"

    def __post_init__(self) -> None:
        """Check."""
        if self.what != "sentence" and (not isinstance(self.what, int) or self.what < 1):
            unfit = f'Repeat takes a number of characters from 1 on, or "sentence", not {self.what!r}'
            raise ValueError(unfit)

    def end_of(self, begun: str) -> str:
        """Take what is said once more; all of a text that is shorter."""
        if isinstance(self.what, int):
            return begun[-self.what :]
        ends = [found.end() for found in _SENTENCE_ENDS.finditer(begun.rstrip())]
        return begun[ends[-1] :] if ends else begun


@dataclass(frozen=True, slots=True)
class Refuse:
    """Refuse a prefill in the words of `like`; default: those that are usual on the wire."""

    like: RefusalName | None = None

    def __post_init__(self) -> None:
        """Check."""
        if self.like is not None and self.like not in PREFILL_REFUSALS:
            unknown = f"like must be one of {', '.join(PREFILL_REFUSALS)}, not {self.like!r}"
            raise ValueError(unknown)


ResumeName = Literal["continue", "trimmed", "restart"]
Resume = ResumeName | Repeat
Prefill = Resume | Literal["refuse"] | Refuse


def checked(prefill: Prefill, instructed: Resume | None) -> None:
    """Raise ValueError for a word that does not exist."""
    words = get_args(ResumeName)
    if not isinstance(prefill, Repeat | Refuse) and prefill not in {*words, "refuse"}:
        unknown = f"prefill must be one of {', '.join(words)}, refuse, Repeat(…), Refuse(…), not {prefill!r}"
        raise ValueError(unknown)
    if instructed is not None and not isinstance(instructed, Repeat) and instructed not in words:
        unknown = f"instructed must be one of {', '.join(words)}, Repeat(…), None, not {instructed!r}"
        raise ValueError(unknown)


def prefill_refused(wire: WireName, ask: Ask, prefill: Prefill) -> Problem | None:
    """Say why a request that ends with an assistant message is refused; None if it isn't."""
    if ask.prefill is None:
        return None
    if prefill == "refuse":
        prefill = Refuse()
    if isinstance(prefill, Refuse):
        problem = PREFILL_REFUSALS[prefill.like or _USUAL[wire]]
        own = "invalid_request_error" if wire == "anthropic" else None  # elsewhere only the words are that provider's
        return problem if wire == "openai" else Problem(400, problem.message, own)
    return ask.invalid


def quoted_in(message: str, full: str, marks: tuple[str, str] | None) -> str | None:
    """Find the text so far in an instruction: between the marks, else the longest beginning of the answer that stands in it."""
    if marks is not None:
        start, end = message.find(marks[0]), message.rfind(marks[1])
        return message[start + len(marks[0]) : end] if start >= 0 and start + len(marks[0]) <= end else None
    length = 0
    while length < len(full) and full[: length + 1] in message:
        length += 1
    return full[:length] or None


def resumed(full: str, begun: str, how: Resume) -> str:
    """Say what the provider says; all of it if the text so far is no beginning of the full answer."""
    if how == "restart" or not full.startswith(begun):
        return full
    rest = full[len(begun) :]
    if isinstance(how, Repeat):
        return how.end_of(begun) + rest
    return rest.lstrip() if how == "trimmed" else rest
