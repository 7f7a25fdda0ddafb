"""Whether rows answer as the oracle does, and batch-invariantly."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from correctness_tests import oracle
from perf_tests.hopper.setting import Setting
from perf_tests.ranking import kendall_tau, tau_floor
from perf_tests.scorers import output_error
from perf_tests.side_by_side.contestant import Contestant
from perf_tests.side_by_side.turns import Timed
from perf_tests.workloads import Pair

RANKED: Final = 128
"""Pairs whose order is compared with the oracle's."""


def check_answers(contestant: Contestant, timed: Timed, pairs: Sequence[Pair], setting: Setting) -> None:
    """Score a round once, untimed, and note how far it is from the float32 oracle, and may be."""
    logits = contestant.logits(pairs)
    timed.output_error, timed.output_tolerance = output_error(
        logits, pairs, model=setting.checkpoint(), device=setting.device,
        max_length=setting.workload.max_length, dtype=setting.dtype, quantize=contestant.row.quantize,
    )  # fmt: skip


def check_ranking(contestant: Contestant, timed: Timed, pairs: Sequence[Pair], setting: Setting) -> None:
    """Note how far a row keeps the oracle's order, and how far it has to."""
    some = list(pairs[:RANKED])

    def answered(**precision: Any) -> np.ndarray:
        return oracle.logits(
            setting.checkpoint(), some, max_length=setting.workload.max_length, device=setting.device,
            **precision,
        )  # fmt: skip

    exact, plain = answered(), answered(dtype=setting.dtype, quantize=contestant.row.quantize)
    contestant.take_over()
    timed.kendall_tau = kendall_tau(contestant.logits(some), exact)
    timed.kendall_floor = tau_floor(exact, timed.output_tolerance, plain)


def differing_scores(contestant: Contestant, pairs: Sequence[Pair]) -> int:
    """How many scores depend in a bit on the rest of the batch or the position in it."""
    contestant.take_over()
    together = contestant.logits(pairs)
    order = random.Random("company").sample(range(len(pairs)), len(pairs))
    shuffled = contestant.logits([pairs[row] for row in order])
    few = order[: max(1, len(pairs) // 10)]
    apart = contestant.logits([pairs[row] for row in few])
    differ = {row for row, score in zip(order, shuffled, strict=True) if score != together[row]}
    return len(differ | {row for row, score in zip(few, apart, strict=True) if score != together[row]})
