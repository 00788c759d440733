"""A conversation put to a strict provider by its real LangChain client, and answers as that client reads them.

`refusal` sends over HTTP to a FaultServer and has the recorded body judged by the provider's validator; what the client itself can't send is
refused as well. `answered` has the client's own parsing read a whole response of its wire, so that messages look as they do in production.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from anthropic.types import Message
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatResult

from langchain_resilient.testing import FaultServer
from tests import clients
from tests.strict import anthropic_messages, ollama_chat, openai_chat

PROBLEMS: dict[str, Callable[[dict[str, Any]], list[str]]] = {
    "openai": openai_chat.problems,
    "anthropic": anthropic_messages.problems,
    "ollama": ollama_chat.problems,
}

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": name,
            "description": "Looks.",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
        },
    }
    for name in ("weather", "clock")
]


def refusal(server: FaultServer, wire: str, messages: list[BaseMessage], **arguments: Any) -> list[str]:
    """Why a strict provider refuses this conversation; empty if it takes it."""
    server.reset_log()
    model: Any = clients.instance(server, wire)
    try:
        model._generate(messages, None, None, **arguments)
    except Exception as error:
        if not server.requests:
            return [f"the client: {type(error).__name__}: {error}"]
    return PROBLEMS[wire](server.requests[-1].body)


def answered(server: FaultServer, wire: str, body: dict[str, Any]) -> AIMessage:
    """A response's body as the provider's client reads it."""
    model: Any = clients.instance(server, wire)
    if wire == "openai":
        result: ChatResult = model._create_chat_result(body)
    elif wire == "anthropic":
        result = model._format_output(Message.model_validate(body))
    else:
        return _ollama(model, body)
    return _finished(result)


def _ollama(model: Any, body: dict[str, Any]) -> AIMessage:
    """ChatOllama reads streams only; this is a stream of one chunk."""
    model = model.model_copy()
    object.__setattr__(model, "_create_chat_stream", lambda *_, **__: iter([body]))
    return _finished(model._generate([], None, None))


def _finished(result: ChatResult) -> AIMessage:
    """The message with the metadata that `BaseChatModel` adds to it after `_generate`."""
    generation = result.generations[0]
    message = generation.message
    assert isinstance(message, AIMessage)
    metadata = {**(generation.generation_info or {}), **message.response_metadata}
    message.response_metadata = {**(result.llm_output or {}), **metadata}
    return message
