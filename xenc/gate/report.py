"""Records and verdicts of a run -> Markdown that also reads well in a terminal."""

from __future__ import annotations

import re
import statistics
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from .record import Record
from .verdict import Judgement, Verdict


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

_NAMED: Final = 3
"""How many names one line holds at most."""

_ADVICE: Final[Mapping[Verdict, str]] = {
    Verdict.IMPROVED: "To keep the improvement, record a new baseline (`--gate-record`) and commit it.",
    Verdict.INCONCLUSIVE: "INCONCLUSIVE is too noisy to decide: repeat on a quieter machine.",
}

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


def verdict_chapter(
    judged: Mapping[str, Judgement], times: Mapping[str, Mapping[str, str]] | None = None
) -> str:
    """Verdicts as a Markdown table, and below it notes; the empty string without verdicts.

    Args:
        judged: by node id.
        times: the cells of each row besides verdict and benchmark. Without them the row says the reason; with
            them the notes name exact facts, and say why a time is not judged.
    """
    rows, notes = [], defaultdict[str, list[str]](list)
    for name, judgement in judged.items():
        verdict, said = judgement.verdict, judgement.remarks
        if times is not None:
            decided = verdict.green or verdict is Verdict.REGRESSED
            said = (*judgement.exact, *(() if decided else (judgement.reason,)), *said)
        for note in said:
            notes[quoted(note)].append(label(name))
        cells = {"reason": judgement.reason} if times is None else times[name]
        rows.append({"verdict": bold(verdict, unless=verdict.green), "benchmark": label(name), **cells})
    lines = [
        f"- {'all' if len(names) == len(judged) > 1 else some(names)}: {note}"
        for note, names in notes.items()
    ]
    lines += [f"- {_ADVICE[each]}" for each in _ADVICE if each in {one.verdict for one in judged.values()}]
    return "\n\n".join(filter(None, [markdown_table(rows), "\n".join(lines)])) if rows else ""


def markdown_table(rows: Sequence[Mapping[str, str]]) -> str:
    """Rows with equal keys as a Markdown table with aligned columns."""
    header = list(rows[0])
    cells = [header, *([_one_line(row[name]).replace("|", "\\|") for name in header] for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(header))]
    lines = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |"
             for line in cells]  # fmt: skip
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def label(name: str) -> str:
    """What reports call a test: its node id without the file."""
    return name.partition("::")[2] or name


def bold(text: str, *, unless: bool) -> str:
    """Text in bold letters, unless a condition holds."""
    return text if unless else f"**{text}**"


def some(names: Sequence[str], between: str = ", ") -> str:
    """The first names, and how many more there are."""
    more = [f"{len(names) - _NAMED} more"] if len(names) > _NAMED else []
    return between.join([*names[:_NAMED], *more])


def quoted(text: str) -> str:
    """Text in one line; as code if it contains Markdown's special characters, as names of C++ kernels do."""
    fence = "``" if "`" in text else "`" if re.search(r"[<*_\[]", text) else ""
    return f"{fence}{_one_line(text)}{fence}"


def facts_line(facts: Mapping[str, Any]) -> str:
    """Facts of a machine, by name, in one line."""
    return ", ".join(f"{name} {_fact(value)}" for name, value in facts.items())


def _fact(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"({facts_line(value)})"
    if isinstance(value, list):
        bounds = len(value) == 2 and all(isinstance(each, int) for each in value)
        return (" to " if bounds else ", ").join(map(str, value)) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)


def speedup(record: Record) -> float | None:
    """The median over rounds of reference seconds / own seconds; None without a reference."""
    reference: Sequence[float] = record.info.get("reference_seconds", ())
    if not reference or len(reference) != len(record.seconds):
        return None
    return statistics.median(theirs / ours for ours, theirs in zip(record.seconds, reference, strict=True))


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


def _one_line(text: str) -> str:
    return " ".join(text.split())
