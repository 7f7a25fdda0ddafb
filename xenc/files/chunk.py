"""Consecutive records of a file, the pairs in them, and where the record after them stands."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

Pair = tuple[str, str]
Row = dict[str, Any]
"""A record of a text file: column → value."""

Record = tuple[int, Row | str, str]
"""The line on which a record begins; the record, or why it is none; its text."""

CHUNK_RECORDS: Final = 1024
CHUNK_BYTES: Final = 16 << 20
"""A chunk ends with the record that reaches either. What is read ahead is bounded by a few chunks."""


@dataclass(frozen=True)
class Columns:
    """Which columns hold what.

    Attributes:
        query, document: the columns of a pair.
        header: whether the first line of a .csv or .tsv file names its columns. Else they are "1", "2", ...
    """

    query: str = "query"
    document: str = "document"
    header: bool = True


@dataclass(frozen=True)
class Place:
    """Where reading goes on.

    Attributes:
        offset: bytes read of a text file, rows of a Parquet file.
        number: lines (rows) read; the next has this number plus one.
        digest: of what was read, so that another process can tell whether it has the same file.
    """

    offset: int = 0
    number: int = 0
    digest: str = ""


@dataclass(frozen=True)
class Bad:
    """A record that cannot be scored: its line (in Parquet its row, from 1), why, and what stands there."""

    number: int
    why: str
    text: str


@dataclass(frozen=True)
class Chunk:
    """Records in the order of the file.

    Attributes:
        rows: what is written again beside the scores: dictionaries, or an Arrow table.
        numbers: of each record the line on which it begins.
        pairs: of each record its query and document.
        bad: records that hold no pair; they are in none of the others.
        end: where the next chunk begins.
    """

    rows: Any
    numbers: Sequence[int]
    pairs: Sequence[Pair]
    bad: Sequence[Bad]
    end: Place


def take(rows: Any, chosen: Sequence[int]) -> Any:
    """The chosen rows, by their places."""
    return [rows[place] for place in chosen] if isinstance(rows, list) else rows.take(chosen)


def pair_of(row: Mapping[str, Any], columns: Columns) -> Pair | str:
    """The pair in a record, or why there is none."""
    texts = []
    for name in (columns.query, columns.document):
        if name not in row:
            return f"has no {name!r}, only {', '.join(map(repr, row)) or 'nothing'}"
        why = no_text(row[name])
        if why:
            return f"{name!r} {why}"
        texts.append(row[name])
    return texts[0], texts[1]


def no_text(value: object) -> str | None:
    """Why a value is no text that can be scored, or None."""
    if not isinstance(value, str):
        return f"is {shown(value)}, and no text"
    try:
        value.encode()
    except UnicodeEncodeError as error:
        return f"holds half of a surrogate pair at character {error.start}, and is no text"
    return None


def shown(value: object) -> str:
    """A value as a message quotes it: its beginning."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def gathered(records: Iterable[Record], columns: Columns, place: Callable[[], Place]) -> Iterator[Chunk]:
    """Put the records of a text file together into chunks.

    Args:
        records: each as it is asked for.
        columns: where the pair stands. A record that holds none is bad.
        place: where the file goes on behind the record that came last.
    """
    gathering = _Gathering(columns)
    for record in records:
        gathering.add(*record)
        if gathering.full:
            yield gathering.chunk(place())
            gathering = _Gathering(columns)
    if gathering.records:
        yield gathering.chunk(place())


class _Gathering:
    """Collects the records of one chunk."""

    def __init__(self, columns: Columns) -> None:
        self._columns = columns
        self._rows: list[Row] = []
        self._numbers: list[int] = []
        self._pairs: list[Pair] = []
        self._bad: list[Bad] = []
        self._size = 0

    @property
    def records(self) -> int:
        """How many were added."""
        return len(self._rows) + len(self._bad)

    @property
    def full(self) -> bool:
        """Whether the chunk is as large as chunks get."""
        return self.records >= CHUNK_RECORDS or self._size >= CHUNK_BYTES

    def add(self, number: int, row: Row | str, text: str) -> None:
        pair = row if isinstance(row, str) else pair_of(row, self._columns)
        self._size += len(text)
        if isinstance(row, str) or isinstance(pair, str):
            self._bad.append(Bad(number, str(pair), text))
            return
        self._rows.append(row)
        self._numbers.append(number)
        self._pairs.append(pair)

    def chunk(self, end: Place) -> Chunk:
        return Chunk(self._rows, self._numbers, self._pairs, self._bad, end)
