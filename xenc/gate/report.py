"""Records of a run -> tables for the terminal, Markdown and JSON."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from .record import Record
from .verdict import Judgement


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table with a row for each record that it takes; no later table of `TABLES` shows these.

    Attributes:
        title: shown above it in the terminal.
        takes: whether a record belongs in it.
        row: a record's cells by column, the same columns for each. None is an empty cell, and a column in
            which every row has None is left out.
    """

    title: str
    takes: Callable[[Record], bool]
    row: Callable[[Record], Mapping[str, str | None]]


@dataclass(frozen=True, kw_only=True)
class Overview:
    """What is shown of many records together, besides the row that each has in a table.

    Attributes:
        title: shown above it in the terminal.
        markdown: all records of a run -> Markdown; the empty string if there is nothing to show.
    """

    title: str
    markdown: Callable[[Sequence[Record]], str]


def benchmark_row(record: Record) -> dict[str, str | None]:
    """What can be said of any benchmark."""
    info, seconds = record.info, record.seconds
    exact = {**info, **info.get("exact", {})}
    counts = {name: exact.get(name) for name in ("recompiles", "graphs", "kernels")}
    peak = exact.get("peak_bytes")
    return {
        "benchmark": record.label,
        "median ms": _milliseconds(statistics.median(seconds)) if seconds else None,
        "spread": flagged(record.spread) if seconds else None,
        "n": str(len(seconds)),
        "speed-up": _times_over(record),
        **{name: None if count is None else str(count) for name, count in counts.items()},
        "peak MB": None if peak is None else f"{peak / 1e6:,.1f}",
    }


FLAGGED_SPREAD: Final = 0.05
"""Reports mark a spread above this fraction."""

TABLES: Final[list[Table | Overview]] = [Table(title="timings", takes=lambda _: True, row=benchmark_row)]
"""What is shown of a run, in this order. `show_first` adds to it."""

PICTURES: Final[dict[str, Callable[[Path, Sequence[Record], str], bool]]] = {}
"""What is drawn into the report's folder, by file name; a suite adds its own.

A function gets the path, the records and a caption that names the machine, and returns whether it drew.
"""


def show_first(tables: Sequence[Table | Overview]) -> None:
    """Put tables in front of `TABLES`, in place of those with the same titles: twice is the same as once."""
    titles = {table.title for table in tables}
    TABLES[:] = [*tables, *(table for table in TABLES if table.title not in titles)]


def tables_of(records: Sequence[Record]) -> dict[str, str]:
    """What `TABLES` show of records: title -> Markdown, without those that have nothing to show."""
    left, shown = list(records), {}
    for table in TABLES:
        if isinstance(table, Overview):
            shown[table.title] = table.markdown(records)
            continue
        rows = [table.row(record) for record in left if table.takes(record)]
        left = [record for record in left if not table.takes(record)]
        shown[table.title] = _without_empty_columns(rows) if rows else ""
    return {title: markdown for title, markdown in shown.items() if markdown}


def verdict_table(judged: Mapping[str, Judgement]) -> str:
    """Every verdict of a comparison as a Markdown table; the empty string without verdicts."""
    rows = [
        {
            "verdict": str(judgement.verdict),
            "benchmark": name.rpartition("/")[2],
            "reason": " ".join("; ".join([judgement.reason, *judgement.remarks]).split()),
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
    tables = tables_of(records).values()
    markdown = "\n\n".join(filter(None, ["# Benchmarks on " + facts, *chapters, *tables, verdicts])) + "\n"
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


def flagged(spread: float) -> str:
    """A spread as text, with a mark if it is wide."""
    return f"{spread:.1%}{' (!)' if spread > FLAGGED_SPREAD else ''}"


def _without_empty_columns(rows: Sequence[Mapping[str, str | None]]) -> str:
    names = [name for name in rows[0] if any(row[name] is not None for row in rows)]
    return markdown_table([{name: row[name] or "" for name in names} for row in rows])


def _milliseconds(seconds: float) -> str:
    return f"{1000 * seconds:,.2f}" if seconds >= 0.001 else f"{1000 * seconds:.3g}"


def _times_over(record: Record) -> str | None:
    times = speedup(record)
    over = f" over {record.info['reference']}" if "reference" in record.info else ""
    return None if times is None else f"{times:.2f}x{over}"
