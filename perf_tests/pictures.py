"""Pictures of a run: throughput of each configuration, and latency of requests by their size."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

from perf_tests.tables import is_configuration
from xenc.gate.report import Record

_COMPILED, _EAGER = "#1f6feb", "#9aa4af"


def draw(path: Path, records: Sequence[Record], caption: str) -> bool:
    """Draw horizontal bars of pairs per second, with whiskers from the slowest to the fastest round.

    Returns:
        Whether a picture was written. None is without matplotlib (an extra) or without records.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return False
    workloads = list(dict.fromkeys(r.info["workload"] for r in records if is_configuration(r)))
    if not workloads:
        return False
    groups = [[r for r in records if r.info.get("workload") == name and r.seconds] for name in workloads]
    figure = Figure(figsize=(9, 1.2 + 0.36 * sum(len(group) + 1 for group in groups)), layout="constrained")
    panels = figure.subplots(len(groups), 1, squeeze=False, height_ratios=[len(g) + 1 for g in groups])
    for axes, name, group in zip(panels[:, 0], workloads, groups, strict=True):
        rates = [[record.info["pairs_per_round"] / second for second in record.seconds] for record in group]
        medians = [statistics.median(rate) for rate in rates]
        whiskers = [
            [middle - min(rate) for middle, rate in zip(medians, rates, strict=True)],
            [max(rate) - middle for middle, rate in zip(medians, rates, strict=True)],
        ]
        colors = [_COMPILED if record.info.get("graphs") else _EAGER for record in group]
        axes.barh([r.info["configuration"] for r in group], medians, xerr=whiskers, color=colors, capsize=3)
        axes.invert_yaxis()
        axes.set_title(f"{name} workload", loc="left", fontsize=10)
        axes.set_xlabel("pairs / s (median; whiskers: slowest and fastest round)", fontsize=8)
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(f"blue: compiled by PyTorch, grey: not\n{caption}", fontsize=8)
    figure.savefig(path, dpi=150)
    return True


def draw_requests(path: Path, records: Sequence[Record], caption: str) -> bool:
    """Draw milliseconds of each request against its tokens, with the least-squares line.

    Returns:
        Whether a picture was written. None is without matplotlib or without a record of requests.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return False
    fitted = [record for record in records if "seconds_per_token" in record.info]
    if not fitted:
        return False
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for record in fitted:
        tokens, info = record.info["round_sizes"], record.info
        axes.scatter(tokens, [1000 * second for second in record.seconds], s=6, alpha=0.5, color=_COMPILED)
        ends = [0, max(tokens)]
        line = [1000 * (info["seconds_at_zero"] + info["seconds_per_token"] * end) for end in ends]
        label = (
            f"{1 / info['seconds_per_token']:,.0f} tokens/s + {line[0]:.1f} ms, r = {info['correlation']:.3f}"
        )
        axes.plot(ends, line, color=_EAGER, label=label)
    axes.set_xlabel("tokens of the request")
    axes.set_ylabel("ms from texts to scores")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(caption, fontsize=8)
    figure.savefig(path, dpi=150)
    return True
