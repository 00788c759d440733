"""What each provider is asked in an agent's name, and what its handler's result is to the engine.

Rules of this file: the request is the agent's own with another model in it; what was meant for the agent's model is said to each provider in
its own terms (`messages`), and what could not be said is told. The graph's messages are never changed, and a result is returned as it came.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from langchain.agents.middleware.types import ExtendedModelResponse, ModelRequest, ModelResponse
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult

from langchain_resilient.chat_model import ResilientChatModel
from langchain_resilient.identity import word_of
from langchain_resilient.messages import fit, fit_arguments
from langchain_resilient.providers import Client

Result = ModelResponse[Any] | AIMessage | ExtendedModelResponse[Any]


class Asked:
    """An agent's request, for each provider in turn.

    Args:
        request: As the agent made it.
        stop: Stop words, where the request has none.
    """

    def __init__(self, request: ModelRequest[Any], stop: list[str] | None) -> None:
        self._request = request
        self._stop = stop
        self._origin = origin_of(request.model)
        self._system = [] if request.system_message is None else [request.system_message]

    @property
    def messages(self) -> list[BaseMessage]:
        """All that a provider reads, the system message first."""
        return [*self._system, *self._request.messages]

    def of(self, client: Client) -> tuple[ModelRequest[Any], tuple[str, ...]]:
        """The request for this provider's own model, and what was converted or left out for it."""
        request = self._request
        given = {"tools": request.tools, "tool_choice": request.tool_choice, **request.model_settings}
        settings, changes = fit_arguments(given, client.word, self._origin)
        overrides: dict[str, Any] = {
            "tools": settings.pop("tools", []),
            "tool_choice": settings.pop("tool_choice", None),
        }
        if self._system:
            system, left_out = self._fitted(self._system, client)
            overrides["system_message"] = system[0]
            changes += left_out
        overrides["messages"], left_out = self._fitted(request.messages, client)
        model, settings = client.asked_with(settings)
        if self._stop is not None:
            settings = {"stop": self._stop, **settings}
        return request.override(**overrides, model=model, model_settings=settings), changes + left_out

    def _fitted(self, messages: Sequence[BaseMessage], client: Client) -> tuple[list[BaseMessage], tuple[str, ...]]:
        fitted = fit([*messages], client.word, self._origin)
        return fitted.messages, fitted.changes


def origin_of(model: BaseChatModel) -> str:
    """LangChain's word for the provider that a request was made for; of a `ResilientChatModel` it is the first."""
    if not isinstance(model, ResilientChatModel):
        return word_of(model)
    client: Client = model._engine.policy.targets[0].client  # noqa: SLF001  # its own type names no provider
    return client.word


class Answer(ChatResult):
    """What a handler returned, as the engine's readers know answers."""

    result: Any


def as_answer(result: Any) -> Answer:
    """A handler's result, in whichever of its forms."""
    response = result.model_response if isinstance(result, ExtendedModelResponse) else result
    messages = response.result if isinstance(response, ModelResponse) else [response]
    # A forced tool's result follows the message that called it.
    message = next((item for item in reversed(messages) if isinstance(item, AIMessage)), AIMessage(""))
    return Answer(generations=[ChatGeneration(message=message)], result=result)
