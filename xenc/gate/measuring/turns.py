"""A measuring process that warms up beside others and measures only when it is its turn: its own side.

Its request has "turns": what differs in each turn, as fields of the request. When it is warm it makes the
file READY beside its result. Each byte in its standard input is a turn; between turns it is blocked.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..paired.campaign import end_with_parent, write_result


class Turns:
    """Hears when it is this process's turn, and ends it with its parent; the first thing a process makes."""

    def __init__(self) -> None:
        self._given = threading.Semaphore(0)
        end_with_parent(self._given.release)

    def take(
        self, request: Mapping[str, Any], result: Path, measure: Callable[[dict[str, Any]], dict[str, Any]]
    ) -> None:
        """Say that this process is warm; then measure in each turn, and write the turn's result."""
        ready_file(result).touch()
        for number, turn in enumerate(request["turns"]):
            self._given.acquire()
            write_result(turn_file(result, number), measure({**request, **turn}))


def ready_file(result: Path) -> Path:
    """Where a process says that it is warm."""
    return result.with_name("READY")


def turn_file(result: Path, number: int) -> Path:
    """Where the result of a turn is written."""
    return result.with_name(f"{result.stem}-{number}.json")
