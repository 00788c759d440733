"""What the scripts have in common that run some tests on each supported version of a library.

Rules of this file: a version whose tests fail does not keep the others from running.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def say(text: str) -> None:
    """Print one line at once, under the script's name, so that it stays in order with what the child processes print."""
    print(f"{Path(sys.argv[0]).stem}: {text}", flush=True)


def end(text: str) -> None:
    """End the run as failed, with one line."""
    sys.exit(f"{Path(sys.argv[0]).stem}: {text}")


def completed(target: Path, *commands: list[str]) -> Path:
    """What the commands make at another name, at its own; they are told that name as "{}"."""
    if target.exists():
        return target
    unfinished = target.with_name(target.name + "-unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    say(f"making {target.name}")
    for command in commands:
        told = [part.format(unfinished) for part in command]
        if subprocess.run(told, check=False, cwd=ROOT).returncode:
            end(f"failed (its message is above): {' '.join(told)}")
    unfinished.rename(target)
    return target


def checked(variables: Mapping[str, str], python: str | Path, module: str, version: str) -> Mapping[str, str]:
    """The environment variables, once it is seen that with them a library is found in this version; else the run ends."""
    program = [python, "-c", f"from importlib.metadata import version; print(version({module!r}))"]
    found = subprocess.run(program, check=True, cwd=ROOT, env=variables, capture_output=True, text=True).stdout.strip()
    if not found.startswith(f"{version}."):
        end(f"with {variables['PYTHONPATH']} as PYTHONPATH, {module} is {found}: `make clean`, then again")
    say(f"on {module} {found}")
    return variables


def run_each(
    versions: Sequence[str],
    command: Callable[[list[str]], list[str | Path]],
    variables: Callable[[str], Mapping[str, str]],
) -> None:
    """Run the versions that the command line names, or all, and fail if one did, naming those that did.

    Args:
        versions: Those that there are.
        command: The tests' command, from the arguments that are no versions.
        variables: The environment variables of a version.
    """
    arguments = sys.argv[1:]
    wanted = [argument for argument in arguments if argument in versions] or versions
    whole = command([argument for argument in arguments if argument not in versions])
    runs = {
        version: subprocess.run(whole, check=False, cwd=ROOT, env=variables(version)).returncode for version in wanted
    }
    if failed := [version for version, code in runs.items() if code]:
        end(f"FAILED on {', '.join(failed)}")
