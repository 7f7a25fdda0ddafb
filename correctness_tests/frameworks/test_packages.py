"""The frameworks themselves: with a model of xenc's they rank as with sentence-transformers' own.

    pip install 'xenc[frameworks]'

Each builds its reranker from a name, outside the block and within it; the second one scores after the block.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.util import find_spec

import pytest
import sentence_transformers

import xenc
from correctness_tests.everyday import QUESTIONS
from correctness_tests.frameworks.conftest import EAGER, PASSAGES, QUESTION, is_undone, pairs_scored
from xenc import DEFAULT_MODEL, replace_cross_encoders

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # the packages' own

TOP = 5
Ranked = list[tuple[str, float]]


def needs(*modules: str) -> pytest.MarkDecorator:
    missing = [name for name in modules if find_spec(name) is None]
    return pytest.mark.skipif(
        bool(missing), reason=f"no {', '.join(missing)}: pip install 'xenc[frameworks]'"
    )


def ranks_as_before(make: Callable[[], object], ranked: Callable[[object], Ranked], pairs: int) -> None:
    """What a framework's object answers with sentence-transformers' model it answers with xenc's."""
    expected = ranked(make())
    with replace_cross_encoders(**EAGER) as models:
        ours = make()
    assert is_undone()
    found = ranked(ours)
    assert [text for text, _ in found] == [text for text, _ in expected]
    assert [score for _, score in found] == pytest.approx([score for _, score in expected], abs=1e-4)
    assert len({text for text, _ in expected}) == len(expected) > 1
    (model,) = models
    assert pairs_scored(model) == pairs


@needs("langchain_community")
def test_langchain_scores_and_compresses_as_before():
    from langchain_classic.retrievers.document_compressors import CrossEncoderReranker
    from langchain_community.cross_encoders import HuggingFaceCrossEncoder
    from langchain_core.documents import Document

    documents = [Document(passage) for passage in PASSAGES]

    def make():
        return HuggingFaceCrossEncoder(model_name=DEFAULT_MODEL, model_kwargs={"device": "cpu"})

    def scored(framework):
        assert isinstance(framework.client, sentence_transformers.CrossEncoder)
        scores = framework.score([(QUESTION, passage) for passage in PASSAGES])
        best = CrossEncoderReranker(model=framework, top_n=TOP).compress_documents(documents, QUESTION)
        by_score = sorted(zip(PASSAGES, map(float, scores), strict=True), key=lambda pair: -pair[1])
        assert [document.page_content for document in best] == [text for text, _ in by_score[:TOP]]
        return by_score

    ranks_as_before(make, scored, len(PASSAGES))


@pytest.mark.parametrize(
    "place", ["llama_index.postprocessor.sbert_rerank", "llama_index.core.postprocessor"]
)
@needs("llama_index")
def test_llama_index_postprocesses_as_before(place):
    module = pytest.importorskip(place, reason="not installed: pip install 'xenc[frameworks]'")
    from llama_index.core.schema import NodeWithScore, TextNode

    def make():
        return module.SentenceTransformerRerank(model=DEFAULT_MODEL, device="cpu", top_n=TOP)

    def ranked(framework):
        nodes = [NodeWithScore(node=TextNode(text=passage), score=0.0) for passage in PASSAGES]
        found = framework.postprocess_nodes(nodes, query_str=QUESTION)
        return [(node.node.get_content(), float(node.score)) for node in found]

    ranks_as_before(make, ranked, len(PASSAGES))


@pytest.fixture
def haystack():
    """Makes a ranker; it loads its model when it is warmed up."""
    place = "haystack_integrations.components.rankers.sentence_transformers"
    rankers = pytest.importorskip(place, reason="not installed: pip install 'xenc[frameworks]'")
    from haystack.utils import ComponentDevice

    def make(*, warm: bool):
        device = ComponentDevice.from_str("cpu")
        ranker = rankers.SentenceTransformersSimilarityRanker(model=DEFAULT_MODEL, device=device, top_k=TOP)
        if warm:
            ranker.warm_up()
        return ranker

    return make


def in_a_pipeline(ranker) -> Ranked:
    from haystack import Document, Pipeline

    pipeline = Pipeline()
    pipeline.add_component("ranker", ranker)
    documents = [Document(content=passage) for passage in PASSAGES]
    found = pipeline.run({"ranker": {"query": QUESTION, "documents": documents}})
    return [(document.content, document.score) for document in found["ranker"]["documents"]]


def test_haystack_ranks_as_before(haystack):
    ranks_as_before(lambda: haystack(warm=True), in_a_pipeline, len(PASSAGES))


def test_a_ranker_of_haystack_that_has_not_loaded_its_model_in_the_block_is_warned_of(haystack, caplog):
    with replace_cross_encoders(**EAGER) as models:
        ranker = haystack(warm=False)
    assert models == []
    assert "Haystack: warm_up()" in caplog.text
    in_a_pipeline(ranker)
    assert type(ranker._cross_encoder) is sentence_transformers.CrossEncoder


def retrieval_task():
    """A question's own passage is to be found among all passages."""
    from datasets import Dataset
    from mteb.abstasks.retrieval import AbsTaskRetrieval
    from mteb.abstasks.task_metadata import TaskMetadata

    ids = [str(place) for place in range(len(QUESTIONS))]

    class Everyday(AbsTaskRetrieval):
        metadata = TaskMetadata(
            name="Everyday", type="Reranking", main_score="ndcg_at_10", description="Everyday questions.",
            dataset={"path": "none", "revision": "none"}, category="t2t", modalities=["text"],
            eval_splits=["test"], eval_langs=["eng-Latn"],
        )  # fmt: skip

        def load_data(self, *args, **kwargs):
            texts = {"queries": [each.question for each in QUESTIONS], "corpus": PASSAGES}
            columns = {name: Dataset.from_dict({"id": ids, "text": of}) for name, of in texts.items()}
            split = {**columns, "relevant_docs": {place: {place: 1} for place in ids}}
            self.dataset = {"default": {"test": {**split, "top_ranked": dict.fromkeys(ids, ids)}}}
            self.data_loaded = True

    return Everyday()


@needs("mteb")
def test_mteb_evaluates_a_model_of_xencs_as_it_is(tmp_path):
    import mteb

    def evaluated(model):
        folder = tmp_path / type(model).__module__
        found = mteb.evaluate(
            model, retrieval_task(), cache=None, prediction_folder=folder, encode_kwargs={"batch_size": 64}
        )
        (file,) = folder.rglob("*.json")
        scores = json.loads(file.read_text())["default"]["test"]
        return found.task_results[0].get_score(), {
            (question, passage): score for question, of in scores.items() for passage, score in of.items()
        }

    model = xenc.CrossEncoder(DEFAULT_MODEL, device="cpu", **EAGER)
    quality, scores = evaluated(model)
    their_quality, their_scores = evaluated(sentence_transformers.CrossEncoder(DEFAULT_MODEL, device="cpu"))
    assert scores == pytest.approx(their_scores, abs=1e-4)
    assert len(scores) == len(QUESTIONS) ** 2
    assert quality == pytest.approx(their_quality, abs=1e-6)
    assert 0.4 < quality < 1
    assert pairs_scored(model) == 64
