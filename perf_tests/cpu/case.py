"""Records of `make bench` -> its table."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Final

from perf_tests.cpu.machine import in_words
from perf_tests.cpu.rows import XENC
from xenc.gate.record import relative_spread
from xenc.gate.report import FLAGGED_SPREAD, Record
from xenc.profiling.report import table

OURS: Final = f"{XENC} packed"
"""The system whose speed over each other is shown."""


def case_table(records: Sequence[Record]) -> str:
    """Pairs per second of each system on each workload, and how many times as fast xenc is."""
    rows = [record for record in records if "system" in record.info and record.seconds]
    if not rows:
        return ""
    workloads = list(dict.fromkeys(row.info["workload"] for row in rows))
    by_system: dict[tuple[str, str], dict[str, Record]] = {}
    for row in rows:
        by_system.setdefault((row.info["system"], row.info["precision"]), {})[row.info["workload"]] = row
    ours = {row.info["workload"]: row for row in rows if row.info["system"] == OURS}
    columns = (part for name in workloads for part in (f"{name}: pairs/s", "xenc over it"))
    header = ["system", "precision", *columns, "tau"]
    lines = [
        [*who, *(cell for name in workloads for cell in _cells(found.get(name), ours.get(name))), _tau(found)]
        for who, found in by_system.items()
    ]
    return f"{in_words()}; model {rows[0].info['model']}.\n\n{table(header, lines)}\n\n{_legend(rows)}"


def _cells(row: Record | None, ours: Record | None) -> tuple[str, str]:
    """Its rate and spread; how many times as fast ours is, where both compute in the same precision."""
    if row is None:
        return "", ""
    rate = f"{row.info['pairs_per_s']:.1f} ±{row.spread:.0%}{' (!)' if row.spread > FLAGGED_SPREAD else ''}"
    if ours is None or ours is row or ours.info["precision"] != row.info["precision"]:
        return rate, ""
    each = [theirs / own for theirs, own in zip(row.seconds, ours.seconds, strict=True)]
    return rate, f"{statistics.median(each):.2f}x ±{relative_spread(each):.0%}"


def _tau(found: dict[str, Record]) -> str:
    return f"{min(row.info['tau'] for row in found.values()):.3f}"


def _legend(rows: Sequence[Record]) -> str:
    rounds = sorted({len(row.seconds) for row in rows})
    sizes: dict[str, list[str]] = {}
    for row in rows:
        if not row.info["system"].startswith(XENC):
            sizes.setdefault(row.info["system"], []).append(str(row.info["batch_size"]))
    listed = "; ".join(f"{name} {', '.join(each)}" for name, each in sizes.items())
    return (
        f"pairs/s: from texts to scores, median of n = {' or '.join(map(str, rounds))} rounds ± standard "
        "deviation / median, (!) above 5%. All systems score the same texts in turns. xenc over it: "
        f"{OURS} in the same precision, median of the rounds' own ratios. tau: Kendall's against the float32 "
        "oracle's order, the lowest of the workloads. Batch sizes by workload, the fastest in a trial: "
        f"{listed}."
    )
