"""Documents, or questions, of a file: one on each line, or one in a column of each record."""

from __future__ import annotations

import sys
from pathlib import Path

from ..errors import PairError
from .chunk import Columns
from .formats import COMPRESSED, STREAM, SUFFIXES, whole
from .lines import Lines, UnreadableLine, without_end


def read_documents(name: str, columns: Columns, format: str | None = None) -> list[str]:
    """All documents of a file, in memory, in their order.

    Raises:
        PairError: the file cannot be read, holds none, or a record holds none; says which.
    """
    if format is None and Path(name).suffix.lower() not in (*SUFFIXES, *COMPRESSED):
        return read_lines(name)
    only = Columns(columns.document, columns.document, columns.header)
    return _some(name, [document for _, document in whole(name, only, format)])


def read_lines(name: str) -> list[str]:
    """The lines of a file or of standard input that are not blank.

    Raises:
        PairError: it cannot be read, holds none, or is not UTF-8.
    """
    try:
        stream = sys.stdin.buffer if name == STREAM else Path(name).open("rb")  # noqa: SIM115
    except OSError as error:
        raise PairError(f"{name}: cannot be read: {error.strerror}.") from error
    lines = Lines(stream, name)
    try:
        texts = [text for line in lines if (text := without_end(line)).strip()]
    except UnreadableLine as error:
        raise PairError(f"{name}, line {lines.number}: {error}.") from error
    finally:
        if name != STREAM:
            stream.close()
    return _some(name, texts)


def _some(name: str, texts: list[str]) -> list[str]:
    if not texts:
        raise PairError(f"{name} holds no text: give at least one line.")
    return texts
