"""`fit`: a conversation in the form that one provider accepts.

Rules of this file: most conversations have had one provider only, so a quick look comes first and costs microseconds; the walk is for the
rest. The walk goes once through the messages, from first to last, since ids pair a result with the call before it.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple, cast

from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    FunctionMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)

from langchain_resilient.messages.answers import is_plain, portable
from langchain_resilient.messages.calls import Ids
from langchain_resilient.messages.dialects import DIALECTS, MARK, Traits, dialect, home_of, traits_of
from langchain_resilient.messages.notes import Notes
from langchain_resilient.messages.parts import Block, Parts, with_content

ANSWERS = frozenset({"ai", "AIMessageChunk"})
NAME = re.compile(r"[^\s<|\\/>]{1,64}")
OPENING = "(The conversation begins with the assistant.)"
BRIDGE = "(The tool has answered.)"


class Fitted(NamedTuple):
    """A conversation as one provider takes it."""

    messages: list[BaseMessage]
    """The same list as was given if nothing had to change."""
    changes: tuple[str, ...]
    """What was changed, in words that hold nothing of the conversation; () exactly if nothing was."""


def fit(messages: list[BaseMessage], word: str, origin: str = "") -> Fitted:
    """Give a conversation the form that a provider accepts.

    Args:
        messages: The conversation. Never changed.
        word: LangChain's name of the provider that it goes to, such as "openai" or "bedrock_converse".
        origin: The same of the provider that the caller wrote it for, usually the first of the list: to that one, what the caller wrote
            goes as it is. "" (default) if nobody knows: then what the caller wrote is left alone if only the target has answered so far.

    Returns:
        The messages and what was changed.
    """
    home = dialect(word)
    if not _needs_look(messages, home, dialect(origin)):
        return Fitted(messages, ())
    walk = _Walk(messages, word, written_here=bool(origin) and dialect(origin) == home)
    return walk.fitted(messages)


def _needs_look(messages: list[BaseMessage], home: str, origin: str) -> bool:
    """Whether anything in the conversation may be strange to the target."""
    answered = foreign = strange = False
    for message in messages:
        if message.type in ANSWERS:
            answer = cast("AIMessage", message)
            told = answer.response_metadata.get("model_provider")
            if told is not None and DIALECTS.get(told, told) == home and MARK not in answer.response_metadata:
                answered = True
            elif answer.tool_calls or answer.invalid_tool_calls or answer.name is not None or not is_plain(answer):
                if told is not None or home_of(answer) not in {"", home} or _lacks_id(answer):
                    return True
                strange = True
            elif told is not None:
                foreign = True
        elif (
            message.content.__class__ is not str or message.name is not None or message.type not in {"human", "system"}
        ):
            strange = True
    written_here = origin == home if origin else answered and not foreign
    return not written_here and (strange or _order_is_strange(messages, home))


def _lacks_id(answer: AIMessage) -> bool:
    return any(not call.get("id") for call in (*answer.tool_calls, *answer.invalid_tool_calls))


def _order_is_strange(messages: list[BaseMessage], home: str) -> bool:
    traits = traits_of(home)
    if not (traits.one_system or traits.user_first):
        return False
    first = next((message for message in messages if message.type != "system"), None)
    if traits.user_first and first is not None and first.type in ANSWERS:
        return True
    lead = _leading_systems(messages)
    return traits.one_system and any(message.type == "system" for message in messages[lead:])


def _leading_systems(messages: list[BaseMessage]) -> int:
    return next((i for i, message in enumerate(messages) if message.type != "system"), len(messages))


class _Walk:
    """One conversation on its way to one provider."""

    def __init__(self, messages: list[BaseMessage], word: str, *, written_here: bool) -> None:
        self._word = word
        self._home = home = dialect(word)
        self._written_here = written_here
        self._traits: Traits = traits_of(home)
        self._notes = Notes()
        self._parts = Parts(home, self._traits, self._notes)
        self._ids = Ids(self._traits, self._own_ids(messages))
        self._out: list[BaseMessage] = []
        self._shown: list[Block] = []

    def _own_ids(self, messages: list[BaseMessage]) -> set[str]:
        return {
            call.get("id") or ""
            for message in messages
            if isinstance(message, AIMessage) and home_of(message) == self._home
            for call in (*message.tool_calls, *message.invalid_tool_calls)
        }

    def fitted(self, messages: list[BaseMessage]) -> Fitted:
        for message in messages:
            if not isinstance(message, ToolMessage | FunctionMessage):
                self._show()
            if (new := self._message(message)) is not None:
                self._out.append(new)
        self._show()
        if self._ids.rewritten:
            self._notes.say(f"tool call ids rewritten for {self._word}")
        if not self._written_here:
            self._order()
        return Fitted(self._out, self._notes.told()) if self._notes else Fitted(messages, ())

    def _message(self, message: BaseMessage) -> BaseMessage | None:
        if isinstance(message, AIMessage):
            return self._answer(message)
        if isinstance(message, ToolMessage):
            return self._result(message)
        if isinstance(message, FunctionMessage):
            return self._legacy_result(message)
        if self._written_here:
            return message
        content: list[Block] | None = None
        if isinstance(message.content, list):
            system = isinstance(message, SystemMessage)
            content = self._parts.system(message.content) if system else self._parts.user(message.content)
        return self._named(message if content is None else with_content(message, content))

    def _show(self) -> None:
        """Let the user show what tools may not."""
        if self._shown:
            self._out.append(HumanMessage(content=cast("list[str | dict[Any, Any]]", self._shown)))
            self._shown = []

    # ------------------------------------------------------------------------------------------------- kinds of messages
    def _answer(self, message: AIMessage) -> BaseMessage | None:
        home = home_of(message)
        if home == self._home:
            self._ids.own((*message.tool_calls, *message.invalid_tool_calls))
            return message
        new: AIMessage | None = message
        if home and not is_plain(message):
            new = portable(message, self._notes)
        if new is None:
            return None
        calls = (*new.tool_calls, *new.invalid_tool_calls)
        ids = self._ids.calls(calls)
        if any(call.get("id") != id_ for call, id_ in zip(calls, ids, strict=True)):
            renamed: list[Any] = [{**call, "id": id_} for call, id_ in zip(calls, ids, strict=True)]
            valid = len(new.tool_calls)
            # The content's own copies of the calls would be read beside the renamed ones.
            content = _without_calls(new.content)
            update = {"tool_calls": renamed[:valid], "invalid_tool_calls": renamed[valid:], "content": content}
            new = new.model_copy(update=update)
        return self._named(new)

    def _result(self, message: ToolMessage) -> BaseMessage:
        id_ = self._ids.result(message.tool_call_id)
        content: Any = None
        if isinstance(message.content, list) and not self._written_here:
            content = self._parts.tool(message.content, self._shown)
        if content is None and id_ == message.tool_call_id:
            return message
        return with_content(message, message.content if content is None else content, tool_call_id=id_)

    def _legacy_result(self, message: FunctionMessage) -> BaseMessage:
        id_ = self._ids.result("")
        if not id_:
            return message
        return ToolMessage(content=message.content, tool_call_id=id_, name=message.name)

    def _named(self, message: BaseMessage) -> BaseMessage:
        """The message under a name that may be sent."""
        if not self._traits.names or not message.name or NAME.fullmatch(message.name):
            return message
        self._notes.say("name of a message rewritten")
        return message.model_copy(update={"name": re.sub(r"[\s<|\\/>]", "_", message.name)[:64]})

    # ------------------------------------------------------------------------------------------------------------- order
    def _order(self) -> None:
        if self._traits.one_system:
            lead = _leading_systems(self._out)
            late = [message for message in self._out[lead:] if message.type == "system"]
            if late:
                self._notes.say("later system messages moved to the front")
                rest = [message for message in self._out[lead:] if message.type != "system"]
                self._out = [*self._out[:lead], *late, *rest]
        if self._traits.user_first:
            lead = _leading_systems(self._out)
            if lead < len(self._out) and self._out[lead].type in ANSWERS:
                self._notes.say("opening user message added")
                self._out.insert(lead, HumanMessage(OPENING))
        if not self._traits.follows_tool:
            self._bridge()

    def _bridge(self) -> None:
        """Let the assistant speak between a tool and the user."""
        bridged: list[BaseMessage] = []
        for message in self._out:
            if bridged and bridged[-1].type == "tool" and message.type == "human":
                self._notes.say("assistant message added after a tool result")
                bridged.append(AIMessage(content=BRIDGE))
            bridged.append(message)
        self._out = bridged


def _without_calls(content: str | list[Any]) -> str | list[Any]:
    if isinstance(content, str):
        return content
    return [
        block for block in content if not (isinstance(block, dict) and block.get("type") in {"tool_use", "tool_call"})
    ]
