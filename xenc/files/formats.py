"""Pairs in a file or a stream, in the format that its name says: JSON Lines, CSV, TSV or Parquet."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Final

from ..errors import PairError
from . import delimited, jsonl, parquet
from .chunk import Chunk, Columns, Pair, Place, gathered
from .lines import Lines

STREAM: Final = "-"
"""The name of standard input, and of standard output."""

SUFFIXES: Final = {
    ".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".tsv": "tsv",
    ".parquet": "parquet", ".pq": "parquet",
}  # fmt: skip
COMPRESSED: Final = (".gz", ".bz2", ".xz", ".zst", ".zip")
FORMATS: Final = ("jsonl", "csv", "tsv", "parquet")
DELIMITERS: Final = {"csv": ",", "tsv": "\t"}


def format_of(name: str, asked: str | None, option: str) -> str:
    """What is asked for, or what the file's suffix says.

    Raises:
        PairError: neither says it, or Parquet is to come from or go to a stream.
    """
    if Path(name).is_dir():
        raise PairError(f"{name}: is a folder: name a file.")
    if Path(name).suffix.lower() in COMPRESSED:
        raise PairError(
            f"{name}: is compressed: unpack it into a stream, as zcat {name} | xenc score - does."
        )
    found = asked or SUFFIXES.get(Path(name).suffix.lower())
    if found is None and name == STREAM:
        return "jsonl"
    if found is None:
        raise PairError(
            f"{name}: {Path(name).suffix!r} is none of {', '.join(SUFFIXES)}: say {option} jsonl, ..."
        )
    if found == "parquet" and name == STREAM:
        raise PairError("Parquet is read and written from its end, so it cannot be a stream: name a file.")
    return found


class PairsFile:
    """The records of a file or of standard input, read in chunks.

    Attributes:
        format: one of FORMATS.
        size: bytes (in Parquet rows) there are, or None for a stream.
        columns: names in the file's order, or None where each record may have others.
        schema: of Parquet, its Arrow types.
    """

    def __init__(self, name: str, columns: Columns, format: str | None = None) -> None:
        """Open a file.

        Raises:
            PairError: it cannot be read, or does not have the columns.
        """
        self.name, self.format, self._columns = name, format_of(name, format, "--format"), columns
        self.columns: list[str] | None = None
        self.schema: Any = None
        try:
            self.size = None if name == STREAM else Path(name).stat().st_size
            if self.format == "parquet":
                self._table = parquet.Table(Path(name), columns)
                self.size, self.schema = self._table.rows, self._table.schema
                self.columns = list(self.schema.names)
                return
            self._stream: BinaryIO = sys.stdin.buffer if name == STREAM else Path(name).open("rb")  # noqa: SIM115
        except OSError as error:
            raise PairError(f"{name}: cannot be read: {error.strerror}.") from error
        self._lines = Lines(self._stream, name)
        if self.format in DELIMITERS:
            self.columns = delimited.read_header(self._lines, name, DELIMITERS[self.format], columns)

    def chunks(self, start: Place | None = None, keep: list[str] | None = None) -> Iterator[Chunk]:
        """The records from a place on, or all. Of Parquet only the columns to keep and the pair's are read.

        Raises:
            PairError: the file is another than the one in which that place was reached.
        """
        if self.format == "parquet":
            yield from self._table.read(start or Place(), keep)
            return
        if start is not None:
            self._lines.skip_to(start)
        if self.format == "jsonl":
            records = jsonl.records(self._lines, self._columns)
        else:
            records = delimited.records(self._lines, DELIMITERS[self.format], self.columns)
        yield from gathered(records, self._columns, lambda: self._lines.place)

    def close(self) -> None:
        """Close the file; standard input stays open."""
        if self.format != "parquet" and self.name != STREAM:
            self._stream.close()


def read_pairs(name: str, columns: Columns, format: str | None = None) -> list[Pair]:
    """All pairs of a file, in memory.

    Raises:
        PairError: a file that cannot be read or holds no pairs; a record that is no pair, by its line.
    """
    pairs = whole(name, columns, format)
    if not pairs:
        raise PairError(f"{name} holds no pairs: give at least one.")
    return pairs


def whole(name: str, columns: Columns, format: str | None = None) -> list[Pair]:
    """As `read_pairs`, also if there are none."""
    source = PairsFile(name, columns, format)
    pairs: list[Pair] = []
    try:
        for chunk in source.chunks(keep=[]):
            for bad in chunk.bad:
                raise PairError(f"{name}, line {bad.number}: {bad.why}.")
            pairs += chunk.pairs
    finally:
        source.close()
    return pairs
