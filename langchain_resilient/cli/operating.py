"""The words of the commands for who runs an application: `status`, `circuits` and `dead-letters`.

Rules of this file: as `app`'s: signatures and help only; what a command does is imported when it runs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from langchain_resilient.cli.options import CODES, Json, Settings, session_of

SAME = """\
\b
Run it with the environment of your application: addresses in it decide
which provider is meant. A key that is not there is not needed, except to
see what is held against its credential, and to replay.
"""
STATUS_EPILOG = f"""\
\b
Examples:
  langchain-resilient status -c resilience.yaml
  langchain-resilient status -c resilience.yaml --json | jq .dead_letters

{SAME}
{CODES}"""
CIRCUITS_EPILOG = f"""\
\b
Examples:
  langchain-resilient circuits list -c resilience.yaml
  langchain-resilient circuits open openai/gpt-4.1 -c resilience.yaml
  langchain-resilient circuits close openai/gpt-4.1 -c resilience.yaml

{SAME}
{CODES}"""
LETTERS_EPILOG = f"""\
\b
Examples:
  langchain-resilient dead-letters list -c resilience.yaml --state parked
  langchain-resilient dead-letters replay -c resilience.yaml --most 100
  langchain-resilient dead-letters purge -c resilience.yaml --older-than 7d
  langchain-resilient dead-letters export -c resilience.yaml -o kept.jsonl

{CODES}"""
REPLAY_EPILOG = f"""\
\b
Exit code 0: every letter that was asked is answered, or none was due.
Exit code 1: one was not (it failed, was parked, or nobody might be asked).
Ctrl-C gives back what is being asked, uncounted, and exits with 130.

{CODES}"""

circuits = typer.Typer(rich_markup_mode=None, help="See and steer the fleet's circuits.", epilog=CIRCUITS_EPILOG)
letters = typer.Typer(rich_markup_mode=None, help="Requests that nobody could answer.", epilog=LETTERS_EPILOG)

Name = Annotated[str, typer.Argument(metavar="PROVIDER", help="Its name, as `circuits list` has it.")]
Content = Annotated[bool, typer.Option("--content", help="Messages, parameters and key too: they may be private.")]
State = Annotated[
    str | None, typer.Option("--state", metavar="STATE", help="waiting, claimed or parked; default: all.")
]


def status(context: typer.Context, config: Settings, json: Json = False) -> None:
    """Show circuits, latencies, limits, and what waits as dead letters."""
    from langchain_resilient.cli.status import show

    show(session_of(context, wants_json=json), config)


# -------------------------------------------------------------------------------------------------------------- circuits
@circuits.command("list", epilog=CIRCUITS_EPILOG)
def _list_circuits(context: typer.Context, config: Settings, json: Json = False) -> None:
    """List each provider's circuit."""
    from langchain_resilient.cli.circuits import show

    show(session_of(context, wants_json=json), config)


@circuits.command("open", epilog=CIRCUITS_EPILOG)
def _open(context: typer.Context, provider: Name, config: Settings, json: Json = False) -> None:
    """Keep every request from a provider, until it is closed."""
    from langchain_resilient.cli.circuits import change

    change(session_of(context, wants_json=json), config, provider, "open")


@circuits.command("close", epilog=CIRCUITS_EPILOG)
def _close(context: typer.Context, provider: Name, config: Settings, json: Json = False) -> None:
    """Let requests flow: forget what was set by hand, and an open circuit."""
    from langchain_resilient.cli.circuits import change

    change(session_of(context, wants_json=json), config, provider, "close")


@circuits.command("reset", epilog=CIRCUITS_EPILOG)
def _reset(context: typer.Context, provider: Name, config: Settings, json: Json = False) -> None:
    """As close, and forget what is held against the credential: a 429, a refused key, a used-up quota."""
    from langchain_resilient.cli.circuits import change

    change(session_of(context, wants_json=json), config, provider, "reset")


# ---------------------------------------------------------------------------------------------------------- dead letters
@letters.command("list", epilog=LETTERS_EPILOG)
def _list_letters(
    context: typer.Context,
    config: Settings,
    state: State = None,
    most: Annotated[int, typer.Option(metavar="N", help="How many to show.")] = 100,
    after: Annotated[str | None, typer.Option(metavar="ID", help="Only those behind this one.")] = None,
    json: Json = False,
) -> None:
    """List them, oldest first; never what was asked."""
    from langchain_resilient.cli.letters import show_all

    show_all(session_of(context, wants_json=json), config, state, most, after)


@letters.command("show", epilog=LETTERS_EPILOG)
def _show(
    context: typer.Context,
    letter: Annotated[str, typer.Argument(metavar="ID", help="As `dead-letters list` has it.")],
    config: Settings,
    content: Content = False,
    json: Json = False,
) -> None:
    """Show one, and what was tried."""
    from langchain_resilient.cli.letters import show_one

    show_one(session_of(context, wants_json=json), config, letter, content=content)


@letters.command("result", epilog=LETTERS_EPILOG)
def _result(
    context: typer.Context,
    key: Annotated[str, typer.Argument(metavar="KEY", help="The idempotency key of the request.")],
    config: Settings,
    tenant: Annotated[str | None, typer.Option(metavar="NAME", help="Whose it is: a key is its tenant's.")] = None,
    json: Json = False,
) -> None:
    """Show the late answer to a key."""
    from langchain_resilient.cli.letters import show_result

    show_result(session_of(context, wants_json=json), config, key, tenant)


@letters.command("replay", epilog=REPLAY_EPILOG)
def _replay(
    context: typer.Context,
    config: Settings,
    most: Annotated[int | None, typer.Option(metavar="N", help="How many to ask; default: all that are due.")] = None,
    concurrency: Annotated[int, typer.Option(metavar="N", help="How many at a time.")] = 4,
    wait: Annotated[bool, typer.Option("--wait", help="Go on until Ctrl-C, for those that become due.")] = False,
    json: Json = False,
) -> None:
    """Ask those that are due again; their answers are kept."""
    from langchain_resilient.cli.emptying import Replaying, replay

    replay(session_of(context, wants_json=json), config, Replaying(most, concurrency, wait))


@letters.command("purge", epilog=LETTERS_EPILOG)
def _purge(
    context: typer.Context,
    config: Settings,
    ids: Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="These alone.")] = None,
    state: State = None,
    older_than: Annotated[
        str | None, typer.Option("--older-than", metavar="AGE", help="Only those of that age, such as 7d or 12h.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    json: Json = False,
) -> None:
    """Remove those that meet all that is given, for good."""
    from langchain_resilient.cli.emptying import Purge, purge

    purge(session_of(context, wants_json=json), config, Purge(ids or [], state, older_than, yes))


@letters.command("unpark", epilog=LETTERS_EPILOG)
def _unpark(
    context: typer.Context,
    config: Settings,
    ids: Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="These.")] = None,
    all_of_them: Annotated[bool, typer.Option("--all", help="Every parked one.")] = False,
    json: Json = False,
) -> None:
    """Let parked ones be asked again, their deliveries counted from 0."""
    from langchain_resilient.cli.emptying import unpark

    unpark(session_of(context, wants_json=json), config, ids or [], all_of_them=all_of_them)


@letters.command("export", epilog=LETTERS_EPILOG)
def _export(
    context: typer.Context,
    config: Settings,
    state: State = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="A new file, its owner's alone.")
    ] = None,
    content: Content = False,
    json: Json = False,
) -> None:
    """Write them as JSON lines."""
    from langchain_resilient.cli.letters import Export, export

    export(session_of(context, wants_json=json), config, Export(state, output, content))
