"""The picture of a paired run: the change of each configuration and control, with its confidence bounds."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ..report import label
from ..verdict import Judgement, Verdict
from .report import controls_held, headline, telling
from .rule import CHANNEL_NAMES, Channel, Rule, change_in_process

if TYPE_CHECKING:
    from .verdicts import PairedVerdicts, Result

_CHANNELS: Final[tuple[Channel, ...]] = ("device_s", "wall_s")

_GREEN, _BLUE, _RED, _ORANGE, _GREY = "#1a7f37", "#1f6feb", "#cf222e", "#bc6a00", "#6e7781"
_COLORS: Final[Mapping[Verdict, str]] = {
    Verdict.PASS: _GREEN, Verdict.IMPROVED: _BLUE, Verdict.REGRESSED: _RED, Verdict.INCONCLUSIVE: _ORANGE,
}  # fmt: skip

_BAND: Final[Mapping[str, Any]] = {"color": "#e9f3ec", "lw": 0}
_LIMIT: Final[Mapping[str, Any]] = {"color": "#8c1c25", "lw": 1, "ls": (0, (4, 3))}


@dataclass(frozen=True, kw_only=True)
class _Row:
    label: str
    rule: Rule
    timed: Mapping[Channel, Judgement]
    blocks: Sequence[Sequence[Mapping[str, Any]]]
    arms: tuple[str, str]
    says: str
    detail: str
    color: str
    judged: bool = False


def draw_paired(
    path: Path, results: Sequence[Result], verdicts: PairedVerdicts, rules: Mapping[str, Rule], caption: str
) -> bool:
    """Draw a row for each configuration and control in a panel for each channel; say whether it was drawn.

    Nothing is drawn without matplotlib (an extra) or without a configuration.

    Args:
        path: of the PNG.
        results: what each process wrote.
        verdicts: the verdicts on these results.
        rules: by configuration.
        caption: what was compared, and on which machine.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return False
    rows = list(_rows(results, verdicts, rules))
    if not rows:
        return False
    figure = Figure(figsize=(9, 2 + 0.45 * len(rows)), layout="constrained")
    panels = figure.subplots(1, len(_CHANNELS), sharex=True, sharey=True)
    for axes, channel in zip(panels, _CHANNELS, strict=True):
        for y, row in enumerate(rows):
            _draw_row(axes, y, row, channel)
        axes.set(ylim=(len(rows) - 0.5, -0.5), xlabel="← faster      change in %      slower →")
        axes.axvline(0, color=_GREY, lw=0.8, zorder=1)
        axes.axhline(len(rules) - 0.5, color=_GREY, lw=0.8)
        axes.set_title(CHANNEL_NAMES[channel], loc="left", fontsize=10)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:+g}" if value else "0")
        axes.tick_params(left=False, labelsize=9)
        axes.spines[["top", "right", "left"]].set_visible(False)
    panels[0].set_yticks(range(len(rows)), [textwrap.fill(row.label, 24) for row in rows])
    _frame(figure, headline(verdicts), caption)
    figure.savefig(path, dpi=150)
    return True


def _rows(results: Sequence[Result], verdicts: PairedVerdicts, rules: Mapping[str, Rule]) -> Iterator[_Row]:
    """The rows of the configurations, then those of the controls."""
    held = controls_held(verdicts)
    blocks = {name: [result["configurations"][name]["blocks"] for result in results] for name in rules}
    for name, rule in rules.items():
        judgement = verdicts.configurations[name]
        told = [telling(verdicts, name).removesuffix(" time"), *judgement.exact, *judgement.changed]
        yield _Row(
            label=label(name), rule=rule, blocks=blocks[name], arms=("head", "base"),
            timed={channel: verdicts.timed[name, channel] for channel in _CHANNELS},
            says=judgement.verdict, color=_COLORS.get(judgement.verdict, _GREY),
            detail=next(filter(None, told), "" if held else "the controls failed"),
            judged=held and judgement.verdict is not Verdict.NOT_MEASURED,
        )  # fmt: skip
    for name, arms in dict.fromkeys((control.configuration, control.arms) for control in verdicts.controls):
        mine = [each for each in verdicts.controls if (each.configuration, each.arms) == (name, arms)]
        failed = [control for control in mine if not control.held]
        control = (failed or mine)[0]
        yield _Row(
            label=f"control: {control.name}", rule=rules[name], blocks=blocks[name], arms=arms,
            timed={each.channel: each.judgement for each in mine},
            says="FAILED" if failed else "as expected", color=_RED if failed else _GREY,
            detail=control.judgement.verdict + (f", not {control.expected}" if failed else ""),
        )  # fmt: skip


def _draw_row(axes: Any, y: int, row: _Row, channel: Channel) -> None:
    """Draw the margins, a dot for each process, their mean with its bounds, and the verdict at the right."""
    margin, must_see, ends = 100 * row.rule.margin, 100 * row.rule.must_see, [y - 0.5, y + 0.5]
    axes.fill_betweenx(ends, -margin / (1 + row.rule.margin), margin, zorder=0, **_BAND)
    axes.plot([must_see, must_see], ends, zorder=1, **_LIMIT)
    timed = row.timed[channel]
    color = _COLORS[timed.verdict] if row.judged else _GREY
    if timed.ratio is not None and timed.uncertainty is not None:
        mean, half = math.log(timed.ratio), timed.uncertainty
        low, middle, high = map(_percent, (mean - half, mean, mean + half))
        axes.plot([low, high], [y, y], color=color, lw=6, alpha=0.3, solid_capstyle="butt", zorder=2)
        axes.plot([middle, middle], [y - 0.2, y + 0.2], color=color, lw=2, zorder=4)
    head, base = row.arms
    changes = [change_in_process(blocks, channel, head=head, base=base) for blocks in row.blocks]
    dots = [_percent(each) for each in changes if each is not None]
    axes.scatter(dots, [y] * len(dots), s=18, color=color, edgecolor="white", lw=0.5, zorder=3)
    if channel == _CHANNELS[-1]:
        at = {"xy": (1, y), "xycoords": ("axes fraction", "data"), "textcoords": "offset points"}
        axes.annotate(row.says, xytext=(10, 1), va="bottom", weight="bold", color=row.color, **at)
        detail = textwrap.shorten(row.detail, 26, placeholder=" ...")
        axes.annotate(detail, xytext=(10, -1), va="top", fontsize=8, color=_GREY, **at)


def _percent(change: float) -> float:
    return 100 * math.expm1(change)


def _frame(figure: Any, title: str, caption: str) -> None:
    """Write the title in the colour of the whole run, and below the panels the caption and a legend."""
    lines = [textwrap.fill(part, 92, subsequent_indent="    ") for part in title.split("; ")]
    color = _GREEN if title.startswith("GREEN") else _RED
    figure.suptitle("\n".join(lines), fontsize=11, fontweight="bold", color=color, x=0.01, ha="left")
    axes = figure.axes[0]
    axes.scatter([], [], s=18, color=_GREY, label="process")
    axes.plot([], [], color=_GREY, lw=6, alpha=0.3, label="mean of processes, bounds")
    axes.fill_between([], [], label="margin", **_BAND)
    axes.plot([], [], label="must be seen", **_LIMIT)
    figure.legend(
        loc="outside lower left", ncols=4, fontsize=8, frameon=False,
        title=textwrap.fill(caption, 130), title_fontsize=8, alignment="left",
    )  # fmt: skip
