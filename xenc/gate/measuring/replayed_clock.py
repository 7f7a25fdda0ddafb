"""Hands seconds that were measured elsewhere to pytest-benchmark, for its storage and its table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class ReplayedClock:
    """A timer for pytest-benchmark that replays earlier measurements."""

    def __init__(self) -> None:
        self._now = 0.0

    def __call__(self) -> float:
        """Seconds that were replayed so far."""
        return self._now

    def replay(self, benchmark: Any, seconds: Sequence[float]) -> None:
        """Hand them to pytest-benchmark's fixture, a round each."""
        remaining = iter(seconds)

        def wait() -> None:
            self._now += next(remaining)

        benchmark.pedantic(wait, rounds=len(seconds), iterations=1)
