"""Records of a run -> tables for the terminal, Markdown and JSON."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from .measure import FLAGGED_SPREAD, relative_spread
from .verdict import Judgement


@dataclass(frozen=True, kw_only=True)
class Record:
    """One benchmark of this run.

    Attributes:
        name: its pytest node id.
        device: torch's type of the measured device, "cpu" or "cuda".
        seconds: of each round, in order; empty if nothing was timed.
        info: pytest-benchmark's `extra_info`.
    """

    name: str
    device: str
    seconds: tuple[float, ...]
    info: Mapping[str, Any]

    @property
    def label(self) -> str:
        """Its name in tables: the configuration, or else the test's name."""
        return str(self.info.get("configuration", self.name.rpartition("::")[2]))

    @property
    def is_configuration(self) -> bool:
        """Whether it belongs in the table of configurations: it has a configuration and no chapter."""
        return "configuration" in self.info and "chapter" not in self.info

    @property
    def spread(self) -> float:
        """Standard deviation / median of the seconds per token: rounds of unequal size are not noise."""
        tokens = self.info.get("round_tokens") or [1] * len(self.seconds)
        return relative_spread([second / count for second, count in zip(self.seconds, tokens, strict=True)])


def run_table(records: Sequence[Record]) -> str:
    """The configurations as one Markdown table."""
    rows = [_row(record) for record in records if record.is_configuration]
    return markdown_table(rows) if rows else ""


def technique_table(records: Sequence[Record]) -> str:
    """The techniques, all timed on one workload, as a Markdown table ordered by chapter."""
    rows = [_technique_row(record) for record in records if "chapter" in record.info]
    return markdown_table(rows) if rows else ""


def stage_table(records: Sequence[Record]) -> str:
    """Benchmarks of single stages (those without a configuration) as a Markdown table."""
    rows = [
        {
            "stage": record.label,
            "median ms": f"{1000 * statistics.median(record.seconds):.2f}",
            "spread": _flagged(record.spread),
            "n": str(len(record.seconds)),
        }
        for record in records
        if "configuration" not in record.info and "clients" not in record.info and record.seconds
    ]
    return markdown_table(rows) if rows else ""


def load_table(records: Sequence[Record]) -> str:
    """Services under load as a Markdown table. Latency counts from the time a request was due."""
    rows = [
        {
            "clients": str(info["clients"]),
            "offered": f"{info['offered_share']:.1f}x, {_number(info['offered_pairs_per_s'])} pairs/s",
            "server": f"{info['server']}{' (traced)' if info.get('traced') else ''}",
            "pairs/s": _number(info["answered_pairs_per_s"]),
            **{f"p{percent} ms": _milliseconds(info[f"p{percent}_s"]) for percent in (50, 90, 99)},
            "refused": str(info["refused"]),
            "behind s": f"{info['behind_s']:.1f}",
            "recompiles": str(info["recompiles"]),
            "requests": str(info["requests"]),
        }
        for info in (record.info for record in records)
        if "clients" in info
    ]
    return markdown_table(rows) if rows else ""


TABLES: Final[dict[str, Callable[[Sequence[Record]], str]]] = {
    "benchmarks": run_table,
    "techniques": technique_table,
    "stages": stage_table,
    "load": load_table,
}
"""What is shown of a run, by title; a suite may add its own. A table without a row is empty."""


def verdict_table(judged: Mapping[str, Judgement]) -> str:
    """Every verdict of a comparison as a Markdown table; the empty string without verdicts."""
    rows = [
        {
            "verdict": str(judgement.verdict),
            "benchmark": name.rpartition("/")[2],
            "reason": " ".join("; ".join([judgement.reason, *judgement.notes]).split()),
        }
        for name, judgement in judged.items()
    ]
    return markdown_table(rows) if rows else ""


def markdown_table(rows: Sequence[Mapping[str, str]]) -> str:
    """Rows with equal keys as a Markdown table with aligned columns."""
    header = list(rows[0])
    cells = [header, *([row[name].replace("|", "\\|") for name in header] for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(header))]
    lines = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |"
             for line in cells]  # fmt: skip
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def speedup(record: Record) -> float | None:
    """The median over rounds of reference seconds / own seconds; None without a reference."""
    reference: Sequence[float] = record.info.get("reference_seconds", ())
    if not reference or len(reference) != len(record.seconds):
        return None
    return statistics.median(theirs / ours for ours, theirs in zip(record.seconds, reference, strict=True))


def write_report(
    directory: Path, records: Sequence[Record], machine: Mapping[str, Any], judged: Mapping[str, Judgement],
    chapters: Sequence[str] = (),
) -> list[Path]:  # fmt: skip
    """Write report.md and report.json. Chapters are Markdown that replaces the table of verdicts."""
    directory.mkdir(parents=True, exist_ok=True)
    facts = ", ".join(f"{name} {value}" for name, value in machine.items())
    verdicts = "" if chapters else verdict_table(judged)
    tables = [table(records) for table in TABLES.values()]
    markdown = "\n\n".join(["# xenc on " + facts, *filter(None, [*chapters, *tables, verdicts])]) + "\n"
    (directory / "report.md").write_text(markdown, encoding="utf-8")
    content = {
        "machine": dict(machine),
        "benchmarks": [
            {
                "name": record.name,
                "seconds": record.seconds,
                "speedup": speedup(record),
                "spread": record.spread,
                **record.info,
            }
            for record in records
        ],
        "verdicts": {name: [judgement.verdict, judgement.reason] for name, judgement in judged.items()},
    }
    (directory / "report.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return [directory / "report.md", directory / "report.json"]


def _row(record: Record) -> dict[str, str]:
    info, times = record.info, speedup(record)
    return {
        "workload": str(info["workload"]),
        "configuration": f"{record.label} ({info['not_measured']})"
        if "not_measured" in info
        else record.label,
        "pairs/s": _number(info.get("pairs_per_s")),
        "tokens/s": _number(info.get("tokens_per_s")),
        "waste": f"{info['waste']:.1%}" if "waste" in info else "",
        f"vs {info.get('reference', 'eager')}": f"{times:.2f}x" if times is not None else "",
        "graphs": str(info.get("graphs", "")),
        "recompiles": str(info.get("recompiles", "")),
        "MFU": f"{info['mfu']:.0%}" if "mfu" in info else "",
        "GEMM share": f"{info['gemm_share']:.0%}" if "gemm_share" in info else "",
        "median s": f"{statistics.median(record.seconds):.3f}" if record.seconds else "",
        "spread": _flagged(record.spread) if record.seconds else "",
        "n": str(len(record.seconds)),
    }


def _technique_row(record: Record) -> dict[str, str]:
    info, times = record.info, speedup(record)
    return {
        "choice of": str(info["chapter"]),
        "technique": record.label,
        "speed-up": str(info.get("not_measured", "")) if times is None else f"{times:.2f}x",
        "over": str(info["reference"]) if times is not None else "",
        "spread": _flagged(record.spread) if record.seconds else "",
        "n": str(len(record.seconds)) if record.seconds else "",
        "warm-up s": f"{info['warmup_s']:.1f}" if "warmup_s" in info else "",
        "graphs": str(info.get("graphs", "")),
        "recompiles": str(info.get("recompiles", "")),
        "waste": f"{info['waste']:.1%}" if "waste" in info else "",
        "error": _error(info),
        "nDCG@10": f"{info['ndcg']:.3f} ({-info['ndcg_loss']:+.3f})"
        if "ndcg" in info
        else str(info.get("not_ranked", "")),
        "Kendall tau": f"{info['kendall_tau']:.4f}" if "kendall_tau" in info else "",
        "when to use it": str(info["when"]),
    }


def _error(info: Mapping[str, Any]) -> str:
    """The error of the model whose ranking is judged, if any: the timed model may have random weights."""
    error = info.get("ranked_error", info.get("output_error"))
    return "" if error is None else f"{error:.1g}"


def _milliseconds(seconds: float | None) -> str:
    return "too few requests" if seconds is None else _number(1000 * seconds)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:,.1f}" if value < 100 else f"{value:,.0f}"


def _flagged(spread: float) -> str:
    return f"{spread:.1%}{' (!)' if spread > FLAGGED_SPREAD else ''}"
