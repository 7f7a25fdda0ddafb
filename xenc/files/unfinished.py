"""An output that is not finished: what was written so far, and how far the input was read for it.

`OUT.partial` holds the records, `OUT.progress` says up to which byte they are whole and where the input goes
on. A run may be killed at any moment: bytes behind that one are cut off when the next run goes on, and the
file of progress is replaced as a whole, after the records that it counts are on the disk.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from ..errors import PairError, XencError
from .chunk import Place
from .jsonl import encode
from .scoring import ScoredChunk


@dataclass(frozen=True)
class Progress:
    """What an unfinished run has done.

    Attributes:
        settings: what decides the scores and the output's form; a run that goes on must have the same.
        place: where the input goes on.
        written, skipped: bytes of whole records in the output, and in the file of bad ones.
        scored, bad: how many records.
        columns: of a table.
        complete: whether all is written, and only the names of the files are left to change.
    """

    settings: dict[str, Any]
    place: Place = field(default_factory=Place)
    written: int = 0
    skipped: int = 0
    scored: int = 0
    bad: int = 0
    columns: list[str] | None = None
    complete: bool = False


class OutputError(XencError, OSError):
    """Records that cannot be written."""


class Unfinished:
    """The output of a run. Use it in a `with` block: another process cannot write the same output meanwhile.

    Attributes:
        written: the file that holds the records so far.
        progress: how far it goes.
    """

    def __init__(self, out: Path, settings: dict[str, Any], skip_bad: Path | None = None) -> None:
        """Name the output. Nothing is touched before `begin` or `go_on`."""
        self._out, self._skip_bad = out, skip_bad
        self.written, self._file = _beside(out, "partial"), _beside(out, "progress")
        self.progress = Progress(settings)
        self._output: int | None = None
        self._skipped: int | None = None

    @property
    def found(self) -> bool:
        """Whether an earlier run left something to go on with."""
        return self._file.exists() or self.written.exists()

    def begin(self) -> Self:
        """Begin anew."""
        with self._closed_on_error():
            self._open()
            self._file.unlink(missing_ok=True)
            self._cut()
        return self

    def go_on(self) -> Self:
        """Go on where an earlier run ended, or begin if there was none.

        Raises:
            PairError: that run had other settings, or what it left cannot be read.
        """
        with self._closed_on_error():
            if self._file.exists() and (progress := self._read()).complete:
                self.progress = progress
                return self  # its files may have their names by now
            self._open()
            if self._file.exists():
                self.progress = self._read()
            self._cut()
        return self

    @property
    def place(self) -> Place | None:
        """Where the input goes on, or None at its beginning."""
        return self.progress.place if self.progress.place.number else None

    def add(self, encoded: bytes, part: ScoredChunk, columns: list[str] | None) -> None:
        """Append records; when this returns they are on the disk.

        Args:
            encoded: the records.
            part: what they are, which were skipped, and where the input goes on behind them.
            columns: of a table.

        Raises:
            OutputError: the disk is full, for example. What was added before is kept.
        """
        told = b"" if self._skipped is None else encode([asdict(one) for one in part.bad])
        now = self.progress
        try:
            _append(self._output, encoded)
            if self._skipped is not None:
                _append(self._skipped, told)
            self._save(replace(
                now, place=part.end, columns=columns,
                scored=now.scored + len(part.scores), bad=now.bad + len(part.bad),
                written=now.written + len(encoded), skipped=now.skipped + len(told),
            ))  # fmt: skip
        except OSError as error:
            raise OutputError(
                f"{self._out}: {error.strerror}. {now.scored:,} scored records are kept: go on with --resume."
            ) from error

    def finish(self, make: Callable[[Path, Path], None]) -> None:
        """Give the output its name: `make(written, out)` does that. The file of bad records comes first."""
        self._save(replace(self.progress, complete=True))
        if self._skip_bad is not None and (left := _beside(self._skip_bad, "partial")).exists():
            left.replace(self._skip_bad)
        if self.written.exists():
            make(self.written, self._out)
        self._file.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def _open(self) -> None:
        self._output = _locked(self.written)
        if self._skip_bad is not None:
            self._skipped = _locked(_beside(self._skip_bad, "partial"))

    def _close(self) -> None:
        for descriptor in (self._output, self._skipped):
            if descriptor is not None:
                os.close(descriptor)
        self._output = self._skipped = None

    @contextmanager
    def _closed_on_error(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self._close()
            raise

    def _cut(self) -> None:
        """Drop what was written behind the last record that is known to be whole."""
        _cut(self._output, self.progress.written, self.written)
        if self._skipped is not None:
            _cut(self._skipped, self.progress.skipped, _beside(Path(self._skip_bad or ""), "partial"))
        elif self.progress.skipped:
            raise PairError(f"{self._out}: was begun with --skip-bad, which skipped some: give it again.")

    def _read(self) -> Progress:
        try:
            read = json.loads(self._file.read_bytes())
            found = Progress(**{**read, "place": Place(**read["place"])})
        except (ValueError, TypeError, KeyError) as error:
            raise PairError(
                f"{self._file}: cannot be read ({error}): begin anew with --overwrite."
            ) from error
        now = self.progress.settings
        for name in sorted({*now, *found.settings}):
            if found.settings.get(name) != now.get(name):
                was, is_now = found.settings.get(name), now.get(name)
                raise PairError(
                    f"{self._out}: was begun {_given(name, was)}, and not {_given(name, is_now)}: give the "
                    "same options, or begin anew with --overwrite."
                )
        return found

    def _save(self, progress: Progress) -> None:
        made = self._file.with_name(f"{self._file.name}.making")
        with made.open("w", encoding="utf-8") as file:
            json.dump(asdict(progress), file)
            file.flush()
            os.fsync(file.fileno())
        made.replace(self._file)
        self.progress = progress


def _given(name: str, value: object) -> str:
    if value is None or value is False:
        return f"without {name}"
    shown = ",".join(map(str, value)) if isinstance(value, list) else str(value)
    return f"with {name}" if value is True else f"with {name} {shown}"


def _beside(path: Path, what: str) -> Path:
    return path.with_name(f"{path.name}.{what}")


def _locked(path: Path) -> int:
    """A file to append to, of which no other process has the lock. It ends with this process."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror}. Name another output.") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise PairError(
            f"{path}: another process is writing it; wait for it, or name another output."
        ) from error
    return descriptor


def _cut(descriptor: int | None, size: int, path: Path) -> None:
    assert descriptor is not None
    if os.fstat(descriptor).st_size < size:
        raise PairError(f"{path}: is shorter than what was written to it: begin anew with --overwrite.")
    os.ftruncate(descriptor, size)


def _append(descriptor: int | None, data: bytes) -> None:
    assert descriptor is not None
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view):]  # fmt: skip
    os.fsync(descriptor)
