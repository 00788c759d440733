"""The `langchain-resilient` command: ask real providers, check a configuration, see an outage played.

Rules of this package: stdout holds what was asked for (an answer, a table, one JSON document) and nothing else; everything said about it
goes to stderr; an error is one line, without a traceback and without a secret; the exit code says what happened (`failures` lists them).
This file imports nothing, so that a missing extra can be told in one line.
"""

import os
import sys

INTERRUPTED = 130


def main() -> None:
    """Run the command with this process's arguments, and end the process with its exit code."""
    try:
        from langchain_resilient.cli.app import run

        code = run(sys.argv[1:])
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in {"typer", "rich"}:
            raise
        sys.stderr.write("error: the command needs typer and rich: pip install 'langchain-resilient[cli]'\n")
        code = 2
    except KeyboardInterrupt:  # while typer was imported
        code = INTERRUPTED
    if code == INTERRUPTED:
        # At once: Python's own end waits for threads, and a host name that does not resolve keeps one for half a minute.
        sys.stdout.flush()
        os._exit(code)
    sys.exit(code)
