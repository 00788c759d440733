"""What upstream's tests run in: their sources and an environment for them, kept in `.upstream` until a version changes.

Rules of this file: tests come from an sdist (or from a checkout that the user names) and the packages they test from the index, so only the
tests and their settings are unpacked. Nothing is ever changed in what was unpacked. What is complete has a stamp; the rest is made again.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from pathlib import Path

from upstream.suites import NOT_NEEDED, OURS, PINS, Suite

ROOT = Path(__file__).resolve().parents[2]
HOME = ROOT / ".upstream"
LOGS = HOME / "logs"
STAMP = ".complete"


def say(text: str) -> None:
    """Print one line at once."""
    print(f"upstream_tests: {text}", flush=True)


def quiet(*command: str | Path) -> None:
    """Run a command; show what it said only if it fails."""
    done = subprocess.run([str(part) for part in command], check=False, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{done.stdout}{done.stderr}\nupstream_tests: failed: {' '.join(str(part) for part in command)}")


def prepare_home() -> None:
    """Make `.upstream`, which ignores itself."""
    LOGS.mkdir(parents=True, exist_ok=True)
    (HOME / ".gitignore").write_text("*\n")


# -------------------------------------------------------------------------------------------------------------- sources
def sources(suite: Suite, checkout: Path | None) -> Path:
    """The folder with a suite's tests, fetched if it is not there."""
    version = suite.version or _version_of(checkout)
    folder = HOME / f"{suite.name}-{version}"
    if not (folder / STAMP).exists():
        shutil.rmtree(folder, ignore_errors=True)
        say(f"fetching the tests of {suite.name} {version}")
        if suite.version is None:
            _copy(checkout, folder)
        else:
            _unpack(suite, folder)
        (folder / STAMP).touch()
    return folder


def _version_of(checkout: Path | None) -> str:
    if checkout is None or not (checkout / "pyproject.toml").is_file():
        sys.exit(f"upstream_tests: {checkout} is no checkout of libs/deepagents: it has no pyproject.toml")
    version: str = tomllib.loads((checkout / "pyproject.toml").read_text())["project"]["version"]
    return version


def _copy(checkout: Path | None, folder: Path) -> None:
    if checkout is not None:
        shutil.copytree(checkout / "tests", folder / "tests", ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(checkout / "pyproject.toml", folder)


def _unpack(suite: Suite, folder: Path) -> None:
    with tempfile.TemporaryDirectory() as directory:
        # The package itself is not built, but pip asks its build back end for its name.
        quiet(
            *(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", suite.name),
            *("--dest", directory, f"{suite.name}=={suite.version}"),
        )
        [archive] = Path(directory).glob("*.tar.gz")
        with tarfile.open(archive) as tar:
            tar.extractall(directory, filter="data")
        top = Path(directory, f"{suite.distribution}-{suite.version}")
        if not (top / "tests").is_dir():
            sys.exit(f"upstream_tests: the sdist of {suite.name} {suite.version} holds no tests")
        _copy(top, folder)


# ---------------------------------------------------------------------------------------------------------- environment
def environment(name: str, folders: dict[Suite, Path]) -> Path:
    """The Python of an environment for these suites, made if they or our own dependencies changed."""
    venv = HOME / f"venv-{name}"
    python = venv / "bin" / "python"
    wanted = [*PINS[name], *OURS]
    for suite, folder in folders.items():
        wanted += [f"{suite.name}=={_version_of(folder)}", *_test_requirements(folder)]
    ours = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    content = "\n".join([*wanted, *ours, sys.version, str(ROOT)])  # the checkout is installed as it lies there
    stamp = hashlib.sha256(content.encode()).hexdigest()
    if not (venv / STAMP).is_file() or (venv / STAMP).read_text() != stamp:
        say(f"making the environment of {', '.join(suite.name for suite in folders)}")
        shutil.rmtree(venv, ignore_errors=True)
        # Filled by the pip that runs us: not every Python has an ensurepip.
        quiet(sys.executable, "-m", "venv", "--without-pip", venv)
        quiet(sys.executable, "-m", "pip", "--python", python, "install", "--quiet", *wanted, "--editable", ROOT)
        (venv / STAMP).write_text(stamp)
    return python


def _test_requirements(folder: Path) -> list[str]:
    groups = tomllib.loads((folder / "pyproject.toml").read_text())["dependency-groups"]
    return [line for line in groups["test"] if isinstance(line, str) and _name(line) not in NOT_NEEDED]


def _name(requirement: str) -> str:
    return re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0].lower()


def installed(python: Path) -> str:
    """Everything that is installed, as text: a baseline holds for exactly this."""
    listing = subprocess.run(
        [sys.executable, "-m", "pip", "--python", str(python), "list", "--format=freeze"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    return "\n".join(line for line in listing.splitlines() if not line.startswith("langchain-resilient"))


def scrubbed() -> dict[str, str]:
    """The environment variables of a run: no key, no tracing, no pytest options of the user's."""
    prefixes = (
        "LANGSMITH_",
        "LANGCHAIN_",
        "OPENAI_",
        "ANTHROPIC_",
        "GOOGLE_",
        "PYTEST_",
        "PYTHON",
        "UPSTREAM_",
        "CI",
        "COV_",
    )
    kept = {
        key: value for key, value in os.environ.items() if not key.startswith(prefixes) and not key.endswith("_KEY")
    }
    # LiteLLM's import dials out for a price list without it; the editable checkout must not be littered by parallel workers.
    return {**kept, "LITELLM_LOCAL_MODEL_COST_MAP": "True", "PYTHONDONTWRITEBYTECODE": "1"}
