"""A signal that asks the process to end ends a command as Ctrl-C does: what is open is closed."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn


class Stopped(KeyboardInterrupt):
    """A signal other than Ctrl-C asks the process to end."""

    def __init__(self, number: int) -> None:
        self.number = number


def number_of(error: KeyboardInterrupt) -> int:
    """The signal that was sent."""
    return error.number if isinstance(error, Stopped) else signal.SIGINT


@contextmanager
def signals_raised() -> Iterator[None]:
    """Within the block SIGTERM raises Stopped."""

    def stop(number: int, _frame: object) -> NoReturn:
        raise Stopped(number)

    try:
        before = signal.signal(signal.SIGTERM, stop)
    except ValueError:  # not the main thread: signals are somebody else's
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
