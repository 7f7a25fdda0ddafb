"""Rows made ready: warmed up, on the clock, able to take turns with others on one model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from perf_tests import peers
from perf_tests.device_clock import DeviceClock
from perf_tests.hopper.rows import Row
from perf_tests.hopper.setting import Setting
from perf_tests.workloads import Pair
from xenc import CrossEncoder


class Contestant:
    """A row that is ready to be timed.

    Args:
        row: which.
        scores: xenc's model or a peer, warmed up for it.
        device: torch's device type.

    Attributes:
        row: as given.
        model: xenc's model; None for a peer.
        warmup_s: seconds of the warm-up.
        graphs: graphs that it has.
    """

    def __init__(self, row: Row, scores: CrossEncoder | peers.Peer, device: str) -> None:
        self.row = row
        self.model = scores if isinstance(scores, CrossEncoder) else None
        self._peer = None if isinstance(scores, CrossEncoder) else scores
        self._clock = DeviceClock(device)
        self._pipeline: object = None
        self.warmup_s = 0.0
        self.graphs = 0

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
        if self._peer is not None:
            return self._peer.logits(pairs)
        assert self.model is not None
        scores: np.ndarray = self.model.predict(
            pairs, batch_size=self.row.batch_size, activation_fn=torch.nn.Identity(), show_progress_bar=False
        )
        return scores

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
        return Contestant(row, peer, self._setting.device)

    def _ours(self, row: Row) -> Contestant:
        setting = self._setting
        model = self._models.get(row.model_key)
        if model is None:
            model = self._models[row.model_key] = CrossEncoder(
                str(setting.checkpoint()), device=setting.device, max_length=setting.workload.max_length,
                model_kwargs={"dtype": setting.dtype}, execution=row.execution,
            )  # fmt: skip
        contestant = Contestant(row, model, setting.device)
        contestant.take_over()
        contestant.warmup_s = model.warmup(row.batch_size).seconds
        if model.execution != row.execution:
            raise RuntimeError(f"{row.name} runs as {model.execution} and would be timed under a wrong name")
        compiled = model.pipeline.compiled
        contestant.graphs = 0 if compiled is None else compiled.graphs
        return contestant
