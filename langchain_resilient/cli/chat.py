"""`chat`: ask a question, stream the answer, say who gave it.

Rules of this file: the answer is all that goes to stdout. Asked the async way, because a sync stream waits for a thread that Ctrl-C
can't reach.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Coroutine
from contextlib import aclosing
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, cast

from langchain_core.messages import BaseMessage, HumanMessage, SystemMessage

from langchain_resilient.chat_model import ResilientChatModel
from langchain_resilient.cli import sources
from langchain_resilient.cli.decision import as_dict, drawn
from langchain_resilient.cli.failures import CommandFailed, usage_error
from langchain_resilient.cli.session import Session
from langchain_resilient.cli.telling import failed_call
from langchain_resilient.engine.events import Decision
from langchain_resilient.engine.observe.capture import capture_decisions

_T = TypeVar("_T")
CUT_SHORT = frozenset({"length", "max_tokens", "content_filter", "refusal", "MAX_TOKENS", "SAFETY"})
"""Finish reasons of an answer that is not all that could have been said."""
FINISH = ("finish_reason", "stop_reason", "done_reason")


class Ask(NamedTuple):
    """What was typed."""

    question: list[str]
    provider: list[str]
    config: Path | None
    system: str | None = None
    deadline: float | None = None
    max_tokens: int | None = None
    streams: bool = True


def ask(session: Session, wanted: Ask) -> None:
    """Do what was typed. Raises `CommandFailed` or `SettingsError`."""
    if wanted.deadline is not None and not wanted.deadline > 0:
        raise usage_error(f"--deadline: got {wanted.deadline:g}; give seconds > 0")
    if wanted.max_tokens is not None and wanted.max_tokens < 1:
        raise usage_error(f"--max-tokens: got {wanted.max_tokens}; give a whole number ≥ 1")
    messages = _messages(session, wanted)
    chosen = sources.source(session, wanted.provider, wanted.config, os.environ)
    said = _Said(session, shows=not session.wants_json)
    with session.holding_back(), capture_decisions() as decisions:
        try:
            model = sources.build(session, sources.settings_of(session, chosen))
            missing = sources.keyless(model)
            promptly(_answer(model, messages, wanted, said))
        except CommandFailed:
            raise
        except Exception as error:
            decision = decisions[-1] if decisions else None
            said.end()
            if decision is None or decision.outcome == "answered":
                raise  # not the call's: settings, or a bug
            _tell(session, decision, said, missing)
            document = {"answer": said.text or None, "decision": as_dict(decision)}
            raise failed_call(session, error, decision, document) from error
        except BaseException:
            said.end()
            raise
    said.end()
    decision = decisions[-1] if decisions else None
    _tell(session, decision, said, missing)
    if session.wants_json:
        session.document({"answer": said.text, "decision": None if decision is None else as_dict(decision)})


class _Said:
    """The answer, as far as it has come."""

    def __init__(self, session: Session, *, shows: bool) -> None:
        self._session = session
        self._shows = shows
        self._parts: list[str] = []
        self.finish: str | None = None

    @property
    def text(self) -> str:
        return "".join(self._parts)

    def add(self, message: BaseMessage) -> None:
        metadata = message.response_metadata
        self.finish = next((str(metadata[key]) for key in FINISH if metadata.get(key)), self.finish)
        self._parts.append(str(message.text))
        if self._shows:
            self._session.answer(self._parts[-1])

    def end(self) -> None:
        if self._shows:
            self._session.end_answer()


def _messages(session: Session, wanted: Ask) -> list[BaseMessage]:
    question = " ".join(wanted.question)
    if question == "-":
        try:
            question = sys.stdin.read()
        except UnicodeDecodeError:
            raise usage_error("the question on stdin is no text in this terminal's encoding") from None
    session.redactor.add_prompt(question, question.strip(), wanted.system)
    if not question.strip():
        raise usage_error("the question is empty")
    system = [SystemMessage(wanted.system)] if wanted.system else []
    return [*system, HumanMessage(question)]


async def _answer(model: ResilientChatModel, messages: list[BaseMessage], wanted: Ask, said: _Said) -> None:
    arguments: dict[str, Any] = {} if wanted.max_tokens is None else {"max_tokens": wanted.max_tokens}
    if wanted.deadline is not None:
        arguments["config"] = {"configurable": {"deadline": wanted.deadline}}
    if not wanted.streams:
        said.add(await model.ainvoke(messages, **arguments))
        return
    async with aclosing(cast("Any", model.astream(messages, **arguments))) as chunks:
        async for chunk in chunks:
            said.add(chunk)


def promptly(work: Coroutine[Any, Any, _T]) -> _T:
    """Run it to its end; Ctrl-C ends it at once."""
    runner = asyncio.Runner()
    try:
        result = runner.run(work)
    except KeyboardInterrupt:
        # Not closed: closing waits for threads, and a name that does not resolve keeps one for half a minute.
        raise
    except BaseException:
        runner.close()
        raise
    runner.close()
    return result


def _tell(session: Session, decision: Decision | None, said: _Said, missing: list[str]) -> None:
    """What there is to say beside the answer."""
    if decision is not None:
        session.beside(drawn(decision, session.width_beside))
    if decision is not None and decision.outcome == "answered" and (said.finish in CUT_SHORT or not said.text.strip()):
        what = "cut short" if said.text.strip() else "empty"
        session.note(f"the answer is {what} (finish reason: {said.finish or 'none given'})")
    failed = {attempt.provider for attempt in decision.attempts if attempt.kind != "ok"} if decision else set()
    for name in missing:
        if name in failed:
            session.note(f"{name}: no key was found for it")
    for line in session.told():
        session.note(line)
