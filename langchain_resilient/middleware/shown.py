"""What the caller has seen of an attempt: the tokens that go out through callbacks while an agent's handler runs.

Rules of this file: it listens, and changes nothing. Every run that begins during an attempt is heard, whoever's callbacks it has, and no run
is added. Tokens count as shown only where somebody is told of them, which a tracer that writes them down is not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from langchain_core.callbacks import AsyncCallbackHandler, BaseCallbackHandler
from langchain_core.language_models import BaseChatModel
from langchain_core.outputs import ChatGenerationChunk
from langchain_core.runnables.config import var_child_runnable_config
from langchain_core.tracers.base import AsyncBaseTracer, BaseTracer
from langchain_core.tracers.context import register_configure_hook

from langchain_resilient.engine.effects import Upstream
from langchain_resilient.engine.plan.relay import Seen


class Shown(BaseCallbackHandler):
    """Listens, during one attempt, to the tokens that go out through callbacks."""

    run_inline = True  # before the failure that may follow is judged
    prolong: Callable[[], object] | None = None
    """Told of each content."""

    def __init__(self, seen: Seen, speaks: Callable[[ChatGenerationChunk], bool], *, heard: bool) -> None:
        self.seen = seen
        self._speaks = speaks
        self.streamed = False
        self.said = False
        self._heard = heard

    @property
    def shown(self) -> bool:
        """Whether the caller has seen some of it."""
        return self.said and self._heard

    def on_chat_model_start(self, *args: Any, **kwargs: Any) -> None:
        """Nothing to do; without it the prompt would be written out as a string for `on_llm_start`."""

    def on_llm_new_token(self, token: Any, *, chunk: Any = None, **kwargs: Any) -> None:
        """A chunk of a stream."""
        self.streamed = True
        if isinstance(chunk, ChatGenerationChunk):
            self.seen.add(chunk)
            self._say(says=self._speaks(chunk))
        else:
            self.seen.text.append(str(token))
            self._say(says=bool(token))

    def on_stream_event(self, event: Any, **kwargs: Any) -> None:
        """The same in LangChain's newer protocol."""
        if event.get("event") == "content-block-delta":
            self.seen.text.append(event["delta"].get("text") or "")
            self._say(says=True)

    def _say(self, *, says: bool) -> None:
        if says:
            self.said = True
            if self.prolong is not None:
                self.prolong()


_SHOWN: ContextVar[Shown | None] = ContextVar("langchain_resilient_shown", default=None)
# Every run that begins during an attempt is listened to, whoever's callbacks it has; no run is added.
register_configure_hook(_SHOWN, inheritable=False)


@contextmanager
def listening(reader: Upstream, model: BaseChatModel) -> Iterator[Shown]:
    """Hears what the model says, for as long as the block runs; `reader` reads its chunks."""
    shown = Shown(Seen(reader, 0.0), reader.has_content, heard=somebody_listens(model))
    token = _SHOWN.set(shown)
    try:
        yield shown
    finally:
        _SHOWN.reset(token)


# ---------------------------------------------------------------------------------------------------------- who listens
DEAF = (BaseCallbackHandler.on_llm_new_token, AsyncCallbackHandler.on_llm_new_token)


def somebody_listens(model: BaseChatModel) -> bool:
    """Whether anybody is told of tokens. Some clients (Ollama's) tell of them even when nobody asked for a stream."""
    config = var_child_runnable_config.get() or {}
    handlers = [*_handlers(config.get("callbacks")), *_handlers(model.callbacks)]
    return any(_listens(handler) for handler in handlers)


def _handlers(callbacks: Any) -> list[Any]:
    return list(getattr(callbacks, "handlers", callbacks) or ())


def _listens(handler: Any) -> bool:
    if hasattr(handler, "tap_output_aiter"):  # LangChain's mark of what shows a stream to somebody
        return True
    return not isinstance(handler, BaseTracer | AsyncBaseTracer) and type(handler).on_llm_new_token not in DEAF
