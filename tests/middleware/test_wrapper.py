"""Which engine an agent's call runs on: settings, what is given, what is shared with a `ResilientChatModel`."""

import gc
import subprocess
import sys
import warnings
import weakref
from typing import Any

import pytest
from langchain_core.language_models import BaseChatModel

from langchain_resilient import (
    Circuit,
    Provider,
    ResilientChatModel,
    ResilientModelMiddleware,
    Retry,
    SettingsError,
    capture_decisions,
)
from langchain_resilient.engine.events import CircuitChanged, Decided
from langchain_resilient.middleware.wrapper import NOT_HERE, SETTINGS
from langchain_resilient.testing import FaultServer
from tests.agents import agent, answer, around, kinds, request
from tests.clients import ANSWER, BusyError, ask, instance, resilient, scripted


@pytest.mark.parametrize("name", ["hedge", "on_interruption", "dead_letters", "streaming"])
def test_what_makes_no_sense_in_an_agent_is_refused(name: str):
    """A setting that an agent can't have is an error that says why, even at its default."""
    with pytest.raises(SettingsError, match=f"{name}: got None; "):
        ResilientModelMiddleware(scripted(), **{name: None})


def test_every_setting_of_the_chat_model_is_known():
    """A setting that the chat model has is taken here, or refused with a reason: never called unknown."""
    own = ResilientChatModel.model_fields.keys() - BaseChatModel.model_fields.keys()
    assert {*SETTINGS, *NOT_HERE} == own - {"providers"}


def test_unknown_keyword():
    """An unknown keyword is an error that names the nearest right one."""
    with pytest.raises(SettingsError, match="did you mean 'retry'"):
        ResilientModelMiddleware(retrry=Retry())


def test_nonsense_is_found_at_construction():
    """Settings are checked when the middleware is made, models or not."""
    with pytest.raises(SettingsError, match="routing"):
        ResilientModelMiddleware(routing="random")


def test_a_resilient_chat_model_comes_alone():
    """It brings its providers and its settings: further models, a Provider around it or settings are an error."""
    model = resilient(scripted())
    for models, settings in (
        ((model, scripted()), {}),
        ((scripted(), model), {}),
        ((Provider(model),), {}),
        ((model,), {"max_retries": 1}),
    ):
        with pytest.raises(SettingsError, match="ResilientChatModel"):
            ResilientModelMiddleware(*models, **settings)


def test_settings_beside_an_agents_resilient_chat_model():
    """Settings that would silently mean nothing are an error at the first call."""
    with pytest.raises(SettingsError, match="leave them out"):
        agent(resilient(scripted()), ResilientModelMiddleware(max_retries=1)).invoke({"messages": [("user", "hi")]})


def test_the_name_is_lazy():
    """Importing the package imports no LangChain for the middleware's sake; using the name does."""
    code = (
        "import sys, langchain_resilient as ours; assert 'langchain' not in sys.modules; "
        "ours.ResilientModelMiddleware; assert 'langchain' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


async def test_models_given_replace_the_agents_own():
    """The agent's own model is not asked unless it is given as well."""
    own, given = scripted("own", "own"), scripted("given", "given")
    assert await answer(agent(own, around(given)), "ainvoke") == "given"
    assert own.calls == []


async def test_specs_and_providers():
    """Models are given as the chat model takes them: specs and Providers, with their own settings."""
    with FaultServer() as server:
        urls = {"base_url": server.base_url("openai"), "api_key": "sk-test"}
        middleware = around(Provider("openai:gpt-4.1", name="mine", model_kwargs=urls))
        with capture_decisions() as decisions:
            await answer(agent(scripted(), middleware), "ainvoke")
    assert kinds(decisions[0]) == [("mine", "ok")]


@pytest.mark.parametrize("way", ["invoke", "ainvoke"])
@pytest.mark.parametrize("given", [True, False], ids=["given", "agent's own"])
async def test_a_resilient_chat_model_is_unrolled(way: str, *, given: bool):
    """Its circuits, records and observers are the middleware's: a failure counts once, wherever the call came from."""
    heard: list[Any] = []
    one = scripted("one", BusyError())
    model = resilient(one, scripted("two"), circuit=Circuit(failure_threshold=2), observers=[heard.append])
    built = agent(model, ResilientModelMiddleware(*([model] if given else [])))
    assert await answer(built, way) == ANSWER
    assert model.status()["scripted/one"]["failures_in_a_row"] == 1
    assert await ask(model, way) == ANSWER
    assert model.status()["scripted/one"]["circuit"] == "open" and len(one.calls) == 2
    assert await answer(built, way) == ANSWER
    assert len(one.calls) == 2, "the open circuit holds in the agent as well"
    assert sum(isinstance(event, Decided) for event in heard) == 3
    assert sum(isinstance(event, CircuitChanged) for event in heard) == 1


async def test_a_changed_setting_holds_from_the_next_call_on():
    """A setting of the ResilientChatModel that changes is seen."""
    model = resilient(scripted("one", BusyError(), ANSWER))
    built = agent(model, ResilientModelMiddleware())
    model.max_retries = 0
    with pytest.raises(BusyError):
        await answer(built, "ainvoke")


async def test_the_agents_own_model_is_the_only_provider():
    """Without models the agent's own is retried, under an engine that is made once."""
    own = scripted("own", BusyError(), ANSWER)
    middleware = around()
    built = agent(own, middleware)
    with capture_decisions() as decisions:
        assert await answer(built, "ainvoke") == ANSWER
        assert await answer(built, "invoke") == ANSWER
    assert kinds(decisions[0]) == [("scripted/own", "overloaded"), ("scripted/own", "ok")]
    assert len(middleware._kept) == 1


def test_few_engines_are_kept():
    """An agent that makes a new model for each call leaves no trail of them."""
    middleware, seen = around(), []
    for index in range(20):
        model = scripted(f"own-{index}")
        middleware.wrap_model_call(request(model), lambda asked: asked.model.invoke("hi"))
        seen.append(weakref.ref(model))
    del model
    gc.collect()
    assert sum(item() is not None for item in seen) <= 8


async def test_a_model_that_retries_by_itself_is_told_of():
    """A client with retries of its own is warned about once, as the chat model does."""
    with FaultServer() as server, warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        middleware = around()
        model = instance(server, "openai", max_retries=2)
        for _ in range(2):
            await answer(agent(model, middleware), "ainvoke")
    assert sum("retries by itself" in str(item.message) for item in told) == 1
