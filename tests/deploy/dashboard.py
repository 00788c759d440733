"""The dashboard's panels and queries, for the tests that read it and the one that asks a Prometheus."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

DASHBOARD = Path(__file__).parent.parent.parent / "deploy" / "grafana" / "dashboard.json"
PANELS: list[dict[str, Any]] = [
    panel for panel in json.loads(DASHBOARD.read_text())["panels"] if panel["type"] != "row"
]


def queries(panel: dict[str, Any]) -> list[str]:
    """What a panel asks."""
    return [target["expr"] for target in panel["targets"]]


def filled(query: str, interval: str) -> str:
    """A query as Grafana sends it with every variable at "All"."""
    filled = query.replace("$__rate_interval", interval)
    for variable in ("job", "provider", "instance"):
        filled = filled.replace(f'"${variable}"', '".*"')
    assert not re.search(r"\$[a-z_]", filled), filled  # "$1" is what label_replace() has found
    return filled
