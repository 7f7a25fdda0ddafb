"""JSON Lines: an object for each record, or an array of a query and a document."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from .chunk import Columns, Record, Row, shown
from .lines import Lines, UnreadableLine, numbered, without_end


def records(lines: Lines, columns: Columns) -> Iterator[Record]:
    """The records of the lines that are left. Blank lines are passed over."""
    for number, line in numbered(lines):
        if isinstance(line, UnreadableLine):
            yield number, str(line), ""
        elif line.strip():
            text = without_end(line)
            yield number, _row(text, columns), text


def _row(line: str, columns: Columns) -> Row | str:
    """The record of a line, or why it is none."""
    try:
        read = json.loads(line)
    except json.JSONDecodeError as error:
        return f"is not JSON: {error.msg} at character {error.colno}"
    except (ValueError, RecursionError) as error:
        return f"is not JSON: {error}"
    if isinstance(read, list) and len(read) == 2:
        return dict(zip((columns.query, columns.document), read, strict=True))
    if isinstance(read, dict):
        return read
    return f"is {shown(read)}: neither an object nor an array of a query and a document"


def encode(rows: Sequence[Row]) -> bytes:
    """A line of JSON for each row. Half a surrogate pair, which UTF-8 cannot hold, is escaped."""
    try:
        return "".join(_line(row, ascii_only=False) for row in rows).encode()
    except UnicodeEncodeError:
        return "".join(_line(row, ascii_only=True) for row in rows).encode()


def _line(row: Row, *, ascii_only: bool) -> str:
    return json.dumps(row, ensure_ascii=ascii_only, default=_plain) + "\n"


def _plain(value: Any) -> Any:
    """What JSON has no type for (dates and decimal numbers of a Parquet file) as text."""
    if isinstance(value, bytes):
        raise TypeError(f"{shown(value)} is bytes, which JSON cannot hold: leave the column out with --keep")
    return str(value)
