"""Classifiers that read the last <eos>: each scores as plain transformers does, beside any other row."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer, PreTrainedModel

import xenc
from correctness_tests import checkpoints, oracle
from xenc import ModelError, watch_compiles

PAIRS = [
    ("How does Python look up names?", "Names are bound by the following constructs."),
    ("", ""),
    ("one [SEP] more", "and [SEP] another [SEP]"),
    ("question", ""),
    *[("a", "b " * words) for words in (1, 12, 60, 200)],
]
"""[SEP] is this tokenizer's <eos>: rows have two, three and five of it."""

FAMILIES = {
    "t5": checkpoints.T5,
    "mt5": checkpoints.T5,
    "umt5": checkpoints.T5,
    "bart": checkpoints.BART,
}
EAGER = xenc.Execution(layout="bucketed", compile_mode=None)


@pytest.fixture(scope="module", params=FAMILIES)
def checkpoint(request, tmp_path_factory) -> Path:
    return checkpoints.make(tmp_path_factory.mktemp(request.param), request.param, **FAMILIES[request.param])


def scored(model: xenc.CrossEncoder, pairs=PAIRS) -> np.ndarray:
    return model.predict(pairs, batch_size=5, activation_fn=torch.nn.Identity())


@pytest.mark.parametrize("execution", ["sdpa-sorted", EAGER], ids=["padded", "bucketed"])
def test_rows_with_any_number_of_eos_share_a_batch(checkpoint, execution):
    model = xenc.CrossEncoder(str(checkpoint), device="cpu", execution=execution)
    expected = oracle.logits(checkpoint, PAIRS, max_length=64)
    assert expected.std() > 0.3
    np.testing.assert_allclose(scored(model), expected, rtol=0, atol=1e-4)
    assert model.last_report.batches == 2  # the second is short: bucketed, it holds dummy rows
    assert max(model.last_report.token_counts) == 64


def test_compiled_there_is_one_graph_for_all_lengths_and_nothing_compiles_after_warm_up(tmp_path, caplog):
    checkpoint = checkpoints.make(tmp_path, "t5", **checkpoints.T5)
    model = xenc.CrossEncoder(str(checkpoint), device="cpu", execution=xenc.Execution(strict=True))
    assert (model.execution.layout, model.execution.compile_mode) == ("bucketed", "default")
    assert "execution.layout is now 'bucketed'" in caplog.text
    assert model.warmup(batch_size=5).graphs == 1
    with watch_compiles() as watch:
        scores = scored(model)
    assert watch.report.clean, watch.report.describe()
    np.testing.assert_allclose(scores, oracle.logits(checkpoint, PAIRS, max_length=64), rtol=0, atol=1e-4)


def test_encoder_and_decoder_attend_as_the_execution_says(tmp_path):
    model = xenc.CrossEncoder(
        str(checkpoints.make(tmp_path, "t5", **checkpoints.T5)), device="cpu", execution="sdpa-sorted"
    )
    for attention in ("sdpa", "eager", "sdpa"):
        model.execution = f"{attention}-sorted"
        scored(model)
        parts = [part for part in model.transformers_model.modules() if isinstance(part, PreTrainedModel)]
        assert len(parts) == 4
        assert {part.config._attn_implementation for part in parts} == {attention}


def test_a_pair_without_eos_is_refused_and_not_read_elsewhere(tmp_path):
    checkpoint = checkpoints.make(tmp_path, "t5", **checkpoints.T5)
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    tokenizer.backend_tokenizer.post_processor = None
    tokenizer.save_pretrained(checkpoint)
    model = xenc.CrossEncoder(str(checkpoint), device="cpu", execution=EAGER)
    assert np.isfinite(scored(model, [("a [SEP]", "b")])).all()
    with pytest.raises(ModelError, match=r"hold no <eos> \(3\).*post-processor"):
        scored(model, [("a", "b")])


@pytest.mark.parametrize("execution", ["packed", "bucketed", "sdpa-sorted"])
def test_one_that_looks_up_eos_as_it_runs_is_padded_and_says_so(tmp_path, execution, caplog):
    """What has not been held to the oracle in a forward pass of ours runs as transformers has it."""
    checkpoint = checkpoints.make(tmp_path, "mbart", **checkpoints.BART)
    model = xenc.CrossEncoder(str(checkpoint), device="cpu", execution=execution)
    same_eos = [pair for pair in PAIRS if "[SEP]" not in pair[0]]
    scores = scored(model, same_eos)
    assert (model.execution.layout, model.execution.compile_mode) == ("padded", None)
    assert ("looks up <eos>" in caplog.text) == (execution != "sdpa-sorted")
    np.testing.assert_allclose(scores, oracle.logits(checkpoint, same_eos, max_length=64), rtol=0, atol=1e-4)
