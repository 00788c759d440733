"""Runnables run inside an attempt, which no trace and no token count may see.

Rules of this file: `callbacks=[]` is not enough: LangSmith's tracing and the hooks behind `collect_runs` and
`get_usage_metadata_callback` come from context variables, and would count a run that the caller knows nothing of. So it runs in a copy of
the context in which these are off, and all else is as it was.
"""

from __future__ import annotations

import asyncio
from contextvars import Context, copy_context
from typing import Any

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.runnables import Runnable
from langchain_core.tracers import context as tracing


def unseen(runnable: Runnable[Any, Any], given: Any, *heard_by: BaseCallbackHandler) -> Any:
    """What it makes of what is given; only our own handlers hear of it."""
    return _unwatched().run(runnable.invoke, given, {"callbacks": list(heard_by)})


async def aunseen(runnable: Runnable[Any, Any], given: Any, *heard_by: BaseCallbackHandler) -> Any:
    """What it makes of what is given; only our own handlers hear of it."""
    return await asyncio.create_task(runnable.ainvoke(given, {"callbacks": list(heard_by)}), context=_unwatched())


def _unwatched() -> Context:
    context = copy_context()
    context.run(_look_away)
    return context


def _look_away() -> None:
    from langsmith.run_helpers import tracing_context  # heavy, and there: langchain-core needs it

    for hook in tracing._configure_hooks:
        hook[0].set(None)
    tracing_context(parent=False, enabled=False).__enter__()  # never left: the context is thrown away
