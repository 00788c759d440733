"""The command's words: what may be typed, its help, and how a run ends.

Rules of this file: signatures and help only; what a command does is in the file of its name, imported when it runs, so that `--help`
costs no LangChain. Whatever is raised ends in `run`.
"""

from __future__ import annotations

import os
import sys
import traceback
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated

import typer

from langchain_resilient.cli.demo import EPILOG as DEMO_EPILOG
from langchain_resilient.cli.demo import demo
from langchain_resilient.cli.failures import CLOSED, DONE, INTERRUPTED, TRACEBACK, USAGE, OutputClosed, explained
from langchain_resilient.cli.operating import STATUS_EPILOG, circuits, letters, status
from langchain_resilient.cli.options import CODES, Json, session_of
from langchain_resilient.cli.session import Session

WITHOUT = """\
\b
Without --provider and --config, the keys in the environment decide, in
this order, as far as their packages are installed:
"""
APP_EPILOG = f"""\
\b
Examples:
  langchain-resilient chat "Why is the sky blue?"
  langchain-resilient chat "Hi" -p openai:gpt-4.1 -p ollama:llama3.1
  langchain-resilient check resilience.yaml --ping
  langchain-resilient import-litellm config.yaml > resilience.yaml
  langchain-resilient status -c resilience.yaml
  langchain-resilient circuits close openai/gpt-4.1 -c resilience.yaml
  langchain-resilient dead-letters replay -c resilience.yaml

{CODES}"""
CHAT_EPILOG = f"""\
\b
Examples:
  langchain-resilient chat "Why is the sky blue?"
  langchain-resilient chat "Hi" -p openai:gpt-4.1 \\
      -p anthropic:claude-sonnet-4-5
  langchain-resilient chat - -c resilience.yaml < question.txt > answer.txt
  langchain-resilient chat "Hi" --json | jq .decision.provider

{{keys}}
{CODES}"""
CHECK_EPILOG = f"""\
\b
Examples:
  langchain-resilient check resilience.yaml
  langchain-resilient check -p openai:gpt-4.1 -p anthropic:claude-sonnet-4-5
  langchain-resilient check resilience.yaml --ping
  langchain-resilient check resilience.yaml --json | jq .failures

{CODES}"""
IMPORT_EPILOG = f"""\
\b
Examples:
  langchain-resilient import-litellm config.yaml > resilience.yaml
  langchain-resilient import-litellm config.yaml --group gpt-4o
  langchain-resilient import-litellm config.yaml --json | jq .remarks

{CODES}"""


def _chat_epilog() -> str:
    from langchain_resilient.cli.sources import KEYS

    width = max(len(key.names) for key in KEYS)
    rows = "\n".join(f"  {key.names:{width}}  {key.spec}" for key in KEYS)
    return CHAT_EPILOG.format(keys=WITHOUT + rows + "\n")


# Boxes are no good at 40 columns, and an error in a box is no line.
app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)

Providers = Annotated[
    list[str] | None,
    typer.Option(
        "--provider",
        "-p",
        metavar="SPEC",
        help="A provider, such as openai:gpt-4.1. Repeat it: first come, first asked.",
    ),
]
Config = Annotated[
    Path | None,
    typer.Option("--config", "-c", metavar="FILE", help="Settings, such as resilience.yaml, instead of --provider."),
]


def _show_version(asked: bool) -> None:
    if asked:
        try:
            number = version("langchain-resilient")
        except PackageNotFoundError:  # run from a checkout
            number = "(not installed)"
        typer.echo(f"langchain-resilient {number}")
        raise typer.Exit


@app.callback(invoke_without_command=True, epilog=APP_EPILOG)
def _main(
    context: typer.Context,
    _version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Chat models that keep answering while their providers fail."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help(), err=True)
        raise typer.Exit(USAGE)


@app.command(epilog=_chat_epilog())
def chat(
    context: typer.Context,
    question: Annotated[list[str], typer.Argument(metavar="QUESTION", help='The question; "-" reads it from stdin.')],
    provider: Providers = None,
    config: Config = None,
    system: Annotated[str | None, typer.Option(metavar="TEXT", help="A system message before the question.")] = None,
    deadline: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="For everything, retries and fallbacks included.")
    ] = None,
    max_tokens: Annotated[int | None, typer.Option(metavar="N", help="The longest answer, in tokens.")] = None,
    no_stream: Annotated[bool, typer.Option("--no-stream", help="Ask for the answer in one piece.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but errors on stderr.")] = False,
    json: Json = False,
) -> None:
    """Ask a question, stream the answer, show the decision."""
    from langchain_resilient.cli.chat import Ask, ask

    session = session_of(context, wants_json=json)
    session.quiet = quiet
    ask(session, Ask(question, provider or [], config, system, deadline, max_tokens, streams=not no_stream))


@app.command(epilog=CHECK_EPILOG)
def check(
    context: typer.Context,
    file: Annotated[Path | None, typer.Argument(metavar="[CONFIG]", help="Settings, such as resilience.yaml.")] = None,
    provider: Providers = None,
    config: Config = None,
    ping: Annotated[bool, typer.Option("--ping", help="Send one tiny real request to each provider.")] = False,
    deadline: Annotated[float, typer.Option(metavar="SECONDS", help="For each ping.")] = 20.0,
    json: Json = False,
) -> None:
    """Validate settings; say what each failure would lead to."""
    from langchain_resilient.cli.check import inspect

    inspect(session_of(context, wants_json=json), provider or [], config, file, deadline if ping else None)


app.command(epilog=DEMO_EPILOG)(demo)
app.command(epilog=STATUS_EPILOG)(status)
app.add_typer(circuits, name="circuits")
app.add_typer(letters, name="dead-letters")


@app.command("import-litellm", epilog=IMPORT_EPILOG)
def import_litellm(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="CONFIG", help="LiteLLM's config.yaml, or its model_list alone.")],
    group: Annotated[
        str | None, typer.Option(metavar="NAME", help="The model_name to import; default: the first of the file.")
    ] = None,
    json: Json = False,
) -> None:
    """Turn LiteLLM's config.yaml into settings; say what is left out."""
    from langchain_resilient.cli.import_litellm import import_file

    import_file(session_of(context, wants_json=json), file, group)


def run(arguments: list[str]) -> int:
    """Run the command; returns its exit code. Nothing is raised."""
    # Asked for even where the arguments make no sense: a script reads the error from the document it expects.
    options = arguments[: arguments.index("--")] if "--" in arguments else arguments
    session = Session(wants_json="--json" in options)
    try:
        code = app(arguments, prog_name="langchain-resilient", standalone_mode=False, obj=session)
        if code != INTERRUPTED:
            return code if isinstance(code, int) else DONE
        raise KeyboardInterrupt
    except (OutputClosed, SystemExit):  # the latter is how the parser ends where nobody reads its help
        return CLOSED
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001  # where every error of a command ends
        return _ended(session, error)


def _ended(session: Session, error: BaseException) -> int:
    """Tell how it ended; returns the exit code."""
    failed = explained(error)
    if os.environ.get(TRACEBACK) == "1":
        sys.stderr.write(session.redactor.clean("".join(traceback.format_exception(error))))
    try:
        if session.wants_json:
            said = {"kind": failed.kind, "message": session.redactor.line(str(failed)), "exit_code": failed.code}
            session.document({"error": {**said, **failed.details}, **failed.document})
        session.error(failed)
    except OutputClosed:
        return CLOSED
    return failed.code
