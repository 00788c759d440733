"""Run the tests of the Redis store on each supported version of redis-py: `python scripts/redis_versions.py [VERSION...] [PYTEST ARGUMENT...]`.

No environment is built: a directory in .redis-versions holds one redis-py and nothing else of .venv, and comes first on PYTHONPATH. It is
kept until the pattern of its version changes (`make clean` removes all). A version whose tests fail does not keep the others from running.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from each_version import ROOT, checked, completed, run_each, say

HOME = ROOT / ".redis-versions"
VERSIONS = ("5.3", "6.4", "7.4", "8.1")  # the last of each major version that `pyproject.toml` allows
# What touches redis-py's own API, and the stores that speak to a server through it: the rest of the suite meets it through these modules.
STORE = "tests/engine/store/redis"
FILES = (f"{STORE}/post", *[f"{STORE}/test_{name}.py" for name in ("store", "mirror", "debts", "exchange", "tenants")])
PYTEST = [sys.executable, "-m", "pytest", "-q", "-n", "auto", "--maxprocesses", "4", "-p", "no:cacheprovider"]


def directory_of(version: str) -> Path:
    """The directory that holds this version, filled if need be."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    target = HOME / f"{version}-py{sys.version_info.major}.{sys.version_info.minor}"
    return completed(target, [*command, "--target", "{}", f"redis=={version}.*"])


def environment_of(version: str) -> Mapping[str, str]:
    """The environment in which `import redis` finds this version; ends the run if it doesn't."""
    path = [str(directory_of(version)), *filter(None, [os.environ.get("PYTHONPATH")])]
    return checked({**os.environ} | {"PYTHONPATH": os.pathsep.join(path)}, sys.executable, "redis", version)


def main() -> None:
    """Run each version; fail if one did, naming those that did."""
    files = [name for name in FILES if (ROOT / name).exists()]
    if missing := [name for name in FILES if name not in files]:
        say(f"NOT RUN, there is no such file: {', '.join(missing)}")
    if not files:
        return
    run_each(VERSIONS, lambda further: [*PYTEST, *further, *files], environment_of)


if __name__ == "__main__":
    main()
