"""Tools and structured output, bound for each provider in its own way.

Rules of this file: the first provider's way is made at once, as a bare model would, and what it makes of the tools is what a caller sees;
the others' ways are made from what the caller gave, when they are asked for the first time. A provider's chain is taken apart into what is
bound and the rest, which reads the answer; only one that can't be taken apart is called as a whole.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from langchain_core.callbacks import UsageMetadataCallbackHandler
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.messages.ai import add_usage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.runnables import Runnable, RunnableBinding, RunnableLambda, RunnableParallel, RunnableSequence
from langchain_core.runnables.utils import AddableDict
from langchain_core.utils.function_calling import convert_to_openai_tool

from langchain_resilient.engine.errors import InvalidOutputError
from langchain_resilient.engine.events import Usage
from langchain_resilient.messages import fit_arguments
from langchain_resilient.providers import Client, client_of
from langchain_resilient.unseen import aunseen, unseen

HIDDEN = "resilience_binding"
"""The keyword under which a binding travels with a call."""
CARRIED = "resilience_value"
"""Where the message of a chain that was called as a whole takes its result along."""
TRACED_ONLY = frozenset({"ls_structured_output_format", "structured_output_format"})
"""Bound for traces; LangChain takes them away before a model sees them."""


class Answer(NamedTuple):
    """What is known of an answer beside its message."""

    way: Way
    value: Any = None
    """What the provider's reader made of it."""
    read: bool = False
    """Whether `value` is that."""


_ANSWERS: dict[int, Answer] = {}
"""By the id of the answer's message, for as long as that lives: LangChain's messages take no attribute that would not be seen."""


def remember(message: BaseMessage, answer: Answer) -> None:
    """Keep what is known of an answer until its message is gone."""
    if id(message) not in _ANSWERS:  # a model may give one message again and again
        weakref.finalize(message, _ANSWERS.pop, id(message), None)
    _ANSWERS[id(message)] = answer


def recall(message: BaseMessage) -> Answer | None:
    """What is known of an answer, if this is the very message that the provider's client made."""
    return _ANSWERS.get(id(message))


class Way(NamedTuple):
    """How one provider is asked under a binding."""

    client: Client
    arguments: Mapping[str, Any] = {}
    """What is given with each call."""
    reader: Runnable[Any, Any] | None = None
    """Makes of the answer's message what the caller gets; None: the message itself."""
    keeps_raw: bool = False
    """Whether the reader takes and gives `{"raw": …}`, and tells a parsing error instead of raising it."""
    whole: Runnable[Any, Any] | None = None
    """A chain that can't be taken apart."""
    changes: tuple[str, ...] = ()
    """What of the binding this provider could not be given."""

    def given(self, message: BaseMessage) -> Any:
        """What the reader takes."""
        return AddableDict({"raw": message}) if self.keeps_raw else message  # addable: a stream's are summed up

    def read(self, message: BaseMessage, usage: Usage | None) -> None:
        """Read an answer, and remember what it says. Raises `InvalidOutputError` if it does not parse or validate."""
        if self.reader is None:
            return
        try:
            value = unseen(self.reader, self.given(message))
        except Exception as error:
            raise InvalidOutputError(_invalid(error), usage=usage) from error
        self._judge(message, value, usage)

    async def aread(self, message: BaseMessage, usage: Usage | None) -> None:
        """The same, awaiting what of the reader is to be awaited."""
        if self.reader is None or not awaits(self.reader):  # parsing is no work for another thread
            return self.read(message, usage)
        try:
            value = await aunseen(self.reader, self.given(message))
        except Exception as error:
            raise InvalidOutputError(_invalid(error), usage=usage) from error
        return self._judge(message, value, usage)

    def _judge(self, message: BaseMessage, value: Any, usage: Usage | None) -> None:
        remember(message, Answer(self, value, read=True))
        wrong, found = None, value
        if self.keeps_raw and isinstance(value, Mapping):
            wrong, found = value.get("parsing_error"), value.get("parsed")
        if wrong is not None or found is None:
            raise InvalidOutputError(_invalid(wrong), answer=message, usage=usage) from wrong

    def result(self, value: Any, counted: UsageMetadataCallbackHandler) -> ChatResult:
        """What a chain that was called as a whole gave, as a model's answer."""
        message = value if isinstance(value, BaseMessage) else _carrying(value, counted)
        remember(message, Answer(self, value, read=True))
        return ChatResult(generations=[ChatGeneration(message=message, generation_info={"finish_reason": "stop"})])


def _carrying(value: Any, counted: UsageMetadataCallbackHandler) -> AIMessage:
    """A message that takes a chain's result along: a cache, or another output version, hands on copies of it."""
    models, usage = counted.usage_metadata, None
    for spent in models.values():
        usage = add_usage(usage, spent)
    told = {"model_name": next(iter(models))} if len(models) == 1 else {}
    return AIMessage(content="", additional_kwargs={CARRIED: value}, response_metadata=told, usage_metadata=usage)


def awaits(reader: Any) -> bool:
    """Whether some step of a reader is a coroutine function, which no thread of its own could run."""
    if isinstance(reader, RunnableLambda):
        return hasattr(reader, "afunc")
    inner = [getattr(reader, name, None) for name in ("bound", "mapper", "runnable")]
    inner += [*getattr(reader, "steps", ()), *getattr(reader, "steps__", {}).values()]
    return any(awaits(step) for step in inner if isinstance(step, Runnable))


def _invalid(error: BaseException | None) -> str:
    if error is None:
        return "the answer holds nothing of what was asked for"
    return f"the answer does not parse or validate ({type(error).__name__})"


class Binding:
    """What was bound, for every provider.

    Args:
        make: Binds it to one provider's model, in that provider's own way; tells what it had to leave out.
        first: The first provider, which is bound at once.
        told: What tells it from any other binding, as values: for cache keys, and for dead letters.
    """

    def __init__(
        self, make: Callable[[Client], tuple[Any, tuple[str, ...]]], first: Client, told: Callable[[], dict[str, Any]]
    ) -> None:
        self._make = make
        self._first = first
        self.told = told
        # By the client itself, which is hashed by identity: it stays alive, and with it what it is the key of.
        self._ways: dict[Client, Way] = {first: _way(first, *make(first))}
        bound = self._ways[first].arguments
        self.visible = {key: value for key, value in bound.items() if key != HIDDEN}
        self._nested = {key: value for key, value in bound.items() if key == HIDDEN}
        """Of a first provider that is one of ours itself."""

    def __repr__(self) -> str:
        """Complete and without addresses: it becomes part of LangChain's cache keys."""
        return f"Binding({', '.join(f'{name}={value!r}' for name, value in self.told().items())})"

    @property
    def structures(self) -> bool:
        """Whether answers are read as something else than messages."""
        first = self._ways[self._first]
        return first.reader is not None or first.whole is not None

    def way(self, client: Client) -> Way:
        """How this provider is asked."""
        way = self._ways.get(client)
        if way is None:
            way = self._ways[client] = _way(client, *self._make(client))
        return way

    def known(self, message: BaseMessage) -> Answer | None:
        """What is known of an answer, if it was given under this binding: one message may be the answer to several."""
        answer = recall(message)
        if answer is not None and any(way is answer.way for way in tuple(self._ways.values())):
            return answer
        carried = message.additional_kwargs
        return Answer(self._ways[self._first], carried[CARRIED], read=True) if CARRIED in carried else None

    def way_of(self, message: BaseMessage) -> Way:
        """The way of the provider that gave an answer; the first one's where that is not known (an answer from a cache, say)."""
        answer = self.known(message)
        if answer is not None:
            return answer.way
        word = message.response_metadata.get("model_provider")
        return next((way for client, way in self._ways.items() if client.word == word), self._ways[self._first])

    def asked(self, client: Client, given: Mapping[str, Any]) -> tuple[Way, dict[str, Any], tuple[str, ...]]:
        """How a provider is asked, by the arguments that were meant for the first."""
        way = self.way(client)
        if client is self._first:
            return way, {**given, **self._nested}, way.changes
        own = {key: value for key, value in given.items() if key not in self.visible or value is not self.visible[key]}
        fitted, left_out = fit_arguments(own, way.client.word, self._first.word)
        bound = {key: value for key, value in way.arguments.items() if key not in TRACED_ONLY}
        return way, {**bound, **fitted}, way.changes + left_out


# ------------------------------------------------------------------------------------------------------- what a chain is
def _way(client: Client, made: Any, changes: tuple[str, ...]) -> Way:
    steps = list(made.steps) if isinstance(made, RunnableSequence) else [made]
    bound: Any = steps[0]
    rest = steps[1:]
    keeps_raw = isinstance(bound, RunnableParallel) and set(bound.steps__) == {"raw"} and bool(rest)
    if keeps_raw:
        bound = bound.steps__["raw"]
    arguments: dict[str, Any] = {}
    while isinstance(bound, RunnableBinding):
        arguments = {**bound.kwargs, **arguments}
        bound = bound.bound
    if not isinstance(bound, BaseChatModel):
        return Way(client, whole=made, changes=changes)
    reader = RunnableSequence(*rest) if len(rest) > 1 else rest[0] if rest else None
    found = client if bound is client.model else client_of(bound, client.word, client.call_kwargs)
    return Way(found, arguments, reader, keeps_raw, None, changes)


# --------------------------------------------------------------------------------------------------------------- making
def tools(first: Client, given: Sequence[Any], tool_choice: Any, settings: Mapping[str, Any]) -> Binding:
    """Bind tools: `bind_tools` of each provider, with a tool choice that it understands."""

    def make(client: Client) -> tuple[Any, tuple[str, ...]]:
        # What was not given is not handed on: some models' `bind_tools` do not know the keyword.
        if client is first:
            chosen = {} if tool_choice is None else {"tool_choice": tool_choice}
            return client.model.bind_tools(given, **chosen, **settings), ()
        chosen, changes = choice(tool_choice, client.word)
        fitted, left_out = fit_arguments({"tools": list(given), **settings}, client.word, first.word)
        return client.model.bind_tools(fitted.pop("tools", []), **_both(fitted, chosen)), changes + left_out

    def told() -> dict[str, Any]:
        return {"tools": _shapes(given), "tool_choice": tool_choice, "settings": sorted(settings.items())}

    return Binding(make, first, told)


def structured(first: Client, schema: Any, settings: Mapping[str, Any]) -> Binding:
    """Bind a schema: `with_structured_output` of each provider."""

    def make(client: Client) -> tuple[Any, tuple[str, ...]]:
        if client is first:
            return client.model.with_structured_output(schema, **settings), ()
        try:
            return client.model.with_structured_output(schema, **settings), ()
        except (TypeError, ValueError):
            # Its own usual way: the first provider's methods are not everybody's.
            raw = {key: value for key, value in settings.items() if key == "include_raw"}
            left_out = ", ".join(sorted(settings.keys() - raw.keys()))
            return client.model.with_structured_output(schema, **raw), (f"structured output's {left_out} left out",)

    def told() -> dict[str, Any]:
        return {"schema": _shapes([schema]), "settings": sorted(settings.items())}

    return Binding(make, first, told)


def choice(given: Any, word: str) -> tuple[dict[str, Any], tuple[str, ...]]:
    """A tool choice as this provider's `bind_tools` understands it, and what can't be said to it.

    Args:
        given: As OpenAI's, Anthropic's or LangChain's own: None, a bool, "auto", "any", "required", "none", a tool's name, or a dict.
        word: LangChain's for the provider.
    """
    name = _chosen(given)
    if name is None or name == "auto":
        return {}, ()
    if word == "ollama":  # its client drops any choice in silence
        return {}, ("tool_choice left out",)
    if name == "none":
        return {"tool_choice": {"type": "none"} if word in ANTHROPICS else "none"}, ()
    return {"tool_choice": name}, ()


def _both(settings: Mapping[str, Any], chosen: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with a choice of tool; Anthropic says in the choice too whether calls may be parallel."""
    said, wanted = settings.get("tool_choice"), chosen.get("tool_choice")
    if isinstance(said, Mapping) and isinstance(wanted, str):
        kind = {"type": wanted} if wanted in {"any", "auto", "none"} else {"type": "tool", "name": wanted}
        return {**settings, "tool_choice": {**said, **kind}}
    return {**settings, **chosen}


ANTHROPICS = frozenset({"anthropic", "anthropic_bedrock", "google_anthropic_vertex"})
"""To these "none" would be the name of a tool."""


def _chosen(given: Any) -> str | None:
    """None, "auto", "any", "none" or a tool's name."""
    if given is None or given is False:
        return None
    if given is True or given == "required":
        return "any"
    if isinstance(given, Mapping):
        function = given.get("function")
        named = function.get("name") if isinstance(function, Mapping) else given.get("name")
        return named or _chosen(given.get("type"))
    return str(given)


def _shapes(given: Sequence[Any]) -> list[Any]:
    return [_shape(item) for item in given]


def _shape(item: Any) -> Any:
    """A tool or schema as values, so that two that differ read differently and the same one reads the same in any process."""
    if isinstance(item, Mapping):
        return dict(item)
    try:
        return convert_to_openai_tool(item)
    except Exception:  # noqa: BLE001  # not a function at all: its name must do
        return f"{type(item).__module__}.{getattr(item, '__qualname__', type(item).__qualname__)}"


def translated(given: Mapping[str, Any], client: Client, first: Client) -> tuple[dict[str, Any], tuple[str, ...]]:
    """A call's arguments, meant for the first provider and bound by nobody, for a provider of another kind."""
    fitted, changes = fit_arguments(given, client.word, first.word)
    if not fitted.get("tools"):
        return fitted, changes
    chosen, left_out = choice(fitted.pop("tool_choice", None), client.word)
    way = _way(client, client.model.bind_tools(fitted.pop("tools"), **chosen), ())
    return {**way.arguments, **fitted}, changes + left_out


def unread(error: InvalidOutputError) -> ChatResult:
    """What a bare model gives where every answer was unreadable: the raw answer if that was asked for, else its parser's exception."""
    if error.answer is not None:
        return ChatResult(generations=[ChatGeneration(message=error.answer)])
    raise error.__cause__ or error
