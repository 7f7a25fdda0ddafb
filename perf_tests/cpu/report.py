"""`Results` -> Markdown, as tables that also read well in a terminal. Pure."""

from __future__ import annotations

import statistics
from typing import Final

from perf_tests.cpu.goals import GOALS, speed
from perf_tests.cpu.results import Found, Results
from perf_tests.cpu.rows import XENC
from perf_tests.side_by_side.goal import goals_table
from perf_tests.side_by_side.turns import Timed
from xenc.gate.report import FLAGGED_SPREAD
from xenc.profiling.report import table

_LEGEND: Final = (
    "Every row scores the same lists of texts, tokenizing included, once in each round, in turns. A peer "
    "runs in the batch size that was fastest in trials on another list. Medians of n rounds; spread is "
    "standard deviation / median of seconds per token, (!) above 5%. Error is the largest distance of a "
    "logit from the float32 oracle, tau is Kendall's against the oracle's order, both over all pairs of the "
    "first round; late counts what compiled, broke or fell to eager while it was timed."
)


def markdown(results: Results) -> str:
    """The whole report."""
    warning = "REHEARSAL: no number here means anything.\n\n" if results.rehearsal else ""
    sections = [
        "# Side by side on a processor",
        f"{warning}{_machine(results)}",
        f"## Goals\n\n{goals_table(GOALS, results)}" if results.has_goals else "",
    ]
    for found in results.workloads.values():
        sections += [f"## {found.name}", _about(found), _rows(found), _speeds(found)]
    sections += [_LEGEND, *results.problems_section()]
    return "\n\n".join(section for section in sections if section) + "\n"


def _machine(results: Results) -> str:
    lines = [f"- model: {results.model}"]
    for name, value in results.machine.items():
        if isinstance(value, dict):
            value = [f"{key} {each}" for key, each in value.items()]
        said = ", ".join(value) or "none of note" if isinstance(value, list) else value
        lines.append(f"- {name.replace('_', ' ')}: {said}")
    return "\n".join(lines)


def _about(found: Found) -> str:
    pairs = statistics.median(found.round_pairs) if found.round_pairs else 0
    tokens = statistics.median(found.round_tokens) if found.round_tokens else 0
    shares = [
        f"{what} of {row}: {share:.0%}"
        for what, shares in (
            ("attention's share", found.attention_share), ("matrix products alone", found.products_share),
        )
        for row, share in shares.items()
    ]  # fmt: skip
    said = f"{pairs:,.0f} pairs of {tokens:,.0f} tokens a round, texts {found.fingerprint}"
    return "; ".join([said, *shares]) + "."


def _rows(found: Found) -> str:
    header = [
        "row", "batch", "ms", "spread", "n", "pairs/s", "tokens/s", "error", "tau", "waste",
        "warm-up s", "late",
    ]  # fmt: skip
    return table(header, [_row(row, found) for row in found.rows])


def _row(row: Timed, found: Found) -> list[str]:
    why = f"absent: {found.absent[row.name]}" if row.name in found.absent else row.problem
    if why is not None or not row.seconds:
        return [row.name, "", why or "not measured", *[""] * 9]
    spread = row.spread_per(found.round_tokens)
    wrong = row.output_error is not None and not row.output_error <= (row.output_tolerance or 0.0)
    error = "" if row.largest_error is None else f"{row.largest_error:.1g}"
    return [
        row.name,
        "by tokens" if row.group == XENC else str(row.batch_size),
        f"{1000 * statistics.median(row.seconds):,.1f}",
        f"{spread:.1%}{' (!)' if spread > FLAGGED_SPREAD else ''}",
        str(len(row.seconds)),
        f"{row.per_second(found.round_pairs):,.1f}",
        f"{row.per_second(found.round_tokens):,.0f}",
        error + (" WRONG" if wrong else ""),
        "" if row.kendall_tau is None else f"{row.kendall_tau:.3f}",
        "" if row.waste is None else f"{row.waste:.1%}",
        f"{row.warmup_s:.0f}",
        str(sum(row.counts.values())),
    ]


def _speeds(found: Found) -> str:
    """How many times as fast each row of xenc is as each peer."""
    ours = [row for row in found.rows if row.group == XENC and found.ours(row.name) is not None]
    theirs = [row for row in found.rows if row.group != XENC and found.timed(row.name) is not None]
    if not ours or not theirs:
        return ""
    lines = []
    for peer in theirs:
        speeds = (speed(row, peer) for row in ours)
        lines.append([f"over {peer.name}", *(f"{value:.2f}x ±{spread:.1%}" for value, spread in speeds)])
    return table(["speed", *(row.name for row in ours)], lines)
