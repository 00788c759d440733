"""What of a LangChain call is written into a dead letter, and how it is asked again.

Rules of this file: a letter holds messages, parameters and what was bound in no provider's own words, so that any provider can be asked, in
another process and years of releases later. What can't be written is named, and such a letter is asked again only through the runnable that
its user gives. Functions of tools are not written: a replayed call may ask for a tool, and nobody runs it.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from typing import Any, TypeVar, cast
from uuid import uuid4

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import BaseMessage, messages_from_dict, messages_to_dict
from langchain_core.runnables import Runnable, RunnableConfig
from pydantic import BaseModel

from langchain_resilient.binding import Binding
from langchain_resilient.engine.dead_letters.box import Box
from langchain_resilient.engine.dead_letters.letter import Letter, as_json
from langchain_resilient.engine.dead_letters.replaying import Replayer, ReplayReport
from langchain_resilient.engine.errors import SettingsError, unknown_name
from langchain_resilient.engine.policy import Policy

_T = TypeVar("_T")
LEFT_OUT = "left_out"
"""The names of the arguments that JSON does not have."""
REPLAY_SETTINGS = ("concurrency", "most", "wait", "lease")
MOST_THREADS = 10_000
"""They are made as they are needed, one for each letter that is being asked: `Replayer.concurrency` is the limit."""


# ---------------------------------------------------------------------------------------------------------------- written
def content_of(
    messages: Sequence[BaseMessage], stop: Sequence[str] | None, kwargs: Mapping[str, Any], binding: Binding | None
) -> dict[str, Any]:
    """A call as a letter holds it.

    Args:
        messages: The conversation.
        stop: Stop words.
        kwargs: Further arguments, as the first provider takes them.
        binding: The tools or schema that are bound.
    """
    visible = {} if binding is None else binding.visible
    given = {name: value for name, value in kwargs.items() if name not in visible or value is not visible[name]}
    bound = {} if binding is None else binding.told()
    bound["settings"] = dict(bound.get("settings", ()))
    parameters = {"stop": None if stop is None else list(stop), **bound, "arguments": given}
    writable = {name: value for name, value in given.items() if _is_json(value)}
    if len(writable) < len(given):
        parameters |= {"arguments": writable, LEFT_OUT: sorted(given.keys() - writable.keys())}
    return {"messages": messages_to_dict(messages), "parameters": parameters}


def _is_json(value: Any) -> bool:
    try:
        as_json(value)
    except (TypeError, ValueError, RecursionError):
        return False
    return True


def key_of(content: Mapping[str, Any]) -> str:
    """The idempotency key of a request that was given none: the same question is one letter. Whose it is `letter.scoped` says.

    Where something could not be written, nobody can say that two questions are the same: each has a key of its own.
    """
    if content["parameters"].get(LEFT_OUT):
        return uuid4().hex
    asked = {**content, "messages": [_said(message) for message in content["messages"]]}
    return hashlib.blake2b(repr(asked).encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def _said(message: Mapping[str, Any]) -> Any:
    # An id is made anew for each call, and says nothing of what was asked.
    return message["type"], {name: value for name, value in message["data"].items() if name != "id"}


# ------------------------------------------------------------------------------------------------------------ asked again
def question_of(
    model: BaseChatModel, letter: Letter, through: Runnable[Any, Any] | None
) -> tuple[Runnable[Any, Any], list[BaseMessage], RunnableConfig, dict[str, Any]]:
    """Who is to be asked, what, under which config and with which arguments.

    Raises:
        SettingsError: The letter can't be asked as it is written.
    """
    config: RunnableConfig = {"configurable": {"lane": "replay", "tenant": letter.tenant}}
    content = letter.content or {}
    try:
        messages = messages_from_dict(content["messages"])
        if through is not None:
            return through, messages, config, {}
        parameters = dict(content["parameters"])
        left_out = parameters.pop(LEFT_OUT, None)
        if left_out:
            msg = f"dead letter {letter.id}: {', '.join(left_out)} could not be written; replay it `through` the runnable that asked"
            raise SettingsError(msg)
        arguments = {**parameters.pop("arguments"), "stop": parameters.pop("stop")}
        return _bound(model, **parameters), messages, config, {k: v for k, v in arguments.items() if v is not None}
    except SettingsError:
        raise
    except Exception as error:  # a letter of other making, or of a schema that this version can't bind
        msg = f"dead letter {letter.id}: it can't be asked as it is written ({type(error).__name__})"
        raise SettingsError(msg) from error


def _bound(
    model: BaseChatModel,
    settings: Mapping[str, Any],
    schema: Sequence[Any] = (),
    tools: Sequence[Any] = (),
    tool_choice: Any = None,
) -> Runnable[Any, Any]:
    if schema:
        return model.with_structured_output(_json_schema(schema[0]), **settings)
    if tools:
        return model.bind_tools(list(tools), tool_choice=tool_choice, **settings)
    return model


def _json_schema(schema: Mapping[str, Any]) -> dict[str, Any]:
    """A schema that every provider takes, from the tool that stands for it."""
    function = schema.get("function")
    if not isinstance(function, Mapping):
        return dict(schema)
    described = {"description": function["description"]} if function.get("description") else {}
    return {"title": function["name"], **described, **function["parameters"]}


def asking(
    model: BaseChatModel, through: Runnable[Any, Any] | None = None, threads: Executor | None = None
) -> Callable[[Letter], Awaitable[Any]]:
    """How letters are asked again.

    Args:
        model: Who asks.
        through: What the messages are given to instead, say a chain with a parser behind the model.
        threads: Where `invoke` runs, whose clients do not belong to an event loop that ends with the replay; None: `ainvoke`.
    """

    async def ask(letter: Letter) -> Any:
        runnable, messages, config, arguments = question_of(model, letter, through)
        if threads is None:
            return value_of(await runnable.ainvoke(messages, config, **arguments))
        invoke = partial(copy_context().run, runnable.invoke, messages, config, **arguments)
        return value_of(await asyncio.get_running_loop().run_in_executor(threads, invoke))

    return ask


def value_of(answer: Any) -> Any:
    """An answer as JSON has it: messages as LangChain writes them, pydantic models as their fields."""
    if isinstance(answer, BaseMessage):
        return messages_to_dict([answer])[0]
    if isinstance(answer, BaseModel):
        return answer.model_dump(mode="json")
    if isinstance(answer, Mapping):
        return {str(name): value_of(value) for name, value in answer.items()}
    if isinstance(answer, list | tuple):
        return [value_of(item) for item in answer]
    return type(answer).__name__ if isinstance(answer, BaseException) else answer


def replayer(
    model: BaseChatModel,
    box: Box,
    policy: Policy,
    through: Runnable[Any, Any] | None,
    settings: Mapping[str, Any],
    threads: Executor | None = None,
) -> Replayer:
    """Who asks the letters of a model's box again: see `ResilientChatModel.replay` for the settings, `asking` for the rest.

    Raises:
        SettingsError: A setting is unknown, or makes no sense.
    """
    for name in settings:
        if name not in REPLAY_SETTINGS:
            raise unknown_name("replay: unknown keyword", name, REPLAY_SETTINGS)
    return Replayer(box, asking(model, through, threads), observe=policy.observe, rand=policy.rand, **settings)


def replayed(
    model: BaseChatModel, box: Box, policy: Policy, through: Runnable[Any, Any] | None, settings: Mapping[str, Any]
) -> ReplayReport:
    """Ask them in this call.

    Interrupted (Ctrl-C), what is held is given back first. Calls under way are not waited for here, but at the interpreter's end, as all
    threads of a pool are.
    """
    threads = ThreadPoolExecutor(MOST_THREADS, "langchain_resilient_asking")
    try:
        return in_a_loop(replayer(model, box, policy, through, settings, threads).run)
    finally:
        threads.shutdown(wait=False)


def in_a_loop(make: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
    """Run a coroutine in an event loop of its own, in a thread of its own: the caller's thread may have a loop that runs.

    Where the caller is interrupted, the coroutine is cancelled, and ends first.
    """
    began: Future[tuple[asyncio.AbstractEventLoop, asyncio.Task[Any]]] = Future()

    async def alone() -> _T:
        began.set_result((asyncio.get_running_loop(), cast("asyncio.Task[Any]", asyncio.current_task())))
        return await make()

    with ThreadPoolExecutor(1, "langchain_resilient_replay") as thread:
        running = thread.submit(copy_context().run, asyncio.run, alone())
        try:
            return running.result()
        except BaseException:
            if not running.done():
                loop, task = began.result()
                with suppress(RuntimeError):  # it ended in this instant
                    loop.call_soon_threadsafe(task.cancel)
            raise
