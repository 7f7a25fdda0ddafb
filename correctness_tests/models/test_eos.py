"""Classifiers that read the last <eos>: each scores as plain transformers does, beside any other row."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from transformers import AutoTokenizer, PreTrainedModel

import xenc
from correctness_tests import checkpoints, oracle
from correctness_tests.scoring import assert_close, assert_oracles, logits, nothing_compiles, on_cpu
from xenc import ModelError

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


@pytest.mark.parametrize("execution", ["sdpa-sorted", EAGER], ids=["padded", "bucketed"])
def test_rows_with_any_number_of_eos_share_a_batch(checkpoint, execution):
    model = on_cpu(checkpoint, execution)
    expected = oracle.logits(checkpoint, PAIRS, max_length=64)
    assert expected.std() > 0.3
    assert_close(logits(model, PAIRS, batch_size=5), expected)
    assert model.last_report.batches == 2  # the second is short: bucketed, it holds dummy rows
    assert max(model.last_report.token_counts) == 64


def test_compiled_there_is_one_graph_for_all_lengths_and_nothing_compiles_after_warm_up(tmp_path, caplog):
    checkpoint = checkpoints.make(tmp_path, "t5", **checkpoints.T5)
    model = on_cpu(checkpoint, xenc.Execution(strict=True))
    assert (model.execution.layout, model.execution.compile_mode) == ("bucketed", "auto")
    assert "execution.layout is now 'bucketed'" in caplog.text
    assert model.warmup(batch_size=5).graphs == 1
    with nothing_compiles():
        scores = logits(model, PAIRS, batch_size=5)
    assert_oracles(scores, checkpoint, PAIRS)


def test_encoder_and_decoder_attend_as_the_execution_says(tmp_path):
    model = on_cpu(checkpoints.make(tmp_path, "t5", **checkpoints.T5))
    parts = [part for part in model.transformers_model.modules() if isinstance(part, PreTrainedModel)]
    assert len(parts) == 4
    for attention in ("sdpa", "eager", "sdpa"):
        model.execution, seen = f"{attention}-sorted", []
        forward = model.pipeline._layout.forward

        def look(batch, forward=forward, seen=seen):
            seen.append({part.config._attn_implementation for part in parts})
            return forward(batch)

        model.pipeline._layout.forward = look
        model.predict(PAIRS)
        assert seen[0] == {attention}
        assert {part.config._attn_implementation for part in parts} == {"sdpa"}


def test_a_pair_without_eos_is_refused_and_not_read_elsewhere(tmp_path):
    checkpoint = checkpoints.make(tmp_path, "t5", **checkpoints.T5)
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    tokenizer.backend_tokenizer.post_processor = None
    tokenizer.save_pretrained(checkpoint)
    model = on_cpu(checkpoint, EAGER)
    assert np.isfinite(model.predict([("a [SEP]", "b")])).all()
    with pytest.raises(ModelError, match=r"hold no <eos> \(3\).*post-processor"):
        model.predict([("a", "b")])


@pytest.mark.parametrize("execution", ["packed", "bucketed", "sdpa-sorted"])
def test_one_that_looks_up_eos_as_it_runs_is_padded_and_says_so(tmp_path, execution, caplog):
    """What has not been held to the oracle in a forward pass of ours runs as transformers has it."""
    checkpoint = checkpoints.make(tmp_path, "mbart", **checkpoints.BART)
    model = on_cpu(checkpoint, execution)
    same_eos = [pair for pair in PAIRS if "[SEP]" not in pair[0]]
    scores = logits(model, same_eos, batch_size=5)
    assert (model.execution.layout, model.execution.compile_mode) == ("padded", None)
    assert ("looks up <eos>" in caplog.text) == (execution != "sdpa-sorted")
    assert_oracles(scores, checkpoint, same_eos)
