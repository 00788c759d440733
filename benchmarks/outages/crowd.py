"""Runs cells in processes of their own, a few at once, and leaves none behind.

Rules of this file: a process is known by its handle and stopped through it. Its environment is made, not inherited: no key, proxy or
tracing variable of the user's takes part. The cells of one batch begin at the same instant, when all of them are ready.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from outages.cell import STRAGGLERS, Spec
from outages.figures import Fate, Run, quantile
from outages.lateness import look
from outages.stage import Call

HERE = Path(__file__).resolve().parent
KEPT = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "SYSTEMROOT")
"""Variables that a process can't do without."""
SETTLE = 1.0
"""Seconds between the last one's being ready and the beginning."""
PREPARE = 180.0
"""Seconds that a process may take to be ready: LiteLLM's import alone takes several on a busy machine."""
FAREWELL = 5.0
"""Seconds that a process may take to end by itself."""
LONGEST_LINE = 2**26


class CellError(Exception):
    """A cell's process ended without a result."""


class Process:
    """One cell's."""

    def __init__(self, spec: Spec, handle: asyncio.subprocess.Process, errors: IO[bytes]) -> None:
        self.spec = spec
        self._handle = handle
        self._errors = errors

    @classmethod
    async def start(cls, spec: Spec, module: str) -> Process:
        """Start it; it prepares itself at once."""
        errors = tempfile.TemporaryFile()  # noqa: SIM115  # closed by `stop`
        handle = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", module, spec.to_json()),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=errors,
            env=environment(),
            limit=LONGEST_LINE,
            start_new_session=True,  # a Ctrl-C is the parent's to deal with
        )
        return cls(spec, handle, errors)

    async def hear(self, seconds: float) -> dict[str, Any]:
        """The next line that it says."""
        assert self._handle.stdout is not None  # noqa: S101  # it was asked for
        try:
            line = await asyncio.wait_for(self._handle.stdout.readline(), seconds)
        except TimeoutError:
            line = b""
        if not line:
            self._errors.seek(0)
            said = self._errors.read().decode(errors="replace").strip().splitlines()[-15:]
            msg = f"{self.spec.system} under {self.spec.fault} ended early:\n" + "\n".join(said)
            raise CellError(msg)
        heard: dict[str, Any] = json.loads(line)
        return heard

    def go(self, zero: float) -> None:
        """Tell it when to begin."""
        assert self._handle.stdin is not None  # noqa: S101  # it was asked for
        self._handle.stdin.write(f"go {zero}\n".encode())

    async def ended(self) -> None:
        """Wait for its end, which comes by itself after its last word. A signal now would race with whoever collects its status."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._handle.wait(), FAREWELL)

    async def stop(self) -> None:
        """End it, whatever it is at."""
        if self._handle.returncode is None:
            self._handle.kill()
        await self._handle.wait()
        self._errors.close()


def environment() -> dict[str, str]:
    """What a cell's process sees of the user's environment, and what it needs beside it."""
    kept = {name: os.environ[name] for name in KEPT if name in os.environ}
    return kept | {
        "PYTHONPATH": os.pathsep.join((str(HERE.parent), str(HERE.parent.parent))),
        "NO_PROXY": "127.0.0.1,localhost",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # else it is fetched from the network
        "LITELLM_MODE": "PRODUCTION",  # else it reads the .env files around
    }


async def run_batch(
    specs: Sequence[Spec], missing: Callable[[Spec, str], object], module: str = "outages.cell"
) -> list[Run]:
    """Run these at once.

    Args:
        specs: What to run.
        missing: Told of those that can't take part here, and why.
        module: Whose process it is: one that calls `outages.cell.perform`.
    """
    processes: list[Process] = []
    try:
        for spec in specs:
            processes.append(await Process.start(spec, module))  # noqa: PERF401  # those that were started are stopped
        heard = await asyncio.gather(*(process.hear(PREPARE) for process in processes))
        for process, first in zip(processes, heard, strict=True):
            if "missing" in first:
                missing(process.spec, first["missing"])
                await process.ended()
        ready = [process for process, first in zip(processes, heard, strict=True) if "ready" in first]
        zero = time.monotonic() + SETTLE
        for process in ready:
            process.go(zero)
        idle: list[float] = []
        looking = asyncio.create_task(look(idle))
        try:
            told = await asyncio.gather(*(_result(process) for process in ready))
        finally:
            looking.cancel()
        machine = quantile(sorted(idle), 0.99) or 0.0
        return [run._replace(machine=machine) for run in told]
    finally:
        await asyncio.gather(*(process.stop() for process in processes))


async def _result(process: Process) -> Run:
    spec = process.spec
    told = await process.hear(SETTLE + spec.timeline.seconds + STRAGGLERS + 30)
    await process.ended()
    return Run(
        system=spec.system,
        fault=spec.fault,
        fates=tuple(Fate(*fate) for fate in told["fates"]),
        calls=tuple(Call(*call) for call in told["calls"]),
        lags=(told["lags"][0], told["lags"][1]),
        machine=0.0,
        cpu=told["cpu"],
        versions=told["versions"],
    )
