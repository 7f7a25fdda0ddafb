"""Weights folded into the graph: the scores are right, also after a weight has changed."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch._inductor import freezing

import xenc
from correctness_tests import oracle
from xenc import CompileError, Execution, watch_compiles
from xenc.weights import sum_of_weights, weights_version

PAIRS = [("where is it", "here it is " * words) for words in range(8)]
FROZEN = Execution(freeze=True, token_budgets=(64, 128))


@pytest.fixture(scope="module")
def model(one_layer):
    model = xenc.CrossEncoder(str(one_layer), device="cpu", execution=FROZEN)
    model.warmup(passes=1)
    return model


def logits(model: xenc.CrossEncoder) -> np.ndarray:
    return model.predict(PAIRS, activation_fn=torch.nn.Identity())


def test_frozen_scores_are_the_oracles_and_nothing_compiles(model, one_layer):
    with watch_compiles() as watch:
        scores = logits(model)
    assert watch.report.clean, watch.report.describe()
    expected = oracle.logits(one_layer, PAIRS, max_length=model.pipeline.max_length)
    np.testing.assert_allclose(scores, expected, rtol=0, atol=1e-4)


def test_a_frozen_graph_is_given_the_batch_and_no_weights(one_layer, monkeypatch):
    freeze, given = freezing.freeze, []

    def watched(traced, graph, inputs):
        frozen, kept = freeze(traced, graph, inputs)
        given.extend(inputs[index] for index in kept)
        return frozen, kept

    monkeypatch.setattr(freezing, "freeze", watched)
    model = xenc.CrossEncoder(str(one_layer), device="cpu", execution=FROZEN)
    model.warmup(passes=1)
    assert given
    assert not [each for each in given if isinstance(each, torch.Tensor) and each.is_floating_point()]


def in_place(transformer: torch.nn.Module) -> None:
    with torch.no_grad():
        transformer.classifier.weight.mul_(-2)


def loaded(transformer: torch.nn.Module) -> None:
    state = copy.deepcopy(transformer.state_dict())
    state["classifier.bias"] += 3
    transformer.load_state_dict(state)


def replaced(transformer: torch.nn.Module) -> None:
    transformer.classifier.weight = torch.nn.Parameter(transformer.classifier.weight.detach() * 3)


def deleted_and_replaced(transformer: torch.nn.Module) -> None:
    weight = transformer.classifier.weight.detach().clone() * 5
    del transformer.classifier.weight
    transformer.classifier.weight = torch.nn.Parameter(weight.clone())


def through_data(transformer: torch.nn.Module) -> None:
    transformer.classifier.weight.data = transformer.classifier.weight.data * 4


def test_a_weight_written_through_data_is_noticed_by_the_next_warm_up(model):
    before = logits(model)
    through_data(model.transformers_model)
    model.warmup()
    frozen = logits(model)
    assert np.abs(frozen - before).max() > 1e-3
    model.execution = "packed-eager"
    np.testing.assert_allclose(frozen, logits(model), rtol=1e-5, atol=1e-4)
    model.execution = FROZEN


@pytest.mark.parametrize("change", [in_place, loaded, replaced, deleted_and_replaced])
def test_a_changed_weight_is_noticed(model, change: Callable[[torch.nn.Module], None]):
    before = logits(model)
    change(model.transformers_model)
    frozen = logits(model)
    assert np.abs(frozen - before).max() > 1e-3
    model.execution = "packed-eager"
    np.testing.assert_allclose(frozen, logits(model), rtol=1e-5, atol=1e-4)
    model.execution = FROZEN


def test_in_strict_mode_a_changed_weight_is_an_error_that_says_so(one_layer):
    model = xenc.CrossEncoder(
        str(one_layer), device="cpu", execution=Execution(freeze=True, strict=True, token_budgets=(64, 128))
    )
    model.warmup(passes=1)
    in_place(model.transformers_model)
    with pytest.raises(CompileError, match="a weight changed"):
        logits(model)


def test_every_shape_may_compile_anew_when_a_weight_has_changed(one_layer, dynamo_alone, caplog):
    """Also where each is a graph of its own, more than PyTorch's usual limit of eight."""
    sizes = tuple(range(64, 64 + 10 * 32, 32))
    static = Execution(freeze=True, dynamic=False, token_budgets=sizes)
    model = xenc.CrossEncoder(str(one_layer), device="cpu", execution=static, max_length=64)
    assert model.warmup().graphs == len(sizes)
    before = logits(model)
    in_place(model.model)
    assert not np.allclose(logits(model), before)
    assert "a weight changed" in caplog.text
    with torch.inference_mode():
        model.pipeline.run(list(model.pipeline.every_shape(batch_size=32)))
    assert model.pipeline.compiled.graphs == len(sizes)


def test_a_changed_buffer_is_a_changed_weight(one_layer):
    """Rotary frequencies, which a frozen graph holds too."""
    transformer = xenc.CrossEncoder(str(one_layer), device="cpu").model
    transformer.register_buffer("frequencies", torch.ones(3))
    version, total = weights_version(transformer), sum_of_weights(transformer)
    transformer.frequencies.mul_(0.3)
    assert weights_version(transformer) != version
    assert sum_of_weights(transformer) != total
