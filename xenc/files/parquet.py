"""Parquet, by way of Arrow.

What a Parquet file holds is said at its end, so one that is not finished cannot be gone on with. Until then
the output is a row of Arrow streams.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from ..errors import NotInstalledError, PairError
from .chunk import CHUNK_RECORDS, Bad, Chunk, Columns, Pair, Place, no_text, take


def arrow() -> Any:
    """pyarrow.

    Raises:
        NotInstalledError: it is not there.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise NotInstalledError("Parquet needs pyarrow: pip install pyarrow.") from error
    return pyarrow


class Table:
    """A Parquet file whose rows are read in order.

    Attributes:
        rows: how many there are.
        schema: the columns' Arrow types.
    """

    def __init__(self, path: Path, columns: Columns) -> None:
        """Open a file.

        Raises:
            PairError: it is no Parquet file, or has not the columns that are asked for.
            NotInstalledError: pyarrow is not there.
        """
        pa = arrow()
        try:
            self._file = pa.parquet.ParquetFile(path)
        except FileNotFoundError:
            raise
        except (OSError, pa.ArrowException) as error:
            raise PairError(f"{path}: is no Parquet file: {error}.") from error
        self._path, self._columns = path, columns
        self.rows, self.schema = self._file.metadata.num_rows, self._file.schema_arrow
        names = self.schema.names
        for asked, option in ((columns.query, "--query-column"), (columns.document, "--document-column")):
            if asked not in names:
                raise PairError(
                    f"{path}: has the columns {', '.join(map(repr, names))}, not {asked!r}: give {option}."
                )

    def read(self, start: Place, keep: Sequence[str] | None) -> Iterator[Chunk]:
        """The rows from a place on, of the columns that are kept and the pair's.

        Raises:
            PairError: the file is not the one in which that place was reached.
        """
        digest = self._digest()
        if start.digest not in ("", digest):
            raise PairError(
                f"{self._path}: is not the file that was scored before; begin anew with --overwrite."
            )
        wanted = None if keep is None else list({*keep, self._columns.query, self._columns.document})
        groups, row = self._groups_from(start.number)
        for batch in self._batches(groups, wanted):
            skipped = max(0, start.number - row)
            row += batch.num_rows
            if skipped < batch.num_rows:
                rows = arrow().Table.from_batches([batch.slice(skipped)])
                yield self._chunk(rows, Place(row, row, digest))

    def _batches(self, groups: list[int], wanted: list[str] | None) -> Iterator[Any]:
        try:
            yield from self._file.iter_batches(CHUNK_RECORDS, row_groups=groups, columns=wanted)
        except (OSError, arrow().ArrowException) as error:
            raise PairError(f"{self._path}: is damaged: {error}.") from error

    def _groups_from(self, row: int) -> tuple[list[int], int]:
        """The row groups that hold a row and those behind it, and the first one's first row."""
        groups, first = list(range(self._file.num_row_groups)), 0
        while groups and first + self._file.metadata.row_group(groups[0]).num_rows <= row:
            first += self._file.metadata.row_group(groups.pop(0)).num_rows
        return groups, first

    def _chunk(self, rows: Any, end: Place) -> Chunk:
        first = end.number - rows.num_rows + 1
        queries, documents = (
            rows[name].to_pylist() for name in (self._columns.query, self._columns.document)
        )
        pairs: list[Pair] = []
        good: list[int] = []
        bad: list[Bad] = []
        for place, pair in enumerate(zip(queries, documents, strict=True)):
            why = _no_pair(pair, self._columns)
            if why:
                bad.append(Bad(first + place, why, repr(pair)))
            else:
                good.append(place)
                pairs.append(pair)
        kept = take(rows, good) if bad else rows
        return Chunk(kept, [first + place for place in good], pairs, bad, end)

    def _digest(self) -> str:
        """Of the file's end, which says where each column's pages stand and what they range over."""
        buffer = arrow().BufferOutputStream()
        self._file.metadata.write_metadata_file(buffer)
        return hashlib.blake2b(buffer.getvalue().to_pybytes(), digest_size=16).hexdigest()


def _no_pair(pair: tuple[Any, Any], columns: Columns) -> str | None:
    for name, value in zip((columns.query, columns.document), pair, strict=True):
        if why := no_text(value):
            return f"{name!r} {why}"
    return None


def as_table(rows: Any, schema: Any | None) -> Any:
    """Rows as an Arrow table, of the schema if there is one already.

    Raises:
        PairError: a new column, or a value that is not of its column's type; the first chunk decides both.
    """
    pa = arrow()
    if not isinstance(rows, list):
        return rows
    if schema is not None:
        for row in rows:
            if new := [name for name in row if name not in schema.names]:
                raise PairError(
                    f"the column {new[0]!r} is not among those of the first records, which Parquet keeps to: "
                    "name the columns to keep with --keep, or write .jsonl."
                )
    try:
        return pa.Table.from_pylist(rows, schema=schema)
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise PairError(
            f"a column changes its type, which Parquet's cannot: {error}. Leave it out with --keep, or write "
            ".jsonl."
        ) from error


def encode(table: Any) -> bytes:
    """A whole Arrow stream of one table."""
    sink = io.BytesIO()
    with arrow().ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    return sink.getvalue()


def schema_of(stream: BinaryIO) -> Any:
    """The schema of the first Arrow stream in a file."""
    return arrow().ipc.open_stream(stream).schema


def write(streams: Path, to: Path) -> None:
    """Make one Parquet file of the Arrow streams that stand one behind the other in a file."""
    pa, end = arrow(), streams.stat().st_size
    with streams.open("rb") as source:
        writer = None
        while source.tell() < end:
            for batch in pa.ipc.open_stream(source):
                writer = writer or pa.parquet.ParquetWriter(to, batch.schema)
                writer.write_batch(batch)
        if writer is None:
            raise PairError("there was no record to write.")
        writer.close()
