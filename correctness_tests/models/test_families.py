"""Architectures: each scores as the oracle, up to the last token it has a position for."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

import xenc
from correctness_tests import checkpoints, oracle
from correctness_tests.checkpoints import PAIRS
from correctness_tests.scoring import alone, assert_close, logits, on_cpu
from xenc.models.positions import max_positions, position_offset, resolve_max_length

NOT_PACKED = {"deberta-v2-convolution"}


@pytest.fixture(scope="module", params=[*checkpoints.ARCHITECTURES, *checkpoints.VARIANTS])
def architecture(request):
    return request.param


@pytest.fixture(scope="module")
def checkpoint(architecture, tmp_path_factory):
    return checkpoints.make(tmp_path_factory.mktemp(architecture), architecture)


@pytest.mark.parametrize("layout", ["padded", "bucketed", "packed"])
def test_every_architecture_scores_as_the_oracle(architecture, checkpoint, layout, caplog):
    execution = xenc.Execution(layout=layout, compile_mode=None)
    model = on_cpu(checkpoint, execution)
    scores = logits(model, PAIRS, batch_size=4)
    falls_back = layout == "packed" and architecture in NOT_PACKED
    assert model.execution.layout == ("bucketed" if falls_back else layout)
    assert ("execution.layout is now 'bucketed'" in caplog.text) == falls_back
    expected = oracle.logits(checkpoint, PAIRS, max_length=64)
    assert expected.std() > 0.3
    assert_close(scores, expected)
    assert max(model.last_report.token_counts) == 64


def pooled_otherwise(model):
    model.model.classifier_pooling = "bos"


def configured_otherwise(model):
    model.model.config.classifier_pooling = "bos"


def no_windows(model):
    model.model.config.layer_types = ["full_attention"] * len(model.model.config.layer_types)


def without_first_layer(model):
    model.model.model.layers = model.model.model.layers[1:]
    model.model.config.num_hidden_layers = len(model.model.model.layers)


def padding_configured_otherwise(model):
    model.model.config.pad_token_id = 0


def padding_elsewhere(model):
    model.model.base_model.embeddings.padding_idx = 0


UNREAD = {configured_otherwise, padding_configured_otherwise}


@pytest.mark.parametrize(
    ("architecture", "change"),
    [
        ("eurobert", pooled_otherwise), ("eurobert", configured_otherwise), ("qwen3-windows", no_windows),
        ("qwen3-windows", without_first_layer), ("modernbert-windows", without_first_layer),
        ("roberta", padding_configured_otherwise), ("mpnet", padding_configured_otherwise),
        ("roberta", padding_elsewhere), ("mpnet", padding_elsewhere),
    ],
)  # fmt: skip
def test_what_is_changed_after_loading_counts_where_transformers_reads_it(tmp_path, architecture, change):
    execution = xenc.Execution(compile_mode=None, products="torch")  # a twin follows all settings anyway
    model = on_cpu(checkpoints.make(tmp_path, architecture), execution)
    before = logits(model, PAIRS)
    change(model)
    expected = alone(model, PAIRS)
    assert change in UNREAD or np.abs(expected - before).max() > 0.01
    assert_close(logits(model, PAIRS), expected)


@pytest.mark.parametrize("architecture", ["bert", "distilbert", "deberta-v3", "mpnet"])
@pytest.mark.parametrize("layout", ["bucketed", "packed"])
def test_a_model_configured_to_answer_with_tuples_scores_all_the_same(tmp_path, architecture, layout):
    """sentence-transformers asks for more than a tuple in each call."""
    checkpoint = checkpoints.make(tmp_path, architecture)
    model = on_cpu(checkpoint, xenc.Execution(layout=layout, compile_mode=None))
    model.model.config.return_dict = False
    assert_close(logits(model, PAIRS), oracle.logits(checkpoint, PAIRS, max_length=64))


def test_rotations_that_grow_with_the_longest_text_are_left_to_sentence_transformers(tmp_path):
    rope = {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 10_000.0}
    model = on_cpu(checkpoints.make(tmp_path, "llama", rope_parameters=rope), "packed-eager")
    with pytest.raises(xenc.ModelError, match="rotary positions that grow"):
        _ = model.pipeline


def test_what_only_packed_batches_have_is_not_dropped_silently(tmp_path):
    checkpoint = checkpoints.make(tmp_path, "deberta-v2-convolution")
    with pytest.raises(xenc.ExecutionError, match=r"DebertaV2.*Use layout='bucketed'"):
        on_cpu(checkpoint, xenc.Execution(deterministic=True))


def test_a_cap_that_is_not_positive_is_left_to_transformers(tmp_path, caplog):
    checkpoint = checkpoints.make(tmp_path, "gemma2-capped", attn_logit_softcapping=-0.5)
    model = on_cpu(checkpoint, xenc.Execution(compile_mode=None))
    assert_close(logits(model, PAIRS), oracle.logits(checkpoint, PAIRS, max_length=64))
    assert model.execution.layout == "bucketed"
    assert "with a cap of -0.5" in caplog.text


def configured(model_type: str, **values: object) -> SimpleNamespace:
    return SimpleNamespace(config=SimpleNamespace(model_type=model_type, **values))


@pytest.mark.parametrize(
    ("model", "offset", "positions"),
    [
        (configured("bert", pad_token_id=0, max_position_embeddings=512), 0, 512),
        (configured("bert", pad_token_id=1, max_position_embeddings=512), 0, 512),
        (configured("xlm-roberta", pad_token_id=1, max_position_embeddings=514), 2, 512),
        (configured("camembert", pad_token_id=None, max_position_embeddings=514), 2, 512),
        (configured("mpnet", pad_token_id=1, max_position_embeddings=514), 2, 512),
        (configured("deberta-v2", position_biased_input=False, max_position_embeddings=512), 0, None),
        (configured("deberta-v2", position_biased_input=True, max_position_embeddings=512), 0, 512),
        (configured("t5"), 0, None),
        (configured("xlnet", max_position_embeddings=-1), 0, None),
    ],
)
def test_traits_follow_the_config(model, offset, positions):
    assert position_offset(model) == offset
    assert max_positions(model) == positions


@pytest.mark.parametrize("unlimited", [None, int(1e30)])
def test_an_unlimited_tokenizer_takes_all_positions_of_the_model(unlimited):
    assert resolve_max_length(unlimited, configured("bert", max_position_embeddings=64)) == 64
    assert resolve_max_length(unlimited, configured("t5")) is None


def test_a_model_without_positions_takes_any_length():
    assert resolve_max_length(5000, configured("t5")) == 5000
