"""After the last layer's attention only the tokens that the head reads are computed, unless someone looks."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor

import xenc
from correctness_tests import checkpoints, scoring
from correctness_tests.kernels.test_replace import LowRank
from correctness_tests.scoring import assert_close, assert_oracles, nothing_compiles, on_cpu
from xenc import Execution
from xenc.models import foreign_code
from xenc.models.families import packable

TOKENS = 512
EAGER = Execution(token_budgets=(TOKENS,), compile_mode=None)
PAIRS = [("a question", "an answer " * words) for words in (1, 9, 30, 12, 5)]
FAMILIES = ("bert", "roberta", "xlm-roberta", "camembert", "electra")


logits = partial(scoring.logits, pairs=PAIRS)
made = partial(on_cpu, execution=EAGER)


def slots_of(model: xenc.CrossEncoder) -> int:
    [batch] = model.pipeline.plan(model.pipeline.tokenize(PAIRS), batch_size=1).batches
    assert batch.tokens == TOKENS > 4 * batch.max_sequences
    return batch.max_sequences


def body_of(model: xenc.CrossEncoder):
    return model.transformers_model.base_model


def last_of(model: xenc.CrossEncoder):
    return body_of(model).encoder.layer[-1]


@contextmanager
def rows_of(*kinds: type[torch.nn.Module]) -> Iterator[list[int]]:
    """How many tokens each call of such modules gets; by their class, and counting is nobody else's code."""
    seen: list[int] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(foreign_code, "_KNOWN", (*foreign_code._KNOWN, __name__))
        for kind in kinds:

            def count(module: torch.nn.Module, rows: Tensor, *others: Tensor, call=kind.forward) -> Tensor:
                seen.append(rows.shape[1])
                return call(module, rows, *others)

            patch.setattr(kind, "forward", count)
        yield seen


@pytest.fixture(scope="module")
def two_layers(tmp_path_factory):
    return checkpoints.make(tmp_path_factory.mktemp("bert"), "bert", num_hidden_layers=2)


@pytest.fixture
def model(two_layers):
    return made(two_layers)


@pytest.mark.parametrize("family", FAMILIES)
def test_after_the_last_attention_there_is_a_row_for_each_slot(family, tmp_path):
    model = made(checkpoints.make(tmp_path, family, num_hidden_layers=2))
    last = last_of(model)
    with rows_of(type(last.attention.output), type(last.intermediate), type(last.output)) as seen:
        scores = logits(model)
    assert seen == [TOKENS] * 3 + [slots_of(model)] * 3
    assert_oracles(scores, tmp_path, PAIRS)


def test_a_quantised_twin_computes_as_few(two_layers):
    pytest.importorskip("torchao.quantization", reason="not installed: pip install 'xenc[torchao]'")
    model = made(two_layers, execution=replace(EAGER, quantize="int8"))
    with rows_of(type(last_of(model).intermediate)) as seen:
        logits(model)
    assert seen == [TOKENS, slots_of(model)]


@pytest.mark.parametrize(
    "name", ["", "encoder", *(f"encoder.layer.1{part}" for part in ("", ".attention", ".output.dense"))]
)
def test_a_hook_on_what_would_be_passed_over_sees_what_sentence_transformers_shows_it(model, name):
    before, seen = logits(model), []
    watched = body_of(model).get_submodule(name)

    def look(module, inputs, given, output):
        first = next(iter(output.values())) if isinstance(output, dict) else output
        seen.append((first[0] if isinstance(first, tuple) else first).shape)

    handle = watched.register_forward_hook(look, with_kwargs=True)
    assert_close(logits(model), before, 1e-5)
    [shape] = seen
    assert shape[0] == len(PAIRS)
    handle.remove()
    with rows_of(type(last_of(model).intermediate)) as rows:
        logits(model)
    assert rows == [TOKENS, slots_of(model)]


def test_a_module_of_the_users_own_sees_all_tokens(model):
    last = last_of(model)
    last.intermediate.dense = LowRank(last.intermediate.dense)
    with rows_of(type(last.intermediate)) as seen:
        logits(model)
    assert seen[-2:] == [TOKENS] * 2  # before it, three pairs are tried on a module of the user's


def test_a_hook_that_is_set_after_warm_up_changes_compiled_scores_too(two_layers):
    with made(two_layers, execution=Execution(token_budgets=(TOKENS,))) as model:
        model.warmup()
        before = logits(model)
        for each in (model, eager := made(two_layers)):
            last_of(each).register_forward_hook(lambda module, inputs, output: output.roll(1, dims=1))
        changed = logits(eager)
        assert np.abs(changed - before).max() > 0.1
        assert_close(logits(model), changed)


def test_hidden_states_asked_for_once_leave_pipeline_and_graphs_as_they_are(two_layers):
    with made(two_layers, execution=Execution(token_budgets=(TOKENS,), strict=True)) as model:
        model.warmup()
        before, pipeline = logits(model), model.pipeline
        inputs = model.tokenizer("a", "b", return_tensors="pt")
        states = model.transformers_model(**inputs, output_hidden_states=True).hidden_states
        assert [state.shape[1] for state in states] == [inputs["input_ids"].shape[1]] * 3
        with nothing_compiles():
            np.testing.assert_array_equal(logits(model), before)
        assert model.pipeline is pipeline


def test_the_model_itself_is_as_it_was_and_learns_as_it_would(two_layers):
    used, untouched = made(two_layers), made(two_layers)
    modules = [(module, dict(vars(module))) for module in used.transformers_model.modules()]
    logits(used)
    for module, attributes in modules[1:]:  # the first notes its attention implementation
        assert vars(module).keys() == attributes.keys()
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
    assert [module for module, _ in modules] == list(used.transformers_model.modules())
    gradients = []
    for model in (used, untouched, copy.deepcopy(used)):
        inputs = model.tokenizer(
            *zip(*PAIRS, strict=True), truncation=True, padding=True, return_tensors="pt"
        )
        part = model.transformers_model.eval()
        part.set_attn_implementation("sdpa")
        part(**inputs).logits.square().sum().backward()
        gradients.append([parameter.grad for parameter in part.parameters()])
    for other in gradients[1:]:
        torch.testing.assert_close(other, gradients[0])


@pytest.mark.parametrize("architecture", ["distilbert", "modernbert", "modernbert-mean", "qwen2", "qwen3"])
def test_families_of_other_layers_are_left_as_they_are(architecture, tmp_path):
    model = made(checkpoints.make(tmp_path, architecture)).transformers_model
    assert not packable(model).pooled_alone
