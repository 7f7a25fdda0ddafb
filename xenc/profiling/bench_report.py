"""Rows that were timed -> the cells of a table, Markdown, JSON and a picture."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from .advice import counterpart, in_python, is_further, ratio, sentence, to_use
from .contestant import Timed
from .report import table
from .side_by_side import SideBySide

HEADER: Final = (
    "row", "dtype", "batch", "pairs/s", "min to max", "n", "x s-t", "warm-up s", "largest error",
    "Kendall's tau",
)  # fmt: skip

_COLORS: Final = {"float32": "#1f6feb", "bfloat16": "#2da44e", "float16": "#bf8700"}
_PLAIN: Final = "#9aa4af"


@dataclass(frozen=True, kw_only=True)
class Bench:
    """All that `xenc bench` found out.

    Attributes:
        model: name or folder.
        described: the machine in a sentence.
        pairs, pairs_given: how many were timed, of how many.
        plain_dtype: the checkpoint's; None if another was asked for.
        found: the rows.
        left_out: of each row that is missing, why.
        notes: what else a reader must know.
        loading: arguments with which the models were loaded.
    """

    model: str
    described: str
    pairs: int
    pairs_given: int
    plain_dtype: str | None
    found: SideBySide
    left_out: Mapping[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()
    loading: Mapping[str, Any] = field(default_factory=dict)

    @property
    def advice(self) -> str:
        """What to use, in a sentence."""
        return sentence(self.found.rows, in_turns=self.found.in_turns)

    @property
    def code(self) -> str:
        """The same in Python; "" if nothing was timed."""
        use = to_use(self.found.rows, in_turns=self.found.in_turns)
        return "" if use is None else in_python(use, self.model, self.loading, self.plain_dtype)


def speeds(timed: Timed, pairs: int) -> list[float]:
    """Pairs per second of each round."""
    return [pairs / seconds for seconds in timed.seconds]


def cells(bench: Bench, timed: Timed) -> list[str]:
    """A row of the table, under HEADER. A row that failed has its error in place of its speed."""
    head = [timed.row.system + _marks(bench, timed), timed.row.precision]
    head.append("" if timed.batch_size is None else str(timed.batch_size))
    warm = "" if timed.warmup_s is None else f"{timed.warmup_s:.1f}"
    agreed, plain = timed.agreement, counterpart(timed, bench.found.rows)
    error = "" if agreed is None else f"{agreed.largest_error:.1e}"
    tau = "" if agreed is None or agreed.kendall_tau is None else f"{agreed.kendall_tau:.5f}"
    if timed.problem is not None:
        return [*head, "failed", timed.problem, "", "", warm, error, tau]
    each = speeds(timed, bench.pairs)
    than = ratio(timed, plain, in_turns=bench.found.in_turns) if plain is not None and timed.counts else None
    return [
        *head, f"{statistics.median(each):,.1f}", f"{min(each):,.1f} to {max(each):,.1f}", str(len(each)),
        "" if than is None else f"{than.median:.2f}", warm, error, tau,
    ]  # fmt: skip


def below(bench: Bench) -> list[str]:
    """Lines that explain the table."""
    rows, cut = bench.found.rows, bench.pairs < bench.pairs_given
    first = f" (the first of {bench.pairs_given:,})" if cut else ""
    turns = "The rows took turns."
    if not bench.found.in_turns:
        turns = "The models would take more than half of the memory: each row had its rounds by itself."
    said = [
        f"{bench.pairs:,} pairs in each pass{first}, from texts to scores. {turns}",
        "x s-t: times as fast as sentence-transformers in the same dtype, a median over rounds.",
        "Largest error: of a logit, against sentence-transformers in float32. tau: agreement with its order.",
    ]  # fmt: skip
    for row in rows:
        name = str(row.row)
        if row.compiled:
            said.append(f"* {name}: {row.compiled} while it was timed, so its speed is not that of scoring.")
        if is_further(row, rows):
            said.append(f"! {name}: much further from float32 than sentence-transformers in this dtype.")
        if row.ran_as:
            said.append(f"+ {name}: ran with {row.ran_as}, since the model cannot run it as it is.")
    said += [f"{name} is left out: {why}." for name, why in bench.left_out.items()]
    return [*said, *bench.notes]


def markdown(bench: Bench) -> str:
    """The report."""
    rows = [[cell.replace("|", "/") for cell in cells(bench, timed)] for timed in bench.found.rows]
    lines = "\n".join(f"- {line}" for line in below(bench))
    code = f"\n\n```python\n{bench.code}\n```" if bench.code else ""
    return (
        f"# {bench.model}\n\n{bench.described}\n\n{table(HEADER, rows)}\n\n{lines}\n\n"
        f"## What to use\n\n{bench.advice}{code}\n"
    )


def as_json(bench: Bench) -> dict[str, Any]:
    """The same, with the seconds of every pass."""
    return {
        "model": bench.model, "described": bench.described, "pairs": bench.pairs,
        "pairs_given": bench.pairs_given, "checkpoint_dtype": bench.plain_dtype,
        "in_turns": bench.found.in_turns, "left_out": dict(bench.left_out), "notes": list(bench.notes),
        "advice": bench.advice, "code": bench.code,
        "rows": [_row_as_json(bench, timed) for timed in bench.found.rows],
    }  # fmt: skip


def draw(bench: Bench, path: Path) -> bool:
    """Horizontal bars of pairs/s, with whiskers from the slowest to the fastest round.

    Returns:
        Whether there is a picture. None is without matplotlib, or if no row was timed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return False
    rows = [timed for timed in bench.found.rows if timed.counts]
    if not rows:
        return False
    figure = Figure(figsize=(8, 1.4 + 0.4 * len(rows)), layout="constrained")
    axes = figure.subplots()
    for place, timed in enumerate(rows):
        each = speeds(timed, bench.pairs)
        middle = statistics.median(each)
        color = _COLORS.get(timed.row.precision, _PLAIN) if timed.row.is_xenc else _PLAIN
        axes.barh(place, middle, xerr=[[middle - min(each)], [max(each) - middle]], color=color, capsize=3)
    axes.set_yticks(range(len(rows)), [str(timed.row) for timed in rows], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel("pairs/s (median; whiskers: slowest and fastest round)", fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(f"{bench.model}\n{bench.described}", fontsize=8)
    figure.savefig(path, dpi=150)
    return True


def _row_as_json(bench: Bench, timed: Timed) -> dict[str, Any]:
    each, agreed = speeds(timed, bench.pairs), timed.agreement
    plain = counterpart(timed, bench.found.rows) if timed.counts else None
    than = None if plain is None else ratio(timed, plain, in_turns=bench.found.in_turns)
    return {
        "system": timed.row.system, "dtype": timed.row.precision, "batch_size": timed.batch_size,
        "warmup_seconds": timed.warmup_s, "seconds": timed.seconds,
        "pairs_per_second": statistics.median(each) if each else None,
        "times_as_fast": None if than is None else vars(than),
        "agreement": None if agreed is None else vars(agreed),
        "compiled": timed.compiled, "ran_as": timed.ran_as, "problem": timed.problem,
    }  # fmt: skip


def _marks(bench: Bench, timed: Timed) -> str:
    found = {"*": timed.compiled, "!": is_further(timed, bench.found.rows), "+": timed.ran_as}
    marks = "".join(mark for mark, applies in found.items() if applies)
    return f" {marks}" if marks else ""
