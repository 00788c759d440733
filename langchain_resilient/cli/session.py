"""One run of the command: where it writes, what it keeps secret, what it has to tell later.

Rules of this file: the one place that writes. Stdout gets what was asked for, stderr all else; with `--json` stdout gets exactly one
document, at the end. Warnings and log lines are held back until the answer is over, as they would land in the middle of it.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TextIO

from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.text import Text

from langchain_resilient.cli.failures import INTERRUPTED, CommandFailed, OutputClosed
from langchain_resilient.cli.redact import Redactor, printable

NARROWEST = 20
WIDE = 64
"""Columns from which things stand side by side."""


class Session:
    """Made when the command starts, with the process's streams and environment as they are then.

    Args:
        wants_json: Whether stdout is to hold one JSON document.
    """

    def __init__(self, *, wants_json: bool = False) -> None:
        self.wants_json = wants_json
        self.redactor = Redactor(os.environ)
        self.quiet = False
        """Whether only errors are said."""
        self._told: list[str] = []
        self._ends_line = True
        self._answered = False
        for stream in (sys.stdout, sys.stderr):
            # An answer may hold what the terminal's encoding has not, or half a surrogate pair; better a "?" than a crash.
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="replace")
        self._out: TextIO = sys.stdout
        self._err: TextIO = sys.stderr
        self._console = _console(sys.stdout)
        self._beside = _console(sys.stderr)

    # --------------------------------------------------------------------------------------------------------- stdout
    def answer(self, text: str) -> None:
        """Show a part of an answer at once."""
        if not text:
            return
        _write(self._out, printable(text) if self._out.isatty() else text)
        self._ends_line = text.endswith("\n")
        self._answered = True

    def end_answer(self) -> None:
        """See that the answer's last line is one."""
        if not self._ends_line:
            _write(self._out, "\n")
            self._ends_line = True

    def show(self, *parts: RenderableType) -> None:
        """Show what was asked for, laid out for the width there is."""
        _write(self._out, _drawn(self._console, *parts))

    @property
    def width(self) -> int:
        """Columns there are on stdout."""
        return self._console.width

    def document(self, content: Mapping[str, Any]) -> None:
        """Write the one JSON document."""
        # What the encoding has not would become "?", and JSON can say it otherwise.
        plain = not (self._out.encoding or "").lower().startswith("utf")
        _write(self._out, json.dumps(content, ensure_ascii=plain, indent=2) + "\n")

    # --------------------------------------------------------------------------------------------------------- stderr
    def beside(self, *parts: RenderableType) -> None:
        """Say something about what was asked for, unless asked to be quiet."""
        if not self.quiet:
            gap = "\n" if self._answered and self._out.isatty() and self._err.isatty() else ""
            _write(self._err, gap + _drawn(self._beside, *parts))

    @property
    def width_beside(self) -> int:
        """Columns there are on stderr."""
        return self._beside.width

    def note(self, text: str) -> None:
        """Say one thing, in one line, unless asked to be quiet."""
        if not self.quiet:
            self._line(Text.assemble(("note: ", "yellow"), self.redactor.line(text)))

    def error(self, failed: CommandFailed) -> None:
        """Say in one line why it failed."""
        if failed.code == INTERRUPTED and self._beside.is_terminal:
            self._line(Text())  # the terminal shows ^C
        self._line(Text.assemble(("error: ", "bold red"), self.redactor.line(str(failed))))

    def _line(self, text: Text) -> None:
        # One line, however long: it is the terminal that breaks it.
        _write(self._err, _drawn(self._beside, text, soft_wrap=True))

    # --------------------------------------------------------------------------------------------- what others want to say
    @contextmanager
    def holding_back(self) -> Iterator[None]:
        """Keep Python's warnings and all log lines (WARNING and above) of the block; they are told as notes after it."""
        handler = _Kept(self._told)
        root = logging.getLogger()
        root.addHandler(handler)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("default", UserWarning)
                warnings.showwarning = lambda message, *_args, **_kwargs: self._told.append(str(message))
                yield
        finally:
            root.removeHandler(handler)

    def told(self) -> list[str]:
        """What was held back so far, each thing once; it is forgotten with this."""
        kept = list(dict.fromkeys(self.redactor.line(text) for text in self._told))
        self._told.clear()
        return kept


class _Kept(logging.Handler):
    def __init__(self, lines: list[str]) -> None:
        super().__init__(logging.WARNING)
        self._lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        # What our own observer logs of a call, its decision record tells as well.
        if (record.name, record.module) != ("langchain_resilient", "log"):
            self._lines.append(record.getMessage())


def _console(stream: TextIO) -> Console:
    console = Console(file=stream, highlight=False, emoji=False, markup=False)
    console.width = max(console.width, NARROWEST)
    return console


def _write(stream: TextIO, text: str) -> None:
    try:
        stream.write(text)
        stream.flush()
    except BrokenPipeError:
        # What is still in the buffer must go somewhere, or Python complains of it when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        raise OutputClosed from None


def _drawn(console: Console, *parts: RenderableType, soft_wrap: bool = False) -> str:
    with console.capture() as drawn:
        for part in parts:
            console.print(part, soft_wrap=soft_wrap)
    # Rich pads lines to the full width, which wraps when a terminal is made narrower.
    return "\n".join(line.rstrip() for line in drawn.get().split("\n"))


def indented(part: RenderableType, by: int = 2) -> Padding:
    """The same, moved to the right."""
    return Padding(part, (0, 0, 0, by))
