"""Records with their scores, as bytes in one of the formats."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import PairError
from . import delimited, jsonl, parquet
from .chunk import Row
from .formats import DELIMITERS


class ScoresFile:
    """Encodes chunks one after the other.

    Attributes:
        columns: of a table the columns' names, known with the first chunk.
    """

    def __init__(
        self, format: str, score: str, keep: Sequence[str] | None = None, *, header: bool = True
    ) -> None:
        """Choose a format.

        Args:
            format: jsonl, csv, tsv or parquet.
            score: the name of the column of scores.
            keep: the input's columns that are written too, in this order; None for all.
            header: whether a table's first line names its columns.
        """
        self.format, self._score, self._keep, self._header = format, score, keep, header
        self.columns: list[str] | None = None
        self._schema: Any = None

    def go_on(self, columns: list[str] | None, written: Path) -> None:
        """Go on behind what an earlier process wrote, with its columns."""
        self.columns = columns
        if self.format == "parquet" and written.stat().st_size:
            with written.open("rb") as stream:
                self._schema = parquet.schema_of(stream)

    def encode(self, rows: Any, scores: Sequence[Any]) -> bytes:
        """Rows and their scores: a number each, or a list of one for each label.

        Raises:
            PairError: what the format cannot hold, or a row without a column that is to be kept.
        """
        if self.format == "parquet" and not isinstance(rows, list):
            return self._encode_table(rows, scores)
        rows = rows if isinstance(rows, list) else rows.to_pylist()
        scored = [self._row(row) | {self._score: score} for row, score in zip(rows, scores, strict=True)]
        if self.format == "jsonl":
            return jsonl.encode(scored)
        if self.format == "parquet":
            table = parquet.as_table(scored, self._schema)
            self._schema = table.schema
            return parquet.encode(table)
        return self._encode_delimited(scored)

    def finish(self, written: Path, to: Path) -> None:
        """Turn what was written into the finished file, which appears whole."""
        if self.format == "parquet":
            made = to.with_name(f"{to.name}.making")
            parquet.write(written, made)
            made.replace(to)
            written.unlink()
        else:
            written.replace(to)

    def _row(self, row: Mapping[str, Any]) -> Row:
        if self._score in (row if self._keep is None else self._keep):
            raise PairError(taken(self._score))
        if self._keep is None:
            return dict(row)
        for name in self._keep:
            if name not in row:
                raise PairError(f"--keep {name}: there is no such column in a record, only {', '.join(row)}.")
        return {name: row[name] for name in self._keep}

    def _encode_delimited(self, scored: list[Row]) -> bytes:
        if not scored:
            return b""
        delimiter, columns = DELIMITERS[self.format], self.columns or list(scored[0])
        for row in scored:
            if new := [name for name in row if name not in columns]:
                raise PairError(
                    f"the column {new[0]!r} is not among those of the first record, which are the table's: "
                    "name the columns to keep with --keep, or write .jsonl."
                )
        head = [dict(zip(columns, columns, strict=True))] if self._header and self.columns is None else []
        encoded = delimited.encode([*head, *scored], delimiter, columns)
        self.columns = columns
        return encoded

    def _encode_table(self, table: Any, scores: Sequence[Any]) -> bytes:
        pa = parquet.arrow()
        if self._keep is not None:
            table = table.select(list(self._keep))
        kind = pa.list_(pa.float32()) if scores and isinstance(scores[0], list) else pa.float32()
        return parquet.encode(table.append_column(self._score, pa.array(scores, kind)))


def taken(name: str) -> str:
    """What is said of a column of scores that would replace one of the input's."""
    return f"there is a column {name!r} already: name the new one with --score-column, or --keep others only."
