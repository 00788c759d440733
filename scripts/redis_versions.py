"""Run the tests of the Redis store on each supported version of redis-py: `python scripts/redis_versions.py [VERSION...] [PYTEST ARGUMENT...]`.

No environment is built: a directory in .redis-versions holds one redis-py and nothing else of .venv, and comes first on PYTHONPATH. It is
kept until the pattern of its version changes (`make clean` removes all). A version whose tests fail does not keep the others from running.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HOME = ROOT / ".redis-versions"
VERSIONS = ("5.3", "6.4", "7.4", "8.1")  # the last of each major version that `pyproject.toml` allows
# What touches redis-py's own API, and the stores that speak to a server through it: the rest of the suite meets it through these modules.
STORE = "tests/engine/store/redis"
FILES = (f"{STORE}/post", *[f"{STORE}/test_{name}.py" for name in ("store", "mirror", "debts", "exchange", "tenants")])
PYTEST = [sys.executable, "-m", "pytest", "-q", "-n", "auto", "--maxprocesses", "4", "-p", "no:cacheprovider"]


def say(text: str) -> None:
    """Print one line at once, so that it stays in order with what the child processes print."""
    print(f"redis_versions: {text}", flush=True)


def directory_of(version: str) -> Path:
    """The directory that holds this version, filled if need be: half-filled ones lie at another name."""
    target = HOME / f"{version}-py{sys.version_info.major}.{sys.version_info.minor}"
    if target.exists():
        return target
    unfinished = target.with_name(target.name + "-unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    say(f"fetching redis-py {version}.*")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    command += ["--target", str(unfinished), f"redis=={version}.*"]
    if subprocess.run(command, check=False, cwd=ROOT).returncode:
        sys.exit(f"redis_versions: pip could not install redis=={version}.* (its message is above)")
    unfinished.rename(target)
    return target


def environment_of(version: str) -> dict[str, str]:
    """The environment in which `import redis` finds this version; ends the run if it doesn't."""
    path = [str(directory_of(version)), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path)}
    program = [sys.executable, "-c", "import redis; print(redis.__version__)"]
    found = subprocess.run(program, check=True, cwd=ROOT, env=environment, capture_output=True, text=True).stdout
    if not found.startswith(f"{version}."):
        sys.exit(
            f"redis_versions: with {path[0]} first on PYTHONPATH, redis-py is {found.strip()}: `make clean`, then again"
        )
    say(f"on redis-py {found.strip()}")
    return environment


def main() -> None:
    """Run each version; fail if one did, naming those that did."""
    arguments = sys.argv[1:]
    wanted = [argument for argument in arguments if argument in VERSIONS]
    further = [argument for argument in arguments if argument not in VERSIONS]
    files = [name for name in FILES if (ROOT / name).exists()]
    if missing := [name for name in FILES if name not in files]:
        say(f"NOT RUN, there is no such file: {', '.join(missing)}")
    if not files:
        return
    command = [*PYTEST, *further, *files]
    runs = {
        version: subprocess.run(command, check=False, cwd=ROOT, env=environment_of(version)).returncode
        for version in wanted or VERSIONS
    }
    failed = [version for version, code in runs.items() if code]
    if failed:
        sys.exit(f"redis_versions: FAILED on redis-py {', '.join(failed)}")


if __name__ == "__main__":
    main()
