"""Install what the tests marked `system` need, then run them; `make test-full` calls this after `make test`.

Nothing is skipped here: a package that cannot be installed, and a system test that would skip, end the run as failed.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

NO_TESTS_COLLECTED = 5  # pytest's exit code
PYTEST = [sys.executable, "-m", "pytest", "-m", "system", "--system"]
# Installing a server must not start it: the tests start their own, at ports of their own. Debian's maintainer scripts ask this file, under
# systemd and without; one that is there already is somebody's own decision and stays.
WITHOUT_SERVICES = r"""
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    trap 'exit 130' INT TERM HUP
    printf '#!/bin/sh\nexit 101\n' >"$policy" && chmod 755 "$policy"
fi
"$@"
"""


def packages_needed() -> list[str] | None:
    """The Debian packages that the marks name, or None when no test is marked."""
    with tempfile.TemporaryDirectory() as directory:
        listing = Path(directory, "packages")
        done = subprocess.run(
            [*PYTEST, "--collect-only", "-q", f"--write-system-packages={listing}"],
            check=False,
            capture_output=True,
            text=True,
        )
        if done.returncode == NO_TESTS_COLLECTED:
            return None
        if done.returncode:
            sys.exit(f"{done.stdout}{done.stderr}\nsystem_tests: collecting the tests failed")
        return listing.read_text().split()


def is_installed(package: str) -> bool:
    """Whether dpkg has the package, complete."""
    query = ["dpkg-query", "--show", "--showformat=${db:Status-Status}", package]
    done = subprocess.run(query, check=False, capture_output=True, text=True)
    return done.stdout == "installed"


def install(packages: list[str]) -> None:
    """Install packages with apt-get, starting no service, as root or through sudo without a question; fail otherwise."""
    sudo = [] if os.geteuid() == 0 else ["sudo", "--non-interactive"]
    quietly = ["env", "DEBIAN_FRONTEND=noninteractive", "sh", "-c", WITHOUT_SERVICES, "sh"]
    print(f"system_tests: installing {' '.join(packages)}", flush=True)
    for action in (["update", "-qq"], ["install", "-qq", "--yes", "--no-install-recommends", *packages]):
        command = ["apt-get", *action]
        if subprocess.run([*sudo, *quietly, *command], check=False, stdin=subprocess.DEVNULL).returncode:
            sys.exit(
                f"system_tests: {' '.join([*sudo, *command])} failed: install {' '.join(packages)} yourself and run again"
            )


def main() -> None:
    """Collect, install, run."""
    try:
        packages = packages_needed()
        if packages is None:
            print("No test needs system packages yet: `make test` has run them all.")
            return
        if missing := [package for package in packages if not is_installed(package)]:
            install(missing)
    except FileNotFoundError as error:
        sys.exit(
            f"system_tests: {error.filename} not found: these tests install their packages on Debian or Ubuntu only"
        )
    sys.exit(subprocess.run(PYTEST, check=False).returncode)


if __name__ == "__main__":
    main()
