"""How the command's tests run it: in this process, where its parts are looked at; as a user does, where the process is the point."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

from langchain_resilient.cli.sources import KEYS
from langchain_resilient.testing import FaultServer

ROOT = Path(__file__).parent.parent.parent
COMMAND = (sys.executable, "-m", "langchain_resilient.cli")
# What a shell starts in the background ignores Ctrl-C, and so does all that it starts: these tests may be among it.
INTERRUPTIBLE = (
    sys.executable,
    "-c",
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from langchain_resilient.cli import main; main()",
)
OPENAI_KEY = "planted-openai-key-4711"
ANTHROPIC_KEY = "planted-anthropic-key-0815"


class Ran(NamedTuple):
    """What a run left behind."""

    code: int
    out: str
    err: str


def environment(server: FaultServer | None = None, *wires: str, **more: str) -> dict[str, str]:
    """This environment, with keys for the wires and the server as their address."""
    keys = {name for key in KEYS for name in key.variables}
    kept = {name: value for name, value in os.environ.items() if name not in keys}  # the developer's own
    found = {**kept, "PYTHONPATH": str(ROOT), "LANG": "C.UTF-8", "COLUMNS": "80"}
    if server is not None and "openai" in wires:
        found |= {"OPENAI_API_KEY": OPENAI_KEY, "OPENAI_BASE_URL": server.base_url("openai")}
    if server is not None and "anthropic" in wires:
        found |= {"ANTHROPIC_API_KEY": ANTHROPIC_KEY, "ANTHROPIC_BASE_URL": server.base_url("anthropic")}
    if server is not None and "ollama" in wires:
        found |= {"OLLAMA_HOST": server.base_url("ollama")}
    return found | more


def command(*arguments: str, env: dict[str, str], cwd: Path | None = None, **options: Any) -> Ran:
    """Run it in a process of its own, without a terminal."""
    words = [*COMMAND, *arguments]
    done = subprocess.run(words, env=env, cwd=cwd, capture_output=True, text=True, timeout=50, check=False, **options)
    return Ran(done.returncode, done.stdout, done.stderr)


def config(directory: Path, server: FaultServer, *names: str, more: str = "") -> Path:
    """A file with an Ollama model of each name at the server, without backoff."""
    lines = [
        f"  - model: ollama:{name}\n    model_kwargs: {{base_url: '{server.base_url('ollama')}'}}\n" for name in names
    ]
    path = directory / "resilience.yaml"
    path.write_text("providers:\n" + "".join(lines) + (more or "retry: {base_delay: 0}\n"), encoding="utf-8")
    return path
