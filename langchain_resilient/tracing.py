"""A call's decision record, as metadata of its run in LangSmith.

Rules of this file: a run is amended while it is open, in the tracer's own copy: neither the answer, nor the caller's metadata, nor any other
callback sees a difference. Plain words and numbers alone, so that LangSmith can filter by them; no prompt, and not whose request it was.
Where nobody traces it costs a look at an empty list.

LangChain tells `_generate` of its run, and `_stream` of none. So a stream's run is given its id, and its callbacks are put together, before
LangChain does both: it takes them as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple
from uuid import UUID, uuid4

from langchain_core.callbacks import AsyncCallbackManager, CallbackManager
from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import ensure_config, var_child_runnable_config
from langchain_core.tracers.context import tracing_v2_callback_var
from langchain_core.tracers.langchain import LangChainTracer

from langchain_resilient.engine.events import Attempt, Decision, Refusal

PREFIX = "resilience_"


class Run(NamedTuple):
    """A run that is traced."""

    id: UUID
    tracers: Sequence[LangChainTracer]
    config: RunnableConfig
    """What to call LangChain with, so that it is this run."""

    def show(self, decision: Decision) -> None:
        """Amend it."""
        for tracer in self.tracers:
            run = tracer.run_map.get(str(self.id))
            if run is not None:
                # A new dict: the old one may be the caller's, or held by other callbacks.
                run.extra = {**(run.extra or {}), "metadata": {**run.metadata, **as_metadata(decision)}}


_STREAMED: ContextVar[Run | None] = ContextVar("langchain_resilient_streamed_run", default=None)


def listener(run_manager: Any, keep: Callable[[Decision], object] | None) -> Callable[[Decision], object] | None:
    """What `Request.told` of a call is.

    Args:
        run_manager: LangChain's, of the call's run; None: the run is the `streamed` one, if that is traced.
        keep: Whoever else wants the record; None: nobody.

    Returns:
        What tells `keep`, and the run if it is traced; None if nobody wants to know.
    """
    if run_manager is None:
        run = _STREAMED.get()
    else:
        tracers = _tracers(run_manager.handlers)
        run = Run(run_manager.run_id, tracers, {}) if tracers else None
    if run is None:
        return keep
    show = run.show
    if keep is None:
        return show

    def told(decision: Decision) -> None:
        keep(decision)
        show(decision)

    return told


def _tracers(handlers: Iterable[object]) -> list[LangChainTracer]:
    return [handler for handler in handlers if isinstance(handler, LangChainTracer)]


def run_of(config: RunnableConfig | None, managers: type[CallbackManager | AsyncCallbackManager]) -> Run | None:
    """The run that a stream with this config will be; None if nobody will trace it.

    Args:
        config: The caller's.
        managers: Of LangChain's two kinds, the one that the stream will use.
    """
    # As `ensure_config` finds them; all of its work is for those who are traced.
    callbacks = (config or {}).get("callbacks") or (var_child_runnable_config.get() or {}).get("callbacks")
    handlers = callbacks if isinstance(callbacks, list) else getattr(callbacks, "handlers", ())
    if not _tracers(handlers) and not _is_enabled():
        return None
    manager = managers.configure(callbacks)
    tracers = _tracers(manager.handlers)
    if not tracers:
        return None
    whole = ensure_config(config)
    run_id = whole.get("run_id") or uuid4()
    return Run(run_id, tracers, {**whole, "callbacks": manager, "run_id": run_id})


def _is_enabled() -> bool:
    from langsmith.utils import tracing_is_enabled  # heavy, and there: langchain-core needs it

    return tracing_v2_callback_var.get() is not None or bool(tracing_is_enabled())


@contextmanager
def streamed(run: Run | None) -> Iterator[None]:
    """Makes a stream's run known to what begins inside."""
    token = _STREAMED.set(run)
    try:
        yield
    finally:
        _STREAMED.reset(token)


def as_metadata(decision: Decision) -> dict[str, str | int | float | bool]:
    """A decision record in plain words; what says nothing is left out."""
    found = {
        "outcome": decision.outcome,
        "provider": decision.provider,
        "first_choice": decision.first_choice,
        "fallback": decision.fallback,
        "attempts": len(decision.attempts),
        "tried": ", ".join(_tried(decision.attempts)) or None,
        "refused": ", ".join(_refused(decision.refusals)) or None,
        "seconds": round(decision.seconds, 3),
        "waited": round(sum(attempt.wait for attempt in decision.attempts), 3) or None,
        "circuit": decision.circuit,
        "lane": decision.lane,
        "hedged": decision.hedged or None,
        "continued": decision.continued or None,
        "cost_usd": decision.cost,
    }
    return {PREFIX + name: value for name, value in found.items() if value is not None}


def _tried(attempts: Iterable[Attempt]) -> Iterable[str]:
    return (f"{attempt.provider} {attempt.kind} {attempt.seconds:.2f}s" for attempt in attempts)


def _refused(refusals: Iterable[Refusal]) -> Iterable[str]:
    return (f"{refusal.provider} {refusal.reason}" for refusal in refusals)
