"""The three systems that are asked side by side.

Rules of this file: each is what a user would write, over LangChain's own clients and HTTP, with the same limit for an attempt. None is
told of the afternoon.

    bare client        ChatOpenAI as it comes: two retries of its own
    with_fallbacks     ChatOpenAI, ChatAnthropic, ChatOllama, their own retries off, as LangChain's documentation says
    ours               ResilientChatModel over the same three
"""

from __future__ import annotations

from dataclasses import replace
from itertools import count
from typing import Any

from langchain_anthropic import ChatAnthropic
from langchain_core.runnables import Runnable
from langchain_ollama import ChatOllama
from langchain_openai import ChatOpenAI

from langchain_resilient.chat_model import ResilientChatModel
from langchain_resilient.config import Provider
from langchain_resilient.demo.afternoon import Afternoon, House
from langchain_resilient.demo.stage import Stage
from langchain_resilient.engine.backoff import Retry
from langchain_resilient.engine.circuit import Circuit
from langchain_resilient.engine.events import Observer
from langchain_resilient.engine.policy import Timeouts

KEY = "sk-of-a-fake-provider"
BARE, FALLBACKS, OURS = "bare client", "with_fallbacks", "ResilientChatModel"
NAMES = (BARE, FALLBACKS, OURS)
_PLAYS = count(1)


def bare(stage: Stage, afternoon: Afternoon) -> Runnable[Any, Any]:
    """One provider, and hope."""
    return ChatOpenAI(**_arguments(stage, afternoon.houses[0], timeout=afternoon.limit))


def with_fallbacks(stage: Stage, afternoon: Afternoon) -> Runnable[Any, Any]:
    """LangChain's own: the next provider when one raises."""
    openai, anthropic, ollama = afternoon.houses
    impatient = {"timeout": afternoon.limit, "max_retries": 0}
    return ChatOpenAI(**_arguments(stage, openai, **impatient)).with_fallbacks(
        [
            ChatAnthropic(**_arguments(stage, anthropic, **impatient)),
            ChatOllama(**_arguments(stage, ollama, client_kwargs={"timeout": afternoon.limit})),
        ]
    )


def resilient(stage: Stage, afternoon: Afternoon, observers: tuple[Observer, ...] = ()) -> ResilientChatModel:
    """Ours; what differs from the defaults is what a minute forces: times are shortened as the afternoon is."""
    limit, slow = afternoon.limit, afternoon.slow
    circuit = Circuit(recovery_timeout=afternoon.recovery, window=afternoon.window)
    paid = replace(circuit, slow_first_token=slow)
    openai, anthropic, ollama = afternoon.houses
    return ResilientChatModel(
        providers=[
            Provider(openai.spec, max_latency=slow, circuit=paid, model_kwargs=_account(stage, openai)),
            Provider(anthropic.spec, max_latency=slow, circuit=paid, model_kwargs=_account(stage, anthropic)),
            Provider(
                ollama.spec, circuit=circuit, model_kwargs=_account(stage, ollama)
            ),  # the last resort may take its time
        ],
        namespace=f"demo-{next(_PLAYS)}",  # what an earlier play of this process learned is not known
        timeouts=Timeouts(connect=limit, first_token=limit, idle=limit, response=limit),
        retry=Retry(max_retry_after=afternoon.patience),
        observers=observers,
    )


def _arguments(stage: Stage, house: House, **settings: Any) -> dict[str, Any]:
    return {"model": house.model, **_account(stage, house), **settings}


def _account(stage: Stage, house: House) -> dict[str, Any]:
    url = stage.servers[house.wire].base_url(house.wire)
    return {"base_url": url} | ({} if house.wire == "ollama" else {"api_key": KEY})
