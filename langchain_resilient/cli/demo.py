"""`langchain-resilient demo`: plays an afternoon's outage on fake providers, and shows what users would have seen.

Rules of this file: what is played and how it looks is in `langchain_resilient.demo`; here it is begun, watched and ended. Whatever can be
found wrong is found before the minute begins. No key, no proxy and no tracing of the user's takes part.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from langchain_resilient.cli.failures import CommandFailed, interrupted
from langchain_resilient.cli.session import Session
from langchain_resilient.engine.errors import SettingsError

if TYPE_CHECKING:
    from langchain_resilient.demo.play import Play, Result

PACKAGES = ("langchain", "langchain_openai", "langchain_anthropic", "langchain_ollama", "matplotlib")
"""What the extra `demo` adds to the command's own."""

EPILOG = """\
\b
Examples:
  langchain-resilient demo
  langchain-resilient demo --speed 4 --seed 7
  langchain-resilient demo --plain --no-chart > demo.log
  langchain-resilient demo --json | jq .headline

Exit codes: as of every command; 130 when it was stopped with Ctrl-C, after
a summary of what was played.
"""

MINE = {
    "LANGSMITH_TRACING": "false",
    "LANGSMITH_TRACING_V2": "false",
    "LANGCHAIN_TRACING": "false",
    "LANGCHAIN_TRACING_V2": "false",
    "NO_PROXY": "127.0.0.1,localhost",
    "no_proxy": "127.0.0.1,localhost",
}
"""Environment of the play: a thousand made-up questions are nobody's traces, and loopback needs no proxy."""
NOT_MINE = ("OPENAI_", "ANTHROPIC_", "OLLAMA_")
"""Environment that the clients would read: accounts, headers and proxies of the user's real providers."""


def demo(
    context: typer.Context,
    speed: Annotated[
        float, typer.Option(metavar="FACTOR", help="How much faster to play it, 0.2 to 10. A minute at 1.")
    ] = 1.0,
    seed: Annotated[int, typer.Option(metavar="N", help="Of the traffic and the providers' speeds.")] = 1,
    plain: Annotated[
        bool, typer.Option("--plain", help="Log lines instead of a moving picture, for logs and CI.")
    ] = False,
    chart: Annotated[
        Path, typer.Option("--chart", metavar="DIR", help="Where the chart is put, as PNG and SVG.")
    ] = Path(),
    no_chart: Annotated[bool, typer.Option("--no-chart", help="Draw no chart.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Write one JSON document to stdout, also on failure.")] = False,
) -> None:
    """Play the 2 PM outage in one minute: three fake providers fail in turn."""
    session = context.ensure_object(Session)
    session.wants_json = json
    _need_packages(with_chart=not no_chart)
    with _undisturbed():
        from langchain_resilient.demo.afternoon import two_pm
        from langchain_resilient.demo.play import Play

        play = Play(two_pm(speed), seed=seed)
        directory = None if no_chart else _writable(chart)
        with session.holding_back():
            complete = _run(_played(play, _watching(session, play, plain=plain)))
        session.told()  # the circuits' log lines: the picture has shown them already
    _end(session, play.result(), directory, complete=complete)


def _need_packages(*, with_chart: bool) -> None:
    needed = PACKAGES if with_chart else PACKAGES[:-1]
    missing = [name for name in needed if find_spec(name) is None]
    if missing:
        names = ", ".join(missing)
        msg = f"demo: needs {names}, which {'is' if len(missing) == 1 else 'are'} not installed: pip install 'langchain-resilient[demo]'"
        raise SettingsError(msg)


def _writable(directory: Path) -> Path:
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        msg = (
            f"--chart: got {str(directory)!r}, which can't be made ({error.strerror}); give a directory, or --no-chart"
        )
        raise SettingsError(msg) from error
    if not os.access(directory, os.W_OK):
        msg = f"--chart: got {str(directory)!r}, where nothing may be written; give another directory, or --no-chart"
        raise SettingsError(msg)
    return directory


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Nothing of the user's environment takes part while the play runs."""
    before = dict(os.environ)
    for name in before:
        if name.startswith(NOT_MINE):
            del os.environ[name]
    os.environ.update(MINE)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _watching(session: Session, play: Play, *, plain: bool) -> Coroutine[Any, Any, None]:
    """What is shown meanwhile: a picture on a terminal, else lines; beside the JSON document, on stderr."""
    from langchain_resilient.demo import live
    from langchain_resilient.demo import plain as lines

    console = Console(highlight=False, emoji=False)
    if console.is_terminal and not console.is_dumb_terminal and not plain and not session.wants_json:
        return live.show(play, console)
    if session.wants_json:
        return lines.follow(play, lambda line: typer.echo(line, err=True))
    return lines.follow(play, lambda line: session.answer(f"{line}\n"))


async def _played(play: Play, watching: Coroutine[Any, Any, None]) -> None:
    """Play and watch; a view that breaks ends the play rather than leave it in the dark."""
    async with asyncio.TaskGroup() as group:
        group.create_task(watching)
        await play.run()


def _run(playing: Coroutine[Any, Any, None]) -> bool:
    """Whether it came to its end: Ctrl-C stops it."""
    try:
        asyncio.run(playing)
    except KeyboardInterrupt:
        return False
    except BaseExceptionGroup as group:
        raise group.exceptions[0] from group
    return True


def _end(session: Session, result: Result, directory: Path | None, *, complete: bool) -> None:
    from langchain_resilient.demo.summary import as_dict, summary

    files = [] if directory is None else _drawn(result, directory)
    document = as_dict(result) | {"charts": files}
    if session.wants_json:
        if complete:
            session.document(document)
    else:
        session.show(summary(result, width=session.width))
        for file in files:
            session.note(f"chart: {file}")
    if not complete:
        raise interrupted(document)


def _drawn(result: Result, directory: Path) -> list[str]:
    from langchain_resilient.demo.chart import draw

    try:
        return [str(file) for file in draw(result, directory)]
    except OSError as error:
        raise CommandFailed(f"the chart can't be written: {error}", kind="chart") from error
