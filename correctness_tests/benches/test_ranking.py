"""Rankings: the numbers by hand and by scikit-learn, the floor by Hypothesis, and the judged texts."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perf_tests import relevance
from perf_tests.ranking import kendall_tau, ndcg, rank_quality, tau_floor
from perf_tests.relevance import Judged, RelevanceSet
from xenc.gate.exact import broken_laws

TWO = RelevanceSet(
    (
        Judged(query="a", documents=("p", "q", "r", "s"), relevance=(1, 0, 0, 0)),
        Judged(query="b", documents=("t", "u", "v"), relevance=(0, 1, 1)),
    )
)
EXACT = np.array([3.0, 2.0, 1.0, 0.0, 0.0, 2.0, 1.0])


def test_ndcg_is_scikit_learns():
    from sklearn.metrics import ndcg_score

    generator = np.random.default_rng(0)
    for _ in range(20):
        gains, scores = generator.integers(0, 3, 25), generator.normal(size=25)
        for depth in (2, 10):
            expected = ndcg_score([gains], [scores], k=depth)
            assert ndcg(tuple(gains), scores, depth) == pytest.approx(expected)


def test_two_neighbours_exchanged_cost_two_of_all_pairs():
    assert kendall_tau(np.array([3.0, 1.0, 2.0, 0.0]), EXACT[:4]) == pytest.approx(1 - 2 / 6)


@given(
    exact=st.lists(st.integers(-50, 50), min_size=2, max_size=12, unique=True),
    tolerance=st.floats(0, 20),
    data=st.data(),
)
def test_scores_within_the_tolerance_never_rank_below_the_floor(exact, tolerance, data):
    errors = st.floats(-tolerance, tolerance)
    off = data.draw(st.lists(errors, min_size=len(exact), max_size=len(exact)))
    true = np.array(exact, dtype=np.float64)
    tau, floor = kendall_tau(true + off, true), tau_floor(true, tolerance)
    assert math.isnan(tau) or tau >= floor - 1e-12


def test_a_lower_precision_may_double_the_disorder_of_plain_execution_in_it():
    plain = np.array([3.0, 1.0, 2.0, 0.0])  # one of six pairs of scores the other way round
    assert tau_floor(EXACT[:4], 0.0) == 1
    assert tau_floor(EXACT[:4], 10.0) == -1
    assert tau_floor(EXACT[:4], 10.0, plain) == pytest.approx(1 - 2 * (2 / 6) - 2 / 6)
    assert tau_floor(EXACT[:4], 0.1, plain) == 1


def test_quality_is_judged_query_by_query():
    swapped = EXACT.copy()
    swapped[[5, 6]] = swapped[[6, 5]]
    quality = rank_quality(swapped, EXACT, TWO, tolerance=0.1)
    assert quality.kendall_tau == pytest.approx((1 + (1 - 2 / 3)) / 2)
    assert (quality.kendall_floor, quality.ndcg, quality.exact_ndcg) == (1, 1, 1)


@pytest.mark.usefixtures("suites_facts")
def test_a_ranking_that_does_not_hold_or_has_only_ties_fails_the_gate():
    assert broken_laws(rank_quality(EXACT, EXACT, TWO, tolerance=0.1).facts()) == []
    tau, loss = broken_laws(rank_quality(-EXACT, EXACT, TWO, tolerance=0.1).facts())
    assert tau.startswith("Kendall's tau -1, below the floor 1")
    assert loss.startswith("nDCG lost ")
    assert broken_laws(rank_quality(np.zeros(7), EXACT, TWO, tolerance=0.1).facts())


def test_scores_of_another_set_are_refused():
    with pytest.raises(ValueError, match="for 7 pairs"):
        rank_quality(EXACT[:3], EXACT, TWO, tolerance=0.1)


@pytest.fixture(scope="module")
def arxiv():
    reason = relevance.missing()
    if reason is not None:
        pytest.skip(f"cherche is {reason}")
    return relevance.arxiv_tags()


def test_every_query_has_relevant_and_irrelevant_candidates_that_are_the_same_everywhere(arxiv):
    assert arxiv.fingerprint == "b102156e9020"
    assert len(arxiv.queries) == relevance.QUERIES
    for judged in arxiv.queries:
        assert len(judged.documents) == len(set(judged.documents)) == relevance.CANDIDATES
        assert 4 <= sum(judged.relevance) <= relevance.MOST_RELEVANT
        assert judged.query
        assert all(len(document.split()) > 5 for document in judged.documents)


def test_candidates_are_not_in_the_order_of_their_relevance(arxiv):
    first = [judged.relevance[: relevance.CANDIDATES // 2] for judged in arxiv.queries]
    share = np.mean([grade for grades in first for grade in grades])
    overall = np.mean([grade for judged in arxiv.queries for grade in judged.relevance])
    assert abs(share - overall) < 0.1
