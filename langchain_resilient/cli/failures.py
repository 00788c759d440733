"""How a command ends: every exception as one line and an exit code.

Rules of this file: the one place that turns exceptions into words. "You gave us nonsense" (2), "what you asked for failed" (1) and "we
have a bug" (70) are different codes, because a script must tell them apart.

    0   done
    1   what was asked for failed: no provider answered, a stream broke, a ping failed, a shared backend is away, letters were left
    2   the usage or the settings are wrong; nothing was sent or changed
    70  a bug of ours (sysexits' EX_SOFTWARE): LANGCHAIN_RESILIENT_TRACEBACK=1 shows where
    130 interrupted with Ctrl-C
    141 whoever read the output closed it, as with `| head -1`
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import typer

from langchain_resilient.engine.errors import SettingsError

DONE, FAILED, USAGE, SOFTWARE, INTERRUPTED, CLOSED = 0, 1, 2, 70, 130, 141
TRACEBACK = "LANGCHAIN_RESILIENT_TRACEBACK"

# What the parser raises for any misuse. Its package (click, in newer typers a copy of it) is no dependency of ours.
_PARSER_ERROR = typer.BadParameter.__mro__[2]


class CommandFailed(Exception):  # noqa: N818  # it is what happened, and its cause is the error
    """The command did not do what it was asked for.

    Args:
        message: Why, in one line.
        kind: One word for scripts.
        code: The exit code.
        details: More of the error for `--json`.
        document: More of the command's JSON document, beside its `error`.
    """

    def __init__(
        self,
        message: str,
        *,
        kind: str,
        code: int = FAILED,
        details: Mapping[str, Any] | None = None,
        document: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.code = code
        self.details = dict(details or {})
        self.document = dict(document or {})


class OutputClosed(BaseException):  # no error at all; not an OSError, which the parser's package would take for its own
    """Nobody reads the output any more."""


def usage_error(message: str) -> CommandFailed:
    """What was typed makes no sense."""
    return CommandFailed(message, kind="usage", code=USAGE)


def interrupted(document: Mapping[str, Any] | None = None) -> CommandFailed:
    """Ctrl-C, with what there is to show of the work so far."""
    return CommandFailed("interrupted", kind="interrupted", code=INTERRUPTED, document=document)


def explained(error: BaseException) -> CommandFailed:
    """What any exception means for the command."""
    if isinstance(error, CommandFailed):
        return error
    if isinstance(error, SettingsError):
        return CommandFailed(str(error), kind="settings", code=USAGE)
    if isinstance(error, _PARSER_ERROR):
        said: Any = error
        return usage_error(f"{said.format_message().rstrip('.')}; --help shows the usage")
    if isinstance(error, KeyboardInterrupt | typer.Abort):
        return interrupted()
    return CommandFailed(
        f"{type(error).__name__}: {error} (a bug of ours; {TRACEBACK}=1 shows where)", kind="internal", code=SOFTWARE
    )
