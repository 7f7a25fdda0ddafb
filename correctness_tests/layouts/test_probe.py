"""A class that nobody has held to the oracle is padded further only if that is seen to change no score."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import sentence_transformers
import torch

import xenc
from correctness_tests import architectures, checkpoints, oracle
from correctness_tests.checkpoints import PAIRS
from correctness_tests.scoring import assert_close, logits, on_cpu
from xenc import Execution, ExecutionError, ModelError
from xenc.models.families import reads_tokens_alone

EAGER = Execution(compile_mode=None)
SENT_ON = "sentence-transformers' own predict scores"


MIXING = {
    "fnet": ("fnet", torch.float32),
    "convbert": ("convbert", torch.float32),
    "nystromformer": ("nystromformer", torch.float32),
    "nystromformer-bfloat16": ("nystromformer", torch.bfloat16),
}


@pytest.fixture(scope="module", params=MIXING)
def mixing(request, tmp_path_factory):
    """Its scores depend on padding, in three ways; and its dtype."""
    architecture, dtype = MIXING[request.param]
    return architectures.make(tmp_path_factory.mktemp(request.param), architecture), dtype


@pytest.fixture(scope="module")
def fnet(tmp_path_factory):
    return architectures.make(tmp_path_factory.mktemp("fnet"), "fnet")


@pytest.fixture(scope="module")
def albert(tmp_path_factory):
    return architectures.make(tmp_path_factory.mktemp("albert"), "albert")


def theirs(checkpoint, pairs=PAIRS, **options):
    model = sentence_transformers.CrossEncoder(str(checkpoint), device="cpu", max_length=64, **options)
    return model.predict(pairs, batch_size=4, activation_fn=torch.nn.Identity())


@pytest.mark.parametrize("execution", ["packed", "bucketed", "sdpa-sorted"])
def test_a_model_that_mixes_padding_in_scores_as_in_sentence_transformers(mixing, execution):
    checkpoint, dtype = mixing
    options = {"model_kwargs": {"dtype": dtype}}
    model = on_cpu(checkpoint, execution, max_length=64, **options)
    expected = theirs(checkpoint, **options)
    np.testing.assert_array_equal(logits(model, PAIRS, batch_size=4), expected)
    np.testing.assert_array_equal(
        model.submit(PAIRS, batch_size=4, activation_fn=torch.nn.Identity()).result(), expected
    )
    assert (model.execution.layout, model.execution.compile_mode) == ("padded", None)
    with pytest.raises(ModelError, match="scores of three pairs moved by"):
        _ = model.pipeline


def test_what_was_measured_is_said_once(fnet, caplog):
    with caplog.at_level(logging.INFO, logger="xenc"):
        model = on_cpu(fnet, "bucketed", max_length=64)
        for _ in range(2):
            model.predict(PAIRS)
        model.warmup()
    said = [record for record in caplog.records if "moved by" in record.getMessage()]
    assert [(record.levelno, record.getMessage().count(SENT_ON)) for record in said] == [(logging.WARNING, 1)]
    assert "more than rounding (" in said[0].getMessage()


def test_a_model_that_does_not_is_bucketed_and_that_is_said(albert, caplog):
    with caplog.at_level(logging.INFO, logger="xenc"):
        model = on_cpu(albert, EAGER, max_length=64)
    assert model.execution.layout == "bucketed"
    assert "moved by" in caplog.text
    assert "which is rounding (at most" in caplog.text
    assert_close(logits(model, PAIRS, batch_size=4), oracle.logits(albert, PAIRS, max_length=64))


@pytest.mark.parametrize("architecture", [*checkpoints.ARCHITECTURES, "t5"])
def test_a_class_that_was_held_to_the_oracle_is_not_tried(architecture, tmp_path, monkeypatch):
    def tried(*_, **__):
        raise AssertionError

    monkeypatch.setattr("xenc.pipeline.moves_scores", tried)
    settings = checkpoints.T5 if architecture == "t5" else {}
    on_cpu(checkpoints.make(tmp_path, architecture, **settings), EAGER).predict(PAIRS)


CHANGES = (
    (lambda model: model.predict(PAIRS), 1),
    (lambda model: setattr(model, "max_seq_length", 60), 1),
    (lambda model: model.transformers_model.double(), 2),
    (lambda model: setattr(model, "execution", "sdpa-sorted"), 3),
)


@pytest.mark.parametrize("name", ["albert", "fnet"])
def test_a_model_is_tried_once_until_it_changes_or_something_else_is_asked_for(name, request, monkeypatch):
    tries, own = [], xenc.pipeline.moves_scores
    monkeypatch.setattr("xenc.pipeline.moves_scores", lambda *a, **b: tries.append(1) or own(*a, **b))
    model = on_cpu(request.getfixturevalue(name), EAGER, max_length=64)
    for change, tried in CHANGES:
        change(model)
        model.predict(PAIRS[:3])
        assert len(tries) == tried


def test_what_a_model_notes_and_random_numbers_are_left_as_they_are(tmp_path):
    """Block-sparse BigBird attends in full for ever once it has seen a short text."""
    checkpoint = architectures.make(tmp_path, "big_bird")
    torch.manual_seed(0)
    model = on_cpu(checkpoint, "bucketed", max_length=64).train()
    assert model.transformers_model.bert.attention_type == "block_sparse"
    assert model.transformers_model.config._attn_implementation == "eager"
    np.testing.assert_array_equal(logits(model, PAIRS, batch_size=4), theirs(checkpoint))
    reformer = architectures.make(tmp_path / "reformer", "reformer", hash_seed=None)
    torch.manual_seed(0)
    sentence_transformers.CrossEncoder(str(reformer), device="cpu")
    expected = torch.rand(3)
    torch.manual_seed(0)
    on_cpu(reformer, "bucketed", max_length=64)
    assert torch.equal(torch.rand(3), expected)


def test_pairs_are_tried_with_as_much_padding_as_a_batch_may_have(tmp_path):
    """BigBird with the blocks of the published model attends in full to rows of up to 704 tokens."""
    blocks = {"block_size": 64, "num_random_blocks": 3, "max_position_embeddings": 1024}
    checkpoint = architectures.make(tmp_path, "big_bird", **blocks)
    model = on_cpu(checkpoint, Execution(layout="bucketed", compile_mode=None), max_length=1024)
    with pytest.raises(ModelError, match="scores of three pairs moved by"):
        _ = model.pipeline


@pytest.mark.parametrize("setting", [{"deterministic": True}, {"token_budgets": 512}], ids=str)
def test_what_only_packed_batches_have_is_refused_for_such_a_model(fnet, setting):
    with pytest.raises(ExecutionError, match=r"FNetForSequenceClassification.*Use layout="):
        on_cpu(fnet, Execution(**setting), max_length=64)


class SeesTheWholeBatch(torch.nn.Module):
    """Somebody's layer that takes what it subtracts from all tokens at hand."""

    def __init__(self, inner: torch.nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.inner(hidden - hidden.mean(dim=(0, 1)))


def test_a_module_of_somebody_elses_makes_a_class_one_that_is_tried(one_layer):
    model = on_cpu(one_layer, EAGER)
    assert model.execution.layout == "packed"
    plain = sentence_transformers.CrossEncoder(str(one_layer), device="cpu")
    for each in (model, plain):
        block = each.transformers_model.bert.encoder.layer[0]
        block.intermediate.dense = SeesTheWholeBatch(block.intermediate.dense)
    model.transformers_model.double(), plain.transformers_model.double()
    expected = plain.predict(PAIRS, activation_fn=torch.nn.Identity())
    np.testing.assert_array_equal(logits(model, PAIRS), expected)
    assert model.execution.layout == "padded"


def batch_normalised(model):
    width = model.config.hidden_size
    model.dropout = torch.nn.BatchNorm1d(width, track_running_stats=False)


def listwise(model):
    torch.manual_seed(0)
    width = model.config.hidden_size
    block = torch.nn.TransformerEncoderLayer(width, 1, dropout=0.0).eval()
    model.classifier = torch.nn.Sequential(block, model.classifier)


def softmax_over_tokens(model):
    model.bert.encoder.layer[0].intermediate.intermediate_act_fn = torch.nn.Softmax(dim=-2)


def normalised_over_rows(model):
    model.classifier = torch.nn.Sequential(model.classifier, torch.nn.Softmax(dim=0))


@pytest.mark.parametrize("change", [batch_normalised, listwise, softmax_over_tokens, normalised_over_rows])
@pytest.mark.parametrize("execution", [EAGER, Execution(layout="bucketed", compile_mode=None)])
def test_a_layer_of_pytorchs_that_reads_its_neighbours_makes_a_class_one_that_is_tried(
    one_layer, change, execution
):
    model, plain = (
        on_cpu(one_layer, execution),
        sentence_transformers.CrossEncoder(str(one_layer), device="cpu"),
    )
    before = logits(model, PAIRS)
    for each in (model, plain):
        change(each.transformers_model)
    expected = plain.predict(PAIRS, activation_fn=torch.nn.Identity())
    assert np.abs(expected - before).max() > 1e-2
    np.testing.assert_array_equal(logits(model, PAIRS), expected)
    assert model.execution.layout == "padded"


NUMBERS = torch.nn.Parameter(torch.ones(8))


@pytest.mark.parametrize(
    ("module", "alone"),
    [
        (torch.nn.LayerNorm(8), True), (torch.nn.RMSNorm(8), True), (torch.nn.LayerNorm((4, 8)), False),
        (torch.ao.nn.quantized.LayerNorm(8, NUMBERS, NUMBERS, 1.0, 0), False),
        (torch.nn.Softmax(dim=-1), False), (torch.nn.Sequential(), True),
    ],
    ids=str,
)  # fmt: skip
def test_a_norm_over_one_token_is_trusted_and_neither_one_over_several_nor_a_quantised_one(module, alone):
    assert reads_tokens_alone(module, ("somebody.",)) is alone


def test_layers_of_pytorchs_that_read_one_token_change_no_layout(one_layer):
    model = on_cpu(one_layer, EAGER)
    inner, width = model.transformers_model, model.transformers_model.config.hidden_size
    inner.classifier = torch.nn.Sequential(torch.nn.LayerNorm(width), torch.nn.GELU(), inner.classifier)
    expected = sentence_transformers.CrossEncoder.predict(model, PAIRS, activation_fn=torch.nn.Identity())
    assert_close(logits(model, PAIRS), expected)
    assert model.execution.layout == "packed"
