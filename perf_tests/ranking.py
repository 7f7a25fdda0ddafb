"""Whether a ranking holds: Kendall's tau against the exact scores, and nDCG against people's judgements.

Shapes: N = pairs of a relevance set, query by query; n = candidates of one query.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from scipy.stats import kendalltau

from perf_tests.relevance import Judged, RelevanceSet

DEPTH: Final = 10

NDCG_TOLERANCE: Final = 0.01
"""How much nDCG@10 may fall, as a mean over queries."""


@dataclass(frozen=True, kw_only=True)
class RankQuality:
    """How well scores rank, as means over queries.

    Attributes:
        kendall_tau: agreement with the exact order, from -1 to 1.
        kendall_floor: its lower bound; see `tau_floor`.
        ndcg, exact_ndcg: nDCG@10 of the scores, and of the exact scores.
    """

    kendall_tau: float
    kendall_floor: float
    ndcg: float
    exact_ndcg: float

    def facts(self) -> dict[str, float]:
        """By the names of `xenc.gate.exact.FACTS`, with the bounds they are judged by."""
        return {
            "kendall_tau": self.kendall_tau,
            "kendall_floor": self.kendall_floor,
            "ndcg_loss": self.exact_ndcg - self.ndcg,
            "ndcg_tolerance": NDCG_TOLERANCE,
        }


def rank_quality(
    scores: np.ndarray, exact: np.ndarray, relevance: RelevanceSet, *, tolerance: float,
    plain: np.ndarray | None = None,
) -> RankQuality:  # fmt: skip
    """Judge scores [N] of `relevance.pairs`; see `tau_floor` for the other arguments, here [N]."""
    each = list(_by_query(relevance, scores, exact, exact if plain is None else plain))
    return RankQuality(
        kendall_tau=_mean(kendall_tau(ours, theirs) for _, ours, theirs, _ in each),
        kendall_floor=_mean(
            tau_floor(theirs, tolerance, None if plain is None else eager) for _, _, theirs, eager in each
        ),
        ndcg=_mean(ndcg(judged.relevance, ours) for judged, ours, _, _ in each),
        exact_ndcg=_mean(ndcg(judged.relevance, theirs) for judged, _, theirs, _ in each),
    )


def kendall_tau(scores: np.ndarray, exact: np.ndarray) -> float:
    """Kendall's tau-b of two score lists [n]; NaN if either is constant (Kendall 1945, "The treatment of
    ties in ranking problems").
    """
    return float(kendalltau(scores, exact).statistic)


def tau_floor(exact: np.ndarray, tolerance: float, plain: np.ndarray | None = None) -> float:
    """The lower bound of Kendall's tau: the higher of two floors.

    First, if no score is off by more than the tolerance, two pairs can change places only if their exact
    scores differ by at most twice that, and each change costs two of the n (n - 1) / 2 pairs of scores: the
    floor is 1 - 2 x the share of such pairs. If that is negative it is -1, since ties make tau-b larger in
    either direction.

    Second, in a lower precision, at most twice the disorder 1 - tau of plain eager execution in that
    precision, and one more exchange of neighbours.

    Args:
        exact: [n], the float32 oracle's scores.
        tolerance: of a score, in the units of the scores.
        plain: [n], of plain eager execution in the precision that is judged; None if that is the oracle.
    """
    gaps = np.abs(exact[:, None].astype(np.float64) - exact[None])[np.triu_indices(len(exact), 1)]
    within = 1 - 2 * float((gaps <= 2 * tolerance).mean())
    floor = within if within >= 0 else -1.0
    if plain is None:
        return floor
    return max(floor, 1 - 2 * (1 - kendall_tau(plain, exact)) - 2 / len(gaps))


def ndcg(relevance: Sequence[int], scores: np.ndarray, depth: int = DEPTH) -> float:
    """Normalised discounted cumulative gain of the first `depth` by score; equal scores in the given order.

    Sum over ranks r = 1, 2, ... of gain / log2(1 + r), over the same sum of the best order (Järvelin and
    Kekäläinen 2002, "Cumulated gain-based evaluation of IR techniques", with the discount usual since).

    Args:
        relevance: [n] gains, at least one of them positive.
        scores: [n], higher is better.
    """
    gains = np.asarray(relevance, dtype=np.float64)
    discounts = 1 / np.log2(np.arange(2, min(depth, len(gains)) + 2))
    ranked = gains[np.argsort(-np.asarray(scores), kind="stable")][:depth]
    best = np.sort(gains)[::-1][:depth]
    return float((ranked * discounts).sum() / (best * discounts).sum())


def _by_query(
    relevance: RelevanceSet, *lists: np.ndarray
) -> Iterator[tuple[Judged, np.ndarray, np.ndarray, np.ndarray]]:
    count = len(relevance.pairs)
    for scores in lists:
        if scores.shape != (count,):
            raise ValueError(f"{scores.shape} scores for {count} pairs")
    scores, exact, plain = lists
    start = 0
    for judged in relevance.queries:
        stretch = slice(start, start + len(judged.documents))
        yield judged, scores[stretch], exact[stretch], plain[stretch]
        start = stretch.stop


def _mean(values: Any) -> float:
    return float(np.mean(list(values)))
