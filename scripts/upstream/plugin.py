"""A pytest plugin that puts `ResilientChatModel` around every model that an agent is made with: `pytest -p upstream.plugin`.

Rules of this file: tests stay as upstream wrote them. `create_agent`, `create_react_agent` and `create_deep_agent` are replaced wherever
they were imported to before collection, deepagents' own uses (subagents, graders) included; what they do is theirs. The failing provider
says of itself what the model behind it says, so that a changed outcome speaks of the fallback and not of another first provider. Retries are
off: that ours outlive errors which these tests raise on purpose, and count, is what they are for. What was wrapped and how often the failing
provider was hit is counted: a run that wraps nothing proves nothing.

`UPSTREAM_MODE` is "plain" (the model alone) or "fallback" (behind a provider that always fails); each process writes its counts to a file
of its own in the folder `UPSTREAM_COUNTS`.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import json
import os
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from langchain_core.language_models import BaseChatModel
from langchain_core.language_models.base import LangSmithParams
from langchain_core.messages import BaseMessage
from langchain_core.runnables import Runnable, RunnableBinding
from langchain_core.utils.function_calling import convert_to_openai_tool
from pydantic import SkipValidation

from langchain_resilient import Provider, ResilientChatModel, Retry, classify_error
from langchain_resilient.testing import ScriptedChatModel

MAKERS = {
    # Where each is defined, and where its module takes a string to be made a model.
    "create_agent": ("langchain.agents.factory", "langchain.agents.factory"),
    "create_react_agent": ("langgraph.prebuilt.chat_agent_executor", "langchain.chat_models"),
    # A string stays one: profiles go by it. The agent below, which is made with `create_agent`, gets the wrapped model.
    "create_deep_agent": ("deepagents.graph", None),
}
USERS = ("langchain.agents", "langgraph.prebuilt", "deepagents", "deepagents.middleware.rubric")
"""Imported before the names are replaced, so that they are replaced there too."""

NO_RETRIES = Retry(max_retries=0)

counts: Counter[str] = Counter()


class Overloaded(Exception):  # noqa: N818  # it is what a provider says
    """As every provider's client puts a 503."""

    status_code = 503


def _overloaded(_conversation: list[BaseMessage]) -> str:
    counts["failures injected"] += 1
    msg = "overloaded"
    raise Overloaded(msg)


class Outage(ScriptedChatModel):
    """A provider that always fails, and is otherwise like the model that stands in for it."""

    behind: SkipValidation[BaseChatModel]

    def bind_tools(self, tools: Sequence[Any], *, tool_choice: str | None = None, **kwargs: Any) -> Runnable[Any, Any]:
        """Bind tools in OpenAI's format."""
        chosen = {} if tool_choice is None else {"tool_choice": tool_choice}
        return self.bind(tools=[convert_to_openai_tool(tool) for tool in tools], **chosen, **kwargs)

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        return self.behind._get_ls_params(stop=stop, **kwargs)  # noqa: SLF001  # as ResilientChatModel itself asks it


def _outage(model: BaseChatModel) -> Outage:
    own = type(model)
    streams = own._stream is not BaseChatModel._stream or own._astream is not BaseChatModel._astream  # noqa: SLF001
    return Outage(
        script=[_overloaded],
        behind=model,
        profile=model.profile,
        disable_streaming=model.disable_streaming or not streams,
    )


def wrapped(model: Any) -> Any:
    """The model with resilience around it, also under what is bound to it or behind a function that chooses it; all else as it is."""
    if isinstance(model, ResilientChatModel):
        return model
    if isinstance(model, BaseChatModel):
        return _resilient(model)
    if isinstance(model, RunnableBinding) and isinstance(model.bound, BaseChatModel):
        return wrapped(model.bound).bind(**model.kwargs)
    if inspect.isfunction(model):
        return _choosing(model)
    counts[f"left alone: {type(model).__name__}"] += 1
    return model


def _resilient(model: BaseChatModel) -> ResilientChatModel:
    counts["models wrapped"] += 1
    # A namespace of its own for each: circuits and latencies of one test must not reach the next.
    settings: dict[str, Any] = {"namespace": f"upstream-{counts['models wrapped']}", "retry": NO_RETRIES}
    if os.environ["UPSTREAM_MODE"] == "plain":
        return ResilientChatModel([model], **settings)
    providers = [Provider(_outage(model), name="outage"), Provider(model, name="behind")]
    return ResilientChatModel(providers, **settings)


def _choosing(choose: Callable[..., Any]) -> Callable[..., Any]:
    """A function that chooses a model for each step, which `create_react_agent` takes in place of one."""
    if inspect.iscoroutinefunction(choose):

        @functools.wraps(choose)
        async def achosen(*args: Any, **kwargs: Any) -> Any:
            return wrapped(await choose(*args, **kwargs))

        return achosen

    @functools.wraps(choose)
    def chosen(*args: Any, **kwargs: Any) -> Any:
        return wrapped(choose(*args, **kwargs))

    return chosen


def wrapping(maker: Callable[..., Any], made_by: str | None) -> Callable[..., Any]:
    """The maker of agents, its `model` wrapped.

    Args:
        maker: The upstream function.
        made_by: The module whose `init_chat_model` makes models of its strings; None: it is left to the maker.
    """
    parameters = inspect.signature(maker)

    @functools.wraps(maker)
    def with_wrapped_model(*args: Any, **kwargs: Any) -> Any:
        try:
            bound = parameters.bind(*args, **kwargs)
        except TypeError:  # a test of wrong arguments: the maker's own error is what it expects
            return maker(*args, **kwargs)
        model = bound.arguments.get("model")
        if isinstance(model, str) and made_by is not None:
            # Looked up now: tests put fakes there.
            model = importlib.import_module(made_by).init_chat_model(model)
        if model is not None and not isinstance(model, str):
            bound.arguments["model"] = wrapped(model)
        return maker(*bound.args, **bound.kwargs)

    return with_wrapped_model


def _imported(name: str) -> ModuleType | None:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:  # deepagents, where its suite is not run
        return None


def replace_everywhere(old: object, new: object) -> None:
    """Put `new` wherever a module holds `old` under any name."""
    for module in list(sys.modules.values()):
        if isinstance(module, ModuleType) and module is not sys.modules[__name__]:
            for name in [name for name, value in vars(module).items() if value is old]:
                setattr(module, name, new)


def pytest_configure(config: pytest.Config) -> None:
    """Keep one warning of ours from failing deepagents' tests, whose settings make errors of warnings: it is meant for these models' makers."""
    config.addinivalue_line("filterwarnings", "ignore::langchain_resilient.providers.InnerRetriesWarning")


@pytest.hookimpl(tryfirst=True)
def pytest_sessionstart() -> None:
    """Before collection, so that test modules import the replaced names; conftests have theirs replaced."""
    said = classify_error(Overloaded("overloaded"))
    if str(said) != "overloaded":
        msg = f"the injected failure is understood as {said!r}: the runs would wait, or not fall back"
        raise pytest.UsageError(msg)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # importing deepagents warns, and its settings make errors of warnings
        for user in USERS:
            _imported(user)
        for maker, (defined_in, made_by) in MAKERS.items():
            if (module := _imported(defined_in)) is not None:
                old = getattr(module, maker)
                replace_everywhere(old, wrapping(old, made_by))


def pytest_sessionfinish() -> None:
    """Write this process's counts; with xdist each worker has its own."""
    Path(os.environ["UPSTREAM_COUNTS"], f"{os.getpid()}.json").write_text(json.dumps(counts))
