"""Draws docs/cpu-speed.png: xenc beside sentence-transformers and OpenVINO in bfloat16 on a processor.

    python docs/draw_cpu_speed.py

The numbers are those of the table in docs/benchmarks.md.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure

COLOURS: Final = {"sentence-transformers": "#9aa4af", "OpenVINO": "#6e7781", "xenc": "#1f6feb"}

PAIRS_PER_SECOND: Final = {
    "seed: 2 to 15 sentences a side, n = 7": (17.9, 25.8, 34.8),
    "short-query: one query, 100 documents, n = 9": (101.8, 165.7, 232.9),
    "skewed: one long pair in eight, n = 11": (57.1, 97.5, 127.8),
}
"""For each workload the median of n rounds of each system, in the order of COLOURS."""

MEASURED: Final = (
    "MiniLM-L6 in bfloat16, tokenizing included; two cores of an AMD EPYC (Zen 4, AVX-512), commit 7811146"
)


def draw_workload(axes: Axes, title: str, speeds: tuple[float, ...]) -> None:
    """A bar for each system, with its pairs/s."""
    bars = axes.bar(list(COLOURS), speeds, color=list(COLOURS.values()), width=0.7)
    axes.bar_label(bars, [f"{speed:g}" for speed in speeds], fontsize=10)
    axes.set_title(title, fontsize=9)
    axes.set_ylim(0, 1.1 * max(speeds))
    axes.set_yticks([])
    axes.tick_params(labelsize=8, length=0)
    axes.spines[["top", "right", "left"]].set_visible(False)


def main() -> None:
    """Write the picture."""
    figure = Figure(figsize=(11, 3.2), layout="constrained")
    panels = figure.subplots(1, len(PAIRS_PER_SECOND))
    for axes, (title, speeds) in zip(panels, PAIRS_PER_SECOND.items(), strict=True):
        draw_workload(axes, title, speeds)
    figure.suptitle("pairs per second on a CPU (higher is better)", fontsize=11)
    figure.supxlabel(MEASURED, fontsize=8)
    figure.savefig(Path(__file__).with_name("cpu-speed.png"), dpi=110)


if __name__ == "__main__":
    main()
