"""The picture of a paired run: the change of each configuration, with its confidence bounds."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ..verdict import Verdict
from .report import headline
from .rows import COLORS, GREY, Row, limits_of, rows_of
from .rule import CHANNEL_NAMES, Channel, Rule

if TYPE_CHECKING:
    from .verdicts import PairedVerdicts

_CHANNELS: Final[tuple[Channel, ...]] = ("device_s", "wall_s")
"""From left to right."""

_CROWD: Final = 80
"""Rows with more dots than this have transparent dots, so that dense places are darker."""

_DOT, _BAND, _LIMIT = "#b6bec7", "#e9f3ec", "#8c1c25"


def draw_paired(
    path: Path,
    results: Sequence[Mapping[str, Any]],
    verdicts: PairedVerdicts,
    rules: Mapping[str, Rule],
    caption: str,
) -> bool:
    """Draw a row for each configuration and each control: palindromes, processes, mean and bounds.

    Args:
        path: of the PNG.
        results: what each process wrote.
        verdicts: the verdicts on these results.
        rules: by configuration.
        caption: what was compared, and on which machine.

    Returns:
        Whether a picture was written. None is without matplotlib (an extra) or without a configuration.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return False
    rows = rows_of(results, verdicts, rules)
    if not rows:
        return False
    figure = Figure(figsize=(9, 2.1 + 0.52 * len(rows)), layout="constrained")
    panels = figure.subplots(1, len(_CHANNELS), sharex=True, sharey=True)
    limits = limits_of(rows)
    for axes, channel in zip(panels, _CHANNELS, strict=True):
        for y, row in enumerate(rows):
            _draw_row(axes, y, row, channel, limits)
        _dress(axes, channel, len(rules), len(rows), limits)
    _label(panels, rows)
    _title(figure, headline(verdicts))
    _legend(figure, caption)
    figure.savefig(path, dpi=150)
    return True


def _draw_row(axes: Any, y: int, row: Row, channel: Channel, limits: tuple[float, float]) -> None:
    margin, must_see, color = 100 * row.rule.margin, 100 * row.rule.must_see, row.color_of(channel)
    axes.fill_betweenx(
        [y - 0.5, y + 0.5], -margin / (1 + row.rule.margin), margin, color=_BAND, lw=0, zorder=0
    )
    axes.plot([must_see, must_see], [y - 0.5, y + 0.5], color=_LIMIT, lw=1, ls=(0, (4, 3)), zorder=1)
    palindromes, processes = row.dots[channel]
    spread = [y + 0.26 + 0.12 * (number % 3 - 1) / 2 for number in range(len(palindromes))]
    faint = min(1.0, max(0.15, _CROWD / max(1, len(palindromes))))
    _dots(axes, palindromes, spread, limits, size=7, color=_DOT, zorder=2, alpha=faint)
    bounds = row.bounds(channel)
    if bounds:
        low, middle, high = (min(max(each, limits[0]), limits[1]) for each in bounds)
        axes.plot([low, high], [y - 0.08] * 2, color=color, lw=5, alpha=0.35, solid_capstyle="butt", zorder=3)
        if middle == bounds[1]:
            axes.plot([middle] * 2, [y - 0.24, y + 0.08], color=color, lw=2.5, zorder=5)
    _dots(axes, processes, [y - 0.08] * len(processes), limits, size=20, color=color, zorder=4)


def _dots(
    axes: Any, values: Sequence[float], heights: Sequence[float], limits: tuple[float, float],
    *, size: float, color: str, zorder: int, alpha: float = 1.0,
) -> None:  # fmt: skip
    """Draw dots, and arrows at the edge for values beyond it."""
    low, high = limits
    inside = [(x, y) for x, y in zip(values, heights, strict=True) if low <= x <= high]
    style: dict[str, Any] = {
        "s": size, "color": color, "zorder": zorder, "alpha": alpha, "linewidths": 0, "clip_on": False,
    }  # fmt: skip
    axes.scatter([x for x, _ in inside], [y for _, y in inside], **style)
    for edge, marker, beyond in (
        (low, "<", [v < low for v in values]),
        (high, ">", [v > high for v in values]),
    ):
        there = [y for y, out in zip(heights, beyond, strict=True) if out]
        if there:
            axes.scatter([edge] * len(there), there, marker=marker, **{**style, "s": 2 * size})


def _dress(axes: Any, channel: Channel, configurations: int, rows: int, limits: tuple[float, float]) -> None:
    axes.set_xlim(*limits)
    axes.set_ylim(rows - 0.5, -0.5)
    axes.axvline(0, color="#57606a", lw=0.8, zorder=1)
    if rows > configurations:
        axes.axhline(configurations - 0.5, color="#57606a", lw=0.8)
    axes.set_title(CHANNEL_NAMES[channel], loc="left", fontsize=10)
    axes.set_xlabel("← faster      change in %      slower →", fontsize=9)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:+g}" if value else "0")
    axes.tick_params(labelsize=9, left=False)
    axes.spines[["top", "right", "left"]].set_visible(False)


def _label(panels: Any, rows: Sequence[Row]) -> None:
    """Write names at the left and verdicts at the right."""
    panels[0].set_yticks(range(len(rows)), [textwrap.fill(row.label, 24) for row in rows])
    for tick, row in zip(panels[0].get_yticklabels(), rows, strict=True):
        tick.set(color=GREY if row.control else "black", fontsize=8 if row.control else 9)
    for y, row in enumerate(rows):
        weight, size = ("normal", 9) if row.control else ("bold", 10)
        at = {"xy": (1, y), "xycoords": ("axes fraction", "data"), "textcoords": "offset points"}
        panels[-1].annotate(
            row.says, xytext=(10, 1), va="bottom", fontsize=size, fontweight=weight, color=row.color, **at
        )
        panels[-1].annotate(row.detail, xytext=(10, -1), va="top", fontsize=8, color=GREY, **at)


def _title(figure: Any, text: str) -> None:
    """Write the headline, one line for each of its parts, in the colour of the whole run."""
    lines = [textwrap.fill(part, 92, subsequent_indent="    ") for part in text.split("; ")]
    color = COLORS[Verdict.PASS if text.startswith("GREEN") else Verdict.REGRESSED]
    figure.suptitle("\n".join(lines), fontsize=11, fontweight="bold", color=color, x=0.01, ha="left")


def _legend(figure: Any, caption: str) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    dot: dict[str, Any] = {"marker": "o", "lw": 0}
    handles = {
        "process": Line2D([], [], color=GREY, markersize=5, **dot),
        "mean of processes, bounds": Line2D([], [], color=GREY, lw=5, alpha=0.4),
        "palindrome (A B B A)": Line2D([], [], color=_DOT, markersize=3, **dot),
        "margin": Patch(color=_BAND),
        "must be seen": Line2D([], [], color=_LIMIT, lw=1, ls=(0, (4, 3))),
    }
    figure.legend(
        list(handles.values()), list(handles), loc="outside lower left", ncols=len(handles), fontsize=8,
        frameon=False, title=textwrap.fill(caption, 130), title_fontsize=8, alignment="left",
    )  # fmt: skip
