"""Rows made ready: warmed up, on the clock, able to take turns with others on one model."""

from __future__ import annotations

from typing import Any

from perf_tests import peers
from perf_tests.hopper.rows import Row
from perf_tests.hopper.setting import Setting
from perf_tests.scorers import Scorer
from perf_tests.side_by_side.contestant import Contestant, warmed_up
from xenc import CrossEncoder


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
        return warmed_up(row, model, row.batch_size, setting.device)
