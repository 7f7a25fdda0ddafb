"""The lines of a file of any size, as bytes, with their numbers and a digest of all that was read."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import BinaryIO, Final

from ..errors import PairError
from .chunk import Place

LONGEST_LINE: Final = 64 << 20
"""Bytes. A longer line is passed over and said to be bad."""

_BLOCK: Final = 1 << 20


class UnreadableLine(ValueError):
    """Why a line cannot be read: it is longer than LONGEST_LINE, not UTF-8, or not what its format wants."""


class Lines:
    """Reads a binary stream line by line from a place.

    Attributes:
        number: of the line read last, counted from 1.
        offset: bytes up to its end.
    """

    def __init__(self, stream: BinaryIO, name: str) -> None:
        self._stream, self._name, self._hash = stream, name, hashlib.blake2b(digest_size=16)
        self.number = self.offset = 0

    @property
    def place(self) -> Place:
        """Where the next line begins."""
        return Place(self.offset, self.number, self._hash.copy().hexdigest())

    def skip_to(self, place: Place) -> None:
        """Read up to a place that an earlier process reached.

        Raises:
            PairError: what stands there is not what that process read.
        """
        while self.offset < place.offset:
            block = self._stream.read(min(_BLOCK, place.offset - self.offset))
            if not block:
                break
            self._took(block)
        if self.place.digest != place.digest:
            raise PairError(
                f"{self._name}: the first {place.number} lines are not those that were scored before: give "
                "the same file, or begin anew with --overwrite."
            )
        self.number = place.number

    def __iter__(self) -> Iterator[str]:
        """Each line's text with its end.

        Raises:
            UnreadableLine: once for a line; the next line can still be read.
        """
        return self

    def __next__(self) -> str:
        line = self._stream.readline(LONGEST_LINE)
        if not line:
            raise StopIteration
        self.number += 1
        self._took(line)
        if len(line) == LONGEST_LINE and not line.endswith(b"\n"):
            self._pass_over()
            raise UnreadableLine(f"is longer than {LONGEST_LINE} bytes")
        if self.number == 1:
            line = line.removeprefix(b"\xef\xbb\xbf")
        try:
            return line.decode()
        except UnicodeDecodeError as error:
            raise UnreadableLine(f"is not UTF-8: {error.reason} at byte {error.start} of the line") from error

    def _pass_over(self) -> None:
        while True:
            rest = self._stream.readline(_BLOCK)
            self._took(rest)
            if not rest or rest.endswith(b"\n"):
                return

    def _took(self, read: bytes) -> None:
        self._hash.update(read)
        self.offset += len(read)


def numbered(lines: Lines) -> Iterator[tuple[int, str | UnreadableLine]]:
    """Each line with its number; an UnreadableLine in the place of one that cannot be read."""
    while True:
        try:
            line: str | UnreadableLine = next(lines)
        except StopIteration:
            return
        except UnreadableLine as error:
            line = error
        yield lines.number, line


def without_end(line: str) -> str:
    """The line without its line feed, and a carriage return before that."""
    return line.removesuffix("\n").removesuffix("\r")
