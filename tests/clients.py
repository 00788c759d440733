"""What the chat model's tests share: models to ask, and the ways to ask them.

The three real clients against a FaultServer, made in the two ways a user can (a spec, an instance), and scripted ones.
"""

from __future__ import annotations

from itertools import count
from typing import Any

from langchain_anthropic import ChatAnthropic
from langchain_core.language_models import BaseChatModel
from langchain_ollama import ChatOllama
from langchain_openai import ChatOpenAI

from langchain_resilient import Provider, ResilientChatModel, Retry
from langchain_resilient.testing import FaultServer, ScriptedChatModel

WIRES = ("openai", "anthropic", "ollama")
WAYS = ("invoke", "ainvoke", "stream", "astream")
MADE = ("spec", "instance")
_NAMESPACES = count(1)


def fresh() -> str:
    """A namespace that nobody else uses: what is known of a provider is kept per process and namespace."""
    return f"test-{next(_NAMESPACES)}"


def spec(server: FaultServer, wire: str, name: str = "one", **settings: Any) -> Provider:
    """A provider by its spec string; `settings` are the Provider's, `model_kwargs` on top of address and key."""
    arguments = {"base_url": server.base_url(wire)} | ({} if wire == "ollama" else {"api_key": "sk-test"})
    arguments |= {"stream_usage": True} if wire == "openai" else {}
    return Provider(f"{wire}:{name}", model_kwargs=arguments | settings.pop("model_kwargs", {}), **settings)


def instance(server: FaultServer, wire: str, name: str = "one", timeout: float = 5.0, **settings: Any) -> BaseChatModel:
    """The client itself, its own retries off."""
    url = server.base_url(wire)
    if wire == "openai":
        fixed: dict[str, Any] = {"api_key": "sk-test", "max_retries": 0, "stream_usage": True, "timeout": timeout}
        return ChatOpenAI(model=name, base_url=url, **(fixed | settings))
    if wire == "anthropic":
        fixed = {"api_key": "sk-test", "max_retries": 0, "timeout": timeout}
        return ChatAnthropic(model=name, base_url=url, **(fixed | settings))
    return ChatOllama(model=name, base_url=url, client_kwargs={"timeout": timeout}, **settings)


def made(how: str, server: FaultServer, wire: str, name: str = "one", timeout: float = 5.0) -> Provider:
    """A provider made in one of the two ways."""
    if how == "spec":
        return spec(server, wire, name)
    return Provider(instance(server, wire, name, timeout))


async def ask(model: Any, way: str, question: Any = "hi", **arguments: Any) -> str:
    """The text of an answer, asked for in one of the four ways."""
    if way == "invoke":
        return model.invoke(question, **arguments).text
    if way == "ainvoke":
        return (await model.ainvoke(question, **arguments)).text
    if way == "stream":
        return "".join([chunk.text for chunk in model.stream(question, **arguments)])
    return "".join([chunk.text async for chunk in model.astream(question, **arguments)])


async def failure(model: Any, way: str, question: Any = "hi", **arguments: Any) -> Exception | None:
    """The exception of one call; None if it answered."""
    try:
        await ask(model, way, question, **arguments)
    except Exception as error:
        return error
    return None


ANSWER = "All is well."


def scripted(name: str = "one", *script: Any, **settings: Any) -> ScriptedChatModel:
    """A model that says its script, else that all is well."""
    return ScriptedChatModel(script=script or (ANSWER,), model_name=name, **settings)


def resilient(*models: Any, **settings: Any) -> ResilientChatModel:
    """A model over these, without backoff."""
    fixed = {"namespace": fresh(), "retry": Retry(base_delay=0.0), "on_interruption": "raise"}
    return ResilientChatModel(providers=list(models) or [scripted()], **(fixed | settings))


class BusyError(Exception):
    """A provider's 503."""

    status_code = 503
