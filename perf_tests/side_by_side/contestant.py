"""A row on its way through a run: what scores its pairs, and the clock on it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from perf_tests import scorers
from perf_tests.device_clock import DeviceClock
from perf_tests.scorers import Scorer
from perf_tests.workloads import Pair
from xenc import CrossEncoder


class Contestant:
    """A row that is ready to be timed.

    Args:
        row: its name and execution; the latter is None for a peer.
        scorer: xenc's model or a peer, with the row's batch size.
        device: torch's device type.
    """

    def __init__(self, row: Any, scorer: Scorer, device: str) -> None:
        self.row, self.scorer, self.model = row, scorer, scorer.model
        self._clock = DeviceClock(device)
        self._pipeline: object = None

    def take_over(self) -> None:
        """Put the model under this row's execution, and its forward passes on this row's clock."""
        if self.model is None:
            return
        if self.model.execution != self.row.execution:
            self.model.execution = self.row.execution
        if self.model.pipeline is not self._pipeline:
            self._pipeline = self.model.pipeline
            self.model.pipeline.forward = self._clock.timed(self.model.pipeline.forward)

    def logits(self, pairs: Sequence[Pair]) -> np.ndarray:
        """[N] float32 logits, in the caller's order."""
        self._clock.begin()
        return self.scorer.logits(pairs)

    @property
    def device_seconds(self) -> float | None:
        """Seconds of the last `logits`' forward passes on the device; None for a peer."""
        return None if self.model is None else self._clock.seconds()

    @property
    def waste(self) -> float | None:
        """Padding / all tokens of the last `logits`; None for a peer."""
        report = None if self.model is None else self.model.last_report
        return None if report is None else report.waste


def warmed_up(row: Any, model: CrossEncoder, batch_size: int, device: str) -> Contestant:
    """A row of xenc's, for which nothing is left to compile; see `scorers.warmed_up`."""
    return Contestant(row, scorers.warmed_up(model, row.execution, row.name, batch_size), device)
