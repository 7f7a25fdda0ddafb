"""How far a command is, on stderr: a bar on a terminal, a line from time to time in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

SECONDS_BETWEEN_LINES: Final = 10.0


class Meter(Protocol):
    """Takes what was done so far."""

    def reached(self, pairs: int, read: int) -> None:
        """So many pairs are scored, and so much of the input is read."""


@contextmanager
def progress(size: int | None, *, quiet: bool) -> Iterator[Meter]:
    """Show progress through an input of a size (bytes or rows; None if unknown) while the block runs."""
    if quiet:
        yield _Quiet()
    elif sys.stderr.isatty():
        with _Bar(size) as bar:
            yield bar
    else:
        yield _Log(size)


class Rate:
    """Pairs per second since it was made, and the time left by the part of the input that is read."""

    def __init__(self, size: int | None) -> None:
        self._size, self._start = size, time.monotonic()
        self._first: tuple[int, int] | None = None

    def says(self, pairs: int, read: int) -> str:
        """Such as "12,288 pairs, 310 pairs/s, 41 s left"."""
        first_pairs, first_read = self._first = self._first or (pairs, read)
        seconds = max(time.monotonic() - self._start, 1e-9)
        said = f"{pairs:,} pairs, {(pairs - first_pairs) / seconds:,.0f} pairs/s"
        if self._size and read > first_read:
            left = seconds * (self._size - read) / (read - first_read)
            said += f", {_duration(left)} left"
        return said


class _Quiet:
    def reached(self, pairs: int, read: int) -> None:
        pass


class _Log:
    def __init__(self, size: int | None) -> None:
        self._rate, self._said = Rate(size), time.monotonic()

    def reached(self, pairs: int, read: int) -> None:
        said = self._rate.says(pairs, read)
        if time.monotonic() - self._said >= SECONDS_BETWEEN_LINES:
            self._said = time.monotonic()
            print(f"xenc: {said}", file=sys.stderr, flush=True)


class _Bar:
    def __init__(self, size: int | None) -> None:
        self._rate, self._size = Rate(size), size
        self._bar = Progress(
            TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn(),
            console=Console(stderr=True), transient=True,
        )  # fmt: skip
        self._task = self._bar.add_task("reading the model", total=size)

    def __enter__(self) -> _Bar:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def reached(self, pairs: int, read: int) -> None:
        self._bar.update(self._task, completed=read, description=self._rate.says(pairs, read))


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min" if minutes else f"{rest} s"
