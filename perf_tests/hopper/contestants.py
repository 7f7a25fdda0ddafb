"""Rows made ready: warmed up, on the clock, able to take turns with others on one model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from perf_tests import peers
from perf_tests.hopper.attention_ways import attending
from perf_tests.hopper.rows import Row
from perf_tests.hopper.setting import Setting
from perf_tests.scorers import Scorer, warmed_up
from perf_tests.side_by_side.contestant import Contestant
from perf_tests.workloads import Pair
from xenc import CrossEncoder


class Attending(Contestant):
    """A contestant whose packed attention runs in its row's kernel."""

    def logits(self, pairs: Sequence[Pair]) -> np.ndarray:
        """See `Contestant`."""
        with attending(self.row.attention):
            return super().logits(pairs)


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
        with attending(row.attention):
            scorer = warmed_up(known, row.execution, row.name, row.batch_size)
        return Attending(row, scorer, setting.device)
