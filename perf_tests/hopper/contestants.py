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
    """Makes rows ready. Rows that differ only in order, batch size or token budgets share a model."""

    def __init__(self, setting: Setting) -> None:
        self._setting = setting
        self._models: dict[object, Any] = {}

    def ready(self, row: Row) -> Contestant:
        """A contestant, for which nothing is left to compile."""
        setting, known = self._setting, self._models.get(row.model_key)
        if row.execution is None:
            peer: Any = (
                peers.make(row.peer, setting.checkpoint(), setting.device, setting.dtype, row.batch_size)
                if known is None
                else known.at(row.batch_size)
            )
            self._models.setdefault(row.model_key, peer)
            return Contestant(row, Scorer(peer=peer, batch_size=row.batch_size), setting.device)
        if known is None:
            known = self._models[row.model_key] = CrossEncoder(
                str(setting.checkpoint()), device=setting.device, max_length=setting.workload.max_length,
                model_kwargs={"dtype": setting.dtype}, execution=row.execution,
            )  # fmt: skip
        return warmed_up(row, known, row.batch_size, setting.device)
