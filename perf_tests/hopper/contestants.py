"""Rows made ready: warmed up, on the clock, able to take turns with others on one model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from perf_tests import peers
from perf_tests.device_clock import DeviceClock
from perf_tests.hopper.rows import Row
from perf_tests.hopper.setting import Setting
from perf_tests.scorers import Scorer
from perf_tests.workloads import Pair
from xenc import CrossEncoder


class Contestant:
    """A row that is ready to be timed.

    Args:
        row: which.
        scorer: xenc's model or a peer, with the row's batch size.
        device: torch's device type.

    Attributes:
        row, scorer: as given.
        model: xenc's model; None for a peer.
    """

    def __init__(self, row: Row, scorer: Scorer, device: str) -> None:
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
        """What the forward passes of the last `logits` took on the device; None for a peer."""
        return None if self.model is None else self._clock.seconds()

    @property
    def waste(self) -> float | None:
        """Padding / all tokens of the last `logits`; None for a peer."""
        report = None if self.model is None else self.model.last_report
        return None if report is None else report.waste


class Contestants:
    """Makes rows ready. Those that differ in order, batch size or token budgets alone share a model.

    Args:
        setting: where and on what.
    """

    def __init__(self, setting: Setting) -> None:
        self._setting = setting
        self._models: dict[object, Any] = {}

    def ready(self, row: Row) -> Contestant:
        """A contestant, for which nothing is left to compile."""
        return self._peer(row) if row.execution is None else self._ours(row)

    def _peer(self, row: Row) -> Contestant:
        assert row.peer is not None
        known = self._models.get(row.model_key)
        if known is None:
            setting = self._setting
            peer: Any = peers.make(
                row.peer, setting.checkpoint(), setting.device, setting.dtype, row.batch_size
            )
            self._models[row.model_key] = peer
        else:
            peer = known.at(row.batch_size)
        return Contestant(row, Scorer(peer=peer, batch_size=row.batch_size), self._setting.device)

    def _ours(self, row: Row) -> Contestant:
        setting = self._setting
        model = self._models.get(row.model_key)
        if model is None:
            model = self._models[row.model_key] = CrossEncoder(
                str(setting.checkpoint()), device=setting.device, max_length=setting.workload.max_length,
                model_kwargs={"dtype": setting.dtype}, execution=row.execution,
            )  # fmt: skip
        scorer = Scorer(model=model, batch_size=row.batch_size)
        contestant = Contestant(row, scorer, setting.device)
        contestant.take_over()
        scorer.warmup_s = model.warmup(row.batch_size).seconds
        if model.execution != row.execution:
            raise RuntimeError(f"{row.name} runs as {model.execution} and would be timed under a wrong name")
        compiled = model.pipeline.compiled
        scorer.graphs = 0 if compiled is None else compiled.graphs
        return contestant
