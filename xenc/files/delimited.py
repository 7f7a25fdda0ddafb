"""Tables as text: CSV, with quotes where a field needs them, and TSV, which has none."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from typing import Any, Final

from ..errors import PairError
from .chunk import Columns, Record, Row
from .lines import LONGEST_LINE, Lines, UnreadableLine, numbered, without_end

TAB: Final = "\t"

SIGNS: Final = {",": "commas", TAB: "tabs"}


def read_header(lines: Lines, name: str, delimiter: str, columns: Columns) -> list[str] | None:
    """The columns' names from the first record, or None where they are numbered.

    Raises:
        PairError: there is no header, or it lacks a column that is asked for or has it twice.
    """
    if not columns.header:
        return None
    number, header = next(_fields(lines, delimiter), (1, []))
    if not header:
        raise PairError(f"{name}: is empty, so no line names its columns.")
    if isinstance(header, UnreadableLine):
        raise PairError(f"{name}, line {number}: the header {header}.")
    for asked, option in ((columns.query, "--query-column"), (columns.document, "--document-column")):
        if header.count(asked) != 1:
            raise PairError(
                f"{name}: its first line names the columns {', '.join(map(repr, header))}, "
                f"{'twice' if asked in header else 'not'} {asked!r}: give {option} NAME, or --no-header if "
                f"that line is a pair. Fields are separated by {SIGNS[delimiter]}."
            )
    return header


def records(lines: Lines, delimiter: str, header: list[str] | None) -> Iterator[Record]:
    """The records of the lines that are left. Blank lines are passed over."""
    for number, fields in _fields(lines, delimiter):
        if isinstance(fields, UnreadableLine):
            yield number, str(fields), ""
            continue
        names = header or [str(place) for place in range(1, len(fields) + 1)]
        row: Row | str = f"has {len(fields)} fields, and the header {len(names)}"
        if len(names) == len(fields):
            row = dict(zip(names, fields, strict=True))
        yield number, row, delimiter.join(fields)


def _fields(lines: Lines, delimiter: str) -> Iterator[tuple[int, list[str] | UnreadableLine]]:
    """Fields of each record, and the line on which it begins."""
    if delimiter == TAB:
        yield from _split(lines)
        return
    csv.field_size_limit(LONGEST_LINE)
    reader = _csv_reader(lines, delimiter)
    while True:
        number = lines.number + 1
        try:
            fields = next(reader)
        except StopIteration:
            return
        except (csv.Error, UnreadableLine) as error:
            last = f" (up to line {lines.number})" if lines.number > number else ""
            yield number, UnreadableLine(f"{_no_csv(error)}{last}")
            reader = _csv_reader(lines, delimiter)  # the old one stands inside a field
            continue
        if fields:
            yield number, fields


def _csv_reader(lines: Lines, delimiter: str) -> Iterator[list[str]]:
    return csv.reader(iter(lines), delimiter=delimiter, strict=True)


def _no_csv(error: Exception) -> str:
    return str(error) if isinstance(error, UnreadableLine) else f"is not CSV: {error}"


def _split(lines: Lines) -> Iterator[tuple[int, list[str] | UnreadableLine]]:
    for number, line in numbered(lines):
        if isinstance(line, UnreadableLine):
            yield number, line
        elif line.strip("\r\n"):
            yield number, without_end(line).split(TAB)


def encode(rows: Sequence[Row], delimiter: str, names: Sequence[str]) -> bytes:
    """A line for each row, its fields in the order of the names. What is no text is written as JSON."""
    out = io.StringIO()
    if delimiter == TAB:
        for row in rows:
            out.write(TAB.join(_unquoted(name, row.get(name)) for name in names) + "\n")
    else:
        plain = csv.writer(out, delimiter=delimiter, lineterminator="\n")
        quoted = csv.writer(out, delimiter=delimiter, lineterminator="\n", quoting=csv.QUOTE_ALL)
        for row in rows:
            fields = [_field(row.get(name)) for name in names]
            (quoted if "\r" in "".join(fields) else plain).writerow(fields)  # csv leaves a lone \r bare
    return out.getvalue().encode("utf-8", "surrogatepass")


def _field(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _unquoted(name: str, value: Any) -> str:
    field = _field(value)
    if any(sign in field for sign in "\t\n\r"):
        raise PairError(
            f"column {name!r} holds a tab or a line's end, which .tsv cannot: write .csv or .jsonl."
        )
    return field
