"""An output that nobody can go on with: standard output."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import BinaryIO

from .chunk import Place
from .jsonl import encode
from .scoring import ScoredChunk
from .unfinished import Progress


class Stream:
    """Standard output, with the methods of `Unfinished`."""

    def __init__(self, stream: BinaryIO, skipped: BinaryIO | None = None) -> None:
        self._stream, self._skipped = stream, skipped
        self.progress = Progress({})
        self.place: Place | None = None

    @classmethod
    def ended(cls) -> Stream:
        """An output to which nothing is to be added."""
        made = cls(io.BytesIO())
        made.progress = replace(made.progress, complete=True)
        return made

    def add(self, encoded: bytes, part: ScoredChunk, columns: list[str] | None) -> None:
        """Write records at once."""
        self._stream.write(encoded)
        self._stream.flush()
        if self._skipped is not None:
            self._skipped.write(encode([asdict(one) for one in part.bad]))
        self.progress = replace(
            self.progress, columns=columns,
            scored=self.progress.scored + len(part.scores), bad=self.progress.bad + len(part.bad),
        )  # fmt: skip

    def finish(self, make: Callable[[Path, Path], None]) -> None:
        """Nothing is left to do."""
