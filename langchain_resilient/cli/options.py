"""Words that several commands share: their options, their exit codes, and the run that they belong to.

Rules of this file: as `app`'s: signatures and help only, no LangChain.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from langchain_resilient.cli.session import Session

CODES = """\
\b
Exit codes:
  0    done
  1    what was asked for failed: no provider answered, a stream broke,
       a ping failed, a shared backend is away, letters were left
  2    the usage or the settings are wrong; nothing was sent or changed
  70   a bug of ours; LANGCHAIN_RESILIENT_TRACEBACK=1 shows where
  130  interrupted with Ctrl-C
  141  whoever read the output closed it, as with "| head -1"
"""

Json = Annotated[bool, typer.Option("--json", help="Write one JSON document to stdout, also on failure.")]
Settings = Annotated[
    Path,
    typer.Option("--config", "-c", metavar="FILE", help="The settings of your application, such as resilience.yaml."),
]


def session_of(context: typer.Context, *, wants_json: bool) -> Session:
    """The run that a command belongs to."""
    session = context.ensure_object(Session)
    session.wants_json = wants_json
    return session
