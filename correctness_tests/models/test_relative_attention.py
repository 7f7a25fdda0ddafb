"""DeBERTa and MPNet packed, whose attention depends on how far apart tokens are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import example, given

import xenc
from correctness_tests import checkpoints, oracle, strategies
from correctness_tests.checkpoints import PAIRS
from correctness_tests.scoring import alone, assert_close, logits, nothing_compiles, on_cpu
from xenc.models.relative_attention import distance_buckets

FAMILIES = ["deberta-v3", "mpnet"]

EAGER = xenc.Execution(compile_mode=None)


@pytest.fixture(scope="module", params=FAMILIES)
def checkpoint(request, tmp_path_factory) -> Path:
    return checkpoints.make(tmp_path_factory.mktemp(request.param), request.param)


@pytest.fixture(scope="module")
def eager(checkpoint) -> xenc.CrossEncoder:
    return on_cpu(checkpoint, EAGER)


@strategies.FEW
@given(pairs=strategies.lists_of_pairs())
@example(pairs=PAIRS)
def test_pairs_of_any_length_and_order_score_as_the_oracle(checkpoint, eager, pairs):
    assert_close(logits(eager, pairs), oracle.logits(checkpoint, pairs, max_length=64))
    assert eager.execution.layout == "packed"


def test_compiled_it_scores_the_same_in_one_graph_and_nothing_compiles(checkpoint):
    with on_cpu(checkpoint, xenc.Execution(strict=True)) as model:
        assert model.warmup().graphs == 1
        with nothing_compiles():
            found = logits(model, PAIRS)
    assert_close(found, oracle.logits(checkpoint, PAIRS, max_length=64))


def test_deterministic_scores_have_the_same_bits_in_other_company(checkpoint):
    model = on_cpu(checkpoint, xenc.Execution(deterministic=True, compile_mode=None))
    together = logits(model, PAIRS)
    assert np.array_equal(together, np.array([logits(model, [pair])[0] for pair in PAIRS]))
    assert np.array_equal(together[::-1], logits(model, PAIRS[::-1]))


def test_lower_precision_errs_at_most_twice_as_much_as_plain_eager_execution(checkpoint):
    exact = oracle.logits(checkpoint, PAIRS, max_length=64)
    theirs = oracle.logits(checkpoint, PAIRS, max_length=64, dtype=torch.bfloat16)
    ours = logits(on_cpu(checkpoint, EAGER, model_kwargs={"dtype": torch.bfloat16}), PAIRS)
    assert np.abs(ours - exact).max() <= 2 * np.abs(theirs - exact).max() + 2**-8 * np.abs(exact).max()


def attention_of(model: xenc.CrossEncoder) -> torch.nn.Module:
    """The attention module of the first layer."""
    attention = model.model.base_model.encoder.layer[0].attention
    return getattr(attention, "self", None) or attention.attn


def hook(model):
    attention_of(model).register_forward_hook(lambda module, inputs, output: (2 * output[0], *output[1:]))


def wrap(model):
    attention = attention_of(model)
    forward = attention.forward
    attention.forward = lambda *inputs, **named: (2 * forward(*inputs, **named)[0], None)


def hook_encoder(model):
    model.model.base_model.encoder.register_forward_pre_hook(
        lambda module, inputs, named: ((3 * inputs[0].tanh(), *inputs[1:]), named), with_kwargs=True
    )


def train(model):
    with torch.no_grad():
        for parameter in model.model.base_model.encoder.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))


def adapt(model):
    attention = attention_of(model)
    name = "value_proj" if hasattr(attention, "value_proj") else "v"
    layer = torch.nn.Sequential(getattr(attention, name), torch.nn.Tanh())
    setattr(attention, name, layer)


def rewrite(model):
    attention = attention_of(model)

    class Doubled(type(attention)):
        def forward(self, *inputs, **named):
            attended, *rest = super().forward(*inputs, **named)
            return 2 * attended, *rest

    attention.__class__ = Doubled


def drop(model):
    attention_of(model).dropout = torch.nn.Tanh()


def drop_around(model):
    attention = attention_of(model)
    if hasattr(attention, "pos_dropout"):
        attention.pos_dropout = torch.nn.Tanh()
    else:
        model.model.base_model.encoder.layer[0].attention.dropout = torch.nn.Tanh()


LAYOUTS = {
    train: "packed", adapt: "packed", drop_around: "packed", drop: "bucketed", rewrite: "bucketed",
}  # fmt: skip
"""The others are left to sentence-transformers."""


@pytest.mark.parametrize("execution", [EAGER, "packed"], ids=["eager", "compiled"])
@pytest.mark.parametrize("change", [hook, wrap, hook_encoder, *LAYOUTS])
def test_what_is_changed_after_loading_changes_the_scores(checkpoint, change, execution, caplog):
    model = on_cpu(checkpoint, execution)
    before = logits(model, PAIRS)
    change(model)
    expected = alone(model, PAIRS)
    assert np.abs(expected - before).max() > 0.01
    assert_close(logits(model, PAIRS), expected)
    if change in LAYOUTS:
        assert model.execution.layout == LAYOUTS[change]
        assert ("around which a packed pass goes" in caplog.text) == (change is rewrite)
        return
    with pytest.raises(xenc.ModelError, match="somebody's"):
        _ = model.pipeline


@pytest.mark.parametrize(
    ("where", "setting", "value", "layout"),
    [
        ("encoder", "position_buckets", 4, "packed"),
        ("encoder", "max_relative_positions", 12, "packed"),
        ("encoder.layer.0.attention.self", "position_buckets", 4, "packed"),  # transformers does not read it
        ("encoder.layer.0.attention.self", "num_attention_heads", 4, "packed"),
        ("encoder.layer.0.attention.self", "pos_ebd_size", 3, "bucketed"),
        ("encoder.layer.0.attention.self", "relative_attention", False, "bucketed"),
    ],
)
def test_settings_changed_after_loading_count_where_transformers_reads_them(
    tmp_path, where, setting, value, layout
):
    execution = xenc.Execution(compile_mode=None, products="torch")  # a twin follows all settings anyway
    model = on_cpu(checkpoints.make(tmp_path, "deberta-v3"), execution)
    before = logits(model, PAIRS)
    setattr(model.model.base_model.get_submodule(where), setting, value)
    expected = alone(model, PAIRS)
    unread = where != "encoder" and setting == "position_buckets"
    assert unread or np.abs(expected - before).max() > 0.01
    assert_close(logits(model, PAIRS), expected)
    assert model.execution.layout == layout


def test_a_convolution_runs_in_buckets_and_says_so(tmp_path, caplog):
    model = on_cpu(checkpoints.make(tmp_path, "deberta-v2-convolution"), EAGER)
    assert model.execution.layout == "bucketed"
    assert "with a convolution, which reads across documents" in caplog.text


def test_distances_beyond_the_last_bucket_share_it(tmp_path):
    """As in the published models: 512 tokens, buckets from half of their number on logarithmic."""
    settings = {"max_position_embeddings": 512, "position_buckets": 16, "model_max_length": 512}
    checkpoint = checkpoints.make(tmp_path, "deberta-v3", **settings)
    pairs = [("what", "word " * count) for count in (3, 100, 400, 700)]
    model = on_cpu(checkpoint, EAGER)
    assert_close(logits(model, pairs), oracle.logits(checkpoint, pairs, max_length=512))
    assert max(model.last_report.token_counts) == 512


def test_distances_farther_than_any_that_was_asked_for_have_the_last_ones_bucket(checkpoint):
    """So that graphs need not be made again where texts may be longer."""
    body = on_cpu(checkpoint, EAGER).model.base_model
    few, many = (distance_buckets(body, max_length) for max_length in (1, 2000))
    farthest, distances = len(few) // 2, torch.arange(-2000, 2001)
    assert farthest < 2000 == len(many) // 2
    assert torch.equal(few[distances.clamp(-farthest, farthest) + farthest], many)
    assert few.unique().numel() > 2


@pytest.mark.parametrize(
    ("family", "settings"),
    [("deberta-v3", {"max_relative_positions": 64, "position_buckets": 16}), ("mpnet", {})],
    ids=FAMILIES,
)
def test_longer_texts_later_run_in_the_graph_that_is_there(tmp_path, family, settings):
    positions = {"max_position_embeddings": 514, "model_max_length": 400}
    checkpoint = checkpoints.make(tmp_path, family, **positions, **settings)
    pairs = [("what", "word " * count) for count in (3, 100, 300)]
    with on_cpu(checkpoint, xenc.Execution(token_budgets=(256, 512)), max_length=16) as model:
        assert model.warmup().graphs == 1
        model.max_seq_length = 400
        found = logits(model, pairs)
        assert max(model.last_report.token_counts) > 256
        assert model.pipeline.compiled.graphs == 1
    assert_close(found, oracle.logits(checkpoint, pairs, max_length=400))
