"""How far the rows are from the float32 oracle, over all pairs of a round."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from correctness_tests import oracle
from perf_tests.cpu.rows import Row
from perf_tests.cpu.setting import Setting
from perf_tests.ranking import kendall_tau
from perf_tests.scorers import FLOAT32_TOLERANCE, output_error
from perf_tests.side_by_side.contestant import Contestant
from perf_tests.side_by_side.turns import Timed
from perf_tests.workloads import Pair


class Answers:
    """Compares rows with the oracle's answers to one list of pairs, cut at max_length tokens."""

    def __init__(self, setting: Setting, pairs: Sequence[Pair], max_length: int) -> None:
        self._setting, self._pairs, self._max_length = setting, list(pairs), max_length
        self._exact = oracle.logits(setting.one_model(), self._pairs, max_length=max_length)

    def check(self, contestant: Contestant, row: Row, timed: Timed) -> None:
        """Score the list once, untimed; record the error, the ranking and the tolerance.

        Other systems have a tolerance in float32 only.
        """
        contestant.take_over()
        logits = contestant.logits(self._pairs)
        timed.largest_error = float(np.abs(logits - self._exact).max())
        timed.kendall_tau = kendall_tau(logits, self._exact)
        if row.execution is not None:
            timed.output_error, timed.output_tolerance = output_error(
                logits, self._pairs, model=self._setting.one_model(), device="cpu",
                max_length=self._max_length, dtype=row.dtype, quantize=row.execution.quantize,
            )  # fmt: skip
        elif row.dtype == torch.float32 and not row.int8:
            timed.output_error, timed.output_tolerance = timed.largest_error, FLOAT32_TOLERANCE
