"""Build .venv and install dependency groups into it: `python scripts/bootstrap.py [--python P] GROUP...`.

Standard library only, since it runs before anything is installed. Rules:

- An environment that works is kept, whoever made it; `--python` (the user's PYTHON=) replaces one of another Python.
- One that cannot start Python or pip, that was moved, or whose last installation was cut short, is built again from
  nothing: pip cannot tell a half-unpacked distribution from a whole one.
- What is installed is recorded for each group with a hash of pyproject.toml, so an unchanged checkout costs nothing.
- `venv` is tried first, then `virtualenv`, then `uv`, then a venv without pip that a pip outside fills: Debian
  ships Python without ensurepip.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
PYPROJECT = ROOT / "pyproject.toml"
STAMPS = VENV / ".installed"
HOME = STAMPS / "home"  # where .venv was when it was filled: its scripts hold absolute paths
UNFINISHED = ROOT / ".venv-unfinished"  # exists while .venv is being made or filled


def say(text: str) -> None:
    """Print one line at once, so that it stays in order with what the child processes print."""
    print(f"bootstrap: {text}", flush=True)


def output_of(*command: str | Path) -> str | None:
    """What a command printed, or None when it cannot be started or fails."""
    try:
        done = subprocess.run([str(part) for part in command], check=True, capture_output=True, text=True, cwd=ROOT)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout


def identity(python: str | Path) -> str | None:
    """Version and home of a Python, equal for an interpreter and for the environments made from it."""
    return output_of(python, "-c", "import os, sys; print(sys.version, os.path.realpath(sys.base_prefix))")


def why_rebuild(wanted: str | None) -> str | None:
    """Why the present environment cannot be kept, or None if it can."""
    if not VENV.exists():
        return "there is none"
    if UNFINISHED.exists():
        return "an earlier installation was cut short"
    present = identity(PYTHON)
    if present is None:
        return "its Python does not start"
    if output_of(PYTHON, "-c", "import sys; sys.version_info >= (3, 11) or sys.exit(1)") is None:
        return "its Python is older than 3.11"
    if output_of(PYTHON, "-m", "pip", "--version") is None:
        return "it has no working pip"
    if HOME.is_file() and HOME.read_text() != str(VENV):
        return f"it was moved here from {HOME.read_text()}"
    if wanted is not None and identity(wanted) != present:
        return f"it is not made from {wanted}"
    return None


def ways_to_create() -> Iterator[tuple[str, list[list[str]]]]:
    """The ways to make an environment with pip in it, each a name and the commands to run in order."""
    base, venv = sys.executable, str(VENV)
    yield "venv", [[base, "-m", "venv", venv]]
    yield "virtualenv", [[base, "-m", "virtualenv", "--quiet", venv]]
    for tool, options in (("virtualenv", ["--quiet", "--python", base]), ("uv", ["venv", "--seed", "--python", base])):
        if path := shutil.which(tool):
            yield tool, [[path, *options, venv]]
    bare = [base, "-m", "venv", "--without-pip", venv]
    for pip in ([base, "-m", "pip"], [shutil.which("pip3") or "pip3"], [shutil.which("pip") or "pip"]):
        yield "venv, filled by a pip outside", [bare, [*pip, "--python", str(PYTHON), "install", "--quiet", "pip"]]


def create() -> None:
    """Make the environment by the first way that leaves one with a working pip."""
    reports = []
    UNFINISHED.touch()
    for name, commands in ways_to_create():
        remove()
        for command in commands:
            try:
                done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
            except OSError as error:
                reports.append(f"  {name}: {error}")
                break
            if done.returncode:
                reports.append(f"  {name}: {(done.stderr or done.stdout).strip()}")
                break
        if output_of(PYTHON, "-m", "pip", "--version") is not None:
            UNFINISHED.unlink()
            say(f"made .venv with {name}, {(output_of(PYTHON, '--version') or '').strip()}")
            return
    remove()
    sys.exit(
        "\n".join(reports)
        + f"\nbootstrap: no way to make .venv with {sys.executable}: install its venv module (Debian: apt-get install"
        " python3-venv), virtualenv or uv, or name another Python: make PYTHON=..."
    )


def remove() -> None:
    """Remove .venv, be it a directory, a link or a file; never what a link points to."""
    if VENV.is_symlink() or VENV.is_file():
        VENV.unlink()
    elif VENV.exists():
        shutil.rmtree(VENV)


def requirements(group: str, groups: dict[str, list[str | dict[str, str]]], above: tuple[str, ...] = ()) -> list[str]:
    """The requirements of a PEP 735 group, with those it includes: pip below 25.1 cannot read them."""
    if group in above:
        sys.exit(f"bootstrap: dependency group {group!r} includes itself: {' > '.join((*above, group))}")
    if group not in groups:
        sys.exit(f"bootstrap: no dependency group {group!r} in pyproject.toml; there are: {', '.join(sorted(groups))}")
    found: list[str] = []
    for entry in groups[group]:
        if isinstance(entry, str):
            found.append(entry)
        else:
            found += requirements(entry["include-group"], groups, (*above, group))
    return found


def install(wanted: list[str]) -> None:
    """Install the groups that are not recorded yet, and the package itself (editable) unless only tools are asked for."""
    content = PYPROJECT.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    due = [group for group in wanted if not is_current(group, digest)]
    if not due:
        return
    groups = tomllib.loads(content.decode())["dependency-groups"]
    arguments = [requirement for group in due for requirement in requirements(group, groups)]
    if due != ["lint"]:  # ruff reads sources only
        arguments += ["--editable", "."]
    say(f"installing {', '.join(due)}")
    UNFINISHED.touch()
    command = [str(PYTHON), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *arguments]
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME")}
    done = subprocess.run(command, cwd=ROOT, check=False, env=environment)
    UNFINISHED.unlink()  # pip cleans up after a failure of its own; only a killed run leaves the mark
    if done.returncode:
        sys.exit(f"bootstrap: pip could not install {', '.join(due)} (its message is above)")
    STAMPS.mkdir(exist_ok=True)
    HOME.write_text(str(VENV))
    for group in due:
        (STAMPS / group).write_text(digest)


def is_current(group: str, digest: str) -> bool:
    """Whether the group was installed from this very pyproject.toml."""
    stamp = STAMPS / group
    return stamp.is_file() and stamp.read_text() == digest


def main() -> None:
    """Read the arguments, then bring .venv up to date, one run at a time."""
    parser = argparse.ArgumentParser(description="Build .venv and install dependency groups into it.")
    parser.add_argument("--python", help="the Python that .venv must be made from; left out: keep what works")
    parser.add_argument("groups", nargs="+", metavar="GROUP")
    options = parser.parse_args()
    with PYPROJECT.open() as lock:  # two `make` side by side: the second waits, then finds everything done
        fcntl.flock(lock, fcntl.LOCK_EX)
        if reason := why_rebuild(options.python):
            say(f"building .venv: {reason}")
            create()
        install(options.groups)


if __name__ == "__main__":
    main()
