"""What is left of a test process that was killed is removed: its processes by their pids, its directories by their paths.

A small process of our own holds the list, and goes through it when the pipe to it breaks. What ended in good order is off the list by then.
"""

from __future__ import annotations

import atexit
import os
import subprocess
import sys
import threading
from pathlib import Path

REAPER = """
import os, shutil, signal, sys
pids, folders = set(), set()
for line in sys.stdin:
    sign, what = line[0], line[1:-1]
    held, what = (pids, int(what)) if what.isdigit() else (folders, what)
    held.add(what) if sign == "+" else held.discard(what)
for pid in pids:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
for folder in folders:
    shutil.rmtree(folder, ignore_errors=True)
"""
_reaper: subprocess.Popen[str] | None = None
_reaper_lock = threading.Lock()


def tell_reaper(sign: str, what: int | Path) -> None:
    """Have a pid or a directory (+), or no longer have it (-), removed should this process end without doing so."""
    global _reaper  # noqa: PLW0603  # one for the process, made when the first server is
    with _reaper_lock:
        if _reaper is None:
            command = [sys.executable, "-I", "-S", "-c", REAPER]
            _reaper = subprocess.Popen(command, stdin=subprocess.PIPE, text=True, start_new_session=True)
            atexit.register(_end_reaper, _reaper, os.getpid())
        assert _reaper.stdin is not None
        _reaper.stdin.write(f"{sign}{what}\n")
        _reaper.stdin.flush()


def _end_reaper(reaper: subprocess.Popen[str], owner: int) -> None:
    if os.getpid() == owner and reaper.stdin is not None:
        reaper.stdin.close()
        reaper.wait(10)
