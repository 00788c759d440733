"""A real Prometheus for a test, with the shipped rules at another speed.

Rules of this file: the process listens on 127.0.0.1, keeps its data in a directory of its own and ends by its pid; what is asked over HTTP is
asked as Grafana does. `faster` is all that is changed in the rules.
"""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlencode
from urllib.request import urlopen

import yaml

from tests.reaper import tell_reaper
from tests.servers import HOST, free_port

_UNITS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_DURATION = re.compile(r"(?<![\w:.$])(\d+)(ms|[smhd])\b")
_AGE = re.compile(r"(?<=time\(\) - )\d+")
LOOKBACK = "5m"
"""Prometheus's default: how long the last sample of a series counts."""


def quicker(text: str, factor: int) -> str:
    """Every duration of an expression, divided."""
    return _DURATION.sub(lambda found: f"{int(found[1]) * _UNITS[found[2]] // factor}ms", text)


def faster(rules: str, factor: int) -> str:
    """The rules with every duration divided: windows, offsets and `for`, and the ages that are written in seconds.

    Thresholds, names and what is told stay as they are, so that the rules are the shipped ones in all but speed.
    """
    written = yaml.safe_load(rules)
    for group in written["groups"]:
        assert set(group) == {"name", "rules"}, "an interval of a group would have to be divided too"
        for rule in group["rules"]:
            expression = _AGE.sub(lambda found: f"{int(found.group()) / factor:g}", rule["expr"])
            rule["expr"] = quicker(expression, factor)
            if "for" in rule:
                rule["for"] = quicker(rule["for"], factor)
    return yaml.safe_dump(written, sort_keys=False)


class Prometheus:
    """One running Prometheus. A context manager.

    Args:
        folder: An empty directory, for its configuration and data.
        rules: The rules' text.
        targets: What is scraped: addresses by job.
        scrape: Seconds between two scrapes and two evaluations; also the longest that a scrape may take.
        factor: By what the rules' durations were divided: its lookback is too.
    """

    def __init__(
        self, folder: Path, rules: str, targets: Mapping[str, list[str]], *, scrape: float, factor: int
    ) -> None:
        self._folder = folder
        pace = f"{round(scrape * 1000)}ms"
        (folder / "alerts.yml").write_text(rules)
        configuration = {
            "global": {"scrape_interval": pace, "scrape_timeout": pace, "evaluation_interval": pace},
            "rule_files": ["alerts.yml"],
            "scrape_configs": [
                {"job_name": job, "static_configs": [{"targets": them}]} for job, them in targets.items()
            ],
        }
        (folder / "prometheus.yml").write_text(yaml.safe_dump(configuration))
        self._port = free_port()
        self._log = folder / "log"
        self._command = [
            "prometheus", f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address={HOST}:{self._port}", f"--query.lookback-delta={quicker(LOOKBACK, factor)}", "--log.level=warn",
        ]  # fmt: skip

    def __enter__(self) -> Self:
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        tell_reaper("+", self._process.pid)
        try:
            self.wait_for(self._is_ready, "Prometheus is ready", 30)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *raised: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        tell_reaper("-", self._process.pid)

    def _is_ready(self) -> bool:
        with urlopen(f"http://{HOST}:{self._port}/-/ready", timeout=2) as response:
            return response.status == 200

    def wait_for(self, condition: Callable[[], Any], what: str, within: float) -> None:
        """Wait until it holds; an unanswered question counts as not yet, a dead process as never."""
        deadline = time.monotonic() + within
        while True:
            try:
                if condition():
                    return
            except OSError:
                pass
            assert self._process.poll() is None, self._log.read_text()
            assert time.monotonic() < deadline, f"not within {within:g} s: {what}\n{self._log.read_text()[-2000:]}"
            time.sleep(0.1)

    def ask(self, path: str, **parameters: object) -> Any:
        """The data of an answer of its API; a query that it can't run raises `HTTPError`."""
        with urlopen(f"http://{HOST}:{self._port}/api/v1/{path}?{urlencode(parameters)}", timeout=10) as response:
            return json.load(response)["data"]

    def firing(self) -> set[tuple[str, str]]:
        """The job and the name of each alert that is firing now."""
        alerts = self.ask("alerts")["alerts"]
        return {(it["labels"]["job"], it["labels"]["alertname"]) for it in alerts if it["state"] == "firing"}

    def has_data(self, query: str, seconds: float) -> bool:
        """Whether a query has a number anywhere in the last so many seconds: what a panel would draw."""
        now = time.time()
        found = self.ask("query_range", query=query, start=now - seconds, end=now, step=1)["result"]
        return any(value != "NaN" for series in found for _, value in series["values"])
