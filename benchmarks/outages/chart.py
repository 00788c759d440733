"""One picture: how long users waited who arrived in the outage, and how many never got their answer.

Rules of this file: draws figures, computes none. A row of panels for the faults, a bar a system: its length is the p99 on a logarithmic
scale, a tick marks the p50, the label says how many were answered and how many calls were wasted. The dashed line is the oracle.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from outages.contenders import SYSTEMS
from outages.figures import Figures

COLOURS = {"oracle": "#9aa0a6", "ours": "#1a73e8", "hedged": "#1a73e8"}
OTHERS = "#c9a27e"
FEWEST, MOST = 0.2, 40.0
"""Seconds on the axis."""


def draw(
    path: Path,
    faults: Mapping[str, str],
    systems: Sequence[str],
    table: Mapping[tuple[str, str], Figures],
    subtitle: str,
) -> None:
    """Draw it into a file.

    Args:
        path: Its suffix says the format.
        faults: Their titles by their words, in order.
        systems: In order.
        table: What was measured.
        subtitle: What is the same for all.

    Raises:
        ImportError: Without matplotlib.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    columns = min(3, len(faults))
    lines = -(-len(faults) // columns)
    figure, axes = plt.subplots(lines, columns, figsize=(5.6 * columns, 0.9 + 2.9 * lines), squeeze=False)
    for axis, fault in zip(axes.flat, faults, strict=False):
        shown = [system for system in systems if (fault, system) in table]
        _panel(axis, faults[fault], shown, {system: table[fault, system] for system in shown})
    for axis in axes.flat[len(faults) :]:
        axis.set_visible(False)
    figure.suptitle("How long users wait while a provider is sick (p99; tick: p50)", fontsize=14, fontweight="bold")
    figure.text(0.5, 0.005, subtitle, ha="center", fontsize=8, color="#555555")
    figure.tight_layout(rect=(0, 0.02, 1, 0.98))
    figure.savefig(path, dpi=130)
    plt.close(figure)


def _panel(axis: Any, title: str, systems: Sequence[str], rows: Mapping[str, Figures]) -> None:
    for place, system in enumerate(systems):
        figures = rows[system]
        p99, p50 = figures.p99 or FEWEST, figures.p50 or FEWEST
        complete = figures.answered == figures.asked
        axis.barh(
            place,
            max(p99, FEWEST) - FEWEST,
            left=FEWEST,
            height=0.72,
            color=COLOURS.get(system, OTHERS),
            alpha=1.0 if complete else 0.35,
            hatch=None if complete else "///",
            edgecolor="white",
        )
        axis.plot([p50, p50], [place - 0.36, place + 0.36], color="black", linewidth=1.2)
        share = 100 * figures.answered / max(1, figures.asked)
        label = f"{share:.0f} % answered · {figures.wasted} wasted" if system != "oracle" else f"{p99:.2f} s"
        axis.text(
            max(p99, FEWEST) * 1.08, place, label, va="center", fontsize=7, color="black" if complete else "#b3261e"
        )
    oracle = rows.get("oracle")
    if oracle is not None and oracle.p99:
        axis.axvline(oracle.p99, color="#5f6368", linestyle="--", linewidth=0.8)
    axis.set_xscale("log")
    axis.set_xlim(FEWEST, MOST * 8)
    axis.set_xticks([0.3, 1, 3, 10, 30], ["0.3 s", "1 s", "3 s", "10 s", "30 s"], fontsize=7)
    axis.minorticks_off()
    axis.set_yticks(range(len(systems)), [SYSTEMS[system].title for system in systems], fontsize=8)
    axis.invert_yaxis()
    axis.set_title(title, fontsize=10, loc="left")
    axis.spines[["top", "right"]].set_visible(False)
