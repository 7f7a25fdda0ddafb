"""What one test of a run measured."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Record:
    """One benchmark of this run.

    Attributes:
        name: its pytest node id.
        device: torch's type of the measured device, "cpu" or "cuda".
        seconds: of each round, in order; empty if nothing was timed.
        info: pytest-benchmark's `extra_info`.
    """

    name: str
    device: str
    seconds: tuple[float, ...]
    info: Mapping[str, Any]

    @property
    def label(self) -> str:
        """Its name in tables: `label` of its info, or else the test's name."""
        return str(self.info.get("label", self.name.rpartition("::")[2]))

    @property
    def spread(self) -> float:
        """Standard deviation / median of the seconds, for rounds of unequal size of the seconds per size.

        `round_sizes` of its info tells how large the input of each round is, in any unit.
        """
        sizes = self.info.get("round_sizes") or [1] * len(self.seconds)
        return relative_spread([second / size for second, size in zip(self.seconds, sizes, strict=True)])

    @property
    def took_time(self) -> bool:
        """Whether something was timed."""
        return bool(self.seconds) and min(self.seconds) > 0


def relative_spread(values: Sequence[float]) -> float:
    """Standard deviation / median, as a fraction; 0 for fewer than two values."""
    return statistics.stdev(values) / statistics.median(values) if len(values) > 1 else 0.0
