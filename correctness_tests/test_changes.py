"""Whatever is done to a model between two predictions, the next scores are sentence-transformers' own."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from dataclasses import replace

import numpy as np
import pytest
import sentence_transformers
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sentence_transformers.cross_encoder.evaluation import CrossEncoderCorrelationEvaluator

import xenc
from correctness_tests import checkpoints, model_changes
from correctness_tests.model_changes import ALONE, ATTACHED, CHANGES, NEUTRAL
from correctness_tests.scoring import nothing_compiles, on_cpu
from perf_tests import workloads
from xenc import PRESETS, Execution, ExecutionError

PAIRS = [
    (query[:40], document[:length])
    for (query, document), length in zip(
        workloads.seed(pairs=7, batch_size=8).round(4), (10, 90, 0, 200, 40, 15, 60), strict=True
    )
]

ON_A_CPU = [name for name in PRESETS if name != "packed-float8"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return checkpoints.make(tmp_path_factory.mktemp("changed"), "bert")


@pytest.fixture(scope="module")
def two_layers(tmp_path_factory):
    """All of whose tokens are computed in the first."""
    return checkpoints.make(tmp_path_factory.mktemp("changed"), "bert", num_hidden_layers=2)


def made(checkpoint, execution) -> xenc.CrossEncoder:
    return on_cpu(checkpoint, execution, activation_fn=torch.nn.Identity())


def assert_right(model: xenc.CrossEncoder) -> np.ndarray:
    """The scores are those that sentence-transformers' own predict gives for the same modules.

    Twice, since the first time puts the model into evaluation mode, which is a change too.
    """
    scores = [model.predict(PAIRS) for _ in range(2)]
    expected = sentence_transformers.CrossEncoder.predict(model, PAIRS)
    off = {"rtol": 0.1, "atol": 0.3} if model.execution.quantize else {"rtol": 1e-4, "atol": 1e-4}
    for each in scores:
        np.testing.assert_allclose(each, expected, **off)
    return scores[0]


@pytest.mark.parametrize("change", (CHANGES | ALONE).values(), ids=CHANGES | ALONE)
def test_a_change_shows_in_the_next_scores_and_is_gone_when_it_is_undone(two_layers, dynamo_alone, change):
    with made(two_layers, "packed-eager") as model, ExitStack() as undone:
        before = assert_right(model)
        undo = change(model)
        undone.callback(undo or (lambda: None))
        after = assert_right(model)
        assert change in NEUTRAL or np.abs(after - before).max() > 1e-2
        undone.close()
        assert_right(model)


def test_a_layer_that_looks_back_alone_scores_a_pair_as_sentence_transformers_does(two_layers):
    """Which it only does in a batch without padding."""
    with made(two_layers, "packed-eager") as model:
        before = model.predict(PAIRS[:1])
        model_changes.causal_layers(model)
        after = model.predict(PAIRS[:1])
        assert np.abs(after - before).max() > 1e-2
        np.testing.assert_allclose(after, sentence_transformers.CrossEncoder.predict(model, PAIRS[:1]))


@pytest.mark.parametrize("architecture", ["modernbert-windows", "qwen3-windows"])
@pytest.mark.parametrize("execution", ["packed-eager", Execution(compile_mode=None, products="torch")])
def test_another_window_in_the_configuration_shows_in_the_next_scores(tmp_path, execution, architecture):
    with made(checkpoints.make(tmp_path, architecture), execution) as model:
        before = assert_right(model)
        model.transformers_model.config.sliding_window = 2
        assert np.abs(assert_right(model) - before).max() > 1e-3


@pytest.fixture(scope="module")
def compiled(checkpoint):
    """Without a twin, so that it is the model itself whose graphs are compiled."""
    with made(checkpoint, Execution(products="torch", token_budgets=(256,), strict=True)) as model:
        model.warmup()
        yield model


@pytest.mark.parametrize("change", ATTACHED, ids=lambda change: change.__name__)
def test_after_warm_up_attached_code_runs_and_without_it_the_graphs_are_back(compiled, change):
    before, pipeline = assert_right(compiled), compiled.pipeline
    undo = change(compiled)
    try:
        after = assert_right(compiled)
    finally:
        undo()
    assert change in NEUTRAL or np.abs(after - before).max() > 1e-2
    with nothing_compiles():
        np.testing.assert_array_equal(compiled.predict(PAIRS), before)
    assert compiled.pipeline is pipeline


def test_a_forward_that_a_class_inherits_is_watched_too(checkpoint, dynamo_alone):
    class Base(torch.nn.Module):
        def __init__(self, inner: torch.nn.Module) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, *given: torch.Tensor) -> torch.Tensor:
            return self.inner(*given)

    class Derived(Base):
        pass

    with made(checkpoint, Execution(token_budgets=(256,))) as model:
        layer = model.transformers_model.bert.encoder.layer[0]
        layer.output = Derived(layer.output)
        before = assert_right(model)
        Base.forward = lambda self, *given: -self.inner(*given)
        assert np.abs(assert_right(model) - before).max() > 1e-2


@pytest.mark.parametrize("preset", ON_A_CPU)
def test_after_any_changes_one_after_another_scores_are_right(checkpoint, dynamo_alone, preset):
    refused = (
        {"pooler of somebody", "scores that depend on each other"} if PRESETS[preset].deterministic else set()
    )
    names = st.sampled_from(sorted(CHANGES.keys() - refused))
    changes = st.lists(st.tuples(names, st.booleans()), min_size=1, max_size=3)

    @settings(max_examples=8 if PRESETS[preset].compile_mode is None else 2)
    @given(changes=changes)
    def law(changes: list[tuple[str, bool]]) -> None:
        with made(checkpoint, preset) as model, ExitStack() as undone:
            assert_right(model)
            for name, at_once in changes:
                undo = CHANGES[name](model) or (lambda: None)
                undone.callback(undo)
                assert_right(model)
                if at_once:
                    undone.close()
                    assert_right(model)

    law()


def test_a_model_that_is_no_longer_deterministic_is_refused_until_it_is(checkpoint):
    with made(checkpoint, "packed-deterministic") as model:
        before = model.predict(PAIRS)
        undo = model_changes.pooler_of_somebody(model)
        with pytest.raises(
            ExecutionError, match=r"pooler of another.*layout='bucketed' without deterministic"
        ):
            model.predict(PAIRS)
        undo()
        np.testing.assert_array_equal(model.predict(PAIRS), before)


@pytest.mark.skipif(
    not hasattr(sentence_transformers.CrossEncoder, "_inference"), reason="sentence-transformers 6.0"
)
def test_a_subclass_that_overrides_a_step_of_predict_has_it_called(checkpoint):
    class Doubled(xenc.CrossEncoder):
        def _inference(self, *args, **kwargs):
            return super()._inference(*args, **kwargs) * 2

    doubled = Doubled(str(checkpoint), device="cpu", execution="packed-eager")
    np.testing.assert_allclose(
        doubled.predict(PAIRS), on_cpu(checkpoint, "packed-eager").predict(PAIRS) * 2, rtol=1e-4
    )


def test_a_model_that_was_compiled_runs_what_it_was_compiled_with(checkpoint):
    ran = []

    def backend(graph, inputs):
        return lambda *arguments: ran.append(1) or graph.forward(*arguments)

    with made(checkpoint, "packed-eager") as model:
        assert_right(model)
        model.compile(backend=backend)
        assert_right(model)
        count = len(ran)
        model.predict(PAIRS)
        assert len(ran) > count > 0


def test_what_is_attached_is_said_once(checkpoint, caplog):
    model = made(checkpoint, "packed-eager")
    model.transformers_model.classifier.register_forward_hook(model_changes.mixed)
    with caplog.at_level(logging.INFO, logger="xenc"):
        for _ in range(2):
            model.predict(PAIRS)
    [said] = [record.message for record in caplog.records if "own predict" in record.message]
    assert said.startswith("somebody's hooks run in 0.model.classifier")


def test_an_execution_that_the_model_could_not_run_is_back_when_it_can(checkpoint, caplog):
    model = made(checkpoint, "packed-eager")
    asked, network = model.execution, model.transformers_model
    model[0].model = type("Renamed", (type(network),), {"__module__": __name__})(network.config)
    model[0].model.load_state_dict(network.state_dict())
    for _ in range(2):
        assert_right(model)
    assert model.execution.layout == "bucketed"
    assert caplog.text.count("execution.layout is now 'bucketed'") == 1
    model[0].model = network
    assert_right(model)
    assert model.execution == asked


@pytest.mark.parametrize(
    "execution", ["packed-eager", "eager-sorted", replace(PRESETS["packed-eager"], products="torch")]
)
def test_the_model_keeps_the_attention_that_it_was_set_to(checkpoint, execution):
    model = made(checkpoint, execution)
    for attention in ("sdpa", "eager"):
        model.transformers_model.set_attn_implementation(attention)
        assert_right(model)
        assert model.transformers_model.config._attn_implementation == attention


@pytest.mark.parametrize("execution", ["packed-eager", "sdpa-sorted"])
def test_a_training_run_with_a_fused_optimiser_sees_the_originals_evaluations(checkpoint, execution):
    model = made(checkpoint, execution)
    modules = list(model.children())
    original = sentence_transformers.CrossEncoder(modules=modules, activation_fn=torch.nn.Identity())
    evaluate = CrossEncoderCorrelationEvaluator(PAIRS, [0.9, 0.1, 0.0, 0.8, 0.3, 0.5, 0.7])
    step, found = model_changes.optimised(fused=True, lr=3e-3), []
    for _ in range(5):
        found.append(evaluate(model)["pearson"])
        np.testing.assert_allclose(found[-1], evaluate(original)["pearson"], atol=1e-4)
        step(model)
    assert np.ptp(found) > 0.01
