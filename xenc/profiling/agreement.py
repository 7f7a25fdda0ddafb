"""How far scores are from others of the same pairs, and how much of their order they keep."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

_ROWS_AT_ONCE: Final = 512


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """Scores against exact ones.

    Attributes:
        largest_error: the largest difference of a logit.
        kendall_tau: agreement of the two orders, from -1 to 1; None if either has no order.
        swapped: how many pairs of scores stand the other way round, of n (n - 1) / 2.
    """

    largest_error: float
    kendall_tau: float | None = None
    swapped: int | None = None


def agreement(scores: np.ndarray, exact: np.ndarray) -> Agreement:
    """Compare logits [N] or [N, C] with exact ones. Several labels (C > 1) have no order.

    Kendall's tau-b counts each pair of scores that stands in the same order in both, less each that does not
    (Kendall 1945, "The treatment of ties in ranking problems"). NaN has no error: the caller refuses it.
    """
    difference = np.abs(scores.astype(np.float64) - exact)
    largest = float(difference.max())
    if exact.ndim > 1 and exact.shape[1] > 1:
        return Agreement(largest_error=largest)
    tau, swapped = _orders(scores.reshape(-1), exact.reshape(-1))
    return Agreement(largest_error=largest, kendall_tau=tau, swapped=swapped)


def _orders(scores: np.ndarray, exact: np.ndarray) -> tuple[float | None, int]:
    alike = ordered = exactly_ordered = swapped = 0
    for start in range(0, len(scores), _ROWS_AT_ONCE):
        part = slice(start, start + _ROWS_AT_ONCE)
        ours = np.sign(scores[part, None] - scores[None]).astype(np.int8)
        theirs = np.sign(exact[part, None] - exact[None]).astype(np.int8)
        both = ours * theirs
        alike += int(both.sum(dtype=np.int64))
        swapped += int((both < 0).sum())
        ordered += int(np.count_nonzero(ours))
        exactly_ordered += int(np.count_nonzero(theirs))
    if not ordered or not exactly_ordered:
        return None, 0
    return alike / float(np.sqrt(float(ordered) * exactly_ordered)), swapped // 2
